"""Where the summaries of many streams are computed: processes of this machine, or a Ray or Dask cluster.

An engine takes pieces of work and hands back their results in any order; `in_order` puts them in order and tries again
what was lost with its process. Engines know neither streams nor records, and nothing here touches the outbox: whatever
computes, the parent process alone appends and delivers.
"""

from pcs_agent.engines.choice import ENGINES, JOBS_MAX, count_cores, open_engine
from pcs_agent.engines.order import in_order
from pcs_agent.engines.port import Done, Engine, EngineClosedError, Lost

__all__ = [
    "ENGINES",
    "JOBS_MAX",
    "Done",
    "Engine",
    "EngineClosedError",
    "Lost",
    "count_cores",
    "in_order",
    "open_engine",
]
