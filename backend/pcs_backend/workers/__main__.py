"""A worker process: `python -m pcs_backend.workers SEAT`, started by the supervisor and by nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import msgspec
import uvloop

from pcs_backend.app import Service, real_ports
from pcs_backend.cli.root import exit_code_of
from pcs_backend.cli.serve import prepare_loop
from pcs_backend.config import Config, load_config
from pcs_backend.effects.logs import configure_logs
from pcs_backend.workers.seat import LISTENING, READY, RELOAD, SIGNALS, Seat, hear, say


def main(arguments: list[str]) -> int:
    """Serve until the supervisor says so, or is gone.

    Args:
        arguments: The seat, as JSON.

    Returns:
        The exit code.
    """
    seat = msgspec.json.decode(arguments[0], type=Seat)
    for handle in seat.handles:
        os.set_inheritable(handle, False)

    def serve() -> None:
        config = load_config(os.environ)
        configure_logs(config.settings.log_level, worker=seat.worker)
        uvloop.run(_serve(config, seat))

    return exit_code_of(serve)


async def _serve(config: Config, seat: Seat) -> None:
    stop = asyncio.Event()
    prepare_loop(stop, config)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=seat.control) as control:
        control.setblocking(False)

        def take_orders() -> None:
            orders = hear(control)
            if orders is not None and set(orders) <= set(RELOAD):
                if orders:
                    config.trust.reload()
                return
            loop.remove_reader(control)
            stop.set()

        loop.add_reader(control, take_orders)
        try:
            service = Service(config, real_ports(), seat)
            await service.run(stop, lambda _url: say(control, LISTENING), lambda: say(control, READY))
        finally:
            loop.remove_reader(control)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
