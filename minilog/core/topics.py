"""Topics: creating and deleting them, as decisions of the controller. Pure functions on the image."""

from __future__ import annotations

import re
from random import Random

from minilog.config import ControllerSettings, TopicSettings, topic_settings
from minilog.core.image import ClusterImage
from minilog.core.placement import place
from minilog.errors import (
    InvalidConfig,
    InvalidReplication,
    InvalidRequest,
    InvalidTopic,
    Overloaded,
    TopicExists,
    UnknownTopic,
)
from minilog.wire.messages import CreateTopic, PartitionInfo, TopicInfo
from minilog.wire.metadata import NO_LEADER, MetadataRecord, PartitionChanged, TopicCreated, TopicDeleted

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def check_topic_name(topic: str) -> None:
    """Raises InvalidTopic; what passes is safe as a file name too."""
    if not _NAME.fullmatch(topic) or topic in (".", ".."):
        raise InvalidTopic(
            f"{topic!r} is no topic name; use 1 to 249 of the characters A-Z a-z 0-9 . _ -, but not '.' or '..'"
        )


def create_topic(
    request: CreateTopic, image: ClusterImage, settings: ControllerSettings, rng: Random
) -> list[MetadataRecord]:
    """The records that create a topic. Raises what the request deserves; nothing is decided then."""
    check_topic_name(request.topic)
    if request.topic in image.topics:
        raise TopicExists(f"topic {request.topic} exists already")
    typed = topic_settings(request.config)
    replicas = _assignment(request, image, settings)
    _check_min_isr(typed, replicas)
    _check_limits(len(replicas), image, settings)
    topic_id = f"{rng.getrandbits(128):032x}"
    records: list[MetadataRecord] = [TopicCreated(request.topic, topic_id, request.config)]
    for partition, members in enumerate(replicas):
        isr = [r for r in members if image.is_eligible(r)]
        records.append(PartitionChanged(request.topic, topic_id, partition, members, isr[0], 0, 0, isr))
    return records


def _assignment(request: CreateTopic, image: ClusterImage, settings: ControllerSettings) -> list[list[int]]:
    if request.assignment:
        return _check_assignment(request, image)
    partitions = request.partitions or settings.default_partitions
    live = {b.broker_id: b.rack for b in image.brokers.values() if b.eligible}
    factor = request.replication_factor or min(settings.default_replication_factor, max(1, len(live)))
    if not 1 <= partitions <= settings.partitions_max:
        raise InvalidRequest(f"partitions={partitions} is not allowed; use 1 to {settings.partitions_max}")
    if not 1 <= factor <= len(live):
        raise InvalidReplication(
            f"replication_factor={factor} is not possible: {len(live)} brokers are running ({_ids(live)}); use 1 to {len(live)} or start more"
        )
    existing = sum(len(t.partitions) for t in image.topics.values())
    return place(partitions, factor, live, existing)


def _check_assignment(request: CreateTopic, image: ClusterImage) -> list[list[int]]:
    if request.partitions not in (0, len(request.assignment)) or request.replication_factor:
        raise InvalidRequest(
            "an assignment fixes partitions and replicas by itself; leave out partitions and replication_factor"
        )
    for partition, members in enumerate(request.assignment):
        if not members or len(set(members)) != len(members) or len(members) != len(request.assignment[0]):
            raise InvalidReplication(
                f"assignment of partition {partition} is {members}; every partition needs the same number of different brokers"
            )
        unknown = [r for r in members if r not in image.brokers]
        if unknown or not any(image.is_eligible(r) for r in members):
            raise InvalidReplication(
                f"assignment of partition {partition} is {members}; known brokers are {_ids(image.brokers)}, and one of them must be running"
            )
    return [list(members) for members in request.assignment]


def _check_min_isr(typed: TopicSettings, replicas: list[list[int]]) -> None:
    factor = len(replicas[0])
    if typed.min_insync_replicas > factor:
        raise InvalidConfig(
            f"min.insync.replicas={typed.min_insync_replicas} can never be met with {factor} replicas; use 1 to {factor}"
        )


def _check_limits(partitions: int, image: ClusterImage, settings: ControllerSettings) -> None:
    existing = sum(len(t.partitions) for t in image.topics.values())
    if len(image.topics) >= settings.topics_max or existing + partitions > settings.partitions_max:
        raise Overloaded(
            f"the cluster has {len(image.topics)} topics and {existing} partitions; allowed are {settings.topics_max} and {settings.partitions_max}"
        )


def delete_topic(topic: str, image: ClusterImage) -> list[MetadataRecord]:
    found = image.topics.get(topic)
    if found is None:
        raise UnknownTopic(f"there is no topic {topic!r}")
    return [TopicDeleted(topic, found.topic_id)]


def created_info(records: list[MetadataRecord]) -> TopicInfo:
    """What the creator is told; ``records`` are those of ``create_topic``."""
    head = records[0]
    assert isinstance(head, TopicCreated)
    partitions = [
        PartitionInfo(r.partition, r.leader, r.leader_epoch, r.partition_epoch, r.replicas, r.isr, r.elr)
        for r in records[1:]
        if isinstance(r, PartitionChanged)
    ]
    assert all(p.leader != NO_LEADER for p in partitions)
    return TopicInfo(head.topic, head.topic_id, partitions, head.config)


def _ids(brokers: object) -> str:
    return ", ".join(str(b) for b in sorted(brokers)) or "none"  # type: ignore[call-overload]
