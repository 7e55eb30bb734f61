"""A stream's shard says which file it was, never that of another, and is one that the contract allows."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_agent.errors import InputError
from pcs_agent.shard_names import derive_shard_id, require_distinct
from pcs_core.identity import ShardId, is_shard_id

BASE = ShardId("plant+a")
FILE_NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name).map(os.fsdecode)


def read_back(shard_id: str) -> str:
    escaped = shard_id.removeprefix(BASE + "/").encode("ascii")
    return os.fsdecode(re.sub(rb"\+(..)", lambda found: bytes.fromhex(found[1].decode()), escaped))


@given(FILE_NAMES)
def test_every_name_makes_a_shard_from_which_it_can_be_read_back(name: str) -> None:
    shard_id = derive_shard_id(BASE, name)
    assert is_shard_id(shard_id)
    assert read_back(shard_id) == name


def test_names_that_differ_in_what_is_escaped_make_different_shards() -> None:
    names = ["a b", "a+20b", "a+b", "a+2Bb", "a|b", "ä"]
    shards = [derive_shard_id(BASE, name) for name in names]
    assert shards[:3] == ["plant+a/a+20b", "plant+a/a+2B20b", "plant+a/a+2Bb"]
    assert len(set(shards)) == len(names)


def test_the_longest_shard_is_the_contracts_and_a_longer_one_names_the_file() -> None:
    assert len(derive_shard_id(ShardId("s"), "x" * 126)) == 128
    with pytest.raises(InputError, match=r"^x+: found a shard of 129 characters.*allowed: 1 to 128"):
        derive_shard_id(ShardId("s"), "x" * 127)


def test_two_files_of_one_shard_are_both_named() -> None:
    pairs = [
        ("a/x.csv", ShardId("s/x.csv")),
        ("b/y.csv", ShardId("s/y.csv")),
        ("b/x.csv", ShardId("s/x.csv")),
    ]
    require_distinct(pairs[:2])
    with pytest.raises(InputError, match=r"^b/x\.csv: found the shard of a/x\.csv"):
        require_distinct(pairs)
