"""Records that hold batches, an uploaded segment file or a forgery: nothing inside a batch is ever
taken for the log's."""

from __future__ import annotations

import struct

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange
from minilog.storage.log.log import PartitionLog
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.records import encode_values
from tests.unit.storage.batches import everything, fill, flush, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk

LARGE = TopicSettings(segment_bytes=1 << 20)
FILE = "/d/t-0/00000000000000000000.log"
FORGED = make(100_000, 5).tobytes()


def carrying(inner: bytes, base_offset: int, epoch: int) -> Batch:
    (batch,) = split(encode_values([inner, b"x" * 3000], 1000), 1 << 20)
    return stamp(batch, base_offset, epoch, 3)


def torn_around(inner: bytes, left_bytes: int, *, power_loss: bool) -> PartitionLog:
    """Three durable records, and then a write of which only so much arrived."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 3, epoch=1)
    flush(log)
    point = log.checkpoint()
    position = log.size_bytes
    log.append([carrying(inner, 3, 1)])
    file = disk.file(FILE)
    del file.content[position + left_bytes :]
    file.durable[:] = file.content
    return open_in(disk, LARGE, point, power_loss=power_loss)


@pytest.mark.parametrize("power_loss", [True, False])
@pytest.mark.parametrize("left_bytes", [30, 61, 200, 2000])
@pytest.mark.parametrize("inner", [FORGED, make(4, 1).tobytes(), make(5, 1).tobytes() + make(6, 1).tobytes()])
def test_a_torn_tail_is_torn_whatever_was_in_it(inner: bytes, left_bytes: int, power_loss: bool) -> None:
    again = torn_around(inner, left_bytes, power_loss=power_loss)
    assert (again.end_offset, again.last_epoch, again.is_damaged) == (3, 1, False)
    assert again.recovered.torn_bytes == left_bytes
    again.append([make(3, 2)])
    everything(again)


def test_a_segment_file_in_the_first_record_of_a_topic_ends_no_start() -> None:
    """Its first batch has the offset of the batch around it."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    log.append([carrying(b"".join(make(n, size=50).tobytes() for n in range(20)), 0, 0)])
    file = disk.file(FILE)
    file.durable[:] = file.content[:-1000]
    disk.crash()
    assert open_in(disk, LARGE).end_offset == 0


def change(disk: MemoryDisk, position: int, layout: str, value: int) -> None:
    for content in (disk.file(FILE).content, disk.file(FILE).durable):
        struct.pack_into(layout, content, position, value)


@pytest.mark.parametrize(("field", "layout"), [(0, ">B"), (8, ">i"), (12, ">i"), (16, ">b"), (17, ">I"), (100, ">B")])
@pytest.mark.parametrize("first", [0, 3])
def test_where_a_damaged_batch_ends_the_log_goes_on_and_not_in_its_records(first: int, field: int, layout: str) -> None:
    """Whatever field it is, except that a batch without its magic is no batch, so that its content
    cannot be told from it."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, first)
    position = log.size_bytes
    batch = carrying(b"plain" if field == 16 else FORGED, first, 0)
    log.append([batch])
    fill(log, 2)
    flush(log)
    change(disk, position + field, layout, {8: 1 << 20, 12: -1}.get(field, 9))
    again = open_in(disk, LARGE)
    assert again.end_offset == batch.end_offset + 2
    assert again.bad_ranges == [(first, batch.end_offset)]


def test_a_last_batch_whose_offset_is_wrong_has_nothing_of_the_log_in_it() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 3)
    position = log.size_bytes
    log.append([carrying(FORGED, 3, 0)])
    flush(log)
    change(disk, position + 7, ">B", 9)
    again = open_in(disk, LARGE, power_loss=False)
    assert (again.end_offset, again.bad_ranges) == (3, [(3, 4)])


def bad_length(disk: MemoryDisk, log: PartitionLog, position: int, length: int) -> None:
    """In a sealed segment that nobody has open, and whose index is lost."""
    change(disk, position + 8, ">i", length)
    log.segments[-1].close()
    log.segments[-1].remove_index()


@pytest.mark.parametrize("followers", [0, 10])
@pytest.mark.parametrize("bit", [10, 11, 12])
def test_a_length_that_became_smaller_does_not_lead_into_the_records(bit: int, followers: int) -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 3)
    position = log.size_bytes
    inner = make(5, 0, size=77).tobytes()  # where the next batch of the log belongs, too
    (batch,) = split(encode_values([b"x" * 6000, inner + b"y" * 1000], 1000), 1 << 20)
    log.append([stamp(batch, 3, 0, 3)])
    batches = fill(log, followers)
    flush(log)
    bad_length(disk, log, position, (batch.bytes_total - 12) ^ (1 << bit))
    with pytest.raises(CorruptRange):
        log.read(3, 100, log.end_offset)
    assert log.bad_ranges == [(3, 5)]
    if followers:
        assert log.read(5, 100, log.end_offset) == batches[0].tobytes()


def test_a_length_that_became_larger_hides_no_batch_of_the_log() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 6)
    flush(log)
    position = sum(batch.bytes_total for batch in batches[:2])
    bad_length(disk, log, position, batches[2].bytes_total - 12 + 8)
    assert log.read(3, 10, log.end_offset) == batches[3].tobytes()
    with pytest.raises(CorruptRange):
        log.read(2, 10, log.end_offset)
    assert log.bad_ranges == [(2, 3)]


def test_two_bad_batches_are_stepped_over_one_by_one() -> None:
    """The second one holds what could follow the first."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 3)
    first = log.size_bytes
    fill(log, 1)
    second = log.size_bytes
    log.append([carrying(make(6, 0, size=77).tobytes(), 4, 0)])
    batches = fill(log, 2)
    flush(log)
    change(disk, first + 70, ">B", 255)
    change(disk, second + 3000, ">B", 255)
    log.segments[-1].close()
    log.segments[-1].remove_index()
    assert log.read(6, 10, log.end_offset) == batches[0].tobytes()
    assert log.bad_ranges == [(3, 6)]
