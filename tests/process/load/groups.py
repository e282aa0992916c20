"""A group under attack: consumers join, leave, crash and freeze, and their coordinator dies, under
steady load.

    python -m tests.process.load.groups --seconds 60 [--seed 1]

prints how long each kind of disturbance kept partitions without a reader, and what was read twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from minilog.errors import MinilogError
from minilog_client import AsyncClient
from tests.process.load.group_notes import Event, Findings, judge
from tests.process.rig.cluster import CONTROLLER, Name, ProcessCluster, process_cluster

TOPIC, GROUP = "orders", "billing"
PARTITIONS = 6
PARTITIONS_MAX = 10
MEMBERS = 4
SESSION_TIMEOUT_MS = 2000
RATE_PAUSE_S = 0.02
DRAIN_S = 30.0
KINDS = ("leave", "crash", "freeze", "coordinator", "controller", "restart", "grow")
"""After a consumer has left or crashed another one joins. ``restart``: all brokers and the
controller die at once."""
FROM_THEN_ON = ("coordinator", "controller", "restart")
"""Nothing needs to be given to anybody, so the time until everything is read again is what
counts."""


@dataclass
class Member:
    """One consumer process and its notes."""

    name: str
    file: Path
    process: subprocess.Popen[bytes]
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def events(self) -> list[Event]:
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        return [tuple(json.loads(line)) for line in lines]


@dataclass
class Outcome:
    findings: Findings
    settled_ms: dict[str, list[float]]
    """By kind of disturbance: from it until everybody has a fair share and has read something of
    each partition."""
    log: list[str]


class GroupScene:
    def __init__(self, cluster: ProcessCluster, folder: Path, random: Random) -> None:
        self.cluster, self.folder, self.random = cluster, folder, random
        self.members: list[Member] = []
        self.running: list[Member] = []
        self.settled_ms: dict[str, list[float]] = defaultdict(list)
        self.log: list[str] = []
        self.partitions = PARTITIONS
        self._stop = False

    # --- consumers --------------------------------------------------------------------------------

    def join(self) -> None:
        name = f"c{len(self.members)}"
        file = self.folder / f"{name}.notes"
        command = [sys.executable, "-m", "tests.process.load.group_member", self.cluster.url, TOPIC, GROUP, str(file)]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*command, str(SESSION_TIMEOUT_MS)], stdout=log, stderr=log)
        member = Member(name, file, process)
        self.members.append(member)
        self.running.append(member)

    async def join_begun(self) -> float:
        """A new consumer. When it had started up and began to join."""
        self.join()
        while not (events := self.members[-1].events()):
            assert self.members[-1].process.poll() is None, "the new consumer has ended by itself"
            await asyncio.sleep(0.02)
        return events[0][0]

    def take(self) -> Member:
        member = self.random.choice(self.running)
        self.running.remove(member)
        return member

    async def leave(self) -> None:
        member = self.take()
        member.process.terminate()
        await asyncio.to_thread(member.process.wait, 20)

    async def crash(self) -> None:
        member = self.take()
        member.process.kill()
        await asyncio.to_thread(member.process.wait, 5)

    async def freeze(self) -> None:
        """For longer than its session. When it wakes up its partitions are another's."""
        member = self.random.choice(self.running)
        began_s = time.monotonic()
        member.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_MS / 1000 + 1.5)
        member.process.send_signal(signal.SIGCONT)
        member.pauses.append((began_s, time.monotonic()))

    async def coordinator(self) -> None:
        async with AsyncClient(self.cluster.url) as client:
            coordinator = (await client.describe_group(GROUP)).coordinator
        await self.kill(coordinator)

    async def controller(self) -> None:
        await self.kill(CONTROLLER)

    async def restart(self) -> None:
        await self.kill(*self.cluster.names)

    async def kill(self, *names: Name) -> None:
        await asyncio.to_thread(self.cluster.kill, *names)
        await asyncio.sleep(1)
        await asyncio.to_thread(self.cluster.start, *names)

    async def grow(self) -> None:
        await self.producing.add_partitions(TOPIC, self.partitions + 2)
        self.partitions += 2

    # --- what goes on -----------------------------------------------------------------------------

    async def produce(self) -> None:
        """Steadily, to every partition. What exactly arrives is read from the log in the end."""
        async with self.producing, self.producing.producer(linger_ms=2) as producer:
            number = 0
            while not self._stop:
                number += 1
                with contextlib.suppress(MinilogError):
                    producer.send_nowait(TOPIC, b"%d" % number, partition=number % self.partitions)
                await asyncio.sleep(RATE_PAUSE_S)

    async def disturb(self, kind: str) -> None:
        if kind == "grow" and self.partitions >= PARTITIONS_MAX:
            return
        began_s = time.monotonic()
        await getattr(self, kind)()
        await self.settled(kind, began_s)
        if kind in ("leave", "crash"):
            await self.settled("join", await self.join_begun())

    async def settled(self, kind: str, began_s: float) -> None:
        """Until every running consumer has its share, and each partition was read after it was
        given last."""
        deadline_s = time.monotonic() + DRAIN_S
        since_s = began_s if kind in FROM_THEN_ON else 0.0
        while (at_s := await asyncio.to_thread(self._settled_at, since_s)) is None:
            assert time.monotonic() < deadline_s, f"after {kind} the group did not settle: {self.shares()}"
            await asyncio.sleep(0.05)
        took_ms = max(0.0, at_s - began_s) * 1000
        self.settled_ms[kind].append(took_ms)
        self.log.append(f"{kind}: {took_ms:.0f} ms, {self.shares()}")

    def shares(self) -> dict[str, list[int]]:
        return {member.name: sorted(_held(member.events())) for member in self.running}

    def _settled_at(self, since_s: float) -> float | None:
        held: dict[int, float] = {}
        for member in self.running:
            mine = _held(member.events(), since_s)
            if len(mine) not in (self.partitions // len(self.running), -(-self.partitions // len(self.running))):
                return None
            for partition, read_s in mine.items():
                if read_s is None or partition in held:
                    return None
                held[partition] = read_s
        return max(held.values()) if len(held) == self.partitions else None

    # --- the end ----------------------------------------------------------------------------------

    async def run(self, kinds: Iterable[str]) -> Outcome:
        async with AsyncClient(self.cluster.url) as client:
            await client.create_topic(TOPIC, PARTITIONS, 3)
            for _ in range(MEMBERS):
                self.join()
            self.producing = AsyncClient(self.cluster.url)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.produce())
                try:
                    await self.settled("start", time.monotonic())
                    for kind in kinds:
                        await self.disturb(kind)
                finally:
                    self._stop = True
            ends = {p: (await client.offsets(TOPIC, p))[1] for p in range(self.partitions)}
            await self._drain(client, ends)
        for member in list(self.running):
            self.running = [member]
            await self.leave()
        notes = {member.name: member.events() for member in self.members}
        findings = judge(notes, ends, {member.name: member.pauses for member in self.members})
        return Outcome(findings, self.settled_ms, self.log)

    async def _drain(self, client: AsyncClient, ends: dict[int, int]) -> None:
        deadline_s = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline_s:
            committed = await client.group_offsets(GROUP)
            if all(committed.get((TOPIC, partition)) == end for partition, end in ends.items()):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the group never reached the end: {committed} of {ends}")

    def close(self) -> None:
        for member in self.members:
            if member.process.poll() is None:
                member.process.kill()
                member.process.wait(5)


def _held(events: Sequence[Event], since_s: float = 0.0) -> dict[int, float | None]:
    """Partition -> when it was first read since it was given last, and since ``since_s``. Of one
    consumer."""
    held: dict[int, float | None] = {}
    for at_s, event, _, what in events:
        if event == "assigned":
            held.update(dict.fromkeys(what))
        elif event in ("revoked", "lost"):
            for partition in what:
                held.pop(partition, None)
        elif event == "read" and at_s >= since_s and held.get(what[0], 0.0) is None:
            held[what[0]] = at_s
    return held


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def attack(cluster: ProcessCluster, folder: Path, kinds: Iterable[str], seed: int) -> Outcome:
    scene = GroupScene(cluster, folder, Random(seed))
    try:
        return asyncio.run(scene.run(kinds))
    finally:
        scene.close()


def for_seconds(seconds: float, random: Random) -> Iterable[str]:
    """Every kind in turn, in ever new order; as many consumers leave as join."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        kinds = list(KINDS)
        random.shuffle(kinds)
        yield from kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with process_cluster(folder / "cluster", overrides=("session_timeout_ms=2000",)) as cluster:
            outcome = attack(cluster, folder, for_seconds(options.seconds, Random(options.seed)), options.seed)
    for line in outcome.log:
        print(line)
    found = outcome.findings
    print(f"{found.records} records, {found.repeated} read twice, {found.tenures} tenures")
    for kind, times_ms in sorted(outcome.settled_ms.items()):
        p50, p99 = quantile(times_ms, 0.5), quantile(times_ms, 0.99)
        print(f"{kind:12} {len(times_ms):3} times, settled after p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    for anomaly in found.anomalies:
        print("ANOMALY:", anomaly)
    sys.exit(1 if found.anomalies else 0)


if __name__ == "__main__":
    main()
