"""One consumer group on its coordinator: its value, its offsets, and what is soft: sessions and the
last rebalance."""

from __future__ import annotations

from minilog.core.groups.assignment import TopicPart
from minilog.core.groups.membership import EMPTY, is_settled, owners_of
from minilog.wire.group_messages import GroupInfo, GroupMember, TopicPartitions
from minilog.wire.journal.group_records import GroupValue, MemberValue, OffsetValue

NEVER_MS = -(2**60)
UNTOLD = -1
UNCHECKED = -1


class MemberSession:
    """What the coordinator of the moment knows of a member. ``named_epoch``: the last one the
    member named itself. ``told_epoch``: the last one it was told here. ``forgiven_ms``: what this
    broker's own pauses have added to its deadlines since it was heard. ``return_ms``: when it must
    have given back what it was told to. ``knocked_ms``: when another process last asked for its
    instance. ``watched_ms``: when it is looked at next."""

    __slots__ = (
        "deadline_ms",
        "forgiven_ms",
        "heard_ms",
        "is_expelled",
        "knocked_ms",
        "named_epoch",
        "owned",
        "return_ms",
        "told_epoch",
        "watched_ms",
    )

    def __init__(self, now_ms: int, joined_epoch: int) -> None:
        self.deadline_ms = now_ms
        self.forgiven_ms = 0
        self.heard_ms = now_ms
        self.named_epoch = joined_epoch
        self.told_epoch = UNTOLD
        self.owned: set[TopicPart] = set()
        self.return_ms: int | None = None
        self.knocked_ms = NEVER_MS
        self.watched_ms: int | None = None
        self.is_expelled = False

    @property
    def due_ms(self) -> int:
        return self.deadline_ms if self.return_ms is None else min(self.deadline_ms, self.return_ms)


class GroupState:
    def __init__(self) -> None:
        self.group: GroupValue = EMPTY
        self.is_known = False
        """There is a record of the group itself, not only of offsets."""
        self.offsets: dict[TopicPart, OffsetValue] = {}
        self.sessions: dict[str, MemberSession] = {}
        self.checked_version = UNCHECKED
        """The version of the topics its targets are known to fit."""
        self.rebalances = 0
        self.last_rebalance_ms: int | None = None
        self.watched_ms: int | None = None
        """How long this coordinator has watched the group unused, beyond what is written; None:
        from the next look on."""
        self._began_ms: int | None = None
        self._seen_epoch = 0
        self._owners: dict[TopicPart, str] | None = None
        self._is_settled: bool | None = None

    def take(self, value: GroupValue | None) -> None:
        self.group = EMPTY if value is None else value
        self.is_known = value is not None
        self.watched_ms = 0 if self.group.unused_ms else None
        self._owners = self._is_settled = None
        for member_id in [m for m in self.sessions if m not in self.group.members]:
            del self.sessions[member_id]

    @property
    def is_gone(self) -> bool:
        return not self.is_known and not self.offsets

    @property
    def owners(self) -> dict[TopicPart, str]:
        if self._owners is None:
            self._owners = owners_of(self.group)
        return self._owners

    @property
    def is_settled(self) -> bool:
        if self._is_settled is None:
            self._is_settled = is_settled(self.group)
        return self._is_settled

    @property
    def state(self) -> str:
        if not self.group.members:
            return "empty"
        return "stable" if self.is_settled and not self._untold() else "rebalancing"

    def is_expelled(self, member_id: str) -> bool:
        session = self.sessions.get(member_id)
        return session is not None and session.is_expelled

    def watch_rebalance(self, now_ms: int) -> None:
        """A rebalance begins with a new epoch and ends when every member has been told it and has
        what it is to own."""
        if self.group.epoch != self._seen_epoch:
            self._seen_epoch = self.group.epoch
            self._began_ms = now_ms if self._began_ms is None else self._began_ms
        if self._began_ms is not None and self.state != "rebalancing":
            self.rebalances += 1
            self.last_rebalance_ms = now_ms - self._began_ms
            self._began_ms = None

    def _untold(self) -> bool:
        for member_id, member in self.group.members.items():
            session = self.sessions.get(member_id)
            if not member.away and (session is None or session.told_epoch != self.group.epoch):
                return True
        return False


def group_info(name: str, state: GroupState) -> GroupInfo:
    group = state.group
    return GroupInfo(name, state.state, group.epoch, len(group.members), group.assignor, state.rebalances)


def group_member(member_id: str, member: MemberValue, session: MemberSession | None, now_ms: int) -> GroupMember:
    owned: dict[str, list[int]] = {}
    for topic, partition in sorted(session.owned) if session is not None else ():
        owned.setdefault(topic, []).append(partition)
    return GroupMember(
        member_id,
        member.joined_epoch if session is None else max(session.told_epoch, session.named_epoch),
        member.client_id,
        member.instance_id,
        member.topics,
        member.pattern,
        [TopicPartitions(*item) for item in owned.items()],
        [TopicPartitions(*item) for item in member.target.items()],
        0 if session is None else now_ms - session.heard_ms,
    )
