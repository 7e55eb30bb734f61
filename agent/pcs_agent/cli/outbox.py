"""`pcs-agent outbox` and `pcs-agent dlq`: what waits, what was given up, and what to do about it."""

from __future__ import annotations

import os
import re

import click

from pcs_agent import app
from pcs_agent.build import format_time
from pcs_agent.cli.delivery import run_delivery
from pcs_agent.cli.options import ca_file_option, json_option, key_file_option, read_config
from pcs_agent.cli.output import ROWS_MAX, print_json, print_table, short_id, warn
from pcs_agent.config import OUTBOX_DIR, Config
from pcs_agent.errors import ConfigError, InputError
from pcs_agent.outbox import Compaction, Entry, State
from pcs_agent.streams import print_text
from pcs_agent.wording import count_of, display_name
from pcs_core.record import Record
from pcs_core.redact import redact

PREFIX_DIGITS_MIN = 8
"""So many digits of a pcs_id name a dead letter."""

_PREFIX = re.compile(rf"[0-9a-f]{{{PREFIX_DIGITS_MIN},64}}")
_SECONDS = len("2026-11-21T10:20:30")


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

    The table shows the first twelve digits of each pcs_id, --json all of them.

    \b
    Example:
      pcs-agent outbox list --json
    """  # noqa: D301
    _print_entries((State.PENDING, State.ACKED), as_json=as_json)


@outbox.command()
@click.option(
    "--resign",
    is_flag=True,
    help="Sign each record anew with the present key: after the key was changed, or was wrong.",
)
@key_file_option
@ca_file_option
@json_option
def flush(*, resign: bool, key_file: str | None, ca_file: str | None, as_json: bool) -> None:
    """Deliver what waits in the outbox.

    \b
    Examples:
      pcs-agent outbox flush
      pcs-agent outbox flush --resign --key-file new.key
    """  # noqa: D301
    config = read_config(key_file, ca_file)
    config.require_endpoint()
    if not _has_folder(config):
        if not as_json:
            print_text(_say_no_folder(config))
        return
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
    if not _has_folder(config):
        if not as_json:
            print_text(_say_no_folder(config))
            return
        done, left = Compaction(0, 0, 0), dict.fromkeys(State, 0)
    else:
        with app.open_outbox(config, warn) as opened:
            done = opened.compact(seal=True)
            left = {state: len(opened.entries(state)) for state in State}
    freed_bytes = max(0, done.freed_bytes)  # the new segment has a header
    if as_json:
        print_json(
            {
                "segments_removed": done.segments,
                "freed_bytes": freed_bytes,
                "entries_kept": sum(left.values()),
                "pending": left[State.PENDING],
                "dead": left[State.DEAD],
                "delivered": left[State.ACKED],
            }
        )
    else:
        print_text(
            f"removed {count_of(done.segments, 'segment')}, freed {count_of(freed_bytes, 'byte')}; still there: "
            f"{left[State.PENDING]} pending, {count_of(left[State.DEAD], 'dead letter')}, "
            f"{left[State.ACKED]} delivered within {config.retention_days:g} days"
        )


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
    _print_entries((State.DEAD,), as_json=as_json)


@dlq.command()
@click.argument("pcs_ids", nargs=-1, metavar="[PCS_ID…]")
@json_option
def redrive(*, pcs_ids: tuple[str, ...], as_json: bool) -> None:
    """Put dead letters back into the outbox: all, or those named.

    The next `pcs-agent run` or `pcs-agent outbox flush` delivers them. The first digits of a PCS_ID will do, eight or
    more, if only one dead letter begins with them.

    \b
    Examples:
      pcs-agent dlq redrive
      pcs-agent dlq redrive 3f1c09aa42e7
    """  # noqa: D301
    for prefix in pcs_ids:
        if not _PREFIX.fullmatch(prefix):
            raise InputError(
                f"PCS_ID: found a string of length {len(prefix)}; allowed: {PREFIX_DIGITS_MIN} to 64 lower-case hex digits"
            )
    config = read_config()
    chosen: list[dict[str, object]] = []
    if _has_folder(config):
        with app.open_outbox(config, warn) as opened:
            entries = _choose(opened.entries(State.DEAD), pcs_ids)
            opened.redrive([entry.seq for entry in entries])
            chosen = [_entry_document(entry, opened.record(entry.seq)) for entry in entries]
    else:
        _choose([], pcs_ids)
    if as_json:
        for document in chosen:
            print_json(document)
    elif chosen:
        what = "1 dead letter is" if len(chosen) == 1 else f"{len(chosen)} dead letters are"
        print_text(f"{what} pending again; deliver with: pcs-agent outbox flush")
    else:
        print_text("no dead letters" if _has_folder(config) else _say_no_folder(config))


def _choose(dead: list[Entry], prefixes: tuple[str, ...]) -> list[Entry]:
    """Return the dead letters whose pcs_id begins with one of these, all if none is given.

    Raises:
        InputError: None begins so, or several do.
    """
    if not prefixes:
        return dead
    chosen: dict[int, Entry] = {}
    for prefix in prefixes:
        found = [entry for entry in dead if entry.pcs_id.startswith(prefix)]
        if len(found) != 1:
            what = f"{len(found)} dead letters that begin so" if found else "no such dead letter"
            raise InputError(
                f"PCS_ID {prefix}: found {what}; allowed: the beginning of one, as dlq list has it"
            )
        chosen[found[0].seq] = found[0]
    return list(chosen.values())


def _has_folder(config: Config) -> bool:
    """Whether there is an outbox to look at; looking makes none.

    Raises:
        ConfigError: Something else is in its place.
    """
    if os.path.isdir(config.outbox_dir):
        return True
    if os.path.lexists(config.outbox_dir):
        raise ConfigError(
            f"{OUTBOX_DIR}: {display_name(config.outbox_dir)}: found no folder; allowed: a folder"
        )
    return False


def _say_no_folder(config: Config) -> str:
    return f"nothing in {display_name(config.outbox_dir)} (no such folder)"


def _print_entries(states: tuple[State, ...], *, as_json: bool) -> None:
    config = read_config()
    if not _has_folder(config):
        if not as_json:
            print_text(_say_no_folder(config))
        return
    with app.open_outbox(config, warn) as opened:
        entries = [entry for state in states for entry in opened.entries(state)]
        if as_json:
            for entry in entries:
                print_json(_entry_document(entry, opened.record(entry.seq)))
            return
        rows = [_entry_cells(entry, opened.record(entry.seq)) for entry in entries[-ROWS_MAX:]]
    if rows:
        print_table(("seq", "pcs_id", "shard", "epoch", "state", "since", "why"), rows, total=len(entries))
    else:
        print_text(f"nothing in {display_name(config.outbox_dir)}")


def _entry_cells(entry: Entry, record: Record | None) -> list[str]:
    shard, epoch = ("?", "?") if record is None else (redact(record.shard_id), str(record.epoch))
    since = format_time(entry.changed_s)[:_SECONDS]
    return [str(entry.seq), short_id(entry.pcs_id), shard, epoch, str(entry.verdict), since, entry.reason]


def _entry_document(entry: Entry, record: Record | None) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "pcs_id": entry.pcs_id,
        "shard_id": None if record is None else redact(record.shard_id),
        "epoch": None if record is None else record.epoch,
        "state": str(entry.state),
        "verdict": str(entry.verdict),
        "appended": format_time(entry.time_s),
        "since": format_time(entry.changed_s),
        "reason": entry.reason,
    }
