"""How long ago something was done to a log: never more than the truth, over restarts and cuts, and
without any wall clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.config import TopicSettings
from minilog.storage.log.watched_ages import PART, Span, WatchedAges, cut_ages
from minilog.storage.store import Store
from tests.unit.storage.batches import fill, flush, grow_old, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk

SPAN_MS = 1600
SPAN = Span(SPAN_MS, SPAN_MS)
MARKS_MAX = 4 * PART


def test_what_is_old_enough_lies_below_a_look_of_long_ago() -> None:
    ages = WatchedAges(SPAN)
    for now_ms, end_offset in ((1000, 10), (1500, 20), (2000, 30)):
        ages.look(now_ms, end_offset)
    assert [ages.end_before(limit_ms) for limit_ms in (1000, 999, 500, 499, 0, -1)] == [0, 10, 10, 20, 20, 30]
    assert [ages.of(offset) for offset in (0, 10, 29, 30)] == [(10, 1000), (20, 500), (30, 0), None]


def test_time_in_which_no_process_ran_does_not_count() -> None:
    ages = WatchedAges(SPAN)
    ages.look(1000, 10)
    ages.look(1500, 10)
    again = WatchedAges(SPAN)
    again.load(ages.saved())
    again.look(10**9, 10)
    assert again.of(0) == (10, 500)
    again.look(10**9 + 100, 10)
    assert again.of(0) == (10, 600)


def test_a_log_at_rest_changes_nothing_that_is_saved_once_its_age_is_of_no_interest() -> None:
    ages = WatchedAges(SPAN)
    ages.look(0, 10)
    seen = []
    for now_ms in range(0, 100 * SPAN_MS, 50):
        ages.look(now_ms, 10)
        seen.append(ages.saved())
    assert seen[-1] == seen[SPAN_MS // 20]
    assert len(set(seen)) <= 40


def test_a_copy_takes_the_age_along_and_no_more_of_it_than_it_holds() -> None:
    ages = WatchedAges(SPAN)
    ages.look(0, 0)
    ages.note_age(10, 5000)
    ages.note_age(10, 9000)
    assert ages.of(0) == (10, 5000), "what was said first was said of all of it"
    ages.note_age(20, 7000)
    assert ages.end_before(4999) == 20, "a later part cannot be older than an earlier one"
    ages.note_age(30, 1)
    assert ages.of(20) is None, "the next look says so"


events = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "look", "look", "cut", "restart", "begin"]),
        st.integers(0, 700),
        st.randoms(),
    ),
    max_size=60,
)


@given(events, st.sampled_from([Span(1, 1), Span(100, 100), Span(10, SPAN_MS), SPAN]))
def test_it_is_never_said_to_be_older_than_it_is(events: list, span: Span) -> None:  # type: ignore[type-arg]
    """The naive version: when each record was written, in time that some process watched."""
    ages = WatchedAges(span)
    written: dict[int, int] = {}
    now_ms = start = end = 0
    for what, ms, random in events:
        now_ms += ms
        match what:
            case "write":
                for offset in range(end, end + 1 + ms % 5):
                    written[offset] = now_ms
                end = max(written) + 1
            case "look":
                ages.look(now_ms, end)
            case "cut":
                end = random.randint(start, end)
                ages.cut(end)
                written = {offset: at_ms for offset, at_ms in written.items() if offset < end}
            case "begin":
                start = random.randint(start, end)
                ages.begin(start)
            case "restart":
                saved, ages = cut_ages(ages.saved(), end), WatchedAges(span)
                ages.load(saved)
        for limit_ms in (0, 50, 100, span.most_ms):
            below = ages.end_before(limit_ms)
            assert all(now_ms - written[offset] > limit_ms for offset in range(start, min(below, end)))
        assert len(ages.saved()) <= MARKS_MAX
        assert list(ages.saved()) == sorted(ages.saved(), key=lambda mark: mark[0])


@pytest.mark.parametrize(
    "span", [Span(3_600_000, 3_600_000), Span(1000, 604_800_000), Span(60_000, 604_800_000)], ids=str
)
def test_a_log_that_is_written_to_all_the_time_is_known_to_a_sixteenth(span: Span) -> None:
    """However much longer the longest age of interest is than the shortest one, by few marks."""
    ages, step_ms = WatchedAges(span), span.most_ms // 5000
    for number in range(10_000):
        ages.look(number * step_ms, number + 1)
        if number % 500 == 499:
            for part in (64, 8, 2, 1):
                limit_ms = max(span.least_ms, span.most_ms // part)
                late_ms = limit_ms // PART + 2 * step_ms
                old_end = number + 1 - (limit_ms + late_ms) // step_ms
                assert ages.end_before(limit_ms) >= old_end, (number, limit_ms)
    assert len(ages.saved()) < 250


def test_what_was_written_again_after_a_power_cut_is_not_as_old_as_what_it_replaced() -> None:
    """The checkpoint spoke of records that were never durable, and that are gone."""
    disk = MemoryDisk()
    log = open_in(disk, TopicSettings(flush_policy="never"))
    fill(log, 5)
    flush(log)
    fill(log, 5)
    grow_old(log, 10**9)
    point = log.checkpoint()
    assert point.written[-1][0] == 5
    again = open_in(MemoryDisk(), point=point._replace(offset=0, epochs=()))
    again.append([make(0)])
    assert again.written_at(0) is None


def test_ages_are_kept_with_the_checkpoint_and_a_point_without_them_makes_all_new() -> None:
    disk = MemoryDisk()
    store = Store(disk, "/data", 1, lambda: 0)
    store.start("boot-1")
    store.recover(lambda: None)
    log = store.open("t", "id", 0, TopicSettings())
    assert isinstance(log.written, WatchedAges)
    fill(log, 5)
    flush(log)
    grow_old(log, 3_600_000)
    store.close_cleanly(1)
    for is_kept in (True, False):
        if not is_kept:
            disk.remove("/data/recovery-points")
        again = Store(disk, "/data", 1, lambda: 0)
        again.start("boot-1")
        again.recover(lambda: None)
        assert again.open("t", "id", 0, TopicSettings()).written_at(0) == ((5, 3_600_000) if is_kept else None)
        again.abandon()
