"""What it costs to step over bad batches, and where the log goes on behind them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange
from minilog.storage.log.log import PartitionLog
from tests.unit.storage.batches import fill, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk

ONE = TopicSettings(segment_bytes=1 << 30)
PATH = f"/d/t-0/{0:020d}.log"
COUNT = 2000


class CountingDisk(MemoryDisk):
    bytes_read = 0

    def pread(self, handle: int, position: int, size: int) -> bytes:
        data = super().pread(handle, position, size)
        self.bytes_read += len(data)
        return data


def written(disk: MemoryDisk, size: int) -> PartitionLog:
    log = open_in(disk, ONE)
    for number in range(COUNT):
        log.append([make(number, 1, size=size)])
    log.flush()
    log.abandon()
    return log


def in_the_records(disk: MemoryDisk, position: int) -> None:
    disk.flip_bit(PATH, position + 90)


def smaller(disk: MemoryDisk, position: int) -> None:
    """Its length, by one bit."""
    content = disk.file(PATH).content
    highest = 1 << int.from_bytes(content[position + 8 : position + 12], "big").bit_length() - 1
    for data in (content, disk.file(PATH).durable):
        length = int.from_bytes(data[position + 8 : position + 12], "big")
        data[position + 8 : position + 12] = (length ^ highest).to_bytes(4, "big")


def larger(disk: MemoryDisk, position: int) -> None:
    for data in (disk.file(PATH).content, disk.file(PATH).durable):
        data[position + 10] ^= 16


def lower(disk: MemoryDisk, position: int) -> None:
    """Its leader epoch."""
    disk.flip_bit(PATH, position + 15)


@pytest.mark.parametrize("damage", [in_the_records, smaller, larger, lower])
@pytest.mark.parametrize("bad", [1, 16, 64])
def test_bad_batches_cost_their_number_and_not_the_file_each(
    bad: int, damage: Callable[[MemoryDisk, int], None]
) -> None:
    disk = CountingDisk()
    written(disk, 4000)
    size = disk.size(PATH)
    for number in range(bad):
        damage(disk, (100 + 2 * number) * (size // COUNT))
    disk.bytes_read = 0
    log = open_in(disk, ONE)
    assert log.bad_ranges == [(100 + 2 * number, 101 + 2 * number) for number in range(bad)]
    assert disk.bytes_read < 6 * size


def test_small_batches_behind_an_epoch_that_is_too_high_cost_little() -> None:
    """Two batches agree on it, so all behind them is bad."""
    disk = CountingDisk()
    written(disk, 10)
    size = disk.size(PATH)
    for number in (100, 101):
        disk.flip_bit(PATH, number * (size // COUNT) + 12)
    disk.bytes_read = 0
    assert open_in(disk, ONE, power_loss=False).is_damaged
    assert disk.bytes_read < 40 * size


def test_the_border_behind_a_damaged_stretch_stays_known_when_a_walk_begins_there() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 7, epoch=1, size=500)
    log.flush()
    (segment,) = log.segments
    disk.flip_bit(segment.path, segment.find(3).position + 7)  # its base offset
    with pytest.raises(CorruptRange):
        log.read(3, 1, 7)
    held = log.read(4, 1, 7)
    for end_offset in (6, 5, 4):
        segment.walk(end_offset, lambda batch: None)
        assert log.bad_ranges == [(3, 4)]
        assert log.read(4, 1, 7) == held
    log.truncate(6)
    assert log.read(4, 1, 7) == held
    with pytest.raises(CorruptRange, match="offsets 3 to 4"):
        log.read(3, 1, 7)


class UnluckyDisk(MemoryDisk):
    fails_in = -1
    """Reads until one fails, once."""

    def pread(self, handle: int, position: int, size: int) -> bytes:
        self.fails_in -= 1
        if self.fails_in == 0:
            raise CorruptRange("could not be read: input/output error")
        return super().pread(handle, position, size)


@pytest.mark.parametrize("batches", [1, 3])
def test_nothing_is_cut_because_a_read_has_failed_once(batches: int) -> None:
    for fails_in in range(1, 40):
        disk = UnluckyDisk()
        log = open_in(disk)
        fill(log, batches, epoch=1)
        log.flush()
        log.abandon()
        disk.fails_in = fails_in
        with suppress(CorruptRange):
            open_in(disk, power_loss=True)
        disk.fails_in = -1
        assert open_in(disk, power_loss=True).end_offset == batches, f"read {fails_in}"


@pytest.mark.parametrize("bit", range(8, 31))
def test_a_length_that_leads_a_reader_too_far_is_damage(bit: int) -> None:
    disk = MemoryDisk()
    log = open_in(disk, ONE)
    fill(log, 30, size=900)
    log.flush()
    segment = log.segments[-1]
    for at in range(30):
        position = segment.find(at).position
        segment.seal()
        segment.close()
        content = disk.file(PATH).content
        length = int.from_bytes(content[position + 8 : position + 12], "big")
        content[position + 8 : position + 12] = (length ^ 1 << bit).to_bytes(4, "big")
        for offset in (*range(at + 1, 30), *range(at + 1)):
            with suppress(CorruptRange):
                assert log.read(offset, 100, 30).startswith(make(offset, size=900).tobytes())
        assert log.bad_ranges == [(at, at + 1)]
        content[position + 8 : position + 12] = length.to_bytes(4, "big")
        segment.bad_ranges = []
        segment.rebuild()
