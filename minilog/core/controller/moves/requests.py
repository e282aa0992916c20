"""Moves of replicas that are asked for: begun or cancelled as a whole request, or not at all. Pure.

What is so already is no change, so a request may be repeated. One that names a partition epoch
means the partition as it was then: a plan that is older than the cluster is refused.
"""

from __future__ import annotations

from collections.abc import Collection

from minilog.config import TopicSettings
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.controller.topics import check_min_isr, known_topic
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves.moving import (
    adding,
    begun,
    cancelled,
    is_cancelled,
    is_moving,
    redirected,
    settled_replicas,
)
from minilog.errors import InvalidReplication, InvalidRequest, ReplicasMoving, UnknownPartition
from minilog.wire.admin_messages import MovedReplicas, MoveReplicas, MoveReplicasReply, ReplicaMove
from minilog.wire.journal.metadata_records import MetadataRecord

ANY_EPOCH = -1


def move_replicas(request: MoveReplicas, image: ClusterImage) -> tuple[list[MetadataRecord], MoveReplicasReply]:
    """The records that begin or cancel all the moves, and the answer.

    Raises UnknownTopic, UnknownPartition, InvalidRequest, InvalidReplication, InvalidConfig or
    ReplicasMoving."""
    draft, answers = MetadataDraft(image), []
    asked = set[tuple[str, int]]()
    for move in request.moves:
        state = _known_state(move, image)
        if (move.topic, move.partition) in asked:
            raise InvalidRequest(f"{_name(state)} is named twice; name each partition once")
        asked.add((move.topic, move.partition))
        changed = _cancelled(state, move) if not move.replicas else _begun(state, move, image)
        draft.change(changed)
        named, epoch = (state.topic, state.topic_id, state.partition), state.partition_epoch
        places = settled_replicas(state), settled_replicas(changed)
        answers.append(MovedReplicas(*named, *places, adding(changed), epoch))
    records = [] if request.dry_run else draft.records()
    return records, MoveReplicasReply(answers, image.metadata_offset + len(records) if records else 0)


def _known_state(move: ReplicaMove, image: ClusterImage) -> PartitionState:
    topic = known_topic(move.topic, move.topic_id, image)
    state = topic.partitions.get(move.partition)
    if state is None:
        raise UnknownPartition(
            f"topic {move.topic!r} has no partition {move.partition}, it has {len(topic.partitions)}"
        )
    return state


def _cancelled(state: PartitionState, move: ReplicaMove) -> PartitionState:
    """What does not move, or goes back already, is as it was asked for."""
    if not is_moving(state) or is_cancelled(state):
        return state
    _check_epoch(state, move)
    return cancelled(state)


def _begun(state: PartitionState, move: ReplicaMove, image: ClusterImage) -> PartitionState:
    if move.replicas == settled_replicas(state) and not is_cancelled(state):
        return state
    _check_epoch(state, move)
    if is_cancelled(state) and {*move.replicas} <= {*state.replicas}:
        _check_replicas(state, move.replicas, image)
        _check_factor(image.topics[state.topic].settings, state, move.replicas)
        return redirected(state, move.replicas)
    if is_moving(state):
        goes = "back " if is_cancelled(state) else ""
        raise ReplicasMoving(
            f"{_name(state)} is on its way {goes}to brokers {state.target} already; wait until it is there, or cancel "
            "that first"
        )
    _check_replicas(state, move.replicas, image)
    _check_factor(image.topics[state.topic].settings, state, move.replicas)
    return begun(state, move.replicas)


def _check_epoch(state: PartitionState, move: ReplicaMove) -> None:
    if move.partition_epoch not in (ANY_EPOCH, state.partition_epoch):
        raise ReplicasMoving(
            f"{_name(state)} has changed since this was planned (partition epoch {move.partition_epoch} then, "
            f"{state.partition_epoch} now); plan anew"
        )


def _check_replicas(state: PartitionState, replicas: Collection[int], image: ClusterImage) -> None:
    if len(set(replicas)) != len(replicas):
        raise InvalidReplication(f"{_name(state)} is to have brokers {list(replicas)}; name each broker once")
    unknown = sorted({*replicas} - {*image.brokers})
    if unknown:
        raise InvalidReplication(
            f"{_name(state)} is to move to broker {_ids(unknown)}, which has never registered; "
            f"known are {_ids(sorted(image.brokers))}"
        )
    away = [r for r in replicas if r not in state.replicas and not image.is_eligible(r)]
    if away:
        raise InvalidReplication(
            f"{_name(state)} is to move to broker {_ids(away)}, which is not running; start it, or choose another one"
        )


def _check_factor(settings: TopicSettings, state: PartitionState, replicas: Collection[int]) -> None:
    """What acks=all promises is neither lowered by a move nor made impossible."""
    check_min_isr(settings, min(len(replicas), len(state.replicas)))


def _name(state: PartitionState) -> str:
    return f"{state.topic}-{state.partition}"


def _ids(brokers: Collection[int]) -> str:
    return ", ".join(map(str, brokers))
