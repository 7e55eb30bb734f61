"""The stages together: what is on disk when, and what a failing disk does."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent import pipeline
from pcs_agent.deliver import Answer, BatchSize, Courier, Dispatcher, Sender
from pcs_agent.deliver.courier import FLIGHTS_MAX
from pcs_agent.deliver.offload import ThreadOffload
from pcs_agent.errors import InputError
from pcs_agent.events import Window
from pcs_agent.outbox import Outbox, State, Verdict
from pcs_agent.pipeline import Job, Outcome, Run, append_new, iter_summaries, or_empty, summarise
from pcs_agent.signals import SignalSettings
from pcs_core.errors import WalFailedError
from pcs_core.identity import EPOCH_MAX, ShardId
from pcs_core.params import Params
from pcs_core.record import Record
from pcs_core.wal import PosixFiles

WAIT_S = 10.0


def job(**changes: Any) -> Job:
    settings: dict[str, Any] = {
        "shard_id": ShardId("a"),
        "first_epoch": 0,
        "settings": SignalSettings(directions=5),
        "params": Params(),
        "signer": None,
        "allow_missing": False,
        "missing": 0,
    }
    return Job(**(settings | changes))


def windows(count: int, rows: int = 4) -> Iterator[Window]:
    for number in range(count):
        yield Window(number, np.random.default_rng(number).random((rows, 2)))


class Stub:
    """A transport that takes everything, after `before` was called with what was sent."""

    def __init__(self, before: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._before = before

    async def post(self, body: bytes) -> Answer:
        document = json.loads(body)
        self._before(document)
        self.sent.append(document)
        receipt = {"pcs_id": document["pcs_id"], "accepted": True, "escalated": False}
        return Answer(200, json.dumps(receipt).encode())


class Bench:
    def __init__(self, outbox: Outbox, fake_time: Any) -> None:
        self.outbox = outbox
        self.time = fake_time
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []
        self.reported = threading.Semaphore(0)

    def report(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.reported.release()

    async def run(
        self,
        transport: Any,
        stream: Iterator[Window] | None,
        what: Job | None,
        stop: asyncio.Event | None = None,
    ) -> None:
        run = Run(
            self.outbox,
            offload=ThreadOffload(),
            report=self.report,
            warn=self.warnings.append,
        )
        courier = Courier(
            self.outbox,
            Sender(Dispatcher(transport, self.time.clock), BatchSize(1, self.time.monotonic)),
            offload=ThreadOffload(),
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            random=lambda: 0.5,
            deadline_s=900.0,
            settled=run.note_settlement,
        )
        summaries = None if stream is None or what is None else iter_summaries(stream, what, self.time.clock)
        await run.deliver(courier, summaries, stop)


@pytest.fixture
def bench(open_outbox: Callable[..., Outbox], fake_time: Any) -> Bench:
    return Bench(open_outbox(), fake_time)


async def test_a_record_is_on_disk_before_it_is_sent(bench: Bench, tmp_path: Path) -> None:
    def look(document: dict[str, Any]) -> None:
        data = b"".join(path.read_bytes() for path in (tmp_path / "outbox").glob("*.wal"))
        assert f'"pcs_id":"{document["pcs_id"]}","schema"'.encode() in data

    transport = Stub(look)
    await bench.run(transport, windows(5), job())
    assert sorted(document["epoch"] for document in transport.sent) == [0, 1, 2, 3, 4]
    assert sorted(document["ft"]["outbox_seq"] for document in transport.sent) == sorted(
        entry.seq for entry in bench.outbox.entries(State.ACKED)
    )


async def test_what_is_pending_already_is_not_appended_again(bench: Bench) -> None:
    what = job()
    append_new(summarise(list(windows(3)), what, bench.time.clock), bench.outbox)
    transport = Stub()
    await bench.run(transport, windows(3), what)
    assert sorted(document["epoch"] for document in transport.sent) == [0, 1, 2]
    assert len(bench.outbox.entries(State.ACKED)) == 3
    assert {outcome.verdict for outcome in bench.outcomes} == {Verdict.ACCEPTED}


async def test_what_an_earlier_run_left_is_reported_once_though_it_is_settled_before_it_is_built_again(
    bench: Bench,
) -> None:
    what = job()
    append_new(summarise(list(windows(3)), what, bench.time.clock), bench.outbox)

    def late() -> Iterator[Window]:
        for _ in range(3):  # the courier is through with what was left
            assert bench.reported.acquire(timeout=WAIT_S)
        yield from windows(4)

    await bench.run(Stub(), late(), what)
    assert sorted(outcome.verdict for outcome in bench.outcomes) == [Verdict.ACCEPTED] * 4
    assert len({outcome.pcs_id for outcome in bench.outcomes}) == 4


async def test_a_full_disk_sends_nothing_that_is_not_on_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(files: PosixFiles, handle: int, buffers: Sequence[bytes]) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(PosixFiles, "append", full)
    transport = Stub()
    with pytest.raises(WalFailedError, match="No space left"):
        await bench.run(transport, windows(2), job())
    assert transport.sent == []


async def test_an_acknowledgement_that_cannot_be_written_leaves_the_record_pending(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend has it and will answer a second time with the same outcome; nothing is taken for delivered."""

    def full(files: PosixFiles, handle: int, buffers: Sequence[bytes]) -> None:
        raise OSError(errno.ENOSPC, "full")

    append_new(summarise(list(windows(1)), job(), bench.time.clock), bench.outbox)
    monkeypatch.setattr(PosixFiles, "append", full)
    with pytest.raises(WalFailedError):
        await bench.run(Stub(), None, None)
    assert len(bench.outbox.entries(State.PENDING)) == 1


async def test_a_fault_in_the_stream_stops_and_keeps_what_was_appended(bench: Bench) -> None:
    def broken() -> Iterator[Window]:
        yield from windows(2)
        raise InputError("events.csv: row 9: found nothing")

    with pytest.raises(InputError, match="row 9"):
        await bench.run(Stub(), broken(), job())
    kept = bench.outbox.entries(State.PENDING) + bench.outbox.entries(State.ACKED)
    assert len(kept) == 2
    assert len(bench.outcomes) == 2


async def test_a_fault_in_the_stream_lets_requests_on_their_way_end_and_tells_what_waits(
    bench: Bench,
) -> None:
    """The first request is answered after the fault; the second one's answer asks for a retry, which is not made."""
    reached = asyncio.Event()
    sent = threading.Semaphore(0)

    class Slow(Stub):
        async def post(self, body: bytes) -> Answer:
            sent.release()
            await reached.wait()
            return await super().post(body) if json.loads(body)["epoch"] == 0 else Answer(503, b"")

    loop = asyncio.get_running_loop()

    def broken() -> Iterator[Window]:
        yield from windows(2)
        for _ in range(2):
            assert sent.acquire(timeout=60)
        loop.call_soon_threadsafe(loop.call_later, 0.05, reached.set)
        raise InputError("events.csv: row 9: found nothing")

    with pytest.raises(InputError, match="row 9"):
        await bench.run(Slow(), broken(), job())
    assert [(outcome.verdict, outcome.reason) for outcome in bench.outcomes] == [
        (Verdict.ACCEPTED, ""),
        (Verdict.PENDING, "last attempt: status 503"),
    ]
    assert bench.warnings == ["1 record waits in the outbox; deliver with: pcs-agent outbox flush"]


async def test_a_stop_reports_what_waits_with_its_figures_and_ends(bench: Bench) -> None:
    stop = asyncio.Event()

    class Silent:
        async def post(self, _: bytes) -> Answer:
            stop.set()
            await asyncio.Event().wait()
            raise AssertionError

    def endless() -> Iterator[Window]:
        yield from windows(1)
        threading.Event().wait()  # as silent as standard input can be

    await bench.run(Silent(), endless(), job(), stop)
    (outcome,) = bench.outcomes
    assert outcome.record is not None
    assert (outcome.record.epoch, outcome.events, outcome.verdict) == (0, 4, Verdict.PENDING)
    assert bench.warnings == [
        "interrupted; 1 record waits in the outbox; deliver with: pcs-agent outbox flush"
    ]


async def test_records_that_wait_are_not_held_in_memory(bench: Bench) -> None:
    """A stream without end and a backend that is down: the outbox is on disk, memory keeps a few numbers a record."""
    count = 100
    stop = asyncio.Event()

    class Down:
        async def post(self, _: bytes) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    def look() -> Iterator[Window]:
        yield from windows(count)
        gc.collect()
        held.append(sum(isinstance(each, Record) for each in gc.get_objects()))
        bench_loop.call_soon_threadsafe(stop.set)

    held: list[int] = []
    bench_loop = asyncio.get_running_loop()
    await bench.run(Down(), look(), job(), stop)
    assert len(bench.outcomes) == count
    assert held[0] < 2 * FLIGHTS_MAX


async def test_cancelling_leaves_what_was_appended(bench: Bench) -> None:
    started = asyncio.Event()

    class Silent:
        async def post(self, _: bytes) -> Answer:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

    running = asyncio.create_task(bench.run(Silent(), windows(1), job()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(bench.outbox.entries(State.PENDING)) == 1


def test_the_last_epoch_is_taken_and_the_next_refused() -> None:
    what = job(first_epoch=EPOCH_MAX)
    assert summarise(list(windows(1)), what, lambda: 0.0)[0].record.epoch == EPOCH_MAX
    with pytest.raises(InputError, match="--epoch"):
        summarise(list(windows(2)), what, lambda: 0.0)


def test_no_window_is_an_error_unless_it_is_allowed() -> None:
    with pytest.raises(InputError, match="found no events"):
        list(or_empty(iter(()), job()))
    (window,) = or_empty(iter(()), job(allow_missing=True))
    assert (window.number, len(window.events)) == (0, 0)


def test_a_missing_input_marks_every_window() -> None:
    records = [summary.record for summary in summarise(list(windows(2)), job(missing=1), lambda: 0.0)]
    assert [(record.ft.degraded, record.ft.fallbacks[0]) for record in records] == [
        (True, "input_missing")
    ] * 2


def test_how_events_became_rows_stands_beside_the_methods_of_the_signals() -> None:
    rows = np.random.default_rng(0).random((2, 3))
    window = Window(0, rows, [b"a", b"b"], b"ab", {"name": "text-hash-1", "dimension": 3})
    found = pipeline._compute_signals(window, SignalSettings(), None)
    plain = pipeline._compute_signals(Window(0, rows), SignalSettings(), None)
    assert found.methods["events"] == {"name": "text-hash-1", "dimension": 3}
    assert "events" not in plain.methods
