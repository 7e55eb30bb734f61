"""A real browser for the tests: headless Chromium, fetched by `tools`, spoken to over its DevTools protocol.

    with Browser() as browser:
        look = browser.look("http://127.0.0.1:8000/", width=390, script="document.title")

Nothing of the page is changed. What it asked for, what it logged and what the script found comes back.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from tools import tool

START_TIMEOUT_S = 60.0
LOOK_TIMEOUT_S = 60.0
MESSAGE_BYTES_MAX = 64 << 20
_POLL_S = 0.02

_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


class Look(NamedTuple):
    """What came of opening a page.

    Attributes:
        requests: Every address asked for, the page's own first; addresses that hold their data are left out.
        messages: Whatever the page or the browser logged about it, errors above all.
        value: What the script gave.
        picture: A PNG of the whole page, if one was asked for.
    """

    requests: list[str]
    messages: list[str]
    value: Any
    picture: bytes


class Browser:
    """One process of Chromium with a profile of its own."""

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="pcs-browser-")
        home = Path(self._home.name)
        binary = Path(tool("chromium"))
        root = binary.parents[3]
        fonts = home / "fonts.conf"
        fonts.write_text(_FONTS.format(fonts=root / "usr/share/fonts", cache=home / "fonts"))
        libraries = sorted({path.parent for path in root.rglob("*.so*")})
        environment = os.environ | {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "FONTCONFIG_FILE": str(fonts),
            "HOME": str(home),
        }
        command = [
            str(binary),
            "--no-sandbox",  # the tests run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={home / 'profile'}",
            "about:blank",
        ]
        self._log = (home / "log").open("wb")
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        self._port = self._find_port(home / "profile" / "DevToolsActivePort")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)
        self._log.close()
        self._home.cleanup()

    def look(
        self,
        url: str,
        *,
        width: int,
        height: int = 900,
        script: str = "null",
        media: str = "screen",
        dark: bool = False,
        picture: bool = False,
    ) -> Look:
        """Open a page, wait until it is loaded and laid out, and look at it.

        Args:
            url: Its address.
            width: Of the window, in CSS pixels.
            height: Likewise.
            script: An expression that is evaluated in the page.
            media: `screen` or `print`.
            dark: Whether the reader prefers a dark page.
            picture: Whether to take a picture.
        """
        looking = self._look(url, width, height, script, media, dark=dark, picture=picture)
        return asyncio.run(asyncio.wait_for(looking, LOOK_TIMEOUT_S))

    async def _look(
        self, url: str, width: int, height: int, script: str, media: str, *, dark: bool, picture: bool
    ) -> Look:
        origin = f"http://127.0.0.1:{self._port}"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{origin}/json/new?about:blank") as answer:
                target = await answer.json()
            async with session.ws_connect(
                target["webSocketDebuggerUrl"], max_msg_size=MESSAGE_BYTES_MAX
            ) as socket:
                tab = _Tab(socket)
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await tab.ask(f"{domain}.enable")
                await tab.ask(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                await tab.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
                await tab.ask("Page.navigate", url=url)
                await tab.wait_for("Page.loadEventFired")
                # After two frames everything is laid out, and what a page asks for late is asked for.
                frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
                await tab.ask("Runtime.evaluate", expression=frames, awaitPromise=True)
                found = await tab.ask("Runtime.evaluate", expression=script, returnByValue=True)
                assert "exceptionDetails" not in found, found
                data = b""
                if picture:
                    shot = await tab.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
                    data = base64.b64decode(shot["data"])
            async with session.get(f"{origin}/json/close/{target['id']}"):
                pass
        return Look(tab.requests, tab.messages, found["result"].get("value"), data)

    def _find_port(self, path: Path) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if path.exists() and (lines := path.read_text().split()):
                return int(lines[0])
            time.sleep(_POLL_S)
        self._process.kill()
        log = Path(self._log.name).read_text(errors="replace")[-2_000:]
        raise AssertionError(f"Chromium does not start: {log}")


class _Tab:
    """A tab: questions are answered in turn, and events are noted meanwhile."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0
        self._seen: set[str] = set()
        self.requests: list[str] = []
        self.messages: list[str] = []

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._asked:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    async def wait_for(self, event: str) -> None:
        while event not in self._seen:
            self._note(await self._socket.receive_json())

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif method == "Log.entryAdded":
            self.messages.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(parameters["exceptionDetails"]["text"])
