"""One target in a process of its own, under Atheris (libFuzzer). Its arguments are the target's name and libFuzzer's."""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Fuzz; libFuzzer ends the process, with 0 only if nothing was found."""
    name = sys.argv.pop(1)
    # Only what is imported in here tells which of its branches an input takes.
    with atheris.instrument_imports(
        include=["pcs_core", "pcs_backend.inbox", "pcs_agent.deliver", "tomllib"]
    ):
        module_name, _, function = name.rpartition(":")
        module = importlib.import_module(module_name or "fuzz.targets")
    run = getattr(module, function) if module_name else module.TARGETS[name].run
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
