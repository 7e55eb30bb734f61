"""Labels and `pcs-backend calibrate` against a running service: who may label, what is durable, from label to set."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pcs_records
import raw_http
from pcs_backend.http.labels import LABEL_REQUESTS_MAX
from pcs_core.keyring import message_hmac_key
from pcs_core.message_signature import Message, sign_message
from pcs_core.signing import HmacKey
from processes import HMAC_KEY, Answer, Backend, Client, run
from servers import RedisServer

pytestmark = [pytest.mark.slow]

PATH = "/v1/calibration/labels"
LOGGING = {"ENABLE_CALIBRATION_LOGGING": "true"}
LOGIN = {"CALIBRATION_USER": "ops", "CALIBRATION_PASS": "a-password"}
WEIGHTED = {"CALIBRATION_SCORE": "weighted"}  # of which no label goes into a fit
WAIT_S = 20.0
NDJSON = "application/x-ndjson"


def document(epoch: int, **overrides: object) -> dict:
    return pcs_records.document(epoch=epoch, **overrides)


def said(epoch: int, label: str = "benign", **more: object) -> dict[str, object]:
    return {"pcs_id": document(epoch)["pcs_id"], "label": label, "by": "anna", **more}


async def post(client: Client, *lines: dict[str, object], **headers: str) -> Answer:
    """Send one label as JSON, or several as lines."""
    form = "application/json" if len(lines) == 1 else NDJSON
    data = "\n".join(json.dumps(line) for line in lines).encode()
    return await client.request("POST", PATH, data=data, headers={"Content-Type": form} | headers)


def signature(backend: Backend, body: bytes, key: str = HMAC_KEY, path: str = PATH) -> dict[str, str]:
    raw = key.encode()
    message = Message("POST", urlsplit(backend.url).netloc, path, body)
    return sign_message(message, message_hmac_key(raw), HmacKey(raw).key_id, int(time.time()))


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"ops:{password}".encode()).decode()


def exported(backend: Backend) -> list[dict]:
    done = run("pcs-backend", "calibrate", "export", **backend.variables)
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]


@asynccontextmanager
async def serving(tmp_path: Path, **variables: str) -> AsyncIterator[tuple[Backend, Client]]:
    """A service with one accepted record (1) and one escalated (2); ends in good order."""
    with Backend(tmp_path / "data", **LOGGING, **variables) as backend:
        async with Client(backend) as client:
            for epoch, wanted in ((1, 200), (2, 202)):
                record = document(epoch, **({"regime": "non_sticky"} if wanted == 202 else {}))
                signed = pcs_records.sign(record, hmac_key=HMAC_KEY.encode())
                assert (await client.submit(pcs_records.body(signed))).status == wanted
            yield backend, client
        assert backend.stop() == 0


class TestWhoMayLabel:
    async def test_signed_request_may_and_one_that_is_not_or_was_changed_may_not(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        async with serving(tmp_path, **hmac_variables) as (backend, client):
            body = json.dumps(said(1)).encode()
            forged = signature(backend, body, key="the key of somebody else, long enough")
            elsewhere = signature(backend, body, path="/v1/pcs/submit")
            refused = [
                await post(client, said(1)),
                await post(client, said(1), **forged),
                await post(client, said(1), **elsewhere),
                await post(client, said(1, "bad"), **signature(backend, body)),
                await post(client, said(1), Authorization=basic("a-password")),
            ]
            assert [each.status for each in refused] == [401] * 5
            assert exported(backend) == []
            assert (await post(client, said(1), **signature(backend, body))).status == 200
            (kept,) = exported(backend)
            assert (kept["by"], kept["label"]) == (
                f"anna (key {HmacKey(HMAC_KEY.encode()).key_id})",
                "benign",
            )

    async def test_login_may_beside_signatures(self, tmp_path: Path, hmac_variables: dict[str, str]) -> None:
        async with serving(tmp_path, **hmac_variables, **LOGIN) as (backend, client):
            wrong = basic("another-password")
            refused = await post(client, said(1), Authorization=wrong)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="labels"')
            assert (await post(client, said(1))).status == 401
            login = basic("a-password")
            assert (await post(client, said(1), Authorization=login)).status == 200
            assert [each["by"] for each in exported(backend)] == ["anna (login)"]
        assert b"a-password" not in backend.output

    async def test_with_required_signatures_a_login_alone_is_not_enough(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        demanding = {**hmac_variables, **LOGIN, "REQUIRE_MESSAGE_SIGNATURE": "true"}
        with Backend(tmp_path / "data", **demanding) as backend:
            async with Client(backend) as client:
                login = basic("a-password")
                assert (await post(client, said(1), Authorization=login)).status == 401

    async def test_unsigned_service_off_loopback_takes_none_without_the_login(self, tmp_path: Path) -> None:
        open_to_all = {"HOST": "0.0.0.0", "ALLOW_UNSIGNED": "true", "METRICS_PUBLIC": "true"}
        for variables, status in (({}, 401), (LOGIN, 404)):
            with Backend(tmp_path / "data", **open_to_all, **variables) as backend:
                async with Client(backend) as client:
                    login = basic("a-password")
                    assert (await post(client, said(1), Authorization=login)).status == status

    async def test_login_set_on_loopback_shuts_out_who_has_none(self, tmp_path: Path) -> None:
        async with serving(tmp_path, **LOGIN) as (_, client):
            assert (await post(client, said(1))).status == 401


class TestAnswers:
    async def test_slow_senders_keep_nobody_else_from_labelling(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as (backend, client):
            slow = [
                await raw_http.connect(int(backend.url.rpartition(":")[2])) for _ in range(LABEL_REQUESTS_MAX)
            ]
            for each in slow:
                await each.send(raw_http.post(1_000, PATH) + b"{")
            await client.wait_for_metric("flk_connections", LABEL_REQUESTS_MAX + 1)
            assert (await post(client, said(1))).status == 200
            for each in slow:
                await each.close()

    async def test_each_line_has_its_own_answer_and_what_is_no_label_at_all_is_refused(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as (backend, client):
            answer = await post(
                client, said(1), said(2, "bad", picked_by_verdict=False), said(3), said(1, "odd")
            )
            assert (answer.status, answer.headers["Content-Type"]) == (200, NDJSON)
            lines = [json.loads(line) for line in answer.body.splitlines()]
            assert [each["status"] for each in lines] == [200, 200, 404, 400]
            assert [each["picked_by_verdict"] for each in (line["body"] for line in lines[:2])] == [
                True,
                False,
            ]
            assert lines[2]["body"]["type"] == "urn:pcs:problem:not-found"

            alone = await post(client, said(3))
            assert (alone.status, alone.headers["Content-Type"]) == (404, "application/problem+json")
            too_many = await post(client, *[said(1)] * 1_001)
            typeless = await client.request("POST", PATH, data=b"{}", headers={"Content-Type": "text/plain"})
            large = await client.request(
                "POST", PATH, data=io.BytesIO(b" " * ((1 << 20) + 1)), headers={"Content-Type": NDJSON}
            )
            empty = await client.request("POST", PATH, data=b"\n\n", headers={"Content-Type": NDJSON})
            assert [each.status for each in (too_many, typeless, large, empty)] == [413, 415, 413, 400]
            assert (await client.get(PATH)).status == 405
            assert {each["pcs_id"] for each in exported(backend)} == {said(1)["pcs_id"], said(2)["pcs_id"]}

    async def test_outcome_of_a_service_that_kept_no_signals_is_409(self, tmp_path: Path) -> None:
        with Backend(tmp_path / "data") as backend:
            async with Client(backend) as client:
                assert (await client.submit(pcs_records.body(document(1)))).status == 200
                refused = await post(client, said(1))
        assert (refused.status, refused.document["type"]) == (409, "urn:pcs:problem:no-signals")
        assert "ENABLE_CALIBRATION_LOGGING" in str(refused.document["detail"])


async def test_labels_that_were_answered_outlive_a_killed_service(
    tmp_path: Path, store_variables: dict[str, str]
) -> None:
    variables = {**store_variables, **LOGGING}
    with Backend(tmp_path / "data", **variables) as backend:
        async with Client(backend) as client:
            for epoch in range(20):
                await client.submit(pcs_records.body(document(epoch)))
            answer = await post(
                client, *(said(epoch, "bad" if epoch % 4 else "benign") for epoch in range(20))
            )
            assert answer.body.count(b'"status":200') == 20
            before = exported(backend)
        backend.kill()
        assert len(before) == 20
        assert exported(backend) == before  # the command opens the store itself
    with Backend(tmp_path / "data", **variables) as backend:
        assert exported(backend) == before
        assert backend.stop() == 0


async def test_store_that_is_down_is_503_and_nothing_is_taken(
    tmp_path: Path, redis_server: RedisServer, redis_address: str
) -> None:
    variables = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    async with serving(tmp_path, **variables) as (backend, client):
        redis_server.stop()
        down = await post(client, said(1))
        assert (down.status, down.headers["Retry-After"]) == (503, "1")
        redis_server.start()
        await client.wait_for_metric("flk_store_up", 1)
        assert exported(backend) == []


class TestCalibrate:
    async def test_from_the_first_label_to_a_set_in_force_and_back(self, tmp_path: Path) -> None:
        """240 records, half of them odd; without any set the fixed checks decide, then the set, then nothing again."""
        count = 120
        data = tmp_path / "data"
        with Backend(data, **WEIGHTED, ENABLE_CONFORMAL_GATE="true") as backend:

            def calibrate(*arguments: str) -> tuple[int, str]:
                done = run("pcs-backend", "calibrate", *arguments, **backend.variables)
                return done.returncode, (done.stdout + done.stderr).decode()

            async with Client(backend) as client:
                answers = []
                for epoch in range(2 * count):
                    coh_star = 0.9 if epoch < count else 0.2
                    answers.append(
                        await client.submit(pcs_records.body(document(epoch, coh_star=coh_star, r=0.5)))
                    )
                assert {answer.status for answer in answers} == {200}
                assert answers[0].document["calibration"]["missing"] == ["benign", "bad"]
                code, text = calibrate("promote")
                assert (code, "no class has 100 scores" in text) == (1, True)
                labels = [
                    said(epoch, "benign" if epoch < count else "bad", picked_by_verdict=False)
                    for epoch in range(2 * count)
                ]
                assert (await post(client, *labels)).body.count(b'"status":200') == 2 * count

                code, text = calibrate("promote", "--dry-run")
                assert (code, "nothing was changed" in text) == (0, True)
                assert calibrate("history") == (0, "nothing\n")
                code, text = calibrate("promote", "--by", "anna", "--note", "first set")
                assert (code, "version 1 is in force for tenant default" in text) == (0, True)

                async def decided(epoch: int, version: int) -> dict:
                    """Submit odd records until one is judged by a version."""
                    deadline = time.monotonic() + WAIT_S
                    while time.monotonic() < deadline:
                        answer = await client.submit(pcs_records.body(document(epoch, coh_star=0.1, r=0.5)))
                        block = answer.document["calibration"]
                        if ((block["bad"] or {}).get("version", 0)) == version:
                            return answer.document
                        epoch += 1
                    raise AssertionError(f"version {version} does not judge")

                odd = await decided(1_000, 1)
                assert (odd["decision"], odd["reasons"]) == ("REJECT", ["score_rejected"])
                assert (odd["calibration"]["bad"]["n"], odd["calibration"]["benign"]["n"]) == (count, count)

                code, text = calibrate("rollback")
                assert (code, "--to 0 goes back to none" in text) == (1, True)
                assert calibrate("rollback", "--to", "0")[0] == 0
                assert (await decided(2_000, 0))["decision"] == "ACCEPT"
                assert calibrate("rollback", "--to", "1")[0] == 0
                assert (await decided(3_000, 3))["decision"] == "REJECT"
                history = [json.loads(line) for line in calibrate("history", "--json")[1].splitlines()]
                assert [(each["version"], each["benign"], each["bad"]) for each in history] == [
                    (3, count, count),
                    (2, 0, 0),
                    (1, count, count),
                ]
                assert history[0]["digest"] == history[2]["digest"]
                assert (history[2]["by"], history[2]["note"]) == ("anna", "first set")
            assert backend.stop() == 0

    async def test_store_that_backends_share_is_asked_directly(
        self, tmp_path: Path, store_variables: dict[str, str]
    ) -> None:
        environ = {"DATA_DIR": str(tmp_path / "data"), **WEIGHTED, **store_variables}
        (tmp_path / "data" / "wal").mkdir(parents=True)
        now_ms = int(time.time() * 1_000)
        lines = [whole(number, "bad" if number % 2 else "benign", now_ms) for number in range(200)]
        run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
        promoted = run("pcs-backend", "calibrate", "promote", **environ)
        assert (promoted.returncode, promoted.stderr) == (0, b"")
        history = json.loads(run("pcs-backend", "calibrate", "history", "--json", **environ).stdout)
        assert (history["version"], history["benign"], history["bad"]) == (1, 100, 100)

    async def test_set_that_would_lose_a_guarantee_is_not_promoted_unless_asked(self, tmp_path: Path) -> None:
        environ = {"DATA_DIR": str(tmp_path / "data"), **WEIGHTED, "CALIBRATION_WINDOW_H": "1"}
        now_ms = int(time.time() * 1_000)

        def imported(count: int, label: str, first: int) -> None:
            lines = [whole(first + number, label, now_ms) for number in range(count)]
            done = run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
            assert (done.returncode, done.stdout) == (0, f"{count} taken, 0 refused\n".encode())

        (tmp_path / "data" / "wal").mkdir(parents=True)
        imported(100, "benign", 0)
        imported(100, "bad", 500)
        assert run("pcs-backend", "calibrate", "promote", "--global", **environ).returncode == 0
        imported(1, "benign", 500)  # somebody knows better
        lost = run("pcs-backend", "calibrate", "promote", "--global", **environ)
        assert lost.returncode == 1
        assert b"the set in force has a threshold from bad records" in lost.stderr
        asked = run("pcs-backend", "calibrate", "promote", "--global", "--allow-missing", **environ)
        assert (asked.returncode, b"version 2 is in force for all tenants" in asked.stdout) == (0, True)

    async def test_known_shift_is_told_by_a_density_ratio_and_shows_in_answers(self, tmp_path: Path) -> None:
        environ = {"DATA_DIR": str(tmp_path / "data"), **WEIGHTED}
        (tmp_path / "data" / "wal").mkdir(parents=True)
        now_ms = int(time.time() * 1_000)
        lines = [whole(number, "bad" if number % 2 else "benign", now_ms) for number in range(400)]
        run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
        promote = ("pcs-backend", "calibrate", "promote", "--density-ratio")
        file = tmp_path / "ratio.json"
        file.write_text('{"signal": "D_hat", "edges": [2.5], "ratios": [0.5, 2]')
        refused = run(*promote, str(file), **environ)
        assert refused.returncode == 2
        assert b"density ratio: found 54 bytes that are no JSON" in refused.stderr
        file.write_text('{"signal": "D_hat", "edges": [2.5], "ratios": [0.5, 2]}')
        tried = run(*promote, str(file), "--dry-run", **environ).stdout.decode()
        rows = [line.split() for line in tried.splitlines()]
        assert ["D_hat", "weight", "benign", "bad"] in rows
        thresholds = {row[3]: row[4:] for row in rows if row[1:2] == ["to"]}
        assert set(thresholds) == {"0.5", "2"}
        assert "weighed by D_hat" in tried
        assert run(*promote, "-", stdin=file.read_bytes(), **environ).returncode == 0
        history = json.loads(run("pcs-backend", "calibrate", "history", "--json", **environ).stdout)
        assert (history["version"], history["weighed_by"]) == (1, "D_hat")
        with Backend(tmp_path / "data", **WEIGHTED, ENABLE_CONFORMAL_GATE="true") as backend:
            async with Client(backend) as client:
                answer = await client.submit(pcs_records.body(document(1)))
                block = answer.document["calibration"]["benign"]
                piece = f"{block['weight']:g}"
                assert f"{block['threshold']:g}" == thresholds[piece][0]
                told = run("pcs-backend", "recompute", answer.document["pcs_id"], "--json", **environ)
                assert json.loads(told.stdout)["finding"] == "same"
            assert backend.stop() == 0

    async def test_report_tells_what_picking_by_verdict_does(self, tmp_path: Path) -> None:
        environ = {"DATA_DIR": str(tmp_path / "data"), **WEIGHTED}
        (tmp_path / "data" / "wal").mkdir(parents=True)
        now_ms = int(time.time() * 1_000)
        lines = [whole(number, "benign", now_ms, picked=number >= 150) for number in range(200)]
        run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
        report = run("pcs-backend", "calibrate", "report", "--json", **environ)
        found = json.loads(report.stdout)
        assert (found["built"]["benign"]["scores"], found["built"]["benign"]["picked"]) == (150, 50)
        assert found["with_picked"]["benign"]["scores"] == 200
        assert found["with_picked"]["benign"]["threshold"] > found["built"]["benign"]["threshold"]
        text = run("pcs-backend", "calibrate", "report", **environ).stdout.decode()
        assert "with records picked by their verdicts: 200 benign" in text

    @pytest.mark.parametrize("text", ["x" * 257, "\x1b[31m"], ids=["long", "escape"])
    @pytest.mark.parametrize("option", ["--by", "--note"])
    def test_what_would_not_stand_in_a_list_is_refused(self, tmp_path: Path, option: str, text: str) -> None:
        refused = run("pcs-backend", "calibrate", "promote", option, text, DATA_DIR=str(tmp_path))
        assert refused.returncode == 2
        found = f"{option}: found {len(text)} characters; allowed: up to 256 that can be printed"
        assert found.encode() in refused.stderr

    async def test_thousand_labels_by_the_longest_names_go_to_a_serving_process(self, tmp_path: Path) -> None:
        longest = json.dumps("\N{GRINNING FACE}" * 512)
        lines = [whole(number, "bad", 1).replace('"an old system"', longest) for number in range(1_000)]
        async with serving(tmp_path) as (backend, _):
            environ = {"DATA_DIR": str(backend.data_dir)}
            done = run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
            assert (done.returncode, done.stdout) == (0, b"1000 taken, 0 refused\n")
            assert len(exported(backend)) == 1_000

    async def test_lines_that_are_not_taken_are_named_and_the_others_are(self, tmp_path: Path) -> None:
        environ = {"DATA_DIR": str(tmp_path / "data"), **WEIGHTED}
        (tmp_path / "data" / "wal").mkdir(parents=True)
        lines = [whole(1, "bad", 1), "{", "", json.dumps(said(1)), whole(2, "odd", 1)]
        done = run("pcs-backend", "calibrate", "import", "-", stdin="\n".join(lines).encode(), **environ)
        assert (done.returncode, done.stdout) == (1, b"1 taken, 3 refused\n")
        numbers = [line.partition(b":")[0] for line in done.stderr.splitlines()]
        assert numbers == [b"line 2", b"line 4", b"line 5"]
        out = run("pcs-backend", "calibrate", "export", **environ).stdout
        assert [json.loads(line)["label"] for line in out.splitlines()] == ["bad"]


def whole(number: int, label: str, labelled_at_ms: int, *, picked: bool = False) -> str:
    """Return a line as an export writes it; of higher numbers the signals are odder."""
    return json.dumps(
        {
            "tenant": "default",
            "pcs_id": f"{number:064x}",
            "label": label,
            "by": "an old system",
            "signals": [3.0 - number / 400, 0.5, 0.5],
            "picked_by_verdict": picked,
            "status": 200,
            "sets": ["", ""],
            "stored_at_ms": 1,
            "labelled_at_ms": labelled_at_ms,
        }
    )
