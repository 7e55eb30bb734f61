"""Signatures of whole requests, checked against the examples of RFC 9421 and RFC 9530 and against an independent reading."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pcs_records
from pcs_core.errors import BadSignatureError
from pcs_core.keyring import (
    KeyEntry,
    Keyring,
    entry_of_public_key,
    entry_of_secret,
    message_ed25519_key,
    message_hmac_key,
)
from pcs_core.message_signature import (
    COVERED,
    HEADER_CHARACTERS_MAX,
    Message,
    digest_matches,
    normalise_authority,
    require_message_key,
    sign_message,
    signature_base,
    verify_message,
)
from pcs_core.signing import Ed25519PublicKey, Ed25519SecretKey, HmacKey

SECRET = b"the record key of the plants"
SEED = bytes(range(32))
NOW_S = 1_795_000_000
MESSAGE = Message("POST", "backend.example:8080", "/v1/pcs/submit", b'{"N_j": {"2": 3}}')
RING = Keyring([entry_of_secret(SECRET)])


def signed(message: Message = MESSAGE, created_s: int = NOW_S) -> dict[str, str]:
    return sign_message(message, message_hmac_key(SECRET), HmacKey(SECRET).key_id, created_s)


def check(
    headers: dict[str, str], message: Message = MESSAGE, ring: Keyring = RING, received_s: float = NOW_S
) -> KeyEntry | None:
    return verify_message(message, headers, ring, received_s=received_s, max_age_s=300)


def refusal(
    headers: dict[str, str], message: Message = MESSAGE, ring: Keyring = RING, received_s: float = NOW_S
) -> str:
    with pytest.raises(BadSignatureError) as caught:
        check(headers, message, ring, received_s)
    assert str(caught.value).startswith("Signature: found ")
    return caught.value.reason


class TestExamplesOfRfc9421:
    """Appendix B: the request, the keys and the signatures are the RFC's."""

    VALUES: ClassVar[dict[str, str]] = {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "@method": "POST",
        "@path": "/foo",
        "@authority": "example.com",
        "content-type": "application/json",
        "content-length": "18",
    }
    SHARED = base64.b64decode(
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    )
    SEED = base64.urlsafe_b64decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU=")

    def test_b_2_5_hmac_sha256(self) -> None:
        components = ("date", "@authority", "content-type")
        params = '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
        base = signature_base(components, params, self.VALUES)
        assert base == (
            b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@authority": example.com\n'
            b'"content-type": application/json\n"@signature-params": ("date" "@authority" "content-type")'
            b';created=1618884473;keyid="test-shared-secret"'
        )
        expected = base64.b64decode("pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=")
        assert HmacKey(self.SHARED).sign(base) == expected

    def test_b_2_6_ed25519(self) -> None:
        components = ("date", "@method", "@path", "@authority", "content-type", "content-length")
        listed = " ".join(f'"{name}"' for name in components)
        base = signature_base(
            components, f'({listed});created=1618884473;keyid="test-key-ed25519"', self.VALUES
        )
        expected = base64.b64decode(
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
        )
        key = Ed25519SecretKey(self.SEED)
        assert key.sign(base) == expected
        assert key.public.verifies(base, expected)

    def test_authority(self) -> None:
        """§2.2.3: in lower case, the default port left out."""
        assert normalise_authority("www.Example.com") == "www.example.com"
        assert normalise_authority("www.example.com:443") == "www.example.com"
        assert normalise_authority("www.example.com:8443") == "www.example.com:8443"


class TestExamplesOfRfc9530:
    BODY = b'{"hello": "world"}\n'

    @pytest.mark.parametrize(
        "header",
        [
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
            "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:",
        ],
    )
    def test_content_digest_of_the_example(self, header: str) -> None:
        assert digest_matches(header, self.BODY)
        assert not digest_matches(header, self.BODY + b" ")

    def test_several_digests_must_all_match_and_unknown_ones_are_passed_over(self) -> None:
        sha256 = base64.b64encode(hashlib.sha256(self.BODY).digest()).decode()
        sha512 = base64.b64encode(hashlib.sha512(self.BODY).digest()).decode()
        wrong = base64.b64encode(hashlib.sha512(b"").digest()).decode()
        assert digest_matches(f"sha-256=:{sha256}:, sha-512=:{sha512}:", self.BODY)
        assert digest_matches(f"md5=:AAAA:, sha-256=:{sha256}:", self.BODY)
        assert not digest_matches(f"sha-256=:{sha256}:, sha-512=:{wrong}:", self.BODY)
        assert not digest_matches("md5=:AAAA:", self.BODY)
        for broken in (
            "",
            f"sha-256={sha256}",
            f"sha-256=:{sha256}",
            "sha-256=:====:",
            f"sha-256=:{sha256}:,",
        ):
            assert not digest_matches(broken, self.BODY)


class TestRoundTrip:
    def test_what_the_agent_signs_is_taken(self) -> None:
        entry = check(signed())
        assert entry is RING.entries[0]

    def test_ed25519_by_the_message_public_key(self) -> None:
        key = message_ed25519_key(SEED)
        entry = entry_of_public_key(pcs_records.ed25519_public(SEED))
        ring = Keyring([KeyEntry(key_id="plants", record_key=entry.record_key, message_key=key.public)])
        headers = sign_message(MESSAGE, key, entry.key_id, NOW_S)
        assert check(headers, ring=ring) is ring.entries[0]
        assert 'alg="ed25519"' in headers["signature-input"]

    def test_the_base_is_built_by_the_letter(self) -> None:
        """The headers are checked by code that shares nothing with the project."""
        headers = signed()
        digest = base64.b64encode(hashlib.sha256(MESSAGE.body).digest()).decode()
        params = headers["signature-input"].removeprefix("pcs=")
        base = (
            '"@method": POST\n"@authority": backend.example:8080\n"@path": /v1/pcs/submit\n'
            f'"content-digest": sha-256=:{digest}:\n"@signature-params": {params}'
        )
        pseudorandom = hmac.digest(bytes(32), SECRET, "sha256")
        key = hmac.digest(pseudorandom, b"pcs message signature hmac-sha256\x01", "sha256")
        expected = base64.b64encode(hmac.digest(key, base.encode(), "sha256")).decode()
        assert headers["signature"] == f"pcs=:{expected}:"

    def test_a_signature_of_another_order_and_name_is_taken(self) -> None:
        headers = signed()
        components = tuple(reversed(COVERED))
        listed = " ".join(f'"{name}"' for name in components)
        key_id = HmacKey(SECRET).key_id
        params = f'({listed});keyid="{key_id}";created={NOW_S};nonce="a\\"b";tag="x"'
        values = {
            "@method": "POST",
            "@authority": MESSAGE.authority,
            "@path": MESSAGE.path,
            "content-digest": headers["content-digest"],
        }
        signature = message_hmac_key(SECRET).sign(signature_base(components, params, values))
        headers |= {
            "signature-input": f"sig1={params}",
            "signature": f"sig1=:{base64.b64encode(signature).decode()}:",
        }
        assert check(headers) is RING.entries[0]

    def test_none_at_all_is_none(self) -> None:
        assert check({}) is None
        assert check({"content-digest": "sha-256=:AAAA:"}) is None
        with pytest.raises(BadSignatureError) as caught:
            require_message_key(None)
        assert caught.value.reason == "message_missing"

    def test_one_of_a_key_whose_message_key_is_not_known_cannot_be_checked(self) -> None:
        entry = entry_of_public_key(pcs_records.ed25519_public(SEED))
        headers = sign_message(MESSAGE, message_ed25519_key(SEED), entry.key_id, NOW_S)
        assert check(headers, ring=Keyring([entry])) is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (MESSAGE._replace(body=b'{"N_j": {"2": 4}}'), "message_digest"),
            (MESSAGE._replace(path="/v1/pcs/batch"), "message_false"),
            (MESSAGE._replace(method="PUT"), "message_false"),
            (MESSAGE._replace(authority="elsewhere.example"), "message_false"),
        ],
    )
    def test_what_was_changed_on_the_way(self, changed: Message, reason: str) -> None:
        assert refusal(signed(), changed) == reason

    def test_a_digest_replaced_with_the_body(self) -> None:
        other = MESSAGE._replace(body=b"other")
        headers = signed() | {"content-digest": signed(other)["content-digest"]}
        assert refusal(headers, other) == "message_false"

    def test_the_record_key_signs_no_message(self) -> None:
        headers = sign_message(MESSAGE, HmacKey(SECRET), HmacKey(SECRET).key_id, NOW_S)
        assert refusal(headers) == "message_false"

    @pytest.mark.parametrize("age_s", [301, -301, 10_000])
    def test_a_request_replayed_past_its_age(self, age_s: int) -> None:
        assert refusal(signed(), received_s=NOW_S + age_s) == "message_age"

    @pytest.mark.parametrize("age_s", [-300, 0, 300])
    def test_within_the_age(self, age_s: int) -> None:
        assert check(signed(), received_s=NOW_S + age_s) is not None

    def test_an_expired_one(self) -> None:
        headers = signed()
        headers["signature-input"] += f";expires={NOW_S - 1}"
        assert refusal(headers) == "message_age"

    def test_another_algorithm(self) -> None:
        headers = signed()
        headers["signature-input"] = headers["signature-input"].replace("hmac-sha256", "ed25519")
        assert refusal(headers) == "message_false"

    def test_an_unknown_key_costs_as_much_as_a_false_signature(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One try each, of the same kind: the time does not tell which key ids exist."""
        tried: list[str] = []
        for kind in (HmacKey, Ed25519PublicKey):
            verifies = kind.verifies

            def watched(key: HmacKey, digest: bytes, signature: bytes, verifies: object = verifies) -> bool:
                tried.append(type(key).__name__)
                return verifies(key, digest, signature)

            monkeypatch.setattr(kind, "verifies", watched)
        ed25519 = message_ed25519_key(SEED)
        known = entry_of_public_key(pcs_records.ed25519_public(SEED))
        ring = Keyring(
            [RING.entries[0], KeyEntry(key_id="e", record_key=known.record_key, message_key=ed25519.public)]
        )
        other_body = MESSAGE._replace(path="/elsewhere")
        for headers in (signed(other_body), sign_message(other_body, ed25519, known.key_id, NOW_S)):
            tried.clear()
            assert refusal(headers, ring=ring) == "message_false"
            false = list(tried)
            tried.clear()
            assert refusal(headers, ring=Keyring([entry_of_secret(b"another")])) == "message_key"
            assert tried == false
            assert len(false) == 1

    def test_an_unknown_key(self) -> None:
        assert refusal(signed(), ring=Keyring([entry_of_secret(b"another")])) == "message_key"

    @pytest.mark.parametrize(
        "change",
        [
            {"signature": ""},
            {"signature": "pcs=:AAAA:, sig2=:AAAA:"},
            {"signature": "other=:AAAA:"},
            {"signature": "pcs=AAAA"},
            {"signature-input": ""},
            {"signature-input": 'pcs=("@method");created=1;keyid="a"'},
            {
                "signature-input": 'pcs=("@method" "@authority" "@path" "content-digest" "@query");created=1;keyid="a"'
            },
            {"signature-input": 'pcs=("@method" "@method" "@path" "content-digest");created=1;keyid="a"'},
            {"signature-input": 'pcs=("@method" "@authority" "@path" "content-digest");keyid="a"'},
            {"signature-input": 'pcs=("@method" "@authority" "@path" "content-digest");created=1'},
            {
                "signature-input": 'pcs=("@method" "@authority" "@path" "content-digest");created="1";keyid="a"'
            },
            {
                "signature-input": 'pcs=("@method" "@authority" "@path" "content-digest");created=1;created=2;keyid="a"'
            },
            {"signature-input": 'pcs=("@method" "@authority" "@path" "content-digest" );created=1;keyid="a"'},
            {"signature-input": "pcs=(" + '"a" ' * HEADER_CHARACTERS_MAX},
        ],
    )
    def test_headers_that_are_not_one_signature(self, change: dict[str, str]) -> None:
        assert refusal(signed() | change) == "message_malformed"

    def test_half_of_the_headers(self) -> None:
        for name in ("signature", "signature-input"):
            headers = signed()
            del headers[name]
            assert refusal(headers) == "message_malformed"
        headers = signed()
        del headers["content-digest"]
        assert refusal(headers) == "message_digest"

    @given(st.dictionaries(st.sampled_from(["signature", "signature-input", "content-digest"]), st.text()))
    def test_no_header_whatever_is_taken_or_breaks_the_check(self, headers: dict[str, str]) -> None:
        if "signature" in headers or "signature-input" in headers:
            with pytest.raises(BadSignatureError):
                check(headers)
        else:
            assert check(headers) is None
