"""Sessions: when each member of the groups here was heard, and when it is looked at next.

Soft state of one coordinator: a new one begins afresh. Who is heard costs nothing here but a few
numbers.

Invariants
* A session never ends earlier than its timeout after the member was heard, whether it was answered
  or refused (R85, R87).
* A member that keeps asking is never forgotten: each session has an entry at or before the time
  when it is due.
* While this process stood still nobody could be heard: that moves every deadline, within bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from minilog.core.groups.checks import least_epoch
from minilog.core.groups.membership import has_given_back, listed_parts, revoked
from minilog.core.groups.state import GroupState, MemberSession
from minilog.wire.group_messages import JOIN, GroupHeartbeat

PAUSE_MS = 500
"""A gap between two ticks that shows that this process stood still."""
GROUPS_PER_TICK_MAX = 200


class MemberOut(NamedTuple):
    """A member that is a member no more without having asked for that, for people. ``is_expelled``:
    it is still heard of, but keeps what it was told to give back."""

    group: str
    member_id: str
    client_id: str
    why: str
    silent_ms: int
    partitions: int
    is_expelled: bool = False


class Sessions:
    def __init__(self) -> None:
        self._deadlines: list[tuple[int, str, str]] = []
        self._ticked_ms = 0

    def begin(self, groups: Mapping[str, GroupState], now_ms: int, grace_ms: int) -> None:
        """Every member has a fresh session, and ``grace_ms`` more."""
        self._ticked_ms = now_ms
        for name, state in groups.items():
            for member_id, member in state.group.members.items():
                session = state.sessions[member_id] = MemberSession(now_ms, member.joined_epoch)
                session.deadline_ms = now_ms + member.session_timeout_ms + grace_ms
                self.watch(session, name, member_id)

    def on_heard(self, request: GroupHeartbeat, state: GroupState, now_ms: int) -> None:
        """What was decided on its heartbeat is written: it was heard, and told."""
        member = state.group.members[request.member_id]
        session = state.sessions.get(request.member_id)
        if session is None or session.is_expelled:
            session = state.sessions[request.member_id] = MemberSession(now_ms, member.joined_epoch)
        session.heard_ms, session.deadline_ms = now_ms, now_ms + member.session_timeout_ms
        session.forgiven_ms = 0
        session.owned = listed_parts(request.owned)
        session.named_epoch = max(session.named_epoch, request.member_epoch)
        session.told_epoch = state.group.epoch
        if not revoked(member):
            session.return_ms = None
        elif session.return_ms is None:
            session.return_ms = now_ms + member.poll_timeout_ms
        self.watch(session, request.group, request.member_id)

    def on_refused(self, request: GroupHeartbeat, state: GroupState, now_ms: int) -> None:
        """Whoever asks is heard, unless it asks in the name of an older life."""
        member, session = state.group.members.get(request.member_id), state.sessions.get(request.member_id)
        if member is None or member.away or session is None or session.is_expelled:
            return
        least = least_epoch(request.member_id, state)
        if request.member_epoch != JOIN and not least <= request.member_epoch <= state.group.epoch:
            return
        end_ms = now_ms + member.session_timeout_ms
        session.heard_ms, session.deadline_ms = now_ms, max(session.deadline_ms, end_ms)
        if session.return_ms is not None and has_given_back(member, listed_parts(request.owned), request.member_epoch):
            session.return_ms = max(session.return_ms, end_ms)

    def forgive_own_pause(self, groups: Mapping[str, GroupState], now_ms: int) -> None:
        """While this process stood still nobody could be heard: such a gap moves every deadline.

        Forgiveness has a bound: who was forgiven a whole session and is still silent is not
        forgiven any more.
        """
        gap_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        if gap_ms <= PAUSE_MS:
            return
        for state in groups.values():
            for member_id, session in state.sessions.items():
                if session.forgiven_ms < state.group.members[member_id].session_timeout_ms:
                    missed_ms = min(gap_ms, now_ms - session.heard_ms)
                    session.forgiven_ms += missed_ms
                    session.deadline_ms += missed_ms
                    session.return_ms = None if session.return_ms is None else session.return_ms + missed_ms

    def postpone(self, name: str, state: GroupState, until_ms: int) -> None:
        """Look at all of its members again then."""
        for member_id, session in state.sessions.items():
            session.watched_ms = until_ms
            heappush(self._deadlines, (until_ms, name, member_id))

    def watch(self, session: MemberSession, name: str, member_id: str) -> None:
        """See to it that the member is looked at when its time is up. Its time grows with every
        heartbeat, the entry stays and is renewed when its turn has come, so that a heartbeat costs
        nothing here."""
        if session.watched_ms is None or session.due_ms < session.watched_ms:
            session.watched_ms = session.due_ms
            heappush(self._deadlines, (session.due_ms, name, member_id))

    def out(self, name: str, member_id: str, state: GroupState, now_ms: int) -> MemberOut:
        """Its time is up: why."""
        member, session = state.group.members[member_id], state.sessions[member_id]
        is_expelled = session.deadline_ms > now_ms
        why = f"it was not heard for {now_ms - session.heard_ms} ms, and its session is {member.session_timeout_ms} ms"
        if is_expelled:
            why = f"it has kept what it was told to give back for more than {member.poll_timeout_ms} ms, its time for one poll"
        elif member.away:
            why = f"it left as {member.instance_id!r}, and nobody came back in its place in {member.session_timeout_ms} ms"
        held = sum(map(len, member.held.values()))
        return MemberOut(name, member_id, member.client_id, why, now_ms - session.heard_ms, held, is_expelled)

    def due_groups(self, groups: Mapping[str, GroupState], now_ms: int) -> Iterable[str]:
        """Groups in which a session may be over, as many as a tick allows."""
        due: dict[str, None] = {}
        while self._deadlines and self._deadlines[0][0] <= now_ms and len(due) < GROUPS_PER_TICK_MAX:
            watched_ms, name, member_id = heappop(self._deadlines)
            state = groups.get(name)
            session = None if state is None else state.sessions.get(member_id)
            if session is None or session.watched_ms != watched_ms:
                continue
            session.watched_ms = None
            if session.due_ms <= now_ms:
                due[name] = None
            else:
                self.watch(session, name, member_id)
        return due
