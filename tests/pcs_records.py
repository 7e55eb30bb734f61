"""Records for tests, made without any code of the project: plain json, hashlib, hmac, decimal and cryptography.

Import as `import pcs_records`. A document is a plain dict with the contract's JSON names.

    document = pcs_records.sign(pcs_records.document(epoch=3), hmac_key=b"key")
    body = pcs_records.body(document)
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import math
import statistics
from decimal import Context, Decimal
from itertools import combinations
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Document = dict[str, Any]

SIGNED_FIELDS = ("pcs_id", "merkle_root", "epoch", "shard_id", "D_hat", "coh_star", "r", "budget")
NUMBER_FIELDS = ("D_hat", "coh_star", "r", "budget")
_CONTEXT = Context(prec=2000)
_NINE_DECIMALS = Decimal("1e-9")


def document(**overrides: Any) -> Document:
    """Return an unsigned record that passes every check, with some fields replaced.

    What follows from other fields — `pcs_id`, `D_hat`, `regime`, `budget` — is computed from them unless it is
    replaced itself. Where a replaced field is of a wrong type, what would follow from it is left as it was.
    """
    parts: Document = {
        "schema": "fractal-lba-kakeya",
        "version": "0.1",
        "shard_id": "shard-a",
        "epoch": 7,
        "attempt": 1,
        "sent_at": "2026-11-21T08:15:30.250Z",
        "seed": 42,
        "scales": [2, 4, 8, 16, 32],
        "N_j": {"2": 3, "4": 5, "8": 9, "16": 17, "32": 32},
        "coh_star": 0.83,
        "v_star": [0.6, 0.8, 0.0],
        "r": 0.41,
        "merkle_root": hashlib.sha256(b"merkle root of the example").hexdigest(),
        "sig": "",
        "ft": {"outbox_seq": 12, "degraded": False, "fallbacks": [], "clock_skew_ms": -3},
    }
    derived = _derived(parts)
    parts |= overrides
    with contextlib.suppress(TypeError, ValueError, ArithmeticError, KeyError, AttributeError):
        derived = _derived(parts)
    return {**parts, **derived, **overrides}


def body(document: Document) -> bytes:
    """Return the document as JSON in UTF-8."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8")


def sign(document: Document, *, hmac_key: bytes | None = None, ed25519_seed: bytes | None = None) -> Document:
    """Return the document with the signature of exactly one of the keys, or unsigned without any."""
    if hmac_key is not None and ed25519_seed is not None:
        raise ValueError("give one key")
    signature = b""
    digest = hashlib.sha256(canonical(document)).digest()
    if hmac_key is not None:
        signature = hmac.new(hmac_key, digest, hashlib.sha256).digest()
    if ed25519_seed is not None:
        signature = Ed25519PrivateKey.from_private_bytes(ed25519_seed).sign(digest)
    return {**document, "sig": base64.b64encode(signature).decode("ascii")}


def ed25519_public(seed: bytes) -> bytes:
    """Return the 32-byte public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def canonical(document: Document) -> bytes:
    """Return the signed payload in the agent's spelling (contract §2)."""
    subset = {name: document[name] for name in SIGNED_FIELDS}
    subset |= {name: round9(document[name]) for name in NUMBER_FIELDS}
    return json.dumps(subset, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def fixed_point(document: Document) -> bytes:
    """Return the signed payload in the other accepted spelling, each number with exactly nine decimals."""
    subset = {name: document[name] for name in SIGNED_FIELDS}
    subset |= {name: f"|{round9(document[name]):.9f}|" for name in NUMBER_FIELDS}
    text = json.dumps(subset, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace('"|', "").replace('|"', "").encode("utf-8")


def pcs_id(merkle_root: str, epoch: int, shard_id: str) -> str:
    """Return the hash that names a record."""
    return hashlib.sha256("|".join((merkle_root, str(epoch), shard_id)).encode("ascii")).hexdigest()


def round9(value: float) -> float:
    """Round the exact binary value to nine decimals, ties to even, without negative zero."""
    rounded = float(Decimal(value).quantize(_NINE_DECIMALS, context=_CONTEXT))
    return 0.0 if rounded == 0 else rounded


def slope(scales: list[int], counts: dict[str, int]) -> float:
    """Return the Theil–Sen slope of log2(N_j) on log2(scale), rounded."""
    points = [(math.log2(scale), math.log2(counts[str(scale)])) for scale in scales]
    return round9(statistics.median((d - b) / (c - a) for (a, b), (c, d) in combinations(points, 2)))


def regime(d_hat: float, coh_star: float) -> str:
    """Return the regime of contract §3 with its default thresholds."""
    if coh_star >= 0.70 and d_hat <= 1.5:
        return "sticky"
    return "non_sticky" if d_hat >= 2.6 else "mixed"


def budget(d_hat: float, coh_star: float, r: float) -> float:
    """Return the budget of contract §3 with its default weights, rounded."""
    return round9(min(1.0, max(0.0, 0.10 + 0.30 * (1 - r) + 0.50 * max(0.0, d_hat - 2.2) + 0.20 * coh_star)))


def _derived(parts: Document) -> Document:
    d_hat = parts["D_hat"] if "D_hat" in parts else slope(parts["scales"], parts["N_j"])
    return {
        "pcs_id": pcs_id(parts["merkle_root"], parts["epoch"], parts["shard_id"]),
        "D_hat": d_hat,
        "regime": regime(d_hat, parts["coh_star"]),
        "budget": budget(d_hat, parts["coh_star"], parts["r"]),
    }
