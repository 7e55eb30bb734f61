"""One test class over all dedup stores, the simulation's too; then what only the stores that are servers can be asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import asyncpg
import msgspec
import pytest
import redis.asyncio
import uvloop

from faulty_proxy import Faults, FaultyProxy
from outcomes import LIFE_MS, NOW_MS, Clock, changed, conflict, escalation, outcome, pcs_id, put
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.postgres_store import PURGE_MAX, PostgresStore
from pcs_backend.dedup.redis_store import RedisStore
from pcs_backend.dedup.store import CONFLICTS_MAX, Candidate, Conflict, DedupStore, Placed
from pcs_backend.errors import ConfigError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome, whole
from servers import Server
from simulation.store import StoreClient, StoreServer
from simulation.trace import Trace

RESETS_MAX = 3_000
SERVER_STORES = [
    pytest.param("redis", marks=[pytest.mark.slow]),
    pytest.param("postgres", marks=[pytest.mark.slow]),
]


class ListJournal:
    """A journal that keeps what it was given."""

    def __init__(self) -> None:
        self.synced_sequence = 0
        self.outcomes: list[Candidate] = []
        self.acks: list[Key] = []
        self.conflicts: list[Conflict] = []

    async def write_outcomes(self, entries: Sequence[Candidate]) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do during a real sync
        self.outcomes += entries

    async def write_acks(self, keys: Sequence[Key]) -> None:
        await asyncio.sleep(0)
        self.acks += keys

    async def write_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        await asyncio.sleep(0)
        self.conflicts += conflicts


class Stores:
    """Makes opened stores over the same data, and closes them."""

    def __init__(self, kind: str, where: str, server: Server | None, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.clock = Clock()
        self._where = where
        self._server = server
        self._stack = stack
        self._simulated = StoreServer(random.Random(1), Trace(self.clock))

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    def new(self, port: int | None = None, **options: float) -> DedupStore:
        """Make a store that is not open yet; `port` is of what stands before the server."""
        where = self._where if port is None else self._where.replace(f":{self.server.port}", f":{port}")
        match self.kind:
            case "redis":
                return RedisStore(where, self.clock, **options)
            case "postgres":
                return PostgresStore(where, self.clock, **options)
            case "simulated":
                return StoreClient(self._simulated, self.clock)
            case _:
                return MemoryStore(now=self.clock, journal=ListJournal(), records_max=10_000)

    async def opened(self, port: int | None = None, **options: float) -> DedupStore:
        store = self.new(port, **options)
        self._stack.push_async_callback(store.close)
        await store.open()
        return store

    async def replicas(self, count: int) -> list[DedupStore]:
        """Stores that share what they hold; the memory store has no replicas, it is one many times."""
        if self.kind == "memory":
            return [await self.opened()] * count
        return [await self.opened() for _ in range(count)]


@pytest.fixture
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    kind = request.param
    where = {"redis": "redis_address", "postgres": "postgres_dsn"}.get(kind)
    async with AsyncExitStack() as stack:
        yield Stores(
            kind,
            request.getfixturevalue(where) if where else "",
            request.getfixturevalue(f"{kind}_server") if where else None,
            stack,
        )


@pytest.fixture
async def store(stores: Stores) -> DedupStore:
    return await stores.opened()


@pytest.mark.parametrize("stores", ["memory", "simulated", *SERVER_STORES], indirect=True)
class TestEveryStore:
    async def test_what_is_put_is_got_back_whole(self, store: DedupStore):
        """L6: no store is a stub."""
        first = outcome(1)
        assert await store.get([first.key]) == [None]
        assert await put(store, first) == [Placed(first, True)]
        assert await store.get([first.key]) == [first]

    @pytest.mark.parametrize(
        "body", [b"", b"\0", b"a\0b", b"\xff\xfe\x80", b"1750:", bytes(range(256)) * 1_024, b"\r\n$-1\r\n"]
    )
    async def test_any_body_survives(self, store: DedupStore, body: bytes):
        first = outcome(1, body=body)
        await put(store, first)
        assert await store.get([first.key]) == [first]
        assert await put(store, outcome(1)) == [Placed(first, False)]

    async def test_the_first_write_wins(self, store: DedupStore):
        """L7: put_first alone decides, whatever was read before."""
        first, second = outcome(1, body=b"first"), outcome(1, body=b"second", status=202)
        assert await put(store, first) == [Placed(first, True)]
        assert await put(store, second) == [Placed(first, False)]
        assert await put(store, first) == [Placed(first, False)]
        assert await store.get([first.key]) == [first]
        assert await store.list_escalations("default", 10) == []

    async def test_of_equal_keys_in_a_batch_the_first_wins(self, store: DedupStore):
        first, second, other = outcome(1, body=b"first"), outcome(1, body=b"second"), outcome(2)
        assert await put(store, first, other, second, first) == [
            Placed(first, True),
            Placed(other, True),
            Placed(first, False),
            Placed(first, False),
        ]

    async def test_a_batch_keeps_its_order(self, store: DedupStore):
        known = [outcome(number, body=b"known") for number in range(0, 40, 3)]
        await put(store, *known)
        batch = [outcome(number, body=b"new", tenant=f"t{number % 2}") for number in range(20)]
        batch += [outcome(number, body=b"new") for number in range(40, -1, -1)]
        placed = await put(store, *batch)
        for wanted, each in zip(batch, placed, strict=True):
            is_known = wanted.key in {one.key for one in known}
            assert (each.winner.key, each.winner.body, each.first) == (
                wanted.key,
                b"known" if is_known else b"new",
                not is_known,
            )
        assert await store.get([each.key for each in batch]) == [each.winner for each in placed]

    async def test_a_batch_larger_than_one_script_call(self, store: DedupStore):
        batch = [outcome(number, status=202 if number % 2 else 200) for number in range(1_101)]
        assert await put(store, *batch) == [Placed(each, True) for each in batch]
        assert await put(store, *batch) == [Placed(each, False) for each in batch]
        assert len(await store.list_escalations("default", 10_000)) == 550

    async def test_forty_ids_sixteen_times_at_once_give_forty_firsts(self, stores: Stores):
        """L7: 40 ids sent 16 times at once gave 42 acceptances; here over two replicas."""
        replicas = await stores.replicas(2)

        async def send(copy: int, number: int) -> Placed:
            mine = outcome(number, body=b"%d" % copy, status=202 if number % 2 else 200)
            return (await put(replicas[copy % 2], mine))[0]

        placed = await asyncio.gather(*(send(copy, number) for copy in range(16) for number in range(40)))
        firsts = {each.winner.key: each.winner for each in placed if each.first}
        assert sum(each.first for each in placed) == 40
        assert len(firsts) == 40
        assert [each.winner for each in placed] == [firsts[each.winner.key] for each in placed]
        assert await replicas[0].get(list(firsts)) == list(firsts.values())
        assert len(await replicas[1].list_escalations("default", 100)) == 20

    async def test_overlapping_batches_at_once_give_one_first_each(self, stores: Stores):
        """L7, in batches: opposite orders neither deadlock nor double."""
        replicas = await stores.replicas(2)

        async def send(copy: int) -> list[Placed]:
            order = range(60) if copy % 2 else range(59, -1, -1)
            batch = [outcome(number, body=b"%d" % copy, status=202) for number in order]
            return await put(replicas[copy % 2], *batch)

        placed = [each for batch in await asyncio.gather(*map(send, range(8))) for each in batch]
        assert sum(each.first for each in placed) == 60
        assert len({each.winner.key for each in placed if each.first}) == 60
        assert len({(each.winner.key, each.winner.body) for each in placed}) == 60

    async def test_tenants_do_not_see_each_other(self, store: DedupStore):
        """L10: B was answered with A's outcome."""
        of_a, of_b = (
            outcome(1, tenant="a", body=b"a", status=202),
            outcome(1, tenant="b", body=b"b", status=202),
        )
        assert await put(store, of_a) == [Placed(of_a, True)]
        assert await store.get([of_b.key]) == [None]
        assert await store.list_escalations("b", 10) == []
        assert await put(store, of_b, of_a) == [Placed(of_b, True), Placed(of_a, False)]
        assert await store.get([of_b.key, of_a.key]) == [of_b, of_a]
        assert await store.ack_escalations([of_a.key]) == [True]
        assert await store.list_escalations("a", 10) == []
        assert await store.list_escalations("b", 10) == [escalation(of_b)]
        await store.note_conflicts([conflict(1, tenant="a", seen_at_ms=NOW_MS)])
        assert await store.list_conflicts("b", 10) == []
        assert len(await store.list_conflicts("a", 10)) == 1

    @pytest.mark.parametrize("other", ["a}:o:", "a:o", "", "{a}", "ä", "a%7D"])
    async def test_no_tenant_name_reaches_into_another(self, store: DedupStore, other: str):
        """L10, with names made to confuse a key."""
        of_a, of_other = outcome(1, tenant="a", body=b"a"), outcome(1, tenant=other, body=b"b")
        assert await put(store, of_a, of_other) == [Placed(of_a, True), Placed(of_other, True)]
        assert await store.get([of_a.key, of_other.key]) == [of_a, of_other]

    async def test_an_escalated_outcome_is_queued_once_and_acknowledged_once(self, store: DedupStore):
        older = outcome(2, status=202, body=b"older", stored_at_ms=NOW_MS - 5)
        newer = outcome(1, status=202, body=b"newer")
        await put(store, newer, outcome(3))
        await put(store, older)
        await put(store, newer, older)
        queue = await store.list_escalations("default", 10)
        assert sorted(queue, key=lambda each: each.stored_at_ms) == [escalation(older), escalation(newer)]
        assert await store.ack_escalations([newer.key, outcome(3).key, outcome(9).key]) == [
            True,
            False,
            False,
        ]
        assert await store.ack_escalations([newer.key]) == [False]
        assert await store.list_escalations("default", 10) == [escalation(older)]
        assert await put(store, newer) == [Placed(newer, False)]
        assert await store.list_escalations("default", 10) == [escalation(older)]

    async def test_escalations_come_oldest_first_and_bounded(self, store: DedupStore):
        queued = [outcome(number, status=202, stored_at_ms=NOW_MS + number) for number in range(5)]
        for each in queued:
            await put(store, each)
        assert await store.list_escalations("default", 10) == [escalation(each) for each in queued]
        assert await store.list_escalations("default", 2) == [escalation(each) for each in queued[:2]]
        assert await store.list_escalations("default", 0) == []

    async def test_an_expired_outcome_is_forgotten_by_the_injected_clock(
        self, stores: Stores, store: DedupStore
    ):
        first, second = outcome(1, status=202, body=b"first"), outcome(2)
        await put(store, first, second)
        stores.clock.pass_ms(LIFE_MS - 1)
        assert await store.get([first.key, second.key]) == [first, second]
        assert await store.list_escalations("default", 10) == [escalation(first)]
        stores.clock.pass_ms(1)
        assert await store.get([first.key, second.key]) == [None, None]
        assert await store.list_escalations("default", 10) == []
        assert await store.ack_escalations([first.key]) == [False]

    @pytest.mark.parametrize(("before", "after"), [(202, 202), (202, 200), (200, 202)])
    async def test_an_expired_outcome_is_replaced_with_its_escalation(
        self, stores: Stores, store: DedupStore, before: int, after: int
    ):
        await put(store, outcome(1, status=before, body=b"old"), outcome(2, life_ms=2 * LIFE_MS))
        await store.ack_escalations([outcome(1).key])
        stores.clock.pass_ms(LIFE_MS)
        new = outcome(1, status=after, body=b"new", stored_at_ms=NOW_MS + LIFE_MS)
        kept = outcome(2, life_ms=2 * LIFE_MS)
        placed = await put(store, outcome(2, body=b"late"), new, outcome(3), new)
        assert placed == [
            Placed(kept, False),
            Placed(new, True),
            Placed(outcome(3), True),
            Placed(new, False),
        ]
        assert await store.get([new.key]) == [new]
        assert await store.list_escalations("default", 10) == ([escalation(new)] if after == 202 else [])

    async def test_replicas_that_replace_an_expired_outcome_at_once_agree(self, stores: Stores):
        """L7 once more, where a store may have to remove before it inserts."""
        replicas = await stores.replicas(2)
        await put(replicas[0], *(outcome(number, status=202) for number in range(20)))
        stores.clock.pass_ms(LIFE_MS)

        async def send(copy: int) -> list[Placed]:
            batch = [
                outcome(number, body=b"%d" % copy, status=202, stored_at_ms=NOW_MS + LIFE_MS)
                for number in range(30)
            ]
            return await put(replicas[copy % 2], *(batch if copy % 3 else reversed(batch)))

        placed = [each for batch in await asyncio.gather(*map(send, range(6))) for each in batch]
        assert sum(each.first for each in placed) == 30
        assert len({(each.winner.key, each.winner.body) for each in placed}) == 30
        assert len(await replicas[1].list_escalations("default", 100)) == 30

    async def test_purge_removes_only_what_has_expired(self, stores: Stores, store: DedupStore):
        expired = [outcome(number, status=202) for number in range(7)]
        kept = outcome(8, status=202, life_ms=LIFE_MS + 1)
        await put(store, *expired, kept)
        assert await store.purge_expired() == 0
        stores.clock.pass_ms(LIFE_MS)
        # Redis forgets by its own clock and has nothing to purge.
        assert await store.purge_expired() == (0 if stores.kind == "redis" else 7)
        assert await store.purge_expired() == 0
        assert await store.get([expired[0].key, kept.key]) == [None, kept]
        assert await store.list_escalations("default", 10) == [escalation(kept)]

    async def test_conflicts_are_kept_once_and_newest_first(self, store: DedupStore):
        one, two = conflict(1, seen_at_ms=NOW_MS), conflict(1, fingerprint="f2", seen_at_ms=NOW_MS + 1)
        again = conflict(1, seen_at_ms=NOW_MS + 2)
        await store.note_conflicts([])
        assert await store.list_conflicts("default", 10) == []
        await store.note_conflicts([one, two, again])
        await store.note_conflicts([again])
        assert await store.list_conflicts("default", 10) == [two, one]
        assert await store.list_conflicts("default", 1) == [two]
        assert await store.list_conflicts("default", 0) == []

    async def test_conflicts_are_bounded_and_the_oldest_go(self, store: DedupStore):
        many = [conflict(number, seen_at_ms=NOW_MS + number) for number in range(CONFLICTS_MAX)]
        own = conflict(1, tenant="other", seen_at_ms=NOW_MS)
        await store.note_conflicts([own, *many])
        late = [
            conflict(number, fingerprint="late", seen_at_ms=NOW_MS + 50_000 + number) for number in (1, 2)
        ]
        await store.note_conflicts(late)
        assert await store.list_conflicts("default", 3) == [late[1], late[0], many[-1]]
        # A listing does not reach the oldest; but one that was kept is not noted again, and one that went is.
        went, stayed = (
            conflict(number, seen_at_ms=NOW_MS + 90_000 + number) for number in (1, CONFLICTS_MAX - 1)
        )
        await store.note_conflicts([went, stayed])
        assert await store.list_conflicts("default", 4) == [went, late[1], late[0], many[-1]]
        assert await store.list_conflicts("other", 10) == [own]

    async def test_empty_batches_are_answered(self, store: DedupStore):
        assert await store.get([]) == []
        assert await store.put_first([]) == []
        assert await store.ack_escalations([]) == []

    async def test_opening_and_closing_twice_is_safe(self, stores: Stores):
        store = stores.new()
        await store.close()
        await store.open()
        await store.open()
        await store.ping()
        await put(store, outcome(1))
        await store.close()
        await store.close()
        await store.open()
        await store.ping()
        assert await store.get([outcome(1).key]) == [outcome(1)]
        await store.close()

    async def test_durable_settings_give_no_warning(self, store: DedupStore):
        assert await store.durability_warnings() == []


@pytest.mark.parametrize("stores", SERVER_STORES, indirect=True)
class TestStoresThatAreServers:
    @pytest.mark.parametrize("how", ["stop", "kill"])
    async def test_a_store_that_goes_down_is_unavailable_and_heals(self, stores: Stores, how: str):
        """L15: an outage was 500. What was acknowledged is there when the server is back (L6), also after SIGKILL."""
        store = await stores.opened()
        before, after = outcome(1, status=202), outcome(2)
        await put(store, before)
        await asyncio.gather(*(store.get([before.key]) for _ in range(6)))  # more than one connection breaks
        getattr(stores.server, how)()
        try:
            for _ in range(3):
                for call in every_call(store):
                    async with asyncio.timeout(2):
                        with pytest.raises(StoreUnavailableError, match=r"\A(Redis|PostgreSQL): \w+\Z"):
                            await call
        finally:
            stores.server.start()
        assert await store.get([before.key]) == [before]
        assert await put(store, after, before) == [Placed(after, True), Placed(before, False)]
        assert await store.list_escalations("default", 10) == [escalation(before)]

    async def test_a_store_restarted_between_two_calls_is_not_noticed_for_long(self, stores: Stores):
        """L15: connections that broke while idle are replaced; at most the first call pays for it."""
        store = await stores.opened()
        await asyncio.gather(*(put(store, outcome(number)) for number in range(6)))
        stores.server.kill()
        stores.server.start()
        await asyncio.gather(*(store.ping() for _ in range(6)), return_exceptions=True)
        assert await put(store, outcome(1), outcome(7)) == [
            Placed(outcome(1), False),
            Placed(outcome(7), True),
        ]

    async def test_a_store_that_is_down_at_the_start_is_opened_later(self, stores: Stores):
        """L6: a store that is down does not stop the start; the same object opens when the server is back."""
        store = stores.new()
        stores.server.stop()
        try:
            with pytest.raises(StoreUnavailableError):
                await store.open()
            with pytest.raises(StoreUnavailableError):
                await store.get([outcome(1).key])
            await store.close()
            with pytest.raises(StoreUnavailableError):
                await store.open()
        finally:
            stores.server.start()
        await store.open()
        assert await put(store, outcome(1)) == [Placed(outcome(1), True)]
        await store.close()

    async def test_a_store_that_was_never_opened_is_unavailable(self, stores: Stores):
        store = stores.new()
        for call in every_call(store):
            with pytest.raises(StoreUnavailableError, match=r"\A(Redis|PostgreSQL): not open\Z"):
                await call

    async def test_a_frozen_server_is_unavailable_within_the_timeout(self, stores: Stores):
        """L15: a server that takes the connection and never answers does not hold a request."""
        store = await stores.opened(call_timeout_s=0.2)
        await put(store, outcome(1))
        stores.server.freeze()
        try:
            for call in every_call(store):
                async with asyncio.timeout(2):
                    with pytest.raises(StoreUnavailableError):
                        await call
        finally:
            stores.server.thaw()
        patient = await stores.opened()
        # What was asked of the frozen server may have been stored: then it was first, whoever hears of it.
        placed = await put(patient, outcome(2))
        assert placed[0].winner == outcome(2)
        assert await store.get([outcome(1).key, outcome(2).key]) == [outcome(1), outcome(2)]

    async def test_a_pool_of_dead_sockets_is_replaced_after_one_call_without_an_answer(self, stores: Stores):
        """Every connection dies without a word while new ones work: one call pays for it, not one a connection."""
        with FaultyProxy("127.0.0.1", stores.server.port) as proxy:
            store = await stores.opened(port=proxy.port, call_timeout_s=0.5)
            await asyncio.gather(*(store.get([outcome(1).key]) for _ in range(6)))
            assert proxy.open_connections >= 6
            proxy.silence()
            with pytest.raises(StoreUnavailableError):
                await store.get([outcome(1).key])
            await store.ping()  # as the switch before it does, alone
            batches = [put(store, outcome(number)) for number in range(6)]
            assert await asyncio.gather(*batches) == [[Placed(outcome(number), True)] for number in range(6)]
            await store.close()

    async def test_a_cancelled_call_leaves_the_store_usable(self, stores: Stores):
        store = await stores.opened(call_timeout_s=0.5)
        stores.server.freeze()
        try:
            call = asyncio.create_task(put(store, outcome(1)))
            await asyncio.wait([call], timeout=0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        finally:
            stores.server.thaw()
        assert (await put(store, outcome(1)))[0].winner == outcome(1)
        assert await store.get([outcome(1).key]) == [outcome(1)]

    async def test_no_error_tells_the_address_or_a_value(self, stores: Stores):
        store = await stores.opened()
        stores.server.stop()
        try:
            with pytest.raises(StoreUnavailableError) as caught:
                await put(store, outcome(1, body=b"secret"))
        finally:
            stores.server.start()
        message = str(caught.value)
        assert str(stores.server.port) not in message
        assert "127.0.0.1" not in message
        assert pcs_id(1) not in message
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("stores", SERVER_STORES[1:], indirect=True)
async def test_a_purge_is_bounded(stores: Stores):
    store = await stores.opened()
    await put(store, *(outcome(number, status=202) for number in range(PURGE_MAX + 1)))
    stores.clock.pass_ms(LIFE_MS)
    assert [await store.purge_expired() for _ in range(3)] == [PURGE_MAX, 1, 0]


@pytest.mark.parametrize("stores", SERVER_STORES[1:], indirect=True)
async def test_a_batch_waits_in_key_order_for_what_another_replica_is_storing(
    stores: Stores, postgres_dsn: str
):
    """L7: the loser waits for the winner's commit and answers with it. Taking keys in order, nobody deadlocks."""
    store = await stores.opened()
    low, middle, high = sorted(
        (outcome(number, body=b"ours") for number in range(3)), key=lambda each: each.pcs_id
    )
    theirs = [changed(each, body=b"theirs") for each in (middle, high)]
    other, watcher = await asyncpg.connect(postgres_dsn), await asyncpg.connect(postgres_dsn)
    try:
        async with asyncio.timeout(10):
            transaction = other.transaction()
            await transaction.start()
            await insert(other, theirs[0])
            ours = asyncio.create_task(put(store, high, middle, low))
            while not await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                assert not ours.done()
            await insert(other, theirs[1])
            await transaction.commit()
            assert await ours == [Placed(theirs[1], False), Placed(theirs[0], False), Placed(low, True)]
    finally:
        await other.close()
        await watcher.close()


@pytest.mark.parametrize("stores", SERVER_STORES[1:], indirect=True)
async def test_what_another_replica_takes_back_is_stored(stores: Stores, postgres_dsn: str):
    """L7: waiting for a transaction that rolls back makes the waiter the first."""
    store = await stores.opened()
    mine = outcome(1, status=202)
    other, watcher = await asyncpg.connect(postgres_dsn), await asyncpg.connect(postgres_dsn)
    try:
        async with asyncio.timeout(10):
            transaction = other.transaction()
            await transaction.start()
            await insert(other, outcome(1, body=b"theirs"))
            call = asyncio.create_task(put(store, mine))
            while not await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                assert not call.done()
            await transaction.rollback()
            assert await call == [Placed(mine, True)]
    finally:
        await other.close()
        await watcher.close()
    assert await store.list_escalations("default", 10) == [escalation(mine)]


@pytest.mark.parametrize("stores", SERVER_STORES[:1], indirect=True)
async def test_redis_forgetting_before_our_clock_leaves_no_stale_escalation(
    stores: Stores, redis_address: str
):
    """The server's clock runs ahead: the outcome is gone there, its queue entry is not yet due."""
    store = await stores.opened()
    await put(store, outcome(1, status=202), outcome(2, status=202))
    async with redis.asyncio.Redis.from_url(f"redis://{redis_address}") as client:
        assert await client.delete(*[f"pcs:{{default}}:o:{pcs_id(number)}" for number in (1, 2)]) == 2
        life_ms = await client.pttl("pcs:{default}:esc")
    assert 0 < life_ms <= LIFE_MS
    assert await store.list_escalations("default", 10) == []
    assert await put(store, outcome(1)) == [Placed(outcome(1), True)]
    assert await store.ack_escalations([outcome(1).key]) == [False]


@pytest.mark.parametrize("stores", SERVER_STORES[:1], indirect=True)
@pytest.mark.parametrize("value", [b"", b"nonsense", b"99999999999999:nonsense", b"\xff"])
async def test_a_value_that_redis_cannot_have_from_us_is_never_replaced(
    stores: Stores, redis_address: str, value: bytes
):
    """L5 in spirit: what cannot be read is not taken for nothing."""
    store = await stores.opened()
    key = f"pcs:{{default}}:o:{pcs_id(1)}"
    async with redis.asyncio.Redis.from_url(f"redis://{redis_address}") as client:
        await client.set(key, value)
        with pytest.raises(StoreUnavailableError, match="cannot read"):
            await store.get([outcome(1).key])
        with pytest.raises(StoreUnavailableError, match="cannot read"):
            await put(store, outcome(1))
        assert await client.get(key) == value


def test_redis_connection_that_is_reset_while_it_is_written_to_is_a_store_that_is_down() -> None:
    """uvloop, which serves, tells it by a RuntimeError of its own: the task that pings would die of it, and the process.

    One reset in some hundred comes at that moment.
    """

    async def ping_often(port: int) -> Counter[str]:
        store = RedisStore(f"127.0.0.1:{port}", now=time.time)
        said: Counter[str] = Counter()
        while said["Redis: RuntimeError"] == 0 and said.total() < RESETS_MAX:
            with pytest.raises(StoreUnavailableError) as error:
                await store.open()
            said[str(error.value)] += 1
        await store.close()
        return said

    with FaultyProxy("127.0.0.1", 1, Faults(refuse=True)) as proxy:
        said = uvloop.run(ping_often(proxy.port))
    assert said.keys() <= {"Redis: ConnectionError", "Redis: RuntimeError"}


async def insert(connection: asyncpg.Connection, stored: Outcome) -> None:
    row = whole(stored)
    names = row.__struct_fields__
    places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    await connection.execute(
        f"INSERT INTO pcs_outcomes ({', '.join(names)}) VALUES ({places})",
        *msgspec.structs.astuple(row),
    )


def every_call(store: DedupStore):
    """Calls of each kind, made one at a time."""
    yield store.get([outcome(1).key])
    yield store.put_first([Candidate(outcome(2), 2)])
    yield store.note_conflicts([conflict(1, seen_at_ms=NOW_MS)])
    yield store.list_conflicts("default", 10)
    yield store.list_escalations("default", 10)
    yield store.ack_escalations([outcome(1).key])
    yield store.ping()
    yield store.durability_warnings()


@pytest.mark.parametrize("address", ["redis://h:port", "http://h:1", "redis://h/0?nonsense=1", "h:1:2"])
def test_an_address_that_is_none_is_a_configuration_error(address: str):
    with pytest.raises(ConfigError, match=r"\AREDIS_ADDR is neither"):
        RedisStore(address, Clock())


@pytest.mark.parametrize("dsn", ["http://h/d", "postgresql://h:port/d", "nonsense"])
async def test_a_connection_string_that_is_none_is_a_configuration_error(dsn: str):
    store = PostgresStore(dsn, Clock())
    with pytest.raises(ConfigError, match=r"\APOSTGRES_DSN is not"):
        await store.open()
    await store.close()
