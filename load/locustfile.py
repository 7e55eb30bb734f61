"""Load for Locust: records of all regimes, some sent twice, some with a bad signature, one by one and in bursts.

    python -m bench.records records.ndjson --count 10000
    RECORDS=records.ndjson locust -f load/locustfile.py --headless --host http://127.0.0.1:8080 -u 20 -r 20 -t 60s

What becomes of a record follows from its line, as in k6.js: every 20th has its signature spoilt, every 5th is sent again
when it was answered. In the statistics `new`, `duplicate` and `bad-signature` stand apart; an answer that is not the one
that is due is a failure. The run ends when the records are used up, or with its time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import gevent
from locust import FastHttpUser, constant_throughput, task
from locust.exception import StopUser

SUBMIT_PATH = "/v1/pcs/submit"
BAD_SIGNATURE_EVERY = 20
DUPLICATE_EVERY = 5
BURST = 20
"""Requests of a burst, under way together."""


def _lines() -> Iterator[tuple[int, bytes]]:
    with open(os.environ["RECORDS"], "rb") as file:
        yield from enumerate(line.rstrip(b"\n") for line in file)


_records = _lines()


def spoilt(body: bytes) -> bytes:
    """Return the record with the first character of its signature changed."""
    head, mark, rest = body.partition(b'"sig":"')
    return head + mark + (b"B" if rest[:1] == b"A" else b"A") + rest[1:]


class Sender(FastHttpUser):
    """What both kinds of users do with one record."""

    abstract = True
    running = 0

    def on_start(self) -> None:
        """Count."""
        Sender.running += 1

    def on_stop(self) -> None:
        """End the run with the last user: each has finished what it was at."""
        Sender.running -= 1
        if not Sender.running:
            gevent.spawn(self.environment.runner.quit)

    def send_next(self) -> None:
        """Send the next record, as its line says."""
        number, body = next(_records, (0, b""))
        if not body:
            raise StopUser
        if number % BAD_SIGNATURE_EVERY == BAD_SIGNATURE_EVERY - 1:
            self._send("bad-signature", spoilt(body), 401)
        elif self._send("new", body, 200) and number % DUPLICATE_EVERY == DUPLICATE_EVERY - 1:
            self._send("duplicate", body, 200, replayed="true")

    def _send(self, name: str, body: bytes, status: int, replayed: str | None = None) -> bool:
        headers = {"Content-Type": "application/json"}
        with self.client.post(
            SUBMIT_PATH,
            data=body,  # type: ignore[arg-type]  # bytes go as they are, whatever its annotation says
            headers=headers,
            name=name,
            catch_response=True,
        ) as answer:
            if answer.status_code != status:
                answer.failure(f"status {answer.status_code}")
            elif answer.headers.get("Idempotent-Replayed") != replayed:
                answer.failure("a first answer" if replayed else "a replay")
            else:
                answer.success()
                return True
        return False


class Steady(Sender):
    """Sends at a steady pace."""

    weight = 9
    wait_time = constant_throughput(5)

    @task
    def submit(self) -> None:
        """Send one."""
        self.send_next()


class Bursting(Sender):
    """Sends many at once, then waits."""

    weight = 1
    wait_time = constant_throughput(0.5)

    @task
    def submit(self) -> None:
        """Send a burst."""
        burst = [gevent.spawn(self.send_next) for _ in range(BURST)]
        gevent.joinall(burst)
        if any(isinstance(each.exception, StopUser) for each in burst):
            raise StopUser
