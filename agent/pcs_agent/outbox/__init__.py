"""The outbox: every record is on disk here before it is sent, and until after it is acknowledged."""

from pcs_agent.outbox.entry import Entry, State, Verdict
from pcs_agent.outbox.outbox import Compaction, Outbox

__all__ = ["Compaction", "Entry", "Outbox", "State", "Verdict"]
