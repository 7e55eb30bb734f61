"""What the outbox knows of one record, and the envelopes of its frames in the log.

==  =========  ==========================================  =====================================================
k.  frame      envelope (JSON)                             payload
==  =========  ==========================================  =====================================================
1   entry      seq, pcs_id, time_s, replaces, burial       the record as built, JSON
2   ack        seq, time_s, verdict                        none
3   dead       seq, time_s, reason                         none
4   redrive    seq, time_s                                 none
==  =========  ==========================================  =====================================================

`seq` is the record's `outbox_seq`, which stays when compaction writes the entry again; `burial` is then the dead letter's
time and reason, so that one frame carries the whole state. `replaces` names the dead letter of the same pcs_id that
this entry takes the place of.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from pcs_core.identity import PcsId
from pcs_core.wal import Position

ENTRY_KIND, ACK_KIND, DEAD_KIND, REDRIVE_KIND = 1, 2, 3, 4
REASON_CHARACTERS_MAX = 200


class State(enum.StrEnum):
    """Where a record stands."""

    PENDING = "pending"
    ACKED = "acked"
    DEAD = "dead"


class Verdict(enum.StrEnum):
    """What became of a record: the backend's answer, or why there is none."""

    ACCEPTED = "accepted"
    ESCALATED = "escalated"
    PENDING = "pending"
    DEAD = "dead"


class Burial(msgspec.Struct, frozen=True):
    """When and why a record became a dead letter."""

    time_s: float
    reason: str


class EntryEnvelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Envelope of an entry frame."""

    seq: int
    pcs_id: str
    time_s: float
    replaces: int | None = None
    burial: Burial | None = None


class AckEnvelope(msgspec.Struct, frozen=True):
    """Envelope of an acknowledgement."""

    seq: int
    time_s: float
    verdict: Verdict


class DeadEnvelope(msgspec.Struct, frozen=True):
    """Envelope of a dead letter."""

    seq: int
    time_s: float
    reason: str


class RedriveEnvelope(msgspec.Struct, frozen=True):
    """Envelope of a redrive."""

    seq: int
    time_s: float


@dataclass(slots=True)
class Entry:
    """One record in the outbox. Its bytes stay on disk.

    Attributes:
        seq: Its `outbox_seq`.
        pcs_id: Its identity.
        time_s: When it was appended, seconds since 1970.
        position: Where its frame stands in the log.
        state: Where it stands.
        changed_s: When it came into that state.
        reason: Why it is dead; empty otherwise.
        verdict: The backend's answer; `PENDING` or `DEAD` before there is one.
    """

    seq: int
    pcs_id: PcsId
    time_s: float
    position: Position
    state: State = State.PENDING
    changed_s: float = 0.0
    reason: str = ""
    verdict: Verdict = Verdict.PENDING
