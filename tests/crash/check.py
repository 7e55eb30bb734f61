"""What is asked of a backend after a restart, and held against the ledger."""

from __future__ import annotations

import json
import random
from pathlib import Path

import aiohttp

import pcs_records
from crash.disk_log import InboxOnDisk
from crash.ledger import TAKEN, Ledger
from crash.load import submit_all
from processes import Answer, Client

OLDER_SAMPLE = 50
"""Records acknowledged before the last check that are asked for again at each check."""

_ROUNDS_MAX = 5
_STEP = 1e-3


def tag_parameters(path: Path, tag: int) -> None:
    """Write parameters by which every outcome tells in which life it was judged.

    The budget is shifted by the tag: a record that is judged anew in another life gets other bytes.
    """
    path.write_text(f'version = "life-{tag}"\nbase = {0.1 + tag * _STEP:.3f}\ntol_budget = 1.0\n')


def tag_of(body: bytes, answer: Answer) -> int:
    """Return the tag of the life that judged a record."""
    record, recomputed = json.loads(body), json.loads(answer.body)["recomputed"]
    untagged = pcs_records.budget(recomputed["D_hat"], record["coh_star"], record["r"])
    return round((recomputed["budget"] - untagged) / _STEP)


async def check_backend(
    client: Client, ledger: Ledger, log: InboxOnDisk, tag: int, choice: random.Random, *, everything: bool
) -> None:
    """Ask for what was promised, settle what was not answered, compare counters and queue.

    Args:
        client: Of a backend that is ready.
        ledger: The promises.
        log: Its log as it was before the restart.
        tag: Of this life.
        choice: Chooses the sample of older records.
        everything: Whether all older records are asked for instead.
    """
    try:
        await client.wait_for_metric("flk_open_requests", 0)
    except AssertionError:
        ledger.tally.lose(1, "backlog that is not settled")
    unreadable = (await client.metrics())["flk_unreadable_requests"]
    ledger.tally.lose(int(unreadable), "in the log, and unreadable")
    repeated = sum(count > 1 for count in log.outcomes.values())
    ledger.tally.double(repeated, "with two outcomes in the log")
    await _check_promises(client, ledger, choice, everything=everything)
    ledger.checked()
    judged_now = await _settle_unanswered(client, ledger, log, tag)
    _, _, accepted, escalated = await client.counters()
    ledger.tally.double(
        abs(accepted + escalated - judged_now),
        "difference of the counters to what was judged since the start",
    )


async def check_queue(ledger: Ledger, admin_socket: Path) -> None:
    """Compare the escalation queue, then take everything off it."""
    async with aiohttp.ClientSession(
        "http://admin", connector=aiohttp.UnixConnector(str(admin_socket))
    ) as admin:
        listed: list[str] = []
        while page := await _list_queue(admin):
            listed += page
            async with admin.post(
                "/escalations/acks", json={"tenant": "default", "pcs_ids": page}
            ) as response:
                done = (await response.json(content_type=None))["done"]
            if not any(done):
                ledger.tally.double(len(page), "in the queue for good")
                break
        ledger.check_queue(listed)
        ledger.dequeued.update(listed)


async def _list_queue(admin: aiohttp.ClientSession) -> list[str]:
    async with admin.get("/escalations", params={"tenant": "default"}) as response:
        return [each["pcs_id"] for each in (await response.json(content_type=None))["escalations"]]


async def _check_promises(client: Client, ledger: Ledger, choice: random.Random, *, everything: bool) -> None:
    older = [pcs_id for pcs_id in ledger.promises if pcs_id not in ledger.fresh]
    if not everything:
        older = choice.sample(older, min(len(older), OLDER_SAMPLE))
    asked = [pcs_id for pcs_id in (*ledger.fresh, *older) if pcs_id in ledger.bodies]
    answers = await _insist(client, {pcs_id: ledger.bodies[pcs_id] for pcs_id in asked})
    for pcs_id in asked:
        ledger.check_answer(pcs_id, answers.get(pcs_id))


async def _settle_unanswered(client: Client, ledger: Ledger, log: InboxOnDisk, tag: int) -> int:
    """Submit what nobody was told about. Returns how many of it were judged in this life."""
    for pcs_id, body in log.requests.items():
        if pcs_id not in ledger.promises:
            ledger.send(pcs_id, body)
    bodies = {pcs_id: ledger.bodies[pcs_id] for pcs_id in ledger.unanswered}
    judged_now = 0
    for pcs_id, answer in (await _insist(client, bodies)).items():
        if pcs_id in log.requests and not answer.replayed:
            ledger.tally.lose(1, "in the log, and without an outcome after the replay")
        ledger.note_answer(pcs_id, answer)
        judged_now += answer.status in TAKEN and tag_of(bodies[pcs_id], answer) == tag
    return judged_now


async def _insist(client: Client, bodies: dict[str, bytes]) -> dict[str, Answer]:
    """Submit, and again what was put off (503), a few times."""
    answers: dict[str, Answer] = {}
    for _ in range(_ROUNDS_MAX):
        left = {pcs_id: body for pcs_id, body in bodies.items() if pcs_id not in answers}
        if not left:
            break
        answers |= await submit_all(client, left)
    return answers
