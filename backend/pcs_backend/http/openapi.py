"""The service described in OpenAPI 3.1, served at `/openapi.json` and tested against the running service."""

from __future__ import annotations

from typing import Any, get_args

import orjson

from pcs_backend import __version__
from pcs_backend.batch import BATCH_RECORDS_MAX
from pcs_backend.conformal.calibration import CLASS_SCORES_MIN, Label
from pcs_backend.conformal.labelling import BY_CHARACTERS_MAX, LABEL_LINES_MAX, LABELS_PATH
from pcs_backend.exchange import CONFLICT_HEADER, JSON_TYPE, NDJSON_TYPE, PROBLEM_TYPE, REPLAYED_HEADER
from pcs_backend.http.labels import LABELS_BYTES_MAX
from pcs_backend.problems import Problem
from pcs_backend.trace_context import REQUEST_ID_HEADER
from pcs_core import record as contract
from pcs_core.identity import EPOCH_MAX
from pcs_core.regime import Regime
from pcs_core.verify import Decision, Reason

_Json = dict[str, Any]  # a JSON document under construction

_HEX_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBER = {"type": "number"}
_REGIME = {"type": "string", "enum": list(get_args(Regime))}
_RETRY_AFTER = {
    "Retry-After": {"description": "Whole seconds to wait", "schema": {"type": "integer", "minimum": 1}}
}
_QUOTA = {
    "RateLimit-Policy": {
        "description": "The limit that was met, in records (draft-ietf-httpapi-ratelimit-headers-11)",
        "schema": {"type": "string", "pattern": '^"[a-z-]+";q=[0-9]+;w=[0-9]+$'},
    },
    "RateLimit": {
        "description": "What is left of it, and the seconds until there is more",
        "schema": {"type": "string", "pattern": '^"[a-z-]+";r=[0-9]+;t=[0-9]+$'},
    },
}
_REPLAY_HEADERS = {
    REPLAYED_HEADER: {"description": "The first outcome, again", "schema": {"const": "true"}},
    CONFLICT_HEADER: {
        "description": "The first record of this id had other contents",
        "schema": {"const": "true"},
    },
}
_REQUEST_ID = {
    REQUEST_ID_HEADER: {
        "description": "Names the request in the service's logs",
        "schema": {"type": "string"},
    }
}


def build_openapi(
    *, size_bytes_max: int, batch_bytes_max: int, metrics_need_login: bool, labels_have_login: bool
) -> bytes:
    """Return the description as JSON.

    Args:
        size_bytes_max: Largest record.
        batch_bytes_max: Largest body of a batch.
        metrics_need_login: Whether `/metrics` takes Basic Auth.
        labels_have_login: Whether labels may come with Basic Auth.
    """
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "PCS verification",
                "version": __version__,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": {
                "/v1/pcs/submit": {"post": _submit(size_bytes_max)},
                "/v1/pcs/batch": {"post": _batch(batch_bytes_max)},
                LABELS_PATH: {"post": _labels(have_login=labels_have_login)},
                "/health/live": {"get": _health("Whether the process runs", can_fail=False)},
                "/health/ready": {"get": _health("Whether requests may be sent here", can_fail=True)},
                "/health/startup": {"get": _health("Whether the start is over", can_fail=True)},
                "/metrics": {"get": _metrics(need_login=metrics_need_login)},
                "/openapi.json": {
                    "get": _operation("This description", {"200": _answer("OpenAPI", {}, JSON_TYPE)})
                },
            },
            "components": {
                "schemas": {
                    "Record": _record(),
                    "Outcome": _outcome(),
                    "Entry": _entry(),
                    "Label": _label(),
                    "LabelTaken": _label_taken(),
                    "Problem": _problem(),
                },
                "securitySchemes": {
                    name: {"type": "http", "scheme": "basic"} for name in ("metrics", "labels")
                },
            },
        }
    )


def _submit(size_bytes_max: int) -> _Json:
    outcome = {"$ref": "#/components/schemas/Outcome"}
    responses = {
        "200": _answer("Accepted", outcome, JSON_TYPE, _REPLAY_HEADERS),
        "202": _answer("Escalated", outcome, JSON_TYPE, _REPLAY_HEADERS),
        "400": _problem_answer("Malformed, or pcs_id is not the hash of its parts"),
        "401": _problem_answer("No valid key verifies the signature"),
        "413": _problem_answer(f"The body is larger than {size_bytes_max} bytes"),
        "415": _problem_answer("Another media type, or a content encoding"),
    }
    body = {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/Record"}}}
    return _intake("Submit one record", responses, body)


def _batch(size_bytes_max: int) -> _Json:
    records = {
        "type": "array",
        "minItems": 1,
        "maxItems": BATCH_RECORDS_MAX,
        # What is no record gets an entry of its own, and the others theirs.
        "items": {"anyOf": [{"$ref": "#/components/schemas/Record"}, {}]},
    }
    entries = {"type": "array", "items": {"$ref": "#/components/schemas/Entry"}}
    lines = {"type": "string", "description": "One a line"}
    forms = {JSON_TYPE: {"schema": entries}, NDJSON_TYPE: {"schema": lines}}
    responses = {
        "200": {"description": "An entry a record, in order and in the request's form", "headers": {}}
        | {"content": forms},
        "400": _problem_answer("No record, or no JSON array"),
        "401": _problem_answer("No valid key verifies the signature of the request"),
        "413": _problem_answer(f"More than {size_bytes_max} bytes, or than {BATCH_RECORDS_MAX} records"),
        "415": _problem_answer("Another media type or content encoding"),
    }
    body = {JSON_TYPE: {"schema": records}, NDJSON_TYPE: {"schema": lines}}
    return _intake(f"Submit up to {BATCH_RECORDS_MAX} records", responses, body)


def _labels(*, have_login: bool) -> _Json:
    label = {"$ref": "#/components/schemas/Label"}
    lines = {
        "type": "string",
        "description": "One label a line; answered by one entry a line, with status and body",
    }
    responses = {
        "200": {
            "description": "The label was taken, durably; of lines, what became of each",
            "headers": {},
            "content": {
                JSON_TYPE: {"schema": {"$ref": "#/components/schemas/LabelTaken"}},
                NDJSON_TYPE: {"schema": {"type": "string"}},
            },
        },
        "400": _problem_answer("Malformed"),
        "401": _problem_answer(
            "Neither signature, certificate nor login says who sends it, or not for that tenant"
        ),
        "404": _problem_answer("No outcome is stored for this pcs_id"),
        "408": _problem_answer("The body came too slowly"),
        "409": _problem_answer("The outcome was stored without signals"),
        "413": _problem_answer(f"More than {LABELS_BYTES_MAX} bytes, or than {LABEL_LINES_MAX} lines"),
        "415": _problem_answer("Another media type, or a content encoding"),
        "503": _problem_answer("Nothing is known to be taken; come back", _RETRY_AFTER),
    }
    content = {JSON_TYPE: {"schema": label}, NDJSON_TYPE: {"schema": lines}}
    members: _Json = {"requestBody": {"required": True, "content": content}}
    if have_login:  # a signature or a certificate does as well
        members["security"] = [{"labels": []}, {}]
    return _operation(f"Say what up to {LABEL_LINES_MAX} records were", responses, **members)


def _intake(summary: str, responses: _Json, content: _Json) -> _Json:
    """Return an operation that takes records, with the answers that all of those have."""
    responses |= {
        "408": _problem_answer("The body came too slowly"),
        "429": _problem_answer("More records than the rate allows", _RETRY_AFTER | _QUOTA),
        "503": _problem_answer("Nothing was accepted, or too much is under way; come back", _RETRY_AFTER),
    }
    for response in responses.values():
        response["headers"] = response["headers"] | _REQUEST_ID
    return _operation(summary, responses, requestBody={"required": True, "content": content})


def _health(summary: str, *, can_fail: bool) -> _Json:
    status = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    responses = {"200": _answer("Yes", status, JSON_TYPE)}
    if can_fail:
        responses["503"] = _problem_answer("No, and why", _RETRY_AFTER)
    return _operation(summary, responses)


def _metrics(*, need_login: bool) -> _Json:
    responses = {"200": _answer("Prometheus text format", {"type": "string"}, "text/plain")}
    if not need_login:
        return _operation("Metrics", responses)
    responses["401"] = _problem_answer("The login is missing or wrong")
    return _operation("Metrics", responses, security=[{"metrics": []}])


def _operation(summary: str, responses: _Json, **members: object) -> _Json:
    return {"summary": summary, "responses": responses, **members}


def _answer(description: str, schema: _Json, media_type: str, headers: _Json | None = None) -> _Json:
    return {"description": description, "headers": headers or {}, "content": {media_type: {"schema": schema}}}


def _problem_answer(description: str, headers: _Json | None = None) -> _Json:
    return _answer(description, {"$ref": "#/components/schemas/Problem"}, PROBLEM_TYPE, headers)


def _problem() -> _Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"enum": [f"urn:pcs:problem:{problem.code}" for problem in Problem]},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "field": text,
            "found": text,
            "allowed": text,
        },
    }


def _outcome() -> _Json:
    recomputed = {"D_hat": _NUMBER, "regime": _REGIME, "budget": _NUMBER}
    properties = {
        "pcs_id": _HEX_DIGEST,
        "accepted": {"type": "boolean"},
        "escalated": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"enum": list(get_args(Reason))}},
        "recomputed": {"type": "object", "required": list(recomputed), "properties": recomputed},
    }
    gated = {
        "decision": {"enum": list(get_args(Decision)), "description": "Only where the calibrated gate is on"},
        "calibration": _calibration(),
    }
    return {"type": "object", "required": list(properties), "properties": properties | gated}


def _calibration() -> _Json:
    side = {
        "scope": {"enum": ["tenant", "global"]},
        "version": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": CLASS_SCORES_MIN},
        "score": _NUMBER,
        "threshold": {"type": ["number", "null"], "description": "null: so few scores support none"},
    }
    properties: _Json = {
        "gate": {"enum": [*get_args(Decision), None]},
        "missing": {"type": "array", "items": {"enum": list(get_args(Label))}},
    }
    for label, level in (("benign", "alpha"), ("bad", "delta")):
        told = side | {level: _NUMBER}
        weighed = told | {
            "weight": _NUMBER | {"description": "Only where the set has a density ratio: that of the record"}
        }
        properties[label] = {"type": ["object", "null"], "required": list(told), "properties": weighed}
    return {
        "type": "object",
        "description": "What the decision followed from; only where the gate is on",
        "required": list(properties),
        "properties": properties,
    }


def _entry() -> _Json:
    properties = {
        "status": {"type": "integer", "description": "As a single submit would have been answered"},
        "replayed": {"type": "boolean"},
        "conflict": {"type": "boolean"},
        "body": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Outcome", "Problem")]},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _label() -> _Json:
    properties: _Json = {
        "pcs_id": _HEX_DIGEST,
        "label": {"enum": list(get_args(Label))},
        "by": {
            "type": "string",
            "minLength": 1,
            "maxLength": BY_CHARACTERS_MAX,
            "description": "Letters, digits, blanks and . _ : / @ + -",
        },
        "picked_by_verdict": {
            "type": ["boolean", "null"],
            "description": "Whether its verdict was the reason to look at the record; unsaid, it counts as if it was",
        },
        "tenant": {"type": ["string", "null"], "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"},
    }
    return {
        "type": "object",
        "required": ["pcs_id", "label", "by"],
        "properties": properties,
        "additionalProperties": False,
    }


def _label_taken() -> _Json:
    properties = {
        "pcs_id": _HEX_DIGEST,
        "tenant": {"type": "string"},
        "label": {"enum": list(get_args(Label))},
        "picked_by_verdict": {"type": "boolean"},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _record() -> _Json:
    fallbacks = {
        "type": "array",
        "maxItems": contract.FALLBACKS_MAX,
        "items": {"type": "string", "maxLength": contract.FALLBACK_CHARACTERS_MAX},
    }
    ft = {
        "outbox_seq": {"type": "integer", "minimum": 0},
        "degraded": {"type": "boolean"},
        "fallbacks": fallbacks,
        "clock_skew_ms": {"type": "integer"},
    }
    properties: _Json = {
        "pcs_id": _HEX_DIGEST,
        "schema": {"const": contract.SCHEMA},
        "version": {"type": "string", "pattern": "^0\\.[0-9]{1,9}$"},
        "shard_id": {"type": "string", "pattern": "^[A-Za-z0-9._:/@+-]{1,128}$"},
        "epoch": {"type": "integer", "minimum": 0, "maximum": EPOCH_MAX},
        "attempt": {"type": "integer", "minimum": 1},
        "sent_at": {"type": "string", "format": "date-time"},
        "seed": {"type": "integer", "minimum": 0, "maximum": contract.SEED_MAX},
        "scales": {
            "type": "array",
            "minItems": contract.SCALES_MIN,
            "maxItems": contract.SCALES_MAX,
            "items": {"type": "integer", "minimum": 1},
            "description": "Strictly increasing",
        },
        "N_j": {
            "type": "object",
            "description": "Keys are exactly the scales",
            "additionalProperties": {"type": "integer", "minimum": 1, "maximum": contract.COUNT_MAX},
        },
        "D_hat": _NUMBER,
        "coh_star": _NUMBER,
        "v_star": {"type": "array", "maxItems": contract.DIMENSIONS_MAX, "items": _NUMBER},
        "r": _NUMBER,
        "regime": _REGIME,
        "budget": {"type": "number", "minimum": 0, "maximum": 1},
        "merkle_root": _HEX_DIGEST,
        "sig": {"type": "string"},
        "ft": {"type": "object", "required": list(ft), "properties": ft},
    }
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "if": {"properties": {"version": {"const": contract.VERSION_FIRST}}},
        "else": {"properties": _additions()},
    }


def _additions() -> _Json:
    """Return the optional fields of 0.2, which 0.1 ignores."""
    characters, number_max = contract.METHOD_CHARACTERS_MAX, contract.METHOD_NUMBER_MAX
    word: _Json = {"type": "string", "pattern": f"^[a-z0-9_.-]{{1,{characters}}}$"}
    method: _Json = {
        "type": "object",
        "required": ["name"],
        "maxProperties": contract.METHOD_MEMBERS_MAX,
        "propertyNames": word,
        "properties": {"name": word},
        "additionalProperties": {
            "type": ["number", "boolean", "string"],
            "minimum": -number_max,
            "maximum": number_max,
            "maxLength": characters,
        },
    }
    return {
        "methods": {
            "type": ["object", "null"],
            "description": "How signals were computed: d_hat, coh_star, r to the method's name and parameters",
            "maxProperties": contract.METHODS_MAX,
            "propertyNames": word,
            "additionalProperties": method,
        },
        "direction_proof": {
            "type": ["object", "null"],
            "description": "That the seed follows from merkle_root, epoch and shard_id",
            "required": ["suite", "proof"],
            "properties": {
                "suite": {"const": contract.PROOF_SUITE},
                "proof": {"type": "string", "pattern": f"^{contract.PROOF_PATTERN}$"},
            },
        },
    }
