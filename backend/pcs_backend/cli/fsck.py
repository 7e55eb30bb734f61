"""`pcs-backend fsck`: is everything on disk as it was written?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
import orjson
from rich.console import Console
from rich.table import Table

from pcs_backend.app import real_ports
from pcs_backend.config import load_config
from pcs_backend.fsck import DataReport, owned
from pcs_core.wal import LogReport, Repair, SegmentReport

_WIDTH_WITHOUT_TERMINAL = 160


@click.command(
    epilog="""
\b
Examples:
  pcs-backend fsck
  pcs-backend fsck --repair --json
\b
Run it while nothing serves DATA_DIR. A torn tail is what a crash leaves, no damage; the next start cuts it off.
Exit codes: 0 nothing is damaged, or no longer; 1 something is, or the disk refused; 2 usage, configuration, or a process
owns the folder.
"""
)
@click.option(
    "--repair",
    is_flag=True,
    help="Put damaged bytes aside and write damaged segments anew from their good frames.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fsck(*, repair: bool, as_json: bool) -> None:
    """Check every log, what is aside, and the memory store's snapshot."""
    settings = load_config(os.environ).settings
    needs_snapshot = settings.dedup_backend == "memory"
    repairs: list[Repair] = []
    with owned(real_ports().files, settings.data_dir) as data:
        report = data.check(needs_snapshot=needs_snapshot)
        if repair:
            repairs = data.repair(report)
            if repairs:
                report = data.check(needs_snapshot=needs_snapshot)
    if as_json:
        click.echo(orjson.dumps(_document(report, repairs)))
    else:
        _print(report, repairs)
    if report.is_damaged:
        raise SystemExit(1)


def _document(report: DataReport, repairs: Sequence[Repair]) -> dict[str, object]:
    return {
        "damaged": report.is_damaged,
        "logs": [
            {
                "worker": worker,
                "segments": [segment._asdict() | _damages(segment) for segment in log.segments],
                **_damages(log),
                "aside": log.aside,
            }
            for worker, log in report.logs.items()
        ],
        "snapshot": {"exists": report.snapshot.exists, "problem": report.snapshot.problem},
        "repairs": [repair._asdict() for repair in repairs],
    }


def _damages(found: SegmentReport | LogReport) -> dict[str, object]:
    return {"damages": [damage._asdict() for damage in found.damages]}


def _print(report: DataReport, repairs: Sequence[Repair]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    table = Table(box=None, pad_edge=False)
    for heading in ("worker", "segment", "bytes", "frames", "state"):
        table.add_column(heading, overflow="fold")
    for worker, log in report.logs.items():
        for segment in log.segments:
            figures = (str(segment.size_bytes), str(segment.frames))
            table.add_row(worker, segment.name, *figures, _state(segment))
    console.print(table if table.row_count else "no segments")
    for repair in repairs:
        click.echo(f"{repair.name}: {repair.what}")
    for worker, log in report.logs.items():
        for damage in log.all_damages:
            place = f"{worker}/{damage.segment}, offset {damage.offset}, {damage.size_bytes} bytes"
            click.echo(f"damaged: {place}: {damage.what}")
        if log.aside:
            click.echo(f"kept aside: {len(log.aside)} files of worker {worker}")
    if report.snapshot.problem:
        click.echo(f"damaged: the memory store's snapshot {report.snapshot.problem}")
    click.echo("damaged" if report.is_damaged else "no damage")


def _state(segment: SegmentReport) -> str:
    if segment.damages:
        return "DAMAGED"
    if segment.torn_bytes:
        return f"open, a torn tail of {segment.torn_bytes} bytes"
    return "sealed" if segment.is_sealed else "open"
