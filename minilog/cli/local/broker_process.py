"""Controller and broker in one process of this machine, for tests that need no replicas."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Unpack

from minilog.cli.local.member import http_ok
from minilog.cli.local.ports import HOST, free_ports
from minilog.errors import MinilogError
from minilog.wire.messages import TopicInfo
from minilog_client import Client
from minilog_client.options import ClientOptions

DEADLINE_S: Final = 20.0
_POLL_S: Final = 0.02


class MinilogBroker:
    """Controller and broker in one process: topics have one replica, and there is nothing to fail
    over to."""

    def __init__(self, folder: Path, deadline_s: float = DEADLINE_S) -> None:
        """``deadline_s``: how long its start and its end may take."""
        self.deadline_s = deadline_s
        self._folder = folder
        self._ports = free_ports(2)
        self._child: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._ports[0]}"

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A new client, closed with the broker."""
        client = Client(self.url, **options)
        self._clients.append(client)
        return client

    def create_topic(self, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicInfo:
        with Client(self.url) as client:
            return client.create_topic(topic, partitions, 1, dict(config or {}))

    def log(self) -> str:
        """What the process has printed so far."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it unless it runs, with the data it had, and wait until it serves."""
        if self._child is not None and self._child.poll() is None:
            return
        broker, controller = map(str, self._ports)
        command = [sys.executable, "-m", "minilog", "serve", "--data", str(self._folder / "data"), "--port", broker]
        with (self._folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--controller-port", controller, "--exit-with-parent"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + self.deadline_s
        while not http_ok(f"{self.url}/readyz"):
            assert self._child.poll() is None, f"minilog ended while starting: {self.log()[-2000:]}"
            assert time.monotonic() < deadline_s, f"minilog does not serve: {self.log()[-2000:]}"
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._running.kill()
        _ended(self._running, self.deadline_s)

    def stop(self) -> None:
        """SIGTERM, and wait for the clean end."""
        self._running.terminate()
        status = _ended(self._running, self.deadline_s)
        assert status == 0, f"minilog ended with status {status}: {self.log()[-2000:]}"

    def pause(self) -> None:
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        try:
            close_all(self._clients)
        finally:
            if self._child is not None and self._child.poll() is None:
                self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "start() it first"
        return self._child


def _ended(child: subprocess.Popen[bytes], deadline_s: float) -> int:
    """Its exit status, once it has ended; and our end of its pipe is closed."""
    try:
        status = child.wait(deadline_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"minilog did not end in {deadline_s:g} s") from None
    if child.stdin is not None:
        child.stdin.close()
    return status


def close_all(clients: Sequence[Client]) -> None:
    """Each of them, also when a callback of the test raises in one. Such an error is raised at the
    end."""
    with contextlib.ExitStack() as closing:
        for client in reversed(clients):
            closing.callback(_close, client)


def _close(client: Client) -> None:
    with contextlib.suppress(MinilogError):
        client.close()
