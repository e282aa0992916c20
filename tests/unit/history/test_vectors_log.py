"""What is in the logs: for each class a history with exactly this anomaly, and one that nearly has
it."""

from __future__ import annotations

from dataclasses import replace

from tests.process.checker.history import Options
from tests.unit.history.story import J, K, Story, at

ANY = Options(ok_share_min=0.0)


def test_a_plain_history_is_valid() -> None:
    story = Story()
    story.log("p", "abc")
    story.polled("c", at(0, "ab"))
    story.final(k="abc")
    verdict = story.judge(Options())
    assert verdict.valid, verdict
    assert verdict.tolerated == []
    assert (verdict.counts["acknowledged"], verdict.counts["read"], verdict.counts["reads"]) == (3, 3, 5)


# --- inconsistent-offsets -------------------------------------------------------------------------


def two_values_at_offset_1(type: str) -> Story:
    story = Story()
    unknown = story.sending("q", (K, "x"))
    story.log("p", "abc")
    story.end(unknown, "info")
    op = story.begin("c", "poll", [["poll"]])
    story.end(op, type, [["poll", {K: at(0, "ax")}]])  # type: ignore[arg-type]
    return story.final(k="abc")


def test_inconsistent_offsets_whatever_became_of_the_poll() -> None:
    assert two_values_at_offset_1("info").violated() == {"inconsistent-offsets"}
    assert two_values_at_offset_1("fail").violated() == {"inconsistent-offsets"}
    # Read by an ok poll, x counts as read, and the final read lacks it.
    assert two_values_at_offset_1("ok").violated() == {"inconsistent-offsets", "final-missing"}


def test_one_value_at_one_offset_many_times_is_consistent() -> None:
    story = Story()
    story.log("p", "ab")
    for consumer in ("c", "d"):
        story.polled(consumer, at(0, "ab"))
    assert story.final(k="ab").violated() == set()


def test_the_offset_of_an_unconfirmed_transaction_says_nothing() -> None:
    story = Story()
    story.log("p", "ab")
    op = story.begin("q", "txn", [["send", K, "x"]])
    story.sent_ok(op, 1, type="info")
    assert story.final(k="ab").violated() == set()


def test_an_info_send_with_an_offset_was_acknowledged_by_itself() -> None:
    story = Story()
    story.log("p", "ab")
    story.sent_ok(story.sending("q", (K, "x"), (K, "y")), 1, None, type="info")
    assert "inconsistent-offsets" in story.final(k="ab").violated()


# --- duplicate ------------------------------------------------------------------------------------


def test_duplicate() -> None:
    story = Story()
    story.log("p", "ab")
    story.final(k="aba")
    assert story.violated() == {"duplicate"}
    assert story.violated(replace(ANY, idempotent=False)) == set()
    assert "duplicate" in story.tolerated(replace(ANY, idempotent=False))


def test_reading_one_offset_twice_is_no_duplicate() -> None:
    story = Story()
    story.log("p", "ab")
    story.polled("c", at(0, "ab"))
    story.assigned("c", {K: 0})
    story.polled("c", at(0, "ab"))
    assert story.final(k="ab").violated() == set()


# --- lost-write -----------------------------------------------------------------------------------


def test_lost_write() -> None:
    story = Story()
    story.log("p", "abc")
    story.polled("c", [[0, "a"], [2, "c"]], type="info")
    story.polled("c", [[0, "a"]])
    story.polled("d", [[2, "c"]])
    story.final(k="a.c")
    assert story.violated() == {"lost-write", "unseen", "final-missing", "int-poll-skip"}


def test_a_write_above_what_was_read_is_not_lost_but_unseen() -> None:
    story = Story()
    story.log("p", "abc")
    story.final(k="ab")
    assert story.violated() == {"unseen", "final-missing"}


def test_lost_write_and_conflicts_earliest_bound_latest_victim() -> None:
    """x is read at 1 and at 4. Its earliest place bounds: c at 3 is not lost by x's second one."""
    story = Story()
    story.log("p", "ab")
    story.end(story.sending("q", (K, "x")), "info")
    story.sent("p", "c", 3)
    story.polled("c", [[0, "a"]])
    story.polled("d", [[2, "x"]])
    story.polled("e", [[4, "x"]])
    assert "lost-write" in story.violated()  # b at 1 lies below the x at 2
    assert story.judge().classes["lost-write"].violations == 1


def test_info_writes_need_not_be_there() -> None:
    story = Story()
    story.log("p", "a")
    story.end(story.sending("q", (K, "x"), (K, "y")), "info")
    story.polled("c", [[1, "y"]])
    assert story.final(k="ay").violated() == set()


def test_a_batch_is_there_whole_or_not_at_all() -> None:
    """The acknowledgement of a batch was lost; half of it was read at offset 2, so the other half
    was at 1."""
    story = Story()
    story.log("p", "a")
    story.end(story.sending("q", (K, "x"), (K, "y"), batch=True), "info")
    story.final(k="a.y")
    assert story.violated() == {"lost-write", "int-poll-skip"}
    assert "offset 1" in story.judge().classes["lost-write"].examples[0]


def test_nothing_of_a_batch_is_fine() -> None:
    story = Story()
    story.log("p", "a")
    story.end(story.sending("q", (K, "x"), (K, "y"), batch=True), "info")
    assert story.final(k="a").violated() == set()


def test_an_operation_in_flight_at_the_end_is_info() -> None:
    story = Story()
    story.log("p", "a")
    story.sending("q", (K, "x"))
    assert story.final(k="ax").violated() == set()
    story = Story()
    story.log("p", "a")
    story.sending("q", (K, "x"))
    assert story.final(k="a").violated() == set()


# --- weak acknowledgements (R9) -------------------------------------------------------------------


def test_losing_a_weakly_acknowledged_write_is_counted() -> None:
    story = Story()
    story.log("p", "ab")
    story.sent_ok(story.sending("q", (K, "x"), acks=1), 1)
    story.final(k="ab")
    assert story.violated() == set()
    assert story.tolerated() == {"unseen"}
    assert story.violated(replace(ANY, strong_acks=frozenset({"all", 1}))) >= {"inconsistent-offsets", "lost-write"}


def test_the_level_of_the_options_counts_for_sends_that_name_none() -> None:
    story = Story()
    story.log("p", "abc")
    story.final(k="ab")
    assert story.violated(replace(ANY, acks=1)) == set()
    assert story.tolerated(replace(ANY, acks=1)) == {"unseen"}


def test_what_was_read_is_committed_at_any_acks_level() -> None:
    story = Story()
    story.log("p", "ab")
    story.sent_ok(story.sending("q", (K, "x"), acks=1), 2)
    story.polled("c", [[2, "x"]])
    assert "final-missing" in story.final(k="ab").violated()


# --- aborted-read, precommitted-read, phantom-read ------------------------------------------------


def test_aborted_read() -> None:
    story = Story()
    story.end(story.sending("p", (K, "a")), "fail", err="NOT_LEADER")
    assert story.final(k="a").violated() == {"aborted-read"}


def test_a_failed_write_shown_by_a_failed_poll_only_is_not_counted() -> None:
    story = Story()
    story.log("p", "a")
    story.end(story.sending("p", (K, "b")), "fail", err="NOT_LEADER")
    story.polled("c", at(0, "ab"), type="fail")
    verdict = story.final(k="a").judge()
    assert verdict.violated == []


def read_own_send(reader: str) -> Story:
    story = Story()
    op = story.begin("p", "txn", [["send", K, "a"], ["poll"]])
    other = story.begin(reader, "poll", [["poll"]])
    shown = [["poll", {K: at(0, "a")}]]
    story.end(other, "ok", shown if reader == "c" else [["poll", {}]])
    story.end(op, "ok", [["send", K, [0, "a"]], *(shown if reader != "c" else [["poll", {}]])])
    return story.final(k="a")


def test_precommitted_read() -> None:
    assert read_own_send("nobody").violated() == {"precommitted-read"}
    assert read_own_send("c").violated() == set()


def test_phantom_read() -> None:
    story = Story()
    story.log("p", "a")
    assert story.final(k="ab").violated() == {"phantom-read"}


def test_phantom_read_of_a_value_sent_elsewhere() -> None:
    story = Story()
    story.log("p", "a")
    story.log("p", "x", key=J)
    assert story.final(k="ax", j="x").violated() == {"phantom-read"}


def test_phantom_read_before_it_was_sent() -> None:
    story = Story()
    story.polled("c", at(0, "a"))
    story.end(story.sending("p", (K, "a")), "info")
    assert "phantom-read" in story.final(k="a").violated()


def test_reading_what_is_still_in_flight_is_no_phantom() -> None:
    story = Story()
    op = story.sending("p", (K, "a"))
    story.polled("c", at(0, "a"))
    story.sent_ok(op, 0)
    assert story.final(k="a").violated() == set()


# --- bit-exactness --------------------------------------------------------------------------------


def payload_read_as(sent: list[str], *read: str | None) -> set[str]:
    story = Story()
    op = story.begin("p", "send", [["send", K, "a", *sent]])
    story.sent_ok(op, 0)
    for digest in read:
        story.assigned("c", {K: 0})
        story.polled("c", [[0, "a", digest]])
    return story.final(k="a").violated()


def test_bit_exactness() -> None:
    assert payload_read_as(["d1"], "d2") == {"bit-exactness"}
    assert payload_read_as([], "d1", "d2") == {"bit-exactness"}
    assert payload_read_as(["d1"], "d1", "d1") == set()
    assert payload_read_as(["d1"], None) == set()
    assert payload_read_as([], "d1", "d1") == set()


# --- unseen, final-missing ------------------------------------------------------------------------


def test_unseen_counts_only_without_a_final_phase() -> None:
    story = Story()
    story.log("p", "ab")
    story.polled("c", at(0, "a"))
    options = replace(ANY, final_phase=None)
    assert story.violated(options) == set()
    assert story.tolerated(options) == {"unseen"}
    assert story.judge(options).valid


def test_what_vanishes_after_it_was_read_is_not_unseen_but_missing() -> None:
    story = Story()
    story.log("p", "abc")
    story.polled("c", at(0, "abc"))
    assert story.final(k="ab").violated() == {"final-missing"}


def test_what_retention_took_is_not_missed() -> None:
    story = Story()
    story.log("p", "abc")
    story.polled("c", at(0, "a"))
    story.phase("final")
    story.assigned("reader", {K: 0})
    story.polled("reader", at(2, "c"))
    assert story.violated() >= {"final-missing", "unseen"}
    verdict = story.judge(replace(ANY, log_start={K: 2}))
    assert verdict.valid, verdict


# --- forced loss ----------------------------------------------------------------------------------


def forced_loss() -> Story:
    """b and c were acknowledged and lost. Offset 1 was given out again."""
    story = Story()
    story.log("p", "abc")
    story.polled("c", at(0, "ab"))
    story.polled("c", [], type="fail", err="LOG_TRUNCATED", truncated={K: 1})
    story.sent("q", "x", 1)
    story.polled("c", at(1, "x"))
    return story.final(k="ax")


def test_forced_loss_is_a_violation_unless_it_was_asked_for() -> None:
    assert forced_loss().violated() >= {"inconsistent-offsets", "unseen", "final-missing", "realtime-send"}
    verdict = forced_loss().judge(replace(ANY, unclean=True))
    assert verdict.valid, verdict
    assert set(verdict.tolerated) >= {"inconsistent-offsets", "unseen", "final-missing", "realtime-send"}


def test_only_the_reported_loss_is_allowed() -> None:
    exact = replace(ANY, unclean=True, reported_loss={K: [(1, 3)]})
    assert forced_loss().violated(exact) == set()
    short = replace(ANY, unclean=True, reported_loss={K: [(1, 2)]})
    assert "final-missing" in forced_loss().violated(short)
