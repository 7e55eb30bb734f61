"""What the frames of the inbox mean, and their bytes.

========= ==== ======================================= ==================== ===================================
frame     kind envelope                                payload              synced before
========= ==== ======================================= ==================== ===================================
request   1    `Envelope`                              raw body             anything of it is parsed
outcome   2    request sequence                        an outcome           as 11; written until 0.1.0, and read
refusal   3    request sequence, problem code          –                    a 400 or 401 leaves
settled   4    request sequences with an outcome       –                    – (rides along: a lost one is found
                                                                            again by asking the store)
ack       5    escalation taken off the queue          –                    the command line says so
conflict  6    `Conflict`                              –                    the answer leaves
named     7    as 11                                   outcomes             as 11; written before 11, and read
labels    8    – (memory store only)                   list of `Labelled`   whoever gave them is answered
artifact  9    when it was last needed (as 8)          set or parameters    whoever keeps it goes on
promotion 10   `Promotion` (as 8)                      –                    the command line says so
outcomes  11   request sequences (memory store only)   what is shared, and  a 200 or 202 leaves
                                                       each outcome's own
========= ==== ======================================= ==================== ===================================

A request may be a batch of records. It is closed as a whole, by a refusal frame if any of its records was refused, else
by a settled frame; the outcomes of a batch name no request, because they alone do not close it.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.store import Artifact
from pcs_backend.dedup.store import Conflict
from pcs_backend.exchange import Envelope, Request
from pcs_backend.outcome import Form, Key, Outcome, Shared, WholeOutcome
from pcs_core.wal import Frame, NewFrame

FORMS_REMEMBERED_MAX = 256
"""Forms that are recognised in later frames."""


class FrameKind(enum.IntEnum):
    """Kinds of frames; numbers never change meaning."""

    REQUEST = 1
    OUTCOME = 2
    REFUSAL = 3
    SETTLED = 4
    ACK = 5
    CONFLICT = 6
    NAMED_OUTCOMES = 7
    LABELS = 8
    ARTIFACT = 9
    PROMOTION = 10
    OUTCOMES = 11


OUTCOME_KINDS = (FrameKind.OUTCOME, FrameKind.NAMED_OUTCOMES, FrameKind.OUTCOMES)
"""Frames that hold outcomes, one or several."""


class Refusal(msgspec.Struct, frozen=True):
    """A request that was refused for good, or a batch of which records were.

    Attributes:
        request: Its sequence number.
        problem: Code of the problem it was answered with; of a batch that was taken apart, empty.
        records: Of such a batch the refused records: position, and code of the problem.
    """

    request: int
    problem: str
    records: dict[int, str] = {}


class _SharedOf(NamedTuple):
    """`Shared` as kind 11 has it.

    Attributes:
        tenant: The fields of `Shared` from here on.
        status: As above.
        params_version: As above.
        key_id: As above.
        stored_at_ms: As above.
        expires_at_ms: As above.
        form: Where among the frame's forms its is.
    """

    tenant: str
    status: int
    params_version: str
    key_id: str
    stored_at_ms: int
    expires_at_ms: int
    form: int


class _Outcomes(NamedTuple):
    """Outcomes as kind 11 has them: a list a field, as long as there are outcomes.

    Attributes:
        forms: What some of them have in common of their texts.
        all_shared: What some of them share beside that.
        places: Of each outcome, where in `all_shared` its is.
        pcs_ids: The fields of `Outcome` from here on.
        fingerprints: As above.
        owns: As above.
        firsts: As above.
        seconds: As above.
        inputs: As above.
    """

    forms: list[Form]
    all_shared: list[_SharedOf]
    places: list[int]
    pcs_ids: list[str]
    fingerprints: list[str]
    owns: list[bytes]
    firsts: list[bytes]
    seconds: list[bytes]
    inputs: list[bytes]


class _OutcomeOf(msgspec.Struct, frozen=True):
    request: int | None


class _OutcomesOf(msgspec.Struct, frozen=True):
    requests: list[int]
    stored_at_ms: int


class _Settled(msgspec.Struct, frozen=True):
    requests: list[int]


class _Ack(msgspec.Struct, frozen=True):
    tenant: str
    pcs_id: str


class _Needed(msgspec.Struct, frozen=True):
    needed_ms: int


_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_outcome_of = msgspec.json.Decoder(_OutcomeOf).decode
_decode_named = msgspec.msgpack.Decoder(WholeOutcome).decode
_decode_all_named = msgspec.msgpack.Decoder(list[WholeOutcome]).decode
_decode_outcomes_of = msgspec.json.Decoder(_OutcomesOf).decode
_decode_outcomes = msgspec.msgpack.Decoder(_Outcomes).decode
_pack = msgspec.msgpack.Encoder().encode
_decode_refusal = msgspec.json.Decoder(Refusal).decode
_decode_settled = msgspec.json.Decoder(_Settled).decode
_decode_ack = msgspec.json.Decoder(_Ack).decode
_decode_conflict = msgspec.json.Decoder(Conflict).decode
_decode_labels = msgspec.msgpack.Decoder(list[Labelled]).decode
_decode_needed = msgspec.json.Decoder(_Needed).decode
_decode_promotion = msgspec.json.Decoder(Promotion).decode


def request_frame(request: Request) -> NewFrame:
    """Return the frame of a raw request."""
    return NewFrame(FrameKind.REQUEST, _encode(request.envelope), request.body)


def decode_request(envelope: bytes, payload: bytes) -> Request:
    """Read a request frame back."""
    return Request(_decode_envelope(envelope), payload)


def outcomes_frame(outcomes: Sequence[Outcome], requests: Sequence[int]) -> NewFrame:
    """Return the frame of outcomes that the inbox itself keeps.

    Args:
        outcomes: One or more, stored at the same time.
        requests: The requests that are closed by them.
    """
    envelope = _encode(_OutcomesOf(list(requests), outcomes[0].stored_at_ms))
    all_shared = {id(each.shared): each.shared for each in outcomes}
    places = {of: place for place, of in enumerate(all_shared)}
    forms = {
        form: place for place, form in enumerate(dict.fromkeys(each.form for each in all_shared.values()))
    }
    columns = _Outcomes(
        list(forms),
        [
            _SharedOf(
                each.tenant,
                each.status,
                each.params_version,
                each.key_id,
                each.stored_at_ms,
                each.expires_at_ms,
                forms[each.form],
            )
            for each in all_shared.values()
        ],
        [places[id(each.shared)] for each in outcomes] if len(places) > 1 else [0] * len(outcomes),
        [each.pcs_id for each in outcomes],
        [each.fingerprint for each in outcomes],
        [each.own for each in outcomes],
        [each.first for each in outcomes],
        [each.second for each in outcomes],
        [each.inputs for each in outcomes],
    )
    return NewFrame(FrameKind.OUTCOMES, envelope, _pack(columns))


def decode_outcomes(frame: Frame) -> list[Outcome]:
    """Read the outcomes of a frame, of any of `OUTCOME_KINDS`. What they share is one object again."""
    match frame.kind:
        case FrameKind.OUTCOME:
            return [_decode_named(frame.payload).outcome]
        case FrameKind.NAMED_OUTCOMES:
            shared: dict[Shared, Shared] = {}
            named = [each.outcome for each in _decode_all_named(frame.payload)]
            return [
                msgspec.structs.replace(each, shared=shared.setdefault(each.shared, each.shared))
                for each in named
            ]
    found = _decode_outcomes(frame.payload)
    forms = list(map(_remembered, found.forms))
    all_shared = [
        Shared(
            sys.intern(each.tenant),
            each.status,
            sys.intern(each.params_version),
            sys.intern(each.key_id),
            each.stored_at_ms,
            each.expires_at_ms,
            forms[each.form],
        )
        for each in found.all_shared
    ]
    return [Outcome(all_shared[place], *fields) for place, *fields in zip(*found[2:], strict=True)]


@lru_cache(maxsize=FORMS_REMEMBERED_MAX)
def _remembered(form: Form) -> Form:
    """Return the first form that was equal: outcomes of a gate share it across frames, after a restart as before."""
    return form


def requests_closed(frame: Frame) -> list[int]:
    """Read of such a frame which requests its outcomes close."""
    if frame.kind == FrameKind.OUTCOME:
        request = _decode_outcome_of(frame.envelope).request
        return [] if request is None else [request]
    return _decode_outcomes_of(frame.envelope).requests


def stored_at_ms(frame: Frame) -> int:
    """Read of such a frame when its outcomes were stored."""
    if frame.kind == FrameKind.OUTCOME:
        return _decode_named(frame.payload).stored_at_ms
    return _decode_outcomes_of(frame.envelope).stored_at_ms


def refusal_frame(refusal: Refusal) -> NewFrame:
    """Return the frame that notes a refusal."""
    return NewFrame(FrameKind.REFUSAL, _encode(refusal))


def decode_refusal(envelope: bytes) -> Refusal:
    """Read a refusal frame back."""
    return _decode_refusal(envelope)


def settled_frame(sequences: Sequence[int]) -> NewFrame:
    """Return the frame that notes requests whose outcome is stored."""
    return NewFrame(FrameKind.SETTLED, _encode(_Settled(list(sequences))))


def decode_settled(envelope: bytes) -> list[int]:
    """Read a settled frame back."""
    return _decode_settled(envelope).requests


def ack_frame(key: Key) -> NewFrame:
    """Return the frame of an escalation taken off the queue."""
    return NewFrame(FrameKind.ACK, _encode(_Ack(key.tenant, key.pcs_id)))


def decode_ack(envelope: bytes) -> Key:
    """Read an ack frame back."""
    ack = _decode_ack(envelope)
    return Key(ack.tenant, ack.pcs_id)


def conflict_frame(conflict: Conflict) -> NewFrame:
    """Return the frame of a conflict."""
    return NewFrame(FrameKind.CONFLICT, _encode(conflict))


def decode_conflict(envelope: bytes) -> Conflict:
    """Read a conflict frame back."""
    return _decode_conflict(envelope)


def labels_frame(labels: Sequence[Labelled]) -> NewFrame:
    """Return the frame of labels that came together."""
    return NewFrame(FrameKind.LABELS, b"", _pack(labels))


def decode_labels(frame: Frame) -> list[Labelled]:
    """Read the labels of a frame back."""
    return _decode_labels(frame.payload)


def artifact_frame(artifact: Artifact) -> NewFrame:
    """Return the frame of an artifact."""
    return NewFrame(FrameKind.ARTIFACT, _encode(_Needed(artifact.needed_ms)), artifact.data)


def decode_artifact(frame: Frame) -> Artifact:
    """Read an artifact frame back."""
    return Artifact(frame.payload, _decode_needed(frame.envelope).needed_ms)


def promotion_frame(promotion: Promotion) -> NewFrame:
    """Return the frame of a promotion."""
    return NewFrame(FrameKind.PROMOTION, _encode(promotion))


def decode_promotion(frame: Frame) -> Promotion:
    """Read a promotion frame back."""
    return _decode_promotion(frame.envelope)
