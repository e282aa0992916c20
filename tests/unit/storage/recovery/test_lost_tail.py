"""A log whose file ends before its recovery point: what that says of the records which are gone is
no word about what follows."""

from __future__ import annotations

import pytest

from minilog.storage.log.log_place import RecoveryPoint
from tests.unit.storage.batches import fill, flush, open_in
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.recovery.test_recovery import FIRST, LARGE, log_file

BATCHES = 6


def lost_tail(disk: MemoryDisk) -> RecoveryPoint:
    """Six batches of epoch 1 are left, which then had two more, and four of epoch 2 were behind
    them."""
    log = open_in(disk, LARGE)
    fill(log, BATCHES, epoch=1)
    left = log.size_bytes
    fill(log, 2, epoch=1)
    fill(log, 4, epoch=2)
    log.high_watermark = log.end_offset
    point = log.close()
    del disk.file(FIRST).content[left:]
    return point


@pytest.mark.parametrize("power_loss", [True, False])
def test_a_log_that_has_lost_its_tail_goes_on_in_whatever_epoch(power_loss: bool) -> None:
    for epoch in (1, 2, 3):
        disk = MemoryDisk()
        again = open_in(disk, LARGE, lost_tail(disk), power_loss=power_loss)
        assert (again.end_offset, again.last_epoch, again.bad_ranges) == (BATCHES, 1, [(6, 12)])
        fill(again, 1, epoch=epoch)
        assert again.epoch_entries == again.recompute_epochs()


@pytest.mark.parametrize("power_loss", [True, False])
def test_what_has_come_in_place_of_a_lost_tail_is_not_taken_for_it(power_loss: bool) -> None:
    disk = MemoryDisk()
    point = lost_tail(disk)
    again = open_in(disk, LARGE, point, power_loss=power_loss)
    fill(again, 2, epoch=3)
    again.flush()
    for _ in range(2):
        third = open_in(disk, LARGE, point, power_loss=power_loss)
        assert third.epoch_entries == third.recompute_epochs() == [(1, 0), (3, BATCHES)]
        assert (third.high_watermark, third.bad_ranges) == (BATCHES, [(8, 12)])
        assert third.read(BATCHES, 1, 8)
    fill(third, 4, epoch=4)
    third.flush()
    assert not open_in(disk, LARGE, point, power_loss=power_loss).is_damaged


def test_what_has_come_in_place_of_a_batch_with_a_flipped_bit_is_not_taken_for_it() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, BATCHES, epoch=1)
    point = log.close()
    disk.flip_bit(FIRST, len(log_file(disk).content) - 1)
    again = open_in(disk, LARGE, point, power_loss=False)
    assert again.bad_ranges == [(BATCHES - 1, BATCHES)]
    fill(again, 2, epoch=3)
    again.flush()
    third = open_in(disk, LARGE, point, power_loss=False)
    assert third.epoch_entries == third.recompute_epochs()
    assert third.read(BATCHES - 1, 1, third.end_offset)
    assert not third.is_damaged


def test_a_damaged_note_of_cuts_stays_damaged_after_a_power_cut() -> None:
    """Until a checkpoint of this start says what the log is: the recovery point may be of before a
    cut that is not known."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, BATCHES, epoch=1)
    log.high_watermark = BATCHES
    log.flush()
    log.truncate(5)
    fill(log, 1, epoch=1)
    log.flush()
    point = log.checkpoint()
    log.high_watermark = 2
    log.truncate(2)
    fill(log, BATCHES, epoch=2)
    log.close()
    disk.file("/d/t-0/truncations").content[-5] ^= 1
    for _ in range(2):
        again = open_in(disk, LARGE, point, power_loss=True)
        assert again.epoch_entries == [(1, 0), (2, 2)]
        assert again.high_watermark == 0
        again.abandon()


@pytest.mark.parametrize("field", [12, 17])
def test_whole_batches_behind_a_changed_epoch_are_not_torn(field: int) -> None:
    """A crash changes no epoch. Only the power cut makes anything torn that nothing good follows."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 10, epoch=1)
    flush(log)
    position = sum(batch.bytes_total for batch in batches[:3]) + field + 3
    file = disk.file(FIRST)
    for content in (file.content, file.durable):
        content[position] ^= 2
    disk.crash()
    again = open_in(disk, LARGE, power_loss=True)
    assert again.is_damaged
    assert again.recovered.torn_bytes == 0
    assert again.end_offset == 10 or sum(again.records_lost) == 6
