"""Makes the first inputs of each target: from golden vectors, real logs, signed requests and key files.

    PYTHONPATH=tests .venv/bin/python -m fuzz.seeds

What mutations found later, crashes above all, lies beside them in `corpus` and is not made here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pcs_logs
import pcs_records
from fuzz.oracle import CANARY
from fuzz.targets import RECEIVED_S, SALT, SECRET
from pcs_core.keyfile import encode_ed25519_public, encode_ed25519_secret
from pcs_core.keyring import message_ed25519_key, message_hmac_key
from pcs_core.message_signature import Message, sign_message
from pcs_core.signing import Ed25519SecretKey
from pcs_core.wal import NewFrame, PosixFiles, write_snapshot

CORPUS = Path(__file__).parent / "corpus"
GOLDEN = Path(__file__).parents[1] / "golden"
Seeds = Iterator[tuple[str, bytes]]


def records() -> Seeds:
    golden = json.loads((GOLDEN / "signing.json").read_text(encoding="utf-8"))
    for case in golden["cases"][:6]:
        document = pcs_records.document() | case["signed"]
        yield f"golden-{case['name']}".replace(" ", "-"), pcs_records.body(document)
    yield "hmac", pcs_records.body(pcs_records.sign(pcs_records.document(), hmac_key=SECRET))
    yield "ed25519", pcs_records.body(pcs_records.sign(pcs_records.document(), ed25519_seed=bytes(32)))
    for name in ("shard_id", "sent_at", "regime", "sig", "schema", "merkle_root", "N_j", "scales", "ft"):
        yield f"canary-{name}", pcs_records.body(pcs_records.document() | {name: CANARY})
    yield "canary-member", pcs_records.body(pcs_records.document() | {CANARY: 1, "ft": {CANARY: 2}})
    methods = {"r": {"name": "pq-lz", "codes": 256, "lz": True, "codebook": "ab", "length": 0.5}}
    proof = {"suite": "ECVRF-EDWARDS25519-SHA512-TAI", "proof": "A" * 107 + "="}
    yield (
        "methods",
        pcs_records.body(pcs_records.document(version="0.2", methods=methods, direction_proof=proof)),
    )
    yield (
        "canary-methods",
        pcs_records.body(pcs_records.document(version="0.2", methods={"r": {CANARY: CANARY}})),
    )
    yield "leap-second", pcs_records.body(pcs_records.document(sent_at="2016-12-31T23:59:60.5Z"))


def logs() -> Seeds:
    frames = [pcs_logs.frame_of(index) for index in range(4)] + [NewFrame(1, b"", CANARY.encode())]
    with tempfile.TemporaryDirectory() as folder:
        pcs_logs.write(Path(folder) / "open", frames)
        pcs_logs.write(Path(folder) / "sealed", frames, segment_bytes=200)
        whole = pcs_logs.segments(Path(folder) / "open")[0].read_bytes()
        sealed = pcs_logs.segments(Path(folder) / "sealed")[0].read_bytes()
    yield "open", whole
    yield "sealed", sealed
    yield "torn", whole[:-7]
    yield "header-alone", whole[: pcs_logs.HEADER_BYTES]
    yield "flipped", whole[:90] + bytes((whole[90] ^ 1,)) + whole[91:]
    last = pcs_logs.raw_frame(frames[0], 2**64 - 1, SALT)
    yield "last-number", pcs_logs.raw_segment_header(1, SALT) + last
    yield (
        "last-number-but-one",
        whole[:28] + pcs_logs.raw_frame(frames[0], 2**63 - 2, SALT) + b"torn" * 20,
    )
    yield "last-number-header", pcs_logs.raw_segment_header(2**64 - 1, SALT) + last
    yield (
        "swapped",
        whole[:28] + pcs_logs.raw_frame(frames[1], 2, SALT) + pcs_logs.raw_frame(frames[0], 1, SALT),
    )


def snapshots() -> Seeds:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot"
        frames = [pcs_logs.frame_of(index) for index in range(3)]
        for name, held in (("empty", []), ("three", frames)):
            write_snapshot(PosixFiles(), lambda size_bytes: SALT[:size_bytes], str(path), held)
            yield name, path.read_bytes()
        yield "cut", path.read_bytes()[:-9]


def signatures() -> Seeds:
    message = Message("POST", "backend.example:8443", "/v1/pcs/submit", b'{"pcs_id": 1}')
    keys = (("mac", message_hmac_key(SECRET)), ("ed", message_ed25519_key(bytes(32))))
    start = "\n".join(message[:3])
    for key_id, key in keys:
        headers = sign_message(message, key, key_id, int(RECEIVED_S))
        lines = "\n".join([start, *headers.values()])
        yield key_id, f"{lines}\n\n".encode() + message.body
        yield (
            f"{key_id}-expired",
            f"{lines}\n\n".replace(";keyid", ";expires=1;keyid").encode() + message.body,
        )
    yield "unknown-key", f"{lines}\n\n".replace('"ed"', f'"{CANARY}"').encode() + message.body
    yield (
        "two-digests",
        f"{lines}\n\n".replace("sha-256=", "sha-512=:AA==:, sha-256=").encode() + message.body,
    )
    yield "escaped", f"{lines}\n\n".replace('"ed"', '"a\\"\\\\b"').encode() + message.body
    # RFC 9421, B.2.5: other components than ours.
    rfc = 'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
    signature = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"
    yield "rfc-9421-b25", f"POST\nexample.com\n/foo\n\n{rfc}\n{signature}\n\n{{}}".encode()


KEY_FILE = f"""[[keys]]
id = "plant-7"
algorithm = "hmac"
secret = "{CANARY}"
tenant = "plants"
shards = ["plant-7/*", "spare"]
not_before = 2026-11-21T00:00:00Z
not_after = 2027-11-21T00:00:00+01:00
revoked = false

[[keys]]
id = "pub"
algorithm = "ed25519"
public_key = "file:pem"
message_public_key = "env:PEM"

[[peers]]
name = "gateway-1.example"
tenant = "plants"

[tenants.plants]
rate = 100.0
daily = 1000000
"""


def key_files() -> Seeds:
    yield "whole", KEY_FILE.encode()
    first = KEY_FILE.split("\n\n", maxsplit=1)[0] + "\n"
    secret = f'secret = "{CANARY}"'
    for name, line in (
        ("env", 'secret = "env:KEY"'),
        ("file", 'secret = "file:key"'),
        ("no-file", f'secret = "file:{CANARY}"'),
        ("nul-in-file", 'secret = "file:\\u0000"'),
        ("nul-in-variable", 'secret = "env:\\u0000"'),
        ("public", f'public_key = "{CANARY}"'),
        ("unknown", f'{CANARY} = "{CANARY}"'),
        ("long-number", "secret = " + "9" * 5_000),
        ("deep", "secret = " + "[" * 3_000),
        ("bad-escape", f'secret = "\\{CANARY}"'),
    ):
        yield name, first.replace(secret, line).encode()
    yield "first-year", first.replace("2026-11-21T00:00:00Z", "0001-01-01T00:00:00+23:59").encode()
    yield "last-year", first.replace("2027-11-21T00:00:00+01:00", "9999-12-31T23:59:59-23:59").encode()
    yield "no-number", b"[tenants.plants]\nrate = nan\ndaily = 1\n"
    yield "endless", b"[tenants.plants]\nrate = inf\n"


def ed25519_keys() -> Seeds:
    key = Ed25519SecretKey(bytes(32))
    yield "secret-pem", encode_ed25519_secret(key)
    yield "public-pem", encode_ed25519_public(key.public_bytes)
    yield "base64", b"A" * 43 + b"=\n"
    yield "canary", CANARY.encode()
    yield "short-x448-pem", encode_ed25519_secret(key).replace(b"K2Vw", b"K2Vv")
    yield "broken-pem", encode_ed25519_secret(key).replace(b"MC4C", CANARY.encode())


def params_files() -> Seeds:
    yield "whole", b'version = "2026-11"\ntol_d = 0.15\nalpha = 0.3\n'
    yield "unknown", f'version = "1"\n{CANARY} = 1\n'.encode()
    yield "no-number", b'version = "1"\ntol_d = nan\n'
    yield "long-number", b'version = "1"\ntol_d = ' + b"9" * 5_000
    yield "deep", b"version = " + b"[" * 3_000


def requests() -> Seeds:
    for name, data in signatures():
        head, _, body = data.partition(b"\n\n")
        if name == "mac":
            names = (b"content-digest", b"signature-input", b"signature")
            values = head.split(b"\n")[3:]
            headers = b"\n".join(b":".join(pair) for pair in zip(names, values, strict=True))
            yield "signed", b"/v1/pcs/submit\napplication/json\ngateway-1\n" + headers + b"\n\n" + body
    yield "plain", b"/v1/pcs/submit\napplication/json\n\n\n\n" + bytes(range(256))


def answers() -> Seeds:
    receipt = {"pcs_id": "ab" * 32, "accepted": True, "escalated": False, "reasons": []}
    dates = b"7\nSat, 21 Nov 2026 16:00:00 GMT\n"
    yield "accepted", dates + json.dumps(receipt).encode()
    escalated = receipt | {
        "accepted": False,
        "escalated": True,
        "reasons": ["degraded", CANARY + "\x1b[31m"] * 9,
    }
    yield "escalated", b"Sat, 21 Nov 2026 16:00:00 GMT\nsoon\n" + json.dumps(escalated).encode()
    yield "problem", b"0\n\n" + json.dumps({"type": "urn:pcs:problem:malformed", "detail": CANARY}).encode()
    yield "deep", b"99999999999999999999\nFri, 31 Dec 9999 23:59:59 -2359\n" + b"[" * 3_000


SEEDS = {
    "record": records,
    "wal": logs,
    "wal_open": logs,
    "snapshot": snapshots,
    "signature": signatures,
    "keys": key_files,
    "ed25519": ed25519_keys,
    "params": params_files,
    "inbox": requests,
    "answer": answers,
}


def main() -> None:
    for target, seeds in SEEDS.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
