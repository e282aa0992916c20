"""Views: the cluster as clients and operators see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minilog.core.controller.broker_sessions import Liveness
from minilog.core.controller.failovers import Failovers
from minilog.core.controller.topics import is_internal
from minilog.core.image import ClusterImage, TopicImage
from minilog.wire.messages import (
    BrokerHealth,
    BrokerInfo,
    DescribeClusterReply,
    MetadataReply,
    PartitionInfo,
    TopicInfo,
)


def topic_info(topic: TopicImage) -> TopicInfo:
    partitions = [
        PartitionInfo(s.partition, s.leader, s.leader_epoch, s.partition_epoch, s.replicas, s.isr, s.elr)
        for _, s in sorted(topic.partitions.items())
    ]
    return TopicInfo(topic.topic, topic.topic_id, partitions, topic.config)


def listed_topics(image: ClusterImage) -> list[str]:
    return sorted(name for name in image.topics if not is_internal(name))


def metadata_reply(image: ClusterImage, topics: Sequence[str] | None) -> MetadataReply:
    """All topics but internal ones, which must be named to be shown; or those of ``topics`` that exist."""
    names = listed_topics(image) if topics is None else [t for t in dict.fromkeys(topics) if t in image.topics]
    brokers = [BrokerInfo(b.broker_id, b.url, b.state, b.epoch, b.rack) for _, b in sorted(image.brokers.items())]
    return MetadataReply(
        image.cluster_id,
        image.metadata_offset,
        image.controller_epoch,
        brokers,
        [topic_info(image.topics[name]) for name in names],
    )


def describe_cluster(
    image: ClusterImage, liveness: Liveness, failovers: Failovers, elections: Mapping[str, int], now_ms: int
) -> DescribeClusterReply:
    """The controller's own view. A broker without a session has metadata offset 0 and heartbeat age -1."""
    brokers = []
    for broker_id, b in sorted(image.brokers.items()):
        session = liveness.sessions.get(broker_id)
        offset, age_ms = (session.metadata_offset, now_ms - session.heard_ms) if session else (0, -1)
        brokers.append(BrokerHealth(broker_id, b.url, b.state, b.epoch, offset, age_ms, b.rack))
    recent = list(failovers.recent)
    return DescribeClusterReply(
        image.cluster_id, image.controller_epoch, image.metadata_offset, brokers, recent, dict(elections)
    )
