"""Numbers about a broker and its replicas, for metrics and status pages; plain values, no live
references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.replicate import Replication
from minilog.core.broker.requests.fetch import FetchRequests
from minilog.core.broker.requests.produce import ProduceRequests
from minilog.core.broker.state import LocalState
from minilog.core.moves.moving import is_moving, missing
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from minilog.wire.topic_partition import TopicPartition


class PartitionStatistics(NamedTuple):
    """One replica. ``under_*`` are False where another broker leads."""

    topic: str
    partition: int
    is_leader: bool
    leader: int
    leader_epoch: int
    isr_size: int
    replicas: int
    under_replicated: bool
    under_min_isr: bool
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    log_bytes: int
    isr_shrinks: int
    isr_expands: int
    replica_lag: dict[int, tuple[int | None, int]]
    """Of each follower of a leader: records it is behind (None: not heard from in this epoch), and
    for how many ms."""
    isr: Sequence[int] = ()
    is_preferred: bool = True
    is_moving: bool = False
    at_min_isr: bool = False
    records_in: int = 0
    bytes_in: int = 0
    """What producers have written here while this broker led."""
    at_risk: dict[int, int] = {}
    """Of a leader: records that were acknowledged and are not committed, by acks."""

    @property
    def is_troubled(self) -> bool:
        return self.under_replicated or self.under_min_isr or bool(self.at_risk)


class Following(NamedTuple):
    """What is copied from one leader. ``age_ms``: how old its last answer is, None before the
    first."""

    partitions: int
    fetched_bytes: int
    age_ms: int | None


class BrokerStatistics(NamedTuple):
    broker_id: int
    ready: bool
    standing: str
    last_problem: str
    parked_produces: int
    parked_fetches: int
    parked_groups: int
    strays: int
    replicas: int
    records_lost: Sequence[int] = (0, 0, 0, 0)
    """Cut since the start: of unknown origin, with acks=0, acks=1 and more."""
    clock_skew_ms: int | None = None
    """How far the wall clock is ahead of the controller's."""
    damaged: int = 0
    """Replicas whose logs were found damaged."""
    following: dict[int, Following] = {}
    """By leader."""


def partition_statistics(replica: Replica, now_ms: int) -> PartitionStatistics:
    role, log = replica.role, replica.log
    is_leader = isinstance(role, LeaderState)
    state = role.state
    return PartitionStatistics(
        topic=replica.partition.topic,
        partition=replica.partition.partition,
        is_leader=is_leader,
        leader=role.broker_id if isinstance(role, LeaderState) else role.leader,
        leader_epoch=role.leader_epoch,
        isr_size=len(state.isr),
        replicas=len(state.replicas),
        under_replicated=is_leader and bool(missing(state)),
        under_min_isr=isinstance(role, LeaderState) and len(state.isr) < role.min_isr,
        at_min_isr=isinstance(role, LeaderState) and len(state.isr) == role.min_isr,
        isr=state.isr,
        is_moving=is_moving(state),
        is_preferred=(role.broker_id if isinstance(role, LeaderState) else role.leader) == state.replicas[0],
        log_start_offset=log.start_offset,
        high_watermark=role.high_watermark,
        log_end_offset=log.end_offset,
        log_bytes=log.size_bytes,
        isr_shrinks=replica.isr_shrinks,
        isr_expands=replica.isr_expands,
        replica_lag=_lags(role, now_ms) if isinstance(role, LeaderState) else {},
        records_in=replica.records_in,
        bytes_in=replica.bytes_in,
        at_risk=role.records_at_risk if isinstance(role, LeaderState) else {},
    )


def _lags(leader: LeaderState, now_ms: int) -> dict[int, tuple[int | None, int]]:
    """Of each follower: records it is behind (None: not heard from in this epoch), and for how many
    ms it has been."""
    end = leader.log.end_offset
    lags: dict[int, tuple[int | None, int]] = {}
    for broker_id, progress in leader.followers.items():
        records = None if progress.position is None else end - progress.position
        lags[broker_id] = records, 0 if records == 0 else leader.behind_ms(broker_id, now_ms)
    return lags


def replica_statistics(
    state: LocalState, partitions: Sequence[TopicPartition], now_ms: int
) -> list[PartitionStatistics]:
    """Of those that are still here."""
    found = (state.replicas.get(partition) for partition in partitions)
    return [partition_statistics(replica, now_ms) for replica in found if replica is not None]


def _following(fetcher: ReplicaFetcher, now_ms: int) -> Following:
    age_ms = None if fetcher.answered_ms is None else max(0, now_ms - fetcher.answered_ms)
    return Following(len(fetcher.followers), fetcher.fetched_bytes, age_ms)


def broker_statistics(
    state: LocalState,
    produces: ProduceRequests,
    fetches: FetchRequests,
    coordinator: Coordinator,
    replication: Replication,
    now_ms: int,
) -> BrokerStatistics:
    return BrokerStatistics(
        broker_id=state.broker_id,
        ready=state.ready,
        standing=state.registration.standing.value,
        last_problem=state.registration.last_problem,
        parked_produces=len(produces.deadlines),
        parked_fetches=len(fetches.deadlines),
        parked_groups=len(coordinator.replies),
        strays=state.store.strays,
        replicas=len(state.replicas),
        records_lost=tuple(state.store.records_lost),
        clock_skew_ms=state.clock_skew_ms(now_ms),
        damaged=len(state.damaged),
        following={leader: _following(fetcher, now_ms) for leader, fetcher in replication.fetchers.items()},
    )
