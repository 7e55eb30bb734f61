"""One service on one disk, cut again and again: start, check what was promised before, load, cut."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path
from typing import NamedTuple

from crash.agent_side import AgentSide
from crash.check import check_backend, check_queue, tag_parameters
from crash.disk_log import InboxOnDisk, read_inbox
from crash.image import Disk
from crash.ledger import Ledger, Tally
from crash.life import Life, LifeError
from crash.load import CONNECTIONS, Load, Supply
from crash.plan import Deck, Orders, Place
from processes import HMAC_KEY, Client
from servers import PostgresServer

LOAD_TIMEOUT_S = 60.0
"""How long `ACKNOWLEDGED_MIN` records may take."""

ACKNOWLEDGED_MIN = 100
IN_FLIGHT_MIN = 32
GENERATION_CUTS = 20
"""Cuts after which everything ever promised is checked and a new data folder begun."""

TAGS_MAX = 600
"""Lives that can be told apart by their parameters."""

_RETENTIONS_DAYS = ("0.000001", "0.00001", "14")
_SEGMENTS_BYTES = (48 << 10, 96 << 10, 192 << 10)
_SUPPLY = 400


class CutRecord(NamedTuple):
    """What one cut was.

    Attributes:
        place: Where it fell.
        call: At which system call, and when.
        acknowledged: Records acknowledged to clients under load since the cut before.
        in_flight: Requests sent and not answered at that instant.
        settled: All records acknowledged since the cut before, those settled at the restart and the agent's included.
    """

    place: Place
    call: str
    acknowledged: int
    in_flight: int
    settled: int

    @property
    def counts(self) -> bool:
        """Whether the load was what it must be."""
        return self.acknowledged >= ACKNOWLEDGED_MIN and self.in_flight >= IN_FLIGHT_MIN


class Track:
    """A data folder after the other on one disk, with one kind of store."""

    def __init__(
        self,
        disk: Disk,
        *,
        postgres: PostgresServer | None,
        deck: Deck,
        supply: Supply,
        tally: Tally,
        mutant: str,
        scratch: Path,
    ) -> None:
        """Take the disk, and the database whose data lies on it, if there is one."""
        self._disk = disk
        self._postgres = postgres
        self._deck = deck
        self._supply = supply
        self._tally = tally
        self._mutant = mutant
        self._parameters = scratch / "parameters.toml"
        self._cut_folder = str(disk.path) if disk.loses_power else None
        self._choice: random.Random = deck.random
        self._generation = 0
        self._tag = 0
        self._cuts = 0
        self._client: Client | None = None
        self._load: Load | None = None
        self._begin_generation()

    async def cut(self, place: Place) -> CutRecord:
        """Start, check, load, and cut in that place."""
        self._supply.fill(_SUPPLY)
        acknowledged_before = self._tally.acknowledged
        life, client = await self._start_checked(place)
        if self._agent.must_rerun:
            await self._agent.rerun(life.url)
        agent = await self._agent.begin(place, life.url) if place.in_agent else None
        load = self._burden(client)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await load.wait_for(acknowledged=ACKNOWLEDGED_MIN)
        except TimeoutError:
            await self._end(life, load)
            raise LifeError(
                f"the backend acknowledges too little under load; it said:\n{life.said}"
            ) from None
        if load.over:
            await self._end(life, load)
            raise LifeError(f"the backend ended under load; it said:\n{life.said}")
        acknowledged, with_backlog = 0, False
        if place is Place.REPLAY:
            acknowledged = load.acknowledged
            await self._end(life, load)
            with_backlog = self._has_backlog()
            life, client, load = await self._start_gated()
        plan = self._deck.plan(place, with_backlog=with_backlog)
        if agent is None:
            life.arm(plan)
        else:
            agent.arm(plan, life)
        cut = await (agent or life).wait_cut()
        await self._end(life, load)
        if agent is not None:
            self._agent.note_reports(agent)
        if self._postgres is not None:
            self._postgres.kill()
        self._disk.power_on()
        settled = self._tally.acknowledged - acknowledged_before
        self._tally.last_cut = f"{place}, never came" if cut is None else f"{place}, {cut.moment} {cut.call}"
        self._cuts += 1
        if self._cuts % GENERATION_CUTS == 0:
            await self.finish()
            self._begin_generation()
        return CutRecord(
            place,
            "never came" if cut is None else f"{cut.moment} {cut.call}",
            acknowledged + load.acknowledged,
            0 if cut is None else load.in_flight(cut.at_s),
            settled,
        )

    async def finish(self) -> None:
        """Start once more, check everything ever promised over this data folder, and stop."""
        life, _ = await self._start_checked(Place.APPEND, everything=True)
        if self._agent.must_rerun:
            await self._agent.rerun(life.url)
        await self.close()
        code = await life.stop()
        if code:
            raise LifeError(f"the backend stopped with exit code {code}; it said:\n{life.said}")
        if self._postgres is not None:
            self._postgres.stop()

    async def close(self) -> None:
        """Stop the load, where there is one, and give the connections back."""
        if self._load is not None:
            await self._load.abandon()
            self._load = None
        if self._client is not None:
            await self._client.__aexit__()
            self._client = None

    def _connect(self, life: Life) -> Client:
        self._client = Client(life, CONNECTIONS)
        return self._client

    def _burden(self, client: Client) -> Load:
        self._load = Load(client, self._ledger, self._supply, self._choice)
        return self._load

    def _begin_generation(self) -> None:
        old = self._disk.path / f"data-{self._generation}"
        if old.exists():
            shutil.rmtree(old)
        self._generation += 1
        self._data = self._disk.path / f"data-{self._generation}"
        self._ledger = Ledger(self._tally)
        self._agent = AgentSide(self._data / "outbox", self._ledger, self._cut_folder, self._mutant)
        self._dsn = ""

    async def _start_checked(self, place: Place, *, everything: bool = False) -> tuple[Life, Client]:
        """Start and check. A service that does not start has lost everything; a new data folder is begun then."""
        if self._postgres is not None:
            await asyncio.to_thread(self._postgres.start)
            if not self._dsn:
                self._dsn = self._postgres.create_database()
                self._disk.sync()  # initdb does not
        while True:
            log = read_inbox(self._data / "backend")
            self._agent.check_outbox(log)
            life = await self._start(place)
            if await life.wait_ready():
                break
            if not self._ledger.promises:
                raise LifeError(f"the backend does not start; it said:\n{life.said}")
            self._ledger.lose_all(f"acknowledged, and the backend does not start again: {life.said[-300:]}")
            self._begin_generation()
            if self._postgres is not None:
                self._dsn = self._postgres.create_database()
        client = self._connect(life)
        await self._check(client, log, everything=everything)
        return life, client

    async def _check(self, client: Client, log: InboxOnDisk, *, everything: bool) -> None:
        await check_backend(client, self._ledger, log, self._tag, self._choice, everything=everything)
        await check_queue(self._ledger, self._data / "backend" / "admin.sock")

    def _has_backlog(self) -> bool:
        """Whether the backend will write outcomes of its backlog into its log when it starts."""
        log = read_inbox(self._data / "backend")
        return self._postgres is None and bool(
            log.requests.keys() - log.outcomes.keys() - self._ledger.promises.keys()
        )

    async def _start_gated(self) -> tuple[Life, Client, Load]:
        """Start a backend that waits with its replay until it is armed, under load already."""
        life = await self._start(Place.REPLAY, gated=True)
        await life.either(life.listening, 30.0)
        client = self._connect(life)
        load = self._burden(client)
        await load.wait_for(sent=CONNECTIONS)
        return life, client, load

    async def _end(self, life: Life, load: Load) -> None:
        await life.kill()
        await load.end()
        await self.close()

    async def _start(self, place: Place, *, gated: bool = False) -> Life:
        self._tag = self._tag % TAGS_MAX + 1
        tag_parameters(self._parameters, self._tag)
        hurried = place in {Place.SNAPSHOT, Place.COMPACTION}
        store = {"DEDUP_BACKEND": "memory"}
        if self._postgres is not None:
            store = {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": self._dsn}
        retention_days = _RETENTIONS_DAYS[0] if hurried else self._choice.choice(_RETENTIONS_DAYS)
        life = Life(
            Orders(
                program="backend",
                arguments=("serve",),
                variables={
                    "DATA_DIR": str(self._data / "backend"),
                    "PORT": "0",
                    "PCS_SIGN_ALG": "hmac",
                    "PCS_HMAC_KEY": HMAC_KEY,
                    "PCS_PARAMS_FILE": str(self._parameters),
                    "WAL_RETENTION_DAYS": retention_days,
                    **store,
                },
                cut_folder=self._cut_folder,
                segment_bytes=self._choice.choice(_SEGMENTS_BYTES),
                interval_s=0.05 if hurried else 0.3,
                gated=gated,
                mutant=self._mutant,
            )
        )
        await life.start()
        return life
