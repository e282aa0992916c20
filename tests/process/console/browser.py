"""A headless Chromium, told what to do over the DevTools protocol: one page at a time.

What goes wrong in the page, exceptions and what its policy forbids, is kept in ``complaints``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

WAIT_S = 20.0
POLL_S = 0.02
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0")  # fmt: skip


def unavailable() -> str | None:
    """Why there is no browser here."""
    return None if _program() else "chromium is not installed"


def _program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._numbers = itertools.count(1)
        self._folder = folder
        self.complaints: list[str] = []
        program = _program()
        assert program is not None
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._runner.run(self._connect())

    def close(self) -> None:
        self._runner.run(self._disconnect())
        self._runner.close()
        self._process.kill()
        self._process.wait()

    # --- what a person does -----------------------------------------------------------------------

    def open(self, url: str) -> None:
        self.tell("Page.navigate", url="about:blank")
        self.tell("Page.bringToFront")
        self.tell("Page.navigate", url=url)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of the window, and which colours its owner prefers."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """As the page is told of it. Input of the DevTools waits for a frame, which a page that is
        not on a screen may not draw."""
        event = f"new KeyboardEvent('keydown', {{key: {json.dumps(key)}, bubbles: true, cancelable: true}})"
        self.evaluate(f"document.activeElement.dispatchEvent({event})")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    # --- what a test asks -------------------------------------------------------------------------

    def evaluate(self, expression: str) -> Any:
        """Its value, which JSON must know. A promise is waited for."""
        done = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{expression}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def text(self, selector: str = "body") -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait(self, condition: str, what: str, timeout_s: float = WAIT_S) -> float:
        """Seconds until the expression was true."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if self.evaluate(condition):
                return time.monotonic() - began
            time.sleep(POLL_S)
        raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}; {self.complaints}; {self.text()[:3000]}")

    def wait_text(self, text: str, selector: str = "body", timeout_s: float = WAIT_S) -> float:
        found = f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(text)})"
        return self.wait(found, f"{text!r} in {selector}", timeout_s)

    def tell(self, method: str, **parameters: Any) -> Any:
        return self._runner.run(self._tell(method, parameters))

    # --- the protocol -----------------------------------------------------------------------------

    async def _connect(self) -> None:
        self._session = aiohttp.ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [target for target in await answer.json() if target["type"] == "page"]
        self._socket = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=MESSAGE_BYTES_MAX, heartbeat=None
        )
        for domain in ("Page", "Runtime", "Log"):
            await self._tell(f"{domain}.enable", {})

    async def _port(self) -> int:
        """Chromium writes it down when it listens."""
        noted = self._folder / "DevToolsActivePort"
        async with asyncio.timeout(WAIT_S):
            while not noted.exists() or "\n" not in noted.read_text():
                assert self._process.poll() is None, "chromium has ended"
                await asyncio.sleep(POLL_S)
        return int(noted.read_text().split()[0])

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._session.close()

    async def _tell(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(WAIT_S):
            while True:
                heard = await self._socket.receive_json()
                if heard.get("id") == number:
                    assert "error" not in heard, f"{method}: {heard['error']}"
                    return heard["result"]
                self._note(heard)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"].get("exception", {}).get("description")))
        elif event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error" and entry["source"] != "network":  # a broker that is down is no fault
                self.complaints.append(entry["text"])


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="minilog-browser-", ignore_cleanup_errors=True) as folder:
        opened = Browser(Path(folder))
        try:
            yield opened
        finally:
            opened.close()
