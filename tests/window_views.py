"""Windows as a report sees them, for its tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from pcs_agent.report.portrait import portray
from pcs_agent.report.streams import Judgement, WindowView

PORTRAIT = portray([np.arange(4.0)[:, None]], 4, [1.0], 20)


def view(epoch: int, **changes: Any) -> WindowView:
    values: dict[str, Any] = {
        "pcs_id": f"{epoch:064x}",
        "epoch": epoch,
        "events": 10,
        "d_hat": 1.0,
        "coh_star": 0.5,
        "r": 0.9,
        "regime": "mixed",
        "budget": 0.3,
        "scales": (2, 4),
        "counts": (2, 4),
        "fallbacks": (),
        "judgement": Judgement(word="checks hold", by_backend=False),
        "portrait": PORTRAIT,
    }
    return WindowView(**values | changes)
