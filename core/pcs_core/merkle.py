"""Merkle tree hash and inclusion proofs of RFC 6962 §2.1.

Leaves and nodes are hashed under different prefixes, so that no leaf can pass as a node, and an odd node is carried
up unpaired, never doubled, so that [a, b, c] and [a, b, c, c] differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


def hash_leaf(leaf: bytes | memoryview) -> bytes:
    """Return SHA-256(0x00 ‖ leaf), 32 bytes."""
    hasher = hashlib.sha256(_LEAF_PREFIX)
    hasher.update(leaf)
    return hasher.digest()


class TreeHasher:
    """The tree hash of leaves that come one after the other, in memory that grows with the logarithm of their number."""

    def __init__(self) -> None:
        """Begin without leaves."""
        self._leaves = 0
        # Roots of full subtrees, the largest first: one for each bit that is set in the number of leaves.
        self._subtrees: list[bytes] = []

    def add(self, leaf: bytes | memoryview) -> None:
        """Take the next leaf."""
        node = hash_leaf(leaf)
        before = self._leaves
        while before & 1:
            node = _hash_node(self._subtrees.pop(), node)
            before >>= 1
        self._subtrees.append(node)
        self._leaves += 1

    def root(self) -> str:
        """Return the RFC 6962 tree hash of the leaves so far, as 64 lower-case hex digits."""
        if not self._subtrees:
            return hashlib.sha256().hexdigest()
        node = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            node = _hash_node(left, node)
        return node.hex()


def merkle_root(leaves: Iterable[bytes | memoryview]) -> str:
    """Return the RFC 6962 tree hash of the leaves in order, as 64 lower-case hex digits.

    The hash of no leaves is the SHA-256 of nothing, as the RFC has it.

    >>> merkle_root([])[:8]
    'e3b0c442'
    """
    hasher = TreeHasher()
    for leaf in leaves:
        hasher.add(leaf)
    return hasher.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of one leaf, from its sibling up to the root's child.

    Args:
        leaves: All leaves in order.
        index: Position of the leaf, 0 … len(leaves) − 1.

    Raises:
        IndexError: No leaf has that position.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf index out of range: the tree has {len(leaves)} leaves")
    level = [hash_leaf(leaf) for leaf in leaves]
    path = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):  # otherwise the node is carried up unpaired
            path.append(level[sibling])
        level = _parents(level)
        index //= 2
    return path


def verify_inclusion(leaf: bytes, index: int, tree_size: int, path: Sequence[bytes], root: str) -> bool:
    """Whether the leaf stands at `index` in the tree of `tree_size` leaves with that root (RFC 9162 §2.1.3.2).

    Args:
        leaf: The event's bytes, not hashed.
        index: Its position.
        tree_size: Number of leaves of the tree.
        path: What `inclusion_proof` returned.
        root: 64 lower-case hex digits.
    """
    if not 0 <= index < tree_size:
        return False
    node, last = index, tree_size - 1
    digest = hash_leaf(leaf)
    for sibling in path:
        if last == 0:
            return False
        if node % 2 or node == last:
            digest = _hash_node(sibling, digest)
            while node % 2 == 0 and node != 0:  # levels at which the node was carried up unpaired
                node //= 2
                last //= 2
        else:
            digest = _hash_node(digest, sibling)
        node //= 2
        last //= 2
    return last == 0 and digest.hex() == root


def _hash_node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE_PREFIX + left + right).digest()


def _parents(level: Sequence[bytes]) -> list[bytes]:
    parents = [_hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
