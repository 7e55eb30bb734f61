"""Checks a record's signature in one call."""

from __future__ import annotations

from collections.abc import Sequence

from pcs_core.keyring import Keyring
from pcs_core.record import Record
from pcs_core.signing import VerificationKey


def signer_of(keys: Sequence[VerificationKey], record: Record) -> str:
    """Return the id of the key that signed a record; empty without keys.

    Raises:
        MalformedError: `sig` is not standard base64.
        BadSignatureError: None of them did.
    """
    entry = Keyring.of(keys).verify(record, at_s=0.0)
    return "" if entry is None else entry.key_id
