"""A dev cluster: one controller and n brokers as real processes of this machine, described by one
folder.

    <data>/dev.json               ports and settings, so that later commands find the cluster
    <data>/run/<name>.json        pid and start time of each process, and of `dev up`
    <data>/logs/<name>.log        what the process printed
    <data>/controller, broker-<n> the data folders
    <data>/controller-<n>, etcd-1 of more controllers, and of the etcd that they share
    <data>/keys                   of a secured cluster: certificates and tokens (keyring.py)

The folder is the only state: whichever command comes next, from whichever terminal, reads it anew.
Commands that change something hold ``run/lock``. A process is only ever signalled through its pid
file (process.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minilog.cli.local import process
from minilog.cli.local.dev_file import DEV_FILE as DEV_FILE
from minilog.cli.local.dev_file import DevFile as DevFile
from minilog.cli.local.dev_file import default_folder as default_folder
from minilog.cli.local.dev_file import refuse_foreign
from minilog.cli.local.etcd import EtcdMember, find_etcd, start_etcd
from minilog.cli.local.keyring import Keyring
from minilog.cli.local.member import CONTROLLER_ID as CONTROLLER_ID
from minilog.cli.local.member import Member as Member
from minilog.cli.local.member import http_ok as http_ok
from minilog.cli.local.ports import HOST, choose_ports, free_ports, more_ports, port_free
from minilog.cli.output import CliError
from minilog.settings import Role, assign

if TYPE_CHECKING:
    from minilog_client.credential import Credential

SUPERVISOR = "up"
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
SHUTDOWN_TIMEOUT_MS = 3000
"""Shorter than the default: here the controller is often dead on purpose, and nobody wants to wait
for it."""

LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?P<level>[A-Z]+) (?P<logger>\S+): ")
"""What precedes the sentence in a log line of brokers and controllers."""


class DevCluster:
    """``children`` are the processes this very process started, so that it can reap them."""

    def __init__(self, folder: Path, spec: DevFile) -> None:
        self.folder = folder
        self.spec = spec
        self.children: dict[str, process.Child] = {}
        self.etcd = [EtcdMember(folder, number, port) for number, port in enumerate(spec.etcd_ports, 1)]
        self.keyring = Keyring(folder / "keys") if spec.secure else None

    @property
    def data_words(self) -> str:
        """What a command to be copied into a shell needs besides, so that it is about this
        cluster."""
        return "" if self.folder == default_folder().resolve() else f" --data {shlex.quote(str(self.folder))}"

    def command(self, words: str) -> str:
        return f"`minilog dev {words}{self.data_words}`"

    @classmethod
    def open(cls, folder: Path) -> DevCluster:
        """Raises CliError when the folder holds no dev cluster."""
        path = folder / DEV_FILE
        try:
            return cls(folder.resolve(), msgspec.json.decode(path.read_bytes(), type=DevFile))
        except FileNotFoundError:
            raise CliError(
                f"no dev cluster in {folder}: `minilog dev up` starts one, --data names another folder"
            ) from None
        except (OSError, msgspec.DecodeError) as error:
            raise CliError(f"{path} cannot be read ({error}); is this the folder of a dev cluster?") from None

    @classmethod
    def create(
        cls,
        folder: Path,
        brokers: int,
        port: int | None = None,
        controller_port: int | None = None,
        overrides: Sequence[str] = (),
        controllers: int | None = None,
        etcd_members: int = 1,
        secure: bool | None = None,
    ) -> DevCluster:
        """A new cluster, or the one that lies in ``folder``, with what is given changed. Starts
        nothing.

        A port of 0 means free ports. ``secure`` None leaves it as it is. Raises CliError (a foreign
        folder, fewer brokers than before) and BadSettings."""
        assign(overrides)
        old = None
        if (folder / DEV_FILE).exists():
            old = cls.open(folder).spec
            if brokers < len(old.ports):
                raise CliError(
                    f"{folder} holds a cluster of {len(old.ports)} brokers and cannot shrink to {brokers}: "
                    f"use -n {len(old.ports)}, or another folder with --data"
                )
        else:
            refuse_foreign(folder)
        old_ports, old_controller_port = (old.ports, old.controller_port) if old is not None else ([], None)
        known = None if old is None else 1 + len(old.more_controllers)
        if known is not None and controllers not in (None, known):
            raise CliError(
                f"{folder} holds a cluster with {known} controller{'s' if known > 1 else ''}, and its journal is kept "
                f"accordingly: leave --controllers out, or name another folder with --data"
            )
        ports, of_controller = choose_ports(old_ports, old_controller_port, brokers, port, controller_port)
        spec = DevFile(
            ports=ports,
            controller_port=of_controller,
            overrides=list(overrides) or (old.overrides if old else []),
            more_controllers=old.more_controllers if old else [],
            etcd_ports=old.etcd_ports if old else [],
            secure=(old is not None and old.secure) if secure is None else secure,
        )
        if old is None and controllers is not None and controllers > 1:
            find_etcd()
            spec.more_controllers = more_ports(of_controller, controllers - 1, [*ports, of_controller])
            spec.etcd_ports = free_ports(2 * etcd_members)[::2]
        for part in ("run", "logs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return cls(folder.resolve(), spec)

    def save(self) -> None:
        path = self.folder / DEV_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self.spec)) + b"\n")
        temporary.replace(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one command changes the cluster at a time."""
        handle = os.open(self.folder / "run" / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CliError(f"another `minilog dev` command is at work on {self.folder}; try again") from None
            yield
        finally:
            os.close(handle)

    @property
    def members(self) -> list[Member]:
        return [*self.controllers, *self.brokers]

    @property
    def controllers(self) -> list[Member]:
        more = [self._member("controller", number, port) for number, port in enumerate(self.spec.more_controllers, 2)]
        return [self._member("controller", CONTROLLER_ID, self.spec.controller_port), *more]

    @property
    def brokers(self) -> list[Member]:
        return [self._member("broker", index + 1, port) for index, port in enumerate(self.spec.ports)]

    @property
    def controller(self) -> Member:
        return self.members[0]

    @property
    def url(self) -> str:
        """All brokers, as the clients take it."""
        return ",".join(broker.url for broker in self.brokers)

    @property
    def credential(self) -> Credential | None:
        """Of the administrator of a secured cluster."""
        return None if self.keyring is None else self.keyring.credential

    @property
    def environment(self) -> dict[str, str]:
        """What makes every command one about this cluster."""
        return {"MINILOG_URL": self.url} | ({} if self.keyring is None else self.keyring.environment)

    @property
    def supervisor_file(self) -> Path:
        return self.folder / "run" / f"{SUPERVISOR}.json"

    def member(self, name: str) -> Member:
        """By broker id, or ``controller``. Raises CliError."""
        for member in self.members:
            if name in member.names:
                return member
        raise CliError(
            f"there is no process {name!r}: use a broker id from 1 to {len(self.spec.ports)}, or controller",
            exit_code=2,
        )

    def alive(self) -> list[Member]:
        return [member for member in self.members if member.state() != "dead"]

    def start(self, member: Member, exit_with_parent: bool = False) -> int:
        """Start the process and return its pid. ``wait_ready`` tells when it serves.

        With ``exit_with_parent`` the process stops by itself as soon as this one is gone, however
        it ended."""
        self.wait_ended(member.name)
        if member.role == "controller":
            start_etcd(self.etcd)
        command = [sys.executable, "-m", "minilog", member.role, "run", *self._flags(member)]
        if exit_with_parent:
            command.append("--exit-with-parent")
        with member.log_file.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if exit_with_parent else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.write_pid_file(member.pid_file, child.pid)
        self.children[member.name] = child
        return child.pid

    def start_all(self, exit_with_parent: bool = False, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start every process that does not run, and wait until all serve. Raises CliError."""
        dead = [member for member in self.members if member.state() == "dead"]
        for member in dead:
            refuse_port_in_use(member)
        if self.keyring is not None:
            self.keyring.make({member.key_name: member.key_role for member in self.members})
        self.save()
        for member in dead:
            self.start(member, exit_with_parent)
        self.wait_ready(dead, timeout_s)

    def wait_ready(self, members: Iterable[Member], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Raises CliError when one stops or does not serve in time, with the last line it
        printed."""
        deadline = time.monotonic() + timeout_s
        waiting = list(members)
        while waiting:
            self.reap()
            for member in waiting:
                if member.state() == "dead":
                    raise CliError(f"{member.name} stopped while starting: {last_words(member)} ({member.log_file})")
            waiting = [member for member in waiting if not member.ready()]
            if waiting and time.monotonic() >= deadline:
                names = " and ".join(member.name for member in waiting)
                raise CliError(
                    f"{names} not ready after {timeout_s:.0f} s: {last_words(waiting[0])} ({waiting[0].log_file})"
                )
            if waiting:
                time.sleep(0.02)

    def reap(self) -> list[tuple[str, int]]:
        """(name, exit status as Popen tells it) of own children that ended since the last call."""
        ended = [(name, child.returncode) for name, child in list(self.children.items()) if child.poll() is not None]
        for name, _ in ended:
            child = self.children.pop(name, None)
            if child is not None and child.stdin is not None:
                child.stdin.close()
        return ended

    def wait_ended(self, name: str, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """The exit status of an own child once it can be reaped, a moment after it looks dead.
        None: no such child.

        Raises subprocess.TimeoutExpired."""
        child = self.children.get(name)
        if child is None:
            return None
        status = child.wait(timeout_s)
        self.children.pop(name, None)  # another thread may have reaped it meanwhile
        if child.stdin is not None:
            child.stdin.close()
        return status

    def stop_all(self, timeout_s: float = STOP_TIMEOUT_S) -> list[tuple[Member, str, float]]:
        return self.stop(self.members, timeout_s)

    def stop(self, members: Sequence[Member], timeout_s: float = STOP_TIMEOUT_S) -> list[tuple[Member, str, float]]:
        """SIGTERM to the brokers, then to the controller: (process, stopped or killed, seconds) of
        each that ran."""
        report = self._stop([member for member in members if member.role == "broker"], timeout_s)
        report += self._stop([member for member in members if member.role == "controller"], timeout_s)
        if not self.alive():
            for etcd in self.etcd:
                etcd.stop()
        return report

    def _stop(self, members: Iterable[Member], timeout_s: float) -> list[tuple[Member, str, float]]:
        began = time.monotonic()
        running = []
        for member in members:
            known = member.known()
            if known is not None and process.signal_to(known, signal.SIGTERM):
                process.signal_to(known, signal.SIGCONT)
                running.append((member, known))
        report = []
        for member, known in running:
            outcome = "stopped"
            if not self._wait_dead(known, began + timeout_s):
                outcome = "killed"
                process.signal_to(known, signal.SIGKILL)
                process.wait_dead(known, timeout_s)
            member.pid_file.unlink(missing_ok=True)
            report.append((member, outcome, time.monotonic() - began))
        self.reap()
        return report

    def _wait_dead(self, known: process.PidFile, deadline: float) -> bool:
        return process.wait_dead(known, max(0.0, deadline - time.monotonic()))

    def kill_all(self) -> None:
        """SIGKILL to whatever is left. For cleaning up after a failure."""
        for member in self.alive():
            known = member.known()
            if known is not None:
                process.signal_to(known, signal.SIGKILL)
                process.wait_dead(known, 2.0)
        for etcd in self.etcd:
            etcd.kill()
        for name in list(self.children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait_ended(name, 2.0)

    def _member(self, role: Role, id: int, port: int) -> Member:
        name = f"{role}-{id}" if role == "broker" or id != CONTROLLER_ID else role
        return Member(
            role,
            id,
            port,
            data_dir=self.folder / name,
            log_file=self.folder / "logs" / f"{name}.log",
            pid_file=self.folder / "run" / f"{name}.json",
            keyring=self.keyring,
        )

    def _flags(self, member: Member) -> list[str]:
        pairs = {"data_dir": str(member.data_dir), "host": HOST, "port": str(member.port)}
        if member.role == "broker":
            pairs["broker_id"] = str(member.id)
            pairs["controller_url"] = self.controller.url
            if self.spec.more_controllers:
                pairs["controller_urls"] = ",".join(controller.url for controller in self.controllers)
            pairs["shutdown_timeout_ms"] = str(SHUTDOWN_TIMEOUT_MS)
        else:
            pairs["default_replication_factor"] = str(min(3, len(self.spec.ports)))
            if self.spec.etcd_ports:
                pairs |= {"journal": "etcd", "etcd_urls": ",".join(etcd.url for etcd in self.etcd)}
        if self.keyring is not None:
            pairs |= self.keyring.settings(member.key_name)
        for pair in assign(self.spec.overrides)[member.role]:
            key, _, value = pair.partition("=")
            pairs[key] = value
        return [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]


def last_words(member: Member) -> str:
    """The last line the process printed that is not blank."""
    try:
        lines = member.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    spoken = [line.strip(" |") for line in lines[-50:] if re.search(r"\w", line)]
    return LOG_PREFIX.sub("", spoken[-1]).removeprefix("minilog: ") if spoken else "it printed nothing"


def refuse_port_in_use(member: Member) -> None:
    if not port_free(member.port):
        option = "--controller-port" if member.role == "controller" else "--port"
        raise CliError(
            f"port {member.port}, which the {member.name} needs, is in use by another process; "
            f"choose another with {option}, or {option} 0 for a free one"
        )
