"""What `pcs-backend records` refuses to understand; the rest is in `tests/e2e/test_daily_tools.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pcs_backend.cli.root import cli
from pcs_backend.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("f" * 63,), "PCS_ID: found a string of length 63"),
        (("f" * 64, "--shard", "a"), "PCS_ID: found a filter beside it"),
        (("--since", "yesterday"), "found a string of length 9; allowed: a time such as"),
        (("--since", "2026-11-21T08:15:30"), "allowed: a time such as"),
        (("--since", "9999999999d"), "allowed: a time such as"),
        (("--shard", "a b"), "--shard: found something that is no shard"),
        (("--limit", "1001"), "--limit"),
        (("--verdict", "perhaps"), "--verdict"),
    ],
)
def test_what_is_not_understood_is_refused(arguments: tuple[str, ...], said: str) -> None:
    refused = CliRunner().invoke(cli, ["records", *arguments])
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_folder_without_a_log_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "missing"))
    refused = CliRunner().invoke(cli, ["records"])
    assert isinstance(refused.exception, ConfigError)
    assert "found no folder with a WAL" in str(refused.exception)
    assert not (tmp_path / "missing").exists()
