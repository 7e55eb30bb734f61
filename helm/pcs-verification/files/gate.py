"""The canary's gate: ask Prometheus what it spent of its error budgets, and fail if it was too much or cannot be told.

    gate.py PLAN

PLAN is JSON: the queries, each of one number, and the limits; templates/canary-gate.yaml writes it. The burn rate of a
budget is the share of bad requests over the share that may be bad: at 1 the budget lasts just as long as it should.

Exit codes: 0 all budgets hold; 1 one is burnt too fast; 2 it cannot be told: Prometheus does not answer or does not know
the canary, or the canary had too few requests. Standard library only.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

ANSWER_TIMEOUT_S = 10.0


class Measured(NamedTuple):
    """What one look found.

    Attributes:
        requests: How many the canary had.
        burn_rates: By the name of the budget.
    """

    requests: float
    burn_rates: dict[str, float]


def main() -> None:
    """Look every `poll_s` until `wait_s` are over; a budget burnt too fast ends it at once."""
    plan = json.loads(sys.argv[1])
    until = time.monotonic() + plan["wait_s"]
    while True:
        last = time.monotonic() >= until
        judge(plan, look(plan), last=last)
        time.sleep(max(0.0, min(plan["poll_s"], until - time.monotonic())))


def judge(plan: dict[str, Any], measured: Measured | str, *, last: bool) -> None:
    """End if what was measured decides it; after the last look something does.

    Args:
        plan: The limits.
        measured: What was found, or why nothing was.
        last: Whether there is no other look.
    """
    if isinstance(measured, str):
        print(measured, flush=True)
        if last:
            end(2, "it cannot be told")
        return
    say(measured)
    enough = measured.requests >= plan["requests_min"]
    burnt = [name for name, rate in measured.burn_rates.items() if rate > plan["burn_rate_max"]]
    if enough and burnt:
        end(1, f"burnt faster than {plan['burn_rate_max']:g}: {', '.join(burnt)}")
    if last and not enough:
        end(2, f"{measured.requests:.0f} requests are too few; {plan['requests_min']} are needed")
    if last:
        end(0, "every budget holds")


def look(plan: dict[str, Any]) -> Measured | str:
    """Ask every query; a text says why that was no use."""
    try:
        requests = value(plan["url"], plan["requests"])
        rates = {}
        for budget in plan["budgets"]:
            bad, everything = value(plan["url"], budget["bad"]), value(plan["url"], budget["all"])
            rates[budget["name"]] = bad / everything / budget["share"] if everything else 0.0
    except OSError as error:
        return f"Prometheus does not answer: {error}"
    except (ValueError, LookupError, TypeError) as error:
        return f"Prometheus' answer is no use: {error}"
    return Measured(requests, rates)


def value(url: str, query: str) -> float:
    """Return the query's one number.

    Raises:
        OSError: No answer, or another status than 200.
        ValueError, LookupError, TypeError: The answer is not Prometheus', or there are no such series. The backend has all
            of them from its start on, so that a canary without them is not measured.
    """
    address = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=ANSWER_TIMEOUT_S) as response:
        found = json.load(response)["data"]["result"]
    if not found:
        raise LookupError(f"no series for {query}")
    number = float(found[0]["value"][1])
    if not math.isfinite(number):
        raise ValueError(f"no finite number for {query}")
    return number


def say(measured: Measured) -> None:
    """Print one line."""
    rates = ", ".join(f"{name} {rate:.2f}" for name, rate in measured.burn_rates.items())
    print(f"{measured.requests:.0f} requests; burn rates: {rates}", flush=True)


def end(code: int, reason: str) -> None:
    """Print why, and exit."""
    print(reason, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
