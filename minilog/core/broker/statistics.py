"""Numbers about a broker and its replicas, for metrics and status pages; plain values, no live references."""

from __future__ import annotations

from typing import Any

from minilog.core.broker.coordinator import Coordinator
from minilog.core.broker.fetch import FetchRequests
from minilog.core.broker.produce import ProduceRequests
from minilog.core.broker.state import BrokerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica


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


def broker_statistics(
    state: BrokerState, produces: ProduceRequests, fetches: FetchRequests, coordinator: Coordinator, now_ms: int
) -> dict[str, Any]:
    return {
        "broker_id": state.broker_id,
        "ready": state.ready,
        "standing": state.registration.standing.value,
        "last_problem": state.registration.last_problem,
        "parked_produces": len(produces.deadlines),
        "parked_fetches": len(fetches.deadlines),
        "parked_groups": len(coordinator.deadlines),
        "partitions": [partition_statistics(replica, now_ms) for replica in state.replicas.values()],
    }
