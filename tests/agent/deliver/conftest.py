"""What the tests of delivery share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delivering import Bench
from pcs_agent.outbox import Outbox
from pcs_core.record import Record


@pytest.fixture
def bench(open_outbox: Callable[..., Outbox], fake_time: Any, make_record: Callable[[int], Record]) -> Bench:
    return Bench(open_outbox(), fake_time, make_record)
