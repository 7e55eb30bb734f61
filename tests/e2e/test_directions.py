"""Verifiable directions, from the agent's key to the backend's verdict, by real processes."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pcs_records
from pcs_core.direction_proof import prove_directions
from pcs_core.vrf import VrfSecretKey
from processes import HMAC_KEY, Backend, Client, run

pytestmark = [pytest.mark.slow]

KEY, OTHER = VrfSecretKey(bytes(range(32))), VrfSecretKey(bytes(32))
LINES = "x,y\n" + "".join(f"{number % 7},{number * number % 17}\n" for number in range(60))
SIGNING = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
INVALID, MISMATCH, MISSING = (
    ["direction_proof_invalid"],
    ["direction_seed_mismatch"],
    ["direction_proof_missing"],
)


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


PUBLIC = {"PCS_VRF_PUB_B64": encode(KEY.public.public_bytes)}


def proven(key: VrfSecretKey = KEY, **overrides: Any) -> dict[str, Any]:
    """Return a document whose directions are proved with the key; not signed."""
    document = pcs_records.document(version="0.2", **overrides)
    seed, proof = prove_directions(key, document["merkle_root"], document["epoch"], document["shard_id"])
    return document | {"seed": seed, "direction_proof": msgspec.to_builtins(proof)}


def signed(document: dict[str, Any]) -> bytes:
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


def for_another_root(**overrides: Any) -> dict[str, Any]:
    """Return a document with the proof and seed of one over other events, under a pcs_id of its own."""
    other = proven(**overrides)
    taken = {name: other[name] for name in ("seed", "direction_proof")}
    return pcs_records.document(version="0.2", merkle_root="ab" * 32, **overrides) | taken


def cases() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return documents, and the reasons they are escalated for."""
    good = proven(epoch=4)
    return {
        "its own proof": (proven(epoch=0), []),
        "a foreign proof": (proven(OTHER, epoch=1), INVALID),
        "a seed that is not its proof's": (proven(epoch=2) | {"seed": 42}, MISMATCH),
        "a proof for another root": (for_another_root(epoch=3), INVALID),
        "a proof of another epoch": (
            proven(epoch=5) | {name: good[name] for name in ("seed", "direction_proof")},
            INVALID,
        ),
        "no proof": (pcs_records.document(epoch=6), []),
        "a proof that 0.1 does not know": (proven(OTHER, epoch=7) | {"version": "0.1"}, []),
        "methods beside a proof": (proven(epoch=8, methods={"r": {"name": "pq-lz"}}), []),
    }


def answers_of(reasons: list[str]) -> tuple[int, bool, list[str]]:
    return 202 if reasons else 200, bool(reasons), reasons


def found(status: int, document: Any) -> tuple[int, bool, list[str]]:
    return status, document["escalated"], document["reasons"]


async def test_each_fault_of_a_proof_is_escalated_with_its_reason(
    tmp_path: Path, store_variables: dict[str, str]
) -> None:
    expected = {name: answers_of(reasons) for name, (_, reasons) in cases().items()}
    with Backend(tmp_path / "data", **SIGNING, **PUBLIC, **store_variables) as backend:
        async with Client(backend) as client:
            answers = {name: await client.submit(signed(document)) for name, (document, _) in cases().items()}
            assert {name: found(each.status, each.document) for name, each in answers.items()} == expected
            again = {name: await client.submit(signed(document)) for name, (document, _) in cases().items()}
            assert {name: each.body for name, each in again.items()} == {
                name: each.body for name, each in answers.items()
            }
            metrics = await client.metrics()
            assert metrics['flk_escalated_reason_total{reason="direction_proof_invalid"}'] == 3
            assert metrics['flk_escalated_reason_total{reason="direction_seed_mismatch"}'] == 1
        assert backend.stop() == 0


async def test_a_batch_is_judged_as_its_records_are(tmp_path: Path) -> None:
    """Many records, read in bulk, some of them twice."""
    documents = [document for document, _ in cases().values()]
    others = [pcs_records.document(epoch=epoch, shard_id="others") for epoch in range(30)]
    lines = b"\n".join(signed(document) for document in [*documents, *others, *documents])
    expected = [answers_of(reasons) for _, reasons in cases().values()]
    with Backend(tmp_path / "data", **SIGNING, **PUBLIC) as backend:
        async with Client(backend) as client:
            answer = await client.request(
                "POST", "/v1/pcs/batch", data=lines, headers={"Content-Type": "application/x-ndjson"}
            )
        entries = [json.loads(line) for line in answer.body.splitlines()]
        assert [found(each["status"], each["body"]) for each in entries] == [
            *expected,
            *[answers_of([])] * 30,
            *expected,
        ]
        assert backend.stop() == 0


async def test_a_missing_proof_is_escalated_where_one_is_required(tmp_path: Path) -> None:
    expected = {name: answers_of(reasons) for name, (_, reasons) in cases().items()} | {
        "no proof": answers_of(MISSING),
        "a proof that 0.1 does not know": answers_of(MISSING),
    }
    with Backend(tmp_path / "data", **SIGNING, **PUBLIC, REQUIRE_DIRECTION_PROOF="true") as backend:
        async with Client(backend) as client:
            answers = {name: await client.submit(signed(document)) for name, (document, _) in cases().items()}
        assert {name: found(each.status, each.document) for name, each in answers.items()} == expected
        assert backend.stop() == 0


async def test_without_keys_a_proof_is_checked_in_structure_alone(tmp_path: Path) -> None:
    malformed = proven() | {"direction_proof": {"suite": "another", "proof": "A" * 108}}
    with Backend(tmp_path / "data", **SIGNING) as backend:
        async with Client(backend) as client:
            answers = [await client.submit(signed(document)) for document, _ in cases().values()]
            assert [each.status for each in answers] == [200] * len(answers)
            refused = await client.submit(signed(malformed))
        assert refused.status == 400
        assert str(refused.document["detail"]).startswith(
            "$.direction_proof.suite: found a string of length 7;"
        )
        assert backend.stop() == 0


async def test_after_a_crash_the_keys_of_the_time_received_judge(tmp_path: Path) -> None:
    """What came while a key counted is judged with it, also when it was replaced before the judging."""
    keys = tmp_path / "keys.toml"

    def write(*direction_keys: tuple[VrfSecretKey, str]) -> None:
        tables = [f'[[keys]]\nid = "signing"\nalgorithm = "hmac"\nsecret = "{HMAC_KEY}"\n']
        for key, lines in direction_keys:
            public = encode(key.public.public_bytes)
            tables.append(f'[[direction_keys]]\nid = "{key.key_id}"\npublic_key = "{public}"\n{lines}\n')
        keys.write_text("".join(tables))
        keys.chmod(0o600)

    write((KEY, ""))
    backend = Backend(
        tmp_path / "data", PCS_KEYS_FILE=str(keys), DEDUP_BACKEND="redis", REDIS_ADDR="127.0.0.1:1"
    )
    before = [proven(epoch=0), proven(OTHER, epoch=1), proven(epoch=2) | {"seed": 1}]
    with backend.start():
        async with Client(backend) as client:
            assert [(await client.submit(signed(each))).status for each in before] == [503] * 3
        backend.kill()
    turn = datetime.now(UTC).isoformat()
    write((KEY, f"not_after = {turn}"), (OTHER, f"not_before = {turn}"))
    backend.variables |= {"DEDUP_BACKEND": "memory"}
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            again = [await client.submit(signed(each)) for each in before]
            after = [await client.submit(signed(each)) for each in (proven(epoch=9), proven(OTHER, epoch=10))]
        assert [each.replayed for each in [*again, *after]] == [True, True, True, False, False]
        assert [each.document["reasons"] for each in again] == [[], INVALID, MISMATCH]
        assert [each.document["reasons"] for each in after] == [INVALID, []]
        assert backend.stop() == 0


async def test_keys_of_the_file_count_for_their_tenant_and_shards(tmp_path: Path) -> None:
    tables = [
        f'[[keys]]\nid = "{name}"\nalgorithm = "hmac"\nsecret = "secret of {name}"\ntenant = "{name}"\n'
        for name in ("a", "b")
    ]
    public = encode(KEY.public.public_bytes)
    tables.append(
        f'[[direction_keys]]\nid = "d"\npublic_key = "{public}"\ntenant = "a"\nshards = ["plant-7/*"]\n'
    )
    path = tmp_path / "keys.toml"
    path.write_text("".join(tables))
    path.chmod(0o600)
    variables = {"PCS_KEYS_FILE": str(path), "MULTI_TENANT": "true"}
    with Backend(tmp_path / "data", **variables) as backend:
        async with Client(backend) as client:
            reasons = []
            for tenant, shard in (("a", "plant-7/x"), ("a", "plant-8/x"), ("b", "plant-7/x")):
                document = pcs_records.sign(proven(shard_id=shard), hmac_key=f"secret of {tenant}".encode())
                reasons.append((await client.submit(pcs_records.body(document))).document["reasons"])
        assert reasons == [[], INVALID, INVALID]
        assert backend.stop() == 0
    checked = run("pcs-backend", "keys", "check", **variables)
    assert checked.stdout.splitlines()[-1] == b"1 direction keys can be used; 1 count now"
    listed = run("pcs-backend", "keys", "list", "--json", **variables)
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(row["id"], row["use"], row["fingerprint"]) for row in rows][-1] == (
        "d",
        "directions",
        KEY.public.key_id,
    )


# The agent


def run_agent(
    folder: Path, backend: Backend, *options: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    stream = folder / "stream.csv"
    stream.write_text(LINES)
    arguments = ("run", str(stream), "--shard-id", "s", "--epoch", "0", "--window", "20", "--json", *options)
    given = {"ENDPOINT": f"{backend.url}/v1/pcs/submit", "OUTBOX_DIR": str(folder / "outbox")}
    return run("pcs-agent", *arguments, **SIGNING, **given, **variables)


def build(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    stream = folder / "stream.csv"
    stream.write_text(LINES)
    return run("pcs-agent", "build", str(stream), "--shard-id", "s", "--epoch", "3", *options, **variables)


def test_the_agents_proofs_hold_at_a_backend_that_demands_them(tmp_path: Path) -> None:
    made = run("pcs-agent", "keygen", "--alg", "vrf", "--out", str(tmp_path / "vrf.key"))
    settings = dict(
        line.split("=", 1) for line in made.stdout.decode().splitlines() if not line.startswith("#")
    )
    assert settings.keys() == {"PCS_VRF_PUB_B64"}
    assert (tmp_path / "vrf.key").stat().st_mode & 0o777 == 0o600
    with Backend(tmp_path / "data", **SIGNING, **settings, REQUIRE_DIRECTION_PROOF="true") as backend:
        done = run_agent(tmp_path, backend, "--vrf-key-file", str(tmp_path / "vrf.key"))
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["verdict"] for line in lines] == ["accepted"] * 3
        (tmp_path / "other").mkdir()
        without = run_agent(tmp_path / "other", backend, "--allow-missing")
        # The same events again: the same pcs_id, so the first outcome stands.
        assert [json.loads(line)["verdict"] for line in without.stdout.splitlines()] == ["accepted"] * 3
        foreign = build(tmp_path, PCS_VRF_SECRET_B64=encode(KEY.seed), **SIGNING)
        shown = run("pcs-agent", "verify", "-", "--json", stdin=foreign.stdout, **SIGNING, **settings)
        assert shown.returncode == 1
        failed = [each["check"] for each in json.loads(shown.stdout)["checks"] if each["ok"] is False]
        assert failed == INVALID
        assert backend.stop() == 0


def test_a_built_record_recomputes_from_its_own_seed(tmp_path: Path) -> None:
    """The seed of the record is the one that was used: with it and no key, the signals come out the same."""
    secret = {"PCS_VRF_SECRET_B64": encode(KEY.seed)}
    record = json.loads(build(tmp_path, **secret).stdout)
    seed, proof = prove_directions(KEY, record["merkle_root"], 3, "s")
    assert (record["version"], record["seed"]) == ("0.2", seed)
    assert record["direction_proof"] == msgspec.to_builtins(proof)
    plain = json.loads(build(tmp_path, "--seed", str(seed)).stdout)
    assert (plain["version"], "direction_proof" in plain) == (record["version"], False)  # r names its method
    for name in ("coh_star", "v_star", "N_j", "r", "pcs_id"):
        assert plain[name] == record[name]
    default = json.loads(build(tmp_path).stdout)
    assert default["v_star"] != record["v_star"]


def test_windows_without_directions_prove_their_seed_too(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("x,y\n1,2\n")
    options = ("build", str(tmp_path / "one.csv"), "--shard-id", "s", "--epoch", "0")
    built = run("pcs-agent", *options, PCS_VRF_SECRET_B64=encode(KEY.seed))
    shown = run("pcs-agent", "verify", "-", "--json", stdin=built.stdout, **PUBLIC)
    checks = {each["check"]: each["ok"] for each in json.loads(shown.stdout)["checks"]}
    assert (checks["direction_proof"], checks["degraded"]) == (True, False)


def test_verify_says_when_it_has_no_key_for_a_proof(tmp_path: Path) -> None:
    built = build(tmp_path, PCS_VRF_SECRET_B64=encode(KEY.seed))
    for variables, expected in (({}, None), (PUBLIC, True), ({"PCS_VRF_SECRET_B64": encode(KEY.seed)}, True)):
        shown = run("pcs-agent", "verify", "-", "--json", stdin=built.stdout, **variables)
        assert shown.returncode == 0
        assert [
            each["ok"] for each in json.loads(shown.stdout)["checks"] if each["check"] == "direction_proof"
        ] == [expected]


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (
            ("--seed", "7"),
            {"PCS_VRF_SECRET_B64": encode(KEY.seed)},
            b"--seed: found one beside PCS_VRF_SECRET_B64",
        ),
        (
            ("--seed", "42"),
            {"PCS_VRF_SECRET_B64": encode(KEY.seed)},
            b"--seed: found one beside PCS_VRF_SECRET_B64",
        ),
        (
            (),
            {"PCS_VRF_SECRET_B64": "short"},
            b"PCS_VRF_SECRET_B64: found a string of length 5 that is not base64",
        ),
        ((), {"PCS_VRF_SECRET_B64": encode(bytes(31))}, b"PCS_VRF_SECRET_B64: found 31 bytes"),
        ((), {"PCS_VRF_PUB_B64": encode(bytes(32))}, b"PCS_VRF_PUB_B64: found 32 bytes that are no point"),
        (("--vrf-key-file", "/nowhere"), {}, b"--vrf-key-file: /nowhere: No such file or directory"),
        (
            (),
            {
                "PCS_SIGN_ALG": "ed25519",
                "PCS_ED25519_SECRET_B64": encode(KEY.seed),
                "PCS_VRF_SECRET_B64": encode(KEY.seed),
            },
            b"PCS_VRF_SECRET_B64: found the key that signs records; allowed: a key of its own",
        ),
    ],
    ids=["seed", "the default seed", "no base64", "short", "small order", "no file", "signing key"],
)
def test_the_agent_refuses_keys_that_cannot_be_used(
    tmp_path: Path, options: tuple[str, ...], variables: dict[str, str], message: bytes
) -> None:
    ended = build(tmp_path, *options, **variables)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert encode(KEY.seed).encode() not in ended.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PCS_VRF_PUB_B64": "x"}, b"PCS_VRF_PUB_B64: found a string of length 1 that is not base64"),
        ({"PCS_VRF_PUB_B64": encode(bytes(32))}, b"PCS_VRF_PUB_B64: found 32 bytes that are no point"),
        ({"REQUIRE_DIRECTION_PROOF": "true"}, b"REQUIRE_DIRECTION_PROOF: found true without any key"),
        ({"REQUIRE_DIRECTION_PROOF": "1", **PUBLIC}, b"REQUIRE_DIRECTION_PROOF: found a string of length 1"),
        (
            {
                "PCS_VRF_PUB_B64": ",".join(
                    encode(VrfSecretKey(bytes([n]) * 32).public.public_bytes) for n in range(65)
                )
            },
            b"PCS_VRF_PUB_B64: found 65 keys",
        ),
    ],
    ids=["no base64", "small order", "no key", "no boolean", "too many"],
)
def test_the_backend_refuses_keys_that_cannot_be_used(
    tmp_path: Path, variables: dict[str, str], message: bytes
) -> None:
    ended = run("pcs-backend", "check-config", DATA_DIR=str(tmp_path), **SIGNING, **variables)
    assert ended.returncode == 2
    assert message in ended.stderr
