"""One round: topics of its own, clients, a fault, healing, a final read, and the verdict of the
history checker.

    before | fault | after (healed, all in sync) | final

A round fails with an AssertionError that says where the histories lie. What it measured is its
``Outcome``.

Unavailability is what an application with the client's defaults experiences (acks=all), up to the
moment the cluster has recovered. Three figures, each the worst of all partitions of the round:
    longest   time between two acknowledgements of a partition, whatever the reason; includes the producer's own pause
    switch    the same where the second one came from a new leader: the failover
    slowest   latency of a single send
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from minilog.cli.proof import batches_below
from minilog.wire.batch import peek
from tests.process.checker import history
from tests.process.checker.history import Event, Replica, Verdict, digest
from tests.process.load.workload import Ack, Rate, Retries, Workload
from tests.process.nemesis.catalogue import CATALOGUE
from tests.process.nemesis.nemesis import Nemesis
from tests.process.nemesis.scene import Bar, Impossible, Scene
from tests.process.rig.cluster import CONTROLLER, NotRunning, ProcessCluster

MIXED = "mixed"
QUIET = "quiet"
STRICT: Final = "definite"
RETRIED: Final = "all"


@dataclass(frozen=True)
class Settings:
    partitions: int = 3
    hold_s: float = 2.0
    """How long a fault lasts, about, that does not end by itself; longer than a session timeout (2
    s)."""
    quiet_s: float = 0.6
    rate: Rate = field(default_factory=Rate)
    retries: Sequence[Retries] = (STRICT, RETRIED)
    topic_config: Mapping[str, str] = field(
        default_factory=lambda: {"min.insync.replicas": "2", "retention.ms": "1800000"}
    )
    """Shorter than a clock is off."""
    histories: Path | None = None
    """Where to save the histories; None: only when something is wrong."""


@dataclass
class Outcome:
    """Times in ms. ``split``: the controller's account of each loss of a broker, counted from the
    fault's begin."""

    nemesis: str
    acknowledged: int = 0
    read: int = 0
    reads: int = 0
    operations: int = 0
    violations: int = 0
    lost: int = 0
    """Acknowledged with acks=all, or read, and gone."""
    duplicates: int = 0
    weak_lost: int = 0
    """Acknowledged with acks=1 and gone: no violation, that level promises less. It shows that loss
    would be seen."""
    unavailable_ms: list[float] = field(default_factory=list)
    """Of each partition that went without acknowledgements for longer than it ever did before the
    fault."""
    longest_ms: float = 0.0
    switch_ms: float | None = None
    """None: every partition kept its leader."""
    slowest_ms: float = 0.0
    heal_ms: float = 0.0
    """From the end of the fault to all replicas in sync."""
    switch: dict[str, float] = field(default_factory=dict)
    """The two acknowledgements around the longest failover: ms from the begin of the fault."""
    split: list[dict[str, Any]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(monotonic seconds, ms) of every acks=all send with the client's defaults."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not self.problems and all(verdict.valid for verdict in self.verdicts.values())

    def explain(self) -> str:
        parts = [f"{self.nemesis}: {name} clients: {verdict}" for name, verdict in self.verdicts.items()]
        return "\n".join([*parts, *self.problems])


def run_round(cluster: ProcessCluster, name: str, number: int, random: Random, settings: Settings) -> Outcome:
    """Raises AssertionError when the cluster does not recover. What the checker finds is in the
    outcome."""
    return asyncio.run(_Round(cluster, name, number, random, settings).run())


class _Round:
    def __init__(self, cluster: ProcessCluster, name: str, number: int, random: Random, settings: Settings) -> None:
        self.cluster, self.name, self.random, self.settings = cluster, name, random, settings
        self.workloads = [
            Workload(cluster, f"round{number}-{retries}", settings.partitions, retries, settings.rate)
            for retries in settings.retries
        ]
        self.scene = Scene(cluster, self.workloads, random, settings.hold_s)
        self.outcome = Outcome(name)
        self._began_s = self._recovered_s = 0.0
        self._created_ms = time.time() * 1000

    async def run(self) -> Outcome:
        for workload in self.workloads:
            await workload.create_topic(self.settings.topic_config)
        try:
            async with contextlib.AsyncExitStack() as clients:
                for workload in self.workloads:
                    await clients.enter_async_context(workload.running())
                await self._break_and_heal()
            self._judge([await workload.final_read() for workload in self.workloads])
        except BaseException as error:
            error.add_note(f"in a round of {self.outcome.nemesis}, logs in {self.cluster.dev.folder}")
            self._save()
            raise
        self._measure()
        if self.outcome.valid and self.settings.histories is None:
            await self._delete_topics()
        else:
            self._save()
        return self.outcome

    async def _break_and_heal(self) -> None:
        self._phase("before")
        await self.scene.served(3)
        await asyncio.sleep(self.settings.quiet_s)
        self._phase("fault")
        self._began_s = time.monotonic()
        try:
            await self._act()
        finally:
            ended_s = time.monotonic()
            self.scene.crowded = False
            await self.scene.call(self.cluster.heal)
        self._phase("after")
        await self.scene.served(3)
        self._recovered_s = time.monotonic()
        await self.scene.in_sync()
        self.outcome.heal_ms = (time.monotonic() - ended_s) * 1000
        await asyncio.sleep(self.settings.quiet_s)

    async def _act(self) -> None:
        if self.name != MIXED:
            await CATALOGUE[self.name].act(self.scene)
            return
        chosen = self._draw()
        self.outcome.nemesis = f"{MIXED} ({' + '.join(nemesis.name for nemesis in chosen)})"
        self.scene.crowded = True
        async with asyncio.TaskGroup() as tasks:
            for nemesis in chosen:
                tasks.create_task(self._one_of_several(nemesis))

    def _draw(self) -> list[Nemesis]:
        """Two or three that the cluster is equipped for, at most one of which touches a disk."""
        missing = self.cluster.missing
        able = [n for n in CATALOGUE.values() if not n.lacks(missing) and n.name not in NEVER_MIXED]
        able = [nemesis for nemesis in able if not nemesis.open_problem]
        chosen: list[Nemesis] = []
        for nemesis in self.random.sample(able, len(able)):
            if len(chosen) < self.random.choice([2, 3]) and not (
                nemesis.hurts_disk and any(n.hurts_disk for n in chosen)
            ):
                chosen.append(nemesis)
        return chosen

    async def _one_of_several(self, nemesis: Nemesis) -> None:
        await asyncio.sleep(self.random.uniform(0.0, self.settings.hold_s / 2))
        with contextlib.suppress(Impossible, NotRunning):  # a broker whose files were damaged refuses to start
            await nemesis.act(self.scene)

    def _phase(self, name: str) -> None:
        for workload in self.workloads:
            workload.recorder.phase(name)

    # --- judging ----------------------------------------------------------------------------------

    def _judge(self, ends: Sequence[dict[int, int]]) -> None:
        outcome = self.outcome
        for workload, found in zip(self.workloads, ends, strict=True):
            replicas = {workload.key(p): replicas_of(self.cluster, workload, p, end) for p, end in found.items()}
            events = workload.recorder.events()
            verdict = history.check(events, workload.options, replicas=replicas)
            outcome.weak_lost += weak_lost(events)
            outcome.verdicts[workload.retries] = verdict
            outcome.acknowledged += verdict.counts["acknowledged"] + verdict.counts["weakly acknowledged"]
            outcome.read += verdict.counts["read"]
            outcome.reads += verdict.counts["reads"]
            outcome.operations += verdict.counts["operations"]
            outcome.violations += sum(result.violations for result in verdict.classes.values())
            outcome.lost += verdict.classes["final-missing"].violations
            duplicates = verdict.classes["duplicate"]
            outcome.duplicates += duplicates.violations + duplicates.tolerated
            outcome.errors += workload.tally.errors
        outcome.problems += [bug for name in self.cluster.names if (bug := _confession(self.cluster, name))]

    def _measure(self) -> None:
        outcome = self.outcome
        outcome.bars = self.scene.bars
        applications = [w for w in self.workloads if w.retries == RETRIED] or self.workloads
        for workload in applications:
            for acks in workload.tally.acks.values():
                self._measure_partition([ack for ack in acks if ack.t_s <= self._recovered_s])
                outcome.latencies += [(ack.t_s, ack.latency_ms) for ack in acks]
        outcome.split = self._split()
        if self.name == QUIET and outcome.split:
            outcome.problems.append(f"nothing was broken, and yet brokers were fenced: {outcome.split}")

    def _measure_partition(self, acks: Sequence[Ack]) -> None:
        outcome, usual_ms, longest_ms = self.outcome, 0.0, 0.0
        fault_s = min((bar.began_s for bar in self.scene.bars), default=self._began_s)
        for before, after in itertools.pairwise(acks):
            gap_ms = (after.t_s - before.t_s) * 1000
            if after.t_s <= self._began_s:
                usual_ms = max(usual_ms, gap_ms)
                continue
            longest_ms = max(longest_ms, gap_ms)
            outcome.slowest_ms = max(outcome.slowest_ms, after.latency_ms)
            is_switch = after.leader_epoch > before.leader_epoch or after.leader_epoch < 0
            if is_switch and gap_ms > (outcome.switch_ms or 0.0):
                outcome.switch_ms = gap_ms
                around = {"last_ack_ms": before.t_s, "first_ack_ms": after.t_s}
                outcome.switch = {name: round((t_s - fault_s) * 1000, 1) for name, t_s in around.items()}
        outcome.longest_ms = max(outcome.longest_ms, longest_ms)
        if longest_ms > 2 * usual_ms:
            outcome.unavailable_ms.append(round(longest_ms, 1))

    def _split(self) -> list[dict[str, Any]]:
        described = self.cluster.ask(CONTROLLER, "/v1/cluster") or {}
        began_ms = min((bar.began_ms for bar in self.outcome.bars), default=self._created_ms)
        kept = []
        for found in described.get("failovers", ()):
            if found["detected_ms"] >= began_ms - 1 and found["partitions"]:
                times = {k: found.get(f"{k}_ms") for k in ("last_heard", "detected", "fenced", "elected", "published")}
                since = {k: round(ms - began_ms) for k, ms in times.items() if ms is not None}
                kept.append({"broker": found["broker_id"], "kind": found["kind"], **since})
        return kept

    async def _delete_topics(self) -> None:
        for workload in self.workloads:
            await workload.delete_topic()

    def _save(self) -> None:
        folder = self.settings.histories or self.cluster.dev.folder
        for workload in self.workloads:
            path = folder / f"{workload.topic}-{self.name}.jsonl"
            workload.recorder.save(path)
            if not self.outcome.valid:
                self.outcome.problems.append(f"history: {path}; logs: {self.cluster.dev.folder / 'logs'}")


NEVER_MIXED = frozenset(
    {
        "quiet",
        "dead_disk",
        "wipe",
        "kill_all",
        "pause_all",
        "older_disk",
        "older_journal",
        "lost_journal",
        "move_replicas_and_kill",
    }
)
"""They need everybody, or everybody else well."""


def weak_lost(events: Sequence[Event]) -> int:
    """Records acknowledged with acks=1 that nobody, the final reader included, ever saw."""
    weak = {event.i for event in events if event.type == "invoke" and event.acks == 1}
    acknowledged, seen = set(), set()
    for event in events:
        if event.type == "ok" and event.f == "send" and event.op in weak:
            acknowledged |= {(key, sent[1]) for _, key, sent in event.value}
        elif event.type == "ok" and event.f == "poll":
            seen |= {(key, record[1]) for _, polled in event.value for key, shown in polled.items() for record in shown}
    return len(acknowledged - seen)


def replicas_of(cluster: ProcessCluster, workload: Workload, partition: int, end: int) -> dict[int | str, Replica]:
    """What each broker has on its disk below ``end``: per offset the leader epoch and a digest of
    the batch's bytes."""
    found: dict[int | str, Replica] = {}
    for broker_id in cluster.broker_ids:
        records: dict[int, tuple[Any, ...]] = {}
        folder = cluster.data_dir(broker_id) / workload.key(partition)
        for path in sorted(folder.glob("*.log")):
            for data in batches_below(path, end):
                batch = peek(data)
                records.update(
                    dict.fromkeys(range(batch.base_offset, batch.end_offset), (batch.leader_epoch, digest(data)))
                )
        found[broker_id] = Replica(end, records)
    return found


def _confession(cluster: ProcessCluster, name: int | str) -> str:
    """The line in which a process says that it has a bug, if there is one."""
    for line in cluster.log(name).splitlines():
        if "this is a bug" in line or "Traceback" in line:
            return f"{name}: {line} ({cluster.log_file(name)})"
    return ""
