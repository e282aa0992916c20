"""The order of sends and polls: for each class a history with exactly this anomaly, and one that
nearly has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.process.checker.history import Options
from tests.unit.history.story import J, K, Story, at

ANY = Options(ok_share_min=0.0)


def sent(values: str) -> Story:
    story = Story()
    story.log("p", values)
    return story


# --- inside one poll ------------------------------------------------------------------------------


def test_int_poll_skip() -> None:
    story = sent("abc")
    story.polled("c", [[0, "a"], [2, "c"]])
    assert story.final(k="abc").violated() == {"int-poll-skip"}
    assert "'b'" in story.judge().classes["int-poll-skip"].examples[0]


def test_int_poll_skip_is_judged_in_failed_polls_too() -> None:
    story = sent("abc")
    story.polled("c", [[0, "a"], [2, "c"]], type="fail")
    assert story.final(k="abc").violated() == {"int-poll-skip"}


def test_two_polls_of_one_operation_are_one_row() -> None:
    story = sent("abc")
    op = story.begin("c", "poll", [["poll"], ["poll"]])
    story.end(op, "ok", [["poll", {K: at(0, "a")}], ["poll", {K: at(2, "c")}]])
    assert story.final(k="abc").violated() == {"int-poll-skip"}


@pytest.mark.parametrize("records", [[[1, "b"], [0, "a"]], [[0, "a"], [0, "a"]]])
def test_int_nonmonotonic_poll(records: list[list[object]]) -> None:
    story = sent("ab")
    story.polled("c", records)
    assert story.final(k="ab").violated() == {"int-nonmonotonic-poll"}


def test_a_rebalanced_key_is_not_judged_inside_the_poll() -> None:
    story = sent("abc")
    story.assigned("c", [K], "subscribe")
    story.polled("c", [[0, "a"], [2, "c"], [1, "b"]], rebalanced=[K])
    assert story.final(k="abc").violated() == set()


# --- from poll to poll ----------------------------------------------------------------------------


def test_poll_skip() -> None:
    story = sent("abc")
    story.polled("c", at(0, "a"))
    story.polled("c", at(2, "c"))
    assert story.final(k="abc").violated() == {"poll-skip"}


def test_nonmonotonic_poll() -> None:
    story = sent("abc")
    story.polled("c", at(0, "ab"))
    story.polled("c", at(1, "bc"))
    assert story.final(k="abc").violated() == {"nonmonotonic-poll"}


def test_both_are_tolerated_of_subscribers() -> None:
    story = sent("abcd")
    story.assigned("c", [K], "subscribe")
    story.polled("c", at(0, "a"))
    story.polled("c", at(2, "c"))
    story.polled("c", at(1, "bcd"))
    story.final(k="abcd")
    assert story.violated() == set()
    assert story.tolerated() == {"poll-skip", "nonmonotonic-poll"}


def test_a_rebalance_is_forgotten_not_even_counted() -> None:
    story = sent("abcd")
    story.assigned("c", [K], "subscribe")
    story.polled("c", at(0, "ab"))
    story.polled("c", at(0, "abcd"), rebalanced=[K])
    assert story.final(k="abcd").tolerated() == set()


def test_going_on_exactly_is_fine() -> None:
    story = sent("abcd")
    story.polled("c", at(0, "ab"))
    story.polled("c", [])
    story.polled("c", at(2, "cd"))
    assert story.final(k="abcd").violated() == set()


def test_a_failed_poll_is_judged_but_does_not_move() -> None:
    story = sent("abcd")
    story.polled("c", at(0, "a"))
    story.polled("c", at(1, "bc"), type="info")
    story.polled("c", at(1, "bcd"))
    assert story.final(k="abcd").violated() == set()
    story = sent("abcd")
    story.polled("c", at(0, "a"))
    story.polled("c", at(2, "c"), type="info")
    assert story.final(k="abcd").violated() == {"poll-skip"}


def test_positions_live_as_long_as_the_assignment() -> None:
    story = sent("abc")
    story.log("p", "x", key=J)
    story.polled("c", at(0, "a"))
    story.assigned("c", [K, J])  # keeps k
    story.polled("c", at(2, "c"))
    assert story.final(k="abc", j="x").violated() == {"poll-skip"}
    story = sent("abc")
    story.log("p", "x", key=J)
    story.polled("c", at(0, "a"))
    story.assigned("c", [J])  # drops k
    story.assigned("c", [K, J])
    story.polled("c", at(2, "c"))
    assert story.final(k="abc", j="x").violated() == set()


@pytest.mark.parametrize(("start", "first", "expected"), [(1, 1, set()), (0, 1, {"poll-skip"}), (2, 1, {"nonmonotonic-poll"})])  # fmt: skip
def test_a_seek_is_a_position(start: int, first: int, expected: set[str]) -> None:
    story = sent("abc")
    story.assigned("c", {K: start})
    story.polled("c", at(first, "abc"[first:]))
    assert story.final(k="abc").violated() == expected


def test_a_crash_forgets() -> None:
    story = sent("abc")
    story.polled("c", at(0, "a"))
    story.end(story.begin("c", "crash"), "info")
    story.polled("c", at(2, "c"))
    assert story.final(k="abc").violated() == set()


def test_two_consumers_do_not_share_a_position() -> None:
    story = sent("abc")
    story.polled("c", at(0, "a"))
    story.polled("d", at(2, "c"))
    assert story.final(k="abc").violated() == set()


# --- offset-gap -----------------------------------------------------------------------------------


def hole_at_1() -> Story:
    story = Story()
    story.sent("p", "a", 0)
    story.sent("p", "b", 2)
    return story.final(k="a.b")


def test_offset_gap() -> None:
    assert hole_at_1().violated() == {"offset-gap"}
    assert hole_at_1().violated(replace(ANY, contiguous_offsets=False)) == set()


def test_offset_gap_at_the_start() -> None:
    story = Story()
    story.sent("p", "a", 1)
    verdict = story.final(k=".a").judge()
    assert verdict.violated == ["offset-gap"]
    assert any("began at 1, the log at 0" in problem for problem in verdict.problems)
    assert story.judge(replace(ANY, log_start={K: 1})).valid


def test_a_known_record_between_is_a_skip_and_no_gap() -> None:
    story = sent("abc")
    story.polled("c", at(0, "a"))
    story.polled("c", at(2, "c"))
    assert "offset-gap" not in story.final(k="abc").violated()


def test_no_gap_between_what_different_readers_saw() -> None:
    story = Story()
    story.sent("p", "a", 0)
    story.end(story.sending("q", (K, "b")), "info")
    story.sent("p", "c", 2)
    story.polled("c", at(0, "a"))
    story.polled("d", at(2, "c"))
    assert "offset-gap" not in story.violated(replace(ANY, final_phase=None))


# --- sends ----------------------------------------------------------------------------------------


def one_operation(*offsets: int | None, foreign: int | None = None, batch: bool = False) -> Story:
    """p sends a and b in one operation; q sends x."""
    story = Story()
    op = story.sending("p", (K, "a"), (K, "b"), batch=batch)
    other = story.sending("q", (K, "x"))
    story.end(other, "fail") if foreign is None else story.sent_ok(other, foreign)
    story.sent_ok(op, *offsets)
    placed: dict[int | None, str] = {**dict(zip(offsets, "ab", strict=True)), foreign: "x"}
    return story.final(k="".join(placed.get(offset, ".") for offset in range(3)).rstrip("."))


def test_int_send_skip_is_tolerated() -> None:
    story = one_operation(0, 2, foreign=1)
    assert story.violated() == set()
    assert story.tolerated() >= {"int-send-skip"}


def test_but_not_inside_a_batch() -> None:
    assert one_operation(0, 2, foreign=1, batch=True).violated() == {"int-send-skip"}
    assert one_operation(0, 2, batch=True).violated() == {"int-send-skip", "offset-gap"}


def test_sends_in_a_row_skip_nothing() -> None:
    story = one_operation(0, 1, foreign=2, batch=True)
    assert story.violated() == set()
    assert story.tolerated() == set()


def test_int_nonmonotonic_send() -> None:
    story = one_operation(1, 0)
    assert story.violated() == {"int-nonmonotonic-send"}
    assert story.violated(replace(ANY, ordered_sends=False)) == set()


def test_int_nonmonotonic_send_by_what_was_read() -> None:
    story = Story()
    story.end(story.sending("p", (K, "a"), (K, "b")), "info")
    assert story.final(k="ba").violated() == {"int-nonmonotonic-send"}


def pipelined(first: int | None, second: int | None, process: str = "p") -> Story:
    """Two operations in flight at once, of one process or of two."""
    story = Story()
    one, two = story.sending("p", (K, "a")), story.sending(process, (K, "b"))
    story.sent_ok(two, second)
    story.sent_ok(one, first)
    return story.final(k="ab" if (first, second) == (0, 1) else "ba")


def test_nonmonotonic_send() -> None:
    assert pipelined(1, 0).violated() == {"nonmonotonic-send"}
    assert pipelined(None, None).violated() == {"nonmonotonic-send"}
    assert pipelined(0, 1).violated() == set()
    assert pipelined(1, 0, process="q").violated() == set()


def test_nonmonotonic_send_across_one_nobody_knows() -> None:
    story = Story()
    ops = [story.sending("p", (K, value)) for value in "axb"]
    story.sent_ok(ops[0], 1)
    story.end(ops[1], "info")
    story.sent_ok(ops[2], 0)
    assert story.final(k="ba").violated() == {"nonmonotonic-send"}


def test_nonmonotonic_send_forgets_with_the_assignment() -> None:
    story = Story()
    one = story.sending("p", (K, "a"))
    story.assigned("p", [J])
    two = story.sending("p", (K, "b"))
    story.sent_ok(one, 1)
    story.sent_ok(two, 0)
    assert story.final(k="ba").violated() == set()


def test_a_failed_send_is_no_predecessor() -> None:
    story = Story()
    story.sent("p", "a", 0)
    story.end(story.sending("p", (K, "b")), "fail")
    story.sent("p", "c", 1)
    assert story.final(k="ac").violated() == set()


def test_realtime_send() -> None:
    story = Story()
    story.sent("p", "a", 1)
    story.sent("q", "b", 0)
    assert story.final(k="ba").violated() == {"realtime-send"}


def test_realtime_send_below_what_was_read() -> None:
    story = Story()
    unknown = story.sending("p", (K, "a"))
    story.polled("c", at(1, "a"))
    story.sent("q", "b", 0)
    story.end(unknown, "info")
    assert story.final(k="ba").violated() == {"realtime-send"}


def test_a_weak_acknowledgement_proves_no_offset() -> None:
    story = Story()
    story.sent("p", "a", 1, acks=1)
    story.sent("q", "b", 0)
    assert story.final(k="ba").violated() == set()
