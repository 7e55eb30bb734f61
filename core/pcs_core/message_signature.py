"""Signatures of whole requests: RFC 9421 over method, authority, path and the digest of the body (RFC 9530).

A record's own signature leaves `scales`, `N_j` and more open to change on the way; this one covers the bytes as they were
sent. One signature a request, over exactly the components of `COVERED` and none with parameters, as a serializer of
structured fields (RFC 8941) writes it; `created` and `keyid` are required, `expires`, `alg`, `nonce` and `tag` are taken.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pcs_core.errors import BadSignatureError
from pcs_core.keyring import KeyEntry, Keyring
from pcs_core.signing import ED25519_KEY_BYTES, Ed25519SecretKey, HmacKey, Signer, VerificationKey

METHOD, AUTHORITY, PATH, CONTENT_DIGEST = "@method", "@authority", "@path", "content-digest"
COVERED = (METHOD, AUTHORITY, PATH, CONTENT_DIGEST)
"""What a signature covers; in this order the agent writes it."""

HEADERS = (CONTENT_DIGEST, "signature-input", "signature")
HEADER_CHARACTERS_MAX = 2_048

_LABEL = "pcs"
_DEFAULT_PORTS = (":80", ":443")
_HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_ALGORITHMS = {True: "hmac-sha256", False: "ed25519"}
_NOBODY: tuple[VerificationKey, VerificationKey] = (
    HmacKey(b"nobody's key"),
    Ed25519SecretKey(bytes(ED25519_KEY_BYTES)).public,
)

_KEY = r"[a-z*][a-z0-9_.*-]*"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_ITEMS = re.compile(_STRING)
_PARAMETER = re.compile(rf";({_KEY})=(?:({_STRING})|(-?[0-9]{{1,15}}))")
_INPUT = re.compile(
    rf"({_KEY})=(\(((?:{_STRING}(?: {_STRING})*)?)\)((?:;{_KEY}=(?:{_STRING}|-?[0-9]{{1,15}}))*))"
)
_BYTES = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):")


class MessageRefusal(enum.StrEnum):
    """Why a request's signature counts for nothing: a label of metrics and logs."""

    MISSING = "message_missing"
    MALFORMED = "message_malformed"
    DIGEST = "message_digest"
    AGE = "message_age"
    KEY = "message_key"
    FALSE = "message_false"


class Message(NamedTuple):
    """A request as far as its signature covers it.

    Attributes:
        method: In capitals.
        authority: Host, with the port where it is not the scheme's own.
        path: Without query.
        body: The bytes as sent.
    """

    method: str
    authority: str
    path: str
    body: bytes


class _Claim(NamedTuple):
    """What the headers say."""

    params: str
    components: tuple[str, ...]
    created_s: int
    expires_s: int | None
    key_id: str
    algorithm: str | None
    signature: bytes


def sign_message(message: Message, signer: Signer, key_id: str, created_s: int) -> dict[str, str]:
    """Return the headers that sign a request.

    Args:
        message: The request.
        signer: The message key, derived from the record key.
        key_id: Id of the record key, by which the backend finds the message key.
        created_s: Whole seconds since 1970.
    """
    digest = base64.b64encode(hashlib.sha256(message.body).digest()).decode("ascii")
    content_digest = f"sha-256=:{digest}:"
    components = " ".join(f'"{name}"' for name in COVERED)
    algorithm = _ALGORITHMS[isinstance(signer, HmacKey)]
    params = f'({components});created={created_s};keyid="{key_id}";alg="{algorithm}"'
    base = signature_base(COVERED, params, _values(message, content_digest))
    signature = base64.b64encode(signer.sign(base)).decode("ascii")
    values = (content_digest, f"{_LABEL}={params}", f"{_LABEL}=:{signature}:")
    return dict(zip(HEADERS, values, strict=True))


def verify_message(
    message: Message, headers: Mapping[str, str], keyring: Keyring, *, received_s: float, max_age_s: float
) -> KeyEntry | None:
    """Check the signature of a request.

    Args:
        message: The request as it came.
        headers: Those of `HEADERS` that it had, names in lower case.
        keyring: The keys.
        received_s: When it came, seconds since 1970.
        max_age_s: How far `created` may lie from that, either way.

    Returns:
        The key that signed it; `None` if there is no signature, or none of a key whose message key is known.

    Raises:
        BadSignatureError: There is one, and it is not valid.
    """
    if "signature" not in headers and "signature-input" not in headers:
        return None
    claim = _read_claim(headers)
    entry = keyring.find(claim.key_id)
    if entry is not None and entry.message_key is None:
        return None
    if abs(received_s - claim.created_s) > max_age_s or (
        claim.expires_s is not None and received_s > claim.expires_s
    ):
        raise _refused(
            MessageRefusal.AGE, f"found one made more than {max_age_s:g} s from its arrival, or expired"
        )
    content_digest = headers.get(CONTENT_DIGEST, "")
    if not digest_matches(content_digest, message.body):
        raise _refused(MessageRefusal.DIGEST, "found a Content-Digest that is not the body's")
    base = signature_base(claim.components, claim.params, _values(message, content_digest))
    if entry is None or entry.message_key is None:
        # As much work as with a key that exists, so that the time does not tell which ids do.
        _NOBODY[claim.algorithm == _ALGORITHMS[False]].verifies(base, claim.signature)
        raise _refused(MessageRefusal.KEY, "found one that no valid key verifies")
    is_true = entry.message_key.verifies(base, claim.signature)
    expected = _ALGORITHMS[isinstance(entry.message_key, HmacKey)]
    if not is_true or claim.algorithm not in (None, expected):
        raise _refused(MessageRefusal.FALSE, "found one that no valid key verifies")
    return entry


def require_message_key(entry: KeyEntry | None) -> KeyEntry:
    """Return the key that signed a request, where every request must be signed.

    Raises:
        BadSignatureError: It was not, or its key has no message key here.
    """
    if entry is None:
        raise _refused(MessageRefusal.MISSING, "found none that can be checked")
    return entry


def signature_base(components: Sequence[str], params: str, values: Mapping[str, str]) -> bytes:
    """Return what is signed (RFC 9421 §2.5).

    Args:
        components: Names of the covered components, in the signature's order.
        params: The signature's parameters as serialized, the list of components included.
        values: Value of each component.
    """
    lines = [f'"{name}": {values[name]}' for name in components]
    return "\n".join([*lines, f'"@signature-params": {params}']).encode("utf-8", "replace")


def digest_matches(content_digest: str, body: bytes) -> bool:
    """Whether a Content-Digest header (RFC 9530) names at least one digest known here, and each of those is the body's."""
    known = 0
    for member in content_digest.split(","):
        match = _BYTES.fullmatch(member.strip(" \t"))
        if match is None:
            return False
        digest = _HASHES.get(match[1])
        if digest is not None:
            known += 1
            if not hmac.compare_digest(digest(body).digest(), _decode(match[2])):
                return False
    return known > 0


def normalise_authority(authority: str) -> str:
    """Return host and port as they are signed: in lower case, without a default port (RFC 9421 §2.2.3).

    >>> normalise_authority("Backend.Example:443"), normalise_authority("127.0.0.1:8080")
    ('backend.example', '127.0.0.1:8080')
    """
    authority = authority.lower()
    for port in _DEFAULT_PORTS:
        authority = authority.removesuffix(port)
    return authority


def _values(message: Message, content_digest: str) -> dict[str, str]:
    values = (message.method, normalise_authority(message.authority), message.path, content_digest)
    return dict(zip(COVERED, values, strict=True))


def _read_claim(headers: Mapping[str, str]) -> _Claim:
    values = [headers.get(name, "") for name in HEADERS]
    if any(len(value) > HEADER_CHARACTERS_MAX for value in values):
        raise _refused(
            MessageRefusal.MALFORMED, f"found a header of more than {HEADER_CHARACTERS_MAX} characters"
        )
    stated = _INPUT.fullmatch(headers.get("signature-input", ""))
    given = _BYTES.fullmatch(headers.get("signature", ""))
    if stated is None or given is None or stated[1] != given[1]:
        raise _refused(MessageRefusal.MALFORMED, "found headers that are not one signature with its input")
    components = tuple(item[1:-1] for item in _ITEMS.findall(stated[3]))
    if sorted(components) != sorted(COVERED):
        raise _refused(MessageRefusal.MALFORMED, "found one over other components")
    parameters = _PARAMETER.findall(stated[4])
    strings = {name: _unquote(string) for name, string, _ in parameters if string}
    integers = {name: int(integer) for name, _, integer in parameters if integer}
    names = [name for name, _, _ in parameters]
    if len(set(names)) != len(names) or "created" not in integers or "keyid" not in strings:
        raise _refused(
            MessageRefusal.MALFORMED, "found one without created and keyid, or with a parameter twice"
        )
    return _Claim(
        params=stated[2],
        components=components,
        created_s=integers["created"],
        expires_s=integers.get("expires"),
        key_id=strings["keyid"],
        algorithm=strings.get("alg"),
        signature=_decode(given[2]),
    )


def _unquote(string: str) -> str:
    return re.sub(r"\\(.)", r"\1", string[1:-1])


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _refused(reason: MessageRefusal, found: str) -> BadSignatureError:
    covered = " ".join(COVERED)
    return BadSignatureError(
        f"Signature: {found}; allowed: one by RFC 9421 over {covered}, made with the message key", reason
    )
