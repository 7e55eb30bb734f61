"""`pcs-backend tap`: verdicts as they are made, without any payload."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import get_args

import aiohttp
import click
import msgspec
import orjson
import uvloop
from rich.console import Console
from rich.text import Text

from pcs_backend.cli.folder import prepare_settings, serving_process
from pcs_backend.effects.tap import Lost, Sighting
from pcs_backend.errors import BackendError
from pcs_backend.http.tap_stream import TAP_PATH
from pcs_core.regime import Regime

_STYLES = {200: "green", 202: "yellow"}
_VERDICTS = {200: "accepted", 202: "escalated", 503: "unavailable"}


@click.command(
    epilog="""
\b
Examples:
  pcs-backend tap
  pcs-backend tap --status 202 --tenant plants
  pcs-backend tap --status 401 --limit 20 --json | jq -r .reasons[]

\b
Shows every answer to a submit, and what is judged of the backlog, from now on. What a refused request says of itself is
shown as it came: nothing of it was proved. A reader that is too slow loses lines and is told how many.
Exit codes: 0 ended by Ctrl-C, --limit or --seconds; 1 nothing serves DATA_DIR, or the service stopped; 2 usage, configuration.
"""
)
@click.option("--tenant", default="", metavar="NAME", help="Only this tenant's.")
@click.option("--regime", type=click.Choice(get_args(Regime)), help="Only records that claim this regime.")
@click.option(
    "--status",
    "statuses",
    type=click.IntRange(200, 599),
    multiple=True,
    help="Only this HTTP status; may be given several times.",
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many lines.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after this time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tap(
    tenant: str,
    regime: str | None,
    statuses: tuple[int, ...],
    limit: int | None,
    seconds: float | None,
    *,
    as_json: bool,
) -> None:
    """Show verdicts as they are made, from now on."""
    query = [("tenant", tenant), ("regime", regime or ""), *(("status", str(each)) for each in statuses)]
    stopped = uvloop.run(_follow(prepare_settings().data_dir, query, limit, seconds, as_json=as_json))
    if stopped:
        raise BackendError("the service stopped")


async def _follow(
    data_dir: str, query: list[tuple[str, str]], limit: int | None, seconds: float | None, *, as_json: bool
) -> bool:
    """Print lines until told to end. Returns whether the service ended before."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if seconds is not None:
        loop.call_later(seconds, ended.set)
    printing = asyncio.create_task(_print_lines(data_dir, query, limit, as_json=as_json), name="tap")
    ending = asyncio.create_task(ended.wait(), name="end")
    try:
        await asyncio.wait([printing, ending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        stopped = printing.done()
        printing.cancel()
        results = await asyncio.gather(printing, ending, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]
    return stopped and results[0] is not True


async def _print_lines(
    data_dir: str, query: list[tuple[str, str]], limit: int | None, *, as_json: bool
) -> bool:
    """Print lines as they come. Returns whether there were as many as were wanted."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    count = 0
    async for line in _lines(data_dir, query):
        fields = orjson.loads(line)
        if as_json:
            click.echo(line.rstrip(b"\n"))
        elif "lost" in fields:
            lost = msgspec.convert(fields, Lost).lost
            console.print(Text(f"… {lost} lines lost: this reader is too slow", "magenta"))
        else:
            seen = msgspec.convert(fields, Sighting)
            console.print(Text(describe(seen), _STYLES.get(seen.status, "red")))
        count += "lost" not in fields
        if limit is not None and count >= limit:
            return True
    return False


async def _lines(data_dir: str, query: list[tuple[str, str]]) -> AsyncIterator[bytes]:
    async with serving_process(data_dir) as session:
        unlimited = aiohttp.ClientTimeout(total=None)
        async with session.get(TAP_PATH, params=query, timeout=unlimited) as response:
            if response.status != 200:
                raise BackendError("the service takes no further listener")
            click.echo("listening; Ctrl-C ends it", err=True)
            try:
                async for line in response.content:
                    yield line
            except aiohttp.ClientPayloadError:  # it was killed, or cut this reader off
                return


def describe(seen: Sighting) -> str:
    """Return one line for people: time, status, verdict, tenant, regime, shard, epoch, id, and what is to be said.

    >>> describe(Sighting(at_ms=0, status=429, problem="rate-limited"))
    '00:00:00.000 429 refused     - - - - - rate-limited'
    """
    time = datetime.fromtimestamp(seen.at_ms / 1_000, UTC).strftime("%H:%M:%S.%f")[:-3]
    verdict = _VERDICTS.get(seen.status, "refused")
    epoch = "-" if seen.epoch is None else str(seen.epoch)
    names = (seen.tenant or "-", seen.regime or "-", seen.shard_id or "-", epoch, seen.pcs_id or "-")
    marks = [name for name in ("replayed", "conflict", "backlog") if getattr(seen, name)]
    said = ", ".join([*([seen.problem] if seen.problem else []), *seen.reasons, *marks])
    return " ".join([time, str(seen.status), f"{verdict:<11}", *names, said]).rstrip()
