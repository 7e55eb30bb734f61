"""`pcs-agent outbox` and `pcs-agent dlq`: what waits, what was given up, and what to do about it."""

from __future__ import annotations

import os

import click

from pcs_agent import app
from pcs_agent.build import format_time
from pcs_agent.cli.delivery import run_delivery
from pcs_agent.cli.options import json_option, key_file_option, read_config
from pcs_agent.cli.output import ROWS_MAX, print_json, print_table, warn
from pcs_agent.config import Config
from pcs_agent.errors import InputError
from pcs_agent.outbox import Entry, State
from pcs_agent.streams import print_text
from pcs_core.identity import is_pcs_id


@click.group()
def outbox() -> None:
    """Look at the outbox, deliver what waits in it, compact it.

    \b
    Exit codes: 0 done or all delivered; 1 something is not delivered; 2 usage or configuration.

    \b
    Examples:
      pcs-agent outbox list
      pcs-agent outbox flush --json
      pcs-agent outbox compact
    """  # noqa: D301  # \b is click's


@outbox.command("list")
@json_option
def list_outbox(*, as_json: bool) -> None:
    """List what waits and what was delivered within the retention.

    \b
    Example:
      pcs-agent outbox list --json
    """  # noqa: D301
    _print_entries(_read_entries(read_config(), (State.PENDING, State.ACKED)), as_json=as_json)


@outbox.command()
@click.option(
    "--resign",
    is_flag=True,
    help="Sign each record anew with the present key: after the key was changed, or was wrong.",
)
@key_file_option
@json_option
def flush(*, resign: bool, key_file: str | None, as_json: bool) -> None:
    """Deliver what waits in the outbox.

    \b
    Examples:
      pcs-agent outbox flush
      pcs-agent outbox flush --resign --key-file new.key
    """  # noqa: D301
    config = read_config(key_file)
    run_delivery(
        lambda report, _, stop: app.flush(config, report=report, warn=warn, resign=resign, stop=stop),
        as_json=as_json,
    )


@outbox.command()
@json_option
def compact(*, as_json: bool) -> None:
    """Remove records delivered longer ago than OUTBOX_RETENTION_DAYS; what waits and dead letters stay.

    \b
    Example:
      OUTBOX_RETENTION_DAYS=7 pcs-agent outbox compact
    """  # noqa: D301
    config = read_config()
    if os.path.isdir(config.outbox_dir):
        with app.open_outbox(config, warn) as opened:
            done = opened.compact(seal=True)
    else:
        done = None
    segments, carried, freed_bytes = done or (0, 0, 0)
    if as_json:
        print_json({"segments_removed": segments, "entries_kept": carried, "freed_bytes": freed_bytes})
    else:
        print_text(f"removed {segments} segments, kept {carried} entries, freed {freed_bytes} bytes")


@click.group()
def dlq() -> None:
    """Look at dead letters and send them again.

    \b
    Exit codes: 0 done; 2 usage or configuration.

    \b
    Examples:
      pcs-agent dlq list
      pcs-agent dlq redrive && pcs-agent outbox flush
    """  # noqa: D301  # \b is click's


@dlq.command("list")
@json_option
def list_dead(*, as_json: bool) -> None:
    """List dead letters and why they are.

    \b
    Example:
      pcs-agent dlq list --json
    """  # noqa: D301
    _print_entries(_read_entries(read_config(), (State.DEAD,)), as_json=as_json)


@dlq.command()
@click.argument("pcs_ids", nargs=-1, metavar="[PCS_ID…]")
@json_option
def redrive(*, pcs_ids: tuple[str, ...], as_json: bool) -> None:
    """Put dead letters back into the outbox: all, or those named.

    The next `pcs-agent run` or `pcs-agent outbox flush` delivers them.

    \b
    Examples:
      pcs-agent dlq redrive
      pcs-agent dlq redrive 3f1c…e9
    """  # noqa: D301
    for pcs_id in pcs_ids:
        if not is_pcs_id(pcs_id):
            raise InputError(
                f"PCS_ID: found a string of length {len(pcs_id)}; allowed: 64 lower-case hex digits"
            )
    config = read_config()
    chosen: list[Entry] = []
    if os.path.isdir(config.outbox_dir):
        with app.open_outbox(config, warn) as opened:
            dead = opened.entries(State.DEAD)
            chosen = [entry for entry in dead if not pcs_ids or entry.pcs_id in pcs_ids]
            _require_found(pcs_ids, chosen)
            opened.redrive([entry.seq for entry in chosen])
    _require_found(pcs_ids, chosen)
    if as_json:
        for entry in chosen:
            print_json(_entry_document(entry))
    else:
        print_text(f"{len(chosen)} dead letters are pending again; deliver them with: pcs-agent outbox flush")


def _require_found(pcs_ids: tuple[str, ...], chosen: list[Entry]) -> None:
    unknown = set(pcs_ids) - {entry.pcs_id for entry in chosen}
    if unknown:
        raise InputError(f"PCS_ID {min(unknown)}: found no such dead letter")


def _read_entries(config: Config, states: tuple[State, ...]) -> list[Entry]:
    if not os.path.isdir(config.outbox_dir):  # looking makes no folder
        return []
    with app.open_outbox(config, warn) as opened:
        return [entry for state in states for entry in opened.entries(state)]


def _print_entries(entries: list[Entry], *, as_json: bool) -> None:
    if as_json:
        for entry in entries:
            print_json(_entry_document(entry))
        return
    if not entries:
        print_text("nothing")
        return
    rows = [
        [
            str(entry.seq),
            entry.pcs_id,
            str(entry.state),
            str(entry.verdict),
            format_time(entry.changed_s),
            entry.reason,
        ]
        for entry in entries[-ROWS_MAX:]
    ]
    print_table(("seq", "pcs_id", "state", "verdict", "since", "why"), rows, total=len(entries))


def _entry_document(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "pcs_id": entry.pcs_id,
        "state": str(entry.state),
        "verdict": str(entry.verdict),
        "appended": format_time(entry.time_s),
        "since": format_time(entry.changed_s),
        "reason": entry.reason,
    }
