"""Every example in a docstring of the agent runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pcs_agent

MODULES = [module.name for module in pkgutil.walk_packages(pcs_agent.__path__, "pcs_agent.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in MODULES}
    assert {name for name, count in attempted.items() if count} >= {
        "pcs_agent.build",
        "pcs_agent.deliver.policy",
    }
