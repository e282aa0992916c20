"""Looking after groups: who is in them, how far they are, and where they are to go on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from minilog.errors import (
    FatalError,
    GroupChanged,
    InvalidGroup,
    InvalidRequest,
    MinilogError,
    UnknownGroup,
    UnknownPartition,
)
from minilog.wire.batch import split
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupInfo,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
    OffsetCommit,
)
from minilog.wire.http import topic_name
from minilog.wire.json.json_answers import GroupDescription
from minilog.wire.messages import AddPartitions, Fetch, FetchPartition, FetchReply, Ok, TopicInfo
from minilog_client.admin.admin import TIMEOUT_MS, Admin
from minilog_client.connection.backoff import Attempts, History, wait_s
from minilog_client.connection.cluster import now_ms
from minilog_client.connection.http_messages import Reply
from minilog_client.consumer.fetched import BATCH_BYTES_MAX
from minilog_client.consumer.records import decode
from minilog_client.consumer.start import StartLike, parse_start
from minilog_client.consumer.topics import parse_topics
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.membership import by_topic
from minilog_client.values import PartitionKey

_LOOK_AGAIN_MS: Final = 50
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

Target = StartLike
_OfOneGroup = CommitOffsets | CommittedOffsets | DescribeGroup | DeleteGroup
_TARGET_CHARS_MAX = 100
_RELATIVE = re.compile(r"[+-][0-9]+")


class GroupLag(msgspec.Struct, frozen=True):
    """How far a group is behind in one partition. ``offset``: what it has committed, None for
    nothing yet.

    ``records`` counts from there to ``end_offset`` what can be read still, and ``lost`` apart from
    that the offsets that retention took before they were read. ``seconds`` is the age of the first
    record that is not committed. None where that is not known: nothing is committed."""

    topic: str
    partition: int
    offset: int | None
    end_offset: int
    records: int | None
    seconds: float | None
    member_id: str = ""
    lost: int | None = None


class GroupList(list[GroupInfo]):
    """Groups. ``missing``: the partitions of the groups' topic for which nobody answered, and why.
    Their groups are not in the list. Empty: these are all."""

    def __init__(self, groups: Iterable[GroupInfo] = (), missing: Iterable[MissingGroups] = ()) -> None:
        super().__init__(groups)
        self.missing = list(missing)


class OffsetChange(msgspec.Struct, frozen=True):
    """One partition's committed offset before and after; None for nothing."""

    topic: str
    partition: int
    before: int | None
    after: int


def group_name(group: str) -> str:
    """Checked; raises InvalidGroup."""
    if not isinstance(group, str) or not _NAME.fullmatch(group):
        raise InvalidGroup(f"group is {group!r}; allowed is a name of 1 to 249 of the characters A-Z a-z 0-9 . _ -")
    return group


class GroupAdmin(Admin):
    """The part of a client that looks after groups.

    ```python
    print(await client.alter_group_offsets("billing", "orders", "earliest", dry_run=True))
    await client.alter_group_offsets("billing", "orders", "earliest")
    await client.alter_group_offsets("billing", "orders", "+10")
    print(await client.group_offsets("billing"))    # {("orders", 0): 10}
    for lag in await client.group_lag("billing"):
        print(lag.topic, lag.partition, lag.records, lag.seconds)
    print([info.group for info in await client.groups()])
    await client.delete_group("billing")
    ```

    Every call raises TimedOut or BrokerUnavailable after ``timeout_ms`` at the latest, and
    InvalidGroup."""

    async def groups(self, timeout_ms: int = TIMEOUT_MS) -> GroupList:
        """All groups of the cluster; look at ``missing`` before you take the list for complete."""
        reply = await self._ask_any(ListGroups(), ListGroupsReply, now_ms() + timeout_ms)
        return GroupList(reply.groups, reply.missing)

    async def describe_group(self, group: str, timeout_ms: int = TIMEOUT_MS) -> GroupDescription:
        """Raises UnknownGroup."""
        reply = await self._ask_group(DescribeGroup(group_name(group)), DescribeGroupReply, timeout_ms)
        return GroupDescription(
            reply.group, reply.members, reply.coordinator, reply.rebalances, reply.last_rebalance_ms
        )

    async def delete_group(
        self, group: str, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        """Forget a group without members, or only what it has committed for ``partitions``.

        What is deleted is the group as it is when this is called. Raises UnknownGroup,
        GroupNotEmpty, GroupChanged. The latter two are not definite when the request had to be sent
        twice and the group was used before it could be looked at."""
        deadline_ms = now_ms() + timeout_ms
        keys = None if partitions is None else list(partitions)
        epoch = (await self.describe_group(group, timeout_ms)).group.group_epoch
        message = DeleteGroup(group, None if keys is None else by_topic(keys), epoch)
        try:
            reply = await self._ask_group(message, DeleteGroupReply, max(1, deadline_ms - now_ms()))
        except FatalError as error:
            if error.definite or not await self._is_deleted(group, keys, max(1, deadline_ms - now_ms())):
                raise
            return
        if reply.problem is not None:
            raise reply.problem.error()

    async def _is_deleted(self, group: str, keys: list[PartitionKey] | None, timeout_ms: int) -> bool:
        """What an earlier try was to do, whose answer was lost, is done."""
        if keys is None:
            return not await self._epoch(group, timeout_ms)
        found = await self._committed(group, keys, timeout_ms)
        return all(entry.offset is None for entry in found.values())

    async def group_offsets(self, group: str, timeout_ms: int = TIMEOUT_MS) -> dict[PartitionKey, int]:
        """Everything the group has committed: the next offset to read, by (topic, partition)."""
        found = await self._committed(group, None, timeout_ms)
        return {key: entry.offset for key, entry in found.items() if entry.offset is not None}

    async def alter_group_offsets(
        self,
        group: str,
        topics: str | Iterable[str | PartitionKey],
        to: Target,
        *,
        dry_run: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> list[OffsetChange]:
        """Let a group without members go on elsewhere, in whole topics or single partitions:
        "earliest", "latest", "@" with ms since the epoch or a datetime, an offset or "=42", or
        "+10" and "-10" from where it is.

        The new offsets lie within what the log has. All are committed, or none. With ``dry_run``
        they are computed and returned, and that is all. Raises GroupNotEmpty, UnknownTopic,
        UnknownPartition, InvalidRequest, and GroupChanged when the group was used or altered by
        somebody else meanwhile."""
        group_name(group)
        shift = _parse_target(to)
        deadline_ms = now_ms() + timeout_ms
        topic_ids = await self._partitions(topics)
        keys = sorted(topic_ids)
        epoch = await self._epoch(group, timeout_ms)
        committed = await self._committed(group, keys, timeout_ms)
        changes = [
            OffsetChange(*key, committed[key].offset, await self._target(key, committed[key], shift, deadline_ms))
            for key in keys
        ]
        if not dry_run:
            await self._alter(group, epoch, changes, topic_ids, deadline_ms)
        return changes

    async def _alter(
        self,
        group: str,
        epoch: int,
        changes: list[OffsetChange],
        topic_ids: Mapping[PartitionKey, str],
        deadline_ms: int,
    ) -> None:
        """Commit in the name of no member what was worked out for the group as it was in ``epoch``,
        and for the topics there were."""
        offsets = [
            OffsetCommit(
                change.topic, change.partition, change.after, topic_id=topic_ids[change.topic, change.partition]
            )
            for change in changes
        ]
        message = CommitOffsets(group, offsets, member_epoch=epoch)
        try:
            await self._ask_group(message, CommitOffsetsReply, max(1, deadline_ms - now_ms()))
        except GroupChanged:  # perhaps by this very request, whose first answer was lost
            keys = [(change.topic, change.partition) for change in changes]
            found = await self._committed(group, keys, max(1, deadline_ms - now_ms()))
            if any(found[change.topic, change.partition].offset != change.after for change in changes):
                raise

    async def _epoch(self, group: str, timeout_ms: int) -> int:
        """The group's; 0: there is no group."""
        try:
            return (await self.describe_group(group, timeout_ms)).group.group_epoch
        except UnknownGroup:
            return 0

    async def group_lag(self, group: str, timeout_ms: int = TIMEOUT_MS) -> list[GroupLag]:
        """Every partition that the group has committed or a member of it has; raises
        UnknownGroup."""
        deadline_ms = now_ms() + timeout_ms
        described = await self.describe_group(group, timeout_ms)
        owners = {
            (entry.topic, partition): member.member_id
            for member in described.members
            for entry in member.assignment
            for partition in entry.partitions
        }
        committed = await self._committed(group, None, max(1, deadline_ms - now_ms()))
        keys = sorted({*committed, *owners})
        lags = (self._lag(key, committed.get(key), owners.get(key, ""), deadline_ms) for key in keys)
        return list(await asyncio.gather(*lags))

    async def add_partitions(self, topic: str, total: int, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        """Let ``topic`` have ``total`` partitions, more than now; returns when they have leaders.

        Keyed records go elsewhere from then on. Raises UnknownTopic, InvalidReplication,
        InvalidRequest. The latter is not definite when the request had to be sent twice, and
        somebody else has added partitions as well."""
        if isinstance(total, bool) or not isinstance(total, int) or total < 1:
            raise InvalidRequest(f"total is {total!r}; allowed is how many partitions the topic shall have, at least 1")
        deadline_ms = now_ms() + timeout_ms
        topic_id = (await self.describe_topic(topic, timeout_ms)).topic_id
        try:
            await self._ask_any(AddPartitions(topic_name(topic), total, topic_id), Ok, deadline_ms)
        except InvalidRequest as error:
            if error.definite or not await self._has_partitions(topic, topic_id, total, deadline_ms):
                raise
        else:
            await self._has_partitions(topic, topic_id, total, deadline_ms)
        info = await self.describe_topic(topic, max(1, deadline_ms - now_ms()))
        await self._wait_leaders(info, deadline_ms)
        return info

    async def _has_partitions(self, topic: str, topic_id: str, total: int, deadline_ms: int) -> bool:
        """Whether the very topic has ``total`` partitions. Whoever answers may hear of that a
        little later."""
        until_ms = min(deadline_ms, now_ms() + self._cluster.settings.topic_wait_ms)
        while True:
            info = await self.describe_topic(topic, max(1, deadline_ms - now_ms()))
            if info.topic_id != topic_id or len(info.partitions) >= total or now_ms() >= until_ms:
                return info.topic_id == topic_id and len(info.partitions) == total
            await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    async def _ask_any(self, message: AddPartitions | ListGroups, kind: type[Reply], deadline_ms: int) -> Reply:
        """Any broker's answer to something that may be carried out twice."""
        attempts, history = Attempts(), History()
        while True:
            try:
                return await self._cluster.ask_any(message, kind)
            except MinilogError as error:
                history.on_failure(error)
                failure = history.told(error)
            if not failure.retriable or now_ms() >= deadline_ms:
                raise failure.with_traceback(None)
            attempts.on_failure(failure, now_ms(), self._cluster.random)
            await asyncio.sleep(wait_s(attempts.retry_at_ms, now_ms(), deadline_ms))

    async def _ask_group(self, message: _OfOneGroup, kind: type[Reply], timeout_ms: int) -> Reply:
        return await Coordinator(self._cluster, message.group).call(message, kind, timeout_ms)

    async def _committed(
        self, group: str, keys: Iterable[PartitionKey] | None, timeout_ms: int
    ) -> dict[PartitionKey, CommittedOffset]:
        wanted = None if keys is None else by_topic(keys)
        message = CommittedOffsets(group_name(group), wanted)
        reply = await self._ask_group(message, CommittedOffsetsReply, timeout_ms)
        found = {(entry.topic, entry.partition): entry for entry in reply.offsets}
        return found if keys is None else {key: found.get(key, CommittedOffset(*key)) for key in keys}

    async def _partitions(self, topics: str | Iterable[str | PartitionKey]) -> dict[PartitionKey, str]:
        """The partitions meant by ``topics`` as these are now, and the ids of their topics.

        Raises UnknownTopic, UnknownPartition."""
        found: dict[PartitionKey, str] = {}
        whole, fixed = parse_topics(topics)
        for topic in {*whole, *(topic for topic, _ in fixed)}:
            await self._cluster.refresh(topic)
            known = await self._cluster.topic(topic)
            numbers = range(known.partition_count) if topic in whole else ()
            for partition in (*numbers, *(number for name, number in fixed if name == topic)):
                if not 0 <= partition < known.partition_count:
                    raise UnknownPartition(
                        f"topic {topic} has no partition {partition}; it has {known.partition_count}, counted from 0"
                    )
                found[topic, partition] = known.topic_id
        return found

    async def _target(
        self, key: PartitionKey, committed: CommittedOffset, to: _Shift | StartLike, deadline_ms: int
    ) -> int:
        """Where ``to`` is in this partition, within what can be read."""
        first, end = await self.offsets(*key, max(1, deadline_ms - now_ms()))
        if isinstance(to, _Shift):
            if committed.offset is None:
                raise InvalidRequest(f"{to.by:+} needs a committed offset to start from; {key[0]}-{key[1]} has none")
            wanted = committed.offset + to.by
        else:
            wanted = await self.offset_at(*key, to, max(1, deadline_ms - now_ms()))
        return min(max(wanted, first), end)

    async def _lag(
        self, key: PartitionKey, committed: CommittedOffset | None, member_id: str, deadline_ms: int
    ) -> GroupLag:
        first, end = await self.offsets(*key, max(1, deadline_ms - now_ms()))
        offset = None if committed is None else committed.offset
        if offset is None:
            return GroupLag(*key, None, end, None, None, member_id)
        goes_on = max(offset, first)
        records = max(0, end - goes_on)
        seconds = await self._age_s(key, goes_on, max(1, deadline_ms - now_ms())) if records else 0.0
        return GroupLag(*key, offset, end, records, seconds, member_id, goes_on - offset)

    async def _age_s(self, key: PartitionKey, offset: int, timeout_ms: int) -> float | None:
        """How old the record at ``offset`` is; None when it cannot be read."""
        leader = self._cluster.routing.leader(*key)
        if leader is None:
            return None
        message = Fetch([FetchPartition(*key, offset, 1)])
        try:
            reply = await self._cluster.call(leader.url, message, FetchReply, timeout_ms)
            result = reply.partitions[0]
            if result.problem is not None or not len(result.batches):
                return None
            records = decode(*key, split(result.batches, BATCH_BYTES_MAX, stored=True)[0], offset)
        except MinilogError:
            return None
        return max(0.0, time.time() - records[0].timestamp / 1000) if records else None


class _Shift(NamedTuple):
    by: int


def _parse_target(to: Target) -> _Shift | StartLike:
    """Raises InvalidRequest."""
    if isinstance(to, str) and len(to) > _TARGET_CHARS_MAX:
        raise InvalidRequest(f"where to go has {len(to)} characters; allowed are {_TARGET_CHARS_MAX}")
    if isinstance(to, str) and _RELATIVE.fullmatch(to):
        return _Shift(int(to))
    if isinstance(to, str) and to[:1] == "=" and to[1:].isascii() and to[1:].isdigit():
        return int(to[1:])
    try:
        parse_start(to)
    except InvalidRequest as error:
        raise InvalidRequest(f'{error.detail}; and also "+10", "-10" or "=42"') from None
    return to
