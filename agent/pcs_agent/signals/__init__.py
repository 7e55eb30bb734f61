"""The signals of a window of events (contract §1): occupied cells, coherence, compressibility. Pure arrays in, numbers out."""

from pcs_agent.signals.blocks import ArrayBlocks, Blocks
from pcs_agent.signals.summary import Signals, SignalSettings, compute_signals

__all__ = ["ArrayBlocks", "Blocks", "SignalSettings", "Signals", "compute_signals"]
