"""Whom a request is from, and whether it may say what it says (contract §4 step 5, and what comes before it).

The tenant follows from the key that signed the record, or from the client certificate where signing is off; never from
anything a client may choose. Checks of time are made as of the time a request was received, so that a backlog is judged
as it would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from pcs_backend.exchange import Request
from pcs_core.direction_proof import DirectionKey, Directions
from pcs_core.errors import BadSignatureError
from pcs_core.keyring import DEFAULT_TENANT, KeyEntry, KeyRefusal, Keyring
from pcs_core.keyring_file import TenantLimits
from pcs_core.message_signature import Message, MessageRefusal, require_message_key, verify_message
from pcs_core.record import Record
from pcs_core.signing import VerificationKey

OTHER_TENANT = "other_tenant"
"""Reason of a refusal: the client certificate, or the key that signed the request, is of another tenant than the
record's key."""

REFUSAL_REASONS = (*KeyRefusal, *MessageRefusal, OTHER_TENANT)
"""Every reason a signature is refused for, as metrics and logs name it."""

_METHOD = "POST"


class Author(NamedTuple):
    """Whom a record is from.

    Attributes:
        tenant: Whose it is.
        key_id: Which key signed it; empty where signing is off.
    """

    tenant: str
    key_id: str


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What is trusted at one moment; a reload makes a new one.

    Attributes:
        keyring: The keys; empty means that signing is off.
        direction_keys: The keys that prove directions; without any, proofs are not checked.
        require_direction_proof: Whether every record must prove its directions.
        peers: Tenant of each name in client certificates.
        limits: What each tenant may send.
        multi_tenant: Whether there is more than the one tenant `default`.
        require_message_signature: Whether every request must be signed as a whole.
        message_age_s: How far a request's signature may lie from its arrival, either way.
    """

    keyring: Keyring
    direction_keys: tuple[DirectionKey, ...] = ()
    require_direction_proof: bool = False
    peers: Mapping[str, str] = MappingProxyType({})
    limits: Mapping[str, TenantLimits] = MappingProxyType({})
    multi_tenant: bool = False
    require_message_signature: bool = False
    message_age_s: float = 300.0

    def check_request(self, request: Request) -> KeyEntry | None:
        """Check the signature of a whole request, before anything of it is parsed.

        Returns:
            The key that signed it, if one did.

        Raises:
            BadSignatureError: It is false, or missing where it is demanded.
        """
        headers = request.envelope.headers
        if not headers and not self.require_message_signature:
            return None
        received_s = request.envelope.received_at_ms / 1_000
        entry = None
        if headers:
            entry = verify_message(
                Message(_METHOD, headers.get("host", ""), request.envelope.path, request.body),
                headers,
                self.keyring,
                received_s=received_s,
                max_age_s=self.message_age_s,
            )
        if entry is not None and (refusal := entry.refusal(received_s)) is not None:
            raise BadSignatureError("Signature: found one that no valid key verifies", refusal)
        return require_message_key(entry) if self.require_message_signature else entry

    def check_record(self, record: Record, request: Request, signed_by: KeyEntry | None) -> Author:
        """Check the signature of a record.

        Args:
            record: What the request holds.
            request: How it came.
            signed_by: The key that signed the request as a whole, if one did.

        Raises:
            MalformedError: `sig` is not base64.
            BadSignatureError: No valid key verifies it, or the key is not its sender's.
        """
        entry = self.keyring.verify(record, request.envelope.received_at_ms / 1_000)
        return self.author(entry, request, signed_by)

    def directions(self, record: Record, tenant: str, request: Request) -> Directions:
        """Say what is asked of the directions of a record: the keys that counted for it when it was received.

        Args:
            record: Signed and its own.
            tenant: Whose it is.
            request: How it came.
        """
        if record.direction_proof is None:
            return Directions((), self.require_direction_proof)
        at_s = request.envelope.received_at_ms / 1_000
        keys = [
            entry.public_key
            for entry in self.direction_keys
            if entry.tenant == tenant and entry.refusal(at_s, record.shard_id) is None
        ]
        return Directions(keys, self.require_direction_proof)

    def recogniser(
        self, request: Request, signed_by: KeyEntry | None
    ) -> Callable[[Record, bytes], Author | None]:
        """Return what tells cheaply whom the records of a request are from, by the key that last signed for their shard.

        Args:
            request: How they came.
            signed_by: The key that signed the request as a whole, if one did.

        Returns:
            Takes a record and the SHA-256 of its canonical payload; returns `None` where only `check_record` can tell.
        """
        likely: dict[str, tuple[VerificationKey, Author] | None] = {}
        at_s = request.envelope.received_at_ms / 1_000

        def find(shard_id: str) -> tuple[VerificationKey, Author] | None:
            entry = self.keyring.likely(shard_id, at_s)
            try:
                return None if entry is None else (entry.record_key, self.author(entry, request, signed_by))
            except BadSignatureError:
                return None

        def recognise(record: Record, digest: bytes) -> Author | None:
            shard_id = record.shard_id
            known = likely.get(shard_id)
            if known is None:
                known = likely[shard_id] = find(shard_id)
            return known[1] if known is not None and known[0].verifies_text(digest, record.sig) else None

        if self.keyring:
            return recognise
        everybody = self.author(None, request, signed_by)
        return lambda _record, _digest: everybody

    def author(self, entry: KeyEntry | None, request: Request, signed_by: KeyEntry | None) -> Author:
        """Say whom a record is from.

        Args:
            entry: The key that verified it; `None` where signing is off.
            request: How it came.
            signed_by: The key that signed the request as a whole, if one did.

        Raises:
            BadSignatureError: The key is not its sender's.
        """
        envelope = request.envelope
        if not self.multi_tenant:
            return Author(DEFAULT_TENANT, "" if entry is None else entry.key_id)
        bound_to = self.peers.get(envelope.peer)
        if entry is None:
            return Author(bound_to or DEFAULT_TENANT, "")
        # Not the same key: what waited in an outbox while keys were turned over is signed with the one before.
        if bound_to not in (None, entry.tenant) or (
            signed_by is not None and signed_by.tenant != entry.tenant
        ):
            raise BadSignatureError("$.sig: no valid key verifies this signature", OTHER_TENANT)
        return Author(entry.tenant, entry.key_id)

    def sender(self, request: Request, signed_by: KeyEntry | None) -> Author | None:
        """Say whom a request is from that holds no record: by the key that signed it, or its client certificate.

        Where records are signed, a certificate alone counts only if its name is bound to a tenant: whoever else has one
        may come in, and say nothing by that.

        Args:
            request: How it came.
            signed_by: The key that signed it, if one did.

        Returns:
            `None` if neither tells.

        Raises:
            BadSignatureError: The key is not of the tenant of the certificate.
        """
        peer = request.envelope.peer
        if signed_by is not None:
            return self.author(signed_by, request, signed_by)
        if not peer or (self.keyring and peer not in self.peers):
            return None
        return self.author(None, request, None)
