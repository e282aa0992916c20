"""Three controllers, three brokers and an etcd, producers that note what was acknowledged, and the
faults of a round: something happens to the active controller or to etcd, and a leader is killed in
the same second."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilog.cli.api import Api
from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, DevFile, Member
from minilog.cli.local.etcd import EtcdMember, start_etcd
from minilog.wire.journal.events import EventKind
from minilog.wire.json.json_answers import EventList
from minilog.wire.messages import PartitionInfo
from minilog_client import Client
from tests.process.controllers.relay import Relay

WAIT_S = 60.0
TOPIC = "orders"
NEMESES = ("kill", "stop", "cut-etcd", "cut-standbys", "kill-etcd-leader", "lose-quorum")
SHORT = ("session_timeout_ms=2000",)


@dataclass
class Round:
    """``absent_ms``: from the fault until a controller decides again. ``written_ms``: until a write
    to what the killed broker led was acknowledged."""

    nemesis: str
    absent_ms: float
    written_ms: float
    acknowledged: int
    lost: int


class SharedDevCluster(DevCluster):
    """Each controller reaches etcd, and is reached by standbys, by ways that can be cut."""

    def __init__(self, folder: Path, spec: DevFile) -> None:
        super().__init__(folder, spec)
        self.to_etcd: dict[str, list[Relay]] = {}
        self.to_controller: dict[str, Relay] = {}

    def lay_ways(self) -> None:
        for controller in self.controllers:
            self.to_etcd[controller.name] = [Relay("127.0.0.1", etcd.port) for etcd in self.etcd]
            self.to_controller[controller.name] = Relay("127.0.0.1", controller.port)

    def _flags(self, member: Member) -> list[str]:
        flags = super()._flags(member)
        if member.role == "controller" and member.name in self.to_etcd:
            urls = ",".join(relay.url for relay in self.to_etcd[member.name])
            flags += ["--set", f"advertised_url={self.to_controller[member.name].url}"]
            flags[flags.index(next(flag for flag in flags if flag.startswith("etcd_urls=")))] = f"etcd_urls={urls}"
        return flags

    def heal(self) -> None:
        for relays in (*self.to_etcd.values(), list(self.to_controller.values())):
            for relay in relays:
                relay.heal()


class Writer(threading.Thread):
    """Writes one record after the other, and keeps what was acknowledged."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[bytes, float]] = []
        self._url, self._number = url, number
        self._ends = threading.Event()

    def run(self) -> None:
        with Client(self._url) as client:
            producer = client.producer()
            count = 0
            while not self._ends.is_set():
                value = b"%d-%d" % (self._number, count)
                count += 1
                with contextlib.suppress(Exception):
                    producer.send(TOPIC, value, key=value).result()
                    self.acknowledged.append((value, time.monotonic()))
                time.sleep(0.005)

    def end(self) -> None:
        self._ends.set()
        self.join(WAIT_S)


class Stage:
    def __init__(self, dev: SharedDevCluster) -> None:
        self.dev = dev
        self.writers = [Writer(dev.url, number) for number in range(2)]

    # --- looking ----------------------------------------------------------------------------------

    def active(self) -> Member | None:
        found = (c for c in self.dev.controllers if c.state() == "running" and ask(f"{c.url}/readyz") == "ready\n")
        return next(found, None)

    def wait(self, condition: Callable[[], object], what: str) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + WAIT_S, f"in vain: {what}"
            time.sleep(0.005)
        return (time.monotonic() - began) * 1000

    def epochs(self) -> set[int]:
        """Of the controllers that the brokers hear."""
        return {
            json.loads(ask(f"{broker.url}/v1/cluster") or "{}").get("controller_epoch", 0)
            for broker in self.dev.brokers
        }

    def new_active(self, before: Member) -> bool:
        active = self.active()
        return active is not None and active != before

    def is_healthy(self) -> bool:
        with contextlib.suppress(Exception):
            parts = self._partitions()
            return bool(parts) and all(part.leader >= 0 and len(part.isr) == len(part.replicas) for part in parts)
        return False

    # --- a round ----------------------------------------------------------------------------------

    def play(self, nemesis: str) -> Round:
        active = self.active()
        assert active is not None
        leader = self._a_leader()
        acknowledged = sum(len(writer.acknowledged) for writer in self.writers)
        began = time.monotonic()
        undo = self._strike(nemesis, active)
        kill(leader)
        replaced = nemesis in ("kill", "stop", "cut-etcd")
        if replaced:
            absent_ms = self.wait(lambda: self.new_active(active), "another controller decides")
        else:
            if nemesis == "lose-quorum":
                time.sleep(3)
                undo()
            absent_ms = (time.monotonic() - began) * 1000
        self.wait(lambda: self._all_written(began), "every writer goes on")
        written_ms = self._written_ms(began)
        undo()
        self.repair()
        now = sum(len(writer.acknowledged) for writer in self.writers)
        return Round(nemesis, absent_ms, written_ms, now - acknowledged, 0)

    def _all_written(self, began: float) -> bool:
        """After the leader was replaced, and not before."""
        with contextlib.suppress(Exception):
            parts = self._partitions()
            alive = {broker.id for broker in self.dev.brokers if broker.state() == "running"}
            if all(part.leader in alive for part in parts):
                return all(writer.acknowledged and writer.acknowledged[-1][1] > began for writer in self.writers)
        return False

    def _written_ms(self, began: float) -> float:
        """The longest pause between two acknowledgements of one writer since then."""
        longest = 0.0
        for writer in self.writers:
            times = [at for _, at in list(writer.acknowledged) if at > began - 1]
            pauses = [after - before for before, after in itertools.pairwise(times)]
            longest = max([longest, *pauses])
        return longest * 1000

    def _partitions(self) -> list[PartitionInfo]:
        urls = ",".join(broker.url for broker in self.dev.brokers if broker.state() == "running")
        return [part for topic in Api(urls, timeout_s=2).metadata([TOPIC]).topics for part in topic.partitions]

    def _a_leader(self) -> Member:
        part = self._partitions()[0]
        return next(broker for broker in self.dev.brokers if broker.id == part.leader)

    def _strike(self, nemesis: str, active: Member) -> Callable[[], None]:
        """Returns what ends it."""
        dev = self.dev
        match nemesis:
            case "kill":
                kill(active)
            case "stop":
                send(active, signal.SIGSTOP)
                return lambda: send(active, signal.SIGCONT)
            case "cut-etcd":
                for relay in dev.to_etcd[active.name]:
                    relay.cut()
            case "cut-standbys":
                dev.to_controller[active.name].cut()
            case "kill-etcd-leader":
                leader_of(dev.etcd).kill()
            case "lose-quorum":
                for etcd in dev.etcd[: len(dev.etcd) // 2 + 1]:
                    etcd.signal(signal.SIGSTOP)
                return self._resume_etcd
        return dev.heal

    def _resume_etcd(self) -> None:
        for etcd in self.dev.etcd:
            etcd.signal(signal.SIGCONT)

    def repair(self) -> None:
        self.dev.heal()
        start_etcd(self.dev.etcd)
        self.wait(lambda: all(etcd.is_ready() for etcd in self.dev.etcd), "etcd is whole")
        self.dev.reap()
        deadline = time.monotonic() + WAIT_S
        while any(not member.ready() for member in self.dev.members) and time.monotonic() < deadline:
            self.dev.reap()
            for member in self.dev.members:
                if member.state() == "dead":
                    self.dev.start(member, exit_with_parent=True)
            time.sleep(0.2)
        self.wait(self.active, "a controller decides")
        self.wait(self.is_healthy, "all replicas are in sync")

    # --- the end ----------------------------------------------------------------------------------

    def moves(self) -> list[dict[str, object]]:
        """Of the controller, as its events tell of them."""
        found = Api(self.dev.url).get("events", EventList, {"limit": "1000", "since_ms": "0"})
        return [dict(noted.event.facts) for noted in found.events if noted.event.kind == EventKind.CONTROLLER_MOVED]

    def lost(self) -> list[bytes]:
        """What was acknowledged and is not there."""
        for writer in self.writers:
            writer.end()
        wanted = {value for writer in self.writers for value, _ in writer.acknowledged}
        found: set[bytes] = set()
        with Client(self.dev.url) as client:
            consumer = client.consumer(TOPIC, start="earliest")
            deadline = time.monotonic() + WAIT_S
            while wanted - found and time.monotonic() < deadline:
                found |= {record.value for record in consumer.batch() if record.value is not None}
        return sorted(wanted - found)


def ask(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=0.5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def kill(member: Member) -> None:
    send(member, signal.SIGKILL)


def send(member: Member, number: signal.Signals) -> None:
    known = member.known()
    if known is not None:
        process.signal_to(known, number)


def leader_of(members: list[EtcdMember]) -> EtcdMember:
    import msgspec

    from minilog.cli.request import send as post

    for member in members:
        with contextlib.suppress(Exception):
            told = msgspec.json.decode(post(f"{member.url}/v3/maintenance/status", "POST", 2.0, b"{}"))
            if told["leader"] == told["header"]["member_id"]:
                return member
    return members[0]


@contextlib.contextmanager
def stage(folder: Path, controllers: int = 3, etcd_members: int = 1) -> Iterator[Stage]:
    dev = SharedDevCluster.create(
        folder, 3, port=0, controller_port=0, overrides=SHORT, controllers=controllers, etcd_members=etcd_members
    )
    assert isinstance(dev, SharedDevCluster)
    made = Stage(dev)
    try:
        start_etcd(dev.etcd)
        dev.lay_ways()
        dev.start_all(exit_with_parent=True, timeout_s=WAIT_S)
        made.wait(made.active, "a controller decides")
        with Client(dev.url) as client:
            client.create_topic(TOPIC, 3, 3, {"min.insync.replicas": "2"})
        for writer in made.writers:
            writer.start()
        made.wait(lambda: all(writer.acknowledged for writer in made.writers), "writers write")
        yield made
    finally:
        for writer in made.writers:
            writer.end()
        dev.heal()
        for etcd in dev.etcd:
            etcd.signal(signal.SIGCONT)
        dev.kill_all()
