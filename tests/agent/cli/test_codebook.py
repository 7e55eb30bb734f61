"""`pcs-agent codebook train`, and runs with what it wrote."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pcs_agent.signals.codebook_file import read_codebook

RUN = ("--shard-id", "shard-a", "--epoch", "0")


@pytest.fixture
def rows_csv(agent: Any) -> str:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    return agent.write(
        "rows.csv", "x,y,z\n" + "\n".join(",".join(map(repr, row)) for row in rows.tolist()) + "\n"
    )


def test_what_train_writes_is_what_build_uses(agent: Any, rows_csv: str) -> None:
    out = str(agent.folder / "a.codebook")
    trained = agent("codebook", "train", rows_csv, "-o", out, "--codes", "16", "--seed", "5")
    assert trained.exit_code == 0, trained.output
    book = read_codebook(out)
    assert (book.dimensions, book.subspaces, book.codes, book.seed) == (3, 3, 16, 5)
    assert "3 subspaces of 3 columns, 16 codes, trained on 60 rows" in trained.output
    assert f"sha256 {book.digest}" in trained.output
    with_it = json.loads(agent("build", rows_csv, *RUN, "--codebook", out).stdout)
    without = json.loads(agent("build", rows_csv, *RUN).stdout)
    plain = json.loads(agent("build", rows_csv, *RUN, "--r-method", "zlib").stdout)
    assert len({with_it["r"], without["r"], plain["r"]}) == 3
    assert with_it["merkle_root"] == without["merkle_root"] == plain["merkle_root"]


def test_an_existing_file_is_kept(agent: Any, rows_csv: str) -> None:
    out = agent.write("a.codebook", "mine")
    refused = agent("codebook", "train", rows_csv, "-o", out)
    assert refused.exit_code == 2
    assert "--out: " in refused.output
    assert "found an existing file; allowed: a new one" in refused.output
    with open(out, encoding="utf-8") as file:
        assert file.read() == "mine"


def test_a_stream_without_events_and_a_file_that_is_no_codebook_are_refused(
    agent: Any, rows_csv: str
) -> None:
    empty = agent("codebook", "train", agent.write("empty.csv", "x\n"), "-o", str(agent.folder / "b"))
    assert (empty.exit_code, "found no events" in empty.output) == (2, True)
    assert not (agent.folder / "b").exists()
    wrong = agent("build", rows_csv, *RUN, "--codebook", rows_csv)
    assert (wrong.exit_code, "found something else than a codebook" in wrong.output) == (2, True)


def test_a_codebook_for_other_columns_is_refused(agent: Any, rows_csv: str) -> None:
    out = str(agent.folder / "a.codebook")
    assert agent("codebook", "train", rows_csv, "-o", out, "--columns", "x,y").exit_code == 0
    refused = agent("build", rows_csv, *RUN, "--codebook", out)
    assert refused.exit_code == 2
    assert "found one for 2 columns, and rows of 3; allowed: as many" in refused.output
