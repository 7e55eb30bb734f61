"""Privacy: nothing of a request and no secret reaches a log, a metric, an answer or an exception.

Strings and numbers that occur nowhere else are planted wherever a client or an operator can put something; then all
that the service said is searched for them. The search itself is tested on leaks planted on purpose.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

import pcs_records
from pcs_core.errors import PcsError
from pcs_core.record import check_identity, decode_record
from pcs_core.signing import HmacKey
from processes import Backend, Client, clean_environment, run
from servers import PostgresServer
from verifying import signer_of

pytestmark = [pytest.mark.slow]

ANSWER_TIMEOUT_S = 10.0
SIZE_BYTES_MAX = 262_144

SECRETS = {
    "PCS_HMAC_KEY": "canaryHmacKey7f3d91c0",
    "PCS_HMAC_KEYS": "canaryOtherHmacKey2b8e04aa",
    "METRICS_PASS": "canaryMetricsPass55d0e1f7",
    "METRICS_USER": "canaryMetricsUser0c9a66b2",
    "ed25519 seed": "canaryEd25519SeedIs32BytesLong!!",
    "store password": "canaryStorePassword9e1f20c4",
    "store user": "canarystoreuser4d7a",
    "store name": "canarystorename81b3",
}
SIGNING = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": SECRETS["PCS_HMAC_KEY"]}
LOUD = {"LOG_LEVEL": "DEBUG"}

EMAIL = "anna.canary@example.org"
TELEPHONE = "+1 (555) 010-9977"
TEXT = "canaryText6e02b9d5"
PERSONAL = {"e-mail": EMAIL, "telephone": TELEPHONE, "telephone, bare": "+15550109977", "text": TEXT}

# A record that is well-formed, with a value of its own in each field. Only pcs_id may be repeated.
FIELDS = {
    "shard_id": f"{TEXT}/{EMAIL}/+15550109977",
    "epoch": 5_718_281_828_459,
    "attempt": 88_442_211_337,
    "sent_at": "2031-07-19T03:14:15.926535Z",
    "seed": 7_316_624_151_091,
    "scales": [3, 1_618_033, 2_718_281_828],
    "N_j": {"3": 7, "1618033": 14_142_135_623, "2718281828": 17_320_508_075},
    "D_hat": 0.577215664,
    "coh_star": 0.693147181,
    "v_star": [0.916290732, -0.123456789],
    "r": 0.301029996,
    "budget": 0.314159265,
    "merkle_root": "c0ffee" * 10 + "abcd",
    "ft": {
        "outbox_seq": 99_887_766_554,
        "degraded": True,
        "fallbacks": [TEXT, EMAIL, TELEPHONE],
        "clock_skew_ms": -60_221_407,
    },
}
PLANTED = PERSONAL | {
    "epoch": "5718281828459",
    "attempt": "88442211337",
    "sent_at": "2031-07-19",
    "seed": "7316624151091",
    "a scale": "1618033",
    "another scale": "2718281828",
    "a count": "14142135623",
    "another count": "17320508075",
    "D_hat": "577215664",
    "coh_star": "693147181",
    "v_star": "916290732",
    "r": "301029996",
    "budget": "314159265",
    "merkle_root": "c0ffee" * 10,
    "outbox_seq": "99887766554",
    "clock_skew_ms": "60221407",
}


def find_leaks(text: str | bytes, canaries: Mapping[str, str]) -> list[str]:
    """Return the names of the canaries that a text holds: as they are, in base64, in hex, quoted, in any case."""
    found = (text if isinstance(text, bytes) else text.encode()).lower()
    return [
        name
        for name, canary in canaries.items()
        if any(spelling.lower().encode() in found for spelling in spellings(canary))
    ]


def spellings(canary: str) -> set[str]:
    # Of base64 the end depends on what follows, and is left out.
    encoded = base64.b64encode(canary.encode()).decode()[: len(canary) * 4 // 3 - 3]
    return {
        canary,
        encoded,
        canary.encode().hex(),
        quote(canary),
        json.dumps(canary)[1:-1],
        repr(canary)[1:-1],
    }


def signed(key: str = SECRETS["PCS_HMAC_KEY"], **overrides: object) -> bytes:
    return pcs_records.body(pcs_records.sign(pcs_records.document(**overrides), hmac_key=key.encode()))


def malformed_records() -> Iterator[bytes]:
    """Canaries of a wrong kind in each field, at each depth, as values and as keys."""
    whole = pcs_records.document(**FIELDS)
    wrong = [TEXT, EMAIL, [TEXT], {TEXT: TELEPHONE}, f"{TEXT}|{TELEPHONE}\n", 5_718_281_828_459.25]
    for name in whole:
        for value in wrong:
            yield pcs_records.body(whole | {name: value})
    for name in FIELDS["ft"]:
        for value in wrong:
            yield pcs_records.body(whole | {"ft": FIELDS["ft"] | {name: value}})
    yield pcs_records.body(whole | {"N_j": {TEXT: 1, EMAIL: 2, "3": TEXT}})
    yield pcs_records.body(whole | {"scales": [TEXT, 2]})
    yield pcs_records.body(whole | {"v_star": [0.0, TEXT]})
    yield pcs_records.body(whole | {"ft": FIELDS["ft"] | {"fallbacks": [TEXT * 5, 1, {EMAIL: 1}]}})
    yield pcs_records.body(whole | {"pcs_id": TEXT.ljust(64, "0"), "merkle_root": EMAIL.ljust(64, "0")})
    yield TEXT.encode()
    yield f'{{"{TEXT}": "{EMAIL}"'.encode()
    yield f'["{TEXT}", {TELEPHONE}]'.encode()
    yield b"\xff\xfe" + TEXT.encode() + b"\x00\xff" + EMAIL.encode()
    yield b"[" * 5_000 + TEXT.encode()
    yield f'{{"D_hat": NaN, "{TEXT}": Infinity}}'.encode()


def refused_records() -> Iterator[bytes]:
    """Well-formed ones: bad signatures, signatures that are none, a foreign id."""
    yield signed("another key", **FIELDS)
    yield signed("another key", **FIELDS | {"shard_id": "a", "ft": FIELDS["ft"] | {"fallbacks": []}})
    for sig in (TEXT, TEXT + "=", base64.b64encode(TEXT.encode() * 2).decode(), f"{TEXT}!{EMAIL}", ""):
        yield pcs_records.body(pcs_records.document(**FIELDS, sig=sig))
    yield signed(**FIELDS | {"pcs_id": "c0ffee" * 10 + "0000"})


def submit(body: bytes, *headers: str, query: str = "", path: str = "/v1/pcs/submit") -> bytes:
    """Return the bytes of a submit that closes its connection."""
    lines = [
        f"POST {path}{query} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def odd_http() -> Iterator[bytes]:
    """Canaries in every part of a request, in HTTP and in what is none."""
    body = signed(**FIELDS)
    yield submit(body, f"X-{TEXT}: {EMAIL}", f"Cookie: {TEXT}={TEXT}", f"Authorization: Bearer {TEXT}")
    yield submit(body, f"User-Agent: {TEXT}", f"Referer: http://{TEXT}/", f"X-Forwarded-For: {TELEPHONE}")
    yield submit(body, query=f"?{TEXT}={EMAIL}&pcs=%2B15550109977")
    yield submit(body, path=f"/{TEXT}/{EMAIL}")
    yield submit(body, path=f"/v1/pcs/submit/{TEXT}")
    yield submit(body, path=f"http://{TEXT}:1/v1/pcs/submit#{EMAIL}")
    yield submit(body, f"Content-Encoding: {TEXT}")
    yield submit(body, f"Transfer-Encoding: {TEXT}")
    yield submit(body, f"Expect: {TEXT}")
    yield submit(body, f"Upgrade: {TEXT}", "Connection: Upgrade")
    yield submit(body).replace(b"application/json", f"text/{TEXT}; charset={EMAIL}".encode())
    yield submit(body).replace(b"application/json", f"application/json; charset={TEXT}".encode())
    yield submit(body).replace(b"Host: localhost", f"Host: {TEXT}".encode())
    yield submit(body).replace(b"HTTP/1.1", TEXT.encode(), 1)
    yield submit(body).replace(b"POST", TEXT.upper().encode(), 1)
    yield submit(body, f"X-{TEXT}: {EMAIL}").replace(b"POST", b"DELETE", 1)
    yield submit(body.ljust(SIZE_BYTES_MAX + 1))
    yield submit(body).replace(b"Content-Length: ", b"Content-Length: 9")  # ends early
    yield submit(body).replace(b"Content-Length: ", f"Content-Length: {TEXT}".encode())
    yield submit(body, "Transfer-Encoding: chunked").replace(b"Content-Length", b"X-Length")
    chunked = submit(b"", "Transfer-Encoding: chunked").replace(b"Content-Length", b"X-Length")
    yield chunked + f"{TEXT}\r\n{EMAIL}\r\n0\r\n\r\n".encode()
    yield chunked + f"5;{TEXT}={EMAIL}\r\nhello{TEXT}".encode()
    yield submit(body, f"{TEXT} no colon {EMAIL}")
    yield submit(body, f"X-Bad\x00{TEXT}: {EMAIL}")
    yield submit(body, f"X-Long: {TEXT * 2_000}")
    yield submit(body, *(f"X-{number}-{TEXT}: {EMAIL}" for number in range(200)))
    yield f"{TEXT} {EMAIL}\r\n\r\n".encode()
    yield f"GET /{TEXT}\xff\x00 HTTP/9.9\r\n\r\n".encode("latin-1")
    yield b"\x16\x03\x01\x02\x00\x01" + TEXT.encode() + b"\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + TEXT.encode()
    login = base64.b64encode(f"{TEXT}:{EMAIL}".encode()).decode()
    for credentials in (f"Basic {login}", f"Basic {TEXT}!", f"{TEXT} {login}", "Basic \xe4" + TEXT):
        yield (
            f"GET /metrics?{TEXT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            f"Authorization: {credentials}\r\n\r\n"
        ).encode("latin-1")


async def exchange(url: str, data: bytes) -> bytes:
    """Send bytes on a connection of their own, and read until the service closes it."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    said = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(65_536), ANSWER_TIMEOUT_S):
            said += chunk
    except ConnectionError:
        pass  # closed before all was sent
    finally:
        writer.close()
    return said


async def provoke(backend: Backend, requests: list[bytes]) -> bytes:
    """Send everything, ask every other path as well, stop; return all that the service said."""
    said = [await exchange(backend.url, request) for request in requests]
    async with Client(backend) as client:
        for path in ("/metrics", "/openapi.json", "/health/ready", "/health/live", "/health/startup"):
            answer = await client.get(path, headers=login_of(backend))
            assert answer.status == 200
            said.append(repr(answer.headers).encode() + answer.body)
    assert backend.stop() == 0
    return b"\n".join([*said, backend.output])


def login_of(backend: Backend) -> dict[str, str]:
    user, password = (backend.variables.get(name, "") for name in ("METRICS_USER", "METRICS_PASS"))
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def statuses(said: bytes) -> set[int]:
    return {int(line.split()[1]) for line in said.splitlines() if line.startswith(b"HTTP/1.")}


class TestRequests:
    async def test_records_of_every_kind(self, tmp_path: Path) -> None:
        """Accepted, escalated, replayed, in conflict, refused, malformed: each in each field, with signing on."""
        variables = (
            SIGNING
            | LOUD
            | {name: SECRETS[name] for name in ("METRICS_USER", "METRICS_PASS", "PCS_HMAC_KEYS")}
        )
        bodies = [
            signed(**FIELDS, unknown_field=TEXT),
            signed(**FIELDS, unknown_field={TEXT: EMAIL}),
            signed(**FIELDS | {"N_j": {"3": 7, "1618033": 14_142_135_623, "2718281828": 17_320_508_076}}),
            signed(SECRETS["PCS_HMAC_KEYS"], shard_id=f"{TEXT}/{EMAIL}"),
            *malformed_records(),
            *refused_records(),
        ]
        with Backend(tmp_path / "data", **variables) as backend:
            said = await provoke(backend, [submit(body) for body in bodies])
        assert statuses(said) == {200, 202, 400, 401}
        assert said.count(b'"event": "submit"') == len(bodies)
        assert find_leaks(said, PLANTED | SECRETS) == []

    async def test_parts_of_http_and_what_is_no_http(self, tmp_path: Path) -> None:
        variables = SIGNING | LOUD | {"BODY_TIMEOUT_S": "0.5"}
        with Backend(tmp_path / "data", **variables) as backend:
            said = await provoke(backend, list(odd_http()))
        assert statuses(said) >= {202, 400, 404, 405, 413, 415}
        assert b"Traceback" not in said
        assert find_leaks(said, PLANTED | SECRETS) == []

    async def test_records_signed_with_ed25519(self, tmp_path: Path) -> None:
        seed = SECRETS["ed25519 seed"].encode()
        public = base64.b64encode(pcs_records.ed25519_public(seed)).decode()
        variables = LOUD | {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_PUB_B64": public}
        good = pcs_records.sign(pcs_records.document(**FIELDS), ed25519_seed=seed)
        bodies = [pcs_records.body(good), *refused_records()]
        with Backend(tmp_path / "data", **variables) as backend:
            said = await provoke(backend, [submit(body) for body in bodies])
        assert statuses(said) == {202, 400, 401}
        leaks = PLANTED | SECRETS | {"public key": public, "signature": good["sig"]}
        assert find_leaks(said, leaks) == []


UNREACHABLE = "127.0.0.1:1"
LOGIN = f"{SECRETS['store user']}:{SECRETS['store password']}"


class TestStores:
    """Drivers quote addresses, names and arguments in what they raise and log."""

    async def provoke_and_ask(self, tmp_path: Path, variables: dict[str, str]) -> bytes:
        variables = SIGNING | LOUD | variables
        bodies = [signed(**FIELDS), *list(malformed_records())[:3], *refused_records()]
        with Backend(tmp_path / "data", **variables) as backend:
            said = await provoke(backend, [submit(body) for body in bodies])
        commands = [("check-config",), ("escalations", "list"), ("conflicts",), ("replay",)]
        for arguments in commands:
            ended = run("pcs-backend", *arguments, **backend.variables)
            assert ended.returncode == 1
            said += ended.stdout + ended.stderr
        assert statuses(said) == {400, 401, 503}
        assert b"Traceback" not in said
        return said

    @pytest.mark.parametrize(
        "variables",
        [
            {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"redis://{LOGIN}@{UNREACHABLE}/0"},
            {
                "DEDUP_BACKEND": "postgres",
                "POSTGRES_DSN": f"postgresql://{LOGIN}@{UNREACHABLE}/canarystorename81b3",
            },
        ],
        ids=["redis", "postgres"],
    )
    async def test_store_that_cannot_be_reached(self, tmp_path: Path, variables: dict[str, str]) -> None:
        said = await self.provoke_and_ask(tmp_path, variables)
        assert find_leaks(said, PLANTED | SECRETS) == []

    async def test_redis_that_refuses_the_password(self, tmp_path: Path, redis_address: str) -> None:
        variables = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"redis://{LOGIN}@{redis_address}/0"}
        said = await self.provoke_and_ask(tmp_path, variables)
        assert find_leaks(said, PLANTED | SECRETS) == []

    async def test_postgres_without_the_database(
        self, tmp_path: Path, postgres_server: PostgresServer
    ) -> None:
        postgres_server.start()
        server = f"127.0.0.1:{postgres_server.port}"
        dsn = f"postgresql://pcs:{SECRETS['store password']}@{server}/{SECRETS['store name']}"
        said = await self.provoke_and_ask(tmp_path, {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": dsn})
        assert find_leaks(said, PLANTED | SECRETS) == []

    async def test_store_that_goes_down_while_records_come(
        self, tmp_path: Path, store_variables: dict[str, str], request: pytest.FixtureRequest
    ) -> None:
        kind = store_variables["DEDUP_BACKEND"]
        with Backend(tmp_path / "data", **SIGNING, **LOUD, **store_variables) as backend:
            said = [await exchange(backend.url, submit(signed(**FIELDS)))]
            if kind != "memory":
                server = request.getfixturevalue(f"{kind}_server")
                server.stop()
                try:
                    said.append(await exchange(backend.url, submit(signed(**FIELDS))))
                finally:
                    server.start()
            said.append(await provoke(backend, []))
        everything = b"\n".join(said)
        assert statuses(everything) == ({202} if kind == "memory" else {202, 503})
        assert find_leaks(everything, PLANTED | SECRETS) == []


class TestExceptions:
    @pytest.mark.parametrize("key", [SECRETS["PCS_HMAC_KEY"], "another key"])
    def test_no_exception_of_a_record_holds_anything_of_it(self, key: str) -> None:
        """Neither its message, nor its arguments, nor what it was raised from."""
        keys = [HmacKey(key.encode())]
        caught = 0
        for body in [*malformed_records(), *refused_records()]:
            try:
                record = decode_record(body)
                signer_of(keys, record)
                check_identity(record)
            except PcsError as error:
                caught += 1
                chain = everything_of(error) + "".join(traceback.format_exception(error))
                assert find_leaks(chain, PLANTED | SECRETS) == []
        assert caught > 100


def everything_of(error: BaseException | None) -> str:
    """Return message, arguments and attributes of an exception and of all it was raised from or during."""
    if error is None:
        return ""
    own = f"{error} {error!r} {error.args!r} {vars(error)!r}"
    return own + everything_of(error.__cause__) + everything_of(error.__context__)


LEAKING_BACKEND = """
import sys
import structlog
from pcs_backend import examine
from pcs_backend.cli import main

decode = examine.decode_record

def decode_and_tell(body):
    structlog.get_logger().debug("a record", body=body.decode())
    return decode(body)

examine.decode_record = decode_and_tell
sys.argv = ["pcs-backend", "serve"]
main()
"""

TALKATIVE_CODE = """
import logging, sys
import structlog
from pcs_backend.effects.logs import configure_logs

configure_logs("DEBUG")
said = sys.argv[2]
if sys.argv[1] == "own":
    structlog.get_logger().debug("a record", shard_id=said)
elif sys.argv[1] == "event":
    structlog.get_logger().error(said)
else:
    try:
        raise ValueError(said)
    except ValueError as error:
        logging.getLogger("some.library").exception("could not read %s: %s", said, error)
        logging.getLogger("some.library").warning(said)
        logging.getLogger("some.library").debug(said)
"""


def logged(how: str, what: str) -> str:
    """Return what reaches standard error and output of a process with the service's logging."""
    ended = subprocess.run(
        [sys.executable, "-c", TALKATIVE_CODE, how, what],
        env=clean_environment(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    return (ended.stdout + ended.stderr).decode()


class TestTheCheckItself:
    async def test_backend_that_logs_records_is_found_out(self, tmp_path: Path) -> None:
        backend = Backend(tmp_path / "data", **SIGNING, **LOUD)
        backend.command = [sys.executable, "-c", LEAKING_BACKEND]
        with backend.start():
            said = await provoke(backend, [submit(signed(**FIELDS))])
        leaks = find_leaks(said, PLANTED)
        assert set(leaks) >= {
            "text",
            "sent_at",
            "merkle_root",
        }  # long numbers are taken for telephone numbers
        assert "e-mail" not in leaks  # the log redacts these all the same
        assert b"[email]" in said
        assert b"[phone]" in said

    @pytest.mark.parametrize("how", ["own", "event"])
    def test_payload_in_a_line_of_our_own_is_found(self, how: str) -> None:
        assert find_leaks(logged(how, f"runs {TEXT}"), PLANTED) == ["text"]

    def test_what_a_library_says_is_reduced_to_that_it_spoke(self) -> None:
        said = logged("library", f"{TEXT} {EMAIL} {TELEPHONE}")
        assert find_leaks(said, PLANTED) == []
        lines = [json.loads(line) for line in said.splitlines()]
        assert [(line["logger"], line["level"], line["error"]) for line in lines] == [
            ("some.library", "error", "ValueError"),
            ("some.library", "warning", ""),
        ]

    def test_addresses_and_numbers_in_our_own_lines_are_redacted(self) -> None:
        (line,) = logged("own", f"runs/{EMAIL}/{TELEPHONE}").splitlines()
        assert json.loads(line)["shard_id"] == "runs/[email]/[phone]"

    @pytest.mark.parametrize(
        "text",
        [
            f"..{TEXT}..",
            TEXT.upper(),
            base64.b64encode(TEXT.encode() + b" and more").decode(),
            TEXT.encode().hex(),
            f"{TEXT}".encode(),
        ],
    )
    def test_every_spelling_is_found(self, text: str | bytes) -> None:
        assert find_leaks(text, {"text": TEXT, "other": "something else"}) == ["text"]

    def test_clean_text_is_clean(self) -> None:
        assert find_leaks("a line of no interest, 0.868263374", PLANTED | SECRETS) == []
