"""What the stream tells, in sections, each with a bound. Pure functions of the metadata, and of
what the controller and the brokers have answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

import minilog
from minilog.core.health import Knowledge, health_of
from minilog.core.image import ClusterImage, PartitionState, TopicImage
from minilog.core.moves.moving import adding
from minilog.core.topic_names import is_internal
from minilog.wire.figure_messages import DescribeBrokerReply, ReplicaBehind
from minilog.wire.json.json_answers import NotedEvent
from minilog.wire.json.live_answers import (
    LiveAbout,
    LiveBroker,
    LiveHealth,
    LiveLost,
    LivePartition,
    LiveTopic,
)
from minilog.wire.messages import FailoverInfo

PARTITIONS_MAX: Final = 5000
FINDINGS_MAX: Final = 100
EVENTS_MAX: Final = 100
LOST_MAX: Final = 500
BEHIND_MAX: Final = 1000
_FIGURES: Final = tuple(LiveBroker.__struct_fields__[LiveBroker.__struct_fields__.index("version") :])


class Told(NamedTuple):
    """``knowledge`` holds the controller's last answer, ``figures`` those of the brokers that
    answer."""

    role: str
    broker_id: int | None
    at_ms: int
    knowledge: Knowledge
    figures: Mapping[int, DescribeBrokerReply]


def about(image: ClusterImage, told: Told) -> LiveAbout:
    partitions = sum(len(topic.partitions) for topic in image.topics.values())
    return LiveAbout(
        told.role,
        told.broker_id,
        minilog.__version__,
        told.at_ms,
        image.cluster_id,
        image.metadata_offset,
        image.controller_epoch,
        told.knowledge.controller_url,
        told.knowledge.heard_ms_ago,
        partitions,
        max(0, partitions - PARTITIONS_MAX),
    )


def health(image: ClusterImage, told: Told) -> LiveHealth:
    found = health_of(image, told.knowledge)
    return LiveHealth(
        found.healthy,
        len(found.offline),
        len(found.under_min_isr),
        len(found.under_replicated),
        found.brokers_not_running,
        sorted(found.findings, key=lambda finding: finding.is_warning)[:FINDINGS_MAX],
        max(0, len(found.findings) - FINDINGS_MAX),
    )


def brokers(image: ClusterImage, told: Told) -> list[LiveBroker]:
    return [_broker(image, told, broker_id) for broker_id in sorted(image.brokers)]


def _broker(image: ClusterImage, told: Told, broker_id: int) -> LiveBroker:
    broker, figures = image.brokers[broker_id], told.figures.get(broker_id)
    controller = told.knowledge.controller
    of_controller = next((b for b in controller.brokers if b.broker_id == broker_id), None) if controller else None
    heard_ms = None if of_controller is None or of_controller.heartbeat_age_ms < 0 else of_controller.heartbeat_age_ms
    skew_ms = None if of_controller is None else of_controller.clock_skew_ms
    own = {} if figures is None else {name: getattr(figures, name) for name in _FIGURES}
    return LiveBroker(broker_id, broker.url, broker.state, broker.rack, broker.epoch, heard_ms, skew_ms, **own)


def topics(image: ClusterImage) -> list[LiveTopic]:
    """Topics of users first. The first PARTITIONS_MAX partitions."""
    names = sorted(image.topics, key=lambda name: (is_internal(name), name))
    room, told = PARTITIONS_MAX, []
    for name in names:
        topic = image.topics[name]
        told.append(_topic(topic, room))
        room -= len(told[-1].partitions)
    return told


def _topic(topic: TopicImage, room: int) -> LiveTopic:
    return LiveTopic(
        topic.topic,
        topic.topic_id,
        is_internal(topic.topic),
        topic.settings.min_insync_replicas,
        topic.config,
        [
            LivePartition(state.partition, state.leader, state.leader_epoch, _here(state), state.isr)
            for _, state in sorted(topic.partitions.items())[:room]
        ],
    )


def _here(state: PartitionState) -> list[int]:
    """Its replicas, without those that are only to come: nobody misses them."""
    coming = adding(state)
    return [r for r in state.replicas if r in state.isr or r not in coming]


def behind(told: Told) -> list[ReplicaBehind]:
    found = [one for figures in told.figures.values() for one in figures.behind]
    return sorted(found, key=lambda one: (one.topic, one.partition, one.broker_id))[:BEHIND_MAX]


def failovers(image: ClusterImage) -> list[FailoverInfo]:
    return image.failovers[::-1]


def events(image: ClusterImage) -> list[NotedEvent]:
    """The newest first."""
    return [NotedEvent(noted.number, noted.event) for noted in islice(reversed(image.events), EVENTS_MAX)]


def lost(image: ClusterImage, told: Told) -> LiveLost:
    """The newest first."""
    tails = [tail for figures in told.figures.values() for tail in figures.lost]
    left_out = sum(figures.lost_left_out for figures in told.figures.values())
    newest = sorted(tails, key=lambda tail: (-tail.cut_at_ms, tail.tail))[:LOST_MAX]
    unheard = sorted(image.brokers.keys() - told.figures.keys())
    return LiveLost(newest, left_out + len(tails) - len(newest), unheard)
