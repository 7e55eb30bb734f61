"""The command `pcs-agent`, also as `python -m pcs_agent`: ends quietly at a Ctrl-C while it is still being imported.

Before NumPy is imported it sets, whatever the environment says, how many threads compute (`pcs_agent.threads`).
"""

from __future__ import annotations

import os
import signal

from pcs_agent.threads import ONE_THREAD

_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it."""
    os.environ.update(ONE_THREAD)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # An exception would pass through whatever module is being imported. Nothing is open yet.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        from pcs_agent.cli import main as command  # noqa: PLC0415

        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        from pcs_agent.cli import main as command  # noqa: PLC0415
    command()


if __name__ == "__main__":
    main()
