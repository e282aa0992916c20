"""What the tests of core are made of: batches, logs, partition records, images, leaders and
followers.

Logs are written as runs: ``log_of((1, 3), (4, 2))`` holds three records of leader epoch 1 and two
of epoch 4, one batch each. A record's value is its epoch and offset, so two logs that agree on
(epoch, offset) agree on the bytes, as they do when each epoch has one leader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minilog.config import TopicSettings
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.produce_waiters import PendingProduce
from minilog.core.replication.replica import Replica
from minilog.wire.batch import ACKS_MANY, Batch, split, stamp
from minilog.wire.journal.metadata_records import (
    BrokerRegistered,
    BrokerUnfenced,
    ControllerStarted,
    MetadataRecord,
    PartitionChanged,
    TopicCreated,
)
from minilog.wire.messages import ACKS_ALL, ProducePartition, ReplicaFetchPartition
from minilog.wire.records import encode_values
from tests.unit.core.memory_log import MemoryLog

TOPIC, TOPIC_ID = "orders", "id-of-orders"
LAG_MAX_MS = 4000
BATCH_BYTES_MAX = 1 << 20


def produced(*values: bytes, timestamp_ms: int = 1000) -> bytes:
    """One batch as a producer sends it: base offset 0, no leader epoch."""
    return encode_values(values or (b"v",), timestamp_ms)


def batch_at(base_offset: int, leader_epoch: int, *values: bytes, timestamp_ms: int = 1000) -> Batch:
    """One batch as it lies in a log."""
    (batch,) = split(produced(*values, timestamp_ms=timestamp_ms), BATCH_BYTES_MAX)
    return stamp(batch, base_offset, leader_epoch, ACKS_MANY)


def extend(log: MemoryLog, leader_epoch: int, count: int, *, synced: bool = True) -> None:
    """Append ``count`` single-record batches whose bytes follow from epoch and offset alone."""
    for _ in range(count):
        log.append([batch_at(log.end_offset, leader_epoch, b"%d at %d" % (leader_epoch, log.end_offset))])
    if synced:
        log.sync()


def log_of(*runs: tuple[int, int], start_offset: int = 0, high_watermark: int | None = None) -> MemoryLog:
    """A durable log of ``(leader epoch, records)`` runs."""
    log = MemoryLog(start_offset)
    for leader_epoch, count in runs:
        extend(log, leader_epoch, count)
    if high_watermark is not None:
        log.high_watermark = high_watermark
    return log


def runs_of(log: MemoryLog) -> list[tuple[int, int]]:
    """The inverse of ``log_of`` for logs of single-record batches."""
    runs: list[tuple[int, int]] = []
    for batch in log.batches:
        if runs and runs[-1][0] == batch.leader_epoch:
            runs[-1] = (batch.leader_epoch, runs[-1][1] + 1)
        else:
            runs.append((batch.leader_epoch, 1))
    return runs


def partition_state(
    *,
    replicas: Sequence[int] = (1, 2, 3),
    leader: int = 1,
    leader_epoch: int = 5,
    partition_epoch: int = 10,
    isr: Sequence[int] | None = None,
    elr: Sequence[int] = (),
    last_known_elr: Sequence[int] = (),
    partition: int = 0,
) -> PartitionState:
    members = list(replicas if isr is None else isr)
    return PartitionChanged(
        TOPIC, TOPIC_ID, partition, list(replicas), leader, leader_epoch, partition_epoch, members, list(elr),
        list(last_known_elr),
    )  # fmt: skip


def topic_config(min_isr: int = 1, **config: str) -> dict[str, str]:
    return {"min.insync.replicas": str(min_isr), **{key.replace("_", "."): value for key, value in config.items()}}


def settings_of(min_isr: int = 1, **settings: Any) -> TopicSettings:
    return TopicSettings(min_insync_replicas=min_isr, **settings)


# --- images ---------------------------------------------------------------------------------------


def broker_records(brokers: Sequence[int], *, first_epoch: int = 2, unfenced: bool = True) -> list[MetadataRecord]:
    """Registrations, each with the journal index it will get as its epoch when they follow record
    1."""
    records: list[MetadataRecord] = []
    epoch = first_epoch
    for broker_id in brokers:
        records.append(BrokerRegistered(broker_id, epoch, f"process-{epoch}", f"http://broker-{broker_id}:8082"))
        if unfenced:
            records.append(BrokerUnfenced(broker_id, epoch))
        epoch += 2 if unfenced else 1
    return records


def image_of(*records: MetadataRecord, brokers: Sequence[int] = (1, 2, 3)) -> ClusterImage:
    """An image of running brokers and what ``records`` say."""
    image = ClusterImage()
    for record in [ControllerStarted("cluster", 1), *broker_records(brokers), *records]:
        image.apply(image.metadata_offset + 1, record)
    return image


def topic_records(*states: PartitionState, min_isr: int = 1, **config: str) -> list[MetadataRecord]:
    return [TopicCreated(TOPIC, TOPIC_ID, topic_config(min_isr, **config)), *states]


# --- roles ----------------------------------------------------------------------------------------


def leader_of(
    state: PartitionState,
    log: MemoryLog | None = None,
    *,
    min_isr: int = 1,
    is_current: Callable[[int, int], bool] = lambda broker_id, broker_epoch: True,
    now_ms: int = 0,
    **settings: Any,
) -> LeaderState:
    settings_ = settings_of(min_isr, **settings)
    return LeaderState(state.leader, 100, state, settings_, MemoryLog() if log is None else log, is_current, now_ms)


def follower_of(state: PartitionState, log: MemoryLog | None = None, **settings: Any) -> FollowerState:
    return FollowerState(
        state, state.leader_epoch, state.leader, settings_of(**settings), MemoryLog() if log is None else log
    )


def replica_of(role: LeaderState | FollowerState) -> Replica:
    return Replica(role.partition, role.topic_id, role.settings, role.log, role)


def memory_log(role: LeaderState | FollowerState) -> MemoryLog:
    assert isinstance(role.log, MemoryLog)
    return role.log


def position(fetch_offset: int, last_epoch: int, leader_epoch: int = 5) -> ReplicaFetchPartition:
    """What a follower says of one partition when it fetches."""
    return ReplicaFetchPartition(TOPIC, TOPIC_ID, 0, leader_epoch, fetch_offset, last_epoch)


def fetched(
    leader: LeaderState, broker_id: int, fetch_offset: int, *, broker_epoch: int = 7, now_ms: int = 0
) -> tuple[int, int] | None:
    """A follower's fetch at ``fetch_offset``, as one that holds the leader's own batches below it
    would ask."""
    last_epoch = leader.log.epoch_at(fetch_offset - 1)
    return leader.on_fetch(broker_id, broker_epoch, position(fetch_offset, last_epoch, leader.leader_epoch), now_ms)


# --- producing ------------------------------------------------------------------------------------


def pending_of(*values: bytes, request_id: int = 1, deadline_ms: int = 30_000) -> PendingProduce:
    return PendingProduce(request_id, [ProducePartition(TOPIC, 0, memoryview(produced(*values)))], deadline_ms)


def produce(
    leader: LeaderState, *values: bytes, acks: int = ACKS_ALL, now_ms: int = 0, synced: bool = True
) -> tuple[PendingProduce, Outcome | None]:
    """Append one batch to the leader, as Writing does after its checks."""
    pending = pending_of(*values)
    outcome = leader.on_produce(split(produced(*values), BATCH_BYTES_MAX), acks, pending, 0, now_ms)
    if synced:
        memory_log(leader).sync()
    return pending, outcome
