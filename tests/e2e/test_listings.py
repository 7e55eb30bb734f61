"""The queue as an operator works through it: `pcs-backend escalations` and `conflicts` on a terminal and in a pipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, Backend, Client, run

pytestmark = [pytest.mark.slow]


def escalated(epoch: int) -> dict[str, object]:
    return pcs_records.sign(pcs_records.document(epoch=epoch, r=1.5, budget=0.0), hmac_key=HMAC_KEY.encode())


async def test_queue_is_listed_acknowledged_and_empty(
    tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
) -> None:
    documents = [escalated(epoch) for epoch in range(3)]
    ids = [str(document["pcs_id"]) for document in documents]
    with Backend(tmp_path / "data", **hmac_variables, **store_variables) as backend:
        async with Client(backend) as client:
            for document in documents:
                assert (await client.submit(pcs_records.body(document))).status == 202

        narrow = run("pcs-backend", "escalations", "list", COLUMNS="40", **backend.variables)
        heading, *lines = narrow.stdout.decode().splitlines()
        assert heading.split() == ["pcs_id", "stored_at", "reasons"]
        assert [line.split()[0] for line in lines] == ids
        assert lines[0].endswith("compressibility_out_of_bounds, budget_mismatch")

        listed = run("pcs-backend", "escalations", "list", "--json", **backend.variables)
        rows = [json.loads(line) for line in listed.stdout.splitlines()]
        assert [row["pcs_id"] for row in rows] == ids
        assert rows[0]["reasons"] == ["compressibility_out_of_bounds", "budget_mismatch"]

        unknown = "0" * 64
        acked = run("pcs-backend", "escalations", "ack", *ids, ids[0], unknown, **backend.variables)
        assert (acked.returncode, acked.stdout) == (1, b"3 acknowledged, 1 not in the queue\n")
        assert acked.stderr == f"not in the queue: {unknown}\n".encode()
        again = run("pcs-backend", "escalations", "ack", ids[0], **backend.variables)
        assert (again.returncode, again.stdout) == (1, b"0 acknowledged, 1 not in the queue\n")
        empty = run("pcs-backend", "escalations", "list", **backend.variables)
        assert (empty.returncode, empty.stdout) == (0, b"nothing\n")
        assert backend.stop() == 0
