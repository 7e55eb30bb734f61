"""The signals of a window of events (contract §1): occupied cells, coherence, compressibility. Pure arrays in, numbers out."""

from pcs_agent.signals.blocks import ArrayBlocks, Blocks
from pcs_agent.signals.codebook import Codebook
from pcs_agent.signals.guarantee import compute_coherence_with_guarantees
from pcs_agent.signals.quantise import compute_compressibility_pq, product_quantize_embeddings
from pcs_agent.signals.summary import Signals, SignalSettings, compute_signals

__all__ = [
    "ArrayBlocks",
    "Blocks",
    "Codebook",
    "SignalSettings",
    "Signals",
    "compute_coherence_with_guarantees",
    "compute_compressibility_pq",
    "compute_signals",
    "product_quantize_embeddings",
]
