"""Many streams over Ray, which is too large for `make install`: `make test-ray` installs it apart and runs this file."""

from __future__ import annotations

from many_streams import EngineRuns


class TestRay(EngineRuns):
    engine = ("--engine", "ray")
