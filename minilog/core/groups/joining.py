"""Joining a group: who is let in, in whose place, and what a member says about itself."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from minilog.core.groups.checks import check_patterns, unavailable_instance
from minilog.core.groups.membership import GroupDraft
from minilog.core.groups.state import GroupState
from minilog.errors import InconsistentGroup, Overloaded
from minilog.wire.group_messages import JOIN, GroupHeartbeat
from minilog.wire.journal.group_records import MemberValue


def join(
    request: GroupHeartbeat, state: GroupState, draft: GroupDraft, members_max: int, now_ms: int, wall_ms: int
) -> None:
    """Raises InstanceInUse, Overloaded, or what is wrong with the patterns."""
    known = draft.members.get(request.member_id)
    if known is not None and not known.away:
        if state.is_expelled(request.member_id):  # what it held is free when it names an epoch that takes it back
            draft.put(request.member_id, replace(known, joined_epoch=draft.epoch + 1), retarget=True)
        return
    if known is not None and known.instance_id != request.instance_id:
        draft.remove(request.member_id, wall_ms)  # it has left, and is another one now
    place = draft.of_instance(request.instance_id) if request.instance_id else None
    if place is not None:
        if not draft.members[place].away:
            state.sessions[place].knocked_ms = now_ms
            raise unavailable_instance(request, place)
        draft.succeed(place, request.member_id)
        return
    if len(draft.members) >= members_max:
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


def repeats_join(request: GroupHeartbeat, state: GroupState) -> bool:
    """The member is in the group, and the request names no epoch: it may be a copy of its join that
    comes late, so it takes back nothing that the member has said since (R90)."""
    member = state.group.members.get(request.member_id)
    is_in = member is not None and not member.away and not state.is_expelled(request.member_id)
    return is_in and request.member_epoch == JOIN


def subscribe(
    request: GroupHeartbeat, state: GroupState, draft: GroupDraft, check_pattern: Callable[[str], None]
) -> None:
    """Take over what the member says about itself. A changed subscription shares out anew."""
    if repeats_join(request, state):
        return
    member = draft.members[request.member_id]
    if request.pattern != member.pattern:
        check_patterns(request, draft.members)
    if request.pattern:
        check_pattern(request.pattern)
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
