"""The overlay with Caddy, run for real: Caddy, Prometheus and the backend as processes, with their services' settings.

Addresses and the paths of secrets are replaced, and Caddy keeps its authority to itself; nothing else of the files is.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import certificates
import credentials
import pytest
from cryptography.hazmat.primitives import serialization

import pcs_records
from composing import (
    BASE,
    CADDY,
    LOCALHOST,
    ROOT,
    Container,
    deliver,
    get,
    health_check,
    make_secrets,
    resolve,
)
from processes import Backend, clean_environment
from servers import Server, _free_port
from tools import tool

pytestmark = [pytest.mark.slow]

WAIT_S = 30.0
SECRET = "the secret of {}, long enough"
PUBLIC_NAME = "localhost"
"""Stands for PCS_DOMAIN: Caddy issues its certificate itself, and every machine can resolve it."""


class Caddy(Server):
    """Caddy with the Caddyfile of its service."""

    def __init__(self, container: Container, backend: str, folder: Path) -> None:
        super().__init__()
        self._container, self._backend, self._data = container, backend, folder
        self._plain_port, self._health_port = _free_port(), _free_port()
        self.authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    @property
    def url(self) -> str:
        return f"https://{PUBLIC_NAME}:{self.port}"

    def write(self) -> Path:
        text = self._container.mounted("/etc/caddy/Caddyfile")
        ports = f"http_port {self._plain_port}\n\thttps_port {self.port}"
        for old, new in (
            ("https://backend:8080", self._backend),
            (f"{LOCALHOST}:2080", f"{LOCALHOST}:{self._health_port}"),
            ("\tadmin off\n", f"\tadmin off\n\tskip_install_trust\n\t{ports}\n"),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = self._data / "Caddyfile"
        path.write_text(text)
        return path

    def variables(self) -> dict[str, str]:
        places = {name: str(self._data) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME")}
        return clean_environment(**self._container.environment | {"PCS_DOMAIN": PUBLIC_NAME} | places)

    def validate(self) -> subprocess.CompletedProcess[bytes]:
        command = [tool("caddy"), "validate", "--config", str(self.write()), "--adapter", "caddyfile"]
        return subprocess.run(command, env=self.variables(), capture_output=True, check=False, timeout=WAIT_S)

    def _command(self) -> list[str]:
        return [tool("caddy"), "run", "--config", str(self.write()), "--adapter", "caddyfile"]

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.variables()
        )

    def _answers(self) -> bool:
        (address,) = (
            word for word in self._container.service["healthcheck"]["test"] if word.startswith("http:")
        )
        try:
            status, _ = get(address.replace(":2080", f":{self._health_port}"))
        except OSError:
            return False
        return status == 200 and self.authority.exists()


class Prometheus(Server):
    """Prometheus with the command and configuration of its service, looking more often."""

    def __init__(self, container: Container, backend: str) -> None:
        super().__init__()
        text = container.mounted("/etc/prometheus/prometheus.yml")
        for old, new in (
            ("backend:8080", backend.removeprefix("https://")),
            (f"{LOCALHOST}:9090", f"{LOCALHOST}:{self.port}"),
            ("/etc/prometheus/rules", str(ROOT / "grafana" / "rules")),
            ("scrape_interval: 15s", "scrape_interval: 200ms"),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.config = self._folder / "prometheus.yml"
        self.config.write_text(text)
        self._arguments = container.command
        self.url = f"http://{LOCALHOST}:{self.port}"

    def ask(self, query: str) -> list[dict[str, Any]]:
        status, body = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        assert status == 200
        return json.loads(body)["data"]["result"]

    def _command(self) -> list[str]:
        places = {
            "--config.file": str(self.config),
            "--storage.tsdb.path": str(self._folder / "data"),
        }
        arguments = [argument.partition("=") for argument in self._arguments]
        given = [f"{name}={places.get(name, value)}" for name, _, value in arguments]
        return [tool("prometheus"), *given, f"--web.listen-address={LOCALHOST}:{self.port}"]

    def _answers(self) -> bool:
        try:
            return get(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False


class Running(NamedTuple):
    config: dict[str, Any]
    secrets: Path
    backend: Backend
    container: Container
    caddy: Caddy


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The backend behind Caddy, over the memory store, with two tenants beside the key of the environment."""
    folder = tmp_path_factory.mktemp("caddy")
    secrets = make_secrets(tmp_path_factory.mktemp("secrets"))
    config = resolve(BASE, CADDY)
    container = Container(config, "backend", secrets=secrets, volumes={"/data": folder / "data"})
    keys = folder / "keys.toml"
    keys.write_text(
        "".join(
            f'[[keys]]\nid = "{name}"\nalgorithm = "hmac"\nsecret = "{SECRET.format(name)}"\ntenant = "{name}"\n'
            for name in "ab"
        )
        + '[[peers]]\nname = "gateway-a"\ntenant = "a"\n'
    )
    more = {"PCS_KEYS_FILE": str(keys), "MULTI_TENANT": "true"}
    with Backend(
        folder / "data", **container.environment | {"PORT": "0", "DEDUP_BACKEND": "memory"} | more
    ) as backend:
        address = backend.url.replace("0.0.0.0", LOCALHOST)
        places = {"/data": folder, "/config": folder}
        with Caddy(Container(config, "caddy", secrets=secrets, volumes=places), address, folder) as caddy:
            yield Running(config, secrets, backend, container, caddy)
        assert backend.stop() == 0


@asynccontextmanager
async def session(
    running: Running, client: certificates.Issued | None
) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(running.caddy.authority))
    if client is not None:
        context.load_cert_chain(*certificates.write(client, running.secrets, "some-client"))
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(running.caddy.url, connector=connector, timeout=timeout) as opened:
        yield opened


def client(running: Running, name: str) -> certificates.Issued:
    """Return a certificate of the agents' authority."""
    authority = credentials._load(running.secrets, credentials.AGENTS)
    return certificates.issue(authority, (name,), for_server=False)


async def submit(opened: aiohttp.ClientSession, key: str, epoch: int, **headers: str) -> int:
    body = pcs_records.body(
        pcs_records.sign(pcs_records.document(epoch=epoch), hmac_key=SECRET.format(key).encode())
    )
    given = {"Content-Type": "application/json"} | headers
    async with opened.post("/v1/pcs/submit", data=body, headers=given) as answer:
        await answer.read()
        return answer.status


def test_caddy_takes_its_file(running: Running) -> None:
    done = running.caddy.validate()
    assert (done.returncode, b"Valid configuration" in done.stdout + done.stderr) == (0, True), done.stderr
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert [line["msg"] for line in said if line["level"] not in {"info", "debug"}] == []


def test_the_backend_is_healthy_though_nobody_gets_in_without_a_certificate(running: Running) -> None:
    assert health_check(running.container) == 0
    with pytest.raises(OSError, match="certificate"):
        get(running.backend.url.replace("0.0.0.0", LOCALHOST) + "/health/live")


def test_the_agent_delivers_signed_requests_through_it(running: Running, tmp_path: Path) -> None:
    """What a request's signature covers, its host among it, gets through unchanged."""
    agent = Container(
        running.config, "agent", secrets=running.secrets, volumes={"/outbox": tmp_path / "outbox"}
    )
    environment = agent.environment | {"TLS_CA_FILE": str(running.caddy.authority)}
    key = agent.path("/run/secrets/hmac_key")
    assert deliver(tmp_path, running.caddy.url, key, **environment) == ["accepted"] * 3


async def test_the_certificate_that_caddy_checked_binds_its_owner_to_a_tenant(running: Running) -> None:
    async with session(running, client(running, "gateway-a")) as opened:
        assert await submit(opened, "a", 1) == 200
        assert await submit(opened, "b", 1) == 401
        assert await submit(opened, "b", 1, **{"Client-Cert": "::"}) == 401  # it does not get rid of its own
    async with session(running, client(running, "stranger")) as opened:
        assert await submit(opened, "b", 1) == 200


async def test_what_a_client_says_about_itself_does_not_get_through(running: Running) -> None:
    der = client(running, "gateway-a").certificate.public_bytes(serialization.Encoding.DER)
    forged = {"Client-Cert": f":{base64.b64encode(der).decode()}:"}
    for own in (None, client(running, "stranger")):
        async with session(running, own) as opened:
            assert await submit(opened, "b", 2, **forged) == 200  # gateway-a may not send for b


async def test_a_certificate_of_another_authority_is_turned_away(running: Running) -> None:
    stranger = certificates.issue(certificates.make_authority("elsewhere"), ("gateway-a",), for_server=False)
    with pytest.raises(aiohttp.ClientError):
        async with session(running, stranger) as opened:
            await submit(opened, "a", 3)


async def test_only_the_service_is_served(running: Running) -> None:
    async with session(running, None) as opened:
        statuses = {}
        for path in ("/openapi.json", "/health/ready", "/metrics", "/", "/v1/pcs/submit", "/v1/pcs/batch"):
            async with opened.get(path) as answer:
                statuses[path] = answer.status
    assert statuses == {
        "/openapi.json": 200,
        "/health/ready": 200,
        "/metrics": 404,
        "/": 404,
        "/v1/pcs/submit": 405,
        "/v1/pcs/batch": 405,
    }


def test_prometheus_watches_it_with_a_certificate_of_its_own(running: Running, tmp_path: Path) -> None:
    places = {"/prometheus": tmp_path}
    container = Container(running.config, "prometheus", secrets=running.secrets, volumes=places)
    with Prometheus(container, running.backend.url.replace("0.0.0.0", LOCALHOST)) as server:
        command = [tool("promtool"), "check", "config", str(server.config)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=WAIT_S)
        assert done.returncode == 0, done.stderr.decode()
        assert b"1 rule files found" in done.stdout
        deadline_s = time.monotonic() + WAIT_S
        while not (found := server.ask('flk_ready{job="pcs-backend"}')):
            assert time.monotonic() < deadline_s, server.ask("up")
        assert [result["value"][1] for result in found] == ["1"]
