"""TLS and mutual TLS end to end: certificates that are good, expired, of another authority, missing, renewed."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import certificates
import pytest
from cryptography.hazmat.primitives import serialization
from multidict import CIMultiDict

import pcs_records
from processes import HMAC_KEY, Backend, run

pytestmark = [pytest.mark.slow]

WAIT_S = 20.0
SECRET = "the secret of {}, long enough"


class Paths(NamedTuple):
    certificate: Path
    key: Path


class World:
    """Two authorities and what they signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good, self.other = certificates.make_authority(), certificates.make_authority("elsewhere")
        self.ca = certificates.write(self.good, folder, "ca")[0]
        self.other_ca = certificates.write(self.other, folder, "other-ca")[0]

    def server(self, *, days: float = 1, authority: certificates.Issued | None = None) -> Paths:
        issued = certificates.issue(
            authority or self.good, ("localhost", "127.0.0.1"), for_server=True, days=days
        )
        return Paths(*certificates.write(issued, self.folder, "server"))

    def client(
        self, name: str = "agent", *, days: float = 1, authority: certificates.Issued | None = None
    ) -> Paths:
        issued = certificates.issue(authority or self.good, (name,), for_server=False, days=days)
        return Paths(*certificates.write(issued, self.folder, f"client-{name}"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def variables(server: Paths, **more: str) -> dict[str, str]:
    return {"TLS_CERT": str(server.certificate), "TLS_KEY": str(server.key)} | more


@asynccontextmanager
async def session(ca: Path, client: Paths | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(ca))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout) as opened:
        yield opened


def record(epoch: int = 0, key: str = HMAC_KEY) -> bytes:
    return pcs_records.body(pcs_records.sign(pcs_records.document(epoch=epoch), hmac_key=key.encode()))


async def submit(opened: aiohttp.ClientSession, backend: Backend, body: bytes, *passed_on: str) -> int:
    headers = CIMultiDict({"Content-Type": "application/json"})
    for value in passed_on:
        headers.add("Client-Cert", value)
    async with opened.post(f"{backend.url}/v1/pcs/submit", data=body, headers=headers) as answer:
        await answer.read()
        return answer.status


async def served(ca: Path, backend: Backend, client: Paths | None = None) -> int:
    async with session(ca, client) as opened:
        return await submit(opened, backend, record())


class TestServer:
    async def test_good_certificate(
        self, tmp_path: Path, world: World, hmac_variables: dict[str, str]
    ) -> None:
        with Backend(tmp_path / "data", **variables(world.server()), **hmac_variables) as backend:
            assert backend.url.startswith("https://127.0.0.1:")
            assert await served(world.ca, backend) == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="unable to get local issuer"):
                await served(world.other_ca, backend)
            assert backend.stop() == 0

    async def test_expired_certificate(self, tmp_path: Path, world: World) -> None:
        with Backend(tmp_path / "data", **variables(world.server(days=-1))) as backend:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="certificate has expired"):
                await served(world.ca, backend)
            assert backend.stop() == 0

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
    async def test_old_versions_of_tls_and_plain_http_are_refused(self, tmp_path: Path, world: World) -> None:
        with Backend(tmp_path / "data", **variables(world.server())) as backend:
            async with session(world.ca) as opened:
                context = ssl.create_default_context(cafile=str(world.ca))
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = ssl.TLSVersion.TLSv1_1
                with pytest.raises(aiohttp.ClientConnectorError):
                    await opened.get(backend.url, ssl=context)
                with pytest.raises(aiohttp.ClientError):
                    await opened.get(backend.url.replace("https:", "http:"))
            assert backend.stop() == 0

    async def test_a_renewed_certificate_is_taken_and_open_connections_live_on(
        self, tmp_path: Path, world: World, hmac_variables: dict[str, str]
    ) -> None:
        with Backend(tmp_path / "data", **variables(world.server()), **hmac_variables) as backend:
            async with session(world.ca) as opened:
                assert await submit(opened, backend, record(0)) == 200
                world.server(authority=world.other)
                async with asyncio.timeout(WAIT_S):
                    while True:
                        try:
                            assert await served(world.other_ca, backend) == 200
                        except aiohttp.ClientConnectorCertificateError:
                            continue
                        break
                assert await submit(opened, backend, record(1)) == 200  # over the connection from before
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await served(world.ca, backend)
            assert backend.stop() == 0

    async def test_a_new_certificate_that_cannot_be_used_changes_nothing(
        self, tmp_path: Path, world: World, hmac_variables: dict[str, str]
    ) -> None:
        server = world.server()
        with Backend(tmp_path / "data", **variables(server), **hmac_variables) as backend:
            broken = tmp_path / "broken"
            broken.write_bytes(b"no certificate")
            broken.rename(server.certificate)
            async with asyncio.timeout(WAIT_S):
                while b"the certificate was not renewed" not in backend.output:
                    assert await served(world.ca, backend) == 200
            assert await served(world.ca, backend) == 200
            assert backend.stop() == 0

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"TLS_CERT": "x"}, b"TLS_KEY: found nothing"),
            ({"TLS_KEY": "x"}, b"TLS_CERT: found nothing"),
            ({"TLS_CLIENT_CA": "x"}, b"TLS_CLIENT_CA: found one without TLS_CERT"),
            ({"TLS_PROXY_NAME": "nowhere"}, b"TLS_PROXY_NAME: found one without TLS_CLIENT_CA"),
            (
                {"TLS_CERT": "/nowhere", "TLS_KEY": "/nowhere"},
                b"TLS_CERT and TLS_KEY: found files that cannot be used",
            ),
        ],
    )
    def test_half_a_configuration_stops_the_start(self, given: dict[str, str], message: bytes) -> None:
        ended = run("pcs-backend", "check-config", **given)
        assert ended.returncode == 2
        assert message in ended.stderr
        assert b"nowhere" not in ended.stderr


class TestClients:
    async def test_only_a_good_certificate_gets_past_the_handshake(
        self, tmp_path: Path, world: World, hmac_variables: dict[str, str]
    ) -> None:
        mutual = variables(world.server(), TLS_CLIENT_CA=str(world.ca))
        with Backend(tmp_path / "data", **mutual, **hmac_variables) as backend:
            assert await served(world.ca, backend, world.client()) == 200
            for bad in (
                None,
                world.client("expired", days=-1),
                world.client("foreign", authority=world.other),
                world.server(),  # no client's certificate
            ):
                with pytest.raises(aiohttp.ClientError):
                    await served(world.ca, backend, bad)
            assert backend.stop() == 0

    async def test_a_certificate_is_bound_to_its_tenant(self, tmp_path: Path, world: World) -> None:
        """A stolen key of one tenant is worth nothing behind the certificate of another."""
        keys = tmp_path / "keys.toml"
        table = '[[keys]]\nid = "{0}"\nalgorithm = "hmac"\nsecret = "secret of {0}, long enough"\ntenant = "{0}"\n'
        peers = '[[peers]]\nname = "gateway-a"\ntenant = "a"\n'
        keys.write_text(table.format("a") + table.format("b") + peers)
        given = variables(
            world.server(), TLS_CLIENT_CA=str(world.ca), PCS_KEYS_FILE=str(keys), MULTI_TENANT="true"
        )
        with Backend(tmp_path / "data", **given) as backend:
            async with session(world.ca, world.client("gateway-a")) as opened:
                assert await submit(opened, backend, record(0, "secret of a, long enough")) == 200
                assert await submit(opened, backend, record(0, "secret of b, long enough")) == 401
            async with session(world.ca, world.client("stranger")) as opened:
                assert await submit(opened, backend, record(0, "secret of b, long enough")) == 200
            assert backend.stop() == 0


class TestLabels:
    async def test_a_certificate_labels_for_its_tenant_and_one_that_is_nobodys_labels_nothing(
        self, tmp_path: Path, world: World
    ) -> None:
        """Where records are signed, a certificate alone counts only with a name that is bound to a tenant."""
        keys = tmp_path / "keys.toml"
        table = '[[keys]]\nid = "{0}"\nalgorithm = "hmac"\nsecret = "secret of {0}, long enough"\ntenant = "{0}"\n'
        peers = '[[peers]]\nname = "gateway-a"\ntenant = "a"\n'
        keys.write_text(table.format("a") + table.format("b") + peers)
        given = variables(
            world.server(),
            TLS_CLIENT_CA=str(world.ca),
            PCS_KEYS_FILE=str(keys),
            MULTI_TENANT="true",
            ENABLE_CALIBRATION_LOGGING="true",
        )
        with Backend(tmp_path / "data", **given) as backend:

            async def label(opened: aiohttp.ClientSession, **more: str) -> tuple[int, bytes]:
                said = {
                    "pcs_id": pcs_records.document(epoch=0)["pcs_id"],
                    "label": "benign",
                    "by": "anna",
                } | more
                async with opened.post(f"{backend.url}/v1/calibration/labels", json=said) as answer:
                    return answer.status, await answer.read()

            async with session(world.ca, world.client("gateway-a")) as opened:
                assert await submit(opened, backend, record(0, "secret of a, long enough")) == 200
                status, body = await label(opened)
                assert (status, b'"tenant":"a"' in body) == (200, True)
                assert (await label(opened, tenant="b"))[0] == 401
            async with session(world.ca, world.client("stranger")) as opened:
                assert await submit(opened, backend, record(0, "secret of b, long enough")) == 200
                assert (await label(opened))[0] == 401
            assert backend.stop() == 0


class TestProxy:
    """A proxy says in `Client-Cert` whose certificate it checked; nobody else is believed."""

    @pytest.fixture
    def proxied(self, tmp_path: Path, world: World) -> dict[str, str]:
        """Tenants a and b, each with a key and a gateway's certificate."""
        keys = tmp_path / "keys.toml"
        keys.write_text(
            "".join(
                f'[[keys]]\nid = "{name}"\nalgorithm = "hmac"\nsecret = "{SECRET.format(name)}"\ntenant = "{name}"\n'
                f'[[peers]]\nname = "gateway-{name}"\ntenant = "{name}"\n'
                for name in "ab"
            )
        )
        given = {"TLS_CLIENT_CA": str(world.ca), "PCS_KEYS_FILE": str(keys), "MULTI_TENANT": "true"}
        return variables(world.server(), TLS_PROXY_NAME="proxy", **given)

    @staticmethod
    def header(world: World, name: str) -> str:
        issued = certificates.issue(world.other, (name,), for_server=False)
        der = issued.certificate.public_bytes(serialization.Encoding.DER)
        return f":{base64.b64encode(der).decode()}:"

    async def test_the_client_of_the_proxy_is_bound_to_its_tenant(
        self, tmp_path: Path, world: World, proxied: dict[str, str]
    ) -> None:
        a, b = (record(0, SECRET.format(name)) for name in "ab")
        with Backend(tmp_path / "data", **proxied) as backend:
            async with session(world.ca, world.client("proxy")) as opened:
                gateway = self.header(world, "gateway-a")
                assert [await submit(opened, backend, body, gateway) for body in (a, b)] == [200, 401]
                for nobody in ([], [""], ["::"], [self.header(world, "stranger")]):
                    assert await submit(opened, backend, b, *nobody) == 200
            assert backend.stop() == 0

    async def test_nobody_else_speaks_for_others(
        self, tmp_path: Path, world: World, proxied: dict[str, str]
    ) -> None:
        """The header of a client with a certificate of its own changes nothing."""
        a, b = (record(0, SECRET.format(name)) for name in "ab")
        with Backend(tmp_path / "data", **proxied) as backend:
            async with session(world.ca, world.client("gateway-b")) as opened:
                gateway = self.header(world, "gateway-a")
                assert [await submit(opened, backend, body, gateway) for body in (a, b)] == [401, 200]
            assert backend.stop() == 0
        del proxied["TLS_PROXY_NAME"]
        with Backend(tmp_path / "data", **proxied) as backend:
            async with session(world.ca, world.client("proxy")) as opened:
                assert await submit(opened, backend, b, self.header(world, "gateway-a")) == 200
            assert backend.stop() == 0

    async def test_what_the_proxy_says_and_nobody_can_read_is_503_and_kept_out_of_the_log(
        self, tmp_path: Path, world: World, proxied: dict[str, str]
    ) -> None:
        gateway = self.header(world, "gateway-a")
        with Backend(tmp_path / "data", **proxied) as backend:
            async with session(world.ca, world.client("proxy")) as opened:
                for said in ([gateway, gateway], [gateway[:-9] + ":"], ["gateway-a"]):
                    assert await submit(opened, backend, record(0, SECRET.format("a")), *said) == 503
                async with opened.get(f"{backend.url}/metrics") as answer:
                    assert "\nflk_open_requests 0.0\n" in await answer.text()
            assert backend.stop() == 0
