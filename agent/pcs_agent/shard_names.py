"""The shard of each of many streams: the shard that was given, a slash, and the stream's name, escaped.

Bytes of the name outside of `A-Z a-z 0-9 . _ : / @ -` become `+` and two upper-case hexadecimal digits, `+` itself too:
two names never become one, and the name can be read back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from pcs_agent.errors import InputError
from pcs_agent.wording import display_name
from pcs_core.identity import SHARD_ID_RULE, ShardId, is_shard_id

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@-")


def derive_shard_id(base: ShardId, name: str) -> ShardId:
    """Return the shard of one of many streams.

    >>> derive_shard_id(ShardId("plant"), "day 1/a+b.csv")
    'plant/day+201/a+2Bb.csv'

    Args:
        base: The shard that was given.
        name: The stream's name, such as a path below a folder; not empty.

    Raises:
        InputError: The shard would be longer than the contract allows.
    """
    escaped = "".join(chr(byte) if byte in _PLAIN else f"+{byte:02X}" for byte in os.fsencode(name))
    shard_id = f"{base}/{escaped}"
    if not is_shard_id(shard_id):
        raise InputError(
            f"{display_name(name)}: found a shard of {len(shard_id)} characters, made of --shard-id and the file's path "
            f"below its folder; allowed: {SHARD_ID_RULE}"
        )
    return ShardId(shard_id)


def require_distinct(paths_and_shards: Iterable[tuple[str, ShardId]]) -> None:
    """Check that no two streams have one shard.

    Raises:
        InputError: Two have; names both files.
    """
    paths: dict[ShardId, str] = {}
    for path, shard_id in paths_and_shards:
        other = paths.get(shard_id)
        if other is not None:
            raise InputError(
                f"{display_name(path)}: found the shard of {display_name(other)}; allowed: one each; give them to runs of "
                "their own, or a folder that has both below it"
            )
        paths[shard_id] = path
