"""A log begins anew at its leader's start, above its own or below, and begins there for good:
whatever crash comes between."""

from __future__ import annotations

import random

import pytest

from minilog.config import TopicSettings
from minilog.errors import DiskFull
from minilog.storage import checkpoint
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.log.log_state import STATE_FILE, load_state
from minilog.wire.batch import split, stamp
from minilog.wire.records import encode_values
from tests.unit.storage.batches import everything, fill, flush, open_in
from tests.unit.storage.memory_disk import Crash, MemoryDisk, Nothing

LARGE = TopicSettings(segment_bytes=1 << 20)
STATE = f"/d/t-0/{STATE_FILE}"


def begun_at(disk: MemoryDisk, start_offset: int) -> PartitionLog:
    """A log that began anew there, with three durable records of epoch 1."""
    log = open_in(disk)
    log.reset(start_offset, 0)
    fill(log, 3, epoch=1)
    flush(log)
    return log


@pytest.mark.parametrize("held", [10, 100])
@pytest.mark.parametrize("start_offset", [50, 300])
def test_a_log_begins_after_a_restart_where_it_began_anew(start_offset: int, held: int) -> None:
    disk = MemoryDisk()
    log = begun_at(disk, 100)
    log.reset(start_offset, 1)
    fill(log, held, epoch=2)
    flush(log)
    log.high_watermark = log.end_offset
    for point in (RecoveryPoint(0, 0, 0), log.checkpoint()):
        again = open_in(disk, point=point)
        assert (again.start_offset, again.end_offset, again.last_epoch) == (start_offset, start_offset + held, 2)
        assert (again.start_epoch, again.is_damaged) == (1, False)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("start_offset", [50, 100, 300])
def test_a_crash_leaves_the_old_log_or_an_empty_one_and_what_comes_then_is_kept(
    start_offset: int, seed: int | None
) -> None:
    for at in range(1, 60):
        disk = MemoryDisk()
        log = begun_at(disk, 100)
        before = everything(log)
        disk.faults[len(disk.operations) + at] = "crash"
        try:
            log.reset(start_offset, 1)
        except Crash:
            disk.crash(Nothing() if seed is None else random.Random(seed))
        else:
            assert at > 10
            return
        again = open_in(disk)
        assert not again.is_damaged
        assert again.start_offset in (100, start_offset)
        if again.end_offset > again.start_offset:
            assert everything(again) == before
            continue
        fill(again, 60, epoch=3)
        flush(again)
        more = open_in(disk)
        assert (more.start_offset, more.end_offset, more.is_damaged) == (again.start_offset, again.end_offset, False)
        assert len(everything(more)) == len(everything(again))
    raise AssertionError("the reset never ended")


def test_the_rename_tells_where_the_log_begins_when_there_is_no_room_to_say_so_again() -> None:
    disk = MemoryDisk()
    log = begun_at(disk, 100)
    operations = len(disk.operations)
    log.reset(50, 1)
    last = max(n for n, what in enumerate(disk.operations) if what == f"create {STATE_FILE}.tmp") + 1
    disk = MemoryDisk()
    log = begun_at(disk, 100)
    assert len(disk.operations) == operations
    disk.faults[last] = "full"
    log.reset(50, 1)
    fill(log, 100, epoch=2)
    flush(log)
    again = open_in(disk)
    assert (again.start_offset, again.start_epoch, again.end_offset) == (50, 1, 150)
    assert load_state(disk, "/d/t-0").state.next_start == -1, "the open has noted it"


def test_a_start_that_lies_behind_the_end_is_not_a_start_any_more() -> None:
    """However it came: what is appended is not to lie below it."""
    disk = MemoryDisk()
    log = begun_at(disk, 50)
    log.state._replace(start_offset=100).save(disk, "/d/t-0")
    again = open_in(disk)
    assert again.start_offset == again.end_offset == 53
    fill(again, 100, epoch=2)
    flush(again)
    assert open_in(disk).start_offset == 53


@pytest.mark.parametrize("noted", [0, 1000])
def test_a_log_that_began_anew_before_that_was_noted_opens(noted: int) -> None:
    disk = MemoryDisk()
    log = begun_at(disk, 1000)
    old = log.state._replace(start_offset=noted)._asdict()
    for name in ("next_start", "next_epoch", "is_start_noted"):
        del old[name]
    checkpoint.save(disk, STATE, old)
    again = open_in(disk, point=log.checkpoint())
    assert (again.start_offset, again.end_offset, again.is_damaged) == (1000, 1003, False)
    assert again.state.start_offset == 1000


class NoRename(MemoryDisk):
    def rename(self, source: str, target: str) -> None:
        if target.endswith("100.log"):
            raise DiskFull("no space left")
        super().rename(source, target)


def test_a_log_that_became_empty_has_seen_nothing_written() -> None:
    """There was no room for the new name. A retry of what was cut is new all the same."""
    log = open_in(NoRename(), LARGE)
    (batch,) = split(encode_values([b"x"], 1000, producer_id=7, producer_epoch=0, base_sequence=0), 1 << 20)
    log.append([stamp(batch, 0, 0, 3)])
    flush(log)
    with pytest.raises(DiskFull):
        log.reset(100)
    assert log.start_offset == log.end_offset == 0
    assert log.find_written([batch]) == []


# --- a beginning that nobody has let go -----------------------------------------------------------


def remove_first(disk: MemoryDisk) -> None:
    first = next(name for name in disk.list("/d/t-0") if name.endswith(".log"))
    disk.remove(f"/d/t-0/{first}")


@pytest.mark.parametrize("start_offset", [0, 3])
@pytest.mark.parametrize("is_point_known", [False, True])
def test_a_log_whose_oldest_file_is_gone_is_damaged_at_every_start(start_offset: int, is_point_known: bool) -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 9, size=2000)
    flush(log)
    log.high_watermark = log.end_offset
    log.advance_start(start_offset)
    point = log.close() if is_point_known else RecoveryPoint(0, 0, 0)
    remove_first(disk)
    for power_loss in (False, True):
        again = open_in(disk, point=point, power_loss=power_loss)
        assert again.bad_ranges == [(start_offset, again.start_offset)]
        assert again.is_damaged
        again.close()


def test_the_recovery_point_tells_of_a_log_whose_starts_were_not_noted() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 9, size=2000)
    flush(log)
    log.high_watermark = log.end_offset
    old = log.state._asdict() | {"is_start_noted": False}
    checkpoint.save(disk, STATE, old)
    point = log.checkpoint()
    remove_first(disk)
    assert open_in(disk, point=point).bad_ranges == [(0, 1)]


@pytest.mark.parametrize("seed", range(6))
def test_what_retention_lets_go_is_no_damage_whenever_the_power_goes(seed: int) -> None:
    for at in range(1, 100):
        disk = MemoryDisk()
        log = open_in(disk)
        fill(log, 9, size=2000)
        flush(log)
        log.high_watermark = log.end_offset
        point = log.checkpoint()
        disk.faults[len(disk.operations) + at] = "crash"
        try:
            log.advance_start(4)
            log.advance_start(8)
        except Crash:
            disk.crash(random.Random(seed))
            again = open_in(disk, point=point)
            assert again.bad_ranges == []
            assert again.start_offset in (0, 4, 8)
        else:
            assert at > 10
            return
    raise AssertionError("the start never arrived")
