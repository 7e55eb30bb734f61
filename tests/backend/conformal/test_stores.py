"""One test class over all calibration stores, the simulation's too; then what only single ones can be asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from calibrations import calibration_set, labelled, promotion
from inboxes import running_inbox
from outcomes import NOW_MS, Clock, outcome, put
from pcs_backend.conformal import (
    postgres_calibrations,
    redis_calibrations,
    shelf,
)
from pcs_backend.conformal.calibration import CalibrationSet, Labelled
from pcs_backend.conformal.store import (
    ARTIFACT_BYTES_MAX,
    ARTIFACT_RENEWED_MS,
    LABELS_MAX,
    CalibrationStore,
    digest_of,
)
from pcs_backend.dedup.guarded_store import GuardedStore
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.dedup.redis_store import RedisStore
from pcs_backend.dedup.store import DedupStore
from pcs_backend.errors import StoreFullError, StoreUnavailableError
from servers import Server
from simulation.store import StoreClient, StoreServer
from simulation.trace import Trace

DAY_MS = 24 * 3_600_000
SERVERS = [
    pytest.param("redis", marks=[pytest.mark.slow]),
    pytest.param("postgres", marks=[pytest.mark.slow]),
]


class Places:
    """Makes opened stores over the same data, and closes them."""

    def __init__(self, kind: str, where: str, server: Server | None, folder: Path) -> None:
        self.kind = kind
        self.clock = Clock()
        self.where = where
        self._server = server
        self._folder = folder
        self._simulated = StoreServer(random.Random(1), Trace(self.clock))
        self._stack = AsyncExitStack()

    async def opened(self) -> DedupStore:
        store: DedupStore
        match self.kind:
            case "redis":
                store = RedisStore(self.where, self.clock)
            case "postgres":
                store = PostgresStore(self.where, self.clock)
            case "simulated":
                store = StoreClient(self._simulated, self.clock)
            case _:
                frames: list = []
                inbox = await self._stack.enter_async_context(
                    running_inbox(self._folder / "log", visit=lambda *each: frames.append(each))
                )
                store = MemoryStore(now=self.clock, journal=inbox, records_max=10_000)
                for sequence, frame in frames:
                    store.replay(sequence, frame)
        self._stack.push_async_callback(store.close)
        await store.open()
        return store

    async def close(self) -> None:
        await self._stack.aclose()

    async def crash(self) -> CalibrationStore:
        """Return the store after the server was killed; that of memory and of the simulation after a restart."""
        await self.close()
        if self._server is not None:
            self._server.kill()
            self._server.start()
        return (await self.opened()).calibrations

    async def replicas(self) -> list[CalibrationStore]:
        """Two that share what they hold; the memory store has no replicas, it is one twice."""
        first = (await self.opened()).calibrations
        return [first, first if self.kind == "memory" else (await self.opened()).calibrations]


@pytest.fixture
async def places(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Places]:
    kind = request.param
    where = {"redis": "redis_address", "postgres": "postgres_dsn"}.get(kind)
    places = Places(
        kind,
        request.getfixturevalue(where) if where else "",
        request.getfixturevalue(f"{kind}_server") if where else None,
        tmp_path,
    )
    yield places
    await places.close()


@pytest.fixture
async def store(places: Places) -> CalibrationStore:
    return (await places.opened()).calibrations


async def everything(store: CalibrationStore, tenant: str | None = None) -> list[Labelled]:
    return await store.list_labels(tenant, since_ms=0, limit=LABELS_MAX)


async def in_force(store: CalibrationStore, sets: list[CalibrationSet]) -> None:
    """Keep sets and bring one after the other into force, a second apart."""
    await store.keep([each.encoded for each in sets])
    for number, each in enumerate(sets):
        assert await store.promote(promotion(each, number + 1, at_ms=NOW_MS + number * 1_000))


@pytest.mark.parametrize("places", ["memory", "simulated", *SERVERS], indirect=True)
class TestEveryStore:
    async def test_labels_come_back_whole_and_newest_first(self, store: CalibrationStore):
        assert await everything(store) == []
        labels = [labelled(number, "bad" if number % 3 else "benign") for number in range(1, 8)]
        await store.put_labels(labels[3:])
        await store.put_labels(labels[:3])
        assert await everything(store) == labels[::-1]

    async def test_whoever_labels_in_any_script_comes_back(self, store: CalibrationStore):
        strange = labelled(1, by='"ä\\\n\x00}{\U0001f600', tenant="a}:lab:{é")
        await store.put_labels([strange])
        assert await everything(store) == [strange]
        assert await everything(store, "a}:lab:{é") == [strange]

    async def test_a_later_word_replaces_an_earlier_one(self, store: CalibrationStore):
        await store.put_labels([labelled(1, "benign"), labelled(2, "benign")])
        later = labelled(1, "bad", by="another", labelled_at_ms=NOW_MS + 100)
        await store.put_labels([later])
        assert await everything(store) == [later, labelled(2)]
        corrected = labelled(1, "benign", labelled_at_ms=NOW_MS)  # by a clock that was put back
        await store.put_labels([later, corrected])
        assert await everything(store) == [labelled(2), corrected]

    async def test_labels_are_listed_by_tenant_time_and_number_a_class(self, store: CalibrationStore):
        own = [labelled(number, "bad" if number > 6 else "benign", tenant="a") for number in range(10)]
        others = [labelled(number, tenant="b", labelled_at_ms=NOW_MS + 3 + number % 2) for number in range(4)]
        await store.put_labels([*own, *others])
        assert await everything(store, "a") == own[::-1]
        assert await everything(store, "c") == []
        assert await store.list_labels("a", since_ms=NOW_MS + 5, limit=9) == own[:4:-1]
        assert await store.list_labels("a", since_ms=0, limit=2) == [own[9], own[8], own[6], own[5]]
        assert await store.list_labels("a", since_ms=0, limit=0) == []
        assert await store.list_labels("a", since_ms=0, limit=-1) == []
        both = sorted(
            [*own, *others],
            key=lambda each: (each.labelled_at_ms, each.tenant, each.pcs_id),
            reverse=True,
        )
        assert await everything(store) == both
        benign = [each for each in both if each.label == "benign"][:5]
        bad = [each for each in both if each.label == "bad"][:5]
        assert await store.list_labels(None, since_ms=0, limit=5) == [*bad, *benign]
        assert await store.list_labels(None, since_ms=NOW_MS + 6, limit=2) == [own[9], own[8], own[6]]

    async def test_the_oldest_labels_of_a_class_go_first(
        self, store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
    ):
        for module in (shelf, redis_calibrations, postgres_calibrations):
            monkeypatch.setattr(module, "LABELS_MAX", 5)
        await store.put_labels([labelled(number, tenant="b") for number in range(5)])
        await store.put_labels([labelled(number, "bad") for number in range(20, 24)])
        await store.put_labels([labelled(number) for number in range(3, 9)])
        benign = [labelled(number) for number in range(8, 3, -1)]
        bad = [labelled(number, "bad") for number in range(23, 19, -1)]
        assert await everything(store, "default") == [*bad, *benign]
        await store.put_labels([labelled(1)])  # older than all that are kept
        assert await everything(store, "default") == [*bad, *benign]
        await store.put_labels([labelled(4, labelled_at_ms=NOW_MS + 19)])  # counts as new, and as one
        await store.put_labels([labelled(9)])
        assert [each.pcs_id for each in await everything(store, "default")] == [
            each.pcs_id for each in [*bad, labelled(4), labelled(9), *benign[:3]]
        ]
        assert len(await everything(store, "b")) == 5

    async def test_a_label_that_changed_its_class_no_longer_counts_in_the_other(
        self, store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
    ):
        for module in (shelf, redis_calibrations, postgres_calibrations):
            monkeypatch.setattr(module, "LABELS_MAX", 3)
        await store.put_labels([labelled(number) for number in range(3)])
        await store.put_labels([labelled(0, "bad")])
        await store.put_labels([labelled(3)])
        assert await everything(store) == [labelled(3), labelled(2), labelled(1), labelled(0, "bad")]

    async def test_more_labels_than_one_script_call_or_frame_takes(self, store: CalibrationStore):
        labels = [labelled(number, "bad" if number % 5 else "benign") for number in range(2_500)]
        await store.put_labels(labels)
        await store.put_labels([])
        assert await everything(store) == labels[::-1]
        assert await store.list_labels("default", since_ms=0, limit=300) == sorted(
            [each for each in labels if each.label == "bad"][-300:]
            + [each for each in labels if each.label == "benign"][-300:],
            key=lambda each: -each.labelled_at_ms,
        )

    async def test_artifacts_are_kept_under_their_digest(self, store: CalibrationStore):
        contents = [b"", b"\0\xff\r\n$-1", bytes(range(256)) * (ARTIFACT_BYTES_MAX // 256)]
        await store.keep(contents)
        await store.keep([contents[1], contents[1]])
        await store.keep([])
        digests = [digest_of(each) for each in contents]
        assert await store.fetch([digests[2], "f" * 64, *digests]) == [contents[2], None, *contents]
        assert await store.fetch([]) == []

    async def test_an_artifact_that_is_too_large_is_none(self, store: CalibrationStore):
        too_large = bytes(ARTIFACT_BYTES_MAX + 1)
        with pytest.raises(ValueError, match=r"\Aartifact: found 1048577 bytes; allowed: up to 1048576\Z"):
            await store.keep([b"small", too_large])
        assert await store.fetch([digest_of(b"small"), digest_of(too_large)]) == [None, None]

    async def test_no_more_artifacts_than_the_bound(
        self, store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
    ):
        for module in (shelf, redis_calibrations, postgres_calibrations):
            monkeypatch.setattr(module, "ARTIFACTS_MAX", 3)
        await store.keep([b"1", b"2", b"3"])
        with pytest.raises(StoreFullError, match="as many calibration sets as it may"):
            await store.keep([b"4"])
        await store.keep([b"3", b"1"])
        await store.keep([b"parameters"], always=True)
        assert await store.fetch([digest_of(b"4"), digest_of(b"2")]) == [None, b"2"]
        assert await store.fetch([digest_of(b"parameters")]) == [b"parameters"]
        await store.keep([b"3", b"1"])  # known ones need no room
        assert await store.purge(NOW_MS + 1) == 4
        await store.keep([b"4"])
        assert await store.fetch([digest_of(b"4")]) == [b"4"]

    async def test_a_set_comes_into_force_and_is_rolled_back(self, store: CalibrationStore):
        first, second = calibration_set(1), calibration_set(2)
        await store.keep([first.encoded, second.encoded])
        assert await store.list_promotions(None, 9) == []
        history = [promotion(first, 1), promotion(second, 2), promotion(first, 3)]
        for each in history:
            assert await store.promote(each)
        assert await store.list_promotions("default", 9) == history[::-1]
        assert await store.list_promotions("default", 2) == history[:0:-1]
        assert await store.list_promotions("default", 0) == []
        assert await store.list_promotions("default", -1) == []
        assert await store.list_promotions("another", 9) == []

    async def test_only_the_next_version_of_a_set_that_is_kept(self, store: CalibrationStore):
        first, unknown = calibration_set(1), calibration_set(2)
        assert not await store.promote(promotion(first, 1))
        await store.keep([first.encoded])
        assert not await store.promote(promotion(first, 0))
        assert not await store.promote(promotion(first, 2))
        assert await store.promote(promotion(first, 1))
        assert not await store.promote(promotion(first, 1))
        assert not await store.promote(promotion(first, 3))
        assert not await store.promote(promotion(unknown, 2))
        assert await store.list_promotions("default", 9) == [promotion(first, 1)]

    async def test_scopes_count_for_themselves(self, store: CalibrationStore):
        scopes = ["", "a", "a}:", "b", "é"]
        sets = [calibration_set(number, scope=scope) for number, scope in enumerate(scopes)]
        for each in reversed(sets):
            await in_force(store, [each])
        newest = promotion(sets[1], 2)
        assert await store.promote(newest)
        listed = await store.list_promotions(None, 9)
        assert listed == [promotion(sets[0], 1), newest, *(promotion(each, 1) for each in sets[2:])]
        assert await store.list_promotions(None, 2) == listed[:2]
        assert await store.list_promotions(None, 0) == []
        assert await store.list_promotions("", 9) == [promotion(sets[0], 1)]

    async def test_of_many_that_promote_at_once_one_does(self, places: Places):
        replicas = await places.replicas()
        sets = [calibration_set(number) for number in range(8)]
        await replicas[0].keep([each.encoded for each in sets])

        async def promote(number: int) -> bool:
            return await replicas[number % 2].promote(promotion(sets[number], 1))

        done = await asyncio.gather(*map(promote, range(8)))
        assert sum(done) == 1
        assert await replicas[1].list_promotions("default", 9) == [promotion(sets[done.index(True)], 1)]

    async def test_the_oldest_promotions_go_and_versions_go_on(
        self, store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
    ):
        for module in (shelf, redis_calibrations, postgres_calibrations):
            monkeypatch.setattr(module, "PROMOTIONS_MAX", 3)
        await in_force(store, [calibration_set(number % 2) for number in range(5)])
        assert [each.version for each in await store.list_promotions("default", 9)] == [5, 4, 3]
        assert not await store.promote(promotion(calibration_set(0), 1))
        assert await store.promote(promotion(calibration_set(0), 6))

    async def test_a_purge_leaves_what_is_in_force_or_was_lately_needed(
        self, places: Places, store: CalibrationStore
    ):
        never, former, present, elsewhere = (calibration_set(number) for number in range(4))
        of_all = calibration_set(5, scope="")
        await store.keep([never.encoded, elsewhere.encoded])
        await in_force(store, [former, present])
        await in_force(store, [of_all])

        async def kept() -> list[bool]:
            sets = (never, former, present, elsewhere, of_all)
            return [each is not None for each in await store.fetch([each.digest for each in sets])]

        assert await store.purge(NOW_MS) == 0
        assert await kept() == [True] * 5
        places.clock.pass_ms(2 * DAY_MS)
        await store.keep([elsewhere.encoded])  # still needed, says who needs it
        assert await store.purge(NOW_MS + 1) == 1
        assert await kept() == [False, True, True, True, True]
        assert await store.purge(NOW_MS + 1_001) == 1  # the former one was in force until then
        assert await kept() == [False, False, True, True, True]
        assert await store.purge(NOW_MS + 2 * DAY_MS) == 0
        assert await store.purge(NOW_MS + 9 * DAY_MS) == 1
        assert await kept() == [False, False, True, False, True]
        assert not await store.promote(promotion(former, 3))

    async def test_what_is_kept_again_and_again_is_never_purged(
        self, places: Places, store: CalibrationStore
    ):
        """Parameters of a process: no promotion names them."""
        for _ in range(40):
            await store.keep([b"parameters"])
            places.clock.pass_ms(DAY_MS // 2)
            now_ms = int(places.clock() * 1_000)
            assert await store.purge(now_ms - DAY_MS // 2 - ARTIFACT_RENEWED_MS) == 0
        assert await store.fetch([digest_of(b"parameters")]) == [b"parameters"]

    async def test_everything_is_there_after_a_crash(self, places: Places, store: CalibrationStore):
        labels = [labelled(number, "bad" if number % 2 else "benign") for number in range(6)]
        sets = [calibration_set(number) for number in range(3)]
        await store.put_labels(labels)
        await store.put_labels([labelled(1, "benign")])
        await in_force(store, sets)
        before = await everything(store), await store.list_promotions("default", 9)
        again = await places.crash()
        assert before[0][-2:] == [labelled(1, "benign"), labels[0]]
        assert [each.version for each in before[1]] == [3, 2, 1]
        assert (await everything(again), await again.list_promotions("default", 9)) == before
        assert await again.fetch([each.digest for each in sets]) == [each.encoded for each in sets]
        assert await again.purge(NOW_MS + 500) == 0
        assert await again.purge(NOW_MS + 1_500) == 1
        assert await again.promote(promotion(sets[1], 4))

    async def test_outcomes_and_calibrations_do_not_touch_each_other(self, places: Places):
        store = await places.opened()
        first = outcome(1, status=202)
        await put(store, first)
        await store.calibrations.put_labels([labelled(1)])
        await in_force(store.calibrations, [calibration_set(1)])
        assert await store.get([first.key]) == [first]
        assert len(await store.list_escalations("default", 9)) == 1
        assert await everything(store.calibrations) == [labelled(1)]


@pytest.mark.parametrize("places", SERVERS, indirect=True)
class TestServers:
    async def test_a_server_that_is_down_is_unavailable_and_the_switch_says_so(
        self, places: Places, request: pytest.FixtureRequest
    ):
        server = request.getfixturevalue(f"{places.kind}_server")
        guarded = GuardedStore(await places.opened(), asyncio.sleep)
        await guarded.open()
        await guarded.calibrations.put_labels([labelled(1)])
        server.stop()
        try:
            with pytest.raises(StoreUnavailableError) as caught:
                await guarded.calibrations.put_labels([labelled(2, by="secret")])
            assert "secret" not in str(caught.value)
            assert str(server.port) not in str(caught.value)
            assert not guarded.is_up
            for call in every_call(guarded.calibrations):
                with pytest.raises(StoreUnavailableError, match="is down"):
                    await call
        finally:
            server.start()
        await guarded.ping()
        assert await everything(guarded.calibrations) == [labelled(1)]

    async def test_a_full_store_is_up(self, places: Places, monkeypatch: pytest.MonkeyPatch):
        for module in (redis_calibrations, postgres_calibrations):
            monkeypatch.setattr(module, "ARTIFACTS_MAX", 0)
        guarded = GuardedStore(await places.opened(), asyncio.sleep)
        await guarded.open()
        with pytest.raises(StoreFullError):
            await guarded.calibrations.keep([b"1"])
        assert guarded.is_up
        assert await guarded.calibrations.fetch([digest_of(b"1")]) == [None]

    async def test_replicas_that_label_the_same_at_once_agree(self, places: Places):
        """Opposite orders do not deadlock."""
        replicas = await places.replicas()

        async def put_all(copy: int) -> None:
            order = range(60) if copy % 2 else range(59, -1, -1)
            await replicas[copy % 2].put_labels([labelled(number, by=f"{copy}") for number in order])

        await asyncio.gather(*map(put_all, range(8)))
        found = await everything(replicas[0])
        assert [each.pcs_id for each in found] == [labelled(number).pcs_id for number in range(59, -1, -1)]
        assert found == await everything(replicas[1])

    async def test_promotions_and_purges_at_once_leave_no_set_in_force_without_its_scores(
        self, places: Places
    ):
        replicas = await places.replicas()
        for number in range(12):
            fresh = calibration_set(number, scope=f"t{number}")
            await replicas[0].keep([fresh.encoded])
            done, _ = await asyncio.gather(
                replicas[0].promote(promotion(fresh, 1, at_ms=NOW_MS + 10)), replicas[1].purge(NOW_MS + 1)
            )
            kept = await replicas[0].fetch([fresh.digest])
            assert kept == [fresh.encoded if done else None]
            assert len(await replicas[0].list_promotions(f"t{number}", 9)) == done


def every_call(store: CalibrationStore) -> list:
    return [
        store.put_labels([labelled(1)]),
        store.list_labels(None, since_ms=0, limit=1),
        store.keep([b"1"]),
        store.fetch(["0" * 64]),
        store.promote(promotion(calibration_set(1), 1)),
        store.list_promotions(None, 1),
        store.purge(0),
    ]


@pytest.mark.parametrize("places", SERVERS[:1], indirect=True)
async def test_what_redis_holds_and_cannot_be_read_is_unavailable(places: Places):
    store = (await places.opened()).calibrations
    await store.put_labels([labelled(1)])
    await in_force(store, [calibration_set(1)])
    client = redis.asyncio.Redis.from_url(f"redis://{places.where}")
    await client.hset("pcs:{default}:lab", labelled(1).pcs_id, "secret")
    await client.hset("pcs:cal:force", "default", "secret")
    await client.aclose()
    for call in (everything(store), store.list_promotions(None, 1), store.purge(NOW_MS + 9)):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert "secret" not in str(caught.value)
    with pytest.raises(StoreUnavailableError):
        await store.promote(promotion(calibration_set(1), 2))


@pytest.mark.parametrize("places", SERVERS[1:], indirect=True)
async def test_what_postgres_holds_and_cannot_be_read_is_unavailable(places: Places):
    store = (await places.opened()).calibrations
    await store.put_labels([labelled(1)])
    connection = await asyncpg.connect(places.where)
    await connection.execute("UPDATE pcs_labels SET data = 'secret'")
    with pytest.raises(StoreUnavailableError) as caught:
        await everything(store)
    assert "secret" not in str(caught.value)
    await connection.execute("DROP TABLE pcs_artifacts")
    await connection.close()
    with pytest.raises(StoreUnavailableError):
        await (await places.opened()).ping()
