"""`pcs-agent build`: one signed record on standard output, nothing sent."""

from __future__ import annotations

import click
import msgspec

from pcs_agent import app
from pcs_agent.cli.options import (
    epoch_option,
    key_file_option,
    read_config,
    settings_from,
    standard_input,
    stream_options,
    vrf_key_file_option,
)
from pcs_agent.cli.output import warn
from pcs_agent.streams import print_text
from pcs_agent.wording import count_of
from pcs_core.record import encode_record


@click.command()
@click.argument("file")
@epoch_option("record")
@stream_options
@key_file_option
@vrf_key_file_option
def build(*, file: str, key_file: str | None, vrf_key_file: str | None, **values: object) -> None:
    """Print the signed record of FILE as JSON.

    Nothing is sent and no outbox is touched; outbox_seq is 0. FILE may be - for standard input.

    \b
    Exit codes:
      0  printed
      1  interrupted (Ctrl-C), or standard output cannot be written
      2  usage, input or configuration

    \b
    Examples:
      pcs-agent build events.csv --shard-id s1 --epoch 0
      pcs-agent build answers.txt --text sentence --shard-id s1 --epoch 0
      pcs-agent build points.npy --shard-id s1 --epoch 7 --scales 2,4,8 --seed 1 --key-file agent.key
    """  # noqa: D301  # \b is click's
    config = read_config(key_file, vrf_key_file=vrf_key_file)
    request = msgspec.convert(settings_from(values | {"inputs": [file]}), app.StreamRequest)
    record, events = app.build_once(config, request, standard_input, warn)
    if record.ft.degraded:
        warn(f"epoch {record.epoch}: {count_of(events, 'event')}, degraded: {', '.join(record.ft.fallbacks)}")
    print_text(encode_record(record).decode("utf-8"))
