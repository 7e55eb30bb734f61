"""Labels for tests, and services that begin with some."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

from pcs_backend.app import real_ports
from pcs_backend.config import load_config
from pcs_backend.conformal.calibration import Label, Labelled, Signals
from pcs_backend.engine import Engine, offline


def now_ms() -> int:
    return int(time.time() * 1_000)


def labelled(
    label: Label, signals: Signals, count: int, *, sets: tuple[str, str] = ("", "")
) -> list[Labelled]:
    """Return labels that came now, of as many records with the same signals."""
    came_ms = now_ms()
    return [
        Labelled(
            tenant="default",
            pcs_id=hashlib.sha256(f"{label} {number}".encode()).hexdigest(),
            label=label,
            by="a person",
            signals=signals,
            picked_by_verdict=False,
            status=200,
            sets=sets,
            stored_at_ms=came_ms,
            labelled_at_ms=came_ms,
        )
        for number in range(count)
    ]


async def put_labels(environ: Mapping[str, str], *labels: Sequence[Labelled]) -> None:
    """Put labels into the store of a service that does not run, or whose store is a server."""
    engine = Engine(load_config(environ), real_ports())
    async with offline(engine, must_exist=False):
        await engine.store.open()
        for each in labels:
            await engine.calibrations.put_labels(each)
