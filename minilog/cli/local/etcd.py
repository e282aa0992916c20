"""etcd of a dev cluster: one member, or three, as real processes of this machine.

etcd is another project's program. Where it is not installed nothing here pretends.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from minilog.cli.local import process
from minilog.cli.local.ports import HOST
from minilog.cli.output import CliError
from minilog.cli.request import Unanswered, send
from minilog.errors import MinilogError

READY_TIMEOUT_S: Final = 20.0


def find_etcd() -> str:
    """Raises CliError."""
    found = shutil.which("etcd")
    if found is None:
        raise CliError(
            "several controllers keep their journal in etcd, which is not installed here (Debian and Ubuntu: apt-get "
            "install etcd-server etcd-client). One controller needs none: leave --controllers out"
        )
    return found


class EtcdMember:
    """``number`` counts from 1. ``port`` is for controllers, the next one for its peers."""

    def __init__(self, folder: Path, number: int, port: int) -> None:
        self.name = f"etcd-{number}"
        self.port = port
        self.data_dir = folder / self.name
        self.log_file = folder / "logs" / f"{self.name}.log"
        self.pid_file = folder / "run" / f"{self.name}.json"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://{HOST}:{self.port + 1}"

    def known(self) -> process.PidFile | None:
        return process.read_pid_file(self.pid_file)

    def state(self) -> process.State:
        return process.state(self.known())

    def start(self, members: Sequence[EtcdMember], words: Sequence[str] = ()) -> None:
        self.reap()
        command = [
            find_etcd(), "--name", self.name, "--data-dir", str(self.data_dir),
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", ",".join(f"{member.name}={member.peer_url}" for member in members),
            "--initial-cluster-token", str(self.data_dir.parent), "--logger", "zap", "--log-level", "warn",
            "--heartbeat-interval", "100", "--election-timeout", "1000", *words,
        ]  # fmt: skip
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process.write_pid_file(self.pid_file, self._child.pid)

    def is_ready(self) -> bool:
        try:
            return b'"true"' in send(f"{self.url}/health", "GET", 1.0)
        except (MinilogError, Unanswered):
            return False

    def signal(self, number: signal.Signals) -> bool:
        known = self.known()
        return known is not None and process.signal_to(known, number)

    def stop(self, timeout_s: float = 10.0) -> None:
        known = self.known()
        if known is None or not process.signal_to(known, signal.SIGTERM):
            self.reap()
            return
        process.signal_to(known, signal.SIGCONT)
        if not process.wait_dead(known, timeout_s):
            process.signal_to(known, signal.SIGKILL)
            process.wait_dead(known, timeout_s)
        self.reap()

    def kill(self) -> None:
        known = self.known()
        if known is not None and process.signal_to(known, signal.SIGKILL):
            process.wait_dead(known, 2.0)
        self.reap()

    def reap(self) -> None:
        """A child that has ended is waited for, or it stays a zombie."""
        if self._child is not None and self.state() == "dead":
            self._child.wait(5)
            self._child = None


def start_etcd(members: Sequence[EtcdMember], words: Sequence[str] = ()) -> None:
    """Those that do not run, and wait until all serve. Raises CliError."""
    if all(member.state() != "dead" for member in members):
        return
    for member in members:
        if member.state() == "dead":
            member.start(members, words)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not all(member.is_ready() for member in members):
        for member in members:
            if member.state() == "dead":
                raise CliError(f"{member.name} stopped while starting; its log is {member.log_file}")
        if time.monotonic() > deadline:
            raise CliError(
                f"etcd was not ready after {READY_TIMEOUT_S:.0f} s; its logs are beside {members[0].log_file}"
            )
        time.sleep(0.05)
