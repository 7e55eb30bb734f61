"""How events that are no numbers get vectors: leaves in, rows out. The door is `pcs_agent.embed.embedder`."""

from pcs_agent.embed.choice import TextSettings
from pcs_agent.embed.embedder import Embedder, Method
from pcs_agent.embed.hashing import TextHashing, TokenHashing
from pcs_agent.embed.leaves import TokenLeaves, concatenate_leaves, join_leaves

__all__ = [
    "Embedder",
    "Method",
    "TextHashing",
    "TextSettings",
    "TokenHashing",
    "TokenLeaves",
    "concatenate_leaves",
    "join_leaves",
]
