"""`pcs-agent run`: summarise a stream and deliver it."""

from __future__ import annotations

import threading
from typing import NoReturn

import click
import msgspec

from pcs_agent import app, many
from pcs_agent.cli.delivery import run_delivery
from pcs_agent.cli.options import (
    ca_file_option,
    epoch_option,
    json_option,
    key_file_option,
    read_config,
    settings_from,
    standard_input,
    stream_options,
    vrf_key_file_option,
)
from pcs_agent.cli.output import warn
from pcs_agent.config import Config
from pcs_agent.engines import ENGINES, JOBS_MAX
from pcs_agent.events.chunks import CHUNKED_EVENTS_MAX


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@epoch_option("first window")
@stream_options
@click.option(
    "--window",
    "window_rows",
    type=click.IntRange(1, CHUNKED_EVENTS_MAX),
    help="Events a window; window k has epoch N+k, the short last one is kept. Without it, one window of everything.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Read the last file as it grows, rotations included, until Ctrl-C; then deliver what was read.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0.001, 604_800),
    help="Seconds one record is retried from its first attempt on, instead of DELIVERY_DEADLINE_S (900).",
)
@click.option(
    "--each",
    is_flag=True,
    help="Make every file a stream of its own, listed ones too; folders and quoted patterns are always many streams.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    help="Of many streams: how many are summarised at once. Without it, as many as there are cores.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Of many streams: what summarises them. local (default): processes of this machine; ray, dask: a cluster, which "
    "must see the files under the same paths (extras ray and dask).",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Ray or Dask cluster that runs already, such as tcp://host:8786. Without it, one of this machine for the run.",
)
@key_file_option
@vrf_key_file_option
@ca_file_option
@json_option
def run(
    *,
    each: bool,
    jobs: int | None,
    engine: str | None,
    cluster: str | None,
    key_file: str | None,
    vrf_key_file: str | None,
    ca_file: str | None,
    deadline_s: float | None,
    as_json: bool,
    **values: object,
) -> None:
    """Summarise INPUT… and deliver one signed record per window.

    INPUT is a file, - for standard input, a folder, or a pattern in quotes; several files are one stream in order. What an
    earlier run left in the outbox is delivered first.

    \b
    Rows of numbers: csv, jsonl (.jsonl, .ndjson), npy, npz, parquet, arrow (.arrow, .arrows, .feather)
    Text, through an embedder: text (.txt, .md, .log), chat (--format chat: JSON Lines of messages)
    Token ids: tokens (.tokens; --format tokens: one id or JSON array a line, or .npy)

    Rows are events, numeric columns are coordinates. Of text a token is an event, or a sentence or a line with --text.

    A folder (with all below it) or a pattern ('data/*.csv', ** for any folders) is many streams, one a file, and so is every
    file with --each. The shard of each is --shard-id, a slash and the file's path below the folder, below the last folder
    before a wildcard, or its bare name where it was listed; what a shard may not hold becomes + and two hexadecimal digits.
    All cores summarise. A file that cannot be read is told of at once, the others go on, and the exit code is 2 in the end.

    The first event decides the columns of CSV and JSON Lines: those with a number are taken, those with text are left
    out and named in a warning, and an empty, null or n/a cell there is refused; --columns chooses others.

    The table is sorted by epoch; --json prints each record when it is settled, in that order.

    \b
    Exit codes:
      0  all delivered (accepted or escalated)
      1  something became a dead letter or is still pending in the outbox, or a signal (Ctrl-C, SIGTERM) ended it:
         what waits stays in the outbox. With --follow the first signal ends the input alone
      2  usage, input or configuration

    \b
    Examples:
      ENDPOINT=http://127.0.0.1:8080/v1/pcs/submit pcs-agent run a.csv --shard-id s1 --epoch 0
      pcs-agent run day1.npy day2.npy --shard-id s1 --epoch 100 --window 10000 --json
      pcs-agent run big.npy --shard-id s1 --epoch 7 --chunk 100000
      pcs-agent run data/ --shard-id plant --epoch 0 --jobs 4
      tail -n +1 log.jsonl | pcs-agent run - --format jsonl --shard-id s1 --epoch 0 --window 500
      pcs-agent run answers.txt --shard-id writer --epoch 0 --window 200
      pcs-agent run talks.jsonl --format chat --text sentence --shard-id talks --epoch 0
      pcs-agent run app.log --follow --text line --window 1000 --shard-id app --epoch 0
    """  # noqa: D301  # \b is click's
    config = read_config(key_file, ca_file, vrf_key_file)
    request = msgspec.convert(settings_from(values), app.StreamRequest)
    if deadline_s is not None:
        config = config.with_deadline(deadline_s)
    chosen = {"--jobs": jobs, "--engine": engine, "--cluster": cluster}
    if not many.is_many(request.inputs, each=each):
        for option, value in chosen.items():
            if value is not None:
                raise click.UsageError(
                    f"{option}: found with one stream; allowed: with many, a folder, a pattern or --each"
                )
        _run_one(config, request, as_json=as_json)
    if request.follow:
        raise click.UsageError("--follow: found with many streams; allowed: with one")
    if cluster is not None and engine in {None, "local"}:
        raise click.UsageError(
            "--cluster: found without a cluster's engine; allowed: with --engine ray or dask"
        )
    by = many.ManyRequest(engine=engine or "local", jobs=jobs, cluster=cluster)
    run_delivery(
        lambda report, progress, stop: many.run_streams(
            config,
            request,
            by,
            report=report,
            warn=warn,
            announce=progress.expect_files,
            advance=progress.advance_files,
            stop=stop,
        ),
        as_json=as_json,
        by_shard=True,
    )


def _run_one(config: Config, request: app.StreamRequest, *, as_json: bool) -> NoReturn:
    """Run one stream to its end, and exit."""
    input_ended = threading.Event()

    def end_input() -> None:
        warn("the input is ended; what was read is delivered; once more to stop")
        input_ended.set()

    run_delivery(
        lambda report, progress, stop: app.run_stream(
            config,
            request,
            standard_input,
            report=report,
            warn=warn,
            announce=progress.expect,
            stop=stop,
            input_ended=input_ended,
        ),
        as_json=as_json,
        end_input=end_input if request.follow else None,
    )
