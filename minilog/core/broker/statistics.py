"""Numbers about a broker and its replicas, for metrics and status pages; plain values, no live references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica

if TYPE_CHECKING:
    from minilog.core.broker.broker import BrokerCore


def partition_statistics(replica: Replica, now_ms: int) -> dict[str, Any]:
    role, log = replica.role, replica.log
    is_leader = isinstance(role, LeaderState)
    state = role.state
    return {
        "topic": replica.partition.topic,
        "partition": replica.partition.partition,
        "is_leader": is_leader,
        "leader": role.broker_id if isinstance(role, LeaderState) else role.leader,
        "leader_epoch": role.leader_epoch,
        "isr_size": len(state.isr),
        "replicas": len(state.replicas),
        "under_replicated": is_leader and len(state.isr) < len(state.replicas),
        "under_min_isr": isinstance(role, LeaderState) and len(state.isr) < role.min_isr,
        "log_start_offset": log.start_offset,
        "high_watermark": role.high_watermark,
        "log_end_offset": log.end_offset,
        "log_bytes": log.size_bytes,
        "isr_shrinks": replica.isr_shrinks,
        "isr_expands": replica.isr_expands,
        "replica_lag": _lags(role, now_ms) if isinstance(role, LeaderState) else {},
    }


def _lags(leader: LeaderState, now_ms: int) -> dict[int, tuple[int | None, int]]:
    """Of each follower: records it is behind (None: not heard from in this epoch), and for how many ms it has been."""
    end = leader.log.end_offset
    lags: dict[int, tuple[int | None, int]] = {}
    for broker_id, progress in leader.followers.items():
        records = None if progress.position is None else end - progress.position
        lags[broker_id] = records, 0 if records == 0 else leader.behind_ms(broker_id, now_ms)
    return lags


def broker_statistics(core: BrokerCore, now_ms: int) -> dict[str, Any]:
    return {
        "broker_id": core.broker_id,
        "ready": core.ready,
        "standing": core.registration.standing.value,
        "last_problem": core.registration.last_problem,
        "parked_produces": len(core.writing.deadlines),
        "parked_fetches": len(core.reading.deadlines),
        "parked_groups": len(core.coordinator.deadlines),
        "partitions": [partition_statistics(replica, now_ms) for replica in core.replicas.values()],
    }
