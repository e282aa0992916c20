"""Groups: the consumer groups of one partition of ``__groups``: decide, write down, replay.

``decide`` and ``tick`` decide on the state as it is. Nothing durable changes until the coordinator
has appended the records of a decision and says that it is ``applied``: then they are replayed,
which is also how a new coordinator learns everything. The caller shows the reply to nobody before
all that was decided until then is committed.

Owns, besides: *sessions*, soft state that a new coordinator begins afresh: when each member was
heard, what it said it owns, which epochs it has named and been told (sessions.py). Heartbeats that
change nothing write nothing.

Invariants
* A partition is held by one member at most (membership.py), and what is shown to members is what is
  held.
* ``member_epoch`` in a request: at most the group's, at least the last one this member has named
  itself (so any number of lost answers is forgiven, a late copy or an older life of the member is
  not).
* A commit counts only for partitions that its member holds (group_offsets.py).
* A copy of a request that arrives after a newer one was decided changes nothing, if it names what
  it is about: the number of the commit, the epoch of the member that leaves, the epoch of the group
  that is deleted or moved.
* What a fenced member held is free when its session is over by its own clock too, not before.
* Static members (KIP-345): leaving sends them *away*; target and partitions wait until the session
  is over. A new id with the same instance takes the place of one that is away. While the old one is
  in session it is refused with InstanceInUse. If it still asks when that session ends, the place is
  kept for it instead of being given up.

Why records of whole groups: one append is one decision, so no failover finds half of one. Source:
KIP-848, KIP-345, KIP-211.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from minilog.config import BrokerSettings
from minilog.core.groups.ages import Ages
from minilog.core.groups.backlog import Backlog
from minilog.core.groups.catalogue import Catalogue
from minilog.core.groups.checks import (
    check_commit,
    check_heartbeat,
    check_member,
    check_name,
    check_owned,
    check_seen,
)
from minilog.core.groups.joining import join, subscribe
from minilog.core.groups.membership import GroupDraft, Topics, listed_parts, revoked
from minilog.core.groups.offsets import Records, commit, committed, farewell, forget, next_epoch, outlived
from minilog.core.groups.sessions import GROUPS_PER_TICK_MAX, MemberOut, Sessions
from minilog.core.groups.state import UNCHECKED, GroupState, group_info, group_member
from minilog.errors import GroupNotEmpty, Overloaded, UnknownGroup, UnknownMember
from minilog.wire.group_messages import (
    JOIN,
    UNSAID,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    GroupInfo,
    LeaveGroup,
    TopicPartitions,
)
from minilog.wire.journal.group_records import (
    GroupKey,
    GroupRecord,
    GroupValue,
    OffsetKey,
    OffsetValue,
)
from minilog.wire.message_base import Message, Ok

SOON_MS = 100
"""When a member that waits for partitions is to ask again."""
KNOCK_MS = 10_000
"""How long a refused successor of a static member counts as still asking."""
RETRY_MS = 500
OneGroupRequest = GroupHeartbeat | LeaveGroup | CommitOffsets | CommittedOffsets | DescribeGroup | DeleteGroup


class GroupDecision(NamedTuple):
    """What is to be written for one group. ``request`` None: nobody has asked, time or topics
    demand it. ``out``: whom it puts out."""

    group: str
    records: Records
    reply: Message
    decided_ms: int
    request: OneGroupRequest | None = None
    is_about_members: bool = False
    out: tuple[MemberOut, ...] = ()


class Groups:
    def __init__(
        self,
        settings: BrokerSettings,
        broker_id: int,
        wall_ms: Callable[[int], int] = lambda now_ms: now_ms,
        log_end: Callable[[], int] = lambda: 0,
    ) -> None:
        """``wall_ms`` makes of the time of a turn what is written down for people: when something
        was committed. ``log_end``: where the next record goes. The epochs of a new group begin
        there."""
        self.settings = settings
        self.broker_id = broker_id
        self.wall_ms = wall_ms
        self.log_end = log_end
        self.groups: dict[str, GroupState] = {}
        self.topics: Topics = {}
        self._version = 0
        self._catalogue = Catalogue()
        self._sessions = Sessions()
        self._ages = Ages(settings.group_offsets_retention_ms)
        self._backlog = Backlog()

    # --- replay -----------------------------------------------------------------------------------

    def replay(self, record: GroupRecord) -> None:
        key, value = record
        state = self.groups.get(key.group)
        if state is None:
            if value is None:
                return
            state = self.groups[key.group] = GroupState()
        if isinstance(key, OffsetKey):
            part = (key.topic, key.partition)
            if value is None:
                state.offsets.pop(part, None)
            else:
                assert isinstance(value, OffsetValue)
                state.offsets[part] = value
                state.watched_ms = None
        else:
            assert value is None or isinstance(value, GroupValue)
            state.take(value)
        if state.is_gone:
            del self.groups[key.group]

    def begin(self, now_ms: int, grace_ms: int) -> None:
        """Replayed to the end: from now on this is the coordinator. Every member gets a fresh
        session, and ``grace_ms`` more, for as long may another broker still have taken itself for
        the coordinator."""
        self._ages.begin(self.groups, now_ms)
        self._sessions.begin(self.groups, now_ms, grace_ms)

    # --- topics -----------------------------------------------------------------------------------

    def on_topics(self, topics: Topics) -> None:
        """The topics there are now, without internal ones."""
        if topics is not self.topics and topics != self.topics:  # comparing takes as long as there are topics
            self.topics = topics
            self._catalogue.on_topics(topics.keys())
            self._version += 1
            self._backlog.fill(n for n, state in self.groups.items() if state.group.members or state.offsets)

    def _draft(self, state: GroupState) -> GroupDraft:
        return GroupDraft(self._value(state), self.topics, self._catalogue.fitting)

    def _value(self, state: GroupState) -> GroupValue:
        """As it is. Each epoch takes a record at least, so one that begins where the log ends is
        greater than all that a group of this name, deleted meanwhile, ever had."""
        return state.group if state.is_known else replace(state.group, epoch=self.log_end())

    def _settle(self, draft: GroupDraft, state: GroupState) -> None:
        if draft.is_due or state.checked_version != self._version:
            before = draft.epoch
            draft.settle()
            if draft.waits_for_topic:
                state.checked_version = UNCHECKED  # whoever gives back the last of the old topic settles again
            elif draft.epoch == before:
                state.checked_version = self._version

    # --- decisions --------------------------------------------------------------------------------

    def decide(self, request: OneGroupRequest, now_ms: int) -> GroupDecision:
        """Raises why it is refused."""
        records: Records = []
        match request:
            case GroupHeartbeat():
                records, reply = self._on_heartbeat(request, now_ms)
            case CommitOffsets():
                records, reply = self._on_commit(request, now_ms)
            case LeaveGroup():
                records, reply = self._on_leave(request, now_ms)
            case CommittedOffsets():
                reply = self._on_committed(request)
            case DescribeGroup():
                reply = self._on_describe(request, now_ms)
            case DeleteGroup():
                records, reply = self._on_delete(request)
        is_about_members = isinstance(request, GroupHeartbeat | LeaveGroup)
        return GroupDecision(request.group, records, reply, now_ms, request, is_about_members)

    def applied(self, decision: GroupDecision) -> None:
        """It is in the log: replay it, and remember that the member was heard and told."""
        for record in decision.records:
            self.replay(record)
        state = self.groups.get(decision.group)
        if isinstance(decision.request, GroupHeartbeat):
            assert state is not None
            self._sessions.on_heard(decision.request, state, decision.decided_ms)
        if decision.is_about_members and state is not None:
            state.watch_rebalance(decision.decided_ms)

    def on_refused(self, request: OneGroupRequest, now_ms: int) -> None:
        """The coordinator could not write, was not sure that it is one, or had too many waiting:
        who has asked was heard all the same."""
        state = self.groups.get(request.group)
        if state is not None and isinstance(request, GroupHeartbeat):
            self._sessions.on_refused(request, state, now_ms)

    # --- heartbeats -------------------------------------------------------------------------------

    def _on_heartbeat(self, request: GroupHeartbeat, now_ms: int) -> tuple[Records, Message]:
        check_heartbeat(request, self.settings)
        state = self.groups.get(request.group)
        if state is None:
            state = self._new_group(request)
        draft = self._draft(state)
        if request.member_epoch == JOIN:
            join(request, state, draft, self.settings.group_members_max, now_ms, self.wall_ms(now_ms))
        else:
            check_member(request.member_id, request.member_epoch, state)
            check_owned(request, state.group)
        return self._go_on(request, state, draft)

    def _new_group(self, request: GroupHeartbeat) -> GroupState:
        if request.member_epoch != JOIN:
            raise UnknownMember(f"there is no group {request.group!r}; join with member_epoch {JOIN}")
        self._check_room()
        return GroupState()

    def _check_room(self) -> None:
        if len(self.groups) >= self.settings.groups_max:
            raise Overloaded(f"this coordinator has {len(self.groups)} groups, the limit (groups_max); retry later")

    def _go_on(self, request: GroupHeartbeat, state: GroupState, draft: GroupDraft) -> tuple[Records, Message]:
        """Subscribe, take back, share out anew, give: in this order, and as one decision."""
        member_id, owned = request.member_id, listed_parts(request.owned)
        subscribe(request, state, draft, self._catalogue.check)
        draft.release(member_id, owned, request.member_epoch)
        self._settle(draft, state)
        draft.give(member_id, state.owners)
        return self._records(request.group, draft), self._answer(request, draft)

    def _records(self, name: str, draft: GroupDraft) -> Records:
        return [GroupRecord(GroupKey(name), draft.value())] if draft.is_changed else []

    def _answer(self, request: GroupHeartbeat, draft: GroupDraft) -> GroupHeartbeatReply:
        member = draft.members[request.member_id]
        assignment = []
        held_count = 0
        for topic, of_topic in member.held.items():
            held = [partition for partition, given in of_topic.items() if not given.revoked]
            held_count += len(held)
            if held:
                assignment.append(TopicPartitions(topic, held, draft.held_id(topic)))
        pending = sum(map(len, member.target.values())) - held_count
        interval_ms = min(self.settings.group_heartbeat_interval_ms, member.session_timeout_ms // 3)
        if pending or revoked(member):  # it may be expelled before its usual heartbeat could say that it has given back
            interval_ms = min(interval_ms, SOON_MS)
        return GroupHeartbeatReply(request.member_id, draft.epoch, interval_ms, assignment, pending)

    # --- leaving ----------------------------------------------------------------------------------

    def _on_leave(self, request: LeaveGroup, now_ms: int) -> tuple[Records, Message]:
        check_name(request.group)
        state = self.groups.get(request.group)
        member = None if state is None else state.group.members.get(request.member_id)
        if state is None or member is None or member.away:
            return [], Ok()
        if request.member_epoch != UNSAID and not member.joined_epoch <= request.member_epoch <= state.group.epoch:
            return [], Ok()  # a late copy: it has left already, and is back
        draft = self._draft(state)
        if member.instance_id:
            draft.send_away(request.member_id)
        else:
            draft.remove(request.member_id, self.wall_ms(now_ms))
        self._settle(draft, state)
        return self._records(request.group, draft), Ok()

    # --- offsets ----------------------------------------------------------------------------------

    def _on_commit(self, request: CommitOffsets, now_ms: int) -> tuple[Records, Message]:
        check_commit(request, self.topics)
        state = self.groups.get(request.group)
        records = commit(request, state, self.topics, self.wall_ms(now_ms))
        if state is None:
            self._check_room()
        if not request.member_id:
            check_seen(request.group, request.member_epoch, state)
            records.append(next_epoch(request.group, self._value(state or GroupState())))
        return records, CommitOffsetsReply()

    def _on_committed(self, request: CommittedOffsets) -> Message:
        check_name(request.group)
        return committed(request, self.groups.get(request.group), self.topics)

    # --- for people -------------------------------------------------------------------------------

    def infos(self) -> list[GroupInfo]:
        return [group_info(name, state) for name, state in sorted(self.groups.items())]

    def _find(self, name: str) -> GroupState:
        check_name(name)
        state = self.groups.get(name)
        if state is None:
            raise UnknownGroup(f"there is no group {name!r}")
        return state

    def _on_describe(self, request: DescribeGroup, now_ms: int) -> Message:
        state = self._find(request.group)
        members = [group_member(m, v, state.sessions.get(m), now_ms) for m, v in state.group.members.items()]
        return DescribeGroupReply(
            group_info(request.group, state), members, self.broker_id, state.rebalances, state.last_rebalance_ms
        )

    def _on_delete(self, request: DeleteGroup) -> tuple[Records, Message]:
        state = self._find(request.group)
        if request.partitions is None:
            if state.group.members:
                raise GroupNotEmpty(f"group {request.group!r} has {len(state.group.members)} members; stop them first")
            records = farewell(request.group, state)
        else:
            records = forget(request.group, state, request.partitions)
        check_seen(request.group, request.group_epoch, state)
        return records, DeleteGroupReply()

    # --- time -------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> Iterator[GroupDecision]:
        """What time and topics demand, a decision per group. Each is to be applied before the next
        is asked for."""
        self._sessions.forgive_own_pause(self.groups, now_ms)
        for name in self._sessions.due_groups(self.groups, now_ms):
            out: list[MemberOut] = []
            records = self._fence(name, out, now_ms)
            yield GroupDecision(name, records, Ok(), now_ms, is_about_members=True, out=tuple(out))
        for name in self._backlog.due(now_ms, lambda: self._catalogue.work):
            yield GroupDecision(name, self._adapt(name), Ok(), now_ms, is_about_members=True)
        for name in self._ages.due(self.groups, now_ms, GROUPS_PER_TICK_MAX):
            yield GroupDecision(name, self._ages.decide(name, self.groups.get(name)), Ok(), now_ms)

    def postpone(self, decision: GroupDecision, *, is_alone: bool) -> None:
        """It could not be written: look at the group again soon. ``is_alone``: other groups can be
        written."""
        state, retry_ms = self.groups.get(decision.group), decision.decided_ms + RETRY_MS
        if state is None:
            return
        self._sessions.postpone(decision.group, state, retry_ms)
        self._backlog.postpone(decision.group, retry_ms, is_alone=is_alone)

    def _fence(self, name: str, out: list[MemberOut], now_ms: int) -> Records:
        """Members that were silent for their session are out, and what they held is free. One that
        keeps what it was told to give back is expelled: it is not heard any more before it joins
        anew, and goes when its session ends. Until then it may believe in good faith that it owns
        what it holds."""
        state = self.groups.get(name)
        if state is None:
            return []
        draft = self._draft(state)
        for member_id, session in state.sessions.items():
            if session.deadline_ms > now_ms:
                if session.due_ms <= now_ms:
                    out.append(self._sessions.out(name, member_id, state, now_ms))
                    session.is_expelled, session.return_ms = True, None
                self._sessions.watch(session, name, member_id)
                continue
            member = state.group.members[member_id]
            if member.instance_id and not member.away and now_ms - session.knocked_ms <= KNOCK_MS:
                draft.send_away(member_id)
                session.deadline_ms, session.return_ms = now_ms + member.session_timeout_ms, None
                session.forgiven_ms = 0
                self._sessions.watch(session, name, member_id)
            else:
                out += [] if session.is_expelled else [self._sessions.out(name, member_id, state, now_ms)]
                draft.remove(member_id, self.wall_ms(now_ms))
        self._settle(draft, state)
        return self._records(name, draft)

    def _adapt(self, name: str) -> Records:
        """Topics have come, gone or grown: share out anew. Offsets of topics that are gone go
        too."""
        state = self.groups.get(name)
        if state is None:
            return []
        draft = self._draft(state)
        self._settle(draft, state)
        return self._records(name, draft) + outlived(name, state, self.topics)
