"""The switch in front of a store: who is asked when, and what is believed of a store that does not answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inboxes import Clock, running_inbox, turn
from pcs_backend.dedup.guarded_store import GuardedStore
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.errors import OutcomeUnreadableError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome

KEY = Key("default", "a" * 64)


class HangingStore(MemoryStore):
    """A memory store that answers no ping and no question while it hangs."""

    def __init__(self, journal: object) -> None:
        super().__init__(now=Clock(), journal=journal, records_max=10)  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def ping(self) -> None:
        self.asked.append("ping")
        await self.answering.wait()

    async def get(self, keys: list[Key]) -> list[Outcome | None]:  # type: ignore[override]
        self.asked.append("get")
        await self.answering.wait()
        return await super().get(keys)


async def sleep_little(_delay_s: float) -> None:
    await asyncio.sleep(0)


async def test_store_with_an_outcome_that_cannot_be_read_is_up(tmp_path: Path) -> None:
    """Taken for down, it would be asked nothing for a moment at each try, and every sender would be answered 503."""

    class Unreadable(MemoryStore):
        async def get(self, keys: list[Key]) -> list[Outcome | None]:  # type: ignore[override]
            raise OutcomeUnreadableError("the store holds an outcome that this version cannot read")

    async with running_inbox(tmp_path) as inbox:
        guarded = GuardedStore(Unreadable(now=Clock(), journal=inbox, records_max=10), sleep_little)
        await guarded.open()
        with pytest.raises(OutcomeUnreadableError):
            await guarded.get([KEY])
        assert guarded.is_up


async def test_store_that_hangs_is_not_up_while_it_is_asked_whether_it_is(tmp_path: Path) -> None:
    """Otherwise requests would wait for it, each time a ping is on its way, for as long as a call may take."""
    async with running_inbox(tmp_path) as inbox:
        store = HangingStore(inbox)
        guarded = GuardedStore(store, sleep_little, timeout_s=0.05)
        await guarded.open()
        assert guarded.is_up
        store.answering.clear()
        with pytest.raises(StoreUnavailableError, match="did not answer in time"):
            await guarded.get([KEY])
        assert not guarded.is_up
        pinging = asyncio.create_task(guarded.ping())
        await turn()
        assert store.asked == ["get", "ping"]
        assert not guarded.is_up
        with pytest.raises(StoreUnavailableError, match="the dedup store is down"):
            await guarded.get([KEY])
        assert store.asked == ["get", "ping"]
        with pytest.raises(StoreUnavailableError):
            await pinging
        store.answering.set()
        await guarded.ping()
        assert guarded.is_up
        assert await guarded.get([KEY]) == [None]


async def test_monitor_switches_off_and_on(tmp_path: Path) -> None:
    async with running_inbox(tmp_path) as inbox:
        store = HangingStore(inbox)
        guarded = GuardedStore(store, sleep_little, timeout_s=0.02)
        monitor = asyncio.create_task(guarded.monitor())
        async with asyncio.timeout(10):
            for up in (True, False, True):
                if up:
                    store.answering.set()
                else:
                    store.answering.clear()
                while guarded.is_up is not up:
                    await asyncio.sleep(0)
        monitor.cancel()
        with pytest.raises(asyncio.CancelledError):
            await monitor
