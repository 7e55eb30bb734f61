"""`pcs-backend recompute`: tell stored answers again, from what was stored with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import click
import orjson
import uvloop

from pcs_backend.cli.calibrations import Reached, reach
from pcs_backend.cli.folder import prepare
from pcs_backend.cli.tables import Row, print_table
from pcs_backend.config import Config
from pcs_backend.conformal.recompute import Finding, artifacts_of, recompute
from pcs_backend.dedup.store import LIST_MAX
from pcs_backend.outcome import Key, Outcome
from pcs_core.identity import PcsId, is_pcs_id
from pcs_core.keyring import DEFAULT_TENANT

RECOMPUTED_MAX = 1_000_000
"""Ids one call takes."""

_SAID: dict[Finding | str, str] = {
    "same": "the same",
    "other": "something else comes out",
    "no_provenance": "stored without provenance: neither the gate nor ENABLE_CALIBRATION_LOGGING was on",
    "artifact_missing": "the store no longer has its parameters or a calibration set",
    "unreadable": "what is stored with it cannot be read",
    "unknown": "no outcome of that id",
}


class _Told(NamedTuple):
    pcs_id: str
    finding: str
    stored: int | None
    recomputed: int | None


@click.command(
    "recompute",
    epilog="""
\b
Examples:
  pcs-backend recompute 4f0c…64 hex digits
  pcs-backend escalations list --json | jq -r .pcs_id | pcs-backend recompute -
\b
Status and body must come out bit for bit, whatever keys, parameters, sets and version are in use now.
Exit codes: 0 all did; 1 one did not, or cannot be told; 2 usage or configuration.
""",
)
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, metavar="NAME", help="Whose records.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.argument("pcs_ids", nargs=-1, required=True, metavar="PCS_ID…|-")
def recompute_command(pcs_ids: tuple[str, ...], tenant: str, *, as_json: bool) -> None:
    """Verify records again as they were verified then; `-` reads ids from standard input, one a line."""
    wanted = _wanted(pcs_ids)
    told = uvloop.run(_tell(prepare(), tenant, wanted))
    if as_json:
        for each in told:
            click.echo(orjson.dumps(each._asdict()))
    else:
        odd = [each for each in told if each.finding != "same"]
        if odd:
            print_table([_row(each) for each in odd], ("pcs_id", "stored", "recomputed", "finding"))
        click.echo(f"{len(told) - len(odd)} of {len(told)} came out the same")
    if any(each.finding != "same" for each in told):
        raise SystemExit(1)


def _wanted(pcs_ids: Sequence[str]) -> list[str]:
    lines = (line.strip() for line in sys.stdin) if tuple(pcs_ids) == ("-",) else iter(pcs_ids)
    wanted = list(islice(dict.fromkeys(line for line in lines if line), RECOMPUTED_MAX + 1))
    if len(wanted) > RECOMPUTED_MAX:
        raise click.UsageError(f"PCS_ID: found more than are allowed; allowed: up to {RECOMPUTED_MAX}")
    for position, pcs_id in enumerate(wanted, start=1):
        if not is_pcs_id(pcs_id):
            found = f"found a string of length {len(pcs_id)}"
            raise click.UsageError(f"PCS_ID {position}: {found}; allowed: 64 lower-case hex digits")
    return wanted


async def _tell(config: Config, tenant: str, wanted: Sequence[str]) -> list[_Told]:
    told: list[_Told] = []
    async with reach(config) as reached:
        artifacts: dict[str, bytes] = {}
        for part in _parts(wanted):
            outcomes = await reached.get([Key(tenant, PcsId(pcs_id)) for pcs_id in part])
            await _fetch(reached, [each for each in outcomes if each is not None], artifacts)
            for pcs_id, outcome in zip(part, outcomes, strict=True):
                if outcome is None:
                    told.append(_Told(pcs_id, "unknown", None, None))
                    continue
                again = recompute(outcome, artifacts)
                told.append(_Told(pcs_id, again.finding, outcome.status, again.status))
    return told


async def _fetch(reached: Reached, outcomes: Sequence[Outcome], artifacts: dict[str, bytes]) -> None:
    """Add what these outcomes name and is not there yet."""
    digests = list(dict.fromkeys(digest for each in outcomes for digest in artifacts_of(each)))
    missing = [digest for digest in digests if digest not in artifacts]
    if missing:
        fetched = zip(missing, await reached.calibrations.fetch(missing), strict=True)
        artifacts.update((digest, found) for digest, found in fetched if found is not None)


def _parts(wanted: Sequence[str]) -> Iterator[Sequence[str]]:
    return (wanted[first : first + LIST_MAX] for first in range(0, len(wanted), LIST_MAX))


def _row(told: _Told) -> Row:
    return {
        "pcs_id": told.pcs_id,
        "stored": _text(told.stored),
        "recomputed": _text(told.recomputed),
        "finding": _SAID[told.finding],
    }


def _text(status: int | None) -> str:
    return "–" if status is None else str(status)
