"""An outbox, a courier over it and a clock that only sleeping advances, for tests of delivery over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pcs_agent.deliver import BatchSize, Courier, Dispatcher, Sender, Settlement
from pcs_agent.deliver.courier import FLIGHTS_MAX
from pcs_agent.deliver.offload import ThreadOffload
from pcs_agent.deliver.transport import open_transport
from pcs_agent.outbox import Outbox, State, Verdict
from pcs_core.record import Record


class Delivered(NamedTuple):
    courier: Courier
    settlements: list[Settlement]

    def verdicts(self) -> dict[int, Verdict]:
        return {
            settled.record.epoch: settled.verdict
            for settled in self.settlements
            if settled.record is not None
        }


class Bench:
    """An outbox, a clock and a courier over them."""

    def __init__(self, outbox: Outbox, fake_time: Any, make_record: Callable[[int], Record]) -> None:
        self.outbox = outbox
        self.time = fake_time
        self.make_record = make_record

    def fill(self, count: int) -> list[Record]:
        records = [self.make_record(epoch) for epoch in range(count)]
        self.outbox.append(records)
        return records

    def courier(
        self,
        transport: Any,
        settlements: list[Settlement],
        resigner: Any = None,
        request_signer: Any = None,
        batch_records: int = 1,
        gzip_batches: bool = False,
        **changes: Any,
    ) -> Courier:
        settings = {"deadline_s": 900.0} | changes
        return Courier(
            self.outbox,
            Sender(
                Dispatcher(transport, self.time.clock, resigner, request_signer, gzip_batches=gzip_batches),
                BatchSize(batch_records, self.time.monotonic),
            ),
            offload=ThreadOffload(),
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            random=lambda: 0.5,
            settled=settlements.append,
            **settings,
        )

    async def deliver(self, endpoint: str, more: Iterable[Record] = (), **changes: Any) -> Delivered:
        """Deliver all that is pending, and then, once delivery has paused, `more`."""
        settlements: list[Settlement] = []
        async with open_transport(endpoint, connections_max=FLIGHTS_MAX) as transport:
            courier = self.courier(transport, settlements, **changes)
            for entry in self.outbox.entries(State.PENDING):
                courier.add(entry.seq)
            running = asyncio.create_task(courier.run())
            for record in more:
                while courier.paused is None:
                    await asyncio.sleep(0)
                courier.add(self.outbox.append([record])[0].seq)
            courier.finish()
            await running
        return Delivered(courier, settlements)
