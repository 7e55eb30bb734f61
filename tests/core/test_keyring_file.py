"""The key file: what it takes, and that no error of it holds a value."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime

import pytest

import pcs_records
from pcs_core.errors import KeyringError
from pcs_core.keyfile import encode_ed25519_public
from pcs_core.keyring import message_ed25519_key
from pcs_core.keyring_file import KeyFile, TenantLimits, parse_key_file
from pcs_core.signing import Ed25519PublicKey, HmacKey

CANARY = "canary-secret-6f1e"
SEED = bytes(range(32))
PUBLIC = pcs_records.ed25519_public(SEED)
PUBLIC_TEXT = base64.b64encode(PUBLIC).decode()
FILES = {
    "vrf.pub": PUBLIC_TEXT.encode() + b"\n",
    "plant.key": b"secret of a file\n",
    "plant.pem": encode_ed25519_public(PUBLIC),
}
ENVIRON = {"PLANT_KEY": "secret of a variable"}


def read_file(name: str) -> bytes:
    try:
        return FILES[name]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", name) from None


def parse(text: str) -> KeyFile:
    return parse_key_file(text, ENVIRON, read_file)


def refusal(text: str) -> str:
    with pytest.raises(KeyringError) as caught:
        parse(text)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert CANARY not in str(error)
    return str(error)


def key(**lines: str) -> str:
    given = {"id": '"a"', "algorithm": '"hmac"', "secret": f'"{CANARY}"'} | lines
    return "[[keys]]\n" + "\n".join(f"{name} = {value}" for name, value in given.items() if value) + "\n"


def test_a_whole_file() -> None:
    message_public = base64.b64encode(message_ed25519_key(SEED).public_bytes).decode()
    file = parse(
        key(
            id='"plant-7"',
            secret='"env:PLANT_KEY"',
            tenant='"plants"',
            shards='["plant-7/*", "spare"]',
            not_before="2026-11-21T00:00:00Z",
            not_after="2027-11-21T01:00:00+01:00",
        )
        + key(id='"b"', secret='"file:plant.key"', revoked="true")
        + key(id='"c"', secret='"inline: also with a colon"')
        + key(id='"d"', algorithm='"ed25519"', secret="", public_key='"file:plant.pem"')
        + key(
            id='"e"',
            algorithm='"ed25519"',
            secret="",
            public_key=f'"{PUBLIC_TEXT}"',
            message_public_key=f'"{message_public}"',
        )
        + '[[peers]]\nname = "gateway-1.example"\ntenant = "plants"\n[tenants.plants]\nrate = 2.5\ndaily = 100\n'
    )
    plant, from_file, inline, pem, both = file.entries
    assert (plant.key_id, plant.tenant, plant.shards) == ("plant-7", "plants", ("plant-7/*", "spare"))
    assert plant.not_before_s == datetime(2026, 11, 21, tzinfo=UTC).timestamp()
    assert plant.not_after_s == datetime(2027, 11, 21, tzinfo=UTC).timestamp()
    assert plant.record_key.key_id == HmacKey(b"secret of a variable").key_id
    assert from_file.record_key.key_id == HmacKey(b"secret of a file").key_id
    assert (from_file.revoked, from_file.tenant, from_file.shards) == (True, "default", ("*",))
    assert (from_file.not_before_s, from_file.not_after_s) == (-math.inf, math.inf)
    assert inline.record_key.key_id == HmacKey(b"inline: also with a colon").key_id
    assert pem.record_key.key_id == both.record_key.key_id == Ed25519PublicKey(PUBLIC).key_id
    assert pem.message_key is None
    assert both.message_key is not None
    assert both.message_key.key_id == message_ed25519_key(SEED).key_id
    assert file.peers == {"gateway-1.example": "plants"}
    assert file.limits == {"plants": TenantLimits(rate=2.5, daily=100)}


def direction_key(**lines: str) -> str:
    given = {"id": '"d"', "public_key": f'"{PUBLIC_TEXT}"'} | lines
    return "[[direction_keys]]\n" + "\n".join(f"{name} = {value}" for name, value in given.items()) + "\n"


def test_direction_keys_have_terms_as_those_that_sign() -> None:
    file = parse(
        direction_key(tenant='"plants"', shards='["plant-7/*"]', not_before="2026-11-21T00:00:00Z")
        + direction_key(
            id='"e"', public_key='"file:vrf.pub"', revoked="true", not_after="2027-11-21T00:00:00Z"
        )
    )
    assert file.entries == ()
    first, second = file.direction_keys
    assert (first.key_id, first.tenant, first.shards) == ("d", "plants", ("plant-7/*",))
    assert (first.not_before_s, first.not_after_s) == (
        datetime(2026, 11, 21, tzinfo=UTC).timestamp(),
        math.inf,
    )
    assert first.public_key.public_bytes == second.public_key.public_bytes == PUBLIC
    assert (second.key_id, second.revoked) == ("e", True)
    assert second.not_after_s == datetime(2027, 11, 21, tzinfo=UTC).timestamp()


def test_a_direction_key_may_have_the_id_of_one_that_signs() -> None:
    file = parse(key(id='"d"') + direction_key())
    assert [file.entries[0].key_id, file.direction_keys[0].key_id] == ["d", "d"]


def test_an_empty_file_has_no_keys() -> None:
    assert parse("") == KeyFile(entries=(), direction_keys=(), peers={}, limits={})


ID_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ -"
REFERENCE = "the key, or file:PATH, or env:NAME"
TENANT = "1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[[keys]]\nid = "{CANARY}\n', "found text that is not TOML (at line 2); allowed: TOML"),
        (
            f"{CANARY} = 1",
            "$: found an unknown member; allowed: a table with only keys, direction_keys, peers and tenants",
        ),
        (key(id='""'), f"$.keys[0].id: found a string of length 0; allowed: {ID_RULE}"),
        (key(id=""), f"$.keys[0].id: found nothing; allowed: {ID_RULE}"),
        (key(algorithm='"rsa"'), "$.keys[0].algorithm: found a string of length 3; allowed: hmac or ed25519"),
        (key(secret=""), f"$.keys[0].secret: found nothing; allowed: {REFERENCE}"),
        (key(secret='""'), f"$.keys[0].secret: found a string of length 0; allowed: {REFERENCE}"),
        (
            key(secret=f'"env:{CANARY}"'),
            f"$.keys[0].secret: found a variable that is not set; allowed: {REFERENCE}",
        ),
        (
            key(secret=f'"file:{CANARY}"'),
            f"$.keys[0].secret: found a file that cannot be read (No such file or directory); allowed: {REFERENCE}",
        ),
        (
            key(public_key=f'"{CANARY}"'),
            "$.keys[0]: found a public key; allowed: a secret, beside algorithm hmac",
        ),
        (
            key(algorithm='"ed25519"'),
            "$.keys[0]: found a secret; allowed: a public key, beside algorithm ed25519",
        ),
        (
            key(algorithm='"ed25519"', secret=""),
            f"$.keys[0].public_key: found nothing; allowed: {REFERENCE}",
        ),
        (
            key(algorithm='"ed25519"', secret="", public_key='"QUJD"'),
            "$.keys[0].public_key: found 3 bytes; allowed: an Ed25519 key of 32 bytes",
        ),
        (key() + key(), "$.keys[1].id: found the id of keys[0] again; allowed: a different id for each"),
        (key(tenant='"No"'), f"$.keys[0].tenant: found a string of length 2; allowed: {TENANT}"),
        (key(shards="[]"), "$.keys[0].shards: found a list of length 0; allowed: 1 to 64 patterns"),
        (
            key(shards='["a", "a|b"]'),
            "$.keys[0].shards[1]: found a string of length 3; allowed: a shard id in which * stands for any characters",
        ),
        (
            key(not_before="2026-11-21T00:00:00"),
            "$.keys[0].not_before: found a time without an offset; allowed: one with it, such as Z for UTC",
        ),
        (
            key(not_before="2027-01-01T00:00:00Z", not_after="2027-01-01T00:00:00Z"),
            "$.keys[0].not_after: found a time that is not after not_before; allowed: a later one",
        ),
        (
            f'[[peers]]\nname = "{CANARY}"\ntenant = "a"\n[[peers]]\nname = "{CANARY}"\ntenant = "b"\n',
            "$.peers[1].name: found a name again with another tenant; allowed: one tenant a name",
        ),
        ("[tenants.a]\nrate = -1", "a number from 0 to 1000000"),
        (
            direction_key() * 2,
            "$.direction_keys[1].id: found the id of direction_keys[0] again; allowed: a different id for each",
        ),
        (
            direction_key(public_key='"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="'),
            "$.direction_keys[0].public_key: found 32 bytes that are no point of the prime-order group; allowed: a VRF public key",
        ),
        (
            direction_key(public_key=f'"{CANARY}"'),
            "$.direction_keys[0].public_key: found a string of length 18 that is not base64; allowed: standard base64",
        ),
        (
            direction_key(public_key='"env:MISSING"'),
            "$.direction_keys[0].public_key: found a variable that is not set",
        ),
        ('[[direction_keys]]\nid = "d"', "$.direction_keys[0].public_key: found nothing"),
        (
            direction_key(algorithm='"vrf"'),
            "$.direction_keys[0]: found an unknown member; allowed: a table with only",
        ),
        (
            direction_key(tenant='"No"'),
            f"$.direction_keys[0].tenant: found a string of length 2; allowed: {TENANT}",
        ),
        (
            direction_key(shards="[]"),
            "$.direction_keys[0].shards: found a list of length 0; allowed: 1 to 64 patterns",
        ),
        (direction_key() * 65, "$.direction_keys: found a list of length 65; allowed: up to 64 tables"),
        (key() * 257, "$.keys: found a list of length 257; allowed: up to 256 tables"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_value(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    "line",
    ["secret = " + "9" * 5_000, "secret = " + "[" * 3_000],
    ids=["a number of thousands of digits", "lists without end"],
)
def test_toml_that_no_reader_takes_is_refused(line: str) -> None:
    """Found by fuzzing: tomllib raises neither of them as its own error."""
    said = refusal(key(secret="") + line)
    assert said == "found a number of thousands of digits, or lists nested without end; allowed: TOML"


def test_file_that_can_have_no_name_is_refused() -> None:
    """Found by fuzzing: opening a name with a NUL is a ValueError."""

    def read(name: str) -> bytes:
        with open(name, "rb") as file:
            return file.read()

    with pytest.raises(KeyringError) as caught:
        parse_key_file(key(secret='"file:\\u0000"'), {}, read)
    assert str(caught.value) == (
        "$.keys[0].secret: found a file that cannot be read (no name of a file); "
        "allowed: the key, or file:PATH, or env:NAME"
    )


@pytest.mark.parametrize(
    ("name", "time"),
    [("not_before", "0001-01-01T00:00:00+23:59"), ("not_after", "9999-12-31T23:59:59-23:59")],
)
def test_time_outside_the_calendar_of_utc_is_refused(name: str, time: str) -> None:
    """Found by fuzzing: it cannot be written in UTC."""
    said = refusal(key(**{name: time}))
    assert said == f"$.keys[0].{name}: found a time outside the years 1 to 9999 of UTC; allowed: one within"
