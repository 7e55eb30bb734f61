"""`pcs-backend top`: rates, latencies, store and log of the process that serves the data folder, on one screen."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping

import aiohttp
import click
import msgspec
import uvloop
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pcs_backend.cli.figures import Figures, Latency, compare, read_look
from pcs_backend.cli.folder import ok_body, prepare_settings, serving_process
from pcs_backend.config import Settings
from pcs_backend.errors import BackendError
from pcs_backend.http.routes import METRICS_PATH

_WIDTH_WITHOUT_TERMINAL = 160
_NAMES_SHOWN_MAX = 6
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command(
    epilog="""
\b
Examples:
  pcs-backend top
  pcs-backend top --once --interval 10
  pcs-backend top --once --json | jq .verify.p95

\b
Rates and latencies are of the time between two looks, totals since the process started. Without a terminal every screen
is printed below the one before. Exit codes: 0 ended by Ctrl-C or --once; 1 nothing serves DATA_DIR, or the service
stopped; 2 usage or configuration.
"""
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, show one screen, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a screen.")
def top(interval: float, *, once: bool, as_json: bool) -> None:
    """Show rates, latencies, store and WAL of the process that serves."""
    if not uvloop.run(_show(prepare_settings(), interval, once=once, as_json=as_json)):
        raise BackendError("the service stopped")


async def _show(settings: Settings, interval_s: float, *, once: bool, as_json: bool) -> bool:
    """Show screens until told to end. Returns whether that was it, and not the service's end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    live = console.is_terminal and not once and not as_json
    with Live(console=console, screen=True, auto_refresh=False) if live else console as screen:
        async for figures in _figures(settings.data_dir, interval_s, ended):
            if as_json:
                click.echo(msgspec.json.encode(figures))
            elif isinstance(screen, Live):
                screen.update(render(figures, settings.dedup_backend), refresh=True)
            else:
                console.print(render(figures, settings.dedup_backend))
            if once:
                return True
    return ended.is_set()


async def _figures(data_dir: str, interval_s: float, ended: asyncio.Event) -> AsyncIterator[Figures]:
    async with serving_process(data_dir) as session:

        async def look() -> str:
            response = await session.get(METRICS_PATH)
            return (await ok_body(response)).decode()

        before = read_look(await look(), time.monotonic())
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    await ended.wait()
                return
            except TimeoutError:
                pass
            try:
                after = read_look(await look(), time.monotonic())
            except aiohttp.ClientConnectionError:
                return
            yield compare(before, after)
            before = after


def render(figures: Figures, backend: str) -> Group:
    """Return one screen.

    Args:
        figures: What it shows.
        backend: Which store.
    """
    state = Text.assemble(
        _state("ready", "NOT READY", good=figures.ready),
        f"   store {backend} ",
        _state("up", "DOWN", good=figures.store_up),
        f"   keys {figures.keys} ",
        _state("", "STALE", good=not figures.keys_stale),
    )
    rates = Table(box=None, pad_edge=False)
    for heading in ("", "a second", "in all"):
        rates.add_column(heading, justify="left" if not heading else "right")
    for name, rate in figures.rates.items():
        rates.add_row(name, f"{rate:,.1f}", f"{figures.totals[name]:,}")
    latencies = Table(box=None, pad_edge=False)
    for heading in ("", "p50", "p95", "p99", "of"):
        latencies.add_column(heading, justify="left" if not heading else "right")
    for name, latency in (("verify", figures.verify), ("WAL sync", figures.wal_sync)):
        latencies.add_row(name, *_quantiles(latency), f"{latency.count:,}")
    lines = [
        f"WAL {_bytes(figures.wal_size_bytes)}, open {figures.open_requests:,}, backlog {figures.backlog_requests:,}",
        f"disk free {_bytes(figures.disk_free_bytes)}, intake stops below {_bytes(figures.disk_free_min_bytes)}",
        f"connections {figures.connections:,}, refused {figures.connections_refused:,}; conflicts {figures.conflicts:,}",
    ]
    for name, by_name in (
        ("refused", figures.refused),
        ("escalated", figures.escalated),
        ("tenants", figures.tenants),
    ):
        if by_name:
            lines.append(f"{name} a second: {_named(by_name)}")
    left = figures.unreadable_requests + figures.too_old_requests
    warnings = (
        [
            Text(
                f"{figures.unreadable_requests} unreadable and {figures.too_old_requests} too old requests",
                "red",
            )
        ]
        if left
        else []
    )
    return Group(state, "", rates, "", latencies, "", *lines, *warnings)


def _state(good_word: str, bad_word: str, *, good: bool) -> tuple[str, str]:
    return (good_word, "green") if good else (bad_word, "bold red")


def _quantiles(latency: Latency) -> list[str]:
    return [
        "-" if each is None else f"{each * 1_000:,.1f} ms" for each in (latency.p50, latency.p95, latency.p99)
    ]


def _named(by_name: Mapping[str, float]) -> str:
    shown = [f"{name} {rate:,.1f}" for name, rate in list(by_name.items())[:_NAMES_SHOWN_MAX]]
    return ", ".join([*shown, *(["…"] if len(by_name) > _NAMES_SHOWN_MAX else [])])


def _bytes(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1_024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_024
    return f"{count:.1f} {_UNITS[-1]}"
