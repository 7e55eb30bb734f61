"""`pcs-agent codebook`: train the codebook that gives rows their codes."""

from __future__ import annotations

import click

from pcs_agent import app
from pcs_agent.cli.options import ColumnsType, standard_input
from pcs_agent.cli.output import warn
from pcs_agent.errors import ConfigError
from pcs_agent.events import FORMATS
from pcs_agent.signals.codebook import CODES_MAX, SUBSPACES_MAX
from pcs_agent.signals.codebook_file import encode_codebook
from pcs_agent.signals.quantise import SEED_DEFAULT
from pcs_agent.signals.training import CODES_DEFAULT, SUBSPACES_DEFAULT
from pcs_agent.streams import print_text
from pcs_agent.wording import count_of, display_name
from pcs_core.record import SEED_MAX


@click.group()
def codebook() -> None:
    """Codebooks for r: which code a row gets."""


@codebook.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option(
    "-o", "--out", required=True, metavar="FILE", help="Where the codebook goes. Never overwritten."
)
@click.option(
    "--subspaces",
    type=click.IntRange(1, SUBSPACES_MAX),
    default=SUBSPACES_DEFAULT,
    show_default=True,
    help="Codes of a row; with fewer columns, each is one.",
)
@click.option(
    "--codes",
    type=click.IntRange(2, CODES_MAX),
    default=CODES_DEFAULT,
    show_default=True,
    help="Size of the alphabet.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_MAX),
    default=SEED_DEFAULT,
    show_default=True,
    help="Seed of sample and first centroids.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="Format of standard input and of files without a known ending; csv for standard input.",
)
@click.option("--columns", type=ColumnsType(), help="Columns, as `run` takes them.")
def train(
    *,
    inputs: tuple[str, ...],
    out: str,
    subspaces: int,
    codes: int,
    seed: int,
    format_name: str | None,
    columns: tuple[str, ...] | None,
) -> None:
    """Train a codebook on the rows of INPUT… for `run --codebook`.

    Train once on healthy streams and keep the file: r of two streams compares only under the same codebook. Text and
    tokens need none. The rows are read into memory; the same rows and seed give the same file on any machine.

    \b
    Exit codes:
      0  written
      2  usage, input, or the file exists or cannot be written

    \b
    Examples:
      pcs-agent codebook train healthy.npy -o healthy.codebook
      pcs-agent run today.npy --shard-id s1 --epoch 0 --codebook healthy.codebook
    """  # noqa: D301  # \b is click's
    trained = app.train_codebook_of(
        inputs,
        standard_input,
        warn,
        format_name=format_name,
        columns=columns,
        subspaces=subspaces,
        codes=codes,
        seed=seed,
    )
    _write_new(out, encode_codebook(trained))
    print_text(
        f"{display_name(out)}: {count_of(trained.subspaces, 'subspace')} of {trained.dimensions} columns, "
        f"{trained.codes} codes, trained on {count_of(trained.training_rows, 'row')}"
    )
    print_text(f"sha256 {trained.digest}")


def _write_new(path: str, data: bytes) -> None:
    try:
        with open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        problem = "found an existing file; allowed: a new one"
    except (OSError, ValueError) as error:
        problem = f"cannot be written: {getattr(error, 'strerror', None) or 'not a file name'}"
    else:
        return
    raise ConfigError(f"--out: {display_name(path)}: {problem}")
