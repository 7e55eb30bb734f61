"""What is asked of the client process, and what it found: JSON on its standard input and output."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of load.

    Attributes:
        ports: On which the service listens; connections go to each in turn.
        path: Where to post.
        bodies: File of the pool's bodies.
        ids: File of the pool's ids.
        pool_count: How many the pool has.
        first: First record sent.
        count: Records sent.
        batch: Records a request; 0 sends them one by one as `application/json`.
        connections: Open at once; open loop: at most so many.
        rate: Records a second, sent on schedule whether earlier ones are answered or not; 0 is the closed loop, where
            each connection sends its next request when the last one is answered.
        warmup: Share of the requests, at the beginning, that is not measured.
        pids: Processes whose CPU time is measured, children included.
        answers: File for what was answered: `pcs_id status body` a line; empty for none.
        constant: Whether the service answers everything with the same bytes, so that nothing but the status is checked.
        may_refuse: Whether 503 is an answer, if it carries Retry-After.
    """

    ports: list[int]
    path: str
    bodies: str
    ids: str
    pool_count: int
    first: int = 0
    count: int
    batch: int = 0
    connections: int = 64
    rate: float = 0.0
    warmup: float = 0.1
    pids: list[int] = []
    answers: str = ""
    constant: bool = False
    may_refuse: bool = False


class Found(msgspec.Struct, kw_only=True):
    """What the client saw. Times are of the measured part: requests sent after the warm-up.

    Attributes:
        rate: Records answered a second, refused ones not counted.
        seconds: How long was measured.
        records: Records that were answered, over the whole run.
        refused: Records that were answered 503.
        latency_ms: Quantiles of a request's time: 0.5, 0.95, 0.99, 0.999 and 1. Open loop: from when it was due.
        cpu_us: CPU time of the watched processes a record.
        client_cpu: Share of a core that this client used.
        refused_ms: The same quantiles of refused requests.
        behind_ms: Open loop: how far behind its schedule the client sent, at most. Included in the latency.
        wrong: What was wrong with answers, in few words, each with how often.
    """

    rate: float
    seconds: float
    records: int
    refused: int
    latency_ms: list[float]
    cpu_us: float
    client_cpu: float
    refused_ms: list[float]
    behind_ms: float
    wrong: dict[str, int]


class Turn(msgspec.Struct, kw_only=True):
    """What one of two services did in its turns; as `Found`.

    Attributes:
        rate: Records a second of its turns.
        records: Records that were answered, over the whole run.
        latency_ms: Quantiles of a request's time.
        cpu_us: CPU time a record, between its turns included.
        wrong: What was wrong with answers.
    """

    rate: float
    records: int
    latency_ms: list[float]
    cpu_us: float
    wrong: dict[str, int]


class Turns(msgspec.Struct, kw_only=True):
    """What the client of two services found.

    Attributes:
        ratio: Records a second of the first against the second: the median over pairs of turns.
        sides: Both, in order.
    """

    ratio: float
    sides: list[Turn]


QUANTILES = (0.5, 0.95, 0.99, 0.999, 1.0)
