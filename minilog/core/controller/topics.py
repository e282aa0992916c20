"""Topics: creating and deleting them, as decisions of the controller. Pure functions on the
image."""

from __future__ import annotations

from random import Random
from typing import Final

from minilog.config import FILE_NAME_BYTES_MAX, MIB, VALUE_CHARS_MAX, ControllerSettings, TopicSettings, topic_settings
from minilog.core.controller.placement import place, with_absent
from minilog.core.image import ClusterImage, TopicImage
from minilog.core.moves.moving import settled_replicas
from minilog.core.topic_names import check_not_internal, check_topic_name
from minilog.errors import (
    CoordinatorNotAvailable,
    InvalidConfig,
    InvalidReplication,
    InvalidRequest,
    InvalidTopic,
    TopicExists,
    UnknownTopic,
)
from minilog.wire.group_messages import GROUPS_TOPIC
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    MetadataRecord,
    PartitionChanged,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import AddPartitions, CreateTopic, DeleteTopic, PartitionInfo, TopicInfo

GROUPS_REPLICAS = 3
GROUPS_MIN_ISR = 2
GROUPS_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(8 * MIB),
    "max.message.bytes": str(16 * MIB),
    "flush.policy": "commit",
}

SHOWN_MAX: Final = 20
"""Brokers of an assignment that a refusal names."""


def _check_directories(topic: str, partitions: int) -> None:
    """Every partition is a directory on its brokers, ``<topic>-<partition>``. Raises
    InvalidTopic."""
    digits = len(str(partitions - 1))
    if len(topic) + len("-") + digits > FILE_NAME_BYTES_MAX:
        raise InvalidTopic(
            f"a topic name of {len(topic)} characters is too long for {partitions} partitions, because file names have at "
            f"most {FILE_NAME_BYTES_MAX}; use at most {FILE_NAME_BYTES_MAX - len('-') - digits} characters or fewer partitions"
        )


def check_lengths(config: dict[str, str]) -> None:
    """What is accepted is journalled as it was written (R44). Raises InvalidConfig."""
    for key, value in config.items():
        if len(value) > VALUE_CHARS_MAX:
            raise InvalidConfig(
                f"topic setting {key[:VALUE_CHARS_MAX]} has a value of {len(value)} characters, "
                f"at most {VALUE_CHARS_MAX} are allowed"
            )


def create_topic(
    request: CreateTopic, image: ClusterImage, settings: ControllerSettings, rng: Random
) -> list[MetadataRecord]:
    """The records that create a topic. Raises what the request deserves. Nothing is decided
    then."""
    check_topic_name(request.topic)
    if request.topic == GROUPS_TOPIC:
        request = _groups_topic(image, settings)
    else:
        check_not_internal(request.topic, "created")
    if request.topic in image.topics:
        raise TopicExists(f"topic {request.topic} exists already")
    check_lengths(request.config)
    typed = topic_settings(request.config)
    replicas = _assignment(request, image, settings)
    check_min_isr(typed, len(replicas[0]))
    config = with_min_isr(request.config, len(replicas[0]))
    _check_directories(request.topic, len(replicas))
    _check_limits(len(replicas), image, settings)
    topic_id = f"{rng.getrandbits(128):032x}"
    return [
        TopicCreated(request.topic, topic_id, config),
        *_new_partitions(request.topic, topic_id, 0, replicas, image),
    ]


def _new_partitions(
    topic: str, topic_id: str, first: int, replicas: list[list[int]], image: ClusterImage
) -> list[MetadataRecord]:
    records: list[MetadataRecord] = []
    for partition, members in enumerate(replicas, first):
        isr = [r for r in members if image.is_eligible(r)]
        records.append(PartitionChanged(topic, topic_id, partition, members, isr[0], 0, 0, isr))
    return records


def add_partitions(request: AddPartitions, image: ClusterImage, settings: ControllerSettings) -> list[MetadataRecord]:
    """The records that give a topic more partitions, with as many replicas as its first ones have.

    Raises UnknownTopic, InvalidTopic, InvalidRequest, InvalidReplication."""
    check_not_internal(request.topic, "given more partitions")
    topic = known_topic(request.topic, request.topic_id, image)
    there = len(topic.partitions)
    if not there < request.partitions <= settings.partitions_max:
        raise InvalidRequest(
            f"{request.topic} has {there} partitions and cannot have {request.partitions}; use {there + 1} to "
            f"{settings.partitions_max} (partitions can only be added: their records could not go anywhere)"
        )
    if request.partitions - there > _new_max(settings):
        raise InvalidRequest(_too_many(request.partitions - there, settings))
    _check_directories(request.topic, request.partitions)
    factor = len(settled_replicas(topic.partitions[0]))
    replicas = _placed(request.partitions - there, factor, image, may_be_absent=True)
    _check_limits(len(replicas), image, settings, topics=0)
    return _new_partitions(request.topic, topic.topic_id, there, replicas, image)


def _groups_topic(image: ClusterImage, settings: ControllerSettings) -> CreateTopic:
    """The one way the topic of consumer groups is made, whatever the request asks for.

    Raises CoordinatorNotAvailable while fewer brokers are known than the settings demand for it.
    """
    known = len(image.brokers)
    if known < settings.groups_brokers_min:
        raise CoordinatorNotAvailable(
            f"{GROUPS_TOPIC} is made when {settings.groups_brokers_min} brokers have registered (groups_brokers_min), "
            f"so far {known} have; start the others and retry"
        )
    factor = _usual_factor(image, GROUPS_TOPIC, settings)
    config = {**GROUPS_CONFIG, "min.insync.replicas": str(min(GROUPS_MIN_ISR, factor))}
    return CreateTopic(GROUPS_TOPIC, settings.groups_partitions, 0, config)


def _usual_factor(image: ClusterImage, topic: str, settings: ControllerSettings) -> int:
    """What a topic gets that asks for no factor: as many replicas as the brokers there are can
    hold, also those that are away for the moment. What was made while they are away would have
    fewer copies for ever."""
    usual = GROUPS_REPLICAS if topic == GROUPS_TOPIC else settings.default_replication_factor
    return max(1, min(usual, len(image.brokers)))


def _assignment(request: CreateTopic, image: ClusterImage, settings: ControllerSettings) -> list[list[int]]:
    if len(request.assignment) > _new_max(settings):
        raise InvalidRequest(_too_many(len(request.assignment), settings))
    if request.assignment:
        return _check_assignment(request, image)
    partitions = request.partitions or settings.default_partitions
    if not 1 <= partitions <= _new_max(settings):
        raise InvalidRequest(_too_many(partitions, settings))
    factor = request.replication_factor or _usual_factor(image, request.topic, settings)
    return _placed(partitions, factor, image, may_be_absent=not request.replication_factor)


def _placed(partitions: int, factor: int, image: ClusterImage, *, may_be_absent: bool) -> list[list[int]]:
    """Replicas on running brokers. What these cannot hold goes to brokers that are away, if that
    was not ruled out."""
    racks = {b.broker_id: b.rack for b in image.brokers.values()}
    live = {b: racks[b] for b in racks if image.is_eligible(b)}
    present = min(factor, len(live)) if may_be_absent else factor
    if not 1 <= present <= len(live):
        raise InvalidReplication(
            f"replication_factor={factor} is not possible: {len(live)} brokers are running ({_ids(live)}); use 1 to {len(live)} or start more"
        )
    existing = sum(len(t.partitions) for t in image.topics.values())
    away = [b for b in sorted(racks) if b not in live]
    return with_absent(place(partitions, present, live, existing), away, factor - present, racks)


def _new_max(settings: ControllerSettings) -> int:
    return min(settings.partitions_max, settings.new_partitions_max)


def _too_many(partitions: int, settings: ControllerSettings) -> str:
    return (
        f"partitions={partitions} is not allowed; use 1 to {_new_max(settings)} in one request "
        "(new_partitions_max), and add others later: every broker opens a log for each of them"
    )


def _check_assignment(request: CreateTopic, image: ClusterImage) -> list[list[int]]:
    if request.partitions not in (0, len(request.assignment)) or request.replication_factor:
        raise InvalidRequest(
            "an assignment fixes partitions and replicas by itself; leave out partitions and replication_factor"
        )
    for partition, members in enumerate(request.assignment):
        if not members or len(set(members)) != len(members) or len(members) != len(request.assignment[0]):
            raise InvalidReplication(
                f"assignment of partition {partition} is {members[:SHOWN_MAX]}; every partition needs the same number of different brokers"
            )
        unknown = [r for r in members if r not in image.brokers]
        if unknown or not any(image.is_eligible(r) for r in members):
            raise InvalidReplication(
                f"assignment of partition {partition} is {members[:SHOWN_MAX]}; known brokers are {_ids(image.brokers)}, and one of them must be running"
            )
    return [list(members) for members in request.assignment]


def check_min_isr(typed: TopicSettings, factor: int) -> None:
    """Raises InvalidConfig."""
    if typed.min_insync_replicas > factor:
        raise InvalidConfig(
            f"min.insync.replicas={typed.min_insync_replicas} can never be met with {factor} replicas; use 1 to {factor}"
        )


def with_min_isr(config: dict[str, str], factor: int) -> dict[str, str]:
    """Unless a topic says otherwise its acks=all means a majority of its replicas. Written down
    with the topic, so that all brokers go by the same number."""
    return config if factor == 1 else {"min.insync.replicas": str(factor // 2 + 1), **config}


def _check_limits(partitions: int, image: ClusterImage, settings: ControllerSettings, topics: int = 1) -> None:
    existing = sum(len(t.partitions) for t in image.topics.values())
    if len(image.topics) + topics > settings.topics_max or existing + partitions > settings.partitions_max:
        raise InvalidRequest(
            f"the cluster has {len(image.topics)} topics and {existing} partitions; allowed are {settings.topics_max} and "
            f"{settings.partitions_max} (topics_max and partitions_max of the controller), and {partitions} partitions were "
            "asked for; ask for fewer, delete topics, or raise the limit"
        )


def delete_topic(request: DeleteTopic, image: ClusterImage) -> list[MetadataRecord]:
    """Raises InvalidTopic, or UnknownTopic also when another topic has that name by now."""
    check_not_internal(request.topic, "deleted")
    topic = known_topic(request.topic, request.topic_id, image)
    return [TopicDeleted(topic.topic, topic.topic_id)]


def known_topic(topic: str, meant: str, image: ClusterImage) -> TopicImage:
    """The controller knows for certain: what was ``meant`` by its id is there, or is gone. Raises
    UnknownTopic."""
    found = image.topics.get(topic)
    if found is None:
        raise UnknownTopic(f"there is no topic {topic!r}")
    if meant not in ("", found.topic_id):
        raise UnknownTopic(
            f"there is no topic {topic!r} with topic id {meant} any more; the one of that name has {found.topic_id}",
            topic_id=found.topic_id,
        )
    return found


def created_info(records: list[MetadataRecord]) -> TopicInfo:
    """What the creator is told. ``records`` are those of ``create_topic``."""
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
