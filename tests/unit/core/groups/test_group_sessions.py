"""Who is silent is expelled, and who stood still blames nobody."""

from __future__ import annotations

import pytest

from minilog.errors import (
    InvalidGroup,
    InvalidRequest,
    MinilogError,
    UnknownMember,
)
from minilog.wire.group_messages import (
    GroupHeartbeat,
    GroupHeartbeatReply,
)
from tests.unit.core.groups.group_bench import Bench, listed, parts

SESSION_MS = 10_000


def test_who_is_silent_for_its_session_is_out_and_may_not_commit() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    bench.tick(6000)
    bench.beat("b", told["b"].member_epoch, parts(told["b"]))
    bench.tick(3999)
    assert bench.describe().group.members == 2
    bench.tick(1)
    assert [m.member_id for m in bench.describe().members] == ["b"]
    with pytest.raises(UnknownMember):
        bench.commit("a", told["a"].member_epoch, (min(parts(told["a"]))[1], 5))
    assert len(parts(bench.beat("b", told["b"].member_epoch, parts(told["b"])))) == 4


def test_who_does_not_give_back_is_heard_no_more_but_keeps_what_it_holds_for_its_session() -> None:
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=500)
    bench.beat("b")
    bench.beat("a", 1, parts(a), poll_timeout_ms=500)
    bench.tick(500)
    with pytest.raises(UnknownMember):
        bench.beat("a", 2, parts(a), poll_timeout_ms=500)
    assert bench.beat("b", 2).pending == 2
    bench.tick(9499)
    assert bench.beat("b", 2).pending == 2
    bench.tick(1)
    assert len(parts(bench.beat("b", 2))) == 4


def expelled() -> tuple[Bench, GroupHeartbeatReply]:
    """Member a was to give two of its partitions to b, and took too long. What it was told when it
    had all four."""
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=500)
    bench.beat("b")
    bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    bench.tick(500)
    with pytest.raises(UnknownMember):
        bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    return bench, a


def test_who_was_expelled_and_joins_anew_frees_its_partitions_with_its_next_heartbeat() -> None:
    bench, _ = expelled()
    again = bench.beat("a", 0, poll_timeout_ms=500)
    assert len(parts(again)) == 2
    bench.beat("a", again.member_epoch, parts(again), poll_timeout_ms=500)
    assert len(parts(bench.beat("b", 2))) == 2


def test_a_late_copy_of_the_join_of_a_member_that_was_expelled_frees_nothing() -> None:
    """It may still work on all of them: its session is not over by its own clock."""
    bench, a = expelled()
    bench.beat("a", 0, poll_timeout_ms=500)
    assert not parts(bench.beat("b", 2))
    bench.tick(500)
    assert not parts(bench.beat("b", 2))
    with pytest.raises(UnknownMember):
        bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    bench.tick(SESSION_MS - 1001)
    bench.beat("b", 2)
    bench.tick(1001)
    assert len(parts(bench.beat("b", 2))) == 4


def test_who_joins_anew_with_something_to_give_back_is_heard_again_before_it_is_expelled_for_that() -> None:
    """Or it would be expelled and join in turn, and nobody would ever get what it held."""
    bench, _ = expelled()
    told = bench.beat("a", 0, poll_timeout_ms=500)
    assert told.heartbeat_interval_ms < 500
    bench.tick(told.heartbeat_interval_ms)
    bench.beat("a", told.member_epoch, poll_timeout_ms=500)
    assert len(parts(bench.beat("b", 2))) >= 2


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"group": "a b"}, InvalidGroup),
        ({"group": "x" * 250}, InvalidGroup),
        ({"topics": []}, InvalidRequest),
        ({"pattern": "t", "topics": ["t"]}, InvalidRequest),
        ({"pattern": "("}, InvalidRequest),
        ({"assignor": "best"}, InvalidRequest),
        ({"session_timeout_ms": 10}, InvalidRequest),
        ({"poll_timeout_ms": 0}, InvalidRequest),
        ({"epoch": -1}, InvalidRequest),
        ({"epoch": 3}, UnknownMember),
    ],
)
def test_what_a_heartbeat_may_be(more: dict[str, object], error: type[MinilogError]) -> None:
    bench = Bench()
    fields: dict[str, object] = {"group": "g", "member_id": "m", "member_epoch": more.pop("epoch", 0), **more}
    if "pattern" not in more:
        fields.setdefault("topics", ["t"])
    with pytest.raises(error):
        bench.do(GroupHeartbeat(**fields))  # type: ignore[arg-type]
    assert not bench.log


def test_a_coordinator_that_stood_still_blames_nobody() -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    bench.tick(500)
    bench.now_ms += 60_000
    bench.tick()
    assert bench.beat("a", told.member_epoch, parts(told)) == told
    bench.tick(10_001)
    with pytest.raises(UnknownMember):
        bench.beat("a", told.member_epoch, parts(told))


@pytest.mark.parametrize("gap_ms", [600, 1500, 4000])
def test_a_coordinator_that_is_slow_all_the_time_lets_a_silent_member_go_at_last(gap_ms: int) -> None:
    """Within two sessions and one gap, at the next tick; and not before its own session is over."""
    bench = Bench()
    bench.beat("a")
    began_ms = bench.now_ms
    while bench.groups.groups["g"].group.members:
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.now_ms < began_ms + 2 * SESSION_MS + 2 * gap_ms
    assert bench.now_ms >= began_ms + 2 * SESSION_MS


@pytest.mark.parametrize("gap_ms", [600, 1500, 4000])
def test_a_coordinator_that_is_slow_all_the_time_keeps_a_member_it_hears(gap_ms: int) -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    for _ in range(20 * SESSION_MS // gap_ms):
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.beat("a", told.member_epoch, parts(told)) == told


def test_to_be_heard_is_to_be_forgiven_anew() -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    for _ in range(3):
        bench.now_ms += 60_000
        bench.tick()
        assert bench.beat("a", told.member_epoch, parts(told)) == told
    for gap_ms, members in ((60_000, 1), (60_000, 0)):
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.describe().group.members == members


def test_forgiveness_moves_the_time_to_give_back_too_and_as_little() -> None:
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=2000)
    bench.beat("b", poll_timeout_ms=2000)
    bench.beat("a", 1, parts(a), poll_timeout_ms=2000)  # told to give back two of them
    bench.now_ms += 60_000
    bench.tick()
    session = bench.groups.groups["g"].sessions["a"]
    assert (session.return_ms, session.is_expelled) == (bench.now_ms + 2000, False)
    bench.tick(2000)
    assert session.is_expelled


@pytest.mark.parametrize("has_given_back", [False, True])
def test_who_cannot_say_that_it_has_given_back_is_not_expelled_for_it(has_given_back: bool) -> None:
    """It asks all the time, and is refused: nothing can be written at the moment."""
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=2000)
    bench.beat("b")
    told = bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=2000)
    owned = listed(parts(told) if has_given_back else parts(a))
    for _ in range(10):
        says = GroupHeartbeat("g", "a", told.member_epoch, ["t"], owned=owned, poll_timeout_ms=2000)
        bench.groups.on_refused(says, bench.now_ms)
        bench.tick(500)
    assert bench.groups.groups["g"].is_expelled("a") is not has_given_back
