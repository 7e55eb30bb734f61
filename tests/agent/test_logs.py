"""The agent's log lines, as a process writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from pcs_agent.logs import configure_logs


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_line_is_json_and_its_strings_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    structlog.get_logger().info(
        "delivered", pcs_id="1" * 64, shard_id="a/anna@example.org/+1 555 010 9977", n=3
    )
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "delivered",
        "level": "info",
        "pcs_id": "1" * 64,
        "shard_id": "a/[email]/[phone]",
        "n": 3,
    }


def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    structlog.get_logger().info("delivered")
    assert capsys.readouterr().err == ""
