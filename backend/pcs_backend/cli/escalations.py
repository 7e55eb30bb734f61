"""`pcs-backend escalations list|ack` and `pcs-backend conflicts`: the queue a person works through."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec
import orjson
import uvloop

from pcs_backend.cli.folder import direct_store, ok_body, prepare, serving_process
from pcs_backend.cli.tables import Row, iso_time, print_table
from pcs_backend.config import Config
from pcs_backend.dedup.store import LIST_MAX, Escalation
from pcs_backend.http.admin import ACKS_PATH, CONFLICTS_PATH, ESCALATIONS_PATH, Acks, Listing
from pcs_backend.outcome import Key
from pcs_core.identity import is_pcs_id
from pcs_core.keyring import DEFAULT_TENANT

_limit_option = click.option(
    "--limit", type=click.IntRange(1, LIST_MAX), default=100, show_default=True, help="Entries at most."
)
_tenant_option = click.option(
    "--tenant", default=DEFAULT_TENANT, show_default=True, metavar="NAME", help="Whose entries."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.group()
def escalations() -> None:
    """Work through the queue of escalated records."""


@escalations.command(
    "list",
    epilog="""
\b
Examples:
  pcs-backend escalations list
  pcs-backend escalations list --limit 1000 --json | jq -r .pcs_id
""",
)
@_tenant_option
@_limit_option
@_json_option
def list_command(tenant: str, limit: int, *, as_json: bool) -> None:
    """List open escalations, oldest first."""
    listing = uvloop.run(_list(prepare(), ESCALATIONS_PATH, tenant, limit))
    rows = [_escalation_row(each) for each in listing.escalations]
    _show(rows, ("pcs_id", "stored_at", "reasons"), as_json=as_json)


@escalations.command(
    "ack",
    epilog="""
\b
Examples:
  pcs-backend escalations ack 4f0c…64 hex digits
\b
The outcome stays what it was; only the entry leaves the queue. Exit code 1 if an id was not in the queue.
""",
)
@_tenant_option
@click.argument("pcs_ids", nargs=-1, required=True, metavar="PCS_ID…")
def ack_command(tenant: str, pcs_ids: tuple[str, ...]) -> None:
    """Take escalations off the queue."""
    for position, pcs_id in enumerate(pcs_ids, start=1):
        if not is_pcs_id(pcs_id):
            found = f"found a string of length {len(pcs_id)}"
            raise click.UsageError(f"PCS_ID {position}: {found}; allowed: 64 lower-case hex digits")
    wanted = list(dict.fromkeys(pcs_ids))
    done = uvloop.run(_ack(prepare(), tenant, wanted))
    click.echo(f"{sum(done)} acknowledged, {len(done) - sum(done)} not in the queue")
    missing = [pcs_id for pcs_id, was_open in zip(wanted, done, strict=True) if not was_open]
    for pcs_id in missing:
        click.echo(f"not in the queue: {pcs_id}", err=True)
    if missing:
        raise SystemExit(1)


@click.command(
    epilog="""
\b
Examples:
  pcs-backend conflicts --json
"""
)
@_tenant_option
@_limit_option
@_json_option
def conflicts(tenant: str, limit: int, *, as_json: bool) -> None:
    """List ids that came with more than one set of contents, newest first."""
    listing = uvloop.run(_list(prepare(), CONFLICTS_PATH, tenant, limit))
    rows: list[Row] = [
        {"pcs_id": each.pcs_id, "seen_at": iso_time(each.seen_at_ms), "fingerprint": each.fingerprint}
        for each in listing.conflicts
    ]
    _show(rows, ("pcs_id", "seen_at", "fingerprint"), as_json=as_json)


async def _list(config: Config, path: str, tenant: str, limit: int) -> Listing:
    async with direct_store(config) as store:
        if store is not None and path == ESCALATIONS_PATH:
            return Listing(escalations=await store.list_escalations(tenant, limit))
        if store is not None:
            return Listing(conflicts=await store.list_conflicts(tenant, limit))
    async with serving_process(config.settings.data_dir) as session:
        response = await session.get(path, params={"tenant": tenant, "limit": str(limit)})
        return msgspec.json.decode(await ok_body(response), type=Listing)


async def _ack(config: Config, tenant: str, pcs_ids: Sequence[str]) -> list[bool]:
    async with direct_store(config) as store:
        if store is not None:
            return await store.ack_escalations([Key(tenant, pcs_id) for pcs_id in pcs_ids])
    async with serving_process(config.settings.data_dir) as session:
        response = await session.post(ACKS_PATH, data=msgspec.json.encode(Acks(tenant, list(pcs_ids))))
        return msgspec.json.decode(await ok_body(response), type=Acks).done


def _escalation_row(escalation: Escalation) -> Row:
    return {
        "pcs_id": escalation.pcs_id,
        "stored_at": iso_time(escalation.stored_at_ms),
        "reasons": orjson.loads(escalation.body)["reasons"],
    }


def _show(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row))
        return
    print_table(rows, columns)
