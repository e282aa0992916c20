"""/metrics of a controller: its own description of the cluster, its metadata, and the runtime's
statistics, collected on demand.

What is wrong with partitions is told here for all of them: when every replica of one is dead, no
broker is left to tell it. Counts are always there. Partitions by name are those in trouble, the
worst first, ``NAMED_MAX`` at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from minilog.controller.kafka_names import write_kafka_cluster, write_kafka_counts, write_kafka_journal
from minilog.controller.runtime import Runtime
from minilog.core.image import ClusterImage, PartitionState, TopicImage, min_isr
from minilog.core.moves.moving import is_moving, missing
from minilog.server.disk_space import DiskSpace
from minilog.server.exposition import Exposition, labels
from minilog.server.inbound.listener import Listener
from minilog.server.process_facts import (
    write_access,
    write_build,
    write_listener,
    write_peers,
    write_turns,
    write_wall_clock,
)
from minilog.server.security.gate import Gate
from minilog.wire.journal.metadata_records import NO_LEADER, DiskState
from minilog.wire.messages import DescribeClusterReply

STATES: Final = ("running", "fenced", "shutting_down")
TROUBLES: Final = ("offline", "lost", "under_min_isr", "under_replicated")
"""Without a leader: one that is known to be whole is awaited, or there is none."""
PARTITION_STATES: Final = ("all", *TROUBLES, "not_preferred")
NAMED_MAX: Final = 1000
SLICE: Final = 1000
"""Partitions that are looked at before others have their turn."""


class Standing:
    """What is wrong with partitions, as far as the metadata says."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.troubled: dict[str, list[tuple[str, int]]] = {name: [] for name in TROUBLES}
        self.omitted = 0
        self.leaders: Counter[int] = Counter()
        self.replicas: Counter[int] = Counter()
        self.behind: set[int] = set()
        """Brokers with a replica that is not in sync."""

    def look(self, topic: TopicImage, state: PartitionState) -> None:
        self.counts["all"] += 1
        self.leaders[state.leader] += 1
        self.replicas.update(state.replicas)
        if state.leader == NO_LEADER:
            is_lost = not (state.isr or state.elr or state.last_known_elr)
            self._name("lost" if is_lost else "offline", state)
        elif state.leader != state.replicas[0] and not is_moving(state):
            self.counts["not_preferred"] += 1
        if len(state.isr) < min_isr(topic, state):
            self._name("under_min_isr", state)
        if missed := missing(state):
            self._name("under_replicated", state)
            self.behind.update(missed)

    def _name(self, what: str, state: PartitionState) -> None:
        self.counts[what] += 1
        if len(self.troubled[what]) < NAMED_MAX:
            self.troubled[what].append((state.topic, state.partition))
        else:
            self.omitted += 1

    def skew(self, brokers: list[int]) -> float:
        """What the broker that leads most has, to what each would have. 1 is even."""
        led = [self.leaders[broker] for broker in brokers]
        return max(led) * len(led) / sum(led) if sum(led) else 1.0


async def standing_of(image: ClusterImage) -> Standing:
    """In slices: what changes meanwhile is told by the next scrape."""
    found, seen = Standing(), 0
    for topic in list(image.topics.values()):
        for state in list(topic.partitions.values()):
            found.look(topic, state)
            seen += 1
            if seen % SLICE == 0:
                await asyncio.sleep(0)
    return found


class Metrics:
    def __init__(self, runtime: Runtime, listener: Listener, gate: Gate) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._runtime, self._listener, self._gate = runtime, listener, gate
        self._disk = DiskSpace(runtime.settings.data_dir)
        self._registry = CollectorRegistry()
        self._registry.register(runtime.append_latency)
        self._registry.register(runtime.failover_duration)
        self._registry.register(runtime.peers.queue_latency)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    @property
    def _is_active(self) -> bool:
        return self._runtime.started and self._runtime.decides

    async def exposition(self, cluster: DescribeClusterReply) -> bytes:
        page, image = Exposition(), self._runtime.image
        write_build(page, "controller", "controller", cluster.cluster_id)
        if self._runtime.decides:  # what a standby knows of brokers it has not heard itself
            _write_cluster(page, cluster)
            write_standing(page, cluster, image, await standing_of(image))
        await self._disk.look()
        self._disk.write(page)
        self._write_process(page)
        return await asyncio.to_thread(lambda: page.text() + generate_latest(self._registry))

    async def kafka_exposition(self, cluster: DescribeClusterReply) -> bytes:
        page, runtime = Exposition(), self._runtime
        write_kafka_cluster(page, cluster, runtime.image)
        counts = (await standing_of(runtime.image)).counts
        write_kafka_counts(page, {**counts, "offline": counts["offline"] + counts["lost"]})
        write_kafka_journal(
            page,
            is_active=self._is_active,
            epoch=cluster.controller_epoch,
            journal_index=runtime.statistics().journal_index,
        )
        return await asyncio.to_thread(lambda: page.text() + generate_latest(self._process))

    def _write_process(self, page: Exposition) -> None:
        now = self._runtime.statistics()
        page.gauge("minilog_active_controller", "1 where metadata is decided.", int(self._is_active))
        standbys = len(self._runtime.standbys.known(self._runtime.clock.now_ms()))
        page.gauge("minilog_controller_standbys", "Controllers that stand by, as the active one hears them.", standbys)
        page.gauge(
            "minilog_controller_standby_lag_records",
            "Metadata records that this standby has yet to replay.",
            max(0, self._runtime.end_index - self._runtime.core.metadata_offset),
        )
        page.gauge("minilog_journal_index", "Index of the last durable metadata record.", now.journal_index)
        page.gauge("minilog_journal_tail_records", "Records since the last snapshot.", now.journal_tail_records)
        page.gauge(
            "minilog_parked_requests", "Requests that wait for an answer, by kind", [(labels(kind="all"), now.parked)]
        )
        page.counter("minilog_requests_shed", "Requests refused because older ones had no turn yet", now.refused)
        write_turns(page, now.loop_lag_seconds, now.loop_lag_seconds_max, self._runtime.turn_watch)
        write_wall_clock(page, self._runtime.clock.offset_ms, self._runtime.clock.steps)
        write_listener(page, self._listener)
        write_access(page, self._gate)
        write_peers(page, self._runtime.peers.failures)
        page.counter("minilog_controller_decisions", "Events decided.", now.decisions)
        page.counter("minilog_controller_disconnects", "Parked requests whose connection dropped.", now.disconnects)


def _write_cluster(page: Exposition, cluster: DescribeClusterReply) -> None:
    states = Counter(broker.state for broker in cluster.brokers)
    page.gauge(
        "minilog_brokers",
        "Brokers by state, as this process knows them; unknown while the controller does not answer",
        [(labels(state=state), states[state]) for state in STATES],
    )
    running = page.gauge("minilog_broker_running", "1 when the broker is heard and serves, 0 when not")
    age = page.gauge("minilog_broker_heartbeat_age_seconds", "Time since a broker was last heard of.")
    lag = page.gauge("minilog_broker_metadata_lag_records", "Metadata records a broker has yet to apply.")
    skew = page.gauge(
        "minilog_broker_clock_skew_seconds", "How far the wall clock of a broker is ahead of this controller's."
    )
    conditions = page.gauge("minilog_broker_condition", "1 while a broker says that something is wrong with it")
    for broker in cluster.brokers:
        of = labels(broker=broker.broker_id)
        running.add(of, int(broker.state == "running"))
        if broker.clock_skew_ms is not None:
            skew.add(of, broker.clock_skew_ms / 1000)
        if broker.heartbeat_age_ms >= 0:  # else it was not heard, and nothing is known of it
            age.add(of, broker.heartbeat_age_ms / 1000)
            lag.add(of, cluster.metadata_offset - broker.metadata_offset)
        for kind in sorted({condition.kind for condition in broker.conditions}):
            conditions.add(labels(broker=broker.broker_id, kind=kind), 1)
    page.counter(
        "minilog_leader_elections",
        "Leaders elected, by kind.",
        [(labels(kind=kind), count) for kind, count in sorted(cluster.elections.items())],
    )
    page.gauge("minilog_controller_epoch", "Term of this controller.", cluster.controller_epoch)


def write_standing(page: Exposition, cluster: DescribeClusterReply, image: ClusterImage, standing: Standing) -> None:
    page.gauge(
        "minilog_cluster_partitions",
        "Partitions of the cluster by what is wrong with them, also of those that no living broker hosts",
        [(labels(state=state), standing.counts[state]) for state in PARTITION_STATES],
    )
    named = page.gauge("minilog_cluster_partition_troubled", "1 for each partition that is in this state")
    for state, partitions in standing.troubled.items():
        for topic, partition in partitions:
            named.add(labels(topic=topic, partition=partition, state=state), 1)
    page.gauge(
        "minilog_cluster_partitions_omitted",
        f"Partitions in trouble that have no series by name, because {NAMED_MAX} of their state have",
        standing.omitted,
    )
    leaders = page.gauge("minilog_broker_leaders", "Partitions that a broker leads")
    replicas = page.gauge("minilog_broker_replicas", "Replicas that a broker is to have")
    lost = page.gauge(
        "minilog_broker_disk_lost", "1 while a broker that came back with another disk than it had is not in sync again"
    )
    running = [broker.broker_id for broker in cluster.brokers if broker.state == "running"]
    for broker in cluster.brokers:
        of = labels(broker=broker.broker_id)
        leaders.add(of, standing.leaders[broker.broker_id])
        replicas.add(of, standing.replicas[broker.broker_id])
        known = image.brokers.get(broker.broker_id)
        is_other = known is not None and known.disk is DiskState.OTHER
        lost.add(of, int(is_other and broker.broker_id in standing.behind))
    page.gauge(
        "minilog_leader_skew",
        "What the running broker that leads most leads, to what it would lead if all led alike: 1 is even",
        round(standing.skew(running), 3) if running else 1.0,
    )
