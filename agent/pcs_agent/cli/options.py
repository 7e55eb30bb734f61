"""Options and argument types that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, BinaryIO, TypeVar, get_args

import click
from click.core import ParameterSource

from pcs_agent.cli.output import warn
from pcs_agent.config import PCS_VRF_SECRET_B64, Config, read_environment
from pcs_agent.embed.choice import EMBEDDER_DEFAULT, EMBEDDERS, UNIT_DEFAULT
from pcs_agent.embed.hashing import CONTEXT_DEFAULT, CONTEXT_MAX, DIMENSION_DEFAULT, DIMENSION_MAX
from pcs_agent.events import FORMATS
from pcs_agent.events.chunks import CHUNKED_EVENTS_MAX
from pcs_agent.events.units import SPLITS
from pcs_agent.logs import configure_logs
from pcs_agent.signals.compressibility import RMethod
from pcs_agent.signals.dimension import (
    PLAIN_DIMENSIONS_MAX,
    PLAIN_SCALES,
    PROJECTED_DEFAULT,
    PROJECTED_MAX,
)
from pcs_agent.signals.summary import (
    BINS_DEFAULT,
    BINS_MAX,
    DIRECTIONS_DEFAULT,
    DIRECTIONS_MAX,
    SEED_DEFAULT,
    Search,
)
from pcs_core.identity import EPOCH_MAX, SHARD_ID_RULE, is_shard_id
from pcs_core.record import SCALES_MAX, SCALES_MIN, SEED_MAX

F = TypeVar("F", bound=Callable[..., Any])

_SCALE_MAX = 2**63 - 1


class ShardIdType(click.ParamType[str]):
    """A shard's name."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """Return the name if it is one; the message does not repeat it, for it may hold personal data."""
        text = str(value)
        if not is_shard_id(text):
            self.fail(f"found a string of length {len(text)}; allowed: {SHARD_ID_RULE}", param, ctx)
        return text


class ScalesType(click.ParamType[tuple[int, ...]]):
    """Comma-separated scales."""

    name = "int,int,…"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        """Return the scales as integers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        plain = all(part.strip().isascii() and part.strip().isdigit() and len(part) < 24 for part in parts)
        scales = tuple(int(part) for part in parts) if plain else ()
        rising = all(left < right for left, right in pairwise(scales))
        if not (
            SCALES_MIN <= len(scales) <= SCALES_MAX and rising and scales[0] >= 1 and scales[-1] <= _SCALE_MAX
        ):
            self.fail(
                f"allowed: {SCALES_MIN} to {SCALES_MAX} strictly increasing integers from 1, comma-separated",
                param,
                ctx,
            )
        return scales


class ColumnsType(click.ParamType[tuple[str, ...]]):
    """Comma-separated columns."""

    name = "a,b,…"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """Return the names or positions, without white space around them."""
        if isinstance(value, tuple):
            return value
        columns = tuple(part.strip() for part in str(value).split(","))
        if not all(columns):
            self.fail("found an empty name; allowed: names or positions, comma-separated", param, ctx)
        if len(set(columns)) < len(columns):
            self.fail("found a column named twice; allowed: each once", param, ctx)
        return columns


def stream_options(command: F) -> F:
    """Add the options of everything that summarises a stream, the epoch's aside."""
    for option in reversed(
        (
            click.option(
                "--shard-id", type=ShardIdType(), required=True, help=f"Who summarises: {SHARD_ID_RULE}."
            ),
            click.option(
                "--scales",
                type=ScalesType(),
                help=f"Cells per axis. Without it {','.join(map(str, PLAIN_SCALES))} for up to {PLAIN_DIMENSIONS_MAX} columns, "
                "and for more those at which the counts tell of the shape.",
            ),
            click.option(
                "--d-hat-dimensions",
                type=click.IntRange(1, PROJECTED_MAX),
                default=PROJECTED_DEFAULT,
                show_default=True,
                help=f"Principal directions along which cells are counted of rows of more than {PLAIN_DIMENSIONS_MAX} columns.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(0, SEED_MAX),
                default=SEED_DEFAULT,
                show_default=True,
                help="Seed of the sampled directions.",
            ),
            click.option(
                "--directions",
                type=click.IntRange(1, DIRECTIONS_MAX),
                default=DIRECTIONS_DEFAULT,
                show_default=True,
                help="How many directions.",
            ),
            click.option(
                "--bins",
                type=click.IntRange(1, BINS_MAX),
                default=BINS_DEFAULT,
                show_default=True,
                help="Bins per direction.",
            ),
            click.option(
                "--search",
                type=click.Choice(get_args(Search)),
                default="sampled",
                show_default=True,
                help="How the best direction is found: among sampled ones, or by steps from the best of fewer.",
            ),
            click.option(
                "--r-method",
                type=click.Choice(get_args(RMethod)),
                default="symbols",
                show_default=True,
                help="What r is measured on: codes of rows and bytes of text, or zlib's ratio as in records of 0.1.",
            ),
            click.option(
                "--codebook",
                metavar="FILE",
                help="Codebook of `codebook train` that gives rows their codes; without it, one is trained on each window.",
            ),
            click.option(
                "--format",
                "format_name",
                type=click.Choice(FORMATS),
                help="Format of standard input and of files without a known ending; csv for standard input. Where all endings are "
                "known it overrides them; text, chat and tokens do so always.",
            ),
            click.option(
                "--text",
                "unit",
                type=click.Choice(tuple(SPLITS)),
                default=UNIT_DEFAULT,
                show_default=True,
                help="What an event of text or of a chat is.",
            ),
            click.option(
                "--embedder",
                type=click.Choice(EMBEDDERS),
                default=EMBEDDER_DEFAULT,
                show_default=True,
                help="How text becomes vectors: hashed n-grams of characters, or a small transformer (extra text).",
            ),
            click.option(
                "--embedding-dimensions",
                "dimension",
                type=click.IntRange(1, DIMENSION_MAX),
                help=f"Numbers of a hashed vector of text or of a token ({DIMENSION_DEFAULT}).",
            ),
            click.option(
                "--context",
                type=click.IntRange(1, CONTEXT_MAX),
                help=f"Events a hashed vector is the mean of, the event and those before it ({CONTEXT_DEFAULT}).",
            ),
            click.option(
                "--columns",
                type=ColumnsType(),
                help="Columns by name, or by position from 0 where there are no names. Without it, those with a number in the "
                "first event.",
            ),
            click.option(
                "--chunk",
                "chunk_rows",
                type=click.IntRange(1, CHUNKED_EVENTS_MAX),
                help="Rows read at a time of windows larger than memory, in several passes; the record is the same. What is no "
                ".npy file stored by rows is written into a temporary file first.",
            ),
            click.option(
                "--allow-missing",
                is_flag=True,
                help="Make a degraded record of missing or empty input instead of stopping.",
            ),
        )
    ):
        command = option(command)
    return command


def epoch_option(of: str) -> Callable[[F], F]:
    """Return the option `--epoch`.

    Args:
        of: What has that epoch.
    """
    return click.option(
        "--epoch", type=click.IntRange(0, EPOCH_MAX), required=True, help=f"Epoch of the {of}."
    )


key_file_option = click.option(
    "--key-file",
    metavar="FILE",
    help="Key to use instead of the environment's: PEM or base64; the secret itself with PCS_SIGN_ALG=hmac.",
)

vrf_key_file_option = click.option(
    "--vrf-key-file",
    metavar="FILE",
    help="Key that proves the directions, instead of PCS_VRF_SECRET_B64: base64 of its 32-byte seed.",
)

ca_file_option = click.option(
    "--ca-file",
    metavar="FILE",
    help="Certificate authorities to trust instead of the system's, PEM; as TLS_CA_FILE.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")


def settings_from(values: dict[str, object]) -> dict[str, object]:
    """Move the options of the signals and of text into objects of their own, as `StreamRequest` has them."""
    groups = {
        "settings": ("scales", "seed", "directions", "bins", "d_hat_dimensions", "r_method", "search"),
        "text": ("unit", "embedder", "dimension", "context"),
    }
    moved = {name for names in groups.values() for name in names}
    return {key: value for key, value in values.items() if key not in moved} | {
        group: {name: values[name] for name in names} for group, names in groups.items()
    }


def read_config(
    key_file: str | None = None, ca_file: str | None = None, vrf_key_file: str | None = None
) -> Config:
    """Read the environment, and send logs where it says.

    Raises:
        UsageError: `--seed` is given and seeds follow from a key.
    """
    config = read_environment(key_file, ca_file, vrf_key_file)
    seed_source = click.get_current_context().get_parameter_source("seed")
    if config.direction_key is not None and seed_source is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            f"--seed: found one beside {PCS_VRF_SECRET_B64} or --vrf-key-file, from which seeds follow; allowed: one of them"
        )
    configure_logs(config.log_level)
    for message in config.warnings:
        warn(message)
    return config


def standard_input() -> BinaryIO:
    """Return standard input, binary.

    Through a reader of its own: a thread may still wait on it when the process ends, and the interpreter, which closes
    `sys.stdin`, would die of the lock that thread holds.
    """
    try:
        handle = sys.stdin.fileno()
    except (OSError, ValueError):  # a test's stand-in
        return sys.stdin.buffer
    return open(handle, "rb", closefd=False)
