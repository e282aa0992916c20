"""Numbers about one replica, for metrics and status pages; plain values, no live references."""

from __future__ import annotations

from typing import Any

from minilog.core.leader import LeaderState
from minilog.core.replica import Replica


def partition_statistics(replica: Replica) -> dict[str, Any]:
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
        "replica_lag_records": _lags(role) if isinstance(role, LeaderState) else {},
    }


def _lags(leader: LeaderState) -> dict[int, int | None]:
    """Records each follower is behind; None when it has not been heard from in this epoch."""
    end = leader.log.end_offset
    return {r: None if p.position is None else end - p.position for r, p in leader.followers.items()}
