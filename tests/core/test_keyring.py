"""Keys: what each may sign for, when, and that the reason of a refusal stays here."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest

import pcs_records
from pcs_core.errors import BadSignatureError, MalformedError
from pcs_core.keyring import (
    KEYS_MAX,
    KeyEntry,
    Keyring,
    entry_of_public_key,
    entry_of_secret,
    matches,
    message_ed25519_key,
    message_hmac_key,
)
from pcs_core.record import Record, decode_record
from pcs_core.signing import HmacKey

SECRET = b"the first key of the plants"
OTHER = b"another key of somebody else"
SEED = bytes(range(32))
NOW_S = 1_795_000_000.0


def record(secret: bytes = SECRET, shard_id: str = "plant-7/line-1") -> Record:
    document = pcs_records.sign(pcs_records.document(shard_id=shard_id), hmac_key=secret)
    return decode_record(pcs_records.body(document))


def entry(secret: bytes = SECRET, **policy: object) -> KeyEntry:
    return msgspec.structs.replace(entry_of_secret(secret), **policy)


def refusal(keyring: Keyring, signed: Record, at_s: float = NOW_S) -> str:
    with pytest.raises(BadSignatureError) as caught:
        keyring.verify(signed, at_s)
    assert str(caught.value) == "$.sig: no valid key verifies this signature"
    return caught.value.reason


class TestVerify:
    def test_the_key_that_signed_is_returned(self) -> None:
        keys = [entry(OTHER, key_id="other"), entry(key_id="plants", tenant="plants")]
        found = Keyring(keys).verify(record(), NOW_S)
        assert found is keys[1]

    def test_an_empty_ring_takes_everything(self) -> None:
        off = Keyring([])
        assert not off
        assert off.verify(record(), NOW_S) is None

    def test_ed25519(self) -> None:
        key = entry_of_public_key(pcs_records.ed25519_public(SEED))
        document = pcs_records.sign(pcs_records.document(), ed25519_seed=SEED)
        assert Keyring([key]).verify(decode_record(pcs_records.body(document)), NOW_S) is key

    def test_a_foreign_signature_is_refused(self) -> None:
        assert refusal(Keyring([entry(OTHER)]), record()) == "no_key"

    def test_a_signature_that_is_no_base64_is_malformed(self) -> None:
        with pytest.raises(MalformedError, match=r"^\$\.sig: found a string of length 3 that is not base64"):
            Keyring([entry()]).verify(msgspec.structs.replace(record(), sig="!!!"), NOW_S)

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            ({"revoked": True}, "revoked"),
            ({"not_before_s": NOW_S + 1}, "not_yet_valid"),
            ({"not_after_s": NOW_S}, "expired"),
            ({"shards": ("plant-8/*", "plant-7")}, "shard"),
            ({"revoked": True, "not_after_s": 0.0, "shards": ("x",)}, "revoked"),
        ],
    )
    def test_what_a_key_may_not_sign(self, policy: dict[str, object], reason: str) -> None:
        assert refusal(Keyring([entry(**policy)]), record()) == reason

    @pytest.mark.parametrize(
        "policy",
        [
            {"not_before_s": NOW_S},
            {"not_after_s": math.nextafter(NOW_S, math.inf)},
            {"shards": ("nothing", "plant-7/*")},
            {"shards": ("plant-7/line-1",)},
        ],
    )
    def test_what_a_key_may_just_sign(self, policy: dict[str, object]) -> None:
        assert Keyring([entry(**policy)]).verify(record(), NOW_S) is not None

    def test_one_secret_may_stand_in_several_entries(self) -> None:
        """An entry for each shard; whichever may sign does, in any order."""
        keys = [
            entry(key_id="a", shards=("plant-8/*",)),
            entry(key_id="b", not_after_s=0.0),
            entry(key_id="c", shards=("plant-7/*",), tenant="seven"),
        ]
        for order in itertools.permutations(keys):
            found = Keyring(order).verify(record(), NOW_S)
            assert found is keys[2]

    def test_the_key_of_a_shard_is_tried_first_the_next_time(self) -> None:
        """A ring of many keys costs no more than one, once a shard's key is known; and a changed key is found again."""
        tried: list[str] = []

        class Watched:
            def __init__(self, secret: bytes, name: str) -> None:
                self._key = HmacKey(secret)
                self.key_id = name

            def verifies(self, digest: bytes, signature: bytes) -> bool:
                tried.append(self.key_id)
                return self._key.verifies(digest, signature)

        secrets = {name: f"secret of {name}".encode() for name in ("a", "b", "c")}
        ring = Keyring([KeyEntry(key_id=name, record_key=Watched(secrets[name], name)) for name in secrets])
        ring.verify(record(secrets["c"]), NOW_S)
        assert tried == ["a", "b", "c"]
        tried.clear()
        ring.verify(record(secrets["c"]), NOW_S)
        assert tried == ["c"]
        tried.clear()
        ring.verify(record(secrets["b"]), NOW_S)
        assert tried == ["c", "a", "b"]


def test_an_unknown_key_costs_as_many_tries_as_a_bad_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    verifies = HmacKey.verifies

    def watched(key: HmacKey, digest: bytes, signature: bytes) -> bool:
        tried.append(key.key_id)
        return verifies(key, digest, signature)

    monkeypatch.setattr(HmacKey, "verifies", watched)
    ring = Keyring([entry(), entry(OTHER, key_id="other")])
    assert refusal(ring, record(b"a stranger's key")) == "no_key"
    unknown = list(tried)
    tried.clear()
    changed = msgspec.structs.replace(record(), epoch=8)
    assert refusal(ring, changed) == "no_key"
    assert tried == unknown
    assert len(unknown) == 4


class TestTheRing:
    def test_a_key_is_found_by_the_operators_name_and_by_its_own(self) -> None:
        key = entry(key_id="plants")
        ring = Keyring([key])
        assert ring.find("plants") is key
        assert ring.find(HmacKey(SECRET).key_id) is key
        assert ring.find("nobody") is None

    def test_bounds(self) -> None:
        keys = [entry(key_id=f"k{number}") for number in range(KEYS_MAX + 1)]
        with pytest.raises(ValueError, match=r"^found 257 keys; allowed: up to 256$"):
            Keyring(keys)
        with pytest.raises(ValueError, match=r"^found two keys of one id"):
            Keyring([entry(key_id="a"), entry(OTHER, key_id="a")])

    def test_no_key_prints(self) -> None:
        shown = repr(Keyring([entry()]).entries)
        assert SECRET.decode() not in shown
        assert repr(SECRET) not in shown


@pytest.mark.parametrize(
    ("pattern", "shard_id", "expected"),
    [
        ("*", "anything/at:all", True),
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "acb", False),
        ("a.c", "abc", False),
        ("a+", "aa", False),
        ("*/x/*", "1/x/2", True),
        ("", "", True),
    ],
)
def test_patterns(pattern: str, shard_id: str, expected: bool) -> None:
    assert matches(pattern, shard_id) is expected


class TestMessageKeys:
    def test_message_keys_are_not_the_record_keys(self) -> None:
        assert message_hmac_key(SECRET).sign(b"x") != HmacKey(SECRET).sign(b"x")
        assert message_ed25519_key(SEED).public_bytes != pcs_records.ed25519_public(SEED)

    def test_derivation_is_hkdf_sha256(self) -> None:
        """RFC 5869 with the standard library alone: extract with a salt of zeros, expand once."""
        import hashlib
        import hmac

        pseudorandom = hmac.digest(bytes(32), SECRET, "sha256")
        derived = hmac.digest(pseudorandom, b"pcs message signature hmac-sha256" + b"\x01", hashlib.sha256)
        assert message_hmac_key(SECRET).sign(b"x") == hmac.digest(derived, b"x", "sha256")
