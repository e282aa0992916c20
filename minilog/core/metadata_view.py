"""The metadata as clients see it: topics, partitions, brokers."""

from __future__ import annotations

from collections.abc import Sequence

from minilog.core.image import ClusterImage, TopicImage
from minilog.core.moves.moving import adding, removing
from minilog.core.topic_names import is_internal
from minilog.wire.messages import (
    BrokerInfo,
    MetadataReply,
    PartitionInfo,
    TopicInfo,
)


def topic_info(topic: TopicImage) -> TopicInfo:
    partitions = [
        PartitionInfo(
            s.partition,
            s.leader,
            s.leader_epoch,
            s.partition_epoch,
            s.replicas,
            s.isr,
            s.elr,
            adding(s),
            removing(s),
        )
        for _, s in sorted(topic.partitions.items())
    ]
    return TopicInfo(topic.topic, topic.topic_id, partitions, topic.config)


def listed_topics(image: ClusterImage) -> list[str]:
    return sorted(name for name in image.topics if not is_internal(name))


def metadata_reply(image: ClusterImage, topics: Sequence[str] | None) -> MetadataReply:
    """All topics but internal ones, which must be named to be shown; or those of ``topics`` that
    exist."""
    names = listed_topics(image) if topics is None else [t for t in dict.fromkeys(topics) if t in image.topics]
    brokers = [
        BrokerInfo(b.broker_id, b.url, b.state, b.epoch, b.rack, b.version) for _, b in sorted(image.brokers.items())
    ]
    return MetadataReply(
        image.cluster_id,
        image.metadata_offset,
        image.controller_epoch,
        brokers,
        [topic_info(image.topics[name]) for name in names],
    )
