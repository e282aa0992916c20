"""A log that begins anew although its start lies within its first segment, and the power goes on
the way."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.unit.storage.batches import fill, open_in
from tests.unit.storage.memory_disk import Crash, MemoryDisk


@pytest.mark.parametrize("power_loss", [True, False])
@pytest.mark.parametrize("start_offset", [0, 3, 5, 40], ids=lambda offset: f"to {offset}")
def test_a_crash_on_the_way_to_another_start_is_no_damage(start_offset: int, power_loss: bool) -> None:
    """R60, R66: the recovery point is of before, and says that what lies below the start was
    durable."""
    for stop in range(1, 100):
        disk = MemoryDisk()
        log = open_in(disk)
        fill(log, 12, epoch=1, size=600)
        log.flush()
        log.high_watermark = 12
        log.advance_start(5)
        point = log.checkpoint()
        done = len(disk.operations)
        disk.faults[done + stop] = "crash"
        with suppress(Crash):
            log.reset(start_offset, 1)
        reached_end = len(disk.operations) < done + stop
        disk.faults.clear()
        if power_loss:
            disk.crash()
        else:
            disk.kill()
        again = open_in(disk, point=point, power_loss=power_loss)
        assert not again.is_damaged, f"crashed at {disk.operations[done + stop - 1]}: {again.bad_ranges}"
        assert again.end_offset in (12, again.start_offset) or again.start_offset == 0
        if reached_end:
            assert (again.start_offset, again.end_offset) == (start_offset, start_offset)
            break
