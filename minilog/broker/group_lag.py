"""How far a group is behind: its committed offsets beside the high watermarks, which only the
leaders know.

A partition that a member has and of which nothing is committed counts as well. How far it is behind
is not known, because only the member knows where it has begun. 0 would say that it is not.

What retention took before the group has read it is lost, and does not lie ahead of the group any
more: it is counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.broker.ports import Runtime
from minilog.wire.group_messages import CommittedOffset, GroupMember
from minilog.wire.json.lag_answers import PartitionLag
from minilog.wire.messages import LATEST, Message, Offsets, OffsetsPartition, OffsetsReply, OffsetsResult

QUESTION_MAX: Final = 1000
"""Partitions that a leader is asked about at a time: it answers in one turn."""


class Measured(NamedTuple):
    """``log_start``: of the partition, None where its leader does not tell."""

    lag: PartitionLag
    log_start: int | None = None


class _Entry(NamedTuple):
    """What one of the groups has committed."""

    group: int
    committed: CommittedOffset


def with_assigned(committed: Sequence[CommittedOffset], members: Sequence[GroupMember]) -> list[CommittedOffset]:
    """And what members own, or are to own, without a committed offset."""
    entries = [entry for member in members for entry in (*member.owned, *member.assignment)]
    assigned = {(entry.topic, partition) for entry in entries for partition in entry.partitions}
    known = {(entry.topic, entry.partition) for entry in committed}
    return [*committed, *(CommittedOffset(*part) for part in sorted(assigned - known))]


async def measure(
    runtime: Runtime, committed: Sequence[CommittedOffset], patience_ms: int | None = None
) -> list[PartitionLag]:
    """The lag of every partition that there is. Asks each leader for peer_timeout_ms by default."""
    (measured,) = await measure_each(runtime, [committed], patience_ms)
    return [each.lag for each in measured]


async def measure_each(
    runtime: Runtime, groups: Sequence[Sequence[CommittedOffset]], patience_ms: int | None = None
) -> list[list[Measured]]:
    """As ``measure``, for each of some groups: what a leader is asked goes by its partitions,
    however many groups they are of."""
    patience_ms = patience_ms or runtime.settings.peer_timeout_ms
    asked: dict[int, list[_Entry]] = {}
    for group, committed in enumerate(groups):
        for entry in committed:
            state = runtime.image.partition(entry.topic, entry.partition)
            if state is not None:
                asked.setdefault(state.leader, []).append(_Entry(group, entry))
    most = min(runtime.settings.limits.partitions_max, QUESTION_MAX)
    questions = [(leader, some) for leader, entries in asked.items() for some in _pieces(entries, most)]
    calls = (_ask(runtime, leader, [entry for _, entry in some], patience_ms) for leader, some in questions)
    found: list[list[Measured]] = [[] for _ in groups]
    for (_, some), answer in zip(questions, await asyncio.gather(*calls), strict=True):
        for (group, _), measured in zip(some, answer, strict=True):
            found[group].append(measured)
    return [sorted(of_group, key=lambda each: (each.lag.topic, each.lag.partition)) for of_group in found]


def _pieces(entries: list[_Entry], most: int) -> list[list[_Entry]]:
    return [entries[start : start + most] for start in range(0, len(entries), most)]


async def _ask(runtime: Runtime, leader: int, entries: list[CommittedOffset], patience_ms: int) -> list[Measured]:
    request = Offsets([OffsetsPartition(e.topic, e.partition, LATEST, e.offset, e.topic_id) for e in entries])
    broker = runtime.image.brokers.get(leader)
    reply: Message | None = None
    if leader == runtime.settings.broker_id:
        reply = await runtime.submit(request)
    elif broker is not None:
        reply = await runtime.call(broker.url, request, patience_ms)
    if not isinstance(reply, OffsetsReply) or len(reply.partitions) != len(entries):
        return [Measured(_unknown(entry)) for entry in entries]
    now_ms = runtime.clock.wall_ms()
    return [
        Measured(_lag(entry, result, now_ms), result.log_start_offset)
        for entry, result in zip(entries, reply.partitions, strict=True)
    ]


def _lag(entry: CommittedOffset, result: OffsetsResult, now_ms: int) -> PartitionLag:
    if result.problem is not None or result.offset is None:
        return _unknown(entry)
    if entry.offset is None:
        lag, lag_seconds = (0, 0.0) if result.offset == 0 else (None, None)  # of none there is nothing to read
        return PartitionLag(entry.topic, entry.partition, None, result.offset, lag, lag_seconds)
    seconds = 0.0 if result.timestamp is None else max(0, now_ms - result.timestamp) / 1000
    goes_on = max(entry.offset, result.log_start_offset or 0)
    records = max(0, result.offset - goes_on)
    lost = None if result.log_start_offset is None else goes_on - entry.offset
    return PartitionLag(entry.topic, entry.partition, entry.offset, result.offset, records, seconds, lost)


def _unknown(entry: CommittedOffset) -> PartitionLag:
    return PartitionLag(entry.topic, entry.partition, entry.offset, None, None, None)
