"""Which segments retention lets go: arithmetic on segments, and what a log makes of it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from minilog.config import TopicSettings
from minilog.errors import DiskFull
from minilog.storage.log.log import ROLL_BYTES_MIN
from minilog.storage.log.retention import Clocks, expired_end
from tests.unit.storage.batches import fill, flush, grow_old, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk


class Stretch(NamedTuple):
    base_offset: int
    size_bytes: int
    max_timestamp: int


FIVE = [Stretch(i * 10, 100, 1000 * (i + 1)) for i in range(5)]


def end(
    segments: list[Stretch] = FIVE,
    high_watermark: int = 50,
    now_ms: int | None = 10_000,
    written_before: int = 50,
    **settings: object,
) -> int:
    clocks = Clocks(now_ms, lambda limit_ms: written_before)
    return expired_end(segments, TopicSettings(**settings), high_watermark, clocks)  # type: ignore[arg-type]


FUTURE_MS = 10_000 + TopicSettings().message_timestamp_after_max_ms + 1


@pytest.mark.parametrize(("written_before", "expected"), [(0, 0), (9, 0), (10, 10), (25, 20), (50, 40)])
def test_what_is_old_by_its_times_stays_until_it_was_written_long_ago(written_before: int, expected: int) -> None:
    assert end(retention_ms=0, written_before=written_before) == expected


def test_a_topic_may_go_by_the_times_of_its_records_alone() -> None:
    assert end(retention_ms=7999, written_before=0, retention_by="timestamp") == 20


@pytest.mark.parametrize("retention_by", ["written", "timestamp"])
def test_a_time_in_the_far_future_is_none(retention_by: str) -> None:
    """One such record keeps neither its segment nor what follows. It is as old as it has been
    here."""
    segments = [FIVE[0]._replace(max_timestamp=FUTURE_MS), *FIVE[1:]]
    assert end(segments, retention_ms=1000, retention_by=retention_by, written_before=25) >= 20
    assert end(segments, retention_ms=1000, retention_by=retention_by, written_before=0) == 0
    allowed = [FIVE[0]._replace(max_timestamp=FUTURE_MS - 1), *FIVE[1:]]
    assert end(allowed, retention_ms=1000, retention_by=retention_by) == 0


def test_nothing_is_old_while_nobody_knows_the_time() -> None:
    assert end(retention_ms=0, now_ms=None) == 0
    assert end(retention_ms=0, now_ms=None, retention_bytes=150) == 30, "the size is known all the same"


@pytest.mark.parametrize(
    ("retention_ms", "expected"), [(9001, 0), (9000, 0), (8999, 10), (7999, 20), (0, 40), (-1, 0), (1, 40)]
)
def test_by_time_the_oldest_go_and_the_active_one_stays(retention_ms: int, expected: int) -> None:
    assert end(retention_ms=retention_ms) == expected


@pytest.mark.parametrize(("retention_bytes", "expected"), [(500, 0), (401, 0), (400, 10), (150, 30), (0, 40), (-1, 0)])
def test_by_size_what_is_left_is_at_least_what_was_asked_for(retention_bytes: int, expected: int) -> None:
    assert end(retention_ms=-1, retention_bytes=retention_bytes) == expected


def test_nothing_above_the_high_watermark_goes() -> None:
    assert end(high_watermark=25, retention_ms=0) == 20
    assert end(high_watermark=5, retention_ms=0) == 0


def test_one_young_segment_keeps_all_after_it() -> None:
    segments = [FIVE[0], FIVE[1]._replace(max_timestamp=9999), *FIVE[2:]]
    assert end(segments, retention_ms=5000) == 10


@pytest.mark.parametrize("retention_by", ["written", "timestamp"])
def test_records_without_a_time_are_as_old_as_they_have_been_here(retention_by: str) -> None:
    segments = [stretch._replace(max_timestamp=-1) for stretch in FIVE]
    assert end(segments, retention_ms=0, written_before=25, retention_by=retention_by) == 20


@pytest.mark.parametrize(("policy", "expected"), [("delete", 40), ("compact", 0), ("compact,delete", 40)])
def test_a_topic_that_is_only_compacted_loses_nothing_by_age(policy: str, expected: int) -> None:
    assert end(retention_ms=0, cleanup_policy=policy) == expected


@pytest.mark.parametrize(("segment_bytes", "size"), [(4096, 2100), (1 << 30, ROLL_BYTES_MIN)])
def test_a_segment_is_rolled_by_record_time_once_it_is_worth_it(segment_bytes: int, size: int) -> None:
    log = open_in(MemoryDisk(), TopicSettings(segment_ms=1000, segment_bytes=segment_bytes))
    for timestamp in (5000, 9000):
        log.append([make(log.end_offset, timestamp=timestamp)])
    for timestamp in (6000, 6001, 9000):
        log.append([make(log.end_offset, size=size if timestamp == 6000 else 10, timestamp=timestamp)])
    assert [segment.base_offset for segment in log.segments] == [0, 3]


def test_no_clock_of_a_producer_makes_a_segment_of_every_batch() -> None:
    """A few bytes, each a week later than the one before: a roll takes several syncs, and the turn
    waits for them."""
    disk = MemoryDisk()
    log = open_in(disk, TopicSettings())
    before = len(disk.operations)
    for number in range(1500):
        log.append([make(log.end_offset, timestamp=number * 8 * 86_400_000)])
    assert len(log.segments) == 1
    assert [name for name in disk.operations[before:] if "sync" in name] == []


def test_an_idle_log_is_rolled_when_it_is_old_and_durable() -> None:
    log = open_in(MemoryDisk(), TopicSettings(segment_ms=1000, retention_ms=5000))
    assert not log.maybe_roll(10**6), "an empty one never is"
    log.append([make(0, timestamp=5000)])
    assert not log.maybe_roll(10**6), "not before it is durable"
    flush(log)
    assert not log.maybe_roll(6000)
    assert log.maybe_roll(6001)
    assert not log.maybe_roll(10**6)
    log.high_watermark = 1
    assert log.expired_end(10_001) == 0, "it was written only now"
    grow_old(log, 5001)
    assert log.expired_end(10_000) == 0
    assert log.expired_end(10_001) == 1
    log.advance_start(1)
    assert (log.start_offset, log.end_offset, len(log.segments)) == (1, 1, 1)


def test_a_full_disk_does_not_keep_a_log_from_shrinking() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 6, size=2500)
    flush(log)
    log.high_watermark = 6
    disk.faults[len(disk.operations) + 1] = "full"
    log.advance_start(4)
    assert log.start_offset == 4
    again = open_in(disk, point=log.close())
    assert again.start_offset == 4
    disk.faults.update({len(disk.operations) + at: "full" for at in range(1, 9)})
    again.high_watermark = 6
    with pytest.raises(DiskFull):
        again.advance_start(5)
    assert (again.start_offset, len(again.segments)) == (4, 2)
    disk.faults.clear()
    again.advance_start(5)
    assert open_in(disk).start_offset == 5


def test_a_segment_is_as_old_as_its_last_record_also_when_it_was_looked_at_before_that_and_is_closed_since() -> None:
    log = open_in(MemoryDisk(), TopicSettings(segment_bytes=4096, retention_ms=1000))
    log.append([make(0, timestamp=1000)])
    assert log.segments[0].max_timestamp == 1000
    log.append([make(1, timestamp=5000)])
    for offset in range(2, 14):
        log.append([make(offset, size=4000, timestamp=9000)])
    flush(log)
    log.high_watermark = log.end_offset
    assert not log.segments[0].is_open
    assert log.segments[0].max_timestamp == 5000
    assert log.expired_end(5500) == 0
    assert log.offset_at(4000) == (1, 5000)


def test_the_epoch_of_what_went_last_is_remembered() -> None:
    """Also over a restart, and when nothing is left. A log that was begun anew does not know it."""
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 3, epoch=2, size=900)
    fill(log, 9, epoch=4, size=900)
    flush(log)
    log.high_watermark = log.end_offset
    assert log.start_epoch == -1
    for start_offset, epoch in ((3, 2), (5, 4), (12, 4)):
        log.advance_start(start_offset)
        assert (log.start_offset, log.start_epoch) == (start_offset, epoch)
        assert open_in(disk).start_epoch == epoch
    log.reset(20)
    assert log.start_epoch == -1
