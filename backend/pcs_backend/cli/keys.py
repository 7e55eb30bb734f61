"""`pcs-backend keys check|list`: what the keys are and what each may sign for. No secret is ever printed."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime

import click
import orjson

from pcs_backend.cli.tables import print_table
from pcs_backend.config import load_config
from pcs_backend.effects.logs import configure_logs
from pcs_backend.trust.policy import Trust
from pcs_core.keyring import KeyTerms


@click.group()
def keys() -> None:
    """Look at the keys that records may be signed with, and their directions proved with."""


@keys.command(
    epilog="""
\b
Examples:
  PCS_KEYS_FILE=keys.toml pcs-backend keys check && kill -HUP "$(pidof -s pcs-backend)"
\b
Exit codes: 0 every key can be used; 2 one cannot, and the message names it.
"""
)
def check() -> None:
    """Read every key as `serve` would, and say how many count now."""
    trust = _trust()
    now_s = time.time()
    for name, keys in (("keys", trust.keyring.entries), ("direction keys", trust.direction_keys)):
        if keys or name == "keys":
            valid = sum(key.refusal(now_s) is None for key in keys)
            click.echo(f"{len(keys)} {name} can be used; {valid} count now")


@keys.command(
    "list",
    epilog="""
\b
Examples:
  pcs-backend keys list
  pcs-backend keys list --json | jq -r 'select(.state == "valid") | .id'
\b
`fingerprint` follows from the key itself: `pcs-agent` names its key by it.
""",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_command(*, as_json: bool) -> None:
    """List every key: whose it is, what it may sign for, from when until when."""
    trust, now_s = _trust(), time.time()
    rows = [
        _row(each, now_s, "records", each.record_key.key_id, signs_requests=each.message_key is not None)
        for each in trust.keyring.entries
    ]
    rows += [
        _row(each, now_s, "directions", each.public_key.key_id, signs_requests=False)
        for each in trust.direction_keys
    ]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row))
    else:
        columns = (
            "id",
            "fingerprint",
            "tenant",
            "use",
            "state",
            "effective_from",
            "not_after",
            "signs_requests",
            "shards",
        )
        print_table(rows, columns)


def _trust() -> Trust:
    configure_logs("ERROR")
    return load_config(os.environ).trust.current


def _row(
    entry: KeyTerms, now_s: float, use: str, fingerprint: str, *, signs_requests: bool
) -> dict[str, str | list[str]]:
    return {
        "id": entry.key_id,
        "fingerprint": fingerprint,
        "tenant": entry.tenant,
        "use": use,
        "state": entry.refusal(now_s) or "valid",
        "effective_from": _date(entry.not_before_s),
        "not_after": _date(entry.not_after_s),
        "signs_requests": "yes" if signs_requests else "no",
        "shards": list(entry.shards),
    }


def _date(time_s: float) -> str:
    if not math.isfinite(time_s):
        return "always" if time_s < 0 else "never"
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
