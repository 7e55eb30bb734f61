"""The errors the contract knows, kept apart because each side answers them differently.

"Invalid" is not "could not be checked": everything here is a fact about the input, found without any dependency.
No message ever holds a value from a payload or a secret; it names the field, the kind of thing found and what is
allowed.
"""

from __future__ import annotations


class PcsError(Exception):
    """Base of every error that `pcs_core` raises on purpose."""


class MalformedError(PcsError):
    """Bytes that are not a PCS record, or a value outside the contract's ranges (400).

    Attributes:
        field: JSON path of the offending value, `$` being the whole document.
        found: The kind of thing found, such as "a string of length 3"; never its value.
        allowed: What the contract allows there.
    """

    def __init__(self, field: str, found: str, allowed: str) -> None:
        super().__init__(f"{field}: found {found}; allowed: {allowed}")
        self.field = field
        self.found = found
        self.allowed = allowed


class IdentityError(PcsError):
    """A well-formed record whose `pcs_id` is not the hash of its parts (400)."""


class BadSignatureError(PcsError):
    """A well-formed signature that no valid key verifies (401).

    Attributes:
        reason: Why, as a label for metrics and logs; the sender is not told.
    """

    def __init__(self, message: str, reason: str = "no_key") -> None:
        super().__init__(message)
        self.reason = reason


class KeyMaterialError(PcsError):
    """A signing or verification key that cannot be used: wrong length, wrong encoding, wrong kind."""


class KeyringError(PcsError):
    """A key file that cannot be used. The message names the place and holds no value."""


class ParamsError(PcsError):
    """A parameter file that is not valid TOML, or a parameter outside its bounds."""


class WalError(PcsError):
    """Base of the write-ahead log's errors."""


class WalLockedError(WalError):
    """Another process owns the folder."""


class WalFailedError(WalError):
    """The log cannot promise durability: a write or a sync failed. Nothing was acknowledged."""
