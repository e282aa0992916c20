"""A controller and two brokers with TLS, tokens and a security file, as the page about security
says. A CA made by openssl signs for all of them."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from minilog.cli.local.ports import free_ports
from minilog_client import Client

BROKERS: Final = (1, 2)
WAIT_S: Final = 30.0
ALLOWED: Final = {
    "controller": ["--role", "controller"],
    "broker-1": ["--role", "peer:1"],
    "broker-2": ["--role", "peer:2"],
    "ann": ["--role", "admin"],
    "shop": ["--allow", "write orders.*", "--allow", "group billing"],
}


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s in vain: {what}"
        time.sleep(0.05)


class Secured:
    def __init__(self, folder: Path, event_loop: str) -> None:
        self.folder = folder
        controller, *brokers = free_ports(1 + len(BROKERS))
        self.ports = {
            "controller": controller,
            **{f"broker-{n}": port for n, port in zip(BROKERS, brokers, strict=True)},
        }
        self._loop = event_loop
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._make_certificates()
        for name, rights in ALLOWED.items():
            (folder / f"{name}.token").write_text(self.token(name, *rights))
            (folder / f"{name}.token").chmod(0o600)

    def url(self, name: str = "broker-1") -> str:
        return f"https://127.0.0.1:{self.ports[name]}"

    @property
    def urls(self) -> str:
        return ",".join(self.url(f"broker-{n}") for n in BROKERS)

    def token(self, name: str, *rights: str) -> str:
        done = self._minilog("token", "create", name, *rights, "--file", "security.toml")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, who: str, *words: str) -> subprocess.CompletedProcess[str]:
        """``minilog`` as ``who`` writes it."""
        return self._minilog("--token-file", f"{who}.token", "--ca-file", "ca.pem", *words)

    def client(self, who: str) -> Client:
        return Client(self.urls, token_file=str(self.folder / f"{who}.token"), ca_file=str(self.folder / "ca.pem"))

    def ask(
        self, url: str, token: str = "", body: bytes | None = None, media: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": media} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.trust()) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def listens(self, name: str) -> bool:
        return "listening on https" in self.log(name)

    def is_ready(self, name: str) -> bool:
        return self.ask(self.url(name) + "/readyz")[0] == 200

    def start(self, name: str) -> None:
        more = [] if name == "controller" else [
            f"broker_id={name[-1]}", f"controller_url={self.url('controller')}", f"advertised_url={self.url(name)}",
        ]  # fmt: skip
        settings = [
            f"data_dir={name}", f"port={self.ports[name]}", "security_file=security.toml", "tls_ca_file=ca.pem",
            f"token_file={name}.token", f"tls_cert_file={name}.pem", f"tls_key_file={name}.key",
            f"event_loop={self._loop}", *more,
        ]  # fmt: skip
        flags = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "minilog", name.partition("-")[0], "run", *flags, "--exit-with-parent"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder
            )

    def kill(self, name: str) -> None:
        child = self._children.pop(name)
        child.kill()
        _close(child)

    def stop(self) -> None:
        for child in reversed(self._children.values()):
            child.send_signal(signal.SIGTERM)
        for child in self._children.values():
            _close(child)

    def _minilog(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "minilog", *words],
            env=os.environ | {"MINILOG_URL": self.urls},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _make_certificates(self) -> None:
        self._openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca "
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign"
        )
        for name in self.ports:
            self._openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
            (self.folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,URI:minilog://{name}\n")
            self._openssl(
                f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
            )
            (self.folder / f"{name}.key").chmod(0o600)

    def _openssl(self, words: str) -> None:
        done = subprocess.run(["openssl", *words.split()], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _close(child: subprocess.Popen[bytes]) -> None:
    child.wait(WAIT_S)
    assert child.stdin is not None
    child.stdin.close()


@contextmanager
def secured(folder: Path, event_loop: str) -> Iterator[Secured]:
    made = Secured(folder, event_loop)
    try:
        for name in made.ports:
            made.start(name)
        for name in made.ports:
            until(partial(made.listens, name), f"{name} to listen")
        for n in BROKERS:
            until(partial(made.is_ready, f"broker-{n}"), f"broker {n} to be ready")
        yield made
    finally:
        made.stop()
