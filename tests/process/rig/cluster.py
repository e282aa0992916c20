"""A cluster of real processes for tests: three brokers and a controller, gone when the test ends.

Plain, they listen on loopback. With a ``network`` each process has an address and a namespace of
its own, with ``volumes`` each broker has a disk of its own. Both need root and are what the faults
of network.py and faulty_disk.py work on. The clients in this process reach all of them either way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, DevFile, Member
from minilog.cli.local.ports import HOST
from minilog.cli.output import CliError
from minilog.config import EventLoop
from minilog.settings import Role
from tests.process.nursery.newborn import Wanted
from tests.process.nursery.nursery import nursery
from tests.process.rig import equipment, faulty_disk
from tests.process.rig.faulty_disk import MIB, Volume
from tests.process.rig.machine import share_priority
from tests.process.rig.network import Network
from tests.process.rig.slow_syncs import SlowSyncs
from tests.process.rig.wall_clock import WallClock

Name = int | str
"""A broker id, or "controller"."""
CONTROLLER = "controller"
WAIT_S = 30.0
POLL_S = 0.05
ASK_TIMEOUT_S = 1.0
STARTS_MAX = 10
_DAMAGED = re.compile(r"broker (?P<broker>\d+) .* the log of (?P<log>\S+) is damaged")
VOLUME_BYTES = 256 * MIB


class NotRunning(AssertionError):
    """A process that was to be signalled had ended by itself."""


@dataclass(frozen=True)
class PlacedMember(Member):
    host: str = HOST

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class PlacedDevCluster(DevCluster):
    """A dev cluster whose processes live in network namespaces and on volumes, as far as it has
    been given them."""

    def __init__(self, folder: Path, spec: DevFile) -> None:
        super().__init__(folder, spec)
        self.network: Network | None = None
        self.volumes: dict[int, Volume] = {}
        self.clocks: dict[str, WallClock] = {}
        """By the names of members. The others have the machine's."""
        self.syncs: dict[str, SlowSyncs] = {}
        self.descriptors: dict[str, int] = {}
        """How many files a member may have open. The others may as many as the machine lets
        them."""

    def start(self, member: Member, exit_with_parent: bool = True) -> int:
        self.wait_ended(member.name)
        arguments = [member.role, "run", *self._flags(member), "--exit-with-parent"]
        with member.log_file.open("ab") as log:
            child = (
                self._exec(member, arguments, log) if member.name in self.clocks else self._bear(member, arguments, log)
            )
        share_priority(child.pid)
        process.write_pid_file(member.pid_file, child.pid)
        self.children[member.name] = child
        return child.pid

    def _bear(self, member: Member, arguments: list[str], log: IO[bytes]) -> process.Child:
        syncs, volume = self.syncs.get(member.name), self._volume(member)
        wanted = Wanted(
            arguments,
            dict(os.environ),
            os.getcwd(),
            namespace=str(self.network.namespace_file(member.name)) if self.network else "",
            boot_id=str(volume.boot_file) if volume else "",
            sync_delay=str(syncs.file) if syncs else "",
            descriptors_max=self.descriptors.get(member.name, 0),
        )
        return nursery().bear(wanted, log)

    def _exec(self, member: Member, arguments: list[str], log: IO[bytes]) -> process.Child:
        """With a clock of its own: that library has to be there when a process begins."""
        command = [*self._place(member), sys.executable, "-m", "minilog", *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def _volume(self, member: Member) -> Volume | None:
        return self.volumes.get(member.id) if member.role == "broker" else None

    def _place(self, member: Member) -> list[str]:
        command = self.network.command(member.name) if self.network else []
        volume = self._volume(member)
        return [*command, *(volume.command() if volume else []), *self._surround(member.name)]

    def _surround(self, name: str) -> list[str]:
        """What stands before a process: libraries, and limits."""
        shims = [shim for shim in (self.clocks.get(name), self.syncs.get(name)) if shim is not None]
        variables = {key: value for shim in shims for key, value in shim.variables.items()}
        preload = [f"LD_PRELOAD={':'.join(str(shim.library) for shim in shims)}"] if shims else []
        limit = [f"--nofile={self.descriptors[name]}"] if name in self.descriptors else []
        return [
            *(["prlimit", *limit] if limit else []),
            *(["env", *preload, *(f"{key}={value}" for key, value in variables.items())] if shims else []),
        ]

    def _member(self, role: Role, id: int, port: int) -> Member:
        member = super()._member(role, id, port)
        host = self.network.address(member.name) if self.network else HOST
        return PlacedMember(**vars(member), host=host)

    def _flags(self, member: Member) -> list[str]:
        assert isinstance(member, PlacedMember)
        flags = [f"host={member.host}" if flag == f"host={HOST}" else flag for flag in super()._flags(member)]
        if member.host != HOST:
            flags += ["--set", "insecure=true"]
        return [*flags, "--set", f"advertised_url={member.url}"] if member.role == "broker" else flags


class ProcessCluster:
    def __init__(self, dev: PlacedDevCluster) -> None:
        self.dev = dev
        self.hurt: set[int] = set()
        """Brokers whose files were damaged, so that they may refuse to start."""
        self._askers = ThreadPoolExecutor(len(dev.brokers), "ask")

    @property
    def url(self) -> str:
        return self.dev.url

    @property
    def network(self) -> Network:
        assert self.dev.network is not None, "this cluster was made without a network of its own"
        return self.dev.network

    @property
    def volumes(self) -> dict[int, Volume]:
        return self.dev.volumes

    @property
    def missing(self) -> dict[str, str]:
        """What faults cannot have here, and why."""
        had = {"network": self.dev.network, "volumes": self.dev.volumes, "slow_syncs": self.dev.syncs}
        without = {name: "this cluster was made without" for name, had in had.items() if not had}
        return without | equipment.missing()

    @property
    def broker_ids(self) -> list[int]:
        return [member.id for member in self.dev.brokers]

    @property
    def names(self) -> list[Name]:
        return [CONTROLLER, *self.broker_ids]

    def node(self, name: Name) -> str:
        """What the network calls it."""
        return self._find(name).name

    def data_dir(self, broker_id: int) -> Path:
        return self._find(broker_id).data_dir

    @property
    def controller_dir(self) -> Path:
        return self._find(CONTROLLER).data_dir

    def journal_file(self) -> Path:
        """The controller's newest."""
        return max(self.controller_dir.glob("journal-*.log"))

    def _find(self, name: Name) -> Member:
        return self.dev.member(str(name))

    def state(self, name: Name) -> process.State:
        return self._find(name).state()

    # --- breaking and mending ---------------------------------------------------------------------

    def set_clock(self, ahead_s: int, *names: Name) -> None:
        """Ahead of the machine's clock."""
        for name in names:
            self.dev.clocks[self.node(name)].set(ahead_s)

    def give_clock(self, name: Name) -> None:
        """A wall clock of its own, from its next start on."""
        node = self.node(name)
        self.dev.clocks[node] = WallClock(self.dev.folder / f"{node}.clock")

    def take_clock(self, name: Name) -> None:
        """The machine's clock again, from its next start on."""
        self.dev.clocks.pop(self.node(name), None)

    def slow_syncs(self, seconds: float, *names: Name) -> None:
        """Each sync takes so much longer from now on."""
        for name in names:
            self.dev.syncs[self.node(name)].set(seconds)

    def limit_descriptors(self, name: Name, spare: int) -> int:
        """From now on it may open ``spare`` files more; returns what it may have in all."""
        pid = self._find(name).pid()
        assert pid is not None, f"{name} does not run"
        limit = len(os.listdir(f"/proc/{pid}/fd")) + spare
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        return limit

    def unlimit_descriptors(self, name: Name) -> None:
        pid = self._find(name).pid()
        if pid is not None:
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))

    def recover_journal(self) -> str:
        """As the page about backups says, from all brokers, while no controller runs; returns what
        the command printed."""
        sources = [part for broker in self.dev.brokers for part in ("--from", broker.url)]
        words = ["controller", "recover", "--set", f"data_dir={self.controller_dir}", *sources, "--yes"]
        done = subprocess.run(
            [sys.executable, "-m", "minilog", *words], capture_output=True, text=True, timeout=WAIT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def kill(self, *names: Name) -> None:
        """At once, as far as that is possible."""
        for name in names:
            self._signal(name, signal.SIGKILL)
        self.await_dead(*names)

    def await_dead(self, *names: Name) -> None:
        for name in names:
            known = self._find(name).known()
            assert known is not None
            assert process.wait_dead(known, WAIT_S), f"{name} is still there: {self.log(name)[-2000:]}"
        self.dev.reap()

    def pause(self, *names: Name) -> None:
        for name in names:
            self._signal(name, signal.SIGSTOP)

    def resume(self, *names: Name) -> None:
        for name in names:
            self._signal(name, signal.SIGCONT)

    def terminate(self, name: Name, *, demand_clean: bool = True) -> float:
        """SIGTERM and wait for a clean end; returns the seconds it took."""
        began = time.monotonic()
        self._signal(name, signal.SIGTERM)
        status = self.dev.wait_ended(self._find(name).name, 20.0)
        assert status == 0 or not demand_clean, f"{name} ended with {status}: {self.log(name)[-2000:]}"
        return time.monotonic() - began

    def launch(self, *names: Name) -> None:
        """Start what does not run."""
        self.dev.reap()
        for member in map(self._find, names):
            if member.state() == "dead":
                self.dev.start(member)

    def start(self, *names: Name) -> None:
        """Start what does not run, and wait until it serves."""
        for _ in range(STARTS_MAX):
            self.launch(*names)
            try:
                self.dev.wait_ready(map(self._find, names))
                return
            except CliError as error:
                if not self._follow_advice(str(error)):
                    raise
        raise AssertionError(f"{names} refuse to start again and again")

    def _follow_advice(self, refusal: str) -> bool:
        """As an operator would: a log that was damaged on purpose is moved away, as the refusal to
        start says."""
        for broker_id in self.hurt:
            named = _DAMAGED.match(refusal)
            if named is not None and int(named["broker"]) == broker_id:
                folder = self.data_dir(broker_id) / named["log"]
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.monotonic_ns()}"))
                return True
        return False

    def heal(self) -> None:
        """Whatever was done to processes, network and disks is over when this returns."""
        if self.dev.network is not None:
            self.dev.network.heal()
        for name in self.names:
            if self.state(name) == "paused":
                self.resume(name)
        self.dev.reap()
        for volume in self.volumes.values():
            volume.empty()
        for syncs in self.dev.syncs.values():
            syncs.set(0)
        self.start(*self.names)
        self.hurt.clear()

    def log_file(self, name: Name) -> Path:
        return self._find(name).log_file

    def log(self, name: Name) -> str:
        return self.log_file(name).read_text(errors="replace")

    def _signal(self, name: Name, number: signal.Signals) -> None:
        member = self._find(name)
        known = member.known()
        assert known is not None
        if not process.signal_to(known, number):
            raise NotRunning(f"{member.name} was not running: {self.log(name)[-2000:]}")

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, name: Name, path: str) -> Any:
        """JSON from one process; None when it does not answer."""
        try:
            with urllib.request.urlopen(self._find(name).url + path, timeout=ASK_TIMEOUT_S) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def told(self, name: Name, path: str) -> Any:
        """As ``ask``, again until it answers. On a busy machine a second may pass without."""
        answers: list[Any] = []

        def is_told() -> bool:
            answers.append(self.ask(name, path))
            return answers[-1] is not None

        self.wait(is_told, f"{name} to answer {path}")
        return answers[-1]

    def ask_all(self, path: str) -> dict[int, Any]:
        """What each broker that runs and answers says."""
        running = [id for id in self.broker_ids if self.state(id) == "running"]
        answers = self._askers.map(lambda id: self.ask(id, path), running)
        return {id: answer for id, answer in zip(running, answers, strict=True) if answer is not None}

    def partitions(self, topic: str) -> list[dict[str, Any]]:
        """The newest that any broker knows of each partition; empty when none knows the topic."""
        newest: dict[int, dict[str, Any]] = {}
        for answer in self.ask_all(f"/v1/metadata?topics={topic}").values():
            for found in answer.get("topics", ()):
                for state in found["partitions"]:
                    known = newest.get(state["partition"])
                    if known is None or _age(known) < _age(state):
                        newest[state["partition"]] = state
        return [newest[number] for number in sorted(newest)]

    def leader(self, topic: str, partition: int = 0) -> int:
        found: list[dict[str, Any]] = []

        def is_known() -> bool:
            found[:] = self.partitions(topic)
            return len(found) > partition

        self.wait(is_known, f"somebody to know {topic}-{partition}")
        return int(found[partition]["leader"])

    def is_in_sync(self, topic: str) -> bool:
        """Every partition has a leader and all its replicas in the ISR."""
        found = self.partitions(topic)
        return bool(found) and all(p["leader"] >= 0 and len(p["isr"]) == len(p["replicas"]) for p in found)

    def wait_in_sync(self, topic: str, timeout_s: float = WAIT_S) -> None:
        self.wait(lambda: self.is_in_sync(topic), f"all of {topic} in sync", timeout_s)

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(POLL_S)
        states = {name: self.state(name) for name in self.names}
        raise AssertionError(
            f"waited {timeout_s:.0f} s in vain for {what}; {states}; metadata: {self.ask_all('/v1/metadata')}"
        )

    def close(self) -> None:
        """Nothing is left of it but the folder."""
        self.dev.kill_all()
        self._askers.shutdown(cancel_futures=True)
        for volume in self.volumes.values():
            volume.unmount()
        if self.dev.network is not None:
            self.dev.network.close()
        faulty_disk.unshare(self.dev.folder)


def _age(state: dict[str, Any]) -> tuple[int, int]:
    return state["leader_epoch"], state["partition_epoch"]


@contextlib.contextmanager
def process_cluster(
    folder: Path,
    brokers: int = 3,
    overrides: Sequence[str] = (),
    *,
    network: bool = False,
    volume_bytes: int = 0,
    clocks: bool = False,
    slow_syncs: bool = False,
    event_loop: EventLoop = "asyncio",
) -> Iterator[ProcessCluster]:
    """``volume_bytes``: size of each broker's volume, 0 for plain folders. ``clocks``: each process
    has a wall clock of its own, ``set_clock`` sets it. ``slow_syncs``: those of brokers can be made
    slow. All processes have the loop that is named, whatever is installed."""
    overrides = [*overrides, f"event_loop={event_loop}"]
    dev = PlacedDevCluster.create(folder, brokers, port=0, controller_port=0, overrides=overrides)
    assert isinstance(dev, PlacedDevCluster)
    cluster = ProcessCluster(dev)
    try:
        if network:
            dev.network = Network([member.name for member in dev.members])
        if volume_bytes:
            faulty_disk.share(dev.folder)
            for member in dev.brokers:
                dev.volumes[member.id] = Volume(member.data_dir, volume_bytes)
        if clocks:
            dev.clocks = {member.name: WallClock(dev.folder / f"{member.name}.clock") for member in dev.members}
        if slow_syncs:
            dev.syncs = {member.name: SlowSyncs(dev.folder / f"{member.name}.syncs") for member in dev.brokers}
        dev.save()
        cluster.start(*cluster.names)
        yield cluster
    finally:
        cluster.close()
