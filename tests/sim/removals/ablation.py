"""Ablation: the simulator proves itself. Each entry takes one rule of the design away, by patching
the one place that keeps it, and something must notice: random schedules, or else the story of the
rule. A rule whose removal nobody notices is either not needed or not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

from minilog.core.broker.requests import consumer_read
from minilog.core.broker.requests.fetch import FetchRequests
from minilog.core.broker.requests.produce import ProduceRequests
from minilog.core.broker.standing.controller_link import ControllerLink
from minilog.core.broker.standing.registration import Registration
from minilog.core.broker.state import LocalState
from minilog.core.controller import controller
from minilog.core.controller.brokers import broker_registrations, fencing
from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.brokers.fencing import Fencing
from minilog.core.controller.brokers.metadata_feed import MetadataFeed
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.elections import election, isr_check
from minilog.core.replication import leader_isr
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_session import FollowerSession
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.isr_proposals import IsrProposals
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.leader_isr import LeaderIsr
from minilog.core.replication.produce_waiters import Waiter
from minilog.core.replication.progress import Progress
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from minilog.storage.log.epochs import EpochCache
from minilog.storage.log.log import PartitionLog
from minilog.storage.store import Store
from tests.sim.nodes.controller_node import ControllerNode
from tests.sim.nodes.disk import File, SimDisk
from tests.sim.nodes.numbered import NumberedProducer
from tests.sim.nodes.world import Violation
from tests.sim.removals import stand_ins
from tests.sim.schedules.options import Options, draw
from tests.sim.schedules.schedule import Outcome, Schedule
from tests.sim.stories.cluster import test_lifecycle, test_metadata
from tests.sim.stories.replication import (
    test_elections,
    test_idempotence,
    test_isr,
    test_promises,
    test_replication,
    test_waiting,
)

Tune = Callable[[Options], Options]

Patch = tuple[Any, str, Any]
"""(where, name, what to put there)"""


class Ablation(NamedTuple):
    rule: str
    what: str
    patches: tuple[Patch, ...]
    tune: Tune = lambda options: options
    """Which faults it takes. A schedule in which the rule never matters shows nothing."""
    story: Callable[[], None] | None = None
    """A scenario test that fails without the rule, for what chance rarely brings about."""

    @property
    def name(self) -> str:
        return f"{self.rule}: {self.what}"

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for target, name, replacement in self.patches:
                stack.enter_context(patch.object(target, name, replacement))
            yield

    def options(self, seed: int) -> Options:
        """Without retention, which ends what a schedule could notice."""
        return self.tune(replace(draw(seed), retention_bytes=-1, retention_ms=-1))

    def run(self, seed: int) -> Outcome:
        """One random schedule without the rule."""
        with self.applied():
            return Schedule(self.options(seed)).run()


class Detection(NamedTuple):
    """``schedules``: how many it took, or were tried in vain. ``violation``: what was found, "" for
    nothing."""

    schedules: int
    violation: str
    by_story: bool


STORY = "its story"


def told(ablation: Ablation) -> str:
    """What the rule's own story says without the rule; "" if it has none or does not mind."""
    if ablation.story is None:
        return ""
    try:
        with ablation.applied():
            ablation.story()
    except Violation as violation:
        return str(violation)
    except AssertionError as error:
        return f"{STORY}: {error}"
    return ""


def detect(ablation: Ablation, schedules_max: int, first: int = 0) -> Detection:
    """Try schedules until one fails that succeeds with the rule in place. In the end ask the
    story."""
    for count in range(schedules_max):
        violation = ablation.run(first + count).violation
        if violation and not Schedule(ablation.options(first + count)).run().violation:
            return Detection(count + 1, violation, by_story=False)
    return Detection(schedules_max, told(ablation), by_story=True)


def _with(**changes: Any) -> Tune:
    return lambda options: replace(options, **changes)


_STRICT: dict[str, Any] = {"replicas": 3, "brokers": 3, "min_isr": 2, "faults_ms": 4000}
_CHANGING = {**_STRICT, "replica_lag_max_ms": 400, "replica_fetch_wait_ms": 50, "kills": 0.7, "one_way_cuts": 0.7}
LOSSY = _with(**_STRICT, wipes=0.4, kills=0.6, flush_policy="commit")
CRASHING = _with(**_STRICT, crashes=1.0, disk_delay_max_ms=40, flush_policy="commit", produce_interval_ms=10)
PAUSING = _with(**_STRICT, pauses=2.0, down_ms=3000, session_timeout_ms=400, replica_lag_max_ms=4000)
STOPPING = _with(**_STRICT, stops=1.0, kills=0.0)
PROPOSING = _with(**_CHANGING)
LATE = _with(**_CHANGING, late=0.05, late_ms=1000)
COPYING = _with(**_CHANGING, late=0.1, late_ms=1000, request_twice=0.3, answer_twice=0.3)
NUMBERED = _with(
    numbered=True, replicas=3, brokers=3, min_isr=2, isolations=0.5, one_way_cuts=0.5, kills=0.5, produce_timeout_ms=200,
    request_twice=0.1, late=0.05, late_ms=1000, faults_ms=4000,
)  # fmt: skip

ABLATIONS: tuple[Ablation, ...] = (
    Ablation("R1", "followers cut to their high watermark",
             ((FollowerState, "__init__", stand_ins.cut_to_high_watermark),), PROPOSING,
             test_replication.test_followers_that_were_not_told_of_a_commit_keep_it_when_everything_restarts),
    Ablation("R2", "leaders never point out a divergence",
             ((LeaderIsr, "on_fetch", stand_ins.never_diverging),), PROPOSING,
             test_replication.test_two_leaders_in_a_row_leave_tails_that_are_cut_exactly),
    Ablation("R2", "data is sent to a position that diverges",
             ((FollowerSession, "forget", stand_ins.nothing), (ReplicaFetcher, "_apply", stand_ins.apply_asleep)),
             _with(replicas=3, brokers=3, full_disks=1.0, down_ms=3000, isolations=0.5),
             test_isr.test_a_follower_that_has_no_room_to_cut_its_tail_is_sent_nothing),
    Ablation("R3", "the list of epochs is not cut with the log",
             ((EpochCache, "truncate_end", stand_ins.nothing),), PROPOSING,
             test_replication.test_the_list_of_epochs_is_cut_with_the_log_and_found_again_by_a_restart),
    Ablation("R4", "fetches of any leader epoch count",
             ((LeaderIsr, "check_epoch", stand_ins.nothing),), PROPOSING,
             test_replication.test_a_fetch_of_an_epoch_that_is_over_counts_for_nothing),
    Ablation("R5", "an answer is taken for the request in flight",
             ((ReplicaFetcher, "_matches", stand_ins.match_anything),),
             COPYING,
             test_isr.test_a_copied_diverging_answer_cuts_nothing),
    Ablation("R6", "followers do not look at what they write",
             ((FollowerState, "_check", stand_ins.nothing),), PROPOSING,
             test_replication.test_an_answer_that_was_spoilt_on_the_way_is_fetched_again),
    Ablation("R7", "a new leader shows a high watermark it is not sure of",
             ((LeaderState, "high_watermark_known", True),), _with(consumers=2, kills=1.0, replicas=3, brokers=3),
             test_replication.test_a_new_leader_does_not_name_an_end_that_it_does_not_know),
    Ablation("R7", "a follower shows all that it holds",
             ((FollowerState, "_learn_high_watermark", stand_ins.learn_own_end),), _with(consumers=2),
             test_promises.test_a_follower_shows_what_is_committed_and_no_more),
    Ablation("R8", "followers acknowledge what is not durable",
             ((FollowerState, "must_flush", False),), CRASHING,
             test_replication.test_an_acknowledgement_waits_for_the_slowest_disk_of_the_isr),
    Ablation("R8", "the high watermark moves below min.insync.replicas",
             ((LeaderIsr, "min_isr", 1),), LOSSY,
             test_replication.test_nothing_is_committed_while_the_isr_is_too_small),
    Ablation("R9", "acks=all is answered when it is written",
             ((LeaderState, "_reached", stand_ins.ack_when_written),), PROPOSING,
             test_replication.test_an_acknowledgement_waits_for_the_slowest_disk_of_the_isr),
    Ablation("R9", "acks=N is answered when the leader alone holds it",
             ((LeaderState, "_reached", stand_ins.ack_when_the_leader_holds),), PROPOSING,
             test_promises.test_two_copies_are_two_copies),
    Ablation("R9", "acks=N counts whoever fetches, in sync or not",
             ((LeaderState, "_reached", stand_ins.ack_by_anybody),), PROPOSING,
             test_promises.test_a_copy_outside_the_isr_is_none),
    Ablation("R9", "the first that answers is elected, not the longest log",
             ((election, "longest", stand_ins.first_that_answers),), PROPOSING,
             test_elections.test_two_copies_survive_a_leader_kill_as_one_of_them_answers),
    Ablation("R10", "waiting writes go over to the next term of the same leader",
             ((LeaderState, "__init__", stand_ins.lead_and_inherit), (LeaderState, "resign", stand_ins.resign_and_bequeath),
              (LeaderState, "_complete", stand_ins.complete_without_looking)), PROPOSING,
             test_replication.test_who_waits_is_not_answered_by_a_later_epoch_of_the_same_leader),
    Ablation("R11", "the ISR is not looked at before the append",
             ((LeaderState, "check_acks", stand_ins.nothing),), PROPOSING,
             test_isr.test_too_few_replicas_refuse_before_the_append),
    Ablation("R11", "the ISR is not looked at again while a write waits",
             ((LeaderState, "_fail_unreachable", stand_ins.no_effects),), PROPOSING,
             test_isr.test_too_few_replicas_after_the_append_say_that_it_may_yet_commit),
    Ablation("R12", "consumers are shown what is not committed",
             ((consumer_read, "_read", stand_ins.read_to_the_end),), _with(consumers=1),
             test_waiting.test_a_reader_sees_a_record_when_it_is_committed_and_not_when_it_is_written),
    Ablation("R12", "a follower calls itself fresh whatever it has heard",
             ((FollowerState, "lag_ms", stand_ins.always_fresh),), _with(consumers=2, one_way_cuts=1.0),
             test_promises.test_a_follower_that_is_cut_off_grows_older_and_says_so),
    Ablation("R13", "the proposed ISR is not counted",
             ((LeaderIsr, "maximal_isr", property(stand_ins.the_committed_isr)),), PROPOSING,
             test_isr.test_a_proposed_member_counts_before_the_answer_comes),
    Ablation("R14", "a proposal is given up on any failure",
             ((IsrProposals, "on_failed", stand_ins.give_up_on_any_failure),),
             lambda o: replace(LATE(o), lost=0.1),
             test_isr.test_a_proposal_that_got_no_answer_is_not_given_up),
    Ablation("R15", "late copies of proposals are looked at",
             ((ControllerCore, "__init__", stand_ins.without_sequences),), COPYING,
             test_isr.test_a_late_copy_of_a_refused_proposal_is_never_applied),
    Ablation("R16", "proposals are applied to any partition epoch",
             ((isr_check, "check_proposal", stand_ins.without_cas),), LATE,
             test_isr.test_a_proposal_for_an_isr_of_yesterday_is_not_applied),
    Ablation("R17", "any registered process may join the ISR",
             ((isr_check, "_check_eligible", stand_ins.nothing),),
             lambda o: replace(LOSSY(o), late=0.1, late_ms=2000, request_twice=0.2),
             test_isr.test_a_proposal_vouches_for_the_process_it_saw_and_for_no_other),
    Ablation("R18", "a follower joins as soon as it is heard",
             ((leader_isr, "may_join", stand_ins.join_when_heard),), PAUSING,
             test_isr.test_a_follower_that_slept_joins_when_it_has_caught_up_and_not_when_it_is_back),
    Ablation("R19", "nobody leaves the ISR for lagging",
             ((leader_isr, "is_lagging", stand_ins.never),), PROPOSING,
             test_isr.test_a_follower_that_is_cut_off_leaves_and_comes_back),
    Ablation("R19", "who was not heard while the leader stood still lags",
             ((Progress, "forgive", stand_ins.nothing),), story=test_isr.test_a_leader_that_stood_still_keeps_its_followers),
    Ablation("R20", "anybody alive is elected",
             ((election, "candidates", stand_ins.anybody), (controller, "with_leader", stand_ins.lead_anyway),
              (election.Elections, "_lacking", stand_ins.all_are_good)), LOSSY,
             test_elections.test_the_last_replica_standing_is_not_the_only_candidate),
    Ablation("R21", "an unclean broker stays eligible",
             ((broker_registrations, "without_unclean", stand_ins.as_it_was),), LOSSY,
             test_elections.test_nobody_leads_while_only_an_unclean_broker_is_alive),
    Ablation("R22", "a recovery does not wait for all who may hold something",
             ((election, "recovery_candidates", stand_ins.whoever_is_back),), LOSSY,
             test_elections.test_when_nobody_is_known_to_be_complete_all_of_the_last_ones_are_asked),
    Ablation("R22", "a later leader epoch shows that a log holds all",
             ((election, "longest", stand_ins.longest_of_all),), PROPOSING,
             partial(test_elections.test_who_led_alone_for_a_while_holds_nothing_of_what_was_committed_without_it,
                     5, restarts=False)),
    Ablation("R23", "nobody looks whether what a consumer has read still exists",
             ((consumer_read, "check_truncation", stand_ins.nothing),), _with(consumers=2, kills=1.0),
             test_waiting.test_a_reader_is_told_what_it_has_read_and_exists_no_more),
    Ablation("R24", "the controller speaks before its journal is durable",
             ((ControllerNode, "_carry_out", stand_ins.effects_first),),
             _with(dies_in_commit=0.2, journal_delay_max_ms=30),
             test_elections.test_a_controller_that_dies_between_journal_and_telling_tells_after_its_restart),
    Ablation("R25", "brokers obey any controller",
             ((ControllerLink, "_obeys", stand_ins.obey_anybody), (Registration, "next_request", stand_ins.ask_anybody),
              (Store, "save_controller_epoch", stand_ins.save_any_epoch)),
             _with(controller_kills=2.0, late=0.05, late_ms=1000),
             test_metadata.test_a_controller_with_a_journal_of_yesterday_is_obeyed_by_nobody),
    Ablation("R26", "a broker id goes to whoever asks last",
             ((ControllerCore, "_challenge", stand_ins.take_over),), _with(request_twice=0.3, late=0.05, kills=1.0),
             test_lifecycle.test_a_second_process_with_the_same_id_is_kept_out),
    Ablation("R26", "a registration that is repeated is another one",
             ((ControllerCore, "_on_register", stand_ins.register_again),), _with(request_twice=0.3, kills=1.0),
             test_metadata.test_a_registration_that_is_asked_for_twice_is_one),
    Ablation("R27", "fencing leaves the ISR as it is",
             ((fencing, "without_replica", stand_ins.as_it_was),), _with(kills=1.0),
             test_metadata.test_fencing_is_one_step_of_the_journal),
    Ablation("R27", "fencing opens no new epoch",
             ((fencing, "without_replica", stand_ins.in_the_same_epoch),), PROPOSING,
             test_metadata.test_fencing_is_one_step_of_the_journal),
    Ablation("R27", "sessions never end",
             ((BrokerSessions, "expired", stand_ins.nobody),), PAUSING,
             test_lifecycle.test_a_paused_leader_is_replaced_and_comes_back_as_a_follower),
    Ablation("R28", "a leader exits before the others know its successor",
             ((MetadataFeed, "may_exit", stand_ins.leave_at_once),), STOPPING,
             test_lifecycle.test_a_broker_leaves_when_the_others_know_who_leads_instead),
    Ablation("R28", "a leader hands over although not all of the ISR holds everything",
             ((Fencing, "shut_down", stand_ins.shut_down_unasked),), STOPPING,
             test_lifecycle.test_who_cannot_hand_over_everything_is_followed_by_an_election),
    Ablation("R28", "a leader that leaves keeps leading until it is gone",
             ((Fencing, "shut_down", stand_ins.keep_leading),), STOPPING,
             test_lifecycle.test_a_controlled_shutdown_loses_nothing_and_hardly_interrupts),
    Ablation("R29", "brokers take news in any order",
             ((ControllerLink, "_on_metadata", stand_ins.take_any_news), (Registration, "matches", stand_ins.always),
              (Registration, "is_answer", stand_ins.always)), COPYING,
             test_elections.test_metadata_in_any_order_of_arrival_leaves_every_broker_with_the_same),
    Ablation("R30", "a leader that hears nothing of the controller goes on",
             ((LocalState, "is_isolated", stand_ins.never),), _with(isolations=1.0),
             test_waiting.test_a_leader_that_may_have_been_replaced_takes_no_writes_and_shows_nothing),
    Ablation("R31", "sequences are not looked at",
             ((PartitionLog, "find_written", stand_ins.all_new),), NUMBERED,
             test_idempotence.test_a_write_whose_answer_was_lost_is_answered_again_and_not_written_again),
    Ablation("R31", "a repeated batch is acknowledged before it is committed",
             ((Waiter, "again", stand_ins.again_at_once),), NUMBERED,
             test_idempotence.test_a_repeated_write_is_not_acknowledged_before_it_is_committed),
    Ablation("R32", "the numbers of a tail are not cut with it",
             ((PartitionLog, "truncate", stand_ins.cut_without_numbers),), NUMBERED,
             test_idempotence.test_numbers_of_a_tail_that_was_cut_are_forgotten_with_it),
    Ablation("R101", "whoever appends is not asked what it expects",
             ((LeaderState, "_check_end", stand_ins.nothing),), NUMBERED,
             test_idempotence.test_of_two_that_expect_the_same_end_one_writes),
    Ablation("R33", "what is given up ends no epoch",
             ((NumberedProducer, "epoch_step", 0),), NUMBERED,
             test_idempotence.test_what_follows_a_write_that_was_given_up_is_not_taken_for_it),
    Ablation("R33", "blocks of ids are not journalled",
             ((ControllerCore, "_on_allocate", stand_ins.allocate_unwritten),), NUMBERED,
             test_idempotence.test_no_id_is_ever_given_away_twice),
    Ablation("R34", "writes wait without end", ((ProduceRequests, "expire", stand_ins.no_effects),), PROPOSING,
             test_waiting.test_whoever_waits_is_answered_once_and_not_later_than_agreed),
    Ablation("R34", "a commit wakes no reader", ((FetchRequests, "wake", stand_ins.nothing),), _with(consumers=2),
             test_waiting.test_a_long_poll_ends_when_there_is_something_to_read),
    Ablation("R35", "a fetch counts whatever its sequence", ((FollowerSessions, "on_request", stand_ins.take_any_request),), COPYING,
             test_waiting.test_late_copies_of_fetches_leave_the_session_alone),
    Ablation("R35", "after a failure the session goes on", ((ReplicaFetcher, "on_failed", stand_ins.ask_on),),
             lambda o: replace(PROPOSING(o), lost=0.05),
             test_waiting.test_an_answer_that_is_lost_costs_a_new_session_and_nothing_else),
    Ablation("R35", "a high watermark that moves is not told", ((FollowerSessions, "on_high_watermark", stand_ins.nothing),),
             _with(consumers=2),
             test_waiting.test_a_follower_learns_of_the_last_commit_although_nothing_follows_it),
    Ablation("fsync", "the disk does not keep what was synced", ((File, "sync", stand_ins.nothing),), CRASHING,
             test_lifecycle.test_what_a_failed_sync_has_lost_is_fetched_again),
    Ablation("fsync", "directories are not synced", ((SimDisk, "fsync_dir", stand_ins.nothing),), CRASHING,
             test_elections.test_everything_dies_and_comes_back_with_everything),
)  # fmt: skip
