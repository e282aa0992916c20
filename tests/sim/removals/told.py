"""What people are told, taken back: told twice, or told no more by the next controller. And lost
records, written again by several."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.broker.standing.broker_events import BrokerEvents
from minilog.core.broker.standing.first_writes import FirstWrites
from minilog.core.controller import controller
from minilog.core.controller.told import lost_claims
from minilog.core.image import ClusterImage
from minilog.wire.journal.events import SeenEvent
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.journal.metadata_records import ControllerStarted, EventNoted, LostClaimed, MetadataRecord
from minilog.wire.messages import ClaimLost, ClaimLostReply, FirstWrite, Heartbeat
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_events
from tests.sim.stories.storage import test_lost

_tell = BrokerEvents.tell
_tell_written = FirstWrites.tell
_apply = ClusterImage.apply
_again = lost_claims._again


def _every_time(image: ClusterImage, request: Heartbeat) -> list[MetadataRecord]:
    return [EventNoted(0, seen.event, request.incarnation, seen.number) for seen in request.events]


def _once(self: BrokerEvents, at_ms: int) -> list[SeenEvent]:
    told = _tell(self, at_ms)
    self.on_noted(self._number)
    return told


def _only_while_it_runs(self: ClusterImage, info: FailoverInfo) -> None:
    """A new controller begins with an empty list."""
    if info.controller_epoch == self.controller_epoch:
        self.failovers = [known for known in self.failovers if known.controller_epoch == self.controller_epoch]
        self.failovers = [known for known in self.failovers if known.number != info.number] + [info]
    else:
        self.failovers = []


def _apply_without_claims(self: ClusterImage, index: int, record: MetadataRecord) -> None:
    _apply(self, index, record)
    if isinstance(record, ControllerStarted):
        self.lost_claims.clear()


def _never_finished(
    known: LostClaimed, request: ClaimLost, image: ClusterImage
) -> tuple[list[LostClaimed], ClaimLostReply]:
    return _again(known, replace(request, finished=False), image)


def _once_written(self: FirstWrites, now_ms: int) -> list[FirstWrite]:
    told = _tell_written(self, now_ms)
    self.on_answered()
    return told


TOLD_ABLATIONS = (
    Ablation(
        "R98",
        "what is told again is noted again",
        ((controller, "untold", _every_time),),
        story=test_events.test_what_a_weaker_level_lost_is_told_once_with_its_numbers,
    ),
    Ablation(
        "R98",
        "a broker tells once, whether it was noted or not",
        ((BrokerEvents, "tell", _once),),
        story=test_events.test_what_a_weaker_level_lost_is_told_once_with_its_numbers,
    ),
    Ablation(
        "R99",
        "a failover is remembered by the controller that saw it",
        ((ClusterImage, "_apply_failover", _only_while_it_runs),),
        story=test_events.test_a_failover_and_what_it_cost_outlive_everybody,
    ),
    Ablation(
        "R99",
        "a first write is told once, whether the heartbeat was answered or not",
        ((FirstWrites, "tell", _once_written),),
        story=test_events.test_a_first_write_is_known_although_the_heartbeat_that_told_of_it_was_lost,
    ),
    Ablation(
        "R100",
        "who keeps lost records writes them again",
        ((lost_claims, "without", lambda runs, taken: list(runs)),),
        story=test_lost.test_lost_records_are_given_to_one_of_those_who_keep_them,
    ),
    Ablation(
        "R100",
        "a claim is forgotten with the controller that took it",
        ((ClusterImage, "apply", _apply_without_claims),),
        story=test_lost.test_lost_records_are_given_to_one_of_those_who_keep_them,
    ),
    Ablation(
        "R100",
        "what was claimed is left to a disk that is lost",
        ((ClusterImage, "is_given_up", lambda self, claim: False),),
        story=test_lost.test_what_a_broker_claimed_and_lost_with_its_disk_is_written_by_another,
    ),
    Ablation(
        "R100",
        "what is written is taken over as if it were not",
        ((lost_claims, "_again", _never_finished),),
        story=test_lost.test_what_a_broker_claimed_and_lost_with_its_disk_is_written_by_another,
    ),
)
