"""`pcs-backend records`: what became of a record, and what came, from the WAL of this data folder and the store."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click
import msgspec
import orjson
import uvloop

from pcs_backend.cli.folder import direct_store, ok_body, prepare, serving_process
from pcs_backend.cli.tables import print_table
from pcs_backend.config import Config
from pcs_backend.dedup.store import LIST_MAX
from pcs_backend.engine import WAL_FOLDER, WORKER_NAME
from pcs_backend.errors import ConfigError, StoreUnavailableError
from pcs_backend.exchange import Request
from pcs_backend.http.admin import OUTCOMES_PATH, Lookup
from pcs_backend.inbox.archive import Arrival, Wanted, read_arrivals
from pcs_backend.outcome import Key, Outcome
from pcs_backend.trace_context import trace_id_of
from pcs_core.errors import BadSignatureError, MalformedError
from pcs_core.identity import is_pcs_id, is_shard_id
from pcs_core.keyring import DEFAULT_TENANT
from pcs_core.record import decode_record
from pcs_core.redact import redact
from pcs_core.wal import PosixFiles

LOOKUP_KEYS_MAX = 200
"""Outcomes asked for at once."""

_VERDICTS = ("accepted", "escalated", "refused", "open", "expired", "unknown")
_SPAN = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SPAN_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_COLUMNS = ("received_at", "verdict", "tenant", "shard_id", "epoch", "pcs_id", "reasons")
_ONLY_IN_STORE = (
    "from the WAL of this DATA_DIR; a record whose request has left it, or came to another replica, is only in the store: "
    "look it up by its pcs_id"
)

_TIME_RULE = "a time such as 2026-11-21T08:15:30Z, or how long ago: 90s, 15m, 2h, 3d"

_Get = Callable[[Sequence[Key]], Awaitable[list[Outcome | None]]]


class _Moment(click.ParamType[int]):
    """A time with its zone, or how long ago; as milliseconds since 1970."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's own
        """Read it."""
        if (span := _SPAN.fullmatch(value)) is not None:
            return int((time.time() - int(span[1]) * _SPAN_S[span[2]]) * 1_000)
        with contextlib.suppress(ValueError, OverflowError):
            if (moment := datetime.fromisoformat(value)).tzinfo is not None:
                return int(moment.timestamp() * 1_000)
        found = f"found a string of length {len(value)}"
        return self.fail(f"{found}; allowed: {_TIME_RULE}", param, ctx)


class _Query(NamedTuple):
    wanted: Wanted
    tenant: str | None
    verdicts: frozenset[str]
    limit: int


class _Seen(NamedTuple):
    """A request and what became of it."""

    arrival: Arrival
    tenant: str
    verdict: str
    outcome: Outcome | None


@click.command(
    epilog="""
\b
Examples:
  pcs-backend records 4f0c…64 hex digits
  pcs-backend records --verdict escalated --since 2h
  pcs-backend records --shard plant-7/line-2 --since 2026-11-21T08:00:00Z --json | jq -r .request_id

\b
Lists requests, newest first, from the WAL of DATA_DIR, beside a process that serves it or without one. What has left the
WAL (WAL_RETENTION_DAYS), or came to another replica, is only in the store, where PCS_ID finds it until it expires.
  open     on disk without an outcome       expired  its outcome was forgotten
  unknown  the store does not answer, or no key tells whose it is
Exit codes: 0 done; 1 nothing is known of PCS_ID, or it cannot be read; 2 usage or configuration.
"""
)
@click.argument("pcs_id", required=False, metavar="[PCS_ID]")
@click.option("--since", type=_Moment(), help="Received then or later: a time, or how long ago.")
@click.option("--until", type=_Moment(), help="Received before.")
@click.option("--verdict", "verdicts", type=click.Choice(_VERDICTS), multiple=True, help="Only this verdict.")
@click.option("--shard", default="", metavar="NAME", help="Only of this shard.")
@click.option(
    "--tenant", metavar="NAME", help="Only of this tenant; with PCS_ID, whose outcome is looked up."
)
@click.option(
    "--limit", type=click.IntRange(1, LIST_MAX), default=100, show_default=True, help="Requests at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def records(
    pcs_id: str | None,
    since: int | None,
    until: int | None,
    verdicts: tuple[str, ...],
    shard: str,
    tenant: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """Look up one record, or list what came."""
    if shard and not is_shard_id(shard):
        raise click.UsageError("--shard: found something that is no shard; allowed: what a record may name")
    if pcs_id is not None and not is_pcs_id(pcs_id):
        found = f"found a string of length {len(pcs_id)}"
        raise click.UsageError(f"PCS_ID: {found}; allowed: 64 lower-case hex digits")
    if pcs_id is not None and (shard or verdicts or since or until):
        raise click.UsageError("PCS_ID: found a filter beside it; allowed: --tenant, --limit and --json")
    config = prepare()
    if not os.path.isdir(os.path.join(config.settings.data_dir, WAL_FOLDER)):
        raise ConfigError("DATA_DIR: found no folder with a WAL; allowed: the folder that `serve` uses")
    query = _Query(Wanted(pcs_id or "", shard, since or 0, until), tenant, frozenset(verdicts), limit)
    if pcs_id is None:
        listed = uvloop.run(_asking_store(config, lambda get: _list(config, query, get)))
        _show_list(listed, as_json=as_json)
        return
    known = uvloop.run(_asking_store(config, lambda get: _look_up(config, query, get)))
    for each in known:
        _show_record(each, as_json=as_json)
    if not known:
        click.echo("nothing is known of it, neither in the WAL of this DATA_DIR nor in the store", err=True)
        raise SystemExit(1)


async def _asking_store(
    config: Config, read: Callable[[_Get | None], Awaitable[list[Any]]]
) -> list[Any]:  # Any: what is read, of either kind
    """Read with the store; if that does not answer, without it."""
    try:
        async with _lookup(config) as get:
            return await read(get)
    except StoreUnavailableError as error:
        click.echo(f"without the store: {error}", err=True)
    return await read(None)


@contextlib.asynccontextmanager
async def _lookup(config: Config) -> AsyncIterator[_Get]:
    """Give what asks the store for outcomes."""
    async with direct_store(config) as store:
        if store is not None:
            yield store.get
            return
    async with serving_process(config.settings.data_dir) as session:

        async def get(keys: Sequence[Key]) -> list[Outcome | None]:
            response = await session.post(OUTCOMES_PATH, data=msgspec.json.encode(Lookup(list(keys))))
            return msgspec.json.decode(await ok_body(response), type=Lookup).found

        yield get


async def _list(config: Config, query: _Query, get: _Get | None) -> list[_Seen]:
    listed: list[_Seen] = []
    arrivals = _arrivals(config, query.wanted)
    while batch := list(itertools.islice(arrivals, LOOKUP_KEYS_MAX)):
        for seen in await _judged(config, batch, get):
            is_wanted = not query.verdicts or seen.verdict in query.verdicts
            if is_wanted and query.tenant in (None, seen.tenant):
                listed.append(seen)
        if len(listed) >= query.limit:
            break
    return listed[: query.limit]


async def _look_up(config: Config, query: _Query, get: _Get | None) -> list[dict[str, Any]]:
    """Return what is known of a record, for each tenant that has it."""
    arrivals = list(itertools.islice(_arrivals(config, query.wanted), query.limit))
    seen = await _judged(config, arrivals, get)
    tenants = dict.fromkeys([*(each.tenant for each in seen if each.tenant), query.tenant or DEFAULT_TENANT])
    if query.tenant is not None:
        tenants = {query.tenant: None}
    found = []
    for tenant in tenants:
        own = [each for each in seen if each.tenant == tenant or not each.tenant]
        outcome = (await get([Key(tenant, query.wanted.pcs_id)]))[0] if get is not None else None
        if own or outcome is not None:
            found.append(_record(query.wanted.pcs_id, tenant, own, outcome, asked=get is not None))
    return found


def _arrivals(config: Config, wanted: Wanted) -> Iterator[Arrival]:
    files = PosixFiles()
    wal = os.path.join(config.settings.data_dir, WAL_FOLDER)
    inboxes = [
        read_arrivals(os.path.join(wal, worker), worker, files, wanted)
        for worker in files.list_names(wal)
        if WORKER_NAME.fullmatch(worker)
    ]
    return heapq.merge(*inboxes, key=lambda arrival: -arrival.request.envelope.received_at_ms)


async def _judged(config: Config, arrivals: Sequence[Arrival], get: _Get | None) -> list[_Seen]:
    """Say of each request what became of it."""
    tenants = [_tenant(config, arrival.request) if arrival.pcs_id else "" for arrival in arrivals]
    keys = {
        Key(tenant, arrival.pcs_id)
        for arrival, tenant in zip(arrivals, tenants, strict=True)
        if tenant and not arrival.refusal
    }
    outcomes: dict[Key, Outcome | None] = {}
    if get is not None and keys:
        ordered = sorted(keys)
        outcomes = dict(zip(ordered, await get(ordered), strict=True))
    judged = []
    for arrival, tenant in zip(arrivals, tenants, strict=True):
        outcome = outcomes.get(Key(tenant, arrival.pcs_id)) if not arrival.refusal else None
        judged.append(
            _Seen(arrival, tenant, _verdict(arrival, tenant, outcome, asked=get is not None), outcome)
        )
    return judged


def _verdict(arrival: Arrival, tenant: str, outcome: Outcome | None, *, asked: bool) -> str:
    if arrival.refusal:
        return "refused"
    if outcome is not None:
        return "escalated" if outcome.escalated else "accepted"
    if not arrival.settled:
        return "open"
    return "expired" if asked and tenant else "unknown"


def _tenant(config: Config, request: Request) -> str:
    """Return whose a record is, as the backend found out; empty where no key tells any more."""
    trust = config.trust.current
    if not trust.multi_tenant:
        return DEFAULT_TENANT
    try:
        return trust.check_record(decode_record(request.body), request, None).tenant
    except (MalformedError, BadSignatureError):
        return ""


def _record(
    pcs_id: str, tenant: str, seen: Sequence[_Seen], outcome: Outcome | None, *, asked: bool
) -> dict[str, Any]:  # Any: one JSON object
    newest = seen[0].arrival if seen else None
    places = [*(["WAL"] if seen else []), *(["store"] if outcome is not None else [])]
    known: dict[str, Any] = {
        "pcs_id": pcs_id,
        "tenant": tenant,
        "verdict": seen[0].verdict if outcome is None else ("escalated" if outcome.escalated else "accepted"),
        "found_in": places if asked else [*places, "(the store was not asked)"],
        "shard_id": redact(newest.shard_id) if newest else None,
        "epoch": newest.epoch if newest else None,
    }
    if outcome is not None:
        answer = orjson.loads(outcome.body)
        known |= {
            "status": outcome.status,
            "reasons": answer["reasons"],
            "recomputed": answer["recomputed"],
            "stored_at": _time(outcome.stored_at_ms),
            "expires_at": _time(outcome.expires_at_ms),
            "params_version": outcome.params_version,
            "key_id": outcome.key_id,
        }
    return known | {"requests": [_row(each) for each in seen]}


def _row(seen: _Seen) -> dict[str, Any]:  # Any: one JSON object
    arrival = seen.arrival
    envelope = arrival.request.envelope
    reasons = [arrival.refusal] if arrival.refusal else []
    if seen.outcome is not None:
        reasons = orjson.loads(seen.outcome.body)["reasons"]
    return {
        "received_at": _time(envelope.received_at_ms),
        "verdict": seen.verdict,
        "tenant": seen.tenant,
        "shard_id": redact(arrival.shard_id),
        "epoch": arrival.epoch,
        "pcs_id": arrival.pcs_id,
        "reasons": reasons,
        "request_id": envelope.request_id,
        "trace_id": trace_id_of(envelope.traceparent),
        "peer": redact(envelope.peer),
        "size_bytes": len(arrival.request.body),
        "frame": f"{arrival.worker}/{arrival.sequence}",
    }


def _show_list(listed: Sequence[_Seen], *, as_json: bool) -> None:
    rows = [_row(each) for each in listed]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row))
        return
    print_table([{name: _cell(row[name]) for name in _COLUMNS} for row in rows], _COLUMNS)
    click.echo(_ONLY_IN_STORE, err=True)


def _show_record(known: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(known))
        return
    requests = known.pop("requests")
    for name, value in known.items():
        click.echo(f"{name:<15} {_line(value)}")
    if not requests:
        click.echo(
            "only the store has it: shard, epoch and time of arrival stood in its request, which is not in this WAL"
        )
        return
    columns = ("received_at", "verdict", "request_id", "trace_id", "frame")
    click.echo()
    print_table([{name: _cell(row[name]) for name in columns} for row in requests], columns)


def _cell(value: str | int | list[str] | None) -> str | list[str]:
    if isinstance(value, list):
        return value
    return "-" if value in (None, "") else str(value)


def _line(value: Any) -> str:  # noqa: ANN401 - a member of a JSON object
    match value:
        case dict():
            return ", ".join(f"{name} {each}" for name, each in value.items())
        case list():
            return ", ".join(value) or "none"
        case _:
            return "-" if value in (None, "") else str(value)


def _time(time_ms: int) -> str:
    return (
        datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
