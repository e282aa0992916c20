"""A real cluster for tests: one process for each broker and controller, and how they are broken and
mended."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, Unpack

import msgspec

from minilog.cli.local import process
from minilog.cli.local.broker_process import close_all
from minilog.cli.local.cluster import DevCluster, Member
from minilog.cli.local.keyring import ADMIN
from minilog.cli.output import CliError
from minilog.errors import MinilogError, Unauthenticated
from minilog.wire.admin_messages import ControllerInfo
from minilog.wire.messages import MetadataReply, PartitionInfo, TopicInfo
from minilog_client import Client
from minilog_client.credential import Credential
from minilog_client.options import ClientOptions

CONTROLLER = "controller"
DEADLINE_MS = 20_000
_POLL_S = 0.02

Target = int | str
"""A broker id, counted from 1, or ``CONTROLLER``, or one more of them such as ``controller-2``."""

T = TypeVar("T")


class _Told(msgspec.Struct):
    """What is of interest here of a controller's account."""

    controllers: list[ControllerInfo] = []


class MinilogCluster:
    """A running cluster. Every call that waits does so for ``deadline_ms`` at most, and then raises
    AssertionError."""

    def __init__(self, dev: DevCluster, deadline_ms: int = DEADLINE_MS) -> None:
        self.deadline_ms = deadline_ms
        self._dev = dev
        self._clients: list[Client] = []

    # --- reaching it ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """All brokers, as clients and ``MINILOG_URL`` take it."""
        return self._dev.url

    @property
    def broker_ids(self) -> list[int]:
        return [member.id for member in self._dev.brokers]

    def url_of(self, target: Target) -> str:
        return self._dev.member(str(target)).url

    def client(self, who: str = ADMIN, **options: Unpack[ClientOptions]) -> Client:
        """A new client, closed with the cluster; options as for ``minilog_client.Client``. ``who``
        it is matters in a secured cluster."""
        shown = self._shown(who)
        shown.update(options)
        client = Client(self.url, **shown)
        self._clients.append(client)
        return client

    def add_principal(self, name: str, allow: Sequence[str] = (), roles: Sequence[str] = ()) -> Path:
        """Somebody who may do so much, such as ``["read orders.*"]``, and the file of their token.
        Returns when every process knows them. For secured clusters."""
        keyring = self._dev.keyring
        assert keyring is not None, "nobody is asked who they are here; start the cluster with secure=True"
        token_file = keyring.make_principal(name, allow, roles)
        shown = keyring.credential_of(name)
        self._wait(
            lambda: all(_is_known(member, shown) for member in self._dev.members if member.state() == "running"),
            f"{name} to be known everywhere",
        )
        return token_file

    @property
    def ca_file(self) -> Path:
        """Who has signed the certificates of a secured cluster."""
        assert self._dev.keyring is not None, "the cluster is not secured; start it with secure=True"
        return self._dev.keyring.ca_file

    def active_controller(self) -> str:
        """The one that decides, as ``kill`` takes it; waits while there is none."""
        return self._wait(self._active_controller, "a controller to decide")

    def log(self, target: Target) -> str:
        """What the process has printed so far."""
        return self._dev.member(str(target)).log_file.read_text(errors="replace")

    # --- topics -----------------------------------------------------------------------------------

    def create_topic(
        self, topic: str, partitions: int = 1, replication_factor: int = 0, config: Mapping[str, str] | None = None
    ) -> TopicInfo:
        """0 replicas: three, or as many as there are brokers. Returns when every broker knows
        it."""
        with Client(self.url, **self._shown(ADMIN)) as client:
            return client.create_topic(topic, partitions, replication_factor, dict(config or {}))

    def leader(self, topic: str, partition: int = 0) -> int:
        """The broker that leads it now; waits while there is none, or while it is one that was
        killed."""

        def living(state: PartitionInfo) -> int:
            return int(state.leader) if self._dev.member(str(state.leader)).state() != "dead" else 0

        return self._wait(lambda: self._state(topic, partition, living), f"{topic} to be led")

    def isr(self, topic: str, partition: int = 0) -> list[int]:
        return self._wait(
            lambda: self._state(topic, partition, lambda state: sorted(state.isr)), f"{topic} to be known"
        )

    def wait_in_sync(self, topic: str, timeout_ms: int | None = None) -> None:
        """Every partition is led and all its replicas are in sync."""
        self._wait(lambda: self._is_in_sync(topic), f"all replicas of {topic} to be in sync", timeout_ms)

    # --- breaking and mending ---------------------------------------------------------------------

    def kill(self, target: Target) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._signal(target, signal.SIGKILL)
        known = self._dev.member(str(target)).known()
        assert known is not None
        assert process.wait_dead(known, self._deadline_s), f"{target} is still there after SIGKILL"
        self._dev.reap()

    def pause(self, target: Target) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self._signal(target, signal.SIGSTOP)

    def resume(self, target: Target) -> None:
        self._signal(target, signal.SIGCONT)

    def stop(self, target: Target) -> None:
        """SIGTERM, and wait for the clean end: leaderships are handed over before."""
        member = self._dev.member(str(target))
        self._signal(target, signal.SIGTERM)
        try:
            status = self._dev.wait_ended(member.name, self._deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{target} did not stop in {self._deadline_s:g} s: {self.log(target)[-2000:]}"
            ) from None
        assert status == 0, f"{target} ended with status {status}: {self.log(target)[-2000:]}"

    def start(self, target: Target) -> None:
        """Start what does not run, and wait until it serves."""
        self._dev.reap()
        member = self._dev.member(str(target))
        try:
            if member.state() == "dead":
                self._dev.start(member, exit_with_parent=True)
            self._dev.wait_ready([member], self._deadline_s)
        except (CliError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{target} does not serve: {error}") from None

    def restart(self, target: Target) -> None:
        self.stop(target)
        self.start(target)

    def heal(self) -> None:
        """Resume what is paused and start what is dead, so that the next test of a cluster that
        several share finds it whole."""
        for member in self._dev.members:
            if member.state() == "paused":
                self.resume(member.name)
        for member in sorted(self._dev.members, key=lambda member: member.role == "broker"):
            self.start(member.name)

    def close(self) -> None:
        try:
            close_all(self._clients)
        finally:
            self._dev.kill_all()

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _deadline_s(self) -> float:
        return self.deadline_ms / 1000

    def _shown(self, who: str) -> ClientOptions:
        keyring = self._dev.keyring
        if keyring is None:
            return {}
        return {"token_file": str(keyring.token_file(who)), "ca_file": str(keyring.ca_file)}

    def _signal(self, target: Target, number: signal.Signals) -> None:
        member: Member = self._dev.member(str(target))
        known = member.known()
        running = known is not None and process.signal_to(known, number)
        assert running, f"{target} does not run: {self.log(target)[-2000:]}"

    def _active_controller(self) -> str | None:
        """Only the active one tells of others."""
        from minilog.cli.api import Api

        controllers = self._dev.controllers
        if len(controllers) == 1:
            return controllers[0].name
        for member in controllers:
            if member.state() == "running":
                with contextlib.suppress(MinilogError):
                    told = Api(member.url, 1, self._dev.credential).get("cluster", _Told)
                    if any(one.url == member.url and one.role == "active" for one in told.controllers):
                        return member.name
        return None

    def _metadata(self, topic: str) -> MetadataReply | None:
        """From the broker that knows most; None while nobody answers."""
        from minilog.cli.api import Api

        found: list[MetadataReply] = []
        for member in self._dev.brokers:
            if member.state() == "running":
                with contextlib.suppress(MinilogError):
                    found.append(Api(member.url, 1, self._dev.credential).metadata([topic]))
        return max(found, key=lambda reply: reply.metadata_offset, default=None)

    def _state(self, topic: str, partition: int, look: Callable[[PartitionInfo], T]) -> T | None:
        metadata = self._metadata(topic)
        if metadata is None or not metadata.topics:
            return None
        state = metadata.topics[0].partitions[partition]
        return look(state) if state.leader >= 0 else None

    def _is_in_sync(self, topic: str) -> bool:
        metadata = self._metadata(topic)
        if metadata is None or not metadata.topics:
            return False
        return all(p.leader >= 0 and len(p.isr) == len(p.replicas) for p in metadata.topics[0].partitions)

    def _wait(self, ask: Callable[[], T | None], what: str, timeout_ms: int | None = None) -> T:
        timeout_ms = self.deadline_ms if timeout_ms is None else timeout_ms
        deadline_s = time.monotonic() + timeout_ms / 1000
        while not (found := ask()):
            assert time.monotonic() < deadline_s, f"waited {timeout_ms} ms in vain for {what}"
            time.sleep(_POLL_S)
        return found


def _is_known(member: Member, shown: Credential) -> bool:
    """Also one whose rights end elsewhere."""
    from minilog.cli.request import Unanswered, send

    try:
        send(f"{member.url}/v1/cluster", "GET", 1, credential=shown)
    except (Unauthenticated, Unanswered):
        return False
    except MinilogError:
        return True
    return True


@contextlib.contextmanager
def cluster(
    brokers: int = 3,
    settings: Sequence[str] = (),
    controllers: int = 1,
    secure: bool = False,
    deadline_ms: int = DEADLINE_MS,
) -> Iterator[MinilogCluster]:
    """A cluster for the length of a ``with``, for other test runners. ``settings``: key=value of
    brokers and controller. More than one of ``controllers`` need etcd to be installed. ``secure``:
    with TLS, tokens and a security file, which need openssl. ``deadline_ms``: how long any wait
    may take."""
    folder = Path(tempfile.mkdtemp(prefix="minilog-test-"))
    try:
        dev = DevCluster.create(
            folder / "cluster",
            brokers,
            port=0,
            controller_port=0,
            overrides=settings,
            controllers=controllers,
            secure=secure,
        )
        with contextlib.closing(MinilogCluster(dev, deadline_ms)) as found:
            dev.start_all(exit_with_parent=True, timeout_s=deadline_ms / 1000)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
