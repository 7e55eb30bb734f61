"""F2, F3 and F4, `python -m bench.floors.loop NAME COUNT FILE`: one floor in a bare loop. Prints JSON.

F2 COUNT BODIES   the irreducible work of so many records, bodies from a file, one a line
F3 COUNT          so many Ed25519 signatures verified
F4 COUNT FILE     so many appends of 4 KiB to a new file, each synced
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import time
from collections.abc import Callable

import orjson
from nacl.signing import SigningKey

PAYLOAD_BYTES = 243
"""Of a canonical payload."""

APPEND_BYTES = 4_096

_KEY = b"an-hmac-key-of-the-benchmark"


def check_record(body: bytes, payload: bytes) -> bytes:
    """Do what no verifier of a record gets by without: returns the answer."""
    record = orjson.loads(body)
    digest = hashlib.sha256(payload).digest()
    hmac.digest(_KEY, digest, "sha256")
    name = f"{record['merkle_root']}|{record['epoch']}|{record['shard_id']}"
    pcs_id = hashlib.sha256(name.encode("ascii")).hexdigest()
    return orjson.dumps(
        {
            "pcs_id": pcs_id,
            "accepted": True,
            "escalated": False,
            "reasons": [],
            "recomputed": {"D_hat": record["D_hat"], "regime": record["regime"], "budget": record["budget"]},
        }
    )


def run_checks(count: int, path: str) -> dict[str, float]:
    """F2."""
    with open(path, "rb") as file:
        bodies = [line for line, _ in zip(file, range(count), strict=False)]
    payload = bytes(PAYLOAD_BYTES)
    for body in bodies[: count // 10]:
        check_record(body, payload)

    def work() -> None:
        for body in bodies:
            check_record(body, payload)

    return _timed(len(bodies), work)


def run_signatures(count: int) -> dict[str, float]:
    """F3."""
    key = SigningKey(bytes(range(32)))
    digests = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(64)]
    signed = [(digest, key.sign(digest).signature) for digest in digests]
    verify = key.verify_key.verify

    def work() -> None:
        for number in range(count):
            verify(*signed[number % 64])

    return _timed(count, work)


def run_syncs(count: int, path: str) -> dict[str, float]:
    """F4."""
    data = bytes(APPEND_BYTES)
    took = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began_s = time.perf_counter()
            os.write(file, data)
            os.fdatasync(file)
            took.append(time.perf_counter() - began_s)
    finally:
        os.close(file)
        os.unlink(path)
    took.sort()
    quantiles = {name: took[int(count * share)] * 1e3 for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {"rate": count / sum(took), "cpu_us": 0.0, **quantiles}


def _timed(count: int, work: Callable[[], None]) -> dict[str, float]:
    began_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return {
        "rate": count / (time.perf_counter() - began_s),
        "cpu_us": (time.process_time() - cpu_s) / count * 1e6,
    }


if __name__ == "__main__":
    floors = {"F2": run_checks, "F3": run_signatures, "F4": run_syncs}
    found = floors[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])  # type: ignore[operator]  # each takes what it needs
    sys.stdout.buffer.write(orjson.dumps(found))
