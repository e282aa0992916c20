"""Numbers about a broker and its replicas, for metrics and status pages; plain values, no live
references."""

from __future__ import annotations

from typing import NamedTuple

from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.fetch import FetchRequests
from minilog.core.broker.produce import ProduceRequests
from minilog.core.broker.state import LocalState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica


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


class BrokerStatistics(NamedTuple):
    broker_id: int
    ready: bool
    standing: str
    last_problem: str
    parked_produces: int
    parked_fetches: int
    parked_groups: int
    partitions: list[PartitionStatistics]


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
        under_replicated=is_leader and len(state.isr) < len(state.replicas),
        under_min_isr=isinstance(role, LeaderState) and len(state.isr) < role.min_isr,
        log_start_offset=log.start_offset,
        high_watermark=role.high_watermark,
        log_end_offset=log.end_offset,
        log_bytes=log.size_bytes,
        isr_shrinks=replica.isr_shrinks,
        isr_expands=replica.isr_expands,
        replica_lag=_lags(role, now_ms) if isinstance(role, LeaderState) else {},
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


def broker_statistics(
    state: LocalState, produces: ProduceRequests, fetches: FetchRequests, coordinator: Coordinator, now_ms: int
) -> BrokerStatistics:
    return BrokerStatistics(
        broker_id=state.broker_id,
        ready=state.ready,
        standing=state.registration.standing.value,
        last_problem=state.registration.last_problem,
        parked_produces=len(produces.deadlines),
        parked_fetches=len(fetches.deadlines),
        parked_groups=len(coordinator.replies),
        partitions=[partition_statistics(replica, now_ms) for replica in state.replicas.values()],
    )
