"""Whom a request is from: key, certificate and request signature together."""

from __future__ import annotations

import msgspec
import pytest

import pcs_records
from pcs_backend.exchange import Envelope, Request
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.policy import Author, Trust
from pcs_backend.trust.quota import Quota
from pcs_core.errors import BadSignatureError
from pcs_core.keyring import KeyEntry, Keyring, entry_of_secret, message_hmac_key
from pcs_core.keyring_file import TenantLimits
from pcs_core.message_signature import Message, sign_message
from pcs_core.record import decode_record
from pcs_core.signing import HmacKey

SECRETS = {"a": b"the key of tenant a", "a-old": b"the old key of tenant a", "b": b"the key of tenant b"}
NOW_S = 1_795_000_000
PATH = "/v1/pcs/submit"
HOST = "backend.example"


def entry(name: str, **policy: object) -> KeyEntry:
    named = {"key_id": name, "tenant": name.partition("-")[0]} | policy
    return msgspec.structs.replace(entry_of_secret(SECRETS[name]), **named)


def trust(**settings: object) -> Trust:
    given = {"keyring": Keyring([entry(name) for name in SECRETS]), "multi_tenant": True} | settings
    return Trust(**given)


def request(
    key: str = "a", *, peer: str = "", signed_by: str | None = None, created_s: int = NOW_S
) -> Request:
    body = pcs_records.body(pcs_records.sign(pcs_records.document(), hmac_key=SECRETS[key]))
    headers: dict[str, str] = {}
    if signed_by is not None:
        secret = SECRETS[signed_by]
        message = Message("POST", HOST, PATH, body)
        headers = sign_message(message, message_hmac_key(secret), HmacKey(secret).key_id, created_s)
        headers["host"] = HOST
    envelope = Envelope(
        received_at_ms=NOW_S * 1_000, path=PATH, content_type="application/json", peer=peer, headers=headers
    )
    return Request(envelope, body)


def author(policy: Trust, submitted: Request) -> Author:
    return policy.check_record(decode_record(submitted.body), submitted, policy.check_request(submitted))


def refusal(policy: Trust, submitted: Request) -> str:
    with pytest.raises(BadSignatureError) as caught:
        author(policy, submitted)
    return caught.value.reason


class TestTenant:
    def test_it_follows_from_the_key(self) -> None:
        assert author(trust(), request("a")) == Author("a", "a")
        assert author(trust(), request("b")) == Author("b", "b")

    def test_there_is_one_where_tenants_are_off(self) -> None:
        assert author(trust(multi_tenant=False), request("b")) == Author("default", "b")

    def test_the_envelope_does_not_choose_it(self) -> None:
        submitted = request("a")
        forged = submitted._replace(envelope=msgspec.structs.replace(submitted.envelope, tenant="b"))
        assert author(trust(), forged) == Author("a", "a")

    def test_a_certificate_of_the_keys_tenant(self) -> None:
        assert author(trust(peers={"gateway": "a"}), request("a", peer="gateway")) == Author("a", "a")

    def test_a_certificate_of_another_tenant(self) -> None:
        assert refusal(trust(peers={"gateway": "b"}), request("a", peer="gateway")) == "other_tenant"

    def test_a_certificate_that_is_bound_to_nobody_binds_nothing(self) -> None:
        assert author(trust(peers={"gateway": "b"}), request("a", peer="stranger")) == Author("a", "a")

    def test_without_keys_it_follows_from_the_certificate(self) -> None:
        unsigned = trust(keyring=Keyring([]), peers={"gateway": "b"})
        assert author(unsigned, request(peer="gateway")) == Author("b", "")
        assert author(unsigned, request(peer="")) == Author("default", "")


class TestRequestSignature:
    def test_of_the_same_key(self) -> None:
        assert author(trust(require_message_signature=True), request("a", signed_by="a")) == Author("a", "a")

    def test_of_another_key_of_the_tenant(self) -> None:
        """What waited in an outbox while keys were turned over is signed with the one before."""
        assert author(trust(), request("a-old", signed_by="a")) == Author("a", "a-old")

    def test_of_another_tenant(self) -> None:
        assert refusal(trust(), request("a", signed_by="b")) == "other_tenant"

    def test_missing_where_it_is_demanded(self) -> None:
        assert refusal(trust(require_message_signature=True), request("a")) == "message_missing"

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            ({"revoked": True}, "revoked"),
            ({"not_after_s": NOW_S}, "expired"),
            ({"not_before_s": NOW_S + 1}, "not_yet_valid"),
        ],
    )
    def test_of_a_key_that_does_not_count(self, policy: dict[str, object], reason: str) -> None:
        ring = Keyring([entry("a-old", **policy), entry("a")])
        assert refusal(trust(keyring=ring), request("a", signed_by="a-old")) == reason

    def test_age_is_counted_to_the_arrival(self) -> None:
        assert (
            refusal(trust(message_age_s=60.0), request("a", signed_by="a", created_s=NOW_S - 61))
            == "message_age"
        )
        assert (
            author(trust(message_age_s=60.0), request("a", signed_by="a", created_s=NOW_S - 60)).tenant == "a"
        )

    def test_a_changed_body(self) -> None:
        submitted = request("a", signed_by="a")
        assert refusal(trust(), submitted._replace(body=submitted.body + b" ")) == "message_digest"


class Clock:
    now_s = 1_795_046_400.0 - 100  # 100 seconds before midnight, UTC

    def __call__(self) -> float:
        return self.now_s


class TestLimits:
    def test_rate(self) -> None:
        clock = Clock()
        limiter = TenantLimiter(lambda: {"a": TenantLimits(rate=2.0)}, clock, clock)
        assert [limiter.take("a") for _ in range(4)] == [0, 0, 1, 1]
        assert limiter.quota("a") == Quota("tenant", 2, 1, 0)
        assert limiter.take("b") == 0
        clock.now_s += 0.5
        assert limiter.take("a") == 0

    def test_daily_until_midnight_utc(self) -> None:
        clock = Clock()
        assert clock.now_s % 86_400 == 86_300
        limiter = TenantLimiter(lambda: {"a": TenantLimits(daily=2)}, clock, clock)
        assert [limiter.take("a") for _ in range(3)] == [0, 0, 100]
        assert limiter.quota("a").headers(100)["RateLimit-Policy"] == '"tenant-day";q=2;w=86400'
        assert limiter.take("b") == 0
        clock.now_s += 100
        assert [limiter.take("a") for _ in range(3)] == [0, 0, 86_400]

    def test_what_the_rate_refuses_is_not_counted_for_the_day(self) -> None:
        clock = Clock()
        limiter = TenantLimiter(lambda: {"a": TenantLimits(rate=1.0, daily=2)}, clock, clock)
        assert [limiter.take("a") for _ in range(3)] == [0, 1, 1]
        assert limiter.quota("a").name == "tenant"
        clock.now_s += 1
        assert limiter.take("a") == 0
        clock.now_s += 1
        assert limiter.take("a") == 98

    def test_a_changed_rate_holds_at_once_and_what_was_spent_stays_spent(self) -> None:
        clock = Clock()
        limits = {"a": TenantLimits(rate=1.0)}
        limiter = TenantLimiter(lambda: limits, clock, clock)
        assert [limiter.take("a") for _ in range(2)] == [0, 1]
        limits["a"] = TenantLimits(rate=3.0)
        assert [limiter.take("a") for _ in range(3)] == [0, 0, 1]
        limits["a"] = TenantLimits(rate=1.0)
        assert limiter.take("a") == 3
