"""Redaction: what may be a person's goes, what names a computation stays."""

from __future__ import annotations

import hashlib

import pytest

from pcs_core.redact import redact


@pytest.mark.parametrize(
    "address",
    [
        "anna@example.org",
        "anna.smith+runs@mail.example.co.uk",
        "ANNA_SMITH@EXAMPLE.ORG",
        "a@b.io",
        "o.brien-2@sub-domain.example.museum",
        "jörg@exämple.de",
    ],
)
def test_email_addresses_are_replaced(address: str) -> None:
    assert redact(address) == "[email]"
    assert redact(f"shard of {address}, second") == "shard of [email], second"
    assert redact(f"runs/{address}/1") == "runs/[email]/1"
    assert redact(f"<{address}>") == "<[email]>"


@pytest.mark.parametrize(
    "number",
    [
        "+1 (555) 010-9999",
        "+1-555-010-9999",
        "+15550109999",
        "555-0109",
        "555.010.9999",
        "(030) 1234567",
        "030/1234567",
        "+49 30 1234567",
        "0049 30 1234567",
        "+44 20 7946 0958",
        "07700 900123",
        "01 23 45 67 89",
        "+33 (0)1 23 45 67 89",
        "+81-3-1234-5678",
        "+91 98765 43210",
        "+55 (11) 91234-5678",
        "5550109999",
        "030 1763712930",
        "+1763712930",
        "2026-13-41 55",
    ],
)
def test_telephone_numbers_of_several_countries_are_replaced(number: str) -> None:
    assert redact(number) == "[phone]"
    assert redact(f"call {number} now") == "call [phone] now"
    assert redact(f"host/{number}") == "host/[phone]"


def test_several_in_one_string_are_all_replaced() -> None:
    text = "anna@example.org +49 30 1234567; bob@example.org 555-0109"
    assert redact(text) == "[email] [phone]; [email] [phone]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shard-a",
        "Az09._:/@+-",
        "gpu@node7",
        "epoch 7",
        "epoch 123456",
        "2026-11-21",
        "runs/2026-11-21/3",
        "2026-11-21T08:15:30Z",
        "2026-11-21 08:15:30",
        "3/2026-11-21/7",
        "08:15:30",
        "0.868263374x",
        "v1.2.3",
        hashlib.sha256(b"a").hexdigest(),
        "0" * 64,
        "9" * 64,
        f"pcs:{hashlib.sha256(b'b').hexdigest()}",
        "1700000000",
        "1763712930",
        "run-1763712930",
        "1763712930250",
        "deadbeef12345678",
        "r_clamped",
    ],
)
def test_what_names_a_computation_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", ["anna@example.org", "+1 (555) 010-9999", "1700000000 555-0109"])
def test_redacting_again_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text", ["x" * 200_000, "a@" * 100_000, "x." * 100_000 + "@", "1-" * 3, "+(" * 100_000]
)
def test_a_long_string_costs_no_more_than_its_length(text: str) -> None:
    """A pattern without bounds took a minute over the first one: the whole run would stand still."""
    assert redact(text) == text


def test_a_date_does_not_shield_a_number_beside_it() -> None:
    assert redact("2026-11-21 555-0109") == "2026-11-21 [phone]"
    assert redact("555-0109 2026-11-21") == "[phone] 2026-11-21"
