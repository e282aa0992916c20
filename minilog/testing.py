"""Real minilog clusters for pytest: installed with minilog, found by pytest through its plugin
entry point.

```python
def test_orders_survive_a_broker(minilog_cluster):
    minilog_cluster.create_topic("orders", partitions=3, config={"min.insync.replicas": "2"})
    client = minilog_cluster.client()
    client.producer().send("orders", b"paid").result()
    minilog_cluster.kill(minilog_cluster.leader("orders"))
    records = client.consumer("orders", start="earliest").batch()
    assert [record.value for record in records] == [b"paid"]
```

Fixtures, each with processes, a folder and free ports of its own, gone with its test:
``minilog_cluster``   a controller and three brokers, one process each, up in about a second
``minilog_broker``    controller and broker in one process, for tests that need no replicas
``minilog_clusters``  a function that starts clusters of other sizes and settings

Nothing is simulated: the processes are the ones of production, ``kill`` is SIGKILL and ``pause`` is
SIGSTOP.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, Unpack

import pytest

from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, Member, http_ok
from minilog.cli.local.ports import HOST, free_ports
from minilog.cli.output import CliError
from minilog.errors import MinilogError
from minilog.wire.messages import MetadataReply, PartitionInfo, TopicInfo
from minilog_client import Client
from minilog_client.options import ClientOptions

CONTROLLER = "controller"
WAIT_MS = 20_000
_POLL_S = 0.02
_STOP_S = 20.0

Target = int | str
"""A broker id, counted from 1, or ``CONTROLLER``."""
Clusters = Callable[..., "MinilogCluster"]

T = TypeVar("T")


class MinilogCluster:
    """A running cluster. Every call that waits does so for a bounded time and then raises
    AssertionError."""

    def __init__(self, dev: DevCluster) -> None:
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

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A new client, closed with the cluster; options as for ``minilog_client.Client``."""
        client = Client(self.url, **options)
        self._clients.append(client)
        return client

    def log(self, target: Target) -> str:
        """What the process has printed so far."""
        return self._dev.member(str(target)).log_file.read_text(errors="replace")

    # --- topics -----------------------------------------------------------------------------------

    def create_topic(
        self, topic: str, partitions: int = 1, replication_factor: int = 0, config: Mapping[str, str] | None = None
    ) -> TopicInfo:
        """0 replicas: three, or as many as there are brokers. Returns when every broker knows
        it."""
        with Client(self.url) as client:
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

    def wait_in_sync(self, topic: str, timeout_ms: int = WAIT_MS) -> None:
        """Every partition is led and all its replicas are in sync."""
        self._wait(lambda: self._is_in_sync(topic), f"all replicas of {topic} to be in sync", timeout_ms)

    # --- breaking and mending ---------------------------------------------------------------------

    def kill(self, target: Target) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._signal(target, signal.SIGKILL)
        known = self._dev.member(str(target)).known()
        assert known is not None
        assert process.wait_dead(known, _STOP_S), f"{target} is still there after SIGKILL"
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
            status = self._dev.wait_ended(member.name, _STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{target} did not stop in {_STOP_S:.0f} s: {self.log(target)[-2000:]}") from None
        assert status == 0, f"{target} ended with status {status}: {self.log(target)[-2000:]}"

    def start(self, target: Target) -> None:
        """Start what does not run, and wait until it serves."""
        self._dev.reap()
        member = self._dev.member(str(target))
        try:
            if member.state() == "dead":
                self._dev.start(member, exit_with_parent=True)
            self._dev.wait_ready([member])
        except (CliError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{target} does not serve: {error}") from None

    def restart(self, target: Target) -> None:
        self.stop(target)
        self.start(target)

    def close(self) -> None:
        try:
            _close_all(self._clients)
        finally:
            self._dev.kill_all()

    # --- inside -----------------------------------------------------------------------------------

    def _signal(self, target: Target, number: signal.Signals) -> None:
        member: Member = self._dev.member(str(target))
        known = member.known()
        running = known is not None and process.signal_to(known, number)
        assert running, f"{target} does not run: {self.log(target)[-2000:]}"

    def _metadata(self, topic: str) -> MetadataReply | None:
        """From the broker that knows most; None while nobody answers."""
        from minilog.cli.api import Api

        found: list[MetadataReply] = []
        for member in self._dev.brokers:
            if member.state() == "running":
                with contextlib.suppress(MinilogError):
                    found.append(Api(member.url, timeout_s=1).metadata([topic]))
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

    def _wait(self, ask: Callable[[], T | None], what: str, timeout_ms: int = WAIT_MS) -> T:
        deadline_s = time.monotonic() + timeout_ms / 1000
        while not (found := ask()):
            assert time.monotonic() < deadline_s, f"waited {timeout_ms} ms in vain for {what}"
            time.sleep(_POLL_S)
        return found


class MinilogBroker:
    """Controller and broker in one process: topics have one replica, and there is nothing to fail
    over to."""

    def __init__(self, folder: Path) -> None:
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
        deadline_s = time.monotonic() + WAIT_MS / 1000
        while not http_ok(f"{self.url}/readyz"):
            assert self._child.poll() is None, f"minilog ended while starting: {self.log()[-2000:]}"
            assert time.monotonic() < deadline_s, f"minilog does not serve: {self.log()[-2000:]}"
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._running.kill()
        _ended(self._running)

    def stop(self) -> None:
        """SIGTERM, and wait for the clean end."""
        self._running.terminate()
        status = _ended(self._running)
        assert status == 0, f"minilog ended with status {status}: {self.log()[-2000:]}"

    def pause(self) -> None:
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        try:
            _close_all(self._clients)
        finally:
            if self._child is not None and self._child.poll() is None:
                self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "start() it first"
        return self._child


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Its exit status, once it has ended; and our end of its pipe is closed."""
    try:
        status = child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"minilog did not end in {_STOP_S:.0f} s") from None
    if child.stdin is not None:
        child.stdin.close()
    return status


def _close_all(clients: Sequence[Client]) -> None:
    """Each of them, also when a callback of the test raises in one. Such an error is raised at the
    end."""
    with contextlib.ExitStack() as closing:
        for client in reversed(clients):
            closing.callback(_close, client)


def _close(client: Client) -> None:
    with contextlib.suppress(MinilogError):
        client.close()


@contextlib.contextmanager
def cluster(brokers: int = 3, settings: Sequence[str] = (), controllers: int = 1) -> Iterator[MinilogCluster]:
    """A cluster for the length of a ``with``, for other test runners. ``settings``: key=value of
    brokers and controller. More than one of ``controllers`` need etcd to be installed."""
    folder = Path(tempfile.mkdtemp(prefix="minilog-test-"))
    try:
        dev = DevCluster.create(
            folder / "cluster", brokers, port=0, controller_port=0, overrides=settings, controllers=controllers
        )
        with contextlib.closing(MinilogCluster(dev)) as found:
            dev.start_all(exit_with_parent=True)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def minilog_cluster() -> Iterator[MinilogCluster]:
    """A controller and three brokers as real processes, new for every test."""
    with cluster() as found:
        yield found


@pytest.fixture
def minilog_broker() -> Iterator[MinilogBroker]:
    """Controller and broker in one process, new for every test."""
    with tempfile.TemporaryDirectory(prefix="minilog-test-") as folder:
        found = MinilogBroker(Path(folder))
        try:
            found.start()
            yield found
        finally:
            found.close()


@pytest.fixture
def minilog_clusters() -> Iterator[Clusters]:
    """``minilog_clusters(brokers=5, settings=["session_timeout_ms=1000"])``: as many clusters as
    the test wants."""
    with contextlib.ExitStack() as stack:

        def make(brokers: int = 3, settings: Sequence[str] = (), controllers: int = 1) -> MinilogCluster:
            return stack.enter_context(cluster(brokers, settings, controllers))

        yield make
