"""Every example in a docstring of the statistics runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pcs_backend.conformal as room

MODULES = [module.name for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in MODULES}
    with_examples = {"coverage", "drift", "thresholds", "weighted"}
    assert {name for name, count in attempted.items() if count} >= {
        f"pcs_backend.conformal.{name}" for name in with_examples
    }
