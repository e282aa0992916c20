"""Rules of consumer groups, taken away one at a time: the schedules, or the story of the rule, must
notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.coordinator.group_replies import GroupReplies
from minilog.core.broker.coordinator.group_shard import GroupShard
from minilog.core.broker.coordinator.group_waiting import ParkedGroupRequest
from minilog.core.broker.coordinator.successors import Successors
from minilog.core.effects import Effect, Reply
from minilog.core.groups import ages, groups, joining, offsets
from minilog.core.groups.assignment import TopicPart
from minilog.core.groups.groups import Groups
from minilog.core.groups.membership import GroupDraft
from minilog.core.groups.sessions import MemberOut
from minilog.core.groups.state import GroupState
from minilog.core.replication.follower_session import FollowerSession, SentAnswer
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.wire.messages import ReplicaFetch
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.schedules.options import Options
from tests.sim.stories.cluster import test_groups
from tests.sim.stories.storage import test_clocks


def _answer_at_once(
    self: GroupReplies, parked: ParkedGroupRequest, shards: list[GroupShard], effects: list[Effect]
) -> None:
    effects.append(Reply(parked.request_id, parked.reply))


_release = GroupDraft.release


def _release_all(self: GroupDraft, member_id: str, owned: set[TopicPart], told_epoch: int) -> None:
    """As if being told to give back were having given back."""
    _release(self, member_id, set(), 2**60)


def _release_unseen(self: GroupDraft, member_id: str, owned: set[TopicPart], told_epoch: int) -> None:
    """Whatever the member does not list is free, also if it was never told."""
    _release(self, member_id, owned, 2**60)


_begin = Groups.begin


def _begin_without_sessions(self: Groups, now_ms: int, grace_ms: int) -> None:
    """As if members that are not heard in the first moment were gone."""
    _begin(self, now_ms, grace_ms)
    for name, state in self.groups.items():
        for member_id, session in state.sessions.items():
            session.deadline_ms = now_ms + 1
            self._sessions.watch(session, name, member_id)


def _begin_without_grace(self: Groups, now_ms: int, grace_ms: int) -> None:
    _begin(self, now_ms, 0)


_fence = Groups._fence


def _fence_expelled(self: Groups, name: str, out: list[MemberOut], now_ms: int) -> Any:
    """Who does not give back in time loses what it holds at once."""
    for session in self.groups[name].sessions.values():
        session.deadline_ms = session.due_ms
    return _fence(self, name, out, now_ms)


def _forget_the_last(self: Coordinator, shard: GroupShard, max_bytes: int, now_ms: int) -> None:
    """A new coordinator that begins with nothing."""
    shard.is_loaded, shard.next_offset = True, shard.load_end
    shard.groups.on_topics(self._topics_now())
    shard.groups.begin(now_ms, 0)


def _is_remade_as_guessed(self: GroupDraft, name: str) -> bool:
    """Whatever the targets were not for is another topic."""
    known = self.topics.get(name)
    return known is None or known.topic_id != self._all_topics[name].topic_id


_settle = Groups._settle


def _settle_once(self: Groups, draft: GroupDraft, state: GroupState) -> None:
    """As if a group that was looked at were so for good."""
    checked = state.checked_version
    _settle(self, draft, state)
    state.checked_version = max(state.checked_version, checked)


_on_fetch = FollowerSessions.on_request


def _as_of_its_arrival(
    self: FollowerSessions, request_id: int, request: ReplicaFetch, deadline_ms: int, now_ms: int
) -> tuple[FollowerSession | None, list[Effect]]:
    """As if whoever fetches were still there when the fetch arrives."""
    session, effects = _on_fetch(self, request_id, request, deadline_ms, now_ms)
    if session is not None:
        session.followed = SentAnswer(now_ms, session.answered.number)
    return session, effects


def _none_fenced(*_: Any) -> None:
    return


def _adapt_nothing(self: Groups, now_ms: int) -> Iterator[Any]:
    yield from ()


def _bumpy(options: Options) -> Options:
    return replace(options, kills=0.4, down_ms=400, faults_ms=8000)


_tick = Groups.tick


def _tick_by_the_wall_clock(self: Groups, now_ms: int) -> Any:
    return _tick(self, self.wall_ms(now_ms))


GROUP_ABLATIONS = (
    Ablation(
        "groups",
        "answers wait until what they say is committed",
        ((GroupReplies, "park", _answer_at_once),),
        story=test_groups.test_a_commit_is_acknowledged_when_the_replicas_have_it_and_not_before,
    ),
    Ablation(
        "groups",
        "a new coordinator replays the log",
        ((Coordinator, "_load", _forget_the_last),),
        _bumpy,
        test_groups.test_commits_survive_the_coordinator,
    ),
    Ablation(
        "groups",
        "a partition is free when its owner says so",
        ((GroupDraft, "release", _release_all),),
        story=test_groups.test_a_second_member_gets_its_half_only_after_the_first_gave_it_back,
    ),
    Ablation(
        "groups",
        "only who was told can have given back",
        ((GroupDraft, "release", _release_unseen),),
        story=test_groups.test_a_late_copy_of_a_heartbeat_frees_nothing,
    ),
    Ablation(
        "groups",
        "a commit is the owner's",
        ((offsets, "_check_member", _none_fenced),),
        story=test_groups.test_a_zombie_may_not_commit_and_joins_anew,
    ),
    Ablation(
        "groups",
        "a new coordinator gives members a fresh session",
        ((Groups, "begin", _begin_without_sessions),),
        _bumpy,
        test_groups.test_a_coordinator_that_dies_in_a_rebalance_is_replaced_and_the_rebalance_ends,
    ),
    Ablation(
        "groups",
        "and a broker session more",
        ((Groups, "begin", _begin_without_grace),),
        story=test_groups.test_a_member_that_heard_only_the_old_coordinator_is_fenced_when_it_knows_too,
    ),
    Ablation(
        "groups",
        "who is expelled keeps what it holds for its session",
        ((Groups, "_fence", _fence_expelled),),
        story=test_groups.test_who_does_not_give_back_is_expelled_and_its_partitions_wait_for_its_session,
    ),
    Ablation(
        "groups",
        "a coordinator that may have been replaced answers nobody",
        ((Successors, "are_silent", lambda *_: True),),
        story=test_groups.test_a_coordinator_cut_off_from_everybody_answers_nobody_for_long,
    ),
    Ablation(
        "groups",
        "a fetch is as young as the answer before it",
        ((FollowerSessions, "on_request", _as_of_its_arrival),),
        story=test_groups.test_a_fetch_that_was_late_on_its_way_makes_no_replaced_coordinator_sure,
    ),
    Ablation(
        "groups",
        "what is read is as young as the question",
        ((Successors, "were_silent_at", lambda *_: True),),
        story=test_groups.test_a_replaced_coordinator_shows_no_offsets_of_yesterday,
    ),
    Ablation(
        "groups",
        "who may lead instead is called back",
        ((FollowerSessions, "call_back", stand_ins.nothing),),
        story=test_groups.test_who_reads_at_an_idle_coordinator_does_not_wait_for_a_long_poll,
    ),
    Ablation(
        "groups",
        "silent members are fenced",
        ((Groups, "tick", _adapt_nothing),),
        story=test_groups.test_who_crashes_is_fenced_after_its_session_and_not_before,
    ),
    Ablation(
        "groups",
        "a topic made anew begins anew",
        ((GroupDraft, "_is_remade", lambda *_: False),),
        story=test_groups.test_a_topic_made_anew_is_not_begun_while_the_old_one_is_held,
    ),
    Ablation(
        "groups",
        "a topic is another one when its id is another",
        ((GroupDraft, "_is_remade", _is_remade_as_guessed),),
        story=test_groups.test_a_topic_that_is_wanted_again_before_it_is_given_back_is_read_on,
    ),
    Ablation(
        "groups",
        "who gives back the last of an old topic shares out the new one",
        ((Groups, "_settle", _settle_once),),
        story=test_groups.test_a_topic_made_anew_and_wanted_again_is_begun_when_the_old_one_is_given_back,
    ),
    Ablation(
        "groups",
        "who is refused for want of replicas is heard",
        ((Groups, "on_refused", lambda *_: None),),
        story=test_groups.test_who_asks_while_too_few_replicas_are_in_sync_is_a_member_when_they_are_back,
    ),
    Ablation(
        "groups",
        "an older copy of a commit counts for nothing",
        ((offsets, "_check_order", stand_ins.nothing),),
        story=test_groups.test_a_late_copy_of_a_commit_takes_no_offset_back_not_even_at_the_next_coordinator,
    ),
    Ablation(
        "groups",
        "who names an epoch means the group as it was then",
        ((groups, "check_seen", stand_ins.nothing),),
        story=test_groups.test_a_late_copy_of_a_deletion_deletes_no_group_that_was_made_anew,
    ),
    Ablation(
        "groups",
        "a join changes nothing of who is in the group",
        ((joining, "repeats_join", stand_ins.nothing),),
        story=test_groups.test_a_late_copy_of_a_join_changes_no_subscription,
    ),
    Ablation(
        "groups",
        "a group is as old as it was watched, by a clock that does not jump",
        ((Groups, "tick", _tick_by_the_wall_clock), (ages, "STEP_MS_MAX", 2**53)),
        story=test_clocks.test_no_jump_of_a_clock_makes_offsets_of_a_group_old,
    ),
)
