"""Keys, tenants and request signatures against a running service."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pcs_records
from pcs_core.keyring import message_hmac_key
from pcs_core.message_signature import Message, sign_message
from pcs_core.signing import HmacKey
from processes import Answer, Backend, Client, run

pytestmark = [pytest.mark.slow]

SUBMITS = 10_000
CLIENTS = 32
PATH = "/v1/pcs/submit"


def secret(name: str) -> str:
    return f"the secret of key {name}, long enough"


def key(name: str, **lines: str) -> str:
    given = {"id": f'"{name}"', "algorithm": '"hmac"', "secret": f'"{secret(name)}"'} | lines
    return "\n".join(["[[keys]]", *(f"{field} = {value}" for field, value in given.items())]) + "\n"


def record(name: str, epoch: int = 0, **overrides: object) -> bytes:
    document = pcs_records.document(epoch=epoch, **overrides)
    return pcs_records.body(pcs_records.sign(document, hmac_key=secret(name).encode()))


class KeyFile:
    """A key file that is replaced as an operator should: whole, by a rename."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, *tables: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(tables))
        new.chmod(0o600)
        new.rename(self.path)


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.toml")


class TestRotation:
    async def test_keys_turn_over_twice_under_load_without_a_wrong_401(
        self, tmp_path: Path, key_file: KeyFile
    ) -> None:
        """Ten thousand submits from a to b to c; each overlap is one reload, and the old key is refused afterwards."""
        key_file.replace(key("a"))
        signing = "a"
        statuses: Counter[int] = Counter()
        third = SUBMITS // 3

        with Backend(tmp_path / "data", PCS_KEYS_FILE=str(key_file.path)) as backend:
            async with Client(backend) as client:

                async def reload(keys: int, *tables: str) -> None:
                    key_file.replace(*tables)
                    backend.signal(signal.SIGHUP)
                    await client.wait_for_metric("flk_keys", keys)

                async def work(epochs: range) -> None:
                    for epoch in epochs:
                        statuses[(await client.submit(record(signing, epoch))).status] += 1

                load = [asyncio.create_task(work(range(start, SUBMITS, CLIENTS))) for start in range(CLIENTS)]

                async def until(submits: int) -> None:
                    while statuses.total() < submits:
                        await client.get("/health/live")

                await until(third)
                await reload(2, key("a"), key("b"))
                signing = "b"
                await until(2 * third)  # nothing signed with a is on its way any more
                await reload(3, key("a", not_after="2026-01-01T00:00:00Z"), key("b"), key("c"))
                signing = "c"
                await asyncio.gather(*load)
                await reload(1, key("c"))

                assert statuses == {200: SUBMITS}
                assert [(await client.submit(record(name, SUBMITS))).status for name in "abc"] == [
                    401,
                    401,
                    200,
                ]
                assert (await client.counters())[2:] == (SUBMITS + 1, 0)
            assert backend.stop() == 0

    async def test_a_bad_new_file_keeps_the_old_keys_and_says_so(
        self, tmp_path: Path, key_file: KeyFile
    ) -> None:
        key_file.replace(key("a"))
        with Backend(tmp_path / "data", PCS_KEYS_FILE=str(key_file.path)) as backend:
            async with Client(backend) as client:
                key_file.replace(key("a"), key("b", algorithm='"rsa"'))
                backend.signal(signal.SIGHUP)
                await client.wait_for_metric("flk_keys_stale", 1)
                assert (await client.submit(record("a"))).status == 200
                assert (await client.submit(record("b", 1))).status == 401
                key_file.replace(key("a"), key("b"))  # by itself, without a signal
                await client.wait_for_metric("flk_keys_stale", 0)
                assert (await client.submit(record("b", 1))).status == 200
            assert backend.stop() == 0
        assert b"$.keys[1].algorithm: found a string of length 3; allowed: hmac or ed25519" in backend.output
        assert secret("a").encode() not in backend.output

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            ({"revoked": "true"}, "revoked"),
            ({"not_after": "2026-01-01T00:00:00Z"}, "expired"),
            ({"not_before": "2036-01-01T00:00:00Z"}, "not_yet_valid"),
            ({"shards": '["elsewhere/*"]'}, "shard"),
        ],
    )
    async def test_why_a_key_is_refused_is_in_metrics_and_logs_and_not_in_the_answer(
        self, tmp_path: Path, key_file: KeyFile, policy: dict[str, str], reason: str
    ) -> None:
        key_file.replace(key("a", **policy), key("b"))
        with Backend(tmp_path / "data", PCS_KEYS_FILE=str(key_file.path)) as backend:
            async with Client(backend) as client:
                refused = await client.submit(record("a"))
                unknown = await client.submit(record("nobody"))
                assert (refused.status, refused.body) == (401, unknown.body)
                metrics = await client.metrics()
            assert backend.stop() == 0
        assert metrics[f'flk_signature_refused_total{{reason="{reason}"}}'] == 1
        assert metrics['flk_signature_refused_total{reason="no_key"}'] == 1
        assert f'"reason": "{reason}"'.encode() in backend.output

    async def test_a_backlog_is_judged_by_the_keys_as_of_its_arrival(
        self, tmp_path: Path, key_file: KeyFile, postgres_server: object
    ) -> None:
        """A request that came while the store was down, and whose key expired since, gets its outcome."""
        key_file.replace(key("a"))
        unreachable = "postgresql://pcs@127.0.0.1:1/none"
        stored = {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": unreachable}
        keys = {"PCS_KEYS_FILE": str(key_file.path)}
        with Backend(tmp_path / "data", **keys, **stored) as backend:
            async with Client(backend) as client:
                assert (await client.submit(record("a"))).status == 503
            assert backend.stop() == 0
        expired = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        key_file.replace(key("a", not_after=expired))
        replayed = run("pcs-backend", "replay", "--json", DATA_DIR=str(tmp_path / "data"), **keys)
        assert json.loads(replayed.stdout)["accepted"] == 1


TENANTS = {"MULTI_TENANT": "true"}


class TestTenants:
    async def test_the_same_id_from_two_tenants_has_two_outcomes(
        self, tmp_path: Path, key_file: KeyFile, store_variables: dict[str, str]
    ) -> None:
        """L10: neither answer, replay header, conflict, list nor metric of one tenant tells of the other's record."""
        key_file.replace(key("a", tenant='"alpha"'), key("b", tenant='"beta"'))
        variables = TENANTS | store_variables | {"PCS_KEYS_FILE": str(key_file.path)}
        good, bad = {}, {"r": 1.5, "budget": 0.0}
        with Backend(tmp_path / "data", **variables) as backend:
            async with Client(backend) as client:
                first = await client.submit(record("a", **bad))
                other = await client.submit(record("b", **good))
                assert (first.status, other.status) == (202, 200)
                assert not first.replayed
                assert not other.replayed
                assert "PCS-Conflict" not in other.headers
                assert first.document["pcs_id"] == other.document["pcs_id"]
                for name, answer in (("a", first), ("b", other)):
                    again = await client.submit(record(name, **(bad if name == "a" else good)))
                    assert (again.status, again.body, again.replayed) == (answer.status, answer.body, True)
                metrics = await client.metrics()
            assert metrics['flk_tenant_escalated_total{tenant="alpha"}'] == 1
            assert metrics['flk_tenant_accepted_total{tenant="beta"}'] == 1
            assert metrics.get('flk_tenant_escalated_total{tenant="beta"}', 0) == 0
            assert metrics["flk_conflicts_total"] == 0

            def listed(tenant: str) -> list[str]:
                shown = run(
                    "pcs-backend", "escalations", "list", "--tenant", tenant, "--json", **backend.variables
                )
                assert shown.returncode == 0
                return [json.loads(line)["pcs_id"] for line in shown.stdout.splitlines()]

            pcs_id = first.document["pcs_id"]
            assert (listed("alpha"), listed("beta"), listed("default")) == ([pcs_id], [], [])
            stolen = run("pcs-backend", "escalations", "ack", "--tenant", "beta", pcs_id, **backend.variables)
            assert stolen.returncode == 1
            assert listed("alpha") == [pcs_id]
            assert backend.stop() == 0

    async def test_limits_are_counted_after_the_signature_and_for_each_tenant_alone(
        self, tmp_path: Path, key_file: KeyFile
    ) -> None:
        limits = "[tenants.alpha]\ndaily = 2\n[tenants.beta]\nrate = 1.0\n"
        key_file.replace(key("a", tenant='"alpha"'), key("b", tenant='"beta"'), limits)
        variables = TENANTS | {"PCS_KEYS_FILE": str(key_file.path)}
        with Backend(tmp_path / "data", **variables) as backend:
            async with Client(backend) as client:
                forged = [(await client.submit(record("stranger", epoch))).status for epoch in range(5)]
                assert forged == [401] * 5
                spent = [await client.submit(record("a", epoch)) for epoch in range(4)]
                assert [answer.status for answer in spent] == [200, 200, 429, 429]
                assert spent[2].document["type"] == "urn:pcs:problem:rate-limited"
                wait_s = int(spent[2].headers["Retry-After"])
                assert 1 <= wait_s <= 86_400
                assert spent[2].headers["RateLimit-Policy"] == '"tenant-day";q=2;w=86400'
                assert spent[2].headers["RateLimit"] == f'"tenant-day";r=0;t={wait_s}'
                assert (await client.submit(record("b"))).status == 200
                metrics = await client.metrics()
                assert metrics['flk_tenant_limited_total{tenant="alpha"}'] == 2
            assert backend.stop() == 0
        with backend.start():
            async with Client(backend) as client:
                assert (await client.metrics())["flk_open_requests"] == 0  # a 429 is not judged later
            assert backend.stop() == 0

    def test_tenants_in_the_file_need_multi_tenant(self, tmp_path: Path, key_file: KeyFile) -> None:
        key_file.replace(key("a", tenant='"alpha"'))
        ended = run("pcs-backend", "keys", "check", PCS_KEYS_FILE=str(key_file.path))
        assert ended.returncode == 2
        assert b"PCS_KEYS_FILE: $.keys[0].tenant: found a tenant while MULTI_TENANT is false" in ended.stderr


def signed_headers(backend: Backend, body: bytes, **changes: object) -> dict[str, str]:
    given = {
        "name": "a",
        "method": "POST",
        "path": PATH,
        "created_s": int(time.time()),
        "own": True,
    } | changes
    raw = secret(str(given["name"])).encode()
    message = Message(str(given["method"]), urlsplit(backend.url).netloc, str(given["path"]), body)
    signer = message_hmac_key(raw) if given["own"] else HmacKey(raw)
    return sign_message(message, signer, HmacKey(raw).key_id, int(str(given["created_s"])))


class TestRequestSignatures:
    async def test_what_was_changed_on_the_way_is_refused(self, tmp_path: Path, key_file: KeyFile) -> None:
        """A changed N_j, path, method or digest, a request past its age, and a signature by the record key."""
        key_file.replace(key("a"))
        variables = {"PCS_KEYS_FILE": str(key_file.path), "REQUIRE_MESSAGE_SIGNATURE": "true"}
        with Backend(tmp_path / "data", **variables) as backend:
            async with Client(backend) as client:

                async def submit(body: bytes, headers: dict[str, str]) -> Answer:
                    return await client.submit(body, **headers)

                body = record("a")
                changed = body.replace(b'"4": 5', b'"4": 6')
                assert changed != body
                cases = {
                    "message_missing": (body, {}),
                    "message_digest": (changed, signed_headers(backend, body)),
                    "message_age": (body, signed_headers(backend, body, created_s=int(time.time()) - 301)),
                }
                for reason, (sent, headers) in cases.items():
                    answer = await submit(sent, headers)
                    assert (reason, answer.status) == (reason, 401)
                    assert answer.document["field"] == "Signature"
                forged = [
                    signed_headers(backend, body, path="/v1/pcs/other"),
                    signed_headers(backend, body, method="PUT"),
                    signed_headers(backend, body, own=False),
                    signed_headers(backend, changed)
                    | {"content-digest": signed_headers(backend, body)["content-digest"]},
                ]
                for headers in forged:
                    assert (await submit(body, headers)).status == 401
                metrics = await client.metrics()
                for reason in cases:
                    assert metrics[f'flk_signature_refused_total{{reason="{reason}"}}'] == 1
                assert metrics['flk_signature_refused_total{reason="message_false"}'] == len(forged)
                good = await submit(body, signed_headers(backend, body))
                assert (good.status, good.replayed) == (200, False)
                again = await submit(body, signed_headers(backend, body))
                assert (again.status, again.body, again.replayed) == (200, good.body, True)
            assert backend.stop() == 0

    async def test_without_the_demand_an_unsigned_request_is_taken_and_a_false_one_is_not(
        self, tmp_path: Path, key_file: KeyFile
    ) -> None:
        key_file.replace(key("a"))
        with Backend(tmp_path / "data", PCS_KEYS_FILE=str(key_file.path)) as backend:
            async with Client(backend) as client:
                assert (await client.submit(record("a"))).status == 200
                body = record("a", 1)
                assert (await client.submit(body, **signed_headers(backend, body, own=False))).status == 401
                assert (await client.submit(body, **signed_headers(backend, body))).status == 200
            assert backend.stop() == 0


class TestCommands:
    def test_list_shows_everything_but_secrets(self, key_file: KeyFile) -> None:
        key_file.replace(
            key("a", tenant='"alpha"', shards='["x/*", "y"]', not_before="2026-01-01T00:00:00Z"),
            key("b", revoked="true"),
        )
        variables = TENANTS | {"PCS_KEYS_FILE": str(key_file.path)}
        shown = run("pcs-backend", "keys", "list", "--json", **variables)
        rows = [json.loads(line) for line in shown.stdout.splitlines()]
        assert rows[0] == {
            "id": "a",
            "fingerprint": HmacKey(secret("a").encode()).key_id,
            "tenant": "alpha",
            "use": "records",
            "state": "valid",
            "effective_from": "2026-01-01T00:00:00Z",
            "not_after": "never",
            "signs_requests": "yes",
            "shards": ["x/*", "y"],
        }
        assert (rows[1]["state"], rows[1]["effective_from"]) == ("revoked", "always")
        table = run("pcs-backend", "keys", "list", **variables)
        assert table.stdout.decode().splitlines()[0].split()[:3] == ["id", "fingerprint", "tenant"]
        assert b"the secret" not in shown.stdout + table.stdout + shown.stderr + table.stderr
        checked = run("pcs-backend", "keys", "check", **variables)
        assert (checked.returncode, checked.stdout) == (0, b"2 keys can be used; 1 count now\n")

    def test_a_file_that_others_can_read_is_warned_of(self, tmp_path: Path, key_file: KeyFile) -> None:
        key_file.replace(key("a"))
        key_file.path.chmod(0o644)
        ended = run(
            "pcs-backend", "check-config", PCS_KEYS_FILE=str(key_file.path), DATA_DIR=str(tmp_path / "data")
        )
        assert ended.returncode == 0
        assert b"PCS_KEYS_FILE can be read by others: its mode should be 0600" in ended.stderr
