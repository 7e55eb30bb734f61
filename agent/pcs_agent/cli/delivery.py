"""What `run` and `outbox flush` share: reporting while records are delivered, and ending at a signal.

SIGINT and SIGTERM end the delivery where it stands; what is not acknowledged stays in the outbox. Both go through the
event loop: Python's own handler would wait for the loop to wake by itself, which it never does while input is silent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import click

from pcs_agent.cli.output import DeliveryProgress, OutcomePrinter
from pcs_agent.pipeline import Outcome

# Any: what a coroutine yields and is sent is asyncio's own.
Delivery = Coroutine[Any, Any, int]


def run_delivery(
    start: Callable[[Callable[[Outcome], None], DeliveryProgress], Delivery], *, as_json: bool
) -> None:
    """Run a delivery to its end or to a signal, print what became of each record, and exit.

    Args:
        start: Begins the delivery, which reports through its first argument and returns how many records are undelivered.
        as_json: JSON lines instead of a table.
    """
    printer = OutcomePrinter(as_json=as_json)
    try:
        with DeliveryProgress() as progress:

            def report(outcome: Outcome) -> None:
                progress.advance()
                printer.report(outcome)

            undelivered = asyncio.run(_until_signal(start(report, progress)))
    except asyncio.CancelledError:
        raise click.Abort from None
    finally:  # also after a fault: what was delivered before it is told
        printer.close()
    click.get_current_context().exit(1 if undelivered or printer.failed else 0)


async def _until_signal(delivery: Delivery) -> int:
    task = asyncio.ensure_future(delivery)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task
