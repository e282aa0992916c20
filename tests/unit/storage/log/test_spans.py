"""Offsets that run over what an index can count: compressed batches may claim any number of
records, and logs written before that was bounded hold such. Everything that was once accepted can
be written, opened, read, rolled and cleaned."""

from __future__ import annotations

import struct
from functools import lru_cache

import pytest
from crc32c import crc32c

from minilog.config import TopicSettings
from minilog.storage.log.cutting import runs
from minilog.storage.log.log import PartitionLog
from minilog.storage.segment.segment import SEGMENT_SPAN_MAX
from minilog.storage.segment.sparse_index import OffsetIndex, TimeIndex
from minilog.wire.batch import HEADER, Batch, filler, split, stamp
from tests.unit.storage.batches import everything, fill, flush, make, open_in
from tests.unit.storage.compaction.rounds import clean_now
from tests.unit.storage.memory_disk import MemoryDisk

LARGE = TopicSettings(segment_bytes=1 << 20, cleanup_policy="compact")
MOST = 2**31 - 1
FILE = "/d/t-0/00000000000000000000.log"


@lru_cache(64)
def claiming(count: int, size: int, timestamp: int) -> Batch:
    tail = struct.pack(">Hiqqqhii", 1, count - 1, timestamp, timestamp, -1, -1, -1, count) + bytes(size)
    head = HEADER.pack(0, 49 + size, -1, 2, crc32c(tail), 1, count - 1, timestamp, timestamp, -1, -1, -1, count)
    (batch,) = split(head + bytes(size), 1 << 20, stored=True)
    return batch


def run_of(first_offset: int, counts: list[int], size: int = 5000) -> list[Batch]:
    batches, offset = list[Batch](), first_offset
    for n, count in enumerate(counts):
        batches.append(stamp(claiming(count, size, 2000 + n), offset, 0, 3))
        offset = batches[-1].end_offset
    return batches


def check(log: PartitionLog, batches: list[Batch]) -> None:
    assert everything(log) == b"".join(batch.tobytes() for batch in batches)
    for batch in batches:
        assert log.read(batch.base_offset, 1, log.end_offset) == batch.tobytes()
        assert log.offset_at(batch.max_timestamp) is not None


@pytest.mark.parametrize("counts", [[MOST] * 5, [MOST, 1, 2], [1, MOST, MOST, MOST], [1 << 30] * 9])
@pytest.mark.parametrize("size", [10, 5000])
def test_an_append_of_any_span_is_written_into_segments_that_can_count_it(counts: list[int], size: int) -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = [*fill(log, 3), *run_of(3, counts, size)]
    log.append(batches[3:])
    batches += fill(log, 2)
    assert all(segment.end_offset - segment.base_offset <= SEGMENT_SPAN_MAX for segment in log.segments)
    check(log, batches)
    flush(log)
    log.high_watermark = log.end_offset
    point = log.close()
    again = open_in(disk, LARGE, point)
    check(again, batches)
    again.truncate(batches[-3].base_offset)
    check(again, batches[:-3])


def test_the_largest_batch_there_can_be_fits_into_an_empty_segment() -> None:
    log = open_in(MemoryDisk(), LARGE)
    whole = filler(make(0)._replace(last_offset_delta=2**31 - 1), 0)
    log.append([whole])
    assert (len(log.segments), log.end_offset) == (1, 2**31)
    fill(log, 1)
    assert len(log.segments) == 2


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize("count", [3, 8])
def test_a_segment_from_before_that_counts_further_than_its_index_can(size: int, count: int) -> None:
    """As an older version has left it: one segment, and no index, because writing it was what
    failed."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 3)
    flush(log)
    older = run_of(3, [MOST] * count, size)
    disk.file(FILE).content += b"".join(batch.tobytes() for batch in older)
    disk.file(FILE).sync()
    log = open_in(disk, LARGE)
    batches += older
    check(log, batches)
    batches += fill(log, 2)
    assert len(log.segments) == 2
    check(log, batches)
    flush(log)
    log.high_watermark = log.end_offset
    fill_and_clean(log)
    point = log.close()
    again = open_in(disk, LARGE, point)
    assert everything(again).startswith(b"".join(batch.tobytes() for batch in batches))
    assert again.segments[0].max_timestamp == 2000 + count - 1, "retention goes by the last of them"


def fill_and_clean(log: PartitionLog) -> None:
    log.maybe_roll(1 << 60)
    fill(log, 1)
    flush(log)
    log.high_watermark = log.end_offset
    assert clean_now(log, 1 << 40)


def test_runs_are_as_long_as_a_segment_can_count() -> None:
    assert [len(run) for run in runs([make(n) for n in range(5)])] == [5]
    batches = run_of(0, [1 << 30, 1 << 30, 1, MOST, MOST, 5])
    assert [len(run) for run in runs(batches)] == [2, 2, 1, 1]


def test_an_index_leaves_out_what_its_file_cannot_hold() -> None:
    offsets, times = OffsetIndex(10), TimeIndex(10)
    offsets.add(10 + 2**32 - 1, 5000)
    offsets.add(10 + 2**32, 10_000)
    assert offsets.entries == [(10 + 2**32 - 1, 5000)]
    assert OffsetIndex.decode(offsets.encode(), 10, 20_000) is not None
    times.maybe_add(1, 10 + 2**32 - 1)
    assert times.fits_file
    times.maybe_add(2, 10 + 2**32)
    assert not times.fits_file
    assert times.last == (2, 10 + 2**32)
