"""Produce delivery: the records of one JSON request, sorted by partition, encoded, and delivered to
the leaders.

Keyed records go to Kafka's partition for the key. Those without a key share one partition per
request, the next in rotation that has a leader. The batches of one share are appended together or
not at all.

A definite refusal that passes with an election (nobody leads, or somebody else does by now) is
retried here until the request's time is over. Anything indefinite is the client's to judge, and is
never sent a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from minilog.broker.http.exchange import HttpContext
from minilog.broker.http.records.native import run_produce
from minilog.broker.http.records.producer_ids import Numbers
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
from minilog.wire.codec.murmur2 import partition_of
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.json.json_records import ProducedRecord
from minilog.wire.messages import Problem, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.records import BatchBuilder

PASSING: Final = frozenset((NotLeader.code, LeaderNotAvailable.code, BrokerUnavailable.code))
RETRY_FIRST_S: Final = 0.02
RETRY_MAX_S: Final = 0.25


class PartitionShare(msgspec.Struct):
    """``indexes`` say which of the request's records are in ``batches``, in order. ``topic_id``:
    they are for this very topic, however long the delivery takes and whatever has its name by
    then."""

    topic: str
    topic_id: str
    partition: int
    indexes: list[int]
    batches: bytes
    result: ProduceResult | None = None
    reached_leader: bool = False
    """The result is a leader's own, who has counted it."""


def sort_records(
    context: HttpContext, topic: TopicImage, records: Sequence[ProducedRecord], errors: dict[int, MinilogError]
) -> dict[int, list[int]]:
    """Indexes of the records by partition. What cannot be placed goes to ``errors``."""
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
                sticky = next_sticky(context, topic)
            partition = sticky
        by_partition.setdefault(partition, []).append(index)
    return by_partition


def next_sticky(context: HttpContext, topic: TopicImage) -> int:
    """The next partition in rotation, those without a leader left out as long as there are
    others."""
    count = len(topic.partitions)
    context.rotation += 1
    turns = [(context.rotation + step) % count for step in range(count)]
    led = (partition for partition in turns if topic.partitions[partition].leader != NO_LEADER)
    return next(led, turns[0])


def encode_shares(
    topic: TopicImage,
    records: Sequence[ProducedRecord],
    by_partition: Mapping[int, list[int]],
    acks: int,
    errors: dict[int, MinilogError],
) -> list[PartitionShare]:
    """A share for each partition, but none for a partition whose records all were too large."""
    shares = [encode_share(topic, number, records, indexes, acks, errors) for number, indexes in by_partition.items()]
    return [share for share in shares if share.indexes]


def encode_share(
    topic: TopicImage,
    partition: int,
    records: Sequence[ProducedRecord],
    indexes: Iterable[int],
    acks: int,
    errors: dict[int, MinilogError],
) -> PartitionShare:
    """The batches of one partition, each within the topic's max.message.bytes. What fits into none
    goes to ``errors``."""
    bytes_max = topic.settings.max_message_bytes
    level = acks_level_for(acks)
    share = PartitionShare(topic.topic, topic.topic_id, partition, [], b"")
    batches: list[bytes] = []
    builder = BatchBuilder(bytes_max)
    for index in indexes:
        record = records[index]
        try:
            if not builder.append(record.key, record.value, record.headers, record.timestamp):
                batches.append(builder.build(acks_level=level))
                builder = BatchBuilder(bytes_max)
                builder.append(record.key, record.value, record.headers, record.timestamp)
            share.indexes.append(index)
        except RecordTooLarge as error:
            errors[index] = RecordTooLarge(f"records[{index}]: {error.detail} (max.message.bytes of {topic.topic})")
    if builder.record_count:
        batches.append(builder.build(acks_level=level))
    share.batches = batches[0] if len(batches) == 1 else b"".join(batches)
    return share


def encode_numbered(
    topic: TopicImage, partition: int, records: Sequence[ProducedRecord], acks: int, numbers: Numbers
) -> PartitionShare:
    """All records as one batch with the producer's numbers. Raises RecordTooLarge: they are written
    together or not at all."""
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
    return PartitionShare(topic.topic, topic.topic_id, partition, list(range(len(records))), batch)


async def deliver(context: HttpContext, shares: Sequence[PartitionShare], acks: int, timeout_ms: int) -> None:
    """Set the ``result`` of every share, and count what failed before it came to a leader, or on
    the way."""
    await _deliver(context, shares, acks, timeout_ms)
    for share in shares:
        assert share.result is not None
        problem = share.result.problem
        if problem is not None and not share.reached_leader:
            context.metrics.requests.on_produce_refused(problem.code, share.topic, share.partition)


async def _deliver(context: HttpContext, shares: Sequence[PartitionShare], acks: int, timeout_ms: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    pause = RETRY_FIRST_S
    waiting = list(shares)
    while waiting:
        remaining_ms = max(1, round((deadline - loop.time()) * 1000))
        await _deliver_once(context, waiting, acks, remaining_ms)
        waiting = [share for share in waiting if _is_passing(share.result)]
        if not waiting or context.closing or loop.time() + pause >= deadline:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, RETRY_MAX_S)


def _is_passing(result: ProduceResult | None) -> bool:
    assert result is not None
    problem = result.problem
    return problem is not None and problem.definite and problem.code in PASSING


async def _deliver_once(context: HttpContext, shares: Sequence[PartitionShare], acks: int, timeout_ms: int) -> None:
    by_leader: dict[str, list[PartitionShare]] = {}
    for share in shares:
        try:
            state = context.partition(share.topic, share.partition, share.topic_id)
            url = "" if state.leader == context.broker_id else context.leader_url(state)
        except MinilogError as error:
            share.result, share.reached_leader = ProduceResult(share.topic, share.partition, Problem.of(error)), False
            continue
        by_leader.setdefault(url, []).append(share)
    if len(by_leader) == 1:
        ((url, its),) = by_leader.items()
        await _deliver_to(context, url, its, acks, timeout_ms)
    else:
        await asyncio.gather(*(_deliver_to(context, url, its, acks, timeout_ms) for url, its in by_leader.items()))


async def _deliver_to(
    context: HttpContext, url: str, shares: Sequence[PartitionShare], acks: int, timeout_ms: int
) -> None:
    """One Produce to one leader: this broker when ``url`` is empty."""
    entries = [
        ProducePartition(share.topic, share.partition, memoryview(share.batches), share.topic_id) for share in shares
    ]
    message = Produce(acks, timeout_ms, entries)
    if url:
        reply = await context.runtime.call(url, message, timeout_ms + context.runtime.settings.peer_timeout_ms)
    else:
        reply = await run_produce(context, message)
    for share, result in zip(shares, _results(reply, shares), strict=True):
        share.result, share.reached_leader = result, not url or isinstance(reply, ProduceReply)


def _results(reply: object, shares: Sequence[PartitionShare]) -> list[ProduceResult]:
    if isinstance(reply, ProduceReply) and len(reply.partitions) == len(shares):
        return reply.partitions
    if not isinstance(reply, Problem):
        reply = Problem.of(InternalError(f"the leader answered a produce with a {type(reply).__name__}"))
    return [ProduceResult(share.topic, share.partition, reply) for share in shares]
