"""What a store is asked to keep, spelt without the product.

Only the texts of the statement, of what its session is set to, and of the script are its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import asyncpg
import msgspec
import orjson

from pcs_backend.dedup.postgres_queries import PUT_FIRST as PUT_ROWS
from pcs_backend.dedup.postgres_queries import SESSION
from pcs_backend.dedup.redis_scripts import PUT_FIRST as PUT_VALUES

__all__ = ["PUT_ROWS", "PUT_VALUES", "columns", "connect", "read_answers", "script_arguments"]

_TENANT = "default"
_FINGERPRINT = "f" * 64
_PARAMS_VERSION = "0.1"
_KEY_ID = "hmac-0123456789abcdef"
_LIFE_MS = 14 * 86_400_000


class _Connection(asyncpg.Connection):
    """One that is not reset after each use: that would cost a round trip, and undo what is set."""

    def get_reset_query(self) -> str:
        """Return nothing."""
        return ""


async def connect(dsn: str, count: int) -> asyncpg.Pool[asyncpg.Record]:
    """Return so many connections, each set as the product's are."""

    async def prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.execute(SESSION)

    return await asyncpg.create_pool(
        dsn, min_size=count, max_size=count, connection_class=_Connection, init=prepare
    )


def columns(answers: Sequence[tuple[str, bytes]]) -> list[object]:
    """Return the arguments of the statement for ids and their answers."""
    now_ms = int(time.time() * 1_000)
    # What is the same in all rows comes once, beside an array that is empty.
    shared = (_TENANT, 200, _PARAMS_VERSION, _KEY_ID, "", now_ms, now_ms + _LIFE_MS)
    return [
        [pcs_id for pcs_id, _ in answers],
        [body for _, body in answers],
        [_FINGERPRINT] * len(answers),
        *(argument for value in shared for argument in _without_array(value)),
        now_ms,
    ]


def script_arguments(answers: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[str | int | bytes]]:
    """Return keys and arguments of the script."""
    now_ms = int(time.time() * 1_000)
    keys = [f"pcs:{{{_TENANT}}}:o:{pcs_id}" for pcs_id, _ in answers]
    arguments: list[str | int | bytes] = [now_ms, _LIFE_MS, len(answers)]
    for pcs_id, body in answers:
        outcome = {
            "tenant": _TENANT,
            "pcs_id": pcs_id,
            "status": 200,
            "body": body,
            "fingerprint": _FINGERPRINT,
            "params_version": _PARAMS_VERSION,
            "key_id": _KEY_ID,
            "provenance": "",
            "stored_at_ms": now_ms,
            "expires_at_ms": now_ms + _LIFE_MS,
        }
        arguments.append(b"%d:%b" % (now_ms + _LIFE_MS, msgspec.msgpack.encode(outcome)))
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


def _without_array(value: object) -> tuple[list[object], object]:
    return [], value
