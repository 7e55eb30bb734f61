"""What a store is asked to keep, spelt without the product; only the texts of the statement and the script are its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import orjson

from pcs_backend.dedup.postgres_queries import PUT_FIRST as PUT_ROWS
from pcs_backend.dedup.redis_scripts import PUT_FIRST as PUT_VALUES

__all__ = ["PUT_ROWS", "PUT_VALUES", "columns", "read_answers", "script_arguments"]

_TENANT = "default"
_FINGERPRINT = "f" * 64
_PARAMS_VERSION = "0.1"
_KEY_ID = "hmac-0123456789abcdef"
_LIFE_MS = 14 * 86_400_000


def columns(answers: Sequence[tuple[str, bytes]]) -> list[list[object]]:
    """Return the arguments of the statement for ids and their answers."""
    count = len(answers)
    now_ms = int(time.time() * 1_000)
    return [
        [_TENANT] * count,
        [pcs_id for pcs_id, _ in answers],
        [200] * count,
        [body for _, body in answers],
        [_FINGERPRINT] * count,
        [_PARAMS_VERSION] * count,
        [_KEY_ID] * count,
        ["{}"] * count,
        [now_ms] * count,
        [now_ms + _LIFE_MS] * count,
    ]


def script_arguments(answers: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[str | int | bytes]]:
    """Return keys and arguments of the script."""
    now_ms = int(time.time() * 1_000)
    keys = [f"pcs:{{{_TENANT}}}:esc"]
    arguments: list[str | int | bytes] = [now_ms]
    for pcs_id, body in answers:
        keys.append(f"pcs:{{{_TENANT}}}:o:{pcs_id}")
        outcome = {
            "tenant": _TENANT,
            "pcs_id": pcs_id,
            "status": 200,
            "body": body,
            "fingerprint": _FINGERPRINT,
            "params_version": _PARAMS_VERSION,
            "key_id": _KEY_ID,
            "provenance": "{}",
            "stored_at_ms": now_ms,
            "expires_at_ms": now_ms + _LIFE_MS,
        }
        value = b"%d:%b" % (now_ms + _LIFE_MS, msgspec.msgpack.encode(outcome))
        arguments += [pcs_id, value, _LIFE_MS, ""]
    return keys, arguments


def read_answers(path: str, count: int) -> list[tuple[str, bytes]]:
    """Return ids and answers of so many records of a file, one a line."""
    answers = []
    with open(path, "rb") as file:
        for line, _ in zip(file, range(count), strict=False):
            record = orjson.loads(line)
            recomputed = {"D_hat": record["D_hat"], "regime": record["regime"], "budget": record["budget"]}
            answer = {
                "pcs_id": record["pcs_id"],
                "accepted": True,
                "escalated": False,
                "reasons": [],
                "recomputed": recomputed,
            }
            answers.append((record["pcs_id"], orjson.dumps(answer)))
    return answers
