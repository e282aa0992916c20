"""Changes that are asked for: of topics and replicas, and claims of lost records. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from random import Random
from typing import NamedTuple

from minilog.config import ControllerSettings
from minilog.core.controller.brokers.removal import remove_broker
from minilog.core.controller.moves.plan import plan_replicas
from minilog.core.controller.moves.requests import move_replicas
from minilog.core.controller.told.lost_claims import claim_lost
from minilog.core.controller.topic_config import configure_topic
from minilog.core.controller.topics import add_partitions, create_topic, created_info, delete_topic
from minilog.core.image import ClusterImage
from minilog.wire.admin_messages import ConfigureTopic, MoveReplicas, PlanReplicas, RemoveBroker
from minilog.wire.journal.metadata_records import MetadataRecord
from minilog.wire.messages import AddPartitions, ClaimLost, CreateTopic, CreateTopicReply, DeleteTopic, Message, Ok

ChangeRequest = (
    CreateTopic | DeleteTopic | AddPartitions | ConfigureTopic | MoveReplicas | RemoveBroker | PlanReplicas | ClaimLost
)


class Change(NamedTuple):
    """``until_known``: the answer waits until every live broker knows of it."""

    records: list[MetadataRecord]
    reply: Message
    until_known: bool = True


def change(
    request: ChangeRequest, image: ClusterImage, settings: ControllerSettings, rng: Random, heard: Container[int] = ()
) -> Change:
    """``heard``: brokers with a session. Raises the MinilogError that says why not."""
    match request:
        case CreateTopic():
            records = create_topic(request, image, settings, rng)
            return Change(records, CreateTopicReply(created_info(records), _end(image, records)))
        case DeleteTopic():
            records = delete_topic(request, image)
        case AddPartitions():
            records = add_partitions(request, image, settings)
        case RemoveBroker():
            records = remove_broker(request, image, heard)
        case ConfigureTopic():
            configured, answer = configure_topic(request, image)
            return Change(configured, answer, until_known=bool(configured))
        case MoveReplicas():
            moved, told = move_replicas(request, image)
            return Change(moved, told, until_known=bool(moved))
        case PlanReplicas():
            return Change([], plan_replicas(request, image), until_known=False)
        case ClaimLost():
            claimed, reply = claim_lost(request, image)
            return Change([*claimed], reply, until_known=False)
    return Change(records, Ok(_end(image, records)))


def _end(image: ClusterImage, records: Sequence[MetadataRecord]) -> int:
    return image.metadata_offset + len(records)
