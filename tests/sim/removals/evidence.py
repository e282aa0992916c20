"""Removals of the rules about what counts as evidence: of which topic and process, how old, and
from whom."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from minilog.core.broker.replicate import Replication
from minilog.core.broker.requests import fetch
from minilog.core.broker.state import LocalState
from minilog.core.controller import topics
from minilog.core.controller.brokers.broker_sessions import BrokerSession, BrokerSessions
from minilog.core.controller.brokers.fencing import Fencing
from minilog.core.controller.brokers.metadata_feed import MetadataFeed
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.decision import Decision
from minilog.core.controller.elections.election import Elections
from minilog.core.effects import Effect
from minilog.core.groups import offsets
from minilog.core.image import ClusterImage
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.leader_isr import LeaderIsr
from minilog.core.replication.replica import Replica
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from minilog.wire.messages import (
    Fetch,
    Heartbeat,
    HeartbeatReply,
    ReplicaFetch,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_groups, test_identity, test_lifecycle
from tests.sim.stories.replication import test_freshness, test_promises, test_waiting
from tests.sim.stories.storage import test_damage


def _by_name(self: ReplicaFetcher, result: ReplicaFetchResult) -> FollowerState | None:
    return self.followers.get(TopicPartition(result.topic, result.partition))


def _drained_by_the_isr_it_knows(self: LeaderState) -> bool:
    positions = [self.position_of(r) for r in self.state.isr]
    return all(p is not None and p >= self.log.end_offset for p in positions)


def _unbound(request: Fetch, results: Any) -> Fetch:
    return request


def _forgive_always(self: BrokerSessions, session: BrokerSession, stall_ms: int) -> None:
    session.deadline_ms += stall_ms
    session.expected_ms += stall_ms


def _unsaid(self: MetadataFeed, session: BrokerSession, heartbeat: Heartbeat, *, may_exit: bool) -> HeartbeatReply:
    return replace(_news(self, session, heartbeat, may_exit=may_exit), session_timeout_ms=0)


_news = MetadataFeed._news


def _heard_by_own(self: BrokerSessions, session: BrokerSession, now_ms: int, told_ms: int = 0) -> None:
    _heard(self, session, now_ms)


_heard = BrokerSessions.heard


def _data_only(self: FollowerSessions, now_ms: int, unsure_ms: int) -> list[Effect]:
    effects: list[Effect] = []
    for session in self._by_broker.values():
        if session.parked is not None and (session.dirty or session.unsent_results or session.ends_early):
            results = self._collect(session)
            if results or session.ends_early:
                effects.append(self._answer(session, results, now_ms, unsure_ms))
    return effects


def _when_it_comes(self: ReplicaFetcher, reply: ReplicaFetchReply, now_ms: int) -> int:
    return now_ms


def _by_who_is_here(image: ClusterImage, topic: str, settings: Any) -> int:
    return max(1, min(3, sum(broker.eligible for broker in image.brokers.values())))


_on_fetch = Replication.on_fetch


def _whoever_was_meant(self: Replication, request_id: int, request: ReplicaFetch, now_ms: int) -> list[Effect]:
    return _on_fetch(self, request_id, msgspec.structs.replace(request, leader=self._state.broker_id), now_ms)


_on_committed = ControllerCore.on_committed


def _as_of_the_decision(self: ControllerCore, now_ms: int) -> Decision:
    """What follows a decision is begun at the time of the tick before it, however long the journal
    took."""
    return _on_committed(self, self.sessions._tick_ms or now_ms)


EVIDENCE_ABLATIONS = (
    Ablation(
        "identity",
        "an answer counts for whatever topic has its name",
        ((ReplicaFetcher, "_meant", _by_name),),
        story=test_identity.test_an_answer_about_a_deleted_topic_is_not_for_the_one_that_has_its_name,
    ),
    Ablation(
        "identity",
        "a position outlives the process that told it",
        ((Elections, "on_registered", stand_ins.nothing),),
        story=test_identity.test_a_position_counts_as_long_as_the_process_that_told_it,
    ),
    Ablation(
        "identity",
        "drained is said, and believed, of another ISR",
        (
            (LeaderIsr, "drained", property(_drained_by_the_isr_it_knows)),
            (Fencing, "_last_change", lambda *_: 0),
        ),
        story=test_identity.test_who_was_let_in_a_moment_ago_is_not_named_unasked,
    ),
    Ablation(
        "identity",
        "who is alone in the ISR is drained whoever leads next",
        (
            (
                LeaderIsr,
                "drained",
                property(lambda self: self.proposal is None and _drained_by_the_isr_it_knows(self)),
            ),
        ),
        story=test_lifecycle.test_a_leader_that_is_alone_in_the_isr_hands_over_when_its_heirs_hold_everything,
    ),
    Ablation(
        "identity",
        "who is elected while it leaves is let go",
        ((Fencing, "has_heard_all", stand_ins.always),),
        story=test_lifecycle.test_one_that_is_elected_while_it_leaves_hands_that_over_too,
    ),
    Ablation(
        "identity",
        "acks=N counts who is about to leave the ISR",
        ((LeaderIsr, "minimal_isr", property(lambda self: self.state.isr)),),
        story=test_identity.test_two_copies_are_two_members_of_whatever_isr_the_controller_goes_by,
    ),
    Ablation(
        "identity",
        "who waits for a topic waits for its name",
        ((fetch, "_bound", _unbound),),
        story=test_identity.test_a_reader_that_waits_for_a_topic_does_not_go_over_to_its_successor,
    ),
    Ablation(
        "identity",
        "a commit counts for whatever topic has the name",
        ((offsets, "_check_topic", stand_ins.nothing),),
        story=test_groups.test_a_commit_for_a_topic_that_was_made_anew_is_not_stored,
    ),
    Ablation(
        "identity",
        "a fetch counts at whatever broker it reaches",
        ((Replication, "on_fetch", _whoever_was_meant),),
        story=test_identity.test_a_broker_that_gives_the_address_of_another_one_takes_no_followers_from_it,
    ),
    Ablation(
        "damage",
        "a damaged replica says nothing of it",
        ((Replica, "is_damaged", False),),
        story=test_damage.test_a_replica_that_knows_it_is_damaged_is_not_elected,
    ),
    Ablation(
        "damage",
        "what a heartbeat says of damage is not looked at",
        ((Fencing, "take_unfit", stand_ins.nothing),),
        story=test_damage.test_a_damaged_leader_hands_over_to_a_whole_replica,
    ),
    Ablation(
        "damage",
        "a damaged follower follows on",
        ((LeaderIsr, "on_forgotten", stand_ins.nothing), (BrokerSessions, "is_fit", stand_ins.always)),
        story=test_damage.test_a_damaged_follower_leaves_the_isr_and_is_not_let_in_again,
    ),
    Ablation(
        "freshness",
        "marks wait for a request that is parked",
        ((FollowerSessions, "answer_ready", _data_only),),
        story=test_freshness.test_under_load_of_a_neighbour_old_records_go,
    ),
    Ablation(
        "freshness",
        "an answer is as fresh as it comes",
        ((ReplicaFetcher, "_as_of", _when_it_comes),),
        story=test_freshness.test_an_answer_that_was_on_its_way_for_long_is_as_old_as_its_request,
    ),
    Ablation(
        "freshness",
        "a leader is always sure to lead",
        ((LocalState, "unsure_ms", lambda *_: 0),),
        story=test_freshness.test_who_follows_a_deposed_leader_does_not_say_that_it_is_fresh,
    ),
    Ablation(
        "liveness",
        "every gap between ticks is forgiven",
        ((BrokerSessions, "_forgive", _forgive_always),),
        story=test_lifecycle.test_a_controller_that_is_always_slow_fences_who_is_silent,
    ),
    Ablation(
        "liveness",
        "an election has its time from the decision on, durable or not",
        ((ControllerCore, "on_committed", _as_of_the_decision),),
        story=test_promises.test_an_election_hears_who_answers_however_long_the_journal_took,
    ),
    Ablation(
        "sessions",
        "who is registered hears of no other session",
        ((MetadataFeed, "_news", _unsaid),),
        story=test_waiting.test_a_leader_hears_of_a_shorter_session_without_being_registered_again,
    ),
    Ablation(
        "sessions",
        "a controller goes by its own session from its start on",
        ((BrokerSessions, "heard", _heard_by_own),),
        story=test_waiting.test_no_leader_is_replaced_before_the_session_that_it_was_told_of_is_over,
    ),
    Ablation(
        "copies",
        "a topic has as many copies as brokers are up at the moment",
        ((topics, "_usual_factor", _by_who_is_here),),
        story=test_lifecycle.test_what_is_made_while_brokers_are_away_gets_its_copies_all_the_same,
    ),
)
