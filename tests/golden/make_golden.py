"""Write the golden vectors, sharing no code with the project.

Plain json, hashlib, hmac, decimal, fractions and cryptography's Ed25519: whoever writes a signer in another language
can do the same with what that language has. `python tests/golden/make_golden.py` writes the files beside it; a test
compares what it would write with what is committed, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import statistics
import sys
from decimal import Context, Decimal
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HMAC_KEY = b"golden hmac key, not a secret"
ED25519_SEED = bytes(range(32))
_CONTEXT = Context(prec=2000)

# Every number of contract §2's rules, in the contract's own words beside it.
NUMBERS = [
    (1.0, "a whole number keeps its fraction"),
    (0.0, "zero"),
    (-0.0, "negative zero becomes 0.0"),
    (-1e-10, "a negative number that rounds to zero becomes 0.0"),
    (0.5, "exact"),
    (2.0**-10, "a tenth decimal of 5 that is exact in binary: a tie, to even: 0.0009765625 → 0.000976562"),
    (3 * 2.0**-10, "the tie above that rounds up: 0.0029296875 → 0.002929688"),
    (-(2.0**-10), "a tie, negative"),
    (-3 * 2.0**-10, "a tie, negative, away from zero"),
    (0.1 + 0.2, "0.30000000000000004"),
    (5e-05, "exponent form starts below 1e-4"),
    (0.0001, "the last one without exponent"),
    (1e-9, "the smallest step"),
    (5e-10, "its binary value is just above the tie"),
    (1.5e-9, "its binary value is just above the tie"),
    (2.5e-9, "its binary value is just above the tie"),
    (-5e-10, "negative"),
    (4.9e-10, "rounds to zero"),
    (-1.234567891234, "negative numbers round as positive ones do"),
    (-2.0000000005, "negative, near a tie"),
    (1.0000000005, "near a tie"),
    (0.8888888888888888, "truncation would give …888"),
    (1.1368083015, "ten decimals"),
    (1234567.0000000005, "fewer than nine decimals are left at this size"),
    (8388608.0009765625, "a tie at a larger size"),
    (1e15, "no exponent"),
    (1e16, "exponent form starts at 1e16"),
    (1e22, "the largest power of ten that is exact"),
    (-1e22, "negative and large"),
    (1.7976931348623157e308, "the largest number"),
    (5e-324, "the smallest number"),
]

# Certificate Transparency's published test tree (google/certificate-transparency, merkle_tree_test).
CT_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def round9(value: float) -> float:
    """Round the exact binary value to nine decimals, ties to even, without negative zero."""
    exact = Fraction(value)
    steps = round(exact * 10**9)  # a Fraction rounds half to even, exactly
    rounded = float(Fraction(steps, 10**9))
    if rounded != float(Decimal(value).quantize(Decimal("1e-9"), context=_CONTEXT)):
        raise AssertionError("fractions and decimal disagree")
    return rounded if steps else 0.0


def payloads(subset: dict[str, object]) -> tuple[str, str]:
    """Return both accepted spellings of the signed payload."""
    rounded = {key: round9(value) if isinstance(value, float) else value for key, value in subset.items()}
    shortest = json.dumps(rounded, sort_keys=True, separators=(",", ":"))
    members = []
    for key in sorted(rounded):
        value = rounded[key]
        if isinstance(value, float):
            text = format(Decimal(value).quantize(Decimal("1e-9"), context=_CONTEXT), "f")
        else:
            text = json.dumps(value)
        members.append(f'"{key}":{text}')
    return shortest, "{" + ",".join(members) + "}"


def signing_case(name: str, note: str, **fields: object) -> dict[str, object]:
    """Return one vector: the fields as sent, and everything that follows from them."""
    root = hashlib.sha256(name.encode()).hexdigest()
    subset: dict[str, object] = {
        "merkle_root": root,
        "epoch": 7,
        "shard_id": "shard-a",
        "D_hat": 0.868263374,
        "coh_star": 0.83,
        "r": 0.41,
        "budget": 0.443,
    } | fields
    named = "|".join(str(subset[key]) for key in ("merkle_root", "epoch", "shard_id"))
    subset["pcs_id"] = hashlib.sha256(named.encode("ascii")).hexdigest()
    shortest, fixed = payloads(subset)
    secret = Ed25519PrivateKey.from_private_bytes(ED25519_SEED)
    case: dict[str, object] = {"name": name, "note": note, "signed": subset}
    for spelling, payload in (("shortest", shortest), ("fixed_point", fixed)):
        digest = hashlib.sha256(payload.encode("ascii")).digest()
        case[spelling] = {
            "payload": payload,
            "digest": digest.hex(),
            "hmac": base64.b64encode(hmac.new(HMAC_KEY, digest, hashlib.sha256).digest()).decode("ascii"),
            "ed25519": base64.b64encode(secret.sign(digest)).decode("ascii"),
        }
    return case


def signing() -> dict[str, object]:
    """Return the vectors of contract §2."""
    cases = [signing_case("plain", "what an agent sends")]
    cases += [
        signing_case(f"d_hat {index}", note, D_hat=number) for index, (number, note) in enumerate(NUMBERS)
    ]
    cases += [
        signing_case("all four", "small numbers in every field", coh_star=5e-05, r=1e-9, budget=2.0**-10),
        signing_case("epoch 0", "the least epoch", epoch=0),
        signing_case("epoch 2^53-1", "the greatest epoch", epoch=2**53 - 1),
        signing_case("shard characters", "every kind of character", shard_id="Az09._:/@+-"),
        signing_case("long shard", "128 characters", shard_id="s" * 128),
    ]
    return {
        "hmac_key_utf8": HMAC_KEY.decode("ascii"),
        "ed25519_seed_base64": base64.b64encode(ED25519_SEED).decode("ascii"),
        "ed25519_public_base64": base64.b64encode(
            Ed25519PrivateKey.from_private_bytes(ED25519_SEED).public_key().public_bytes_raw()
        ).decode("ascii"),
        "cases": cases,
        "refused_shard_ids": ["", "schürfer", "a|b", "a b", "a\n", "s" * 129, "a\u0000", "ａ"],
    }


def rounding() -> list[dict[str, object]]:
    """Return numbers with their hexadecimal form, which no decimal parser can disturb."""
    return [
        {"note": note, "number": number, "hex": number.hex(), "rounded": round9(number)}
        for number, note in NUMBERS
    ]


def tree_hash(leaves: list[bytes]) -> bytes:
    """Return RFC 6962 §2.1's MTH, as the RFC defines it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def merkle() -> list[dict[str, object]]:
    """Return trees with their roots: the published ones as published, then some of this contract's leaves."""
    cases: list[dict[str, object]] = [
        {"note": f"certificate-transparency, {size} leaves", "leaves_hex": CT_LEAVES[:size], "root": root}
        for size, root in enumerate(CT_ROOTS)
    ]
    own = {
        "[a, b, c]": [b"a", b"b", b"c"],
        "[a, b, c, c]": [b"a", b"b", b"c", b"c"],
        "17 leaves of one byte": [bytes([index]) for index in range(17)],
        "numeric columns 1.0 and -0.5 as little-endian float64": [
            bytes.fromhex("000000000000f03f" + "000000000000e0bf")
        ],
        "UTF-8 text": ["grün".encode()],
        "tokens 1 and 50256 as little-endian uint32": [bytes.fromhex("01000000" + "50c40000")],
    }
    cases += [
        {"note": note, "leaves_hex": [leaf.hex() for leaf in leaves], "root": tree_hash(leaves).hex()}
        for note, leaves in own.items()
    ]
    return cases


def budget() -> list[dict[str, object]]:
    """Return budgets and regimes with the default parameters, in exact decimal arithmetic."""
    cases = []
    for d_hat, coh_star, r in [
        ("1", "0.5", "1"),
        ("0.868263374", "0.83", "0.41"),
        ("1.5", "0.7", "0.5"),
        ("1.500000001", "0.7", "0.5"),
        ("1.5", "0.699999999", "0.5"),
        ("2.2", "0", "0"),
        ("2.3", "0.1", "0.25"),
        ("2.6", "0.9", "1"),
        ("2.599999999", "0.9", "1"),
        ("2.6", "0.7", "1"),
        ("4", "1", "0"),
        ("-3", "0", "1"),
        ("0", "-5", "1"),
        ("0", "0", "9"),
    ]:
        exact = (
            Decimal("0.10")
            + Decimal("0.30") * (1 - Decimal(r))
            + Decimal("0.50") * max(Decimal(0), Decimal(d_hat) - Decimal("2.2"))
            + Decimal("0.20") * Decimal(coh_star)
        )
        exact = min(Decimal(1), max(Decimal(0), exact))
        if Decimal(coh_star) >= Decimal("0.70") and Decimal(d_hat) <= Decimal("1.5"):
            regime = "sticky"
        else:
            regime = "non_sticky" if Decimal(d_hat) >= Decimal("2.6") else "mixed"
        cases.append(
            {
                "D_hat": float(d_hat),
                "coh_star": float(coh_star),
                "r": float(r),
                "budget": round9(float(exact)),
                "regime": regime,
            }
        )
    return cases


def slope() -> list[dict[str, object]]:
    """Return scales and counts with their Theil–Sen slope: odd and even numbers of pairs, falling counts, ties."""
    cases = []
    for counts in [
        {2: 4, 4: 16},
        {2: 3, 4: 5, 8: 9, 16: 17, 32: 32},
        {1: 1, 2: 3, 4: 7, 8: 20},
        {2: 9, 3: 7, 5: 100, 7: 1},
        {10: 5, 20: 5, 40: 5},
        {1: 1, 2**53: 2**53 - 1},
        {scale: scale * scale + 1 for scale in range(1, 33)},
    ]:
        points = [(math.log2(scale), math.log2(count)) for scale, count in counts.items()]
        slopes = [(d - b) / (c - a) for (a, b), (c, d) in combinations(points, 2)]
        cases.append(
            {
                "scales": list(counts),
                "N_j": {str(scale): count for scale, count in counts.items()},
                "slope": round9(statistics.median(slopes)),
            }
        )
    return cases


def identity() -> list[dict[str, object]]:
    """Return parts with the `pcs_id` they give."""
    cases = []
    for root, epoch, shard_id in [
        ("00" * 32, 0, "a"),
        ("00" * 32, 1, "shard-a"),
        ("ab" * 32, 2**53 - 1, "Az09._:/@+-"),
        ("ff" * 32, 10, "s" * 128),
    ]:
        text = f"{root}\x7c{epoch}\x7c{shard_id}"
        cases.append(
            {
                "merkle_root": root,
                "epoch": epoch,
                "shard_id": shard_id,
                "pcs_id": hashlib.sha256(text.encode("ascii")).hexdigest(),
            }
        )
    return cases


def least_whole_number_from(bound: Fraction) -> int:
    """Return ⌈bound⌉ of a bound above 0, by counting."""
    whole = 0
    while whole < bound:
        whole += 1
    return whole


def interpolated(scores: list[float], share: Fraction) -> float:
    """Return the quantile on the line through neighbouring scores, of which the first is at 0 and the last at 1."""
    at = [(Fraction(place, len(scores) - 1), Fraction(score)) for place, score in enumerate(scores)]
    for (left, low), (right, high) in pairwise(at):
        if left <= share <= right:
            return float(low + (high - low) * (share - left) / (right - left))
    raise AssertionError("the share lies in [0, 1]")


def conformal() -> list[dict[str, object]]:
    """Return sets of scores with the thresholds of both classes by both methods; none, where there are too few, is null."""
    samples = {
        "five scores support no level below a sixth": [0.1, 0.2, 0.3, 0.4, 0.5],
        "one too few for 5 %": [round9(place / 19) for place in range(1, 19)],
        "just enough for 5 %": [round9(place / 19) for place in range(1, 20)],
        "99, where a hundredth of a level is one score": [
            round9(place**2 / 99**2) for place in range(1, 100)
        ],
        "100": [round9(place**2 / 100**2) for place in range(1, 101)],
        "100, most of them equal": sorted([0.25] * 60 + [0.5] * 30 + [0.75] * 10),
        "100, below zero too": [round9((place - 50) / 7) for place in range(100)],
        "200": [round9(1 - 1 / (1 + place / 20)) for place in range(200)],
    }
    cases = []
    for note, scores in samples.items():
        for written in ("0.01", "0.05", "0.1", "0.29"):
            level, count = Fraction(written), len(scores)
            rank = least_whole_number_from((count + 1) * (1 - level))
            refused_above = scores[rank - 1] if rank <= count else None
            # Seen from above, bad scores are what benign ones are seen from below.
            accepted_below = sorted(scores, reverse=True)[rank - 1] if rank <= count else None
            cases.append(
                {
                    "note": note,
                    "level": float(written),
                    "scores": scores,
                    "order_statistic": {"benign": refused_above, "bad": accepted_below},
                    "interpolated": {
                        "benign": interpolated(scores, 1 - level) if rank <= count else None,
                        "bad": interpolated(scores, level) if rank <= count else None,
                    },
                }
            )
    return cases


def files() -> dict[str, bytes]:
    """Return every golden file's name and bytes."""
    tables = {
        "signing": signing(),
        "rounding": rounding(),
        "merkle": merkle(),
        "budget": budget(),
        "identity": identity(),
        "slope": slope(),
        "conformal": conformal(),
    }
    return {
        f"{name}.json": (json.dumps(table, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode(
            "ascii"
        )
        for name, table in tables.items()
    }


if __name__ == "__main__":
    for name, content in files().items():
        Path(__file__).with_name(name).write_bytes(content)
        sys.stdout.write(f"{name}\n")
