"""An installed command on a disk that fails: `python faulty_command.py pcs-backend serve`, told by the environment.

FAULT_CALL             the system call that fails, such as fdatasync
FAULT_ERROR            the error, such as EIO
FAULT_PLACE            only where this function asks for it, such as log.Wal.commit
FAULT_SKIP             how often it succeeds before
FAULT_WHEN             only while this file is there
QUOTA_FOLDER           a folder that is as a disk …
QUOTA_BYTES            … of this size
TEST_SEGMENT_BYTES     segments smaller than the product's own
TEST_HOUSEKEEPING_S    housekeeping more often than the product's own
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import Counter
from collections.abc import Mapping

import pcs_backend.app
import pcs_backend.cli.serve
from disk_faults import DiskFaults, Fault, Site
from pcs_agent.cli import main as agent_main
from pcs_backend.cli import main as backend_main
from pcs_core.wal import Wal

_passed: Counter[Site] = Counter()


def decide(site: Site) -> Fault | None:
    """Return the fault of the environment, where and while it is asked for."""
    environ = os.environ
    if site.call != environ["FAULT_CALL"] or environ.get("FAULT_PLACE", site.place) != site.place:
        return None
    if "FAULT_WHEN" in environ and not os.path.exists(environ["FAULT_WHEN"]):
        return None
    _passed[site] += 1
    if _passed[site] <= int(environ.get("FAULT_SKIP", "0")):
        return None
    return Fault(site, getattr(errno, environ["FAULT_ERROR"]))


def used_bytes(folder: str) -> int:
    """Return the bytes of all files below a folder."""
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    sizes = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(os.stat(path).st_size)
    return sum(sizes)


def decide_by_quota(site: Site) -> Fault | None:
    """Refuse writes when the folder is full."""
    if not site.call.startswith("write") or free_by_quota("") > 0:
        return None
    return Fault(site, errno.ENOSPC)


def free_by_quota(_: str) -> int:
    """Return what is left of the quota."""
    return max(0, int(os.environ["QUOTA_BYTES"]) - used_bytes(os.environ["QUOTA_FOLDER"]))


def shrink(environ: Mapping[str, str]) -> None:
    """Make segments and waits small."""
    if "TEST_SEGMENT_BYTES" in environ:
        Wal.__init__.__kwdefaults__["segment_bytes"] = int(environ["TEST_SEGMENT_BYTES"])
    if "TEST_HOUSEKEEPING_S" in environ:
        pcs_backend.app.HOUSEKEEPING_INTERVAL_S = float(environ["TEST_HOUSEKEEPING_S"])


def main() -> None:
    name, *arguments = sys.argv[1:]
    sys.argv = [name, *arguments]
    shrink(os.environ)
    faults = DiskFaults()
    if "FAULT_CALL" in os.environ:
        faults.decide = decide
    if "QUOTA_BYTES" in os.environ:
        faults.decide = decide_by_quota
        ports = pcs_backend.app.real_ports()._replace(free_bytes=free_by_quota)
        pcs_backend.cli.serve.real_ports = lambda: ports
    with faults:
        {"pcs-agent": agent_main, "pcs-backend": backend_main}[name]()


if __name__ == "__main__":
    main()
