"""`python -m bench.records FILE`: signed records for Locust and k6, one a line.

Signed as the environment says, with the agent's variables: PCS_SIGN_ALG, PCS_HMAC_KEY, PCS_ED25519_SECRET_B64. Each call
makes records of its own: their epochs begin with the milliseconds since 1970, unless told otherwise.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path

from bench.pool import make_records
from pcs_core.record import encode_record
from pcs_core.signing import Ed25519SecretKey, HmacKey, Signer, SigningAlgorithm, decode_key_base64


def signer_of(environ: Mapping[str, str]) -> Signer | None:
    """Return what signs; `None` where signing is off.

    Raises:
        KeyError: A variable is missing.
        KeyMaterialError: A key is none.
    """
    match SigningAlgorithm(environ.get("PCS_SIGN_ALG") or "none"):
        case SigningAlgorithm.HMAC:
            return HmacKey(environ["PCS_HMAC_KEY"].encode())
        case SigningAlgorithm.ED25519:
            return Ed25519SecretKey(decode_key_base64(environ["PCS_ED25519_SECRET_B64"]))
        case SigningAlgorithm.NONE:
            return None


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="bench.records", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=10_000, help="how many (default: 10,000)")
    parser.add_argument("--first-epoch", type=int, default=int(time.time() * 1_000))
    arguments = parser.parse_args()
    with arguments.file.open("wb") as file:
        for record in make_records(signer_of(os.environ), arguments.count, arguments.first_epoch):
            file.write(encode_record(record) + b"\n")


if __name__ == "__main__":
    main()
