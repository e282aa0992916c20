"""A controller and two brokers with TLS, tokens and a security file, as ``dev up --secure`` makes
them, and people who may do more and less."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, Member
from minilog_client import Client

BROKERS: Final = 2
WAIT_S: Final = 30.0
ALLOWED: Final = {
    "ann": ["--role", "admin"],
    "shop": ["--allow", "write orders.*", "--allow", "group billing"],
}


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s in vain: {what}"
        time.sleep(0.05)


class Secured:
    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.dev = DevCluster.create(folder, BROKERS, 0, 0, settings, secure=True)
        assert self.dev.keyring is not None
        self.folder = self.dev.keyring.folder
        self.members: Mapping[str, Member] = {member.key_name: member for member in self.dev.members}

    def begin(self) -> None:
        self.dev.start_all(exit_with_parent=True)
        for name, rights in ALLOWED.items():
            (self.folder / f"{name}.token").write_text(self.token(name, *rights))
            (self.folder / f"{name}.token").chmod(0o600)
        for name in self.members:
            until(partial(self.knows, name, "shop"), "the tokens to be known")

    def url(self, name: str = "broker-1") -> str:
        return self.members[name].url

    def port(self, name: str = "broker-1") -> int:
        return self.members[name].port

    def token(self, name: str, *rights: str) -> str:
        done = self._minilog("token", "create", name, *rights, "--file", "security.toml")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token_of(self, who: str) -> str:
        return (self.folder / f"{who}.token").read_text().strip()

    def command(self, who: str, *words: str) -> subprocess.CompletedProcess[str]:
        """``minilog`` as ``who`` writes it."""
        return self._minilog("--token-file", f"{who}.token", "--ca-file", "ca.pem", *words)

    def client(self, who: str) -> Client:
        return Client(self.dev.url, token_file=str(self.folder / f"{who}.token"), ca_file=str(self.folder / "ca.pem"))

    def ask(
        self,
        url: str,
        token: str = "",
        body: bytes | None = None,
        media: str = "application/json",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        shown = {"Content-Type": media, **(headers or {})} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(url, body, shown, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.trust()) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def knows(self, name: str, who: str) -> bool:
        return self.ask(self.url(name) + "/v1/cluster", self.token_of(who))[0] == 200

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    def log(self, name: str) -> str:
        return self.members[name].log_file.read_text()

    def start(self, name: str) -> None:
        self.dev.start(self.members[name], exit_with_parent=True)

    def kill(self, name: str) -> None:
        known = self.members[name].known()
        assert known is not None
        assert process.signal_to(known, signal.SIGKILL)
        self.dev.wait_ended(self.members[name].name)

    def stop(self) -> None:
        self.dev.stop_all()
        self.dev.kill_all()

    def _minilog(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "minilog", *words],
            env=os.environ | {"MINILOG_URL": self.dev.url},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def secured(folder: Path, *settings: str) -> Iterator[Secured]:
    made = Secured(folder / "dev", list(settings))
    try:
        made.begin()
        yield made
    finally:
        made.stop()
