"""What the group commands ask a cluster: groups, members, lag and commits, in JSON.

Any broker takes these and passes them on to the group's coordinator; the answers are those of ``broker/group_routes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from minilog.cli.api import Api
from minilog.wire.group_messages import GroupInfo, GroupMember, MissingGroups
from minilog_client.values import PartitionKey

ASKED_AT_ONCE_MAX = 8
T = TypeVar("T")
R = TypeVar("R")


class Described(msgspec.Struct):
    """``rebalances`` and ``last_rebalance_ms`` (how long it took) count since ``coordinator`` coordinates the group."""

    group: GroupInfo
    members: list[GroupMember]
    coordinator: int
    rebalances: int = 0
    last_rebalance_ms: int | None = None


class PartitionLag(msgspec.Struct):
    """None where the partition's leader did not answer, and for ``committed`` where nothing is."""

    topic: str
    partition: int
    committed: int | None
    high_watermark: int | None
    lag: int | None
    lag_seconds: float | None


class Lag(msgspec.Struct):
    """Of every partition the group has committed; the sums are None while one of them is not known."""

    lag: int | None
    lag_seconds: float | None
    partitions: list[PartitionLag]


class Groups(msgspec.Struct):
    """``missing``: partitions of the groups' topic for which nobody answered; their groups are not listed."""

    groups: list[GroupInfo]
    missing: list[MissingGroups] = []


class _Committed(msgspec.Struct):
    topic: str
    partition: int
    offset: int | None


class _AllCommitted(msgspec.Struct):
    offsets: list[_Committed]


class _Found(msgspec.Struct):
    offset: int


class GroupApi(Api):
    def groups(self) -> Groups:
        found = self.get("list_groups", Groups)
        return Groups(sorted(found.groups, key=lambda info: info.group), sorted(found.missing))

    def describe(self, group: str) -> Described:
        """Raises UnknownGroup."""
        return self.get("describe_group", Described, group=group)

    def lag(self, group: str) -> Lag:
        return self.get("group_lag", Lag, group=group)

    def committed(self, group: str) -> dict[PartitionKey, int]:
        """The next offset to read, by partition; empty for a group that does not exist."""
        entries = self.get("committed_offsets", _AllCommitted, group=group).offsets
        return {(entry.topic, entry.partition): entry.offset for entry in entries if entry.offset is not None}

    def commit(self, group: str, offsets: Mapping[PartitionKey, int], epoch: int) -> None:
        """All or nothing, in the name of no member. ``epoch``: the group's when it was looked at, 0: there was none.
        Raises GroupNotEmpty, GroupChanged."""
        entries = [{"topic": key[0], "partition": key[1], "offset": offset} for key, offset in offsets.items()]
        self.change("commit_offsets", body={"offsets": entries, "member_epoch": epoch}, group=group)

    def delete_group(self, group: str, epoch: int) -> None:
        """The group as it was when it was looked at. Raises UnknownGroup, GroupNotEmpty, GroupChanged."""
        self.change("delete_group", query={"group_epoch": str(epoch)}, group=group)

    def offset_at(self, key: PartitionKey, at: str) -> int:
        """``at``: earliest, latest, or ms since the epoch (the first record at or after it, else the end)."""
        return self.get("offsets", _Found, {"at": at}, topic=key[0], partition=key[1]).offset


def ask_each(ask: Callable[[T], R], about: Iterable[T]) -> list[R]:
    """The answers in order, several questions under way at a time; raises the first error."""
    things = list(about)
    if len(things) < 2:
        return [ask(thing) for thing in things]
    with ThreadPoolExecutor(min(len(things), ASKED_AT_ONCE_MAX)) as pool:
        return list(pool.map(ask, things))
