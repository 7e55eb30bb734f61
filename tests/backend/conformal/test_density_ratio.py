"""Density ratios as an operator writes them: which piece a record is of, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.density_ratio import PIECES_MAX, RATIO_BYTES_MAX, read_density_ratio
from pcs_backend.errors import ConfigError

GOOD: dict[str, Any] = {"signal": "coh_star", "edges": [0.25, 0.75], "ratios": [0, 1, 4.5]}


def read(**changed: Any) -> Any:
    return read_density_ratio(json.dumps(GOOD | changed).encode())


@pytest.mark.parametrize(
    ("signal", "column"), [("D_hat", 0), ("coh_star", 1), ("r", 2)], ids=["D_hat", "coh_star", "r"]
)
def test_a_piece_begins_with_its_edge(signal: str, column: int) -> None:
    ratio = read(signal=signal)
    values = [-5.0, 0.2499, 0.25, 0.7499, 0.75, 9.0]
    rows = [[9.9] * column + [value] + [9.9] * (2 - column) for value in values]
    assert [ratio.piece_of(Signals(*row)) for row in rows] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"signal": "d_hat"}, "signal"),
        ({"edges": []}, "edges: found 0 edges; allowed: 1 to 15"),
        ({"edges": list(range(PIECES_MAX))}, "edges: found 16 edges; allowed: 1 to 15"),
        ({"edges": [0.5, 0.5]}, "edges: found numbers that do not ascend"),
        ({"edges": [0.5, 0.4]}, "edges: found numbers that do not ascend"),
        ({"edges": ["0.5", "0.6"]}, r"\$\.edges"),
        ({"ratios": [1, 1]}, "ratios: found 2 ratios; allowed: 3, one more than edges"),
        ({"ratios": [1, -1, 1]}, "ratios: found one out of range; allowed: 0 to 1e"),
        ({"ratios": [1, 1e7, 1]}, "ratios: found one out of range; allowed: 0 to 1e"),
        ({"ratios": [0, 0, 0]}, "ratios: found one out of range; allowed: 0 to 1e"),
        ({"more": 1}, "more"),
    ],
    ids=str,
)
def test_what_is_no_ratio_is_refused_by_its_field(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^density ratio: .*{said}"):
        read(**changed)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"{}", b" " * (RATIO_BYTES_MAX + 1)], ids=len)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^density ratio: "):
        read_density_ratio(data)
