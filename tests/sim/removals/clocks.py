"""What keeps the two clocks apart, taken away: the story of each must notice."""

from __future__ import annotations

from minilog.core.broker.state import LocalState
from minilog.core.stamps import Stamps
from tests.sim.nodes.process import Process
from tests.sim.removals.ablation import Ablation
from tests.sim.stories import test_clocks


def _turns_by_the_wall_clock(self: Process) -> int:
    return self.world.now_ms + self.clock_offset_ms + self.wall_ahead_ms


def _stamps_by_turns(self: LocalState, now_ms: int) -> int:
    return now_ms


def _as_it_is(self: Stamps, wall_ms: int) -> int:
    return wall_ms


CLOCK_ABLATIONS: tuple[Ablation, ...] = (
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
        ((LocalState, "wall_ms", _stamps_by_turns),),
        story=test_clocks.test_records_go_when_they_are_old_by_the_wall_clock,
    ),
)
