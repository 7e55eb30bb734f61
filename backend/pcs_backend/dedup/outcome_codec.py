"""How an outcome stands in a store that keeps plain values: its expiry in clear, then the outcome.

The expiry comes first so that a server-side script can judge it without decoding the rest, which is a `WholeOutcome` in
MessagePack.
"""

from __future__ import annotations

import msgspec

from pcs_backend.errors import OutcomeUnreadableError
from pcs_backend.outcome import Outcome, WholeOutcome, whole

UNREADABLE = "the store holds an outcome that this version cannot read"

_SEPARATOR = b":"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(WholeOutcome).decode


def encode_outcome(outcome: Outcome) -> bytes:
    """Return `<expires_at_ms>:<MessagePack>`."""
    return b"%d%b%b" % (outcome.expires_at_ms, _SEPARATOR, _encode(whole(outcome)))


def decode_outcome(value: bytes) -> Outcome:
    """Return the outcome that `encode_outcome` wrote.

    Raises:
        OutcomeUnreadableError: The value is not one. Answering as if there were none would store a second outcome.
    """
    _, separator, packed = value.partition(_SEPARATOR)
    if separator:
        try:
            return _decode(packed).outcome
        except msgspec.DecodeError:
            pass  # its message may quote a value, so it is not chained
    raise OutcomeUnreadableError(UNREADABLE)
