"""What is answered to a record first and for ever after, and how little of it is its own. Pure.

Outcomes that are stored together were mostly judged by the same gate, signed with the same key and stored at the same
time, and more than half of their texts is the same: it is held once (`Shared`), in memory and in the log of the memory
store. What an outcome has of its own is its id, its fingerprint, and what stands between the texts that are shared.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Key(NamedTuple):
    """What dedup is by: the tenant is part of it, so that no tenant is answered with another's outcome."""

    tenant: str
    pcs_id: str


class Form(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the texts of outcomes have in common.

    A body is `own before first between second after`, and provenance `head inputs tail`, of which `own`, `first`, `second`
    and `inputs` are each outcome's own. Without a block of a gate a body is `own`; without a head `inputs` is all of provenance,
    and empty where neither gate nor labels were wanted.

    Attributes:
        before: Of a gate's block, up to the first score.
        between: Up to the second score; empty where there is no block.
        after: To the end of the body.
        head: How provenance begins.
        tail: How it ends.
    """

    before: bytes = b""
    between: bytes = b""
    after: bytes = b""
    head: bytes = b""
    tail: bytes = b""


PLAIN = Form()


class Shared(msgspec.Struct, frozen=True, gc=False):
    """What outcomes have in common; the fields are those of `Outcome`."""

    tenant: str
    status: int
    params_version: str
    key_id: str
    stored_at_ms: int
    expires_at_ms: int
    form: Form = PLAIN

    @property
    def escalated(self) -> bool:
        """Whether a person should look at the record."""
        return self.status == 202


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What was answered to a record first, and is answered for ever after.

    Attributes:
        shared: What it has in common with others.
        pcs_id: The record's id.
        fingerprint: Hex digest of the signed subset, scales and N_j; another one under the same key is a conflict.
        own: Of its body, what stands before a gate's block; without one, the body.
        first: The score of benign records as the block writes it; empty without one.
        second: The score of bad records likewise.
        inputs: Of its provenance, what stands between head and tail, if there are any.
    """

    shared: Shared
    pcs_id: str
    fingerprint: str
    own: bytes
    first: bytes = b""
    second: bytes = b""
    inputs: bytes = b""

    @property
    def key(self) -> Key:
        """What dedup is by."""
        return Key(self.shared.tenant, self.pcs_id)

    @property
    def tenant(self) -> str:
        """Who owns the record."""
        return self.shared.tenant

    @property
    def status(self) -> int:
        """200 accepted or 202 escalated."""
        return self.shared.status

    @property
    def escalated(self) -> bool:
        """Whether a person should look at the record."""
        return self.shared.escalated

    @property
    def params_version(self) -> str:
        """Version of the parameters that judged it."""
        return self.shared.params_version

    @property
    def key_id(self) -> str:
        """Id of the key that verified it; empty where signing is off."""
        return self.shared.key_id

    @property
    def stored_at_ms(self) -> int:
        """When it was stored, milliseconds since 1970."""
        return self.shared.stored_at_ms

    @property
    def expires_at_ms(self) -> int:
        """From when on it is forgotten, as above."""
        return self.shared.expires_at_ms

    @property
    def body(self) -> bytes:
        """The exact bytes of the answer."""
        form = self.shared.form
        if not form.between:
            return self.own
        return b"".join((self.own, form.before, self.first, form.between, self.second, form.after))

    @property
    def provenance(self) -> str:
        """What it followed from, see `conformal.provenance`; empty where neither gate nor labels were wanted."""
        form = self.shared.form
        return b"".join((form.head, self.inputs, form.tail)).decode()


Told = tuple[bytes, bytes, bytes, bytes, Form]
"""Of an outcome `own`, `first`, `second` and `inputs`, and the form of its texts."""


class WholeOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An outcome that shares nothing, as a store of single values keeps it, or a frame of earlier versions.

    Fields are those of `Outcome`, by name: a later version may add some with defaults, and either version reads the
    other's values.
    """

    tenant: str
    pcs_id: str
    status: int
    body: bytes
    fingerprint: str
    params_version: str
    key_id: str
    provenance: str = ""
    stored_at_ms: int
    expires_at_ms: int

    @property
    def outcome(self) -> Outcome:
        """The outcome."""
        shared = Shared(
            self.tenant,
            self.status,
            self.params_version,
            self.key_id,
            self.stored_at_ms,
            self.expires_at_ms,
        )
        return Outcome(shared, self.pcs_id, self.fingerprint, self.body, inputs=self.provenance.encode())


def whole(outcome: Outcome) -> WholeOutcome:
    """Return an outcome with all that it shares."""
    shared = outcome.shared
    return WholeOutcome(
        tenant=shared.tenant,
        pcs_id=outcome.pcs_id,
        status=shared.status,
        body=outcome.body,
        fingerprint=outcome.fingerprint,
        params_version=shared.params_version,
        key_id=shared.key_id,
        provenance=outcome.provenance,
        stored_at_ms=shared.stored_at_ms,
        expires_at_ms=shared.expires_at_ms,
    )
