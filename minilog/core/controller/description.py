"""The cluster as its controller sees it, for operators: brokers and their sessions, recent
failovers, elections."""

from __future__ import annotations

from collections.abc import Mapping

from minilog.core.controller.broker_sessions import BrokerSessions
from minilog.core.controller.failovers import Failovers
from minilog.core.image import ClusterImage
from minilog.wire.messages import BrokerHealth, DescribeClusterReply


def describe_cluster(
    image: ClusterImage, sessions: BrokerSessions, failovers: Failovers, elections: Mapping[str, int], now_ms: int
) -> DescribeClusterReply:
    """The controller's own view. A broker without a session has metadata offset 0 and heartbeat age
    -1."""
    brokers = []
    for broker_id, b in sorted(image.brokers.items()):
        session = sessions.by_broker.get(broker_id)
        offset, age_ms = (session.metadata_offset, now_ms - session.heard_ms) if session else (0, -1)
        brokers.append(BrokerHealth(broker_id, b.url, b.state, b.epoch, offset, age_ms, b.rack))
    recent = list(failovers.recent)
    return DescribeClusterReply(
        image.cluster_id, image.controller_epoch, image.metadata_offset, brokers, recent, dict(elections)
    )
