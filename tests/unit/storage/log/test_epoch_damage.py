"""The checksum does not cover the leader epoch: what a read finds there is held against the epochs
that the log knows."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange
from minilog.storage.inspect import verify
from minilog.storage.log.log import PartitionLog
from tests.unit.storage.batches import everything, fill, flush, open_in
from tests.unit.storage.memory_disk import MemoryDisk

LARGE = TopicSettings(segment_bytes=1 << 20)
FILE = "/d/t-0/00000000000000000000.log"
AT = 5


def damaged(epoch: int) -> tuple[PartitionLog, int]:
    """A log of the epochs 3 and 4, ten batches each, and where in its file batch 5 lies, which says
    another epoch now."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 10, epoch=3) + fill(log, 10, epoch=4)
    flush(log)
    position = sum(batch.bytes_total for batch in batches[:AT])
    for content in (disk.file(FILE).content, disk.file(FILE).durable):
        struct.pack_into(">i", content, position + 12, epoch)
    return log, position


@pytest.mark.parametrize("epoch", [0, 2, 4, 7, -1])
def test_a_read_that_is_refused_makes_the_replica_a_damaged_one(epoch: int) -> None:
    log, _ = damaged(epoch)
    with pytest.raises(CorruptRange):
        log.read(AT, 1 << 20, 20)
    assert log.is_damaged
    with pytest.raises(CorruptRange):
        log.read(AT, 1 << 20, 20)


@pytest.mark.parametrize("epoch", [0, 2, 4, 7])
def test_only_that_batch_is_damaged(epoch: int) -> None:
    log, _ = damaged(epoch)
    with pytest.raises(CorruptRange, match="leader epoch"):
        log.read(AT, 1 << 20, 20)
    assert log.bad_ranges == [(AT, AT + 1)]
    assert log.read(AT + 1, 1 << 20, 20)


@pytest.mark.parametrize("epoch", [0, 2, 4, 7, -1])
def test_a_read_that_begins_before_ends_before(epoch: int) -> None:
    log, position = damaged(epoch)
    assert len(log.read(0, 1 << 20, 20)) == position


def test_a_read_over_the_border_of_two_epochs_is_one_read() -> None:
    log = open_in(MemoryDisk(), LARGE)
    batches = fill(log, 10, epoch=3) + fill(log, 10, epoch=4)
    assert log.read(8, 1 << 20, 20) == b"".join(batch.tobytes() for batch in batches[8:])
    assert len(everything(log)) == log.size_bytes


def raised(at: int, *, count: int = 10) -> tuple[MemoryDisk, PartitionLog]:
    """A log of epoch 2 in which a bit has raised the epoch of one batch."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, count, epoch=2)
    flush(log)
    log.high_watermark = log.end_offset
    disk.flip_bit(FILE, log.segments[0].find(at).position + 15)
    return disk, log


@pytest.mark.parametrize("look_up", [False, True])
@pytest.mark.parametrize("at", [0, 4, 7])
def test_a_look_up_by_time_leaves_readable_what_follows_a_raised_epoch(at: int, look_up: bool) -> None:
    _, log = raised(at)
    if look_up:
        with suppress(CorruptRange):
            log.offset_at(5000)
        log.segments[0].rebuild()
    with pytest.raises(CorruptRange):
        log.read(at, 1, 10)
    assert log.bad_ranges == [(at, at + 1)]
    for offset in range(10):
        assert offset == at or log.read(offset, 1, 10)


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("at", [0, 4, 7])
def test_a_start_finds_one_batch_damaged_whose_epoch_was_raised(at: int, power_loss: bool) -> None:
    disk, log = raised(at)
    log.abandon()
    disk.kill()
    again = open_in(disk, LARGE, power_loss=power_loss)
    assert (again.bad_ranges, again.end_offset) == ([(at, at + 1)], 10)
    assert again.last_epoch == 2
    (problem,) = verify(["/d/t-0"], disk).problems
    assert (problem.offset, "its leader epoch is 3" in problem.reason) == (at, True)


def test_an_epoch_that_begins_with_one_batch_stays_one() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    for epoch in (1, 3, 4, 4, 6, 7):
        fill(log, 1, epoch=epoch)
    log.flush()
    log.abandon()
    again = open_in(disk, LARGE, power_loss=False)
    assert again.epoch_entries == [(1, 0), (3, 1), (4, 2), (6, 4), (7, 5)]
    assert not again.is_damaged
