"""Request ids, and the one form of `traceparent` that is taken."""

from __future__ import annotations

import pytest

from pcs_backend.exchange import Envelope
from pcs_backend.inbox.frames import decode_request
from pcs_backend.trace_context import RequestIds, parent_of, read_traceparent, trace_id_of
from pcs_core.redact import redact

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_ids_differ_and_carry_the_process() -> None:
    ids = RequestIds(lambda count: b"\xab" * count)
    assert [ids.next_id(), ids.next_id()] == ["ab" * 6 + "00000001", "ab" * 6 + "00000002"]


def test_no_id_is_taken_for_a_telephone_number() -> None:
    ids = RequestIds(lambda count: b"\x12" * count)
    assert redact(name := ids.next_id()) == name


def test_good_header_is_taken_whole() -> None:
    assert read_traceparent([GOOD]) == GOOD
    assert trace_id_of(GOOD) == "0af7651916cd43dd8448eb211c80319c"
    assert parent_of(GOOD) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
    assert trace_id_of("") == ""


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [GOOD, GOOD],
        [GOOD.upper()],
        [GOOD + "-00"],
        [GOOD + "\n"],
        ["01" + GOOD[2:]],
        ["ff" + GOOD[2:]],
        [GOOD.replace("b7ad6b7169203331", "0" * 16)],
        [GOOD.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)],
        [GOOD.replace("0af", "0aé")],
        [GOOD[:-1]],
    ],
)
def test_anything_else_counts_as_none(values: list[str]) -> None:
    assert read_traceparent(values) == ""


def test_frames_without_id_and_trace_read_as_before() -> None:
    old = b'{"received_at_ms":1,"path":"/v1/pcs/submit","content_type":"application/json","content_encoding":""}'
    envelope = decode_request(old, b"{}").envelope
    assert envelope == Envelope(received_at_ms=1, path="/v1/pcs/submit", content_type="application/json")
    assert (envelope.request_id, envelope.traceparent) == ("", "")
