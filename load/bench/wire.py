"""What clients put on the wire and how they check what comes back; what a process costs meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import orjson
import psutil

from bench.job import QUANTILES, Job

HOST = "127.0.0.1"


def requests_of(
    job: Job, bodies: Sequence[bytes], ids: Sequence[bytes]
) -> tuple[list[bytes], list[list[bytes]]]:
    """Return whole requests, and the ids that each one holds."""
    kind = b"application/x-ndjson" if job.batch else b"application/json"
    head = b"POST %b HTTP/1.1\r\nHost: %b:%d\r\nContent-Type: %b\r\nContent-Length: " % (
        job.path.encode(),
        HOST.encode(),
        job.ports[0],
        kind,
    )
    size = job.batch or 1
    requests, groups = [], []
    for at in range(0, len(bodies), size):
        body = b"\n".join(bodies[at : at + size])
        requests.append(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        groups.append(list(ids[at : at + size]))
    return requests, groups


def family(pids: Sequence[int]) -> list[int]:
    """Return processes and their children. Asked once: it takes milliseconds."""
    children = {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)}
    return sorted(children.union(pids))


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time of processes, all their threads. The number of such a clock: see clock_getcpuclockid(3)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def check_answer(
    data: bytes, ids: Sequence[bytes], lines: list[bytes], wrong: Counter[str], *, batch: bool
) -> int:
    """Compare an answer with what was sent; returns how many records have an outcome."""
    status, body = data[9:12], data[data.find(b"\r\n\r\n") + 4 :]
    if not batch:
        entries = [(status, body)]
    elif status != b"200":
        wrong[f"status {status.decode()}"] += len(ids)
        return 0
    else:
        entries = [_entry(line) for line in body.splitlines()]
    if len(entries) != len(ids):
        wrong["another number of entries"] += len(ids)
        return 0
    good = 0
    for (each_status, each_body), pcs_id in zip(entries, ids, strict=True):
        if each_status not in {b"200", b"202"}:
            wrong[f"status {each_status.decode()}"] += 1
        elif orjson.loads(each_body)["pcs_id"].encode() != pcs_id:
            wrong["the outcome of another record"] += 1
        else:
            good += 1
            lines.append(b"%b %b %b\n" % (pcs_id, each_status, each_body))
    return good


def _entry(line: bytes) -> tuple[bytes, bytes]:
    """Return status and body of one entry of a batch's answer; the body's bytes as they stand there."""
    at = line.find(b'"body":')
    return str(orjson.loads(line)["status"]).encode(), line[at + 7 : -1]


def quantiles_ms(seconds: list[float]) -> list[float]:
    """Return `QUANTILES` of times, in milliseconds; zeros of none."""
    if not seconds:
        return [0.0] * len(QUANTILES)
    seconds.sort()
    return [seconds[min(len(seconds) - 1, int(len(seconds) * share))] * 1e3 for share in QUANTILES]
