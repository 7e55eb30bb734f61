"""Logging as the service sets it up, for the length of a test."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from pcs_backend.effects.logs import configure_logs


@pytest.fixture(autouse=True)
def logs_of_no_other_test() -> None:
    """Begin with logging as it is by default: a command that a test ran in this process has set a level of its own."""
    structlog.reset_defaults()


@pytest.fixture
def debug_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything logged at DEBUG, in a stream that stands for standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs("DEBUG")
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
