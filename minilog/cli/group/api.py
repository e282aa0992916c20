"""What the group commands ask a cluster: groups, members, lag and commits, in JSON.

Any broker takes these and passes them on to the group's coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from minilog.cli.api import Api
from minilog.wire.json.json_answers import GroupDescription, GroupsFound, OffsetFound, OffsetsFound
from minilog.wire.json.lag_answers import LagOfGroup

if TYPE_CHECKING:
    from minilog_client.values import PartitionKey

ASKED_AT_ONCE_MAX = 8
T = TypeVar("T")
R = TypeVar("R")


class GroupApi(Api):
    def groups(self) -> GroupsFound:
        found = self.get("list_groups", GroupsFound)
        return GroupsFound(sorted(found.groups, key=lambda info: info.group), sorted(found.missing))

    def describe(self, group: str) -> GroupDescription:
        """Raises UnknownGroup."""
        return self.get("describe_group", GroupDescription, group=group)

    def lag(self, group: str) -> LagOfGroup:
        return self.get("group_lag", LagOfGroup, group=group)

    def committed(self, group: str) -> dict[PartitionKey, int]:
        """The next offset to read, by partition; empty for a group that does not exist."""
        entries = self.get("committed_offsets", OffsetsFound, group=group).offsets
        return {(entry.topic, entry.partition): entry.offset for entry in entries if entry.offset is not None}

    def commit(self, group: str, offsets: Mapping[PartitionKey, int], epoch: int) -> None:
        """All or nothing, in the name of no member. ``epoch``: the group's when it was looked at,
        0: there was none. Raises GroupNotEmpty, GroupChanged."""
        entries = [{"topic": key[0], "partition": key[1], "offset": offset} for key, offset in offsets.items()]
        self.change("commit_offsets", body={"offsets": entries, "member_epoch": epoch}, group=group)

    def delete_group(self, group: str, epoch: int) -> None:
        """The group as it was when it was looked at. Raises UnknownGroup, GroupNotEmpty,
        GroupChanged."""
        self.change("delete_group", query={"group_epoch": str(epoch)}, group=group)

    def offset_at(self, key: PartitionKey, at: str) -> int:
        """``at``: earliest, latest, or ms since the epoch (the first record at or after it, else
        the end)."""
        return self.get("offsets", OffsetFound, {"at": at}, topic=key[0], partition=key[1]).offset


def ask_each(ask: Callable[[T], R], about: Iterable[T]) -> list[R]:
    """The answers in order, several questions under way at a time; raises the first error."""
    things = list(about)
    if len(things) < 2:
        return [ask(thing) for thing in things]
    with ThreadPoolExecutor(min(len(things), ASKED_AT_ONCE_MAX)) as pool:
        return list(pool.map(ask, things))
