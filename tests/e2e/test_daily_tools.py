"""`pcs-backend tap`, `top` and `records` as an operator uses them, beside a process that serves and without one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

import pcs_records
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Backend, Client, clean_environment, command, run
from servers import RedisServer

pytestmark = [pytest.mark.slow]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "canary-5be0cd19"


def record(epoch: int, *, shard_id: str = "shard-a", escalated: bool = False, **fields: object) -> bytes:
    if escalated:
        fields |= {"r": 1.5, "budget": 0.0}
    document = pcs_records.document(epoch=epoch, shard_id=shard_id, **fields)
    return pcs_records.body(pcs_records.sign(document | {"note": CANARY}, hmac_key=HMAC_KEY.encode()))


def pcs_id(body: bytes) -> str:
    return str(json.loads(body)["pcs_id"])


class Tap:
    """`pcs-backend tap`, listening."""

    def __init__(self, backend: Backend, *options: str) -> None:
        self.process = subprocess.Popen(
            [command("pcs-backend"), "tap", *options],
            env=clean_environment(**backend.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == b"listening; Ctrl-C ends it\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self) -> dict[str, object]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, list[bytes], bytes]:
        """Signal it; returns exit code, the lines it had left, and what it said."""
        self.process.send_signal(number)
        return self.finished()

    def finished(self) -> tuple[int, list[bytes], bytes]:
        output, said = self.process.communicate(timeout=WAIT_TIMEOUT_S)
        return self.process.returncode, output.splitlines(), said


def rows(*arguments: str, **variables: str) -> list[dict[str, object]]:
    """Return what `records --json` prints."""
    listed = run("pcs-backend", "records", *arguments, "--json", **variables)
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


class TestTap:
    async def test_shows_each_answer_by_its_filter_and_never_a_payload(
        self, tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
    ) -> None:
        with (
            Backend(tmp_path / "data", **hmac_variables, **store_variables) as backend,
            Tap(backend, "--json") as everything,
            Tap(backend, "--json", "--status", "202", "--status", "401") as some,
            Tap(backend, "--limit", "2") as plain,
        ):
            async with Client(backend) as client:
                accepted, escalated = record(1), record(2, escalated=True)
                traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": CANARY}
                answer = await client.submit(accepted, **traced)
                assert re.fullmatch("[0-9a-f]{20}", answer.headers["X-Request-ID"])
                await client.submit(escalated)
                await client.submit(accepted, traceparent=CANARY)
                await client.submit(pcs_records.body(pcs_records.document(epoch=3)))
                await client.submit(b"{")
            lines = [everything.line() for _ in range(5)]
            assert [line["status"] for line in lines] == [200, 202, 200, 401, 400]
            assert lines[0] == {
                "at_ms": lines[0]["at_ms"],
                "status": 200,
                "request_id": answer.headers["X-Request-ID"],
                "trace_id": TRACE,
                "tenant": "default",
                "regime": "sticky",
                "shard_id": "shard-a",
                "epoch": 1,
                "pcs_id": pcs_id(accepted),
            }
            assert lines[1]["reasons"] == ["compressibility_out_of_bounds", "budget_mismatch"]
            assert lines[2]["replayed"] is True
            assert (lines[3]["problem"], lines[3]["reasons"]) == ("bad-signature", ["no_key"])
            assert [some.line()["status"] for _ in range(2)] == [202, 401]
            code, shown, _ = plain.finished()
            assert code == 0
            assert re.fullmatch(
                rb"\d\d:\d\d:\d\d\.\d{3} 200 accepted    default sticky shard-a 1 [0-9a-f]{64}", shown[0]
            )
            assert shown[1].endswith(b"compressibility_out_of_bounds, budget_mismatch")
            assert some.end() == (0, [], b"")
            assert CANARY not in json.dumps(lines)
            began_s = time.monotonic()
            assert backend.stop() == 0
            assert time.monotonic() - began_s < 5, "a stop does not wait for who listens"
            assert everything.finished() == (1, [], b"pcs-backend: the service stopped\n")
        assert CANARY.encode() not in backend.output

    async def test_a_reader_that_stands_still_loses_lines_and_slows_nobody(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        """Its pipe, its socket and its queue are full; submits go on, and it is told what it missed."""
        with Backend(tmp_path / "data", **hmac_variables) as backend, Tap(backend, "--json") as slow:
            os.kill(slow.process.pid, signal.SIGSTOP)
            body = record(1)
            sent = 0

            async def send(client: Client) -> None:
                nonlocal sent
                for _ in range(1_000):
                    assert (await client.submit(body)).status == 200
                    sent += 1

            async with Client(backend) as client, asyncio.timeout(3 * WAIT_TIMEOUT_S):
                await asyncio.gather(*(send(client) for _ in range(8)))
            os.kill(slow.process.pid, signal.SIGCONT)
            got = lost = 0
            while got + lost < sent:
                line = slow.line()
                lost += int(line.get("lost", 0))
                got += "lost" not in line
            assert got + lost == sent
            assert lost > 0
            assert got > 1_000
            assert slow.end(signal.SIGTERM)[0] == 0
            assert backend.stop() == 0

    async def test_a_listener_that_vanished_gives_its_place_back(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        with Backend(tmp_path / "data", **hmac_variables) as backend:
            taps = [Tap(backend) for _ in range(8)]
            ninth = run("pcs-backend", "tap", **backend.variables)
            assert (ninth.returncode, ninth.stderr) == (
                1,
                b"pcs-backend: the service takes no further listener\n",
            )
            for tap in taps:
                with tap:
                    tap.process.kill()
            deadline_s = time.monotonic() + WAIT_TIMEOUT_S
            while (again := run("pcs-backend", "tap", "--seconds", "0.01", **backend.variables)).returncode:
                assert time.monotonic() < deadline_s, again.stderr
            assert backend.stop() == 0

    def test_without_a_service_it_says_so(self, tmp_path: Path) -> None:
        for name in ("tap", "top"):
            missing = run("pcs-backend", name, DATA_DIR=str(tmp_path / "missing"))
            assert missing.returncode == 2
            assert b"DATA_DIR: found a path that cannot be used" in missing.stderr
            idle = run("pcs-backend", name, DATA_DIR=str(tmp_path))
            assert (idle.returncode, idle.stdout) == (1, b"")
            assert b"the serving process does not answer on its administration socket" in idle.stderr


class TestTop:
    async def test_once_says_what_happened_between_two_looks(
        self, tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
    ) -> None:
        with Backend(tmp_path / "data", **hmac_variables, **store_variables) as backend:
            async with Client(backend) as client:
                sending = True

                async def send() -> int:
                    epoch = 0
                    while sending:
                        epoch += 1
                        assert (await client.submit(record(epoch, escalated=epoch % 2 == 0))).status < 300
                    return epoch

                load = asyncio.create_task(send())
                shown = await asyncio.to_thread(
                    run, "pcs-backend", "top", "--once", "--json", **backend.variables
                )
                screen = await asyncio.to_thread(run, "pcs-backend", "top", "--once", **backend.variables)
                sending = False
                sent = await load
            figures = json.loads(shown.stdout)
            assert (figures["ready"], figures["store_up"], figures["keys"]) == (True, True, 1)
            rates = figures["rates"]
            assert rates["submitted"] > 1
            assert (
                abs(rates["accepted"] + rates["escalated"] - rates["submitted"]) <= 2 / figures["interval_s"]
            )
            assert 0 < figures["totals"]["submitted"] <= sent
            assert 0 < figures["verify"]["p50"] <= figures["verify"]["p95"] <= figures["verify"]["p99"]
            assert figures["wal_sync"]["count"] > 0
            assert figures["wal_size_bytes"] > 28
            assert figures["escalated"].keys() == {"compressibility_out_of_bounds", "budget_mismatch"}
            text = screen.stdout.decode()
            assert text.startswith(f"ready   store {store_variables['DEDUP_BACKEND']} up")
            assert re.search(r"^verify +\d.* ms +\d.* ms +\d.* ms +\d+", text, re.MULTILINE)
            assert "\x1b" not in text, "colour is for terminals"
            assert backend.stop() == 0

    async def test_on_a_terminal_the_screen_is_refreshed_until_it_ends(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        with Backend(tmp_path / "data", **hmac_variables) as backend:
            terminal, inside = pty.openpty()
            process = subprocess.Popen(
                [command("pcs-backend"), "top", "--interval", "0.1"],
                env=clean_environment(TERM="xterm-256color", COLUMNS="100", LINES="30", **backend.variables),
                stdin=inside,
                stdout=inside,
                stderr=inside,
            )
            os.close(inside)
            shown = b""
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                while shown.count(b"WAL sync") < 3:
                    shown += await asyncio.to_thread(os.read, terminal, 65_536)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                while b"\x1b[?1049l" not in shown:
                    shown += await asyncio.to_thread(os.read, terminal, 65_536)
            assert process.wait(WAIT_TIMEOUT_S) == 0
            os.close(terminal)
            assert b"\x1b[32mready" in shown
            assert shown.startswith(b"\x1b[?1049h"), "it is a screen of its own, which is left in the end"
            assert backend.stop() == 0


def check(backend: Backend, request_id: str, escalated: str) -> None:
    """Check what is listed and known of five requests."""
    listed = rows(**backend.variables)
    assert [row["verdict"] for row in listed] == ["accepted", "refused", "refused", "escalated", "accepted"]
    assert [row["epoch"] for row in listed] == [1, None, 3, 2, 1]
    assert (listed[4]["request_id"], listed[4]["trace_id"]) == (request_id, TRACE)
    assert listed[2]["reasons"] == ["bad-signature"]
    assert CANARY not in json.dumps(listed)
    (found,) = rows(escalated, **backend.variables)
    assert (found["verdict"], found["status"], found["found_in"]) == ("escalated", 202, ["WAL", "store"])
    assert (found["shard_id"], found["epoch"], len(found["requests"])) == ("plant-7/b", 2, 1)


class TestRecords:
    async def test_lists_and_looks_up_beside_the_service_and_without_it(
        self, tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
    ) -> None:
        accepted, escalated = record(1), record(2, shard_id="plant-7/b", escalated=True)
        with Backend(tmp_path / "data", **hmac_variables, **store_variables) as backend:
            async with Client(backend) as client:
                first = await client.submit(accepted, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
                await client.submit(escalated)
                await client.submit(pcs_records.body(pcs_records.document(epoch=3)))
                await client.submit(b"{")
                await client.submit(accepted)

            check(backend, first.headers["X-Request-ID"], pcs_id(escalated))
            assert rows("--verdict", "escalated", **backend.variables)[0]["epoch"] == 2
            assert backend.stop() == 0
            check(backend, first.headers["X-Request-ID"], pcs_id(escalated))

    async def test_a_record_that_left_the_wal_is_only_in_the_store_and_it_says_so(
        self, tmp_path: Path, postgres_dsn: str, hmac_variables: dict[str, str]
    ) -> None:
        store = {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": postgres_dsn}
        body = record(1)
        with Backend(tmp_path / "one", **hmac_variables, **store) as one:
            async with Client(one) as client:
                assert (await client.submit(body)).status == 200
            with Backend(tmp_path / "other", **hmac_variables, **store) as other:
                assert rows(**other.variables) == []
                (found,) = rows(pcs_id(body), **other.variables)
                assert (found["found_in"], found["shard_id"], found["requests"]) == (["store"], None, [])
                plain = run("pcs-backend", "records", pcs_id(body), **other.variables).stdout.decode()
                assert "only the store has it" in plain
                listed = run("pcs-backend", "records", **other.variables)
                assert (listed.returncode, listed.stdout) == (0, b"nothing\n")
                assert b"is only in the store" in listed.stderr

    async def test_in_a_store_outage_the_wal_says_what_it_knows(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        with RedisServer() as redis:
            variables = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis.address, **hmac_variables}
            with Backend(tmp_path / "data", **variables) as backend:
                async with Client(backend) as client:
                    assert (await client.submit(record(1))).status == 200
                    redis.stop()
                    await client.wait_for_metric("flk_store_up", 0)
                    assert (await client.submit(record(2))).status == 503
                listed = run("pcs-backend", "records", "--json", **backend.variables)
                assert b"without the store" in listed.stderr
                shown = [json.loads(line) for line in listed.stdout.splitlines()]
                assert [(row["epoch"], row["verdict"]) for row in shown] == [(2, "open"), (1, "unknown")]

    async def test_tenants_are_kept_apart(self, tmp_path: Path) -> None:
        keys = tmp_path / "keys.toml"
        keys.write_text(
            "".join(
                f'[[keys]]\nid = "{tenant}"\nalgorithm = "hmac"\nsecret = "a key of {tenant}"\ntenant = "{tenant}"\n'
                for tenant in ("mills", "plants")
            )
        )
        bodies = {
            tenant: pcs_records.body(
                pcs_records.sign(pcs_records.document(epoch=1), hmac_key=f"a key of {tenant}".encode())
            )
            for tenant in ("mills", "plants")
        }
        variables = {"PCS_KEYS_FILE": str(keys), "MULTI_TENANT": "true"}
        with (
            Backend(tmp_path / "data", **variables) as backend,
            Tap(backend, "--json", "--tenant", "plants") as tap,
        ):
            async with Client(backend) as client:
                for body in bodies.values():
                    assert (await client.submit(body)).status == 200
            assert tap.line()["tenant"] == "plants"
            assert [row["tenant"] for row in rows(**backend.variables)] == ["plants", "mills"]
            assert [row["tenant"] for row in rows("--tenant", "mills", **backend.variables)] == ["mills"]
            name = pcs_id(bodies["mills"])
            assert [found["tenant"] for found in rows(name, **backend.variables)] == ["plants", "mills"]
            (found,) = rows(name, "--tenant", "mills", **backend.variables)
            assert (found["key_id"], len(found["requests"])) == ("mills", 1)

    async def test_filters(self, tmp_path: Path, hmac_variables: dict[str, str]) -> None:
        with Backend(tmp_path / "data", **hmac_variables) as backend:
            async with Client(backend) as client:
                for epoch in range(3):
                    assert (await client.submit(record(epoch, shard_id=f"shard-{epoch}"))).status == 200
            for options, epochs in (
                (("--shard", "shard-1", "--since", "1h"), [1]),
                (("--limit", "2"), [2, 1]),
                (("--until", "1h"), []),
                (("--verdict", "open", "--verdict", "refused"), []),
            ):
                assert [row["epoch"] for row in rows(*options, **backend.variables)] == epochs
            unknown = run("pcs-backend", "records", "0" * 64, **backend.variables)
            assert (unknown.returncode, unknown.stdout) == (1, b"")


async def test_agents_records_are_in_the_trace_that_their_id_names(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    events = tmp_path / "events.csv"
    events.write_text("x,y\n" + "".join(f"{index},{index * index}\n" for index in range(40)))
    with Backend(tmp_path / "data", LOG_LEVEL="debug", **hmac_variables) as backend:
        sent = run(
            "pcs-agent",
            *("run", str(events), "--shard-id", "shard-a", "--epoch", "0", "--window", "20", "--json"),
            ENDPOINT=f"{backend.url}/v1/pcs/submit",
            OUTBOX_DIR=str(tmp_path / "outbox"),
            **hmac_variables,
        )
        assert sent.returncode == 0, sent.stderr
        listed = rows(**backend.variables)
        assert len(listed) == 2
        for row in listed:
            assert row["trace_id"] == str(row["pcs_id"])[:32]
        assert backend.stop() == 0
    logged = [json.loads(line) for line in backend.output.splitlines() if b'"event": "submit"' in line]
    assert sorted((line["request_id"], line["trace_id"]) for line in logged) == sorted(
        (row["request_id"], row["trace_id"]) for row in listed
    )
