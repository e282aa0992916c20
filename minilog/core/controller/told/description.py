"""The cluster as its controller sees it, for operators: brokers and their sessions, recent
failovers, elections."""

from __future__ import annotations

from collections.abc import Mapping

from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.image import ClusterImage
from minilog.wire.messages import BrokerHealth, DescribeClusterReply


def describe_cluster(
    image: ClusterImage, sessions: BrokerSessions, elections: Mapping[str, int], now_ms: int
) -> DescribeClusterReply:
    """The controller's own view. A broker that this controller has not heard, or that has no
    session, has metadata offset 0 and heartbeat age -1."""
    brokers = []
    for broker_id, b in sorted(image.brokers.items()):
        session = sessions.by_broker.get(broker_id)
        is_heard = session is not None and session.is_heard
        offset, age_ms = (session.metadata_offset, now_ms - session.heard_ms) if session and is_heard else (0, -1)
        health = BrokerHealth(broker_id, b.url, b.state, b.epoch, offset, age_ms, b.rack, version=b.version)
        if session is not None:
            health.clock_skew_ms, health.conditions = session.clock_skew_ms, list(session.conditions)
        brokers.append(health)
    recent = list(image.failovers)
    return DescribeClusterReply(
        image.cluster_id,
        image.controller_epoch,
        image.metadata_offset,
        brokers,
        recent,
        dict(elections),
        image.controller_version,
    )
