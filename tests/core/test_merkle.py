"""RFC 6962 trees: the definition as oracle, and every way to pass off one tree for another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_core.merkle import TreeHasher, hash_leaf, inclusion_proof, merkle_root, verify_inclusion

leaves_of_any_kind = st.lists(st.binary(max_size=70), max_size=70)


def split_of(size: int) -> int:
    """Return the largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split_of(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def audit_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = split_of(len(leaves))
    if index < k:
        return [*audit_path(index, leaves[:k]), tree_hash(leaves[k:])]
    return [*audit_path(index - k, leaves[k:]), tree_hash(leaves[:k])]


def leaves_of(size: int) -> list[bytes]:
    return [f"leaf {index}".encode() for index in range(size)]


@given(leaves_of_any_kind)
def test_the_root_is_the_definitions(leaves: list[bytes]) -> None:
    """L21."""
    assert merkle_root(leaves) == tree_hash(leaves).hex()
    assert merkle_root(iter(leaves)) == merkle_root(leaves)
    assert merkle_root([memoryview(leaf) for leaf in leaves]) == merkle_root(leaves)


def test_a_root_may_be_asked_for_between_leaves() -> None:
    hasher = TreeHasher()
    for size, leaf in enumerate(leaves_of(40)):
        assert hasher.root() == tree_hash(leaves_of(size)).hex()
        hasher.add(leaf)


def test_the_last_leaf_doubled_is_another_tree() -> None:
    """L21."""
    assert merkle_root([b"a", b"b", b"c"]) != merkle_root([b"a", b"b", b"c", b"c"])


def test_every_tree_differs_from_the_one_whose_tail_is_repeated() -> None:
    """L21."""
    for size in range(1, 40):
        leaves = leaves_of(size)
        longer = {merkle_root(leaves + leaves[-tail:]) for tail in range(1, size + 1)}
        assert len(longer) == size
        assert merkle_root(leaves) not in longer


def test_a_leaf_that_holds_two_hashes_does_not_pass_as_their_node() -> None:
    """L21."""
    children = hash_leaf(b"a") + hash_leaf(b"b")
    root = merkle_root([b"a", b"b"])
    assert merkle_root([children]) != root
    assert merkle_root([b"\x01" + children]) != root
    assert verify_inclusion(children, 0, 1, [], root) is False
    four = [b"a", b"b", b"c", b"d"]
    assert verify_inclusion(children, 0, 2, [inclusion_proof(four, 0)[1]], merkle_root(four)) is False


def test_order_and_boundaries_of_leaves_matter() -> None:
    roots = [merkle_root(leaves) for leaves in ([], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"b", b"a"])]
    assert len(set(roots)) == len(roots)


def test_the_tree_of_no_leaves_has_the_hash_of_nothing() -> None:
    assert merkle_root([]) == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("size", range(1, 66))
def test_every_leaf_of_every_tree_has_a_proof_that_holds_for_nothing_else(size: int) -> None:
    leaves = leaves_of(size)
    root = merkle_root(leaves)
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(leaves, index)
        assert proof == audit_path(index, leaves)
        assert verify_inclusion(leaf, index, size, proof, root) is True
        assert verify_inclusion(leaf + b"x", index, size, proof, root) is False
        assert verify_inclusion(leaf, index, size, [*proof, bytes(32)], root) is False
        assert verify_inclusion(leaf, index, size, proof, hash_leaf(b"other root").hex()) is False
        if proof:
            assert verify_inclusion(leaf, index, size, proof[:-1], root) is False
            assert verify_inclusion(leaf, index, size, proof[1:], root) is False
            assert verify_inclusion(leaf, index, size, [], root) is False
        for other in range(size):
            if other != index:
                assert verify_inclusion(leaf, other, size, proof, root) is False


@given(st.integers(2, 65), st.data())
def test_a_proof_with_any_bit_changed_or_two_hashes_swapped_is_refused(
    size: int, data: st.DataObject
) -> None:
    leaves = leaves_of(size)
    root = merkle_root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(leaves, index)
    step, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    changed = bytearray(proof[step])
    changed[bit // 8] ^= 1 << bit % 8
    assert (
        verify_inclusion(
            leaves[index], index, size, [*proof[:step], bytes(changed), *proof[step + 1 :]], root
        )
        is False
    )
    other = data.draw(st.integers(0, len(proof) - 1))
    if other != step:
        swapped = list(proof)
        swapped[step], swapped[other] = swapped[other], swapped[step]
        assert verify_inclusion(leaves[index], index, size, swapped, root) is False


@pytest.mark.parametrize(
    ("index", "tree_size"), [(-1, 3), (3, 3), (4, 3), (0, 0), (0, -1), (0, 2), (0, 5), (2**70, 3)]
)
def test_a_position_outside_the_tree_or_a_wrong_size_is_refused(index: int, tree_size: int) -> None:
    leaves = leaves_of(3)
    proof = inclusion_proof(leaves, 0)
    assert verify_inclusion(leaves[0], index, tree_size, proof, merkle_root(leaves)) is False


@pytest.mark.parametrize(("size", "index"), [(0, 0), (3, 3), (3, -1)])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(size: int, index: int) -> None:
    with pytest.raises(IndexError, match=f"the tree has {size} leaves"):
        inclusion_proof(leaves_of(size), index)


def test_a_proof_longer_than_its_tree_is_high_is_refused() -> None:
    """The one leaf of a tree of one cannot be shown by the path of a larger tree's last leaf."""
    for size in (2, 3, 5, 9):
        leaves = leaves_of(size)
        proof = inclusion_proof(leaves, size - 1)
        assert verify_inclusion(leaves[-1], size - 1, size, proof, merkle_root(leaves)) is True
        assert verify_inclusion(leaves[-1], 0, 1, proof, merkle_root(leaves)) is False
