"""What keeps the two clocks apart, taken away: the story of each must notice."""

from __future__ import annotations

from minilog.config import TopicSettings
from minilog.core.broker.requests import produce
from minilog.core.broker.state import LocalState
from minilog.core.stamps import Stamps
from minilog.storage.log.retention import Clocks
from minilog.storage.log.stored_log import StoredLog
from minilog.storage.log.watched_ages import WatchedAges
from tests.sim.nodes.process import Process
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.storage import test_clocks


def _turns_by_the_wall_clock(self: Process) -> int:
    return self.world.now_ms + self.clock_offset_ms + self.wall_ahead_ms


def _stamps_by_turns(self: LocalState, now_ms: int) -> int:
    return now_ms


def _as_it_is(self: Stamps, wall_ms: int) -> int:
    return wall_ms


def _everything(self: WatchedAges, limit_ms: int) -> int:
    return 2**62


def _every_time_is_one(self: Clocks, timestamp: int, end_offset: int, limit_ms: int, settings: TopicSettings) -> bool:
    is_past = self.wall_ms is not None and timestamp < self.wall_ms - limit_ms
    return is_past and end_offset <= self.end_before(limit_ms)


CLOCK_ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "R40",
        "records are as old as the clock says",
        ((WatchedAges, "end_before", _everything),),
        story=test_clocks.test_no_step_of_a_clock_makes_records_old,
    ),
    Ablation(
        "R40",
        "a time in the next century is a time",
        ((Clocks, "are_past", _every_time_is_one),),
        story=test_clocks.test_a_time_in_the_next_century_keeps_nothing,
    ),
    Ablation(
        "R40",
        "whatever time a producer gives is taken",
        ((produce, "check_timestamps", stand_ins.nothing),),
        story=test_clocks.test_a_time_that_cannot_be_is_refused,
    ),
    Ablation(
        "R40",
        "a broker whose clock is off deletes all the same",
        ((LocalState, "sure_wall_ms", lambda self, now_ms: self.wall_ms(now_ms)),),
        story=test_clocks.test_a_broker_whose_clock_is_not_the_controllers_deletes_nothing_because_of_its_age,
    ),
    Ablation(
        "R40",
        "a copy is as new as its disk",
        ((StoredLog, "note_written", stand_ins.nothing),),
        story=test_clocks.test_a_copy_is_as_old_as_what_it_was_copied_from,
    ),
    Ablation(
        "clock",
        "no time limit goes by the wall clock",
        ((Process, "now_ms", property(_turns_by_the_wall_clock)),),
        story=test_clocks.test_a_wall_clock_that_is_set_ends_no_session_and_no_wait,
    ),
    Ablation(
        "clock",
        "stamps go by the wall clock",
        ((LocalState, "wall_ms", _stamps_by_turns),),
        story=test_clocks.test_records_are_stamped_by_the_wall_clock_of_their_leader,
    ),
    Ablation(
        "clock",
        "stamps wait for a wall clock that was set back",
        ((Stamps, "take", _as_it_is),),
        story=test_clocks.test_stamps_do_not_go_back_when_the_wall_clock_does_unless_it_was_far_wrong,
    ),
    Ablation(
        "clock",
        "what is old is old by the wall clock",
        ((LocalState, "sure_wall_ms", _stamps_by_turns),),
        story=test_clocks.test_records_go_when_they_are_old_by_the_wall_clock,
    ),
)
