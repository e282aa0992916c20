"""What a nemesis acts on: the cluster under load, dice, and a note of when which fault began and
ended.

Waiting happens here too, always for something: acknowledgements, an ISR, or a while in which a
fault shall last. Everything that blocks (signals, starting processes, ``ip``) runs in threads,
never in the way of the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.process.load.workload import Workload
from tests.process.rig.cluster import CONTROLLER, Name, ProcessCluster

PATIENCE_S = 40.0
POLL_S = 0.02


class Impossible(Exception):
    """This fault makes no sense now, for instance because every target is taken by another
    fault."""


@dataclass
class Bar:
    """One fault as plots and reports show it; times are monotonic seconds, ``began_ms`` since the
    epoch."""

    name: str
    target: str
    began_s: float
    began_ms: float
    ended_s: float = 0.0


class Scene:
    """``hold_s``: how long faults last, about, that do not end by themselves.

    ``crowded``: other faults are at work at the same time, so nothing may be expected before all of
    them are over: what a nemesis waits for it waits for a while, and goes on."""

    def __init__(self, cluster: ProcessCluster, workloads: Sequence[Workload], random: Random, hold_s: float) -> None:
        self.cluster, self.workloads, self.random, self.hold_s = cluster, list(workloads), random, hold_s
        self.crowded = False
        self.bars: list[Bar] = []
        self._taken: set[Name] = set()

    @property
    def acknowledged(self) -> int:
        return sum(workload.tally.records for workload in self.workloads)

    # --- targets ----------------------------------------------------------------------------------

    async def leader(self) -> int:
        """Of those nobody else is at work on, the broker that leads most partitions."""
        led: Counter[int] = Counter()
        for workload in self.workloads:
            for state in await asyncio.to_thread(self.cluster.partitions, workload.topic):
                led[int(state["leader"])] += 1
        leaders = [id for id, _ in led.most_common() if id >= 0 and id not in self._taken]
        if not leaders:
            raise Impossible("every leader is somebody else's target")
        return leaders[0]

    async def follower(self) -> int:
        """A broker that leads fewer partitions than any other."""
        leader = await self.leader()
        return self.any_broker(but=[leader])

    def any_broker(self, but: Iterable[Name] = ()) -> int:
        free = [id for id in self.cluster.broker_ids if id not in self._taken and id not in set(but)]
        if not free:
            raise Impossible("every broker is somebody else's target")
        return self.random.choice(free)

    def others(self, *names: Name) -> list[int]:
        return [id for id in self.cluster.broker_ids if id not in names]

    def node(self, name: Name) -> str:
        return self.cluster.node(name)

    @contextlib.asynccontextmanager
    async def fault(self, name: str, *targets: Name) -> AsyncIterator[None]:
        """While the block runs nobody else takes these targets."""
        if self._taken & set(targets):
            raise Impossible(f"{name}: {self._taken & set(targets)} are somebody else's target")
        self._taken |= set(targets)
        shown = ", ".join(str(target) if target == CONTROLLER else f"broker {target}" for target in targets)
        bar = Bar(name, shown, time.monotonic(), time.time() * 1000)
        self.bars.append(bar)
        for workload in self.workloads:
            workload.recorder.nemesis([name, "begins", shown])
        try:
            yield
        finally:
            bar.ended_s = time.monotonic()
            self._taken -= set(targets)
            for workload in self.workloads:
                workload.recorder.nemesis([name, "ends", shown])

    # --- waiting ----------------------------------------------------------------------------------

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def hold(self, share: float = 1.0) -> None:
        """Let the fault last."""
        await asyncio.sleep(self.hold_s * share * self.random.uniform(0.7, 1.3))

    async def served(self, sends: int = 5) -> None:
        """Every partition of every workload was acknowledged that often from now on."""
        counts = {id(acks): (acks, len(acks) + sends) for acks in self._all_acks()}
        deadline_s = time.monotonic() + self._patience_s
        while any(len(acks) < goal for acks, goal in counts.values()):
            if time.monotonic() >= deadline_s:
                if self.crowded:
                    return
                missing = [len(acks) - goal for acks, goal in counts.values()]
                errors = [workload.tally.errors[-2:] for workload in self.workloads]
                raise AssertionError(f"no progress within {self._patience_s} s: {missing}, last errors {errors}")
            await asyncio.sleep(POLL_S)

    async def in_sync(self) -> None:
        for workload in self.workloads:
            try:
                await self.call(self.cluster.wait_in_sync, workload.topic, self._patience_s)
            except AssertionError:
                if not self.crowded:
                    raise

    async def start(self, *names: Name) -> None:
        """Start processes, and wait until they serve if nothing else can keep them from it."""
        await self.call(self.cluster.launch if self.crowded else self.cluster.start, *names)

    async def stop(self, name: Name) -> None:
        """A clean stop; beside other faults it may turn out less clean, of a process that is only
        just starting."""
        await asyncio.to_thread(self.cluster.terminate, name, demand_clean=not self.crowded)

    @property
    def _patience_s(self) -> float:
        return 2 * self.hold_s if self.crowded else PATIENCE_S

    def _all_acks(self) -> list[list[Any]]:
        return [
            workload.tally.acks[partition] for workload in self.workloads for partition in range(workload.partitions)
        ]
