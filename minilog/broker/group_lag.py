"""How far a group is behind: its committed offsets beside the high watermarks, which only the leaders know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from minilog.broker.ports import Runtime
from minilog.wire.group_messages import CommittedOffset
from minilog.wire.messages import LATEST, Message, Offsets, OffsetsPartition, OffsetsReply, OffsetsResult


class PartitionLag(NamedTuple):
    """``records`` and ``seconds`` (the age of the first record not committed) are None while the leader is silent.

    ``seconds`` is exact to a record batch, and 0 when nothing is left to read."""

    topic: str
    partition: int
    committed: int
    high_watermark: int | None
    records: int | None
    seconds: float | None


async def measure(
    runtime: Runtime, committed: Sequence[CommittedOffset], patience_ms: int | None = None
) -> list[PartitionLag]:
    """The lag of every partition with a committed offset; asks each leader once, for peer_timeout_ms by default."""
    patience_ms = patience_ms or runtime.settings.peer_timeout_ms
    asked: dict[int, list[CommittedOffset]] = {}
    for entry in committed:
        state = runtime.image.partition(entry.topic, entry.partition)
        if entry.offset is not None and state is not None:
            asked.setdefault(state.leader, []).append(entry)
    most = runtime.settings.limits.partitions_max
    questions = [(leader, some) for leader, entries in asked.items() for some in _pieces(entries, most)]
    answers = await asyncio.gather(*(_ask(runtime, *question, patience_ms) for question in questions))
    lags = [lag for of_leader in answers for lag in of_leader]
    return sorted(lags)


def _pieces(entries: list[CommittedOffset], most: int) -> list[list[CommittedOffset]]:
    return [entries[start : start + most] for start in range(0, len(entries), most)]


async def _ask(runtime: Runtime, leader: int, entries: list[CommittedOffset], patience_ms: int) -> list[PartitionLag]:
    request = Offsets([OffsetsPartition(e.topic, e.partition, LATEST, e.offset, e.topic_id) for e in entries])
    broker = runtime.image.brokers.get(leader)
    reply: Message | None = None
    if leader == runtime.settings.broker_id:
        reply = await runtime.submit(request)
    elif broker is not None:
        reply = await runtime.call(broker.url, request, patience_ms)
    if not isinstance(reply, OffsetsReply) or len(reply.partitions) != len(entries):
        return [_unknown(entry) for entry in entries]
    now_ms = runtime.clock.wall_ms()
    return [_lag(entry, result, now_ms) for entry, result in zip(entries, reply.partitions, strict=True)]


def _lag(entry: CommittedOffset, result: OffsetsResult, now_ms: int) -> PartitionLag:
    if result.problem is not None or result.offset is None:
        return _unknown(entry)
    assert entry.offset is not None, "only what is committed is asked about"
    seconds = 0.0 if result.timestamp is None else max(0, now_ms - result.timestamp) / 1000
    records = max(0, result.offset - entry.offset)
    return PartitionLag(entry.topic, entry.partition, entry.offset, result.offset, records, seconds)


def _unknown(entry: CommittedOffset) -> PartitionLag:
    assert entry.offset is not None, "only what is committed is asked about"
    return PartitionLag(entry.topic, entry.partition, entry.offset, None, None, None)
