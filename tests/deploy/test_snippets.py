"""What the docs tell to set and to type starts the service as it stands.

A port is replaced where another process may have it, and the address of a store by that of a real one; nothing else is.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from composing import LOCALHOST, ROOT, compose, deliver, make_secrets
from processes import Backend, clean_environment, command, run

pytestmark = [pytest.mark.slow]

TIMEOUT_S = 60.0
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROWS = "t,x,y\n" + "".join(f"row,{number},{number * number % 17}\n" for number in range(60))


def blocks(language: str) -> list[tuple[str, str]]:
    """Return every code block of a language with the name of its page."""
    pattern = rf"^```{language}\n(.*?)^```"
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]


def readme_blocks() -> list[str]:
    """Return the code blocks of "Run it yourself"."""
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("\n## Run it yourself\n")[2]
        .partition("\n## ")[0]
    )
    return [
        re.sub("^    ", "", block, flags=re.MULTILINE)
        for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    ]


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done


ENVIRONMENTS = blocks("env")


def test_there_are_environments_for_every_store() -> None:
    assert len(ENVIRONMENTS) == 3
    stores = {re.findall(r"^DEDUP_BACKEND=(.*)$", text, re.MULTILINE)[0] for _, text in ENVIRONMENTS[1:]}
    assert stores == {"postgres", "redis"}


@pytest.mark.parametrize("text", [text for _, text in ENVIRONMENTS])
def test_environment_starts_the_service(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    make_secrets(secrets)
    variables = dict(line.split("=", 1) for line in text.splitlines())
    match variables.get("DEDUP_BACKEND"):
        case "postgres":
            (secrets / "postgres_dsn").write_text(request.getfixturevalue("postgres_dsn"))
        case "redis":
            (secrets / "redis_addr").write_text(request.getfixturevalue("redis_address"))
    monkeypatch.chdir(tmp_path)
    checked = run("pcs-backend", "check-config", **variables)
    assert (checked.returncode, checked.stderr) == (0, b"")
    with Backend(tmp_path / "data", **variables | {"PORT": "0"}) as backend:
        places = {"CA_FILE": "inner-authority.pem", "CLIENT_CERT": "proxy.pem", "CLIENT_KEY": "proxy.key"}
        tls = {f"TLS_{name}": str(secrets / place) for name, place in places.items()}
        url = backend.url.replace("0.0.0.0", LOCALHOST)
        assert deliver(tmp_path, url, str(secrets / "hmac_key"), **tls) == ["accepted"] * 3
        assert backend.stop() == 0


def test_readme_runs_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of "Run it yourself" in order, in one folder; not what takes an id."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("pcs-agent", "pcs-backend"):
        (tmp_path / ".venv" / "bin" / name).symlink_to(command(name))
    (tmp_path / "events.csv").write_text(ROWS)
    (tmp_path / "streams").mkdir()
    for name in ("one.csv", "two.csv"):
        (tmp_path / "streams" / name).write_text(ROWS)
    serve, deliver, look, show, queue, watch = readme_blocks()
    export, served = serve.strip().splitlines()
    assert served.startswith(".venv/bin/pcs-backend serve ")
    signing = shell(f"{export}\nprintf '%s %s' $PCS_SIGN_ALG $PCS_HMAC_KEY", tmp_path).stdout.split()
    variables = dict(zip(("PCS_SIGN_ALG", "PCS_HMAC_KEY"), signing, strict=True))
    assert len(variables["PCS_HMAC_KEY"]) == 64
    convert = "import pyarrow.csv as c, pyarrow.parquet as p; p.write_table(c.read_csv('events.csv'), 'big.parquet')"
    shell(f"{shlex.quote(command('python'))} -c {shlex.quote(convert)}", tmp_path)
    monkeypatch.chdir(tmp_path)
    backend = Backend(tmp_path / "data", **variables)
    backend.command = ["bash", "-c", f"exec {served}"]
    with backend:
        assert deliver.count("http://127.0.0.1:8080/") == 1
        deliver = deliver.replace("http://127.0.0.1:8080", backend.url)
        assert shell(deliver, tmp_path, **variables).stdout.count("accepted") == 4
        assert "ok" in shell(look, tmp_path, **variables).stdout
        shell(show, tmp_path, **variables)
        assert "2 streams, 2 windows" in (tmp_path / "report.html").read_text(encoding="utf-8")
        shell(queue.splitlines()[0], tmp_path, **variables)
        top, tap, records = watch.splitlines()
        # The two that show what goes on until they are told to end, are.
        assert "store" in shell(f"{top} --once", tmp_path, **variables).stdout
        shell(f"{tap} --seconds 0.2", tmp_path, **variables)
        assert shell(records, tmp_path, **variables).stdout.count("accepted") == 4
        assert backend.stop() == 0


def test_commands_for_compose_name_files_and_services_that_are_there() -> None:
    lines = [
        shlex.split(line)
        for _, block in blocks("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("docker compose ")
    ]
    assert len(lines) >= 5
    for words in lines:
        arguments = words[2:]
        files = []
        while arguments[0] == "--file":
            files.append(ROOT / arguments[1])
            arguments = arguments[2:]
        assert arguments[0] in {"up", "run", "exec"}
        services = compose("config", "--services", files=files).stdout.decode().split()
        if arguments[0] != "up":
            assert set(services) & set(arguments[1:]), words
        else:
            assert {"backend", "agent"} <= set(services)
