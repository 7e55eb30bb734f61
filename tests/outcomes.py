"""Outcomes to be stored, what waits or conflicts, and the clock that stores are given."""

from __future__ import annotations

import hashlib

import msgspec

from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Escalation, Placed
from pcs_backend.outcome import Outcome, WholeOutcome, whole

NOW_S = 1_750_000_000.0
NOW_MS = int(NOW_S) * 1_000
LIFE_MS = 1_000_000


class Clock:
    """The wall clock of all stores of a test."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s

    def pass_ms(self, milliseconds: int) -> None:
        self.now_s += milliseconds / 1_000


def pcs_id(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def outcome(
    number: int = 1,
    *,
    tenant: str = "default",
    status: int = 200,
    body: bytes = b'{"accepted":true}',
    stored_at_ms: int = NOW_MS,
    life_ms: int = LIFE_MS,
) -> Outcome:
    return WholeOutcome(
        tenant=tenant,
        pcs_id=pcs_id(number),
        status=status,
        body=body,
        fingerprint=hashlib.sha256(body).hexdigest(),
        params_version="defaults-1",
        key_id="3f2a",
        provenance="",
        stored_at_ms=stored_at_ms,
        expires_at_ms=stored_at_ms + life_ms,
    ).outcome


def changed(of: Outcome, **fields: object) -> Outcome:
    """Return an outcome with other fields; their names are those of `WholeOutcome`."""
    return msgspec.structs.replace(whole(of), **fields).outcome


def conflict(number: int, *, tenant: str = "default", fingerprint: str = "f1", seen_at_ms: int) -> Conflict:
    return Conflict(tenant=tenant, pcs_id=pcs_id(number), fingerprint=fingerprint, seen_at_ms=seen_at_ms)


def escalation(of: Outcome) -> Escalation:
    return Escalation(tenant=of.tenant, pcs_id=of.pcs_id, body=of.body, stored_at_ms=of.stored_at_ms)


async def put(store: DedupStore, *outcomes: Outcome) -> list[Placed]:
    return await store.put_first([Candidate(each, number) for number, each in enumerate(outcomes)])
