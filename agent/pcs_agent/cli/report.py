"""`pcs-agent report`: show streams, as one page or on the terminal."""

from __future__ import annotations

import contextlib
import os
import sys

import click
import msgspec

from pcs_agent import app
from pcs_agent.cli.options import (
    key_file_option,
    read_config,
    settings_from,
    standard_input,
    stream_options,
)
from pcs_agent.cli.output import warn
from pcs_agent.errors import ConfigError
from pcs_agent.events import STANDARD_INPUT
from pcs_agent.events.windows import WINDOW_EVENTS_MAX
from pcs_agent.report.gathering import ReportRequest, gather
from pcs_agent.report.streams import Streams
from pcs_agent.report.terminal import print_streams
from pcs_agent.streams import name_of, print_text
from pcs_agent.wording import display_name
from pcs_core.identity import EPOCH_MAX
from pcs_core.wal import PosixFiles

_PAGE_MODE = 0o644


@click.command()
@click.argument("inputs", nargs=-1, metavar="[INPUT…]")
@click.option(
    "--epoch",
    type=click.IntRange(0, EPOCH_MAX),
    default=0,
    show_default=True,
    help="Epoch of the first window.",
)
@stream_options
@click.option(
    "--window",
    "window_rows",
    type=click.IntRange(1, WINDOW_EVENTS_MAX),
    help="Events a window; the short last one is kept. Without it, one window of everything.",
)
@click.option(
    "--outbox", "outbox_dir", metavar="FOLDER", help="Outbox whose records and answers are shown too."
)
@click.option(
    "--records",
    "record_files",
    metavar="FILE",
    multiple=True,
    help="File with a record as JSON, or with one a line; - for standard input. May be given several times.",
)
@click.option("-o", "--out", metavar="FILE", help="Write the page there, in place of what was there.")
@click.option("--terminal", is_flag=True, help="Print text instead of a page, whatever standard output is.")
@key_file_option
def report(
    *,
    key_file: str | None,
    outbox_dir: str | None,
    record_files: tuple[str, ...],
    out: str | None,
    terminal: bool,
    **values: object,
) -> None:
    """Show streams: one self-contained HTML page, or text.

    INPUT is what `pcs-agent run` takes, with the same options. Each is a stream of its own, unless --shard-id is given:
    then they are one stream in order. An outbox and files of records add streams of their own; of events that are in the
    outbox too, the backend's answer is shown, of others what the local checks find. Nothing is sent, signed or changed,
    and an outbox may be in use meanwhile.

    Without -o a terminal gets text, and anything else the page, which needs the extra: pip install
    'pcs-verification[report]'.

    \b
    Exit codes:
      0  shown
      1  one of several inputs could not be read, which the report says, or the report cannot be written
      2  usage, input or configuration

    \b
    Examples:
      pcs-agent report events.csv
      pcs-agent report a.csv b.npy c.parquet --window 1000 -o report.html
      pcs-agent report events.csv --shard-id s1 --epoch 7 --outbox ./outbox -o report.html
      pcs-agent report --outbox ./outbox --terminal
      pcs-agent build events.csv --shard-id s1 --epoch 0 | pcs-agent report --records - -o record.html
    """  # noqa: D301  # \b is click's
    inputs = values.pop("inputs")
    assert isinstance(inputs, tuple)
    if not (inputs or outbox_dir or record_files):
        raise click.UsageError("found nothing to show; allowed: an INPUT, --outbox or --records")
    if terminal and out is not None:
        raise click.UsageError("--terminal and --out: found both; allowed: one of them")
    if (*inputs, *record_files).count(STANDARD_INPUT) > 1:
        raise click.UsageError("standard input: found it named twice; allowed: once")
    as_text = terminal or (out is None and sys.stdout.isatty())
    if not as_text:
        _require_extra()
    shard_id = values.pop("shard_id")
    stream = settings_from(values | {"inputs": inputs, "shard_id": shard_id or "-"})
    request = ReportRequest(
        stream=msgspec.convert(stream, app.StreamRequest),
        joined=shard_id is not None,
        outbox_dir=outbox_dir,
        record_files=record_files,
    )
    streams = gather(read_config(key_file), request, standard_input, PosixFiles(), warn)
    if as_text:
        print_streams(streams)
    else:
        _put_page(streams, out)
    click.get_current_context().exit(1 if streams.has_problems else 0)


# The shard names the one stream of a run; here there may be none such.
for _parameter in report.params:
    if isinstance(_parameter, click.Option) and _parameter.name == "shard_id":
        _parameter.required = False
        _parameter.help = (
            f"Take the inputs as one stream in order, summarised by this shard. {_parameter.help}"
        )


def _require_extra() -> None:
    """Refuse before anything is read, if what the page is made with is not installed.

    Raises:
        ConfigError: It is not.
    """
    try:
        import jinja2  # noqa: F401, PLC0415  # of an extra
        import matplotlib as mpl  # noqa: F401, PLC0415
    except ImportError as error:
        missing = error.name or "a package"
    else:
        return
    raise ConfigError(
        f"report: found no {missing}; allowed: pip install 'pcs-verification[report]', or --terminal for text"
    )


def _put_page(streams: Streams, out: str | None) -> None:
    from pcs_agent.report.page import render_page  # noqa: PLC0415  # with what the extra brings

    page = render_page(streams)
    if out is None:
        print_text(page)
        return
    problem = ""
    try:
        _write(out, page.encode("utf-8"))
    except OSError as error:
        problem = name_of(error)
    except ValueError:
        problem = "not a file name"
    if problem:
        raise ConfigError(f"--out: {display_name(out)}: cannot be written: {problem}")


def _write(path: str, data: bytes) -> None:
    """Write a file, so that at any time there is the old one or the new one whole; what is no file is written to."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            file.write(data)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PAGE_MODE)
        with open(handle, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
