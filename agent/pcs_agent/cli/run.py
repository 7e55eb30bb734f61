"""`pcs-agent run`: summarise a stream and deliver it."""

from __future__ import annotations

import threading

import click
import msgspec

from pcs_agent import app
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
@key_file_option
@vrf_key_file_option
@ca_file_option
@json_option
def run(
    *,
    key_file: str | None,
    vrf_key_file: str | None,
    ca_file: str | None,
    deadline_s: float | None,
    as_json: bool,
    **values: object,
) -> None:
    """Summarise INPUT… and deliver one signed record per window.

    INPUT is a file or - for standard input; several inputs are one stream in order. What an earlier run left in the outbox
    is delivered first.

    \b
    Rows of numbers: csv, jsonl (.jsonl, .ndjson), npy, npz, parquet, arrow (.arrow, .arrows, .feather)
    Text, through an embedder: text (.txt, .md, .log), chat (--format chat: JSON Lines of messages)
    Token ids: tokens (.tokens; --format tokens: one id or JSON array a line, or .npy)

    Rows are events, numeric columns are coordinates. Of text a token is an event, or a sentence or a line with --text.

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
      tail -n +1 log.jsonl | pcs-agent run - --format jsonl --shard-id s1 --epoch 0 --window 500
      pcs-agent run answers.txt --shard-id writer --epoch 0 --window 200
      pcs-agent run talks.jsonl --format chat --text sentence --shard-id talks --epoch 0
      pcs-agent run app.log --follow --text line --window 1000 --shard-id app --epoch 0
    """  # noqa: D301  # \b is click's
    config = read_config(key_file, ca_file, vrf_key_file)
    request = msgspec.convert(settings_from(values), app.StreamRequest)
    if deadline_s is not None:
        config = config.with_deadline(deadline_s)
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
