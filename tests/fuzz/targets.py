"""The parsers that meet bytes of strangers or of a damaged disk. Each takes bytes and raises only if a promise is broken.

Errors that a parser documents are caught and read for the canary; every other one is a crash. What passes must make the
round trip that is defined for it. Checksums and signatures would stop a mutation at the door: targets that have them
also run the input with them made right.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from fuzz.oracle import CANARY, ensure, ensure_clean
from pcs_agent.deliver.policy import (
    REASONS_MAX,
    RETRY_AFTER_S_MAX,
    parse_http_date,
    parse_retry_after,
    read_receipt,
    reasons_of,
    verdict_of,
)
from pcs_agent.deliver.transport import Answer
from pcs_backend.exchange import Envelope, Request
from pcs_backend.inbox.frames import decode_request, request_frame
from pcs_core.canonical import canonical_payload, fixed_point_payload, round9
from pcs_core.errors import (
    BadSignatureError,
    IdentityError,
    KeyMaterialError,
    KeyringError,
    MalformedError,
    ParamsError,
    WalError,
)
from pcs_core.keyfile import (
    encode_ed25519_public,
    encode_ed25519_secret,
    parse_ed25519_public,
    parse_ed25519_secret,
)
from pcs_core.keyring import KeyEntry, Keyring, entry_of_secret, message_ed25519_key, message_hmac_key
from pcs_core.keyring_file import parse_key_file
from pcs_core.message_signature import (
    CONTENT_DIGEST,
    COVERED,
    HEADERS,
    Message,
    digest_matches,
    normalise_authority,
    sign_message,
    verify_message,
)
from pcs_core.params import Params, parse_params
from pcs_core.record import check_identity, decode_record, encode_record, sent_at_s
from pcs_core.signing import Ed25519SecretKey, HmacKey
from pcs_core.verify import verify
from pcs_core.wal import NewFrame, PosixFiles, Wal, check_log, read_snapshot, repair_log, write_snapshot
from pcs_core.wal.frame import decode_segment_header, encode_frame
from pcs_core.wal.scan import SegmentScan

SECRET = b"the fuzzers' own key"
SALT = b"saltsalt"
RECEIVED_S = 1_795_248_000.0
AGE_S_MAX = 300.0
SEGMENT_HEADER_BYTES = FRAME_HEADER_BYTES = 28


class Target(NamedTuple):
    """One parser.

    Attributes:
        run: Takes the bytes.
        words: What a mutation may put in as a whole.
    """

    run: Callable[[bytes], None]
    words: tuple[bytes, ...]


# --- record -----------------------------------------------------------------------------------------------------------


def run_record(data: bytes) -> None:
    """Body of a submit: decoding, identity, both canonical payloads, signature, verdict."""
    try:
        record = decode_record(data)
    except MalformedError as error:
        ensure_clean(error)
        return
    ensure(decode_record(encode_record(record)) == record, "a record is another one after encoding")
    ensure(math.isfinite(sent_at_s(record)), "sent_at is no finite time")
    digest = hashlib.sha256(f"{record.merkle_root}|{record.epoch}|{record.shard_id}".encode("ascii"))
    try:
        check_identity(record)
        ensure(record.pcs_id == digest.hexdigest(), "a false pcs_id passes")
    except IdentityError as error:
        ensure_clean(error)
        ensure(record.pcs_id != digest.hexdigest(), "a true pcs_id is refused")
    numbers = {"D_hat": record.d_hat, "coh_star": record.coh_star, "r": record.r, "budget": record.budget}
    signed = {"pcs_id": record.pcs_id, "merkle_root": record.merkle_root, "epoch": record.epoch}
    signed |= {"shard_id": record.shard_id} | {name: round9(number) for name, number in numbers.items()}
    shortest = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    ensure(canonical_payload(record) == shortest, "the canonical payload is not that of json.dumps")
    fixed = json.loads(fixed_point_payload(record))
    ensure(fixed == signed, "the two spellings name different values")
    try:
        keyring().verify(record, RECEIVED_S)
    except (MalformedError, BadSignatureError) as error:
        ensure_clean(error)
    verdict = verify(record, Params())
    ensure(0 <= verdict.recomputed.budget <= 1, "a recomputed budget lies outside 0 to 1")


# --- log --------------------------------------------------------------------------------------------------------------


def run_wal(data: bytes) -> None:
    """Bytes of one segment through the scan: as they are, and with every checksum made right."""
    for image in {data, with_checksums(data)}:
        first = (decode_segment_header(image) or (SALT, 1))[1]
        for next_first in (None, first + 3):
            scan_segment(image, first, next_first)


def scan_segment(image: bytes, first: int, next_first: int | None) -> None:
    scan = SegmentScan("segment", image, SALT, first, floor=first - 1, next_first=next_first)
    highest = -1
    count = 0
    for offset, size_bytes, frame in scan:
        ensure(frame.sequence > highest, "numbers of a segment do not rise")
        ensure(next_first is None or frame.sequence < next_first, "a frame of another segment is taken")
        written = NewFrame(frame.kind, frame.envelope, frame.payload)
        bare = bytearray(image[offset : offset + size_bytes])
        bare[6:8] = bytes(2)  # reserved
        ensure(
            with_frame_checksums(bytes(bare)) == encode_frame(written, frame.sequence, SALT),
            "a frame is another one after encoding",
        )
        highest = frame.sequence
        count += 1
    ensure(scan.count == count, "the count of frames is wrong")
    ensure(0 <= scan.valid_bytes <= len(image), "the good bytes end outside the segment")
    ensure(scan.sequence_floor() >= scan.sequence_max >= highest, "a number may be given twice")
    for damage in scan.damages:
        ensure(0 <= damage.offset <= damage.offset + damage.size_bytes <= len(image), "damage lies outside")


def run_wal_open(data: bytes) -> None:
    """Bytes of a log's only segment through files: check, opening, writing, opening again, repair."""
    image = with_checksums(data)
    with empty_folder() as folder:
        (folder / "00000000000000000001.wal").write_bytes(image)
        try:
            check_log(str(folder), PosixFiles())
            before, sequence = open_and_write(folder)
            after, _ = open_and_write(folder)
        except WalError as error:
            ensure_clean(error)
            return
        ensure(after == [*before, sequence], "the second opening finds other frames")
        repair_log(str(folder), PosixFiles())
        again, _ = open_and_write(folder)
        ensure(set(after) <= set(again), "a repair loses a frame")


def open_and_write(folder: Path) -> tuple[list[int], int]:
    """Return the numbers that an opening visits, and that of the frame written then."""
    visited: list[int] = []
    wal = Wal(str(folder), PosixFiles(), lambda size_bytes: SALT[:size_bytes])
    wal.open(lambda position, frame: visited.append(frame.sequence))
    try:
        sequence = wal.commit([NewFrame(1, b"", CANARY.encode())])[0].sequence
    finally:
        wal.close()
    ensure(visited == sorted(set(visited)), "numbers of a log do not rise")
    ensure(not visited or sequence > visited[-1], "a number is given twice")
    return visited, sequence


def run_snapshot(data: bytes) -> None:
    """Bytes of a snapshot: all of it or none."""
    for image in {data, with_checksums(data)}:
        with empty_folder() as folder:
            path = folder / "snapshot"
            path.write_bytes(image)
            try:
                frames = read_snapshot(PosixFiles(), str(path))
            except WalError as error:
                ensure_clean(error)
                continue
            written = [NewFrame(frame.kind, frame.envelope, frame.payload) for frame in frames]
            write_snapshot(PosixFiles(), lambda size_bytes: SALT[:size_bytes], str(path), written)
            again = [
                NewFrame(each.kind, each.envelope, each.payload)
                for each in read_snapshot(PosixFiles(), str(path))
            ]
            ensure(again == written, "a snapshot is another one after writing")


def with_checksums(data: bytes) -> bytes:
    """Return a segment with header, salt and every frame's checksums made right where it has the bytes of one."""
    header = data[: SEGMENT_HEADER_BYTES - 4]
    if len(data) < SEGMENT_HEADER_BYTES:
        return data
    header = header[:8] + SALT + header[16:]
    image = header + struct.pack("<I", google_crc32c.value(header))
    offset = SEGMENT_HEADER_BYTES
    while (start := data.find(b"PCSF", offset)) != -1 and len(data) >= start + FRAME_HEADER_BYTES + 4:
        image += data[offset:start]
        envelope_bytes, payload_bytes = struct.unpack_from("<II", data, start + 16)
        end = start + FRAME_HEADER_BYTES + envelope_bytes + payload_bytes + 4
        image += with_frame_checksums(data[start:end])
        offset = end
    return image + data[offset:]


def with_frame_checksums(frame: bytes) -> bytes:
    """Return a frame under `SALT`; one that is cut short gets the header's checksum alone."""
    header = frame[:24]
    header_crc = struct.pack("<I", google_crc32c.value(SALT + header))
    envelope_bytes, payload_bytes = struct.unpack_from("<II", frame, 16)
    content = frame[28 : 28 + envelope_bytes + payload_bytes]
    if len(frame) < 32 + envelope_bytes + payload_bytes:
        return header + header_crc + frame[28:]
    return header + header_crc + content + struct.pack("<I", google_crc32c.value(SALT + header_crc + content))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for the process, in memory where the machine has one: a run writes it some thousand times a second."""
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="pcs-fuzz-", dir=shared if shared.is_dir() else None)


@contextmanager
def empty_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_scratch().name) as folder:
        yield Path(folder)


# --- signatures of requests -------------------------------------------------------------------------------------------


def named_bytes(content_digest: str) -> list[bytes]:
    """Return what stands between colons in a Content-Digest, decoded; base64 spells some bytes in several ways."""
    texts = re.findall(r":([A-Za-z0-9+/]*)=*:", content_digest)
    return [base64.b64decode(f"{text}==") for text in texts if len(text) % 4 != 1]


def run_signature(data: bytes) -> None:
    """A request: method, authority, path, three headers, a line each; an empty line; the body."""
    head, _, body = data.partition(b"\n\n")
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    method, authority, path, *values = [*lines, "", "", "", "", "", ""][:6]
    message = Message(method, authority, path, body)
    headers = {name: value for name, value in zip(HEADERS, values, strict=True) if value}
    true = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
    if digest_matches(headers.get(CONTENT_DIGEST, ""), body):
        digests = (hashlib.sha256(body).digest(), hashlib.sha512(body).digest())
        named = named_bytes(headers[CONTENT_DIGEST])
        ensure(any(digest in named for digest in digests), "a false digest matches")
    check_message(message, headers)
    check_message(message, headers | {CONTENT_DIGEST: true})
    check_message(message, truly_signed(message, headers | {CONTENT_DIGEST: true}))
    for key_id, signer in (("mac", message_hmac_key(SECRET)), ("ed", message_ed25519_key(bytes(32)))):
        signed = sign_message(message, signer, key_id, int(RECEIVED_S))
        entry = check_message(message, signed)
        ensure(entry is not None and entry.key_id == key_id, "a true signature is refused")
        changed = message._replace(body=body + b" ")
        ensure(check_message(changed, signed) is None, "a changed body passes")


def check_message(message: Message, headers: dict[str, str]) -> KeyEntry | None:
    try:
        entry = verify_message(message, headers, keyring(), received_s=RECEIVED_S, max_age_s=AGE_S_MAX)
    except BadSignatureError as error:
        ensure_clean(error)
        return None
    if entry is not None:
        covered = re.findall(r'"([^"]*)"', headers["signature-input"].partition(")")[0])
        ensure(sorted(covered) == sorted(COVERED), "a signature over other components passes")
        ensure(digest_matches(headers[CONTENT_DIGEST], message.body), "a digest of another body passes")
    return entry


def truly_signed(message: Message, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers with a signature that is true for what they say is signed."""
    label, _, params = headers.get("signature-input", "").partition("=")
    components = re.findall(r'"([^"]*)"', params.partition(")")[0])
    values = (message.method, normalise_authority(message.authority), message.path, headers[CONTENT_DIGEST])
    value_of = dict(zip(COVERED, values, strict=True))
    lines = [f'"{name}": {value_of.get(name, "")}' for name in components]
    base = "\n".join([*lines, f'"@signature-params": {params}']).encode("utf-8", "replace")
    signature = base64.b64encode(message_hmac_key(SECRET).sign(base)).decode()
    return headers | {"signature": f"{label}=:{signature}:"}


@cache
def keyring() -> Keyring:
    secret = Ed25519SecretKey(bytes(32))
    mac = KeyEntry(key_id="mac", record_key=HmacKey(SECRET), message_key=message_hmac_key(SECRET))
    ed = KeyEntry(key_id="ed", record_key=secret.public, message_key=message_ed25519_key(secret.seed).public)
    return Keyring([mac, ed, entry_of_secret(CANARY.encode())])


# --- files of the operator --------------------------------------------------------------------------------------------


def run_keys(data: bytes) -> None:
    """A key file, and what it names."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    environ = {"KEY": CANARY, "PEM": _pem().decode()}
    try:
        file = parse_key_file(text, environ, read_key)
    except KeyringError as error:
        ensure_clean(error)
        return
    Keyring(file.entries)
    for entry in file.entries:
        ensure(entry.not_before_s < entry.not_after_s, "a key that never counts is taken")
        shown = (
            entry.key_id,
            entry.tenant,
            *entry.shards,
        )  # an operator who writes a secret there has told it
        ensure(CANARY not in repr(entry) or any(CANARY in each for each in shown), "a key prints")
        entry.refusal(RECEIVED_S, "plant-7/line-1")
    for limits in file.limits.values():
        ensure(0 <= limits.rate <= 1_000_000 and limits.daily >= 0, "a limit out of bounds is taken")


def read_key(name: str) -> bytes:
    """Read a file that a key file names, as the backend does, but of one folder alone."""
    folder = _key_folder()
    if "/" in name or name in {"", ".", ".."}:
        raise FileNotFoundError(2, "No such file or directory")
    with open(folder / name, "rb") as file:
        return file.read()


@cache
def _key_folder() -> Path:
    folder = Path(tempfile.mkdtemp(dir=_scratch().name))
    (folder / "key").write_bytes(CANARY.encode())
    (folder / "pem").write_bytes(_pem())
    return folder


@cache
def _pem() -> bytes:
    return encode_ed25519_public(Ed25519SecretKey(bytes(32)).public_bytes)


def run_ed25519(data: bytes) -> None:
    """A file with an Ed25519 key, secret or public."""
    try:
        secret = parse_ed25519_secret(data)
        ensure(parse_ed25519_secret(encode_ed25519_secret(secret)).seed == secret.seed, "another secret key")
    except KeyMaterialError as error:
        ensure_clean(error)
    try:
        public = parse_ed25519_public(data).public_bytes
        ensure(
            parse_ed25519_public(encode_ed25519_public(public)).public_bytes == public, "another public key"
        )
    except KeyMaterialError as error:
        ensure_clean(error)


def run_params(data: bytes) -> None:
    """A file of parameters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    try:
        params = parse_params(text)
    except ParamsError:
        return  # it holds no secret, and its error names an unknown member
    ensure(0 <= params.tol_d <= 1_000 and 0 <= params.alpha <= 1, "a parameter out of bounds is taken")


# --- inbox and agent --------------------------------------------------------------------------------------------------


def run_inbox(data: bytes) -> None:
    """What the inbox notes of a request: encoded and read back, whatever its headers and body hold."""
    head, _, body = data.partition(b"\n\n")
    path, content_type, peer, *headers = [*head.decode("utf-8", "replace").split("\n"), "", "", ""]
    named = {name: value for name, _, value in (header.partition(":") for header in headers)}
    envelope = Envelope(
        received_at_ms=int(RECEIVED_S), path=path, content_type=content_type, peer=peer, headers=named
    )
    request = Request(envelope, body)
    frame = request_frame(request)
    ensure(decode_request(frame.envelope, frame.payload) == request, "a request is another one in the inbox")


def run_answer(data: bytes) -> None:
    """An answer as the agent reads it: Retry-After, Date, a line each; then the body."""
    retry_after, _, rest = data.partition(b"\n")
    date, _, body = rest.partition(b"\n")
    pcs_id = "ab" * 32
    for status in (200, 202, 503):
        receipt = read_receipt(Answer(status, body), pcs_id)
        if receipt is not None:
            ensure(receipt.pcs_id == pcs_id, "a receipt of another record is taken")
            ensure(verdict_of(receipt).value in {"accepted", "escalated"}, "a verdict that is none")
            reasons = reasons_of(receipt)
            ensure(reasons.isprintable() and len(reasons) <= REASONS_MAX * 66, "reasons unfit for a terminal")
    for text in (retry_after, date):
        header = text.decode("utf-8", "surrogateescape")
        wait_s = parse_retry_after(header, RECEIVED_S)
        ensure(wait_s is None or 0 <= wait_s <= RETRY_AFTER_S_MAX, "a wait out of bounds")
        moment_s = parse_http_date(header)
        ensure(moment_s is None or math.isfinite(moment_s), "a date that is no time")


_C = CANARY.encode()
_TOML = (
    b"[[keys]]\n",
    b"[[peers]]\n",
    b"[tenants.a]\n",
    b"nan",
    b"inf",
    b"-1",
    b"0001-01-01T00:00:00+23:59",
    b"[[",
)
TARGETS = {
    "record": Target(
        run_record, (_C, b'"N_j":', b'"ft":', b"null", b"true", b"1e308", b"-0.0", b"NaN", b"\\u0000", b"[[")
    ),
    "wal": Target(run_wal, (_C, b"PCSF", b"PCSWAL01", SALT, b"\x01\x00\x00\x00", b"\xff\xff\xff\xff")),
    "wal_open": Target(
        run_wal_open, (_C, b"PCSF", b"PCSWAL01", SALT, b"\x01\x00\x00\x00", b"\xff\xff\xff\xff")
    ),
    "snapshot": Target(run_snapshot, (_C, b"PCSF", b"PCSWAL01", SALT, b"\x01\x00\x00\x00")),
    "signature": Target(
        run_signature,
        (
            _C,
            b'"@method"',
            b'"@path"',
            b'"content-digest"',
            b";created=",
            b";expires=",
            b';keyid="mac"',
            b';alg="',
            b"sha-512=:",
        ),
    ),
    "keys": Target(
        run_keys, (_C, *_TOML, b'"env:KEY"', b'"file:key"', b'"file:pem"', b"\\u0000", b"not_after = ")
    ),
    "ed25519": Target(run_ed25519, (_C, b"-----BEGIN ", b"-----END ", b"PRIVATE KEY", b"ENCRYPTED ")),
    "params": Target(run_params, (_C, b"version", b"tol_d", b"alpha", *_TOML[3:])),
    "inbox": Target(run_inbox, (_C, b"signature:", b"\\u0000", b"\xed\xa0\x80")),
    "answer": Target(
        run_answer, (_C, b'"accepted":', b'"reasons":', b"GMT", b"9999", b"\xed\xa0\x80", b"+2400")
    ),
}
