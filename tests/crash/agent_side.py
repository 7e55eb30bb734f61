"""An agent whose outbox lies on the disk that is cut, and what it must still know afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from crash.disk_log import InboxOnDisk, OutboxOnDisk, read_outbox
from crash.ledger import Ledger
from crash.life import Life, LifeError
from crash.plan import Orders, Place
from processes import HMAC_KEY

WINDOW_ROWS = 4
REPORTS_MIN = 10
"""Records the agent has delivered before it may be cut."""

RERUN_TIMEOUT_S = 30.0
_STATUS = {"accepted": 200, "escalated": 202}


class AgentSide:
    """One outbox; each cut in it is a stream of its own, run again after the restart as its user would."""

    def __init__(self, outbox: Path, ledger: Ledger, cut_folder: str | None, mutant: str) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._cut_folder = cut_folder
        self._mutant = mutant
        self._streams = 0
        self._windows = 0
        self._remembers = True
        self._reported: dict[str, int] = {}
        self.must_rerun = False

    @property
    def _shard(self) -> str:
        return f"agent-{self._streams}"

    async def begin(self, place: Place, url: str) -> Life:
        """Start a stream without end, and return its process when it has delivered some."""
        self._streams += 1
        self._windows = 0
        self._reported.clear()
        self._remembers = place is not Place.OUTBOX_COMPACTION
        life, feeding = await self._run(place, url)
        await life.wait_reports(REPORTS_MIN)
        if place is Place.OUTBOX_REPLAY:
            await life.kill()
            await feeding
            self.note_reports(life)
            life, _ = await self._run(place, url, gated=True)
        self.must_rerun = True
        return life

    def note_reports(self, life: Life) -> None:
        """Take what an agent that is gone has reported."""
        for document in life.stdout:
            status = _STATUS.get(str(document["verdict"]))
            if status is None:
                continue  # still pending
            self._ledger.tally.double(document["conflict"] is True, "conflict with a record of its own")
            pcs_id = str(document["pcs_id"])
            self._reported[pcs_id] = status
            self._ledger.note_report(pcs_id, status)
            if isinstance(document["epoch"], int):
                self._windows = max(self._windows, document["epoch"] + 1)

    def check_outbox(self, log: InboxOnDisk) -> None:
        """Hold the outbox on disk against what was reported and against what the backend has seen of it."""
        found = read_outbox(self._outbox)
        for pcs_id, record in found.records.items():
            self._ledger.bodies.setdefault(pcs_id, record)
        own = {pcs_id: json.loads(record) for pcs_id, record in found.records.items()}
        epochs = [each["epoch"] for each in own.values() if each["shard_id"] == self._shard]
        self._windows = max([0, *epochs, self._windows - 1]) + 1
        tally = self._ledger.tally
        if self._remembers:
            forgotten = self._reported.keys() - found.acked
            tally.lose(len(forgotten), "reported as delivered, and not acknowledged in the outbox")
        tally.lose(len(self._sent_and_unknown(log, found)), "sent by the agent, and not in its outbox")

    async def rerun(self, url: str) -> None:
        """Run the same command over the same stream again: what is left is delivered, the rest was delivered before."""
        before = dict(self._reported)
        life, _ = await self._run(Place.OUTBOX_APPEND, url, windows=self._windows)
        try:
            async with asyncio.timeout(RERUN_TIMEOUT_S):
                code = await life.finish()
        except TimeoutError:
            raise LifeError(f"the agent hangs; it said:\n{life.said}") from None
        self.note_reports(life)
        self.must_rerun = False
        tally = self._ledger.tally
        epochs = {each["epoch"] for each in life.stdout if each["verdict"] in _STATUS}
        missing = self._windows - len(epochs & set(range(self._windows)))
        tally.lose(missing or (code != 0), f"not delivered by the next run (exit code {code}): {life.said}")
        again = {
            str(each["pcs_id"])
            for each in life.stdout
            if str(each["pcs_id"]) in before and not each["already_delivered"]
        }
        if self._remembers:
            tally.double(len(again), "sent again after they were reported as delivered")
        for document in life.stdout:
            known = before.get(str(document["pcs_id"]))
            other = known is not None and known != _STATUS.get(str(document["verdict"]))
            tally.double(other, "reported with another verdict")

    def _sent_and_unknown(self, log: InboxOnDisk, found: OutboxOnDisk) -> set[str]:
        sent = {
            pcs_id for pcs_id, body in log.requests.items() if json.loads(body)["shard_id"] == self._shard
        }
        # What was delivered may have been compacted away where nothing is remembered.
        return sent - found.records.keys() - (set() if self._remembers else self._reported.keys())

    async def _run(
        self, place: Place, url: str, *, gated: bool = False, windows: int | None = None
    ) -> tuple[Life, asyncio.Task[None]]:
        arguments = ("run", "-", "--format", "jsonl", "--shard-id", self._shard, "--epoch", "0")
        life = Life(
            Orders(
                program="agent",
                arguments=(*arguments, "--window", str(WINDOW_ROWS), "--json"),
                variables={
                    "ENDPOINT": f"{url}/v1/pcs/submit",
                    "OUTBOX_DIR": str(self._outbox),
                    "OUTBOX_RETENTION_DAYS": "14" if self._remembers else "0",
                    "PCS_SIGN_ALG": "hmac",
                    "PCS_HMAC_KEY": HMAC_KEY,
                },
                cut_folder=self._cut_folder,
                segment_bytes=16 << 10,
                compact_every=8 if place is Place.OUTBOX_COMPACTION else 1_000,
                gated=gated,
                mutant=self._mutant,
            )
        )
        await life.start()
        return life, asyncio.create_task(_feed(life, windows), name="feed")


async def _feed(life: Life, windows: int | None) -> None:
    """Write the stream, the same each time; without a number of windows until the agent is gone."""
    window = 0
    try:
        while (windows is None or window < windows) and not life.dead.is_set():
            rows = range(window * WINDOW_ROWS, (window + 1) * WINDOW_ROWS)
            await life.feed(b"".join(b'{"x": %d}\n' % row for row in rows))
            window += 1
            await asyncio.sleep(0)
        if windows is not None:
            life.end_input()
    except ConnectionError:
        pass  # it died while it was fed
