"""What is believed of a disk and of a journal, taken back: the story of each must notice."""

from __future__ import annotations

from functools import partial
from typing import Any

from minilog.core import health
from minilog.core.broker.roles import Roles
from minilog.core.broker.standing.controller_link import ControllerLink
from minilog.core.broker.standing.lone_ends import LoneEnds
from minilog.core.controller.brokers import broker_registrations
from minilog.core.controller.brokers.broker_registrations import BrokerRegistrations
from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.elections.election import Elections
from minilog.core.controller.elections.lone_ends import LoneEnds as KnownEnds
from minilog.core.controller.elections.partition_change import without_lost, without_unclean
from minilog.core.controller.elections.unclean_election import UncleanElections
from minilog.core.controller.journal import journal_recovery
from minilog.core.controller.journal.journal_check import JournalCheck
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.effects import Effect
from minilog.core.image import BrokerState, ClusterImage, PartitionState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replicas
from minilog.storage.aside.stray import Stray
from minilog.storage.process_marks import ProcessMarks
from minilog.storage.store import Store
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import DiskState, UnusedRegistration
from minilog.wire.messages import ElectLeader, LoneEnd, Register, RegisterReply
from minilog.wire.topic_partition import TopicPartition
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_metadata
from tests.sim.stories.replication import test_elections
from tests.sim.stories.storage import test_disks

_register = BrokerRegistrations.register
_look = UncleanElections.look
_tell = LoneEnds.tell
_note = LoneEnds.note
_reopened = journal_recovery._reopened


def _clean_or_not(request: Register, known: BrokerState | None, before: Any = ()) -> DiskState:
    return DiskState.SAME if request.clean else DiskState.UNCLEAN


def _by_its_id_alone(request: Register, known: BrokerState | None, before: Any = ()) -> DiskState:
    """Whatever it was last written under."""
    if known is not None and known.used_directory_id not in ("", request.directory_id):
        return DiskState.OTHER
    return _clean_or_not(request, known)


def _against_the_last_registration(request: Register, known: BrokerState | None, before: Any = ()) -> DiskState:
    """Whether anything was written under it or not."""
    if known is not None and request.last_epoch < known.epoch:
        return DiskState.OTHER
    return _clean_or_not(request, known)


def _register_and_act(
    self: BrokerRegistrations, request_id: int, request: Register, draft: MetadataDraft, now_ms: int
) -> list[Effect]:
    """What was said counts at once."""
    effects = _register(self, request_id, request, draft, now_ms)
    known = self._image.brokers.get(request.broker_id)
    if broker_registrations._disk(request, known, ()) is DiskState.OTHER:
        for state, _ in list(draft.partitions()):
            draft.change(without_lost(state, request.broker_id))
    return effects


def _by_the_last_registration_alone(request: Register, unused: Any) -> list[UnusedRegistration]:
    """A directory that does not show its epoch was never there before."""
    return [one for one in unused[-1:] if request.last_epoch == one.broker_epoch]


def _lost_is_last_known(state: PartitionState, broker_id: int) -> PartitionState:
    return without_unclean(state, broker_id)


def _use_unnoted(self: ControllerLink, reply: RegisterReply) -> bool:
    return self._obeys(reply.controller_epoch) and self._belongs_to(reply.cluster_id)


def _decide_for_everybody(self: UncleanElections, now_ms: int) -> list[Effect]:
    """As if every topic had said so."""
    effects: list[Effect] = []
    busy = {inquiry.partition for inquiry in self._inquiries}
    for partition in self._elections.leaderless:
        state = self._image.topics[partition.topic].partitions[partition.partition]
        if partition not in busy and self._elections.kind_of(state) is None and self._alive(state):
            effects += self._ask(self._open(state, now_ms, None))
    return effects


def _always(self: UncleanElections, state: PartitionState, request: ElectLeader) -> None:
    """Whoever asks is served."""


def _tell_changes(self: LoneEnds, controller_epoch: int, replicas: Replicas) -> list[LoneEnd]:
    return _tell(self, self._controller_epoch, replicas)


def _note_alone(self: LoneEnds, partition: TopicPartition, role: LeaderState) -> None:
    if len(role.state.isr) == 1:
        _note(self, partition, role)


def _reopened_as_saved(state: PartitionState, live: Any) -> PartitionState:
    return _reopened(state, {*state.replicas})


def _nobody_is_heard(self: JournalCheck, *_: Any) -> None:
    pass


def _ids_do_not_count(self: ClusterImage, term_id: str, metadata_offset: int) -> bool:
    return metadata_offset <= self.metadata_offset


DISK_ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "R36",
        "a broker's disk is the one it had, whichever it is",
        ((broker_registrations, "_disk", _clean_or_not),),
        story=partial(test_disks.test_an_older_copy_of_a_disk_is_not_taken_for_complete, stops=True),
    ),
    Ablation(
        "R36",
        "an older copy of a disk is that disk",
        ((broker_registrations, "_disk", _by_its_id_alone),),
        story=partial(test_disks.test_an_older_copy_of_a_disk_is_not_taken_for_complete, stops=False),
    ),
    Ablation(
        "R36",
        "a registration that was not used counts as use",
        ((broker_registrations, "_disk", _against_the_last_registration),),
        story=test_disks.test_a_registration_whose_epoch_was_never_noted_costs_nobody_its_place,
    ),
    Ablation(
        "R36",
        "a broker epoch is used before it is noted",
        ((ControllerLink, "_may_use", _use_unnoted),),
        story=test_disks.test_a_registration_whose_epoch_was_never_noted_costs_nobody_its_place,
    ),
    Ablation(
        "R36",
        "what a registration says counts before its process is heard again",
        ((BrokerRegistrations, "register", _register_and_act),),
        story=test_disks.test_a_late_registration_of_a_process_that_is_gone_costs_nobody_its_place,
    ),
    Ablation(
        "R36",
        "what was found of a disk and did not count yet is forgotten",
        (
            (broker_registrations, "_of_this_directory", lambda request, unused: []),
            (broker_registrations, "_disk", _clean_or_not),
        ),
        story=partial(test_disks.test_what_was_lost_is_not_forgotten_when_the_process_dies_before_it_counts, "log"),
    ),
    Ablation(
        "R36",
        "what was found of a disk is remembered by the next registration alone",
        (
            (broker_registrations, "_of_this_directory", _by_the_last_registration_alone),
            (broker_registrations, "_disk", _clean_or_not),
        ),
        story=partial(
            test_disks.test_what_was_lost_is_not_forgotten_however_many_processes_die_before_it_counts, "log"
        ),
    ),
    Ablation(
        "R36",
        "a copy of a directory was written by the last process",
        ((ProcessMarks, "_identity", lambda self: "here"),),
        story=test_disks.test_a_copy_that_comes_back_in_the_same_boot_is_not_taken_for_complete,
    ),
    Ablation(
        "R37",
        "who has lost a disk is a last known member",
        ((broker_registrations, "without_lost", _lost_is_last_known), (Elections, "_lacking", stand_ins.all_are_good)),
        story=test_disks.test_an_empty_disk_leads_nobody_and_the_partition_says_so,
    ),
    Ablation(
        "R22",
        "what a recovery has given up is missed for ever",
        ((KnownEnds, "on_recovered", lambda self, state, last_epoch, end_offset: 0),),
        story=test_elections.test_what_a_power_cut_took_from_all_keeps_nobody_from_leading_later,
    ),
    Ablation(
        "R37",
        "a log that is gone was never there",
        ((Store, "lost", property(lambda self: [])),),
        story=test_disks.test_a_log_that_somebody_removed_counts_for_nothing_and_its_neighbours_do,
    ),
    Ablation(
        "R37",
        "nobody need decide about a loss",
        ((UncleanElections, "look", _decide_for_everybody),),
        story=test_disks.test_an_empty_disk_leads_nobody_and_the_partition_says_so,
    ),
    Ablation(
        "R37",
        "a loss is decided about without being named",
        ((UncleanElections, "_check", _always),),
        story=test_disks.test_an_empty_disk_leads_nobody_and_the_partition_says_so,
    ),
    Ablation(
        "R37",
        "who is there and has not told yet holds nothing",
        ((UncleanElections, "_is_given_up", lambda self, inquiry, now_ms: True),),
        story=test_disks.test_a_person_decides_by_what_is_there_and_was_shown,
    ),
    Ablation(
        "R37",
        "in a recovery the last known members are asked alone",
        ((Elections, "_witnesses", lambda self, state, runners, *, is_recovery: []),),
        story=partial(test_disks.test_a_copy_that_ends_before_what_is_committed_leads_nobody, "another replica"),
    ),
    Ablation(
        "R37",
        "a log that ends before what is committed is as good as any",
        ((Elections, "_lacking", stand_ins.all_are_good),),
        story=partial(test_disks.test_a_copy_that_ends_before_what_is_committed_leads_nobody, "the last leader"),
    ),
    Ablation(
        "R37",
        "a new controller is not told how far lone leaders have reached",
        ((LoneEnds, "tell", _tell_changes),),
        story=partial(test_disks.test_a_copy_of_the_only_replica_is_found_out_by_what_was_told_of_it, restarts=True),
    ),
    Ablation(
        "R37",
        "only a leader that is alone tells how far it has committed",
        ((LoneEnds, "note", _note_alone),),
        story=partial(test_disks.test_what_several_lost_copies_held_is_counted, disks=2),
    ),
    Ablation(
        "R39",
        "what a broker's copy of the metadata knew is not looked at",
        ((MetadataCopy, "topic_ids", property(lambda self: set())),),
        story=test_disks.test_what_was_deleted_meanwhile_goes_and_what_nobody_knows_is_kept,
    ),
    Ablation(
        "R39",
        "what was put aside stays there",
        ((Stray, "give_back", lambda self, directory, name, topic_id: False),),
        story=test_disks.test_what_was_put_aside_comes_back_when_its_topic_is_known_again,
    ),
    Ablation(
        "R39",
        "what nobody knows is deleted",
        ((Store, "put_aside", Store.delete),),
        story=test_disks.test_what_was_deleted_meanwhile_goes_and_what_nobody_knows_is_kept,
    ),
    Ablation(
        "R39",
        "what a snapshot does not know stays where it is",
        ((Roles, "sort_out", lambda self, now_ms: []),),
        story=test_disks.test_a_topic_deleted_on_a_full_disk_goes_also_when_the_broker_restarts_first,
    ),
    Ablation(
        "R38",
        "nobody tells a controller that its journal is old",
        ((JournalCheck, "hear", _nobody_is_heard), (JournalCheck, "check", _nobody_is_heard)),
        story=partial(test_metadata.test_a_controller_that_is_behind_its_brokers_decides_nothing, 0, True),
    ),
    Ablation(
        "R38",
        "a registration that the journal lacks is no reason to doubt it",
        ((JournalCheck, "_check_registration", _nobody_is_heard),),
        story=test_metadata.test_a_registration_that_a_journal_lacks_shows_that_it_is_old,
    ),
    Ablation(
        "R38",
        "a controller decides before it has heard who is alive",
        ((JournalCheck, "check", _nobody_is_heard),),
        story=test_metadata.test_a_new_controller_decides_when_it_has_heard_who_was_alive,
    ),
    Ablation(
        "R38",
        "an index means the same in every journal",
        ((ClusterImage, "holds", _ids_do_not_count),),
        story=test_metadata.test_a_journal_that_has_grown_past_its_brokers_is_another_one_all_the_same,
    ),
    Ablation(
        "R38",
        "a journal made anew goes on with the epochs of its copy",
        ((journal_recovery, "EPOCHS_SKIPPED", 0),),
        story=test_metadata.test_a_journal_made_anew_gives_no_leader_epoch_again,
    ),
    Ablation(
        "R38",
        "who was complete by a saved copy is complete",
        ((journal_recovery, "_reopened", _reopened_as_saved),),
        story=test_metadata.test_a_journal_made_anew_waits_for_all_who_may_hold_more,
    ),
    Ablation(
        "R46",
        "what was healthy a moment ago is healthy",
        ((health, "_of_controller", lambda known: iter(())),),
        story=test_metadata.test_nobody_calls_a_cluster_healthy_whose_controller_is_gone,
    ),
    Ablation(
        "R46",
        "what a broker has heard of is all there is",
        ((health, "_of_metadata", lambda image, known: iter(())),),
        story=test_metadata.test_nobody_calls_a_cluster_healthy_by_metadata_of_before_a_loss,
    ),
    Ablation(
        "R46",
        "a session that a controller begins with is as good as a heartbeat",
        ((BrokerSessions, "expect", BrokerSessions.open),),
        story=test_metadata.test_a_controller_that_has_just_started_calls_nobody_alive_whom_it_has_not_heard,
    ),
)
