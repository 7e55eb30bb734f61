"""`pcs-backend replay`: judge what is on disk without an outcome, while nothing serves."""

from __future__ import annotations

import os
from collections import Counter

import click
import orjson
import uvloop
from rich.console import Console
from rich.progress import Progress

from pcs_backend.app import real_ports
from pcs_backend.config import Config, load_config
from pcs_backend.effects.logs import configure_logs
from pcs_backend.engine import Engine, offline

_RESULTS = ("accepted", "escalated", "replayed", "refused", "deferred", "too_old", "unreadable")


@click.command(
    epilog="""
\b
Examples:
  pcs-backend replay
  pcs-backend replay --force --json
\b
`serve` does the same by itself at start; this is for doing it apart, and for requests older than the dedup lifetime.
Exit codes: 0 every request has its outcome; 1 some could not be judged; 2 usage or configuration.
"""
)
@click.option(
    "--force", is_flag=True, help="Judge requests older than DEDUP_TTL_DAYS too; they may count twice."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(*, force: bool, as_json: bool) -> None:
    """Judge every request in the WAL that has no outcome."""
    config = load_config(os.environ)
    configure_logs("ERROR")
    results = uvloop.run(_replay(config, force=force))
    if as_json:
        click.echo(orjson.dumps({name: results[name] for name in _RESULTS}))
    else:
        click.echo(", ".join(f"{results[name]} {name.replace('_', ' ')}" for name in _RESULTS))
    if results["deferred"] or results["too_old"] or results["unreadable"]:
        raise SystemExit(1)


async def _replay(config: Config, *, force: bool) -> Counter[str]:
    engine = Engine(config, real_ports(), force_replay=force)
    results: Counter[str] = Counter()
    async with offline(engine):
        await engine.connect_store()
        await _settle_all(engine, results)
    return results


async def _settle_all(engine: Engine, results: Counter[str]) -> None:
    console = Console(stderr=True)
    total = sum(inbox.open_requests for inbox in engine.inboxes)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replaying", total=total)
        for inbox, settler in zip(engine.inboxes, engine.settlers, strict=True):
            while inbox.has_deferred:
                batch = await settler.settle_batch()
                unjudged = batch.pop("deferred", 0)
                results.update(batch)
                progress.advance(bar, batch.total())
                if unjudged and not batch.total():  # the store is down: what is left stays for the next time
                    break
            results["deferred"] += inbox.open_requests - settler.too_old - inbox.unreadable_requests
            results["too_old"] += settler.too_old
            results["unreadable"] += inbox.unreadable_requests
