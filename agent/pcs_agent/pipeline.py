"""READ FIRST. The agent's stages in order, and what a crash between each two of them does.

    events → signals → build → sign → outbox append (synced) → deliver → acknowledge (synced)

=======================  =========================================================================================
the process dies …       then
=======================  =========================================================================================
before the append        nothing is left of the window. The same command run again reads, computes and signs the
                         same: the pcs_id depends on events, epoch and shard alone
in the append            a torn tail is kept aside and cut off when the outbox is opened again: as before the append
after the append         the record is pending. The next run or `outbox flush` delivers it first; building it again
                         finds its pcs_id pending and appends nothing
in the delivery          the same; the backend may have it already and then answers it as a duplicate
after the answer,        the same: sent once more, answered as a duplicate with the first outcome, acknowledged
before the acknowledge
after the acknowledge    it is done: building it again within the retention finds it delivered and sends nothing
=======================  =========================================================================================

So a record is never lost and, counted by pcs_id, never doubled. Every stage takes and returns a sequence; the stream is
cut into windows, and each goes through on its own while the ones before are on their way. Stages that block run off
the event loop. Of many streams the stages up to the signature may run in other processes (`pcs_agent.engines`), which
own nothing: for the table above they are part of "before the append".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

import msgspec
import numpy as np

from pcs_agent.build import build_record
from pcs_agent.deliver import Courier, Settlement
from pcs_agent.errors import InputError
from pcs_agent.events import Window
from pcs_agent.fallbacks import Fallback
from pcs_agent.outbox import Entry, Outbox, State, Verdict
from pcs_agent.signals import Signals, SignalSettings, compute_signals
from pcs_agent.wording import count_of
from pcs_core.direction_proof import prove_directions
from pcs_core.identity import EPOCH_MAX, PcsId, ShardId
from pcs_core.params import Params
from pcs_core.ports import Offload, WallClock
from pcs_core.record import DirectionProof, Record
from pcs_core.signing import Signer, sign_record
from pcs_core.vrf import VrfSecretKey

COMPACT_EVERY_WINDOWS = 1_000
"""A stream without end compacts its outbox on the way."""

STOP_TIMEOUT_S = 1.0
"""Requests on their way may still be answered for so long after the run is told to stop."""

INPUTS_NAMED_MAX = 3
"""Of more inputs without events, only the number is told."""

PENDING_READS_MAX = 10_000
"""So many records that are left pending are read again for their figures; of more, only the pcs_id is told."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be summarised, the events aside.

    Attributes:
        shard_id: Who summarises.
        first_epoch: Epoch of the first window.
        settings: What the signals depend on.
        params: Thresholds and weights.
        signer: The key, `None` where signing is off.
        direction_key: Proves the directions, whose seed follows from it; `None`: the seed is that of the settings.
        allow_missing: Whether a stream without events makes a degraded record instead of an error.
        missing: How many inputs do not exist.
        inputs: Names of those that do, for messages.
    """

    shard_id: ShardId
    first_epoch: int
    settings: SignalSettings
    params: Params
    signer: Signer | None
    allow_missing: bool
    missing: int
    direction_key: VrfSecretKey | None = None
    inputs: tuple[str, ...] = ()


class Summary(NamedTuple):
    """A signed record and how many events it stands for."""

    record: Record
    events: int


class Outcome(NamedTuple):
    """What became of one record in this run.

    Attributes:
        pcs_id: Its identity.
        record: The record; `None` if its bytes in the outbox are damaged, or too many are pending to read them all.
        events: Events it stands for; `None` if an earlier run built it.
        verdict: The backend's answer, or dead, or pending.
        reason: Why it is dead, pending or escalated.
        attempts: Attempts of this process.
        already_delivered: Whether an earlier run had delivered it, so that nothing was sent.
        conflict: Whether the backend holds another record under this pcs_id.
    """

    pcs_id: PcsId
    record: Record | None
    events: int | None
    verdict: Verdict
    reason: str = ""
    attempts: int = 0
    already_delivered: bool = False
    conflict: bool = False


def require_epochs(first_epoch: int, windows: int) -> None:
    """Check that the epochs of so many windows stay within the contract's range.

    Raises:
        InputError: They do not.
    """
    if first_epoch + windows - 1 > EPOCH_MAX:
        raise InputError(
            f"--epoch: found {windows} windows from epoch {first_epoch} on; allowed: epochs up to {EPOCH_MAX}"
        )


def or_empty(windows: Iterator[Window], job: Job) -> Iterator[Window]:
    """Yield the windows; if there is none and that is allowed, one without events.

    Raises:
        InputError: There is none and that is not allowed.
    """
    found = False
    for window in windows:
        found = True
        yield window
    if found:
        return
    if not job.allow_missing:
        raise InputError(
            f"{_name_inputs(job.inputs)}: found no events; allowed: one or more (with --allow-missing a degraded record "
            "is made)"
        )
    yield Window(0, np.empty((0, 1), dtype=np.float64))


def _name_inputs(names: Sequence[str]) -> str:
    if not names:
        return "input"
    more = f" and {len(names) - INPUTS_NAMED_MAX} more" if len(names) > INPUTS_NAMED_MAX else ""
    return ", ".join(names[:INPUTS_NAMED_MAX]) + more


def summarise(windows: Sequence[Window], job: Job, clock: WallClock) -> list[Summary]:
    """Compute signals, build and sign: events → signals → build → sign.

    Raises:
        InputError: An epoch would pass the contract's range.
    """
    summaries = []
    for window in windows:
        require_epochs(job.first_epoch + window.number, 1)
        fallbacks: tuple[Fallback, ...] = ()
        if job.missing:
            fallbacks = (Fallback.INPUT_MISSING,)
        elif len(window.events) == 0:
            fallbacks = (Fallback.INPUT_EMPTY,)
        epoch = job.first_epoch + window.number
        prove = None if job.direction_key is None else _prover(job.direction_key, epoch, job.shard_id)
        seed_of = None if prove is None else lambda root, prove=prove: prove(root)[0]
        signals = _compute_signals(window, job.settings, seed_of)
        record = build_record(
            signals,
            job.settings,
            shard_id=job.shard_id,
            epoch=epoch,
            params=job.params,
            sent_at_s=clock(),
            more_fallbacks=fallbacks,
            direction=None if prove is None else prove(signals.merkle_root),
        )
        summaries.append(Summary(sign_record(record, job.signer), len(window.events)))
    return summaries


def _prover(key: VrfSecretKey, epoch: int, shard_id: ShardId) -> Callable[[str], tuple[int, DirectionProof]]:
    """Return what gives the seed and its proof for a Merkle root, and computes them once."""
    return lru_cache(maxsize=1)(lambda root: prove_directions(key, root, epoch, shard_id))


def _compute_signals(
    window: Window, settings: SignalSettings, seed_of: Callable[[str], int] | None
) -> Signals:
    signals = compute_signals(
        window.events, settings, leaves=window.leaves, symbols=window.symbols, seed_of=seed_of
    )
    if window.method is None:
        return signals
    return msgspec.structs.replace(signals, methods=signals.methods | {"events": window.method})


def iter_summaries(windows: Iterator[Window], job: Job, clock: WallClock) -> Iterator[list[Summary]]:
    """Yield the windows of one stream as `summarise` makes them, each when it is there.

    Raises:
        InputError: The stream cannot be read on, or an epoch would pass the contract's range.
    """
    for window in windows:
        yield summarise([window], job, clock)


def append_new(summaries: Sequence[Summary], outbox: Outbox) -> list[Entry]:
    """Append what is neither pending nor delivered already. On return it is on disk; entries come back in order."""
    known = {
        summary.record.pcs_id: entry
        for summary in summaries
        if (entry := outbox.find(summary.record.pcs_id)) is not None and entry.state is not State.DEAD
    }
    new = outbox.append([summary.record for summary in summaries if summary.record.pcs_id not in known])
    entries = known | {entry.pcs_id: entry for entry in new}
    return [entries[summary.record.pcs_id] for summary in summaries]


class Run:
    """One run: what an earlier one left goes first, then every record of the stream or streams."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        offload: Offload,
        report: Callable[[Outcome], None],
        warn: Callable[[str], None],
    ) -> None:
        """Take the collaborators.

        Args:
            outbox: Open.
            offload: Runs what blocks.
            report: Told once of every record, when it is settled or at the end.
            warn: Told what the user should know.
        """
        self._outbox = outbox
        self._offload = offload
        self._report = report
        self._warn = warn
        self._events: dict[int, int] = {}  # of what waits; the records themselves are on disk
        self._settled_unbuilt: set[int] = set()  # no more than what an earlier run left
        self.undelivered = 0

    def note_settlement(self, settlement: Settlement) -> None:
        """Report what the courier settled; to be given to it as `settled`."""
        events = self._events.pop(settlement.seq, None)
        if events is None:
            self._settled_unbuilt.add(settlement.seq)
        self._finish(
            Outcome(
                pcs_id=settlement.pcs_id,
                record=settlement.record,
                events=events,
                verdict=settlement.verdict,
                reason=settlement.reason,
                attempts=settlement.attempts,
                conflict=settlement.conflict,
            )
        )

    async def deliver(
        self,
        courier: Courier,
        stream: Iterator[Sequence[Summary]] | None,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Deliver what is pending and then, if given, what a stream is summarised to.

        Args:
            courier: New; settles through `note_settlement`.
            stream: Signed records as they are made, `None` if only what is pending is to be delivered. Every step of it
                runs off the event loop.
            stop: Ends the run when it is set: nothing more is read or sent, requests on their way get
                `STOP_TIMEOUT_S` to be answered, and what waits stays in the outbox.

        Raises:
            InputError: The stream cannot be read on; what was appended before stays in the outbox.
            WalFailedError: The outbox cannot be written.
        """
        for entry in self._outbox.entries(State.PENDING):
            courier.add(entry.seq)
        delivery = asyncio.create_task(courier.run(), name="courier")
        feeding = asyncio.create_task(self._feed(courier, stream), name="stream")
        stopping = asyncio.create_task((stop or asyncio.Event()).wait(), name="stop")
        ending = asyncio.create_task(self._end(courier, feeding, delivery), name="end of the run")
        try:
            await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopped = not ending.done()
            if stopped:
                feeding.cancel()
                courier.stop()
                await asyncio.wait({delivery}, timeout=STOP_TIMEOUT_S)
        finally:
            for task in (ending, stopping, feeding, delivery):
                task.cancel()
            results = await asyncio.gather(feeding, delivery, ending, stopping, return_exceptions=True)
        if courier.paused is not None:
            self._warn(
                f"delivery is paused: {courier.paused}; what is pending stays in the outbox; {courier.advice}"
            )
        pending = await self._report_pending(courier)
        failures = [result for result in results if isinstance(result, Exception)]
        if stopped or (failures and pending):
            self._warn(("interrupted; " if stopped else "") + _say_what_waits(pending))
        if failures:
            raise failures[0]
        if not stopped:
            await self._offload.run(self._outbox.compact)

    async def _end(self, courier: Courier, feeding: asyncio.Task[None], delivery: asyncio.Task[None]) -> None:
        """Wait for the end of both; where the stream is at fault, for the requests on their way."""
        await asyncio.wait({delivery, feeding}, return_when=asyncio.FIRST_EXCEPTION)
        if feeding.done() and feeding.exception() is not None:
            courier.stop()
            await asyncio.wait({delivery})

    async def _feed(self, courier: Courier, stream: Iterator[Sequence[Summary]] | None) -> None:
        windows = 0
        if stream is not None:
            while (summaries := await self._offload.run(lambda: next(stream, None))) is not None:
                await self._take(summaries, courier)
                windows += len(summaries)
                if windows >= COMPACT_EVERY_WINDOWS:
                    windows = 0
                    await self._offload.run(self._outbox.compact)
        courier.finish()

    async def _take(self, summaries: Sequence[Summary], courier: Courier) -> None:
        entries = await self._offload.run(lambda: append_new(summaries, self._outbox))
        for summary, entry in zip(summaries, entries, strict=True):
            if summary.record.ft.degraded:
                codes = ", ".join(summary.record.ft.fallbacks)
                events = count_of(summary.events, "event")
                self._warn(f"epoch {summary.record.epoch}: {events}, degraded: {codes}")
            # An earlier run's entry: the courier may have settled and reported it before its window was built again,
            # or be about to.
            if entry.seq in self._settled_unbuilt:
                continue
            if entry.state is not State.PENDING and not courier.is_delivering(entry.seq):
                self._finish(
                    Outcome(
                        entry.pcs_id,
                        summary.record,
                        summary.events,
                        entry.verdict,
                        entry.reason,
                        already_delivered=True,
                    )
                )
                continue
            self._events[entry.seq] = summary.events
            courier.add(entry.seq)

    async def _report_pending(self, courier: Courier) -> int:
        """Report what is still pending, and return how many records that are."""
        pending = await self._offload.run(lambda: self._outbox.entries(State.PENDING))
        records = await self._offload.run(
            lambda: [self._outbox.record(entry.seq) for entry in pending[:PENDING_READS_MAX]]
        )
        for entry, record in zip_longest(pending, records):
            why = courier.why_pending(entry.seq)
            events = self._events.pop(entry.seq, None)
            attempts = courier.attempts(entry.seq)
            self._finish(Outcome(entry.pcs_id, record, events, Verdict.PENDING, why, attempts))
        return len(pending)

    def _finish(self, outcome: Outcome) -> None:
        if outcome.verdict in {Verdict.PENDING, Verdict.DEAD}:
            self.undelivered += 1
        self._report(outcome)


def _say_what_waits(records: int) -> str:
    if not records:
        return "nothing waits in the outbox"
    what = "1 record waits" if records == 1 else f"{records} records wait"
    return f"{what} in the outbox; deliver with: pcs-agent outbox flush"
