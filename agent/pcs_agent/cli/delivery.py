"""What `run` and `outbox flush` share: reporting while records are delivered, and ending at a signal.

SIGINT and SIGTERM end the delivery in good order: what became of each record is printed, and what is not acknowledged
stays in the outbox. Both go through the event loop: Python's own handler would wait for the loop to wake by itself,
which it never does while input is silent. A second signal ends the process at once. Where the input is one that is
followed, the first signal only ends that, and the others count from there.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from pcs_agent.cli.output import DeliveryProgress, OutcomePrinter
from pcs_agent.pipeline import Outcome
from pcs_agent.streams import print_text

# Any: what a coroutine yields and is sent is asyncio's own.
Delivery = Coroutine[Any, Any, int]


def run_delivery(
    start: Callable[[Callable[[Outcome], None], DeliveryProgress, asyncio.Event], Delivery],
    *,
    as_json: bool,
    by_shard: bool = False,
    end_input: Callable[[], None] | None = None,
) -> NoReturn:
    """Run a delivery to its end or to a signal, print what became of each record, and exit.

    Args:
        start: Begins the delivery, which reports through its first argument, ends when the last is set, and returns
            how many records are undelivered.
        as_json: JSON lines instead of a table.
        by_shard: Whether the table has a column of shards.
        end_input: Ends the input, where that has no end of its own: the first signal does that alone, so that what was
            read is delivered, and the signals after it do what they do otherwise.
    """
    printer = OutcomePrinter(as_json=as_json, by_shard=by_shard)
    stop = asyncio.Event()
    try:
        with DeliveryProgress() as progress:

            def report(outcome: Outcome) -> None:
                progress.advance()
                printer.report(outcome)

            undelivered = asyncio.run(_until_signal(start(report, progress, stop), stop, end_input))
    except asyncio.CancelledError:  # the second signal
        raise click.Abort from None
    finally:  # also after a fault: what was delivered before it is told
        printer.close()
    if not (printer.total or as_json or stop.is_set()):
        print_text("nothing to deliver")
    raise click.exceptions.Exit(1 if undelivered or printer.failed or stop.is_set() else 0)


async def _until_signal(delivery: Delivery, stop: asyncio.Event, end_input: Callable[[], None] | None) -> int:
    task = asyncio.ensure_future(delivery)
    loop = asyncio.get_running_loop()

    def end() -> None:
        nonlocal end_input
        if end_input is not None:
            end_input()
            end_input = None
            return
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    return await task
