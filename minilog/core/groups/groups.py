"""Groups: the consumer groups of one partition of ``__groups``: decide, write down, replay.

Every ``on_*`` method decides on the state as it is and returns ``(records, reply)``; nothing durable changes until the
coordinator has appended the records and given each to ``replay``, the only mutator, which is also how a new
coordinator learns everything. The caller shows the reply to nobody before all that was decided until then is committed.

Owns, besides: *sessions*, soft state that a new coordinator begins afresh: when each member was heard, what it said
it owns, which epochs it has named and been told. Heartbeats that change nothing write nothing.

Invariants
* A partition is held by one member at most (membership.py), and what is shown to members is what is held.
* ``member_epoch`` in a request: at most the group's, at least the last one this member has named itself (so any number
  of lost answers is forgiven, a late copy or an older life of the member is not).
* A commit counts only for partitions that its member holds (group_offsets.py).
* A copy of a request that arrives after a newer one was decided changes nothing, if it names what it is about: the number
  of the commit, the epoch of the member that leaves, the epoch of the group that is deleted or moved.
* What a fenced member held is free when its session is over by its own clock too, not before.
* Static members (KIP-345): leaving sends them *away*; target and partitions wait until the session is over. A new id
  with the same instance takes the place of one that is away. While the old one is in session it is refused with
  InstanceInUse; if it still asks when that session ends, the place is kept for it instead of being given up.

Why records of whole groups: one append is one decision, so no failover finds half of one. Source: KIP-848, KIP-345, KIP-211.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from msgspec.structs import replace

from minilog.config import BrokerSettings
from minilog.core.groups.ages import Ages
from minilog.core.groups.catalogue import Catalogue
from minilog.core.groups.checks import (
    check_commit,
    check_heartbeat,
    check_member,
    check_name,
    check_owned,
    check_patterns,
    check_seen,
    least_epoch,
    unavailable_instance,
)
from minilog.core.groups.membership import GroupDraft, Topics, has_given_back, parts_of, revoked
from minilog.core.groups.offsets import Records, commit, committed, farewell, forget, next_epoch, outlived
from minilog.core.groups.state import UNCHECKED, GroupState, MemberSession, group_info, group_member
from minilog.errors import (
    GroupNotEmpty,
    InconsistentGroup,
    Overloaded,
    UnknownGroup,
    UnknownMember,
)
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
from minilog.wire.group_records import (
    GroupKey,
    GroupRecord,
    GroupValue,
    MemberValue,
    OffsetKey,
    OffsetValue,
)
from minilog.wire.message_base import Message, Ok

SOON_MS = 100
"""When a member that waits for partitions is to ask again."""
KNOCK_MS = 10_000
"""How long a refused successor of a static member counts as still asking."""
RETRY_MS = 500
PAUSE_MS = 500
"""A gap between two ticks that shows that this process stood still."""
GROUPS_PER_TICK_MAX = 200
NAMES_PER_TICK_MAX = 20_000
"""When so many names of topics were compared with patterns the other groups wait for the next tick."""


class Groups:
    def __init__(
        self,
        settings: BrokerSettings,
        broker_id: int,
        wall_ms: Callable[[int], int] = lambda now_ms: now_ms,
        log_end: Callable[[], int] = lambda: 0,
    ) -> None:
        """``wall_ms`` makes of the time of a turn what is written down for people: when something was committed.
        ``log_end``: where the next record goes; the epochs of a new group begin there."""
        self.settings = settings
        self.broker_id = broker_id
        self.wall_ms = wall_ms
        self.log_end = log_end
        self.groups: dict[str, GroupState] = {}
        self.topics: Topics = {}
        self._version = 0
        self._catalogue = Catalogue()
        self._deadlines: list[tuple[int, str, str]] = []
        self._ages = Ages(settings.group_offsets_retention_ms)
        self._ticked_ms = 0
        self._unchecked: OrderedDict[str, int] = OrderedDict()
        """Groups to be looked at because of topics, and when at the earliest: those that could not be written come last."""
        self._retry_ms = 0
        """No group is looked at because of topics before that: nothing could be written."""

    # --- replay ------------------------------------------------------------------------------------------------

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
        """Replayed to the end: from now on this is the coordinator. Every member gets a fresh session, and
        ``grace_ms`` more, for as long may another broker still have taken itself for the coordinator."""
        self._ticked_ms = now_ms
        self._ages.begin(self.groups, now_ms)
        for name, state in self.groups.items():
            for member_id, member in state.group.members.items():
                session = state.sessions[member_id] = MemberSession(now_ms, member.joined_epoch)
                session.deadline_ms = now_ms + member.session_timeout_ms + grace_ms
                self._watch(session, name, member_id)

    # --- topics ------------------------------------------------------------------------------------------------

    def on_topics(self, topics: Topics) -> None:
        """The topics there are now, without internal ones."""
        if topics is not self.topics and topics != self.topics:  # comparing takes as long as there are topics
            self.topics = topics
            self._catalogue.on_topics(topics.keys())
            self._version += 1
            names = (name for name, state in self.groups.items() if state.group.members or state.offsets)
            self._unchecked = OrderedDict.fromkeys(names, 0)

    def _draft(self, state: GroupState) -> GroupDraft:
        return GroupDraft(self._value(state), self.topics, self._catalogue.fitting)

    def _value(self, state: GroupState) -> GroupValue:
        """As it is. Each epoch takes a record at least, so one that begins where the log ends is greater than all that a group
        of this name, deleted meanwhile, ever had."""
        return state.group if state.is_known else replace(state.group, epoch=self.log_end())

    def _settle(self, draft: GroupDraft, state: GroupState) -> None:
        if draft.is_due or state.checked_version != self._version:
            before = draft.epoch
            draft.settle()
            if draft.waits_for_topic:
                state.checked_version = UNCHECKED  # whoever gives back the last of the old topic settles again
            elif draft.epoch == before:
                state.checked_version = self._version

    # --- heartbeats ----------------------------------------------------------------------------------------------

    def on_heartbeat(self, request: GroupHeartbeat, now_ms: int) -> tuple[Records, Message]:
        check_heartbeat(request, self.settings)
        state = self.groups.get(request.group)
        if state is None:
            state = self._new_group(request)
        draft = self._draft(state)
        if request.member_epoch == JOIN:
            self._join(request, state, draft, now_ms)
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
        member_id, owned = request.member_id, parts_of({t.topic: t.partitions for t in request.owned})
        self._subscribe(request, draft)
        draft.release(member_id, owned, request.member_epoch)
        self._settle(draft, state)
        draft.give(member_id, state.owners)
        return self._records(request.group, draft), self._answer(request, draft)

    def _records(self, name: str, draft: GroupDraft) -> Records:
        return [GroupRecord(GroupKey(name), draft.value())] if draft.is_changed else []

    def on_decided(self, request: Message, now_ms: int) -> None:
        """What was decided on ``request`` is written and replayed: remember that the member was heard and told."""
        if isinstance(request, GroupHeartbeat):
            self._heard(request, self.groups[request.group], now_ms)
        if isinstance(request, GroupHeartbeat | LeaveGroup) and request.group in self.groups:
            self.groups[request.group].watch_rebalance(now_ms)

    def _heard(self, request: GroupHeartbeat, state: GroupState, now_ms: int) -> None:
        member = state.group.members[request.member_id]
        session = state.sessions.get(request.member_id)
        if session is None or session.is_expelled:
            session = state.sessions[request.member_id] = MemberSession(now_ms, member.joined_epoch)
        session.heard_ms, session.deadline_ms = now_ms, now_ms + member.session_timeout_ms
        session.forgiven_ms = 0
        session.owned = parts_of({t.topic: t.partitions for t in request.owned})
        session.named_epoch = max(session.named_epoch, request.member_epoch)
        session.told_epoch = state.group.epoch
        if not revoked(member):
            session.return_ms = None
        elif session.return_ms is None:
            session.return_ms = now_ms + member.poll_timeout_ms
        self._watch(session, request.group, request.member_id)

    def on_refused(self, request: Message, now_ms: int) -> None:
        """The coordinator could not write, was not sure that it is one, or had too many waiting: who has asked was heard all
        the same."""
        state = self.groups.get(request.group) if isinstance(request, GroupHeartbeat) else None
        if state is None or not isinstance(request, GroupHeartbeat):
            return
        member, session = state.group.members.get(request.member_id), state.sessions.get(request.member_id)
        if member is None or member.away or session is None or session.is_expelled:
            return
        least = least_epoch(request.member_id, state)
        if request.member_epoch != JOIN and not least <= request.member_epoch <= state.group.epoch:
            return
        end_ms = now_ms + member.session_timeout_ms
        session.heard_ms, session.deadline_ms = now_ms, max(session.deadline_ms, end_ms)
        if session.return_ms is not None and has_given_back(
            member, parts_of({t.topic: t.partitions for t in request.owned}), request.member_epoch
        ):
            session.return_ms = max(session.return_ms, end_ms)

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

    # --- joining, leaving ----------------------------------------------------------------------------------------

    def _join(self, request: GroupHeartbeat, state: GroupState, draft: GroupDraft, now_ms: int) -> None:
        known = draft.members.get(request.member_id)
        if known is not None and not known.away:
            if state.is_expelled(request.member_id):  # what it held is free when it names an epoch that takes it back
                draft.put(request.member_id, replace(known, joined_epoch=draft.epoch + 1), retarget=True)
            return
        if known is not None and known.instance_id != request.instance_id:
            draft.remove(request.member_id, self.wall_ms(now_ms))  # it has left, and is another one now
        place = draft.of_instance(request.instance_id) if request.instance_id else None
        if place is not None:
            if not draft.members[place].away:
                state.sessions[place].knocked_ms = now_ms
                raise unavailable_instance(request, place)
            draft.succeed(place, request.member_id)
            return
        if len(draft.members) >= self.settings.group_members_max:
            raise Overloaded(f"group {request.group!r} has {len(draft.members)} members, the limit (group_members_max)")
        check_patterns(request, draft.members)
        member = MemberValue(
            draft.epoch + 1,
            request.topics,
            request.pattern,
            request.assignor,
            request.instance_id,
            request.client_id,
            request.session_timeout_ms,
            request.poll_timeout_ms,
        )
        draft.put(request.member_id, member, retarget=True)

    def _subscribe(self, request: GroupHeartbeat, draft: GroupDraft) -> None:
        """Take over what the member says about itself; a changed subscription shares out anew."""
        member = draft.members[request.member_id]
        if request.pattern != member.pattern:
            check_patterns(request, draft.members)
        if request.pattern:
            self._catalogue.check(request.pattern)
        is_other = request.assignor != draft.assignor
        if is_other and any(m.assignor != request.assignor for i, m in draft.members.items() if i != request.member_id):
            raise InconsistentGroup(
                f"group {request.group!r} uses the assignor {draft.assignor!r}, {request.member_id!r} asks for {request.assignor!r}; "
                "all members must use the same one"
            )
        subscribed = replace(member, topics=request.topics, pattern=request.pattern, assignor=request.assignor)
        said = replace(
            subscribed,
            client_id=request.client_id,
            session_timeout_ms=request.session_timeout_ms,
            poll_timeout_ms=request.poll_timeout_ms,
        )
        if said != member:
            draft.put(request.member_id, said, retarget=subscribed != member)

    def on_leave(self, request: LeaveGroup, now_ms: int) -> tuple[Records, Message]:
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

    # --- offsets -------------------------------------------------------------------------------------------------

    def on_commit(self, request: CommitOffsets, now_ms: int) -> tuple[Records, Message]:
        check_commit(request, self.topics)
        state = self.groups.get(request.group)
        records = commit(request, state, self.topics, self.wall_ms(now_ms))
        if state is None:
            self._check_room()
        if not request.member_id:
            check_seen(request.group, request.member_epoch, state)
            records.append(next_epoch(request.group, self._value(state or GroupState())))
        return records, CommitOffsetsReply()

    def on_committed(self, request: CommittedOffsets) -> Message:
        check_name(request.group)
        return committed(request, self.groups.get(request.group), self.topics)

    # --- for people ----------------------------------------------------------------------------------------------

    def infos(self) -> list[GroupInfo]:
        return [group_info(name, state) for name, state in sorted(self.groups.items())]

    def _find(self, name: str) -> GroupState:
        check_name(name)
        state = self.groups.get(name)
        if state is None:
            raise UnknownGroup(f"there is no group {name!r}")
        return state

    def on_describe(self, request: DescribeGroup, now_ms: int) -> Message:
        state = self._find(request.group)
        members = [group_member(m, v, state.sessions.get(m), now_ms) for m, v in state.group.members.items()]
        return DescribeGroupReply(
            group_info(request.group, state), members, self.broker_id, state.rebalances, state.last_rebalance_ms
        )

    def on_delete(self, request: DeleteGroup) -> tuple[Records, Message]:
        state = self._find(request.group)
        if request.partitions is None:
            if state.group.members:
                raise GroupNotEmpty(f"group {request.group!r} has {len(state.group.members)} members; stop them first")
            records = farewell(request.group, state)
        else:
            records = forget(request.group, state, request.partitions)
        check_seen(request.group, request.group_epoch, state)
        return records, DeleteGroupReply()

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> Iterator[tuple[str, Records]]:
        """What time and topics demand, a decision per group; each is to be replayed before the next is asked for."""
        self._forgive_own_pause(now_ms)
        for name in self._due_groups(now_ms):
            yield name, self._fence(name, now_ms)
            if name in self.groups:
                self.groups[name].watch_rebalance(now_ms)
        for name in self._next_unchecked(now_ms):
            yield name, self._adapt(name)
            if name in self.groups:
                self.groups[name].watch_rebalance(now_ms)
        for name in self._ages.due(self.groups, now_ms, GROUPS_PER_TICK_MAX):
            yield name, self._ages.decide(name, self.groups.get(name))

    def _next_unchecked(self, now_ms: int) -> Iterator[str]:
        """Groups that do not know of the latest topics, as far as a tick allows; after a failure to write, a little later."""
        looked_at_end = self._catalogue.work + NAMES_PER_TICK_MAX
        for _ in range(min(len(self._unchecked), GROUPS_PER_TICK_MAX)):
            if now_ms < self._retry_ms or self._catalogue.work >= looked_at_end:
                return
            name, due_ms = self._unchecked.popitem(last=False)
            if now_ms < due_ms:  # and so are all that follow
                self._unchecked[name] = due_ms
                self._unchecked.move_to_end(name, last=False)
                return
            yield name

    def _forgive_own_pause(self, now_ms: int) -> None:
        """While this process stood still nobody could be heard: such a gap moves every deadline.

        Forgiveness has a bound: who was forgiven a whole session and is still silent is not forgiven any more.
        """
        gap_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        if gap_ms <= PAUSE_MS:
            return
        for state in self.groups.values():
            for member_id, session in state.sessions.items():
                if session.forgiven_ms < state.group.members[member_id].session_timeout_ms:
                    missed_ms = min(gap_ms, now_ms - session.heard_ms)
                    session.forgiven_ms += missed_ms
                    session.deadline_ms += missed_ms
                    session.return_ms = None if session.return_ms is None else session.return_ms + missed_ms

    def postpone(self, name: str, now_ms: int, *, is_alone: bool) -> None:
        """A decision about this group could not be written: look at it again soon. ``is_alone``: others can be written."""
        state = self.groups.get(name)
        if state is None:
            return
        for member_id, session in state.sessions.items():
            session.watched_ms = now_ms + RETRY_MS
            heappush(self._deadlines, (session.watched_ms, name, member_id))
        if not is_alone:
            self._retry_ms = now_ms + RETRY_MS
        self._unchecked[name] = now_ms + RETRY_MS
        self._unchecked.move_to_end(name)

    def _watch(self, session: MemberSession, name: str, member_id: str) -> None:
        """See to it that the member is looked at when its time is up. Its time grows with every heartbeat, the entry
        stays and is renewed when its turn has come, so that a heartbeat costs nothing here."""
        if session.watched_ms is None or session.due_ms < session.watched_ms:
            session.watched_ms = session.due_ms
            heappush(self._deadlines, (session.due_ms, name, member_id))

    def _due_groups(self, now_ms: int) -> Iterable[str]:
        due: dict[str, None] = {}
        while self._deadlines and self._deadlines[0][0] <= now_ms and len(due) < GROUPS_PER_TICK_MAX:
            watched_ms, name, member_id = heappop(self._deadlines)
            state = self.groups.get(name)
            session = None if state is None else state.sessions.get(member_id)
            if session is None or session.watched_ms != watched_ms:
                continue
            session.watched_ms = None
            if session.due_ms <= now_ms:
                due[name] = None
            else:
                self._watch(session, name, member_id)
        return due

    def _fence(self, name: str, now_ms: int) -> Records:
        """Members that were silent for their session are out, and what they held is free. One that keeps what it was
        told to give back is expelled: it is not heard any more before it joins anew, and goes when its session ends; until
        then it may believe in good faith that it owns what it holds."""
        state = self.groups.get(name)
        if state is None:
            return []
        draft = self._draft(state)
        for member_id, session in state.sessions.items():
            if session.deadline_ms > now_ms:
                if session.due_ms <= now_ms:
                    session.is_expelled, session.return_ms = True, None
                self._watch(session, name, member_id)
                continue
            member = state.group.members[member_id]
            if member.instance_id and not member.away and now_ms - session.knocked_ms <= KNOCK_MS:
                draft.send_away(member_id)
                session.deadline_ms, session.return_ms = now_ms + member.session_timeout_ms, None
                session.forgiven_ms = 0
                self._watch(session, name, member_id)
            else:
                draft.remove(member_id, self.wall_ms(now_ms))
        self._settle(draft, state)
        return self._records(name, draft)

    def _adapt(self, name: str) -> Records:
        """Topics have come, gone or grown: share out anew; offsets of topics that are gone go too."""
        state = self.groups.get(name)
        if state is None:
            return []
        draft = self._draft(state)
        self._settle(draft, state)
        return self._records(name, draft) + outlived(name, state, self.topics)
