"""Every example in a docstring of the core runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pcs_core

MODULES = ["pcs_core", *(module.name for module in pkgutil.walk_packages(pcs_core.__path__, "pcs_core."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in MODULES}
    with_examples = {
        "budget",
        "canonical",
        "identity",
        "merkle",
        "params",
        "redact",
        "regime",
        "slope",
        "typed",
    }
    assert {name for name, count in attempted.items() if count} >= {
        f"pcs_core.{name}" for name in with_examples
    }
