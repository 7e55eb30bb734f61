"""Labels as they come in: what is stored with them, and what each line is answered that is not taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from inboxes import NOW_S, Clock, running_rig, signed
from outcomes import LIFE_MS, NOW_MS, changed, outcome, pcs_id, put
from pcs_backend.conformal.calibration import Labelled, Signals
from pcs_backend.conformal.labelling import Labeller, Labelling, is_whole, read_whole
from pcs_backend.conformal.provenance import ProvenanceWriter, SetName, read_provenance
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.exchange import Reply
from pcs_core.errors import MalformedError
from pcs_core.record import decode_record
from pcs_core.verify import NOT_ASKED

ANYBODY = Labeller("this machine", None)
DIGESTS = ("a" * 64, "b" * 64)


def provenance() -> str:
    benign, bad = (SetName(digest, 3) for digest in DIGESTS)
    writer = ProvenanceWriter("c" * 64, gated=True, benign=benign, bad=bad)
    inputs = writer.inputs_of(decode_record(signed(coh_star=0.25)), NOT_ASKED)
    return (writer.head + inputs + writer.tail(is_asked=False)).decode()


def line(number: int = 1, label: str = "benign", by: str = "anna", **more: object) -> bytes:
    return json.dumps({"pcs_id": pcs_id(number), "label": label, "by": by, **more}).encode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MemoryStore]:
    """A store with accepted 1, escalated 2, 3 of the tenant `plants`, and 4 that was stored without signals."""
    async with running_rig(tmp_path / "wal") as rig:
        texts = {number: provenance() for number in (1, 2, 3)}
        found = [
            outcome(1),
            outcome(2, status=202, body=b'{"reasons":[]}'),
            outcome(3, tenant="plants"),
            outcome(4),
        ]
        await put(
            rig.store,
            *(
                changed(each, provenance=texts.get(number, ""), expires_at_ms=NOW_MS + LIFE_MS)
                for number, each in enumerate(found, start=1)
            ),
        )
        yield rig.store


async def take(store: MemoryStore, *lines: bytes, labeller: Labeller = ANYBODY) -> list[Reply]:
    return await Labelling(store.get, store.calibrations, Clock()).take(lines, labeller)


async def kept(store: MemoryStore) -> list[Labelled]:
    return await store.calibrations.list_labels(None, since_ms=0, limit=100)


def details(replies: Sequence[Reply]) -> list[tuple[int, str]]:
    return [(reply.status, json.loads(reply.body).get("detail", "")) for reply in replies]


class TestTaken:
    async def test_label_has_what_was_stored_with_its_outcome(self, store: MemoryStore) -> None:
        (reply,) = await take(store, line(1, "bad", picked_by_verdict=False))
        assert json.loads(reply.body) == {
            "pcs_id": pcs_id(1),
            "tenant": "default",
            "label": "bad",
            "picked_by_verdict": False,
        }
        stored = read_provenance(provenance())
        assert stored is not None
        assert await kept(store) == [
            Labelled(
                tenant="default",
                pcs_id=pcs_id(1),
                label="bad",
                by="anna (this machine)",
                signals=stored.signals,
                picked_by_verdict=False,
                status=200,
                sets=DIGESTS,
                stored_at_ms=NOW_MS,
                labelled_at_ms=int(NOW_S * 1_000),
            )
        ]
        assert stored.signals == Signals(stored.signals.d_hat, 0.25, stored.signals.r)

    @pytest.mark.parametrize(
        ("number", "said", "picked"),
        [(1, None, True), (2, None, True), (1, True, True), (1, False, False), (2, False, False)],
        ids=["accepted", "escalated", "accepted, said so", "accepted, denied", "escalated, denied"],
    )
    async def test_record_was_picked_by_its_verdict_unless_it_is_denied_whatever_the_verdict(
        self, store: MemoryStore, number: int, said: bool | None, picked: bool
    ) -> None:
        (reply,) = await take(store, line(number, picked_by_verdict=said))
        assert reply.status == 200
        assert [each.picked_by_verdict for each in await kept(store)] == [picked]

    async def test_of_two_words_on_one_record_the_later_line_counts(self, store: MemoryStore) -> None:
        replies = await take(store, line(1, "bad"), line(2), line(1, "benign"))
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert {each.pcs_id: each.label for each in await kept(store)} == {
            pcs_id(1): "benign",
            pcs_id(2): "benign",
        }


class TestNotTaken:
    async def test_lines_are_answered_one_by_one_and_the_good_are_taken(self, store: MemoryStore) -> None:
        replies = await take(
            store,
            line(9),
            line(4),
            b"{",
            line(1),
            line(1, "odd"),
            line(1, picked=True),
            line(1, by=""),
            line(1, by="a\nb"),
            b"[]",
        )
        assert [status for status, _ in details(replies)] == [404, 409, 400, 200, 400, 400, 400, 400, 400]
        assert [each.pcs_id for each in await kept(store)] == [pcs_id(1)]
        said = [detail for _, detail in details(replies)]
        assert said[0].startswith("$.pcs_id: found one without a stored outcome")
        assert "ENABLE_CALIBRATION_LOGGING" in said[1]
        assert said[4] == "$.label: found a string of length 3; allowed: benign or bad"
        assert said[5].startswith(
            "$: found an unknown member; allowed: an object with only these names: pcs_id"
        )

    async def test_no_answer_repeats_a_value(self, store: MemoryStore) -> None:
        replies = await take(store, line(1, "canary-1"), b'{"canary-2": }', line(1, by="canary-3\n"))
        assert b"canary" not in b"".join(reply.body for reply in replies)

    @pytest.mark.parametrize(
        ("labeller", "tenant", "status"),
        [
            (Labeller("key k", "plants"), None, 200),
            (Labeller("key k", "plants"), "plants", 200),
            (Labeller("key k", "default"), "plants", 401),
            (Labeller("key k", "default"), None, 404),
            (ANYBODY, "plants", 200),
            (ANYBODY, None, 404),
        ],
    )
    async def test_credentials_of_a_tenant_label_its_records_alone(
        self, store: MemoryStore, labeller: Labeller, tenant: str | None, status: int
    ) -> None:
        (reply,) = await take(store, line(3, tenant=tenant), labeller=labeller)
        assert reply.status == status
        assert [each.tenant for each in await kept(store)] == (["plants"] if status == 200 else [])

    async def test_provenance_that_cannot_be_read_is_none(self, store: MemoryStore) -> None:
        await put(store, changed(outcome(7), provenance='{"v":1}'))
        assert [status for status, _ in details(await take(store, line(7)))] == [409]


class TestWholeLines:
    async def test_exported_label_is_read_as_it_was(self, store: MemoryStore) -> None:
        await take(store, line(1), line(2, "bad"))
        for each in await kept(store):
            encoded = msgspec.json.encode(each)
            assert (is_whole(encoded), read_whole(encoded)) == (True, each)
        assert (is_whole(line(1)), is_whole(b"{"), is_whole(b"[1]")) == (False, False, False)

    @pytest.mark.parametrize(
        "change",
        [
            {"pcs_id": "A" * 64},
            {"tenant": "No"},
            {"label": "odd"},
            {"by": ""},
            {"by": "a\x1b[2J"},
            {"status": 400},
            {"signals": [1.0, 2.0]},
            {"signals": [1.0, 2.0, "3"]},
            {"sets": ["short", ""]},
            {"labelled_at_ms": -1},
            {"later": 1},
        ],
        ids=lambda change: next(iter(change)),
    )
    async def test_line_that_no_export_wrote_is_refused(
        self, store: MemoryStore, change: dict[str, object]
    ) -> None:
        await take(store, line(1))
        (label,) = await kept(store)
        with pytest.raises(MalformedError):
            read_whole(json.dumps(msgspec.to_builtins(label) | change).encode())
