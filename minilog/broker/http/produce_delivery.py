"""Lots: the records of one JSON produce request, sorted by partition, encoded, and delivered to the leaders.

Keyed records go to Kafka's partition for the key; those without a key share one partition per request, the next in
rotation that has a leader. A lot is one partition's share: its batches are appended together or not at all.

A definite refusal that passes with an election (nobody leads, or somebody else does by now) is retried here until
the request's time is over; anything indefinite is the client's to judge, and is never sent a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from minilog.broker.http.exchange import Face
from minilog.broker.http.native import run_produce
from minilog.broker.http.producer_ids import Numbers
from minilog.core.image import TopicImage
from minilog.errors import (
    BrokerUnavailable,
    InternalError,
    LeaderNotAvailable,
    MinilogError,
    NotLeader,
    RecordTooLarge,
    UnknownPartition,
)
from minilog.wire.batch import acks_level_for
from minilog.wire.json_records import ProducedRecord
from minilog.wire.messages import Problem, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.metadata_records import NO_LEADER
from minilog.wire.murmur2 import partition_of
from minilog.wire.records import BatchBuilder

PASSING: Final = frozenset((NotLeader.code, LeaderNotAvailable.code, BrokerUnavailable.code))
RETRY_FIRST_S: Final = 0.02
RETRY_MAX_S: Final = 0.25


class Lot(msgspec.Struct):
    """``indexes`` say which of the request's records are in ``batches``, in order. ``topic_id``: they are for this very
    topic, however long the delivery takes and whatever has its name by then."""

    topic: str
    topic_id: str
    partition: int
    indexes: list[int]
    batches: bytes
    result: ProduceResult | None = None
    reached_leader: bool = False
    """The result is a leader's own, who has counted it."""


def sort_records(
    face: Face, topic: TopicImage, records: Sequence[ProducedRecord], errors: dict[int, MinilogError]
) -> dict[int, list[int]]:
    """Indexes of the records by partition; what cannot be placed goes to ``errors``."""
    count = len(topic.partitions)
    if count == 0:
        raise LeaderNotAvailable(f"topic {topic.topic} has no partitions yet; retry shortly")
    sticky: int | None = None
    by_partition: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        if record.partition is not None:
            partition = record.partition
            if partition not in topic.partitions:
                errors[index] = UnknownPartition(
                    f"records[{index}].partition is {partition}; topic {topic.topic} has partitions 0 to {count - 1}"
                )
                continue
        elif record.key is not None:
            partition = partition_of(record.key, count)
        else:
            if sticky is None:
                sticky = next_sticky(face, topic)
            partition = sticky
        by_partition.setdefault(partition, []).append(index)
    return by_partition


def next_sticky(face: Face, topic: TopicImage) -> int:
    """The next partition in rotation, those without a leader left out as long as there are others."""
    count = len(topic.partitions)
    face.rotation += 1
    turns = [(face.rotation + step) % count for step in range(count)]
    led = (partition for partition in turns if topic.partitions[partition].leader != NO_LEADER)
    return next(led, turns[0])


def encode_lots(
    topic: TopicImage,
    records: Sequence[ProducedRecord],
    by_partition: Mapping[int, list[int]],
    acks: int,
    errors: dict[int, MinilogError],
) -> list[Lot]:
    """A lot per partition; without any when no record of it fits into a batch."""
    lots = [encode_lot(topic, number, records, indexes, acks, errors) for number, indexes in by_partition.items()]
    return [lot for lot in lots if lot.indexes]


def encode_lot(
    topic: TopicImage,
    partition: int,
    records: Sequence[ProducedRecord],
    indexes: Iterable[int],
    acks: int,
    errors: dict[int, MinilogError],
) -> Lot:
    """The batches of one partition, each within the topic's max.message.bytes; what fits into none goes to ``errors``."""
    bytes_max = topic.settings.max_message_bytes
    level = acks_level_for(acks)
    lot = Lot(topic.topic, topic.topic_id, partition, [], b"")
    batches: list[bytes] = []
    builder = BatchBuilder(bytes_max)
    for index in indexes:
        record = records[index]
        try:
            if not builder.append(record.key, record.value, record.headers, record.timestamp):
                batches.append(builder.build(acks_level=level))
                builder = BatchBuilder(bytes_max)
                builder.append(record.key, record.value, record.headers, record.timestamp)
            lot.indexes.append(index)
        except RecordTooLarge as error:
            errors[index] = RecordTooLarge(f"records[{index}]: {error.detail} (max.message.bytes of {topic.topic})")
    if builder.record_count:
        batches.append(builder.build(acks_level=level))
    lot.batches = batches[0] if len(batches) == 1 else b"".join(batches)
    return lot


def encode_numbered(
    topic: TopicImage, partition: int, records: Sequence[ProducedRecord], acks: int, numbers: Numbers
) -> Lot:
    """All records as one batch with the producer's numbers. Raises RecordTooLarge: they are written together or not at all."""
    bytes_max = topic.settings.max_message_bytes
    builder = BatchBuilder(bytes_max)
    for index, record in enumerate(records):
        if not builder.append(record.key, record.value, record.headers, record.timestamp):
            raise RecordTooLarge(
                f"records[{index}] and what follows does not fit into one batch of {bytes_max} bytes (max.message.bytes of "
                f"{topic.topic}); with Minilog-Sequence a request is one batch, so send fewer records in each"
            )
    batch = builder.build(
        producer_id=numbers.producer_id,
        producer_epoch=numbers.producer_epoch,
        base_sequence=numbers.base_sequence,
        acks_level=acks_level_for(acks),
    )
    return Lot(topic.topic, topic.topic_id, partition, list(range(len(records))), batch)


async def deliver(face: Face, lots: Sequence[Lot], acks: int, timeout_ms: int) -> None:
    """Set the ``result`` of every lot, and count what failed before it came to a leader, or on the way."""
    await _deliver(face, lots, acks, timeout_ms)
    for lot in lots:
        assert lot.result is not None
        if lot.result.problem is not None and not lot.reached_leader:
            face.metrics.on_produce_refused(lot.result.problem.code)


async def _deliver(face: Face, lots: Sequence[Lot], acks: int, timeout_ms: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    pause = RETRY_FIRST_S
    waiting = list(lots)
    while waiting:
        remaining_ms = max(1, round((deadline - loop.time()) * 1000))
        await _deliver_once(face, waiting, acks, remaining_ms)
        waiting = [lot for lot in waiting if _is_passing(lot.result)]
        if not waiting or face.closing or loop.time() + pause >= deadline:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, RETRY_MAX_S)


def _is_passing(result: ProduceResult | None) -> bool:
    assert result is not None
    problem = result.problem
    return problem is not None and problem.definite and problem.code in PASSING


async def _deliver_once(face: Face, lots: Sequence[Lot], acks: int, timeout_ms: int) -> None:
    by_leader: dict[str, list[Lot]] = {}
    for lot in lots:
        try:
            state = face.partition(lot.topic, lot.partition, lot.topic_id)
            url = "" if state.leader == face.broker_id else face.leader_url(state)
        except MinilogError as error:
            lot.result, lot.reached_leader = ProduceResult(lot.topic, lot.partition, Problem.of(error)), False
            continue
        by_leader.setdefault(url, []).append(lot)
    if len(by_leader) == 1:
        ((url, share),) = by_leader.items()
        await _deliver_to(face, url, share, acks, timeout_ms)
    else:
        await asyncio.gather(*(_deliver_to(face, url, share, acks, timeout_ms) for url, share in by_leader.items()))


async def _deliver_to(face: Face, url: str, lots: Sequence[Lot], acks: int, timeout_ms: int) -> None:
    """One Produce to one leader: this broker when ``url`` is empty."""
    entries = [ProducePartition(lot.topic, lot.partition, memoryview(lot.batches), lot.topic_id) for lot in lots]
    message = Produce(acks, timeout_ms, entries)
    if url:
        reply = await face.runtime.call(url, message, timeout_ms + face.runtime.settings.peer_timeout_ms)
    else:
        reply = await run_produce(face, message)
    for lot, result in zip(lots, _results(reply, lots), strict=True):
        lot.result, lot.reached_leader = result, not url or isinstance(reply, ProduceReply)


def _results(reply: object, lots: Sequence[Lot]) -> list[ProduceResult]:
    if isinstance(reply, ProduceReply) and len(reply.partitions) == len(lots):
        return reply.partitions
    if not isinstance(reply, Problem):
        reply = Problem.of(InternalError(f"the leader answered a produce with a {type(reply).__name__}"))
    return [ProduceResult(lot.topic, lot.partition, reply) for lot in lots]
