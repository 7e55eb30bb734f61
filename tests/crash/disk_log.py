"""Logs as they lie on a disk, read without opening them for writing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pcs_agent.outbox.entry import ACK_KIND, ENTRY_KIND
from pcs_backend.inbox.frames import FrameKind, decode_outcomes
from pcs_core.wal import Frame
from pcs_core.wal.frame import decode_segment_header
from pcs_core.wal.scan import SegmentScan


@dataclass
class InboxOnDisk:
    """What the backend's log holds.

    Attributes:
        requests: Bodies of requests by `pcs_id`.
        outcomes: How often an outcome of a `pcs_id` stands in it; none with a database.
    """

    requests: dict[str, bytes] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass
class OutboxOnDisk:
    """What the agent's outbox holds.

    Attributes:
        records: Records as built, by `pcs_id`.
        acked: Which of them were acknowledged.
    """

    records: dict[str, bytes] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)


def read_inbox(folder: Path) -> InboxOnDisk:
    """Read the inbox of worker 0 below a data folder."""
    found = InboxOnDisk()
    for frame in _frames(folder / "wal" / "0"):
        if frame.kind == FrameKind.REQUEST:
            for body in frame.payload.splitlines():  # a batch of the agent's has a record a line
                found.requests[json.loads(body)["pcs_id"]] = body
        elif frame.kind == FrameKind.OUTCOMES:
            for outcome in decode_outcomes(frame):
                found.outcomes[outcome.pcs_id] = found.outcomes.get(outcome.pcs_id, 0) + 1
    return found


def read_outbox(folder: Path) -> OutboxOnDisk:
    """Read an outbox."""
    found = OutboxOnDisk()
    ids: dict[int, str] = {}
    for frame in _frames(folder):
        envelope = msgspec.json.decode(frame.envelope)
        if frame.kind == ENTRY_KIND:
            ids[envelope["seq"]] = envelope["pcs_id"]
            found.records[envelope["pcs_id"]] = frame.payload
            found.acked.discard(envelope["pcs_id"])
        elif frame.kind == ACK_KIND and envelope["seq"] in ids:
            found.acked.add(ids[envelope["seq"]])
    return found


def _frames(folder: Path) -> list[Frame]:
    frames: list[Frame] = []
    for path in sorted(folder.glob("*.wal")):
        data = path.read_bytes()
        header = decode_segment_header(data)
        if header is not None:  # otherwise the cut came while the segment was made
            scan = SegmentScan(path.name, data, header[0], int(path.stem))
            frames += [found.frame for found in scan]
    return frames
