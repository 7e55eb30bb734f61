"""What backend, fsck and outbox do while the disk fails at one call, and what must be true afterwards.

A scenario brings a folder into a situation on a healthy disk, takes one step on a disk that fails once, and says in words
what happened. Then everything is opened again on a healthy disk and held against what was acknowledged.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pcs_records
from disk_faults import DiskFaults, Fault, Site
from inboxes import Clock
from pcs_agent.outbox import Outbox, State, Verdict
from pcs_backend.app import real_ports
from pcs_backend.config import load_config
from pcs_backend.engine import FIRST_WORKER, WAL_FOLDER, Engine, offline
from pcs_backend.errors import BackendError
from pcs_backend.exchange import Envelope, Reply, Request
from pcs_backend.fsck import owned
from pcs_backend.inbox.archive import Wanted, read_arrivals
from pcs_backend.inbox.frames import request_frame
from pcs_core.errors import WalError
from pcs_core.record import Record, decode_record
from pcs_core.wal import PosixFiles, Wal, folder, read_snapshot
from pcs_logs import opened, raw_segment_header, segments, write

SEGMENT_BYTES = 6_000
"""A few requests and their outcomes."""

DAY_S = 86_400.0

# What can happen, in words.
GOES_ON = "refused (503), cut off; the log goes on"
STOPPED = "refused (503), and everything after it until a restart"
START_REFUSED = "start refused with the reason; the next one succeeds"
NOT_NEEDED = "goes on without it; tried again at the next start"
UNREADABLE = "request left open, counted as unreadable; judged after the next start"
OLD_SNAPSHOT = "old snapshot stands; tried again at the next housekeeping"
STAYS = "segment stays; tried again at the next housekeeping"
EXIT_1 = "exit code 1 with the reason; the next run succeeds"
NAMED = "named as damage, since it cannot be read"
READ_ANYWAY = "everything is read all the same"
NOT_KEPT = "says that the damaged bytes are not kept; the next run succeeds"
AGENT_GOES_ON = "command fails with the reason; the next one succeeds"
AGENT_STOPPED = "command fails with the reason; the outbox takes nothing until it is opened again"


class Scenario(ABC):
    """One situation and one step.

    Attributes:
        segment_bytes: After which logs begin a new segment.
        skip: How often a site is passed in the step before it fails.
        failed: The sites that failed.
    """

    segment_bytes = SEGMENT_BYTES
    skip = 0

    def __init__(self, path: Path, faults: DiskFaults) -> None:
        self.path = path
        self.faults = faults
        self.failed: list[Site] = []
        self._fault: Fault | None = None
        self._frames: dict[tuple[str, int], bytes] = {}

    async def run(self, fault: Fault | None) -> str:
        """Return what happened. Afterwards `faults.seen` holds the sites that the step passed."""
        defaults = Wal.__init__.__kwdefaults__
        with (
            mock.patch.dict(defaults, {"segment_bytes": self.segment_bytes}),
            mock.patch.object(folder, "ASIDE_TAILS_MAX", 1),
        ):
            await self.prepare()
            self._note_frames()
            self._fault = fault
            behaviour = await self.step()
            seen = list(self.faults.seen)
            self.faults.heal()
            self._note_frames()
            await self.verify()
            self._note_frames()
        self.faults.seen[:] = [site for site in seen if site.place != "tests"]
        return behaviour

    def arm(self) -> None:
        """From now on the disk fails where it is to."""
        self.faults.seen.clear()
        if self._fault is not None:
            self.failed = self.faults.fail_once(self._fault)

    @property
    def fault_is_after(self) -> bool:
        """Whether what fails takes effect."""
        return self._fault is not None and self._fault.after

    @property
    def reason(self) -> str:
        """What a message about the fault must hold."""
        return "no fault" if self._fault is None else os.strerror(self._fault.code)

    def says_why(self, said: str) -> bool:
        """Whether a message was given exactly if something failed, and with its reason."""
        return self.reason in said if self.failed else not said

    @property
    @abstractmethod
    def logs(self) -> list[Path]:
        """Folders of the logs, whose numbers must not be given twice."""

    @abstractmethod
    async def prepare(self) -> None:
        """Make the situation on a healthy disk."""

    @abstractmethod
    async def step(self) -> str:
        """Arm the disk, act, and say what happened."""

    @abstractmethod
    async def verify(self) -> None:
        """Check on a healthy disk that what was acknowledged is there."""

    def _note_frames(self) -> None:
        """Check that numbers rise, and that none names other bytes than when it was seen before."""
        for log in self.logs:
            copy = self.path.parent / "copy of a log"
            shutil.copytree(log, copy)
            with opened(copy) as found:
                assert found.sequences == sorted(set(found.sequences))
                for _, frame in found.visited:
                    content = frame.envelope + b"\x00" + frame.payload
                    known = self._frames.setdefault((log.name, frame.sequence), content)
                    assert known == content, "a number was given twice"
            shutil.rmtree(copy)


# The backend


class BackendScenario(Scenario):
    """Over a data folder with the memory store. Records are unsigned; every third is escalated.

    Attributes:
        acknowledged: First answers by epoch.
        waiting: Epochs that are in a log without an outcome.
    """

    def __init__(self, path: Path, faults: DiskFaults) -> None:
        super().__init__(path, faults)
        self.clock = Clock()
        self.acknowledged: dict[int, Reply] = {}
        self.waiting: list[int] = []
        self._epoch = 0

    @property
    def logs(self) -> list[Path]:
        return sorted(each for each in (self.path / "wal").glob("*") if list(each.glob("*.wal")))

    @property
    def own_log(self) -> Path:
        return self.path / "wal" / "0"

    @property
    def snapshot(self) -> Path:
        return self.path / "memory" / "outcomes.snap"

    @asynccontextmanager
    async def open_engine(self) -> AsyncIterator[Engine]:
        ports = real_ports()._replace(now=self.clock, monotonic=self.clock)
        engine = Engine(load_config({"DATA_DIR": str(self.path), "WAL_RETENTION_DAYS": "1"}), ports)
        async with offline(engine, must_exist=False):
            yield engine

    def next_request(self) -> Request:
        self._epoch += 1
        return self.request(self._epoch)

    def request(self, epoch: int) -> Request:
        envelope = Envelope(
            received_at_ms=int(self.clock() * 1_000), path="/v1/pcs/submit", content_type="application/json"
        )
        d_hat = {"D_hat": 4.0} if epoch % 3 == 0 else {}
        return Request(envelope, pcs_records.body(pcs_records.document(epoch=epoch, **d_hat)))

    async def submit(self, engine: Engine, epoch: int | None = None) -> Reply:
        """Submit a new record, or one again. The first answer is remembered, later ones are held against it."""
        if epoch is None:
            self._epoch += 1
            epoch = self._epoch
        (reply,) = await engine.pipeline.submit([self.request(epoch)])
        if reply.status == 503:
            assert epoch not in self.acknowledged or self.failed
            return reply
        first = self.acknowledged.setdefault(epoch, reply)
        assert (reply.status, reply.body) == (first.status, first.body)
        assert reply.status == (202 if epoch % 3 == 0 else 200)
        return reply

    async def fill(self, count: int) -> None:
        async with self.open_engine() as engine:
            for _ in range(count):
                assert (await self.submit(engine)).status != 503

    async def verify(self) -> None:
        async with self.open_engine() as engine:
            for settler, inbox in zip(engine.settlers, engine.inboxes, strict=True):
                while inbox.has_deferred:
                    assert (await settler.settle_batch())["deferred"] == 0
            for epoch in [*self.acknowledged, *self.waiting]:
                reply = await self.submit(engine, epoch)
                assert reply.headers.get("Idempotent-Replayed") == "true", (
                    "an acknowledged record was forgotten"
                )
            listed = {each.body for each in await engine.store.list_escalations("default", 1_000)}
            assert listed >= {each.body for each in self.acknowledged.values() if each.status == 202}
            assert (await self.submit(engine)).status != 503

    async def after_refusal(self, engine: Engine, reply: Reply) -> str:
        """Say whether the log goes on after a 503, which must give its reason."""
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert self.reason.encode() in reply.body
        failure, passed = engine.inbox.failure, len(self.faults.seen)
        again = [(await self.submit(engine)).status for _ in range(3)]
        if failure is None:
            assert 503 not in again
            return GOES_ON
        assert self.reason in failure
        assert again == [503] * 3, (
            "after a failure of which nobody knows what is on disk nothing is acknowledged"
        )
        assert len(self.faults.seen) == passed, "the disk is not touched any more"
        return STOPPED


Situation = Callable[[BackendScenario], Awaitable[None]]


class Start(BackendScenario):
    """A start, and a record after it."""

    def __init__(self, situation: Situation, path: Path, faults: DiskFaults) -> None:
        super().__init__(path, faults)
        self._situation = situation

    async def prepare(self) -> None:
        await self._situation(self)

    async def step(self) -> str:
        self.arm()
        try:
            async with self.open_engine() as engine:
                passed = list(self.faults.seen)
                assert (await self.submit(engine)).status != 503
            self.faults.seen[:] = passed
        except (BackendError, WalError) as error:
            said = str(error)
        else:
            return NOT_NEEDED
        assert self.reason in said
        assert str(self.path) not in said
        return START_REFUSED


async def empty(_: BackendScenario) -> None:
    """No data folder yet."""


async def clean(scenario: BackendScenario) -> None:
    """Stopped in good order."""
    await scenario.fill(4)


async def torn(scenario: BackendScenario) -> None:
    """Killed while it wrote."""
    await scenario.fill(2)
    with segments(scenario.own_log)[-1].open("ab") as file:
        file.write(b"tear")


async def torn_again(scenario: BackendScenario) -> None:
    """The same a second time: the older tail goes."""
    for _ in range(2):
        await torn(scenario)


async def sealed(scenario: BackendScenario) -> None:
    """Killed between sealing a segment and beginning the next."""
    await half_begun(scenario)
    segments(scenario.own_log)[-1].unlink()


async def half_begun(scenario: BackendScenario) -> None:
    """Killed while it began a segment."""
    await scenario.fill(2)
    with opened(scenario.own_log) as log:
        log.wal.seal()
    segments(scenario.own_log)[-1].write_bytes(b"PCSWAL01")


async def damaged(scenario: BackendScenario) -> None:
    """Damaged in a sealed segment and in the open one. The snapshot has what was there."""
    await scenario.fill(8)
    first, *_, last = segments(scenario.own_log)
    assert first != last
    for path in (first, last):
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)


async def without_anchor(scenario: BackendScenario) -> None:
    """Of an earlier version."""
    await scenario.fill(2)
    (scenario.own_log / "anchor").unlink()


async def orphaned(scenario: BackendScenario) -> None:
    """With the log of a worker that is gone, and a request in it."""
    await scenario.fill(2)
    scenario.waiting.append(scenario._epoch + 1)
    write(scenario.path / "wal" / "7", [request_frame(scenario.next_request())])


async def with_bad_snapshot(scenario: BackendScenario) -> None:
    """With a damaged snapshot beside a whole log."""
    await scenario.fill(2)
    scenario.snapshot.write_bytes(b"bad")


class Submit(BackendScenario):
    """A record while it serves. With segments of one byte each commit seals the segment before it."""

    def __init__(
        self,
        path: Path,
        faults: DiskFaults,
        *,
        skip: int = 0,
        segment_bytes: int = 1 << 20,
        body: bytes | None = None,
    ) -> None:
        super().__init__(path, faults)
        self.skip = skip
        self.segment_bytes = segment_bytes
        self._body = body

    async def prepare(self) -> None:
        await self.fill(3)

    async def step(self) -> str:
        async with self.open_engine() as engine:
            assert (await self.submit(engine)).status != 503
            self.arm()
            if self._body is None:
                reply = await self.submit(engine)
            else:
                (reply,) = await engine.pipeline.submit([self.next_request()._replace(body=self._body)])
            seen = list(self.faults.seen)
            behaviour = GOES_ON if not self.failed else await self.after_refusal(engine, reply)
        self.faults.seen[:] = seen
        return behaviour


class Backlog(BackendScenario):
    """A request of the backlog is read back."""

    async def prepare(self) -> None:
        await self.fill(2)
        self.waiting.append(self._epoch + 1)
        with opened(self.own_log) as log:
            log.wal.commit([request_frame(self.next_request())])

    async def step(self) -> str:
        async with self.open_engine() as engine:
            self.arm()
            results = await engine.settlers[0].settle_batch()
            if self.failed:
                assert results.total() == 0
                assert (engine.inbox.unreadable_requests, engine.inbox.open_requests) == (1, 1)
            seen = [site for site in self.faults.seen if site.place == "log.Wal.read"]
        self.faults.seen[:] = seen
        return UNREADABLE


class Snapshot(BackendScenario):
    """The memory store's snapshot is written."""

    async def prepare(self) -> None:
        await self.fill(3)

    async def step(self) -> str:
        async with self.open_engine() as engine:
            assert (await self.submit(engine)).status != 503
            before = self.snapshot.read_bytes()
            self.arm()
            await engine.save_snapshot()
            seen = list(self.faults.seen)
            self.faults.heal()
            read_snapshot(PosixFiles(), str(self.snapshot))
            if self.failed:
                # It took its place already where only the sync of the folder, or a rename that was done, failed.
                last = self.failed[-1]
                in_place = "sync_folder" in last.way or (last.call == "rename" and self.fault_is_after)
                assert (self.snapshot.read_bytes() == before) is not in_place
                half_file = self.snapshot.with_name("outcomes.snap.tmp")
                assert half_file.exists() is (last.call == "unlink" and not self.fault_is_after)
            await engine.save_snapshot()
            assert self.snapshot.read_bytes() != before
            self.faults.seen[:] = seen
        return OLD_SNAPSHOT


class Retention(BackendScenario):
    """Old segments are removed. `half_done`: a removal before this one failed after it took effect."""

    def __init__(self, path: Path, faults: DiskFaults, *, half_done: bool = False) -> None:
        super().__init__(path, faults)
        self._half_done = half_done

    async def prepare(self) -> None:
        await self.fill(16)
        assert len(segments(self.own_log)) >= 3
        self.clock.move(2 * DAY_S)

    async def step(self) -> str:
        async with self.open_engine() as engine:
            if self._half_done:
                segments(self.own_log)[0].unlink()
            self.arm()
            said = ""
            try:
                await engine.retire()
            except WalError as error:
                said = str(error)
            assert self.says_why(said)
            assert not said or len(segments(self.own_log)) >= 2
            seen = list(self.faults.seen)
            self.faults.heal()
            await engine.retire()
            assert len(segments(self.own_log)) == 1
            self.faults.seen[:] = seen
        return STAYS


# fsck


class Check(BackendScenario):
    """`fsck` over damage of every kind."""

    repairs = False
    succeeds = NAMED

    def __init__(self, situation: Situation, path: Path, faults: DiskFaults) -> None:
        super().__init__(path, faults)
        self._situation = situation

    async def prepare(self) -> None:
        await self._situation(self)

    async def step(self) -> str:
        self.arm()
        said, done = "", []
        try:
            done = self.act()
        except (OSError, WalError) as error:
            said = str(error)
        behaviour = EXIT_1
        if not said:
            behaviour = self.succeeds if all(done) else NOT_KEPT
        assert not said or self.says_why(said)
        seen = list(self.faults.seen)
        self.faults.heal()
        self.failed, failed = [], self.failed
        self.act()
        self.failed = failed
        self.faults.seen[:] = seen
        return behaviour

    def act(self) -> list[bool]:
        """Check, and repair. Returns which repairs were done."""
        with owned(PosixFiles(), str(self.path)) as data:
            report = data.check(needs_snapshot=True)
            if not self.repairs:
                assert report.is_damaged
                unread = [each.what for log in report.logs.values() for each in log.damages]
                assert ("cannot be read" in unread) is bool(self.failed)
                return []
            return [repair.done for repair in data.repair(report)]


class Look(Check):
    """`records`, beside whoever serves."""

    succeeds = READ_ANYWAY

    def act(self) -> list[bool]:
        """Read everything."""
        folder = self.path / WAL_FOLDER / FIRST_WORKER
        assert list(read_arrivals(str(folder), FIRST_WORKER, PosixFiles(), Wanted())) != []
        return []


class Repair(Check):
    """`fsck --repair`."""

    repairs = True

    async def verify(self) -> None:
        with owned(PosixFiles(), str(self.path)) as data:
            report = data.check(needs_snapshot=True)
            assert not report.is_damaged
            assert data.repair(report) == []
        await super().verify()


async def badly_damaged(scenario: BackendScenario) -> None:
    """Segments, an anchor, and logs of which nothing is left but an anchor, a good one and a bad one."""
    await damaged(scenario)
    (scenario.own_log / "anchor").write_bytes(b"bad")
    for worker, anchor in (("7", raw_segment_header(9)), ("8", b"bad")):
        (scenario.path / "wal" / worker).mkdir()
        (scenario.path / "wal" / worker / "anchor").write_bytes(anchor)


# The outbox


class OutboxScenario(Scenario):
    """Over an outbox.

    Attributes:
        expected: State by epoch, as acknowledged.
        doubtful: Epochs whose change failed: it may have taken effect or not.
    """

    def __init__(
        self,
        act: Callable[[OutboxScenario, Outbox], object],
        path: Path,
        faults: DiskFaults,
        *,
        segment_bytes: int = 1 << 20,
    ) -> None:
        super().__init__(path, faults)
        self._act = act
        self.segment_bytes = segment_bytes
        self._clock = Clock()
        self.expected: dict[int, State] = {}
        self.doubtful: set[int] = set()

    @property
    def logs(self) -> list[Path]:
        return [self.path] if segments(self.path) else []

    @contextmanager
    def open_outbox(self) -> Iterator[Outbox]:
        outbox = Outbox(
            str(self.path),
            PosixFiles(),
            clock=self._clock,
            random_bytes=os.urandom,
            retention_days=1.0,
            segment_bytes=self.segment_bytes,
        )
        outbox.open()
        try:
            yield outbox
        finally:
            outbox.close()

    def seq(self, outbox: Outbox, epoch: int) -> int:
        found = outbox.find(record_of(epoch).pcs_id)
        assert found is not None
        return found.seq

    async def prepare(self) -> None:
        with self.open_outbox() as outbox:
            for epoch in range(6):
                outbox.append([record_of(epoch)])
                self.expected[epoch] = State.PENDING
            for epoch in (0, 1, 4):
                outbox.ack([(self.seq(outbox, epoch), Verdict.ACCEPTED)])
                self.expected[epoch] = State.ACKED
            outbox.bury([(self.seq(outbox, 2), "rejected: status 400")])
            self.expected[2] = State.DEAD

    async def step(self) -> str:
        with self.open_outbox() as outbox:
            self.arm()
            said = ""
            try:
                self._act(self, outbox)
            except WalError as error:
                said = str(error)
            assert self.says_why(said)
            seen = list(self.faults.seen)
            self.faults.heal()
            said = ""
            try:
                outbox.append([record_of(50)])
                self.expected[50] = State.PENDING
                self._act(self, outbox)
            except WalError as error:
                said = str(error)
            behaviour = AGENT_STOPPED if said else AGENT_GOES_ON
            assert not said or self.reason in said
            self.faults.seen[:] = seen
        return behaviour

    async def verify(self) -> None:
        with self.open_outbox() as outbox:
            assert (outbox.damages, outbox.unreadable_frames) == ([], 0)
            for epoch, state in self.expected.items():
                found = outbox.find(record_of(epoch).pcs_id)
                if found is None:
                    assert state is State.ACKED, "a record is lost"
                    continue
                assert found.state is state or epoch in self.doubtful
                assert decode_record(outbox.read(found.seq)).pcs_id == found.pcs_id
            outbox.append([record_of(60)])


def record_of(epoch: int) -> Record:
    return decode_record(pcs_records.body(pcs_records.document(epoch=epoch)))


def append(scenario: OutboxScenario, outbox: Outbox) -> None:
    records = [record_of(epoch) for epoch in (10, 11) if outbox.find(record_of(epoch).pcs_id) is None]
    outbox.append(records)
    scenario.expected |= {10: State.PENDING, 11: State.PENDING}


def change(
    epoch: int, state: State, act: Callable[[Outbox, int], object], scenario: OutboxScenario, outbox: Outbox
) -> None:
    scenario.doubtful.add(epoch)
    act(outbox, scenario.seq(outbox, epoch))
    scenario.doubtful.discard(epoch)
    scenario.expected[epoch] = state


def compact(scenario: OutboxScenario, outbox: Outbox) -> None:
    scenario._clock.move(2 * DAY_S)
    outbox.compact(seal=True)


def read(scenario: OutboxScenario, outbox: Outbox) -> None:
    outbox.read(scenario.seq(outbox, 3))


# All of them


class Entry(NamedTuple):
    """A scenario in the table.

    Attributes:
        group: What the table calls the step.
        make: Makes it from a folder and a disk.
    """

    group: str
    make: Callable[[Path, DiskFaults], Scenario]


def _outbox(name: str, act: Callable[[OutboxScenario, Outbox], object], **options: object) -> Entry:
    return Entry(f"outbox: {name}", partial(OutboxScenario, act, **options))


SITUATIONS = (
    empty,
    clean,
    torn,
    torn_again,
    sealed,
    half_begun,
    damaged,
    without_anchor,
    orphaned,
    with_bad_snapshot,
)

SCENARIOS: dict[str, Entry] = {
    **{f"start: {each.__name__}": Entry("start", partial(Start, each)) for each in SITUATIONS},
    "request": Entry("a request is appended", Submit),
    "outcome": Entry("an outcome is appended", partial(Submit, skip=1)),
    "refusal": Entry("a refusal is appended", partial(Submit, skip=1, body=b"{}")),
    "rotation": Entry("a segment is sealed, the next begun", partial(Submit, segment_bytes=1)),
    "backlog": Entry("the backlog is read", Backlog),
    "snapshot": Entry("the snapshot is written", Snapshot),
    "retention": Entry("retention", Retention),
    "retention again": Entry("retention", partial(Retention, half_done=True)),
    "records": Entry("records", partial(Look, with_bad_snapshot)),
    "fsck": Entry("fsck", partial(Check, badly_damaged)),
    "fsck, snapshot": Entry("fsck", partial(Check, with_bad_snapshot)),
    "fsck --repair": Entry("fsck --repair", partial(Repair, badly_damaged)),
    "fsck --repair, snapshot": Entry("fsck --repair", partial(Repair, with_bad_snapshot)),
    "outbox append": _outbox("append", append),
    "outbox ack": _outbox(
        "ack", partial(change, 3, State.ACKED, lambda outbox, seq: outbox.ack([(seq, Verdict.ACCEPTED)]))
    ),
    "outbox bury": _outbox(
        "bury", partial(change, 3, State.DEAD, lambda outbox, seq: outbox.bury([(seq, "why")]))
    ),
    "outbox redrive": _outbox(
        "redrive", partial(change, 2, State.PENDING, lambda outbox, seq: outbox.redrive([seq]))
    ),
    "outbox rotation": _outbox("append, with rotation", append, segment_bytes=1),
    "outbox compaction": _outbox("compaction", compact, segment_bytes=1_500),
    "outbox read": _outbox("a record is read", read),
}
