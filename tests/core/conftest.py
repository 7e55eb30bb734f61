"""Hypothesis settings of these tests: no deadline, because a machine shared with other work is slow at times."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
