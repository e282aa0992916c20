"""Replicas on the move, without what makes that safe."""

from __future__ import annotations

from minilog.core.broker.roles import Roles
from minilog.core.controller.journal import changes, metadata_draft
from minilog.core.controller.moves.moves import Moves
from minilog.core.effects import Effect
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves import moving
from minilog.core.replication.leader_isr import LeaderIsr
from minilog.wire.admin_messages import RemoveBroker
from minilog.wire.journal.metadata_records import BrokerRemoved, MetadataRecord
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.replication import test_moves

_is_ready = moving.is_ready


def _when_added(state: PartitionState, minimum: int, is_eligible: moving.IsEligible) -> bool:
    is_back = moving.is_cancelled(state)
    return (
        _is_ready(state, minimum, is_eligible)
        if is_back
        else moving.is_moving(state) and {*moving.adding(state)} <= {*state.isr}
    )


def _back_at_once(state: PartitionState, minimum: int, is_eligible: moving.IsEligible) -> bool:
    return moving.is_cancelled(state) or _is_ready(state, minimum, is_eligible)


def _back_with_enough(state: PartitionState, minimum: int, is_eligible: moving.IsEligible) -> bool:
    return _is_ready(state, minimum, lambda broker_id: False)


def _without_waiting(self: LeaderIsr) -> list[int] | None:
    return moving.parting_isr(self.state, self.min_isr, self.is_eligible)


def _same_epoch(state: PartitionState, stored: PartitionState) -> PartitionState:
    return state


def _stays(self: Roles, now_ms: int) -> list[Effect]:
    return []


def _deleted(self: Roles, now_ms: int) -> list[Effect]:
    effects: list[Effect] = []
    for files in self._state.store.partitions():
        if self._is_left(files):
            effects += self._drop(files, now_ms, was_deleted=True)
    return effects


def _forgotten(request: RemoveBroker, image: ClusterImage, heard: object) -> list[MetadataRecord]:
    return [BrokerRemoved(request.broker_id, image.brokers[request.broker_id].epoch)]


MOVE_ABLATIONS = (
    Ablation(
        "R113",
        "a move is complete when who is added is in sync",
        ((moving, "is_ready", _when_added),),
        story=test_moves.test_a_step_that_would_leave_fewer_copies_waits,
    ),
    Ablation(
        "R113",
        "a move that is cancelled goes back whoever is in sync",
        ((moving, "is_ready", _back_at_once),),
        story=test_moves.test_a_cancelled_move_goes_back_and_the_added_copies_go,
    ),
    Ablation(
        "R113",
        "a move that is cancelled goes back when enough are in sync",
        ((moving, "is_ready", _back_with_enough),),
        story=test_moves.test_a_cancelled_move_waits_for_who_comes_back,
    ),
    Ablation(
        "R113",
        "nobody is named to succeed a leader that is to go",
        ((Moves, "_name_successor", lambda self, draft, state, now_ms: None),),
        story=test_moves.test_a_leader_that_is_to_go_hands_over_and_loses_nothing,
    ),
    Ablation(
        "R114",
        "a replica that goes leaves the leader epoch as it is",
        ((metadata_draft, "_in_new_epoch", _same_epoch),),
        story=test_moves.test_a_replica_that_was_taken_away_and_given_back_begins_with_nothing_said,
    ),
    Ablation(
        "R115",
        "the ISR parts with a replica whatever was promised by it",
        ((LeaderIsr, "_parting_isr", _without_waiting),),
        story=test_moves.test_what_was_acknowledged_because_of_who_goes_is_held_by_those_who_stay,
    ),
    Ablation(
        "R116",
        "what was taken away while a broker was away stays",
        ((Roles, "sort_out_left", _stays),),
        story=test_moves.test_a_broker_that_was_away_deletes_what_was_taken_from_it,
    ),
    Ablation(
        "R116",
        "what a broker has no replica of is deleted",
        ((Roles, "sort_out_left", _deleted),),
        story=test_moves.test_a_broker_that_knows_nothing_of_before_keeps_what_it_finds,
    ),
    Ablation(
        "R116",
        "what was taken away is deleted whatever an election was told of it",
        ((Roles, "_was_asked_since", lambda self, state, replica: False),),
        story=test_moves.test_a_copy_by_which_a_broker_was_elected_is_not_deleted_by_an_older_record,
    ),
    Ablation(
        "R117",
        "a broker is forgotten whatever it holds",
        ((changes, "remove_broker", _forgotten),),
        story=test_moves.test_a_broker_is_forgotten_when_it_holds_nothing_and_does_not_run,
    ),
)
