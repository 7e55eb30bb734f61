"""The description of the service, held against the running service by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import orjson
import pytest
import schemathesis
from schemathesis.engine import Status, events, from_schema
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

import pcs_records
from pcs_backend.http.openapi import build_openapi
from processes import Backend, Client

EXAMPLES_MAX = 40


def described(have_login: bool = False) -> bytes:
    """Return what a service with its defaults serves, or with logins."""
    return build_openapi(
        size_bytes_max=262_144,
        batch_bytes_max=16_777_216,
        metrics_need_login=have_login,
        labels_have_login=have_login,
    )


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("openapi") / "data") as backend:
        yield backend


@pytest.mark.parametrize("have_login", [False, True])
def test_description_is_valid_openapi_3_1(have_login: bool) -> None:
    document = orjson.loads(described(have_login))
    assert document["openapi"] == "3.1.0"
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []
    for schema in document["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid(schema) is True
    assert ("401" in document["paths"]["/metrics"]["get"]["responses"]) is have_login


def test_records_of_the_contract_fit_the_schema_and_malformed_ones_do_not() -> None:
    document = orjson.loads(described(False))
    record = jsonschema_rs.Draft202012Validator(document["components"]["schemas"]["Record"])
    assert record.is_valid(pcs_records.document(later_field="ignored")) is True
    for change in (
        {"pcs_id": "A" * 64},
        {"schema": "other"},
        {"version": "1.0"},
        {"shard_id": "a|b"},
        {"epoch": 2**53},
        {"attempt": 0},
        {"seed": -1},
        {"scales": [2]},
        {"D_hat": "1"},
        {"budget": 1.1},
        {"regime": "odd"},
        {"v_star": [0.0] * 4097},
        {"ft": {}},
    ):
        assert record.is_valid(pcs_records.document(**change)) is False
    for added in ({"methods": {"r": {"name": "X"}}}, {"methods": 7}, {"direction_proof": {}}):
        assert record.is_valid(pcs_records.document(**added)) is True, "0.1 ignores them"
        assert record.is_valid(pcs_records.document(version="0.2", **added)) is False
    methods = {"r": {"name": "pq-lz", "codes": 256, "seeded": True, "codebook": "ab"}}
    proof = {"suite": "ECVRF-EDWARDS25519-SHA512-TAI", "proof": "A" * 107 + "="}
    additions = {"methods": methods, "direction_proof": proof}
    assert record.is_valid(pcs_records.document(version="0.2", **additions)) is True
    for name in pcs_records.document():
        assert record.is_valid({k: v for k, v in pcs_records.document().items() if k != name}) is False


@pytest.mark.slow
async def test_served_description_is_the_one_that_was_built(backend: Backend) -> None:
    async with Client(backend) as client:
        answer = await client.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == described(False)


def violations(
    document: dict, url: str, *, examples_max: int, login: tuple[str, str] | None = None
) -> list[str]:
    """Return what schemathesis finds the service does against a description, over all of its operations.

    Of its checks `positive_data_acceptance` is left out: JSON Schema cannot say that scales increase, that the keys of
    N_j are the scales, or that pcs_id is the hash of its parts, so most data that fit the schema are refused with 400.
    """
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url, basic_auth=login)
    schema.config.generation.update(max_examples=examples_max, deterministic=True, database="none")
    schema.config.checks.update(excluded_check_names=["positive_data_acceptance"])
    refusals = schema.config.checks.negative_data_rejection
    refusals.expected_statuses = [
        *refusals.expected_statuses,
        "413",
    ]  # more members of an array than are allowed
    tested: set[str] = set()
    found: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            recorder = event.recorder
            tested.update(recorder.label for nodes in recorder.checks.values() if nodes)
            found += [
                f"{recorder.label} {node.name} {node.failure_info and node.failure_info.failure!r}"
                for nodes in recorder.checks.values()
                for node in nodes
                if node.status is not Status.SUCCESS
            ]
    operations = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    assert tested == operations
    return found


@pytest.mark.slow
@pytest.mark.parametrize("login", [None, ("prometheus", "a-password")], ids=["open", "logins"])
def test_running_service_keeps_to_its_description(tmp_path: Path, login: tuple[str, str] | None) -> None:
    """L28: what is described exists, and nothing is answered that is not described."""
    variables = (
        {}
        if login is None
        else dict(zip(("METRICS_USER", "METRICS_PASS"), login, strict=True))
        | dict(zip(("CALIBRATION_USER", "CALIBRATION_PASS"), login, strict=True))
    )
    document = orjson.loads(described(login is not None))
    with Backend(tmp_path / "data", **variables) as backend:
        assert violations(document, backend.url, examples_max=EXAMPLES_MAX, login=login) == []


@pytest.mark.slow
def test_wrong_description_is_found_out(backend: Backend) -> None:
    """The check above has teeth."""
    document = orjson.loads(described(False))
    del document["paths"]["/v1/pcs/submit"]["post"]["responses"]["400"]
    document["components"]["schemas"]["Problem"]["properties"]["status"] = {"type": "string"}
    found = violations(document, backend.url, examples_max=5)
    assert {each.split()[2] for each in found} >= {"status_code_conformance", "response_schema_conformance"}
