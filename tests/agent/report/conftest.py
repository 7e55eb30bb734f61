"""Streams of four kinds, and what is gathered of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pcs_agent import app
from pcs_agent.config import load_config
from pcs_agent.report.gathering import ReportRequest, gather
from pcs_agent.report.streams import Streams
from pcs_agent.signals import SignalSettings
from pcs_core.identity import ShardId
from pcs_core.wal import PosixFiles
from stream_kinds import WINDOW, write_kinds


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of a healthy, a looping, a drifting and a truncated stream."""
    return write_kinds(tmp_path_factory.mktemp("kinds"))


Gather = Callable[..., Streams]


@pytest.fixture
def gather_files(tmp_path: Path) -> Gather:
    """Gather files, an outbox and records, with warnings kept in `warnings` if that is given."""

    def gather_them(
        *inputs: str,
        shard_id: str | None = None,
        outbox: str | None = None,
        records: tuple[str, ...] = (),
        window: int | None = WINDOW,
        warnings: list[str] | None = None,
        epoch: int = 0,
    ) -> Streams:
        request = ReportRequest(
            stream=app.StreamRequest(
                inputs=inputs,
                shard_id=ShardId(shard_id or "-"),
                epoch=epoch,
                settings=SignalSettings(),
                window_rows=window,
            ),
            joined=shard_id is not None,
            outbox_dir=outbox,
            record_files=records,
        )
        said = [] if warnings is None else warnings
        return gather(
            load_config({}), request, lambda: (tmp_path / "stdin").open("rb"), PosixFiles(), said.append
        )

    return gather_them


@pytest.fixture(scope="session")
def four_kinds_page(kinds: dict[str, str]) -> str:
    """The page of all four."""
    from pcs_agent.report.page import render_page

    request = ReportRequest(
        stream=app.StreamRequest(
            inputs=list(kinds.values()),
            shard_id=ShardId("-"),
            epoch=0,
            settings=SignalSettings(),
            window_rows=WINDOW,
        ),
        joined=False,
        outbox_dir=None,
        record_files=(),
    )
    return render_page(
        gather(load_config({}), request, lambda: Path("/dev/null").open("rb"), PosixFiles(), print)
    )
