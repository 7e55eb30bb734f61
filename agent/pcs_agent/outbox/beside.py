"""Reading an outbox that another process may own: no lock is taken and nothing is changed.

What is being written at that moment may be missing at the end, and what its owner removes meanwhile at the beginning.
"""

from __future__ import annotations

import msgspec

from pcs_agent.outbox.entry import (
    ACK_KIND,
    DEAD_KIND,
    ENTRY_KIND,
    REDRIVE_KIND,
    AckEnvelope,
    DeadEnvelope,
    EntryEnvelope,
    RedriveEnvelope,
    Verdict,
)
from pcs_core.wal import Files, Frame, read_newest_first

RECORDS_MAX = 100_000
"""Records that are read, the newest, some 1 kB each; of more, only that there are is told."""


class Seen(msgspec.Struct, frozen=True):
    """One record as it stands in an outbox.

    Attributes:
        seq: Its `outbox_seq`.
        verdict: The backend's answer, or dead, or pending.
        reason: Why it is dead; empty otherwise.
        body: The record as built, JSON.
    """

    seq: int
    verdict: Verdict
    reason: str
    body: bytes


def read_beside(folder: str, files: Files) -> tuple[list[Seen], bool]:
    """Return the newest entry of every record, oldest first, and whether there are older ones beyond `RECORDS_MAX`.

    Frames that say nothing this version understands are passed over.

    Args:
        folder: The outbox's.
        files: The disk.

    Raises:
        WalError, OSError: The disk does not give it.
    """
    states: dict[int, tuple[Verdict, str]] = {}
    bodies: dict[int, tuple[str, bytes]] = {}
    more = False
    for segment in read_newest_first(folder, files):
        if len(bodies) >= RECORDS_MAX:
            more = True
            break
        segment_states: dict[int, tuple[Verdict, str]] = {}
        segment_bodies: dict[int, tuple[str, bytes]] = {}
        for frame in segment:
            _take(frame, segment_states, segment_bodies)
        states = segment_states | states
        bodies = segment_bodies | bodies
    newest = {pcs_id: seq for seq, (pcs_id, _) in sorted(bodies.items())}
    return [Seen(seq, *states[seq], bodies[seq][1]) for seq in sorted(newest.values())], more


def _take(frame: Frame, states: dict[int, tuple[Verdict, str]], bodies: dict[int, tuple[str, bytes]]) -> None:
    try:
        if frame.kind == ENTRY_KIND:
            entry = msgspec.json.decode(frame.envelope, type=EntryEnvelope)
            burial = entry.burial
            states[entry.seq] = (Verdict.PENDING, "") if burial is None else (Verdict.DEAD, burial.reason)
            bodies[entry.seq] = (entry.pcs_id, frame.payload)
        elif frame.kind == ACK_KIND:
            ack = msgspec.json.decode(frame.envelope, type=AckEnvelope)
            states[ack.seq] = (ack.verdict, "")
        elif frame.kind == DEAD_KIND:
            dead = msgspec.json.decode(frame.envelope, type=DeadEnvelope)
            states[dead.seq] = (Verdict.DEAD, dead.reason)
        elif frame.kind == REDRIVE_KIND:
            states[msgspec.json.decode(frame.envelope, type=RedriveEnvelope).seq] = (Verdict.PENDING, "")
    except (ValueError, RecursionError):  # whatever bytes can make msgspec raise
        return
