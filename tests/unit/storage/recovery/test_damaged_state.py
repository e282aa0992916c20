"""A state file that a flipped bit has damaged: the state before it speaks of a log that may have
been cut, emptied or shortened since."""

from __future__ import annotations

import pytest

from minilog.config import TopicSettings
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import DiskFull
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_state import STATE_FILE
from minilog.storage.store import POINTS_FILE, Store
from tests.unit.core.builders import partition_state
from tests.unit.storage.batches import SMALL, everything, fill, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk

PATH = f"/d/t-0/{STATE_FILE}"


def test_a_whole_log_is_not_damaged_by_what_the_state_before_a_cut_says_of_its_end() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 10, epoch=1)
    log.flush()
    disk.crash()
    log = open_in(disk)
    assert log.state.missing_end == log.end_offset == 10
    log.truncate(6)
    fill(log, 2, epoch=2)
    log.flush()
    log.high_watermark = log.end_offset
    point, held = log.checkpoint(), everything(log)
    disk.kill()
    assert not open_in(disk, point=point, power_loss=False).is_damaged
    disk.flip_bit(PATH, 40)
    again = open_in(disk, point=point, power_loss=False)
    assert everything(again) == held
    assert again.bad_ranges == []


@pytest.mark.parametrize("loses_tail", [False, True])
@pytest.mark.parametrize("starts", [(3,), (3, 3), (3, 5), (3, 8)])
def test_what_the_state_before_says_of_the_start_makes_nothing_missing(
    starts: tuple[int, ...], loses_tail: bool
) -> None:
    """Two batches a segment. A start that misses the tail saves the state."""
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 10, epoch=1, size=1500)
    log.flush()
    log.high_watermark = log.end_offset
    for swept_end, start in enumerate(starts, 1):
        log.advance_start(start)
        log.note_sweep(swept_end)
    point = log.checkpoint()
    last = log.segments[-1]
    position = last.find(9).position
    log.abandon()
    disk.kill()
    disk.flip_bit(PATH, 40)
    if loses_tail:
        del disk.file(last.path).content[position:]
    for _ in range(2):
        again = open_in(disk, point=point, power_loss=False)
        assert again.bad_ranges == ([(9, 10)] if loses_tail else [])
        again.abandon()


def test_no_file_goes_because_the_state_before_says_that_the_log_begins_later() -> None:
    """It began anew further down since."""
    disk = MemoryDisk()
    log = open_in(disk)
    log.reset(100)
    fill(log, 2, size=1500)
    log.reset(3, 0)
    fill(log, 8, epoch=1, size=1500)
    log.flush()
    log.high_watermark = log.end_offset
    held, point = everything(log), log.checkpoint()
    assert len(log.segments) == 4
    log.abandon()
    disk.kill()
    disk.flip_bit(PATH, 40)
    log = open_in(disk, point=point, power_loss=False)
    assert (log.start_offset, log.bad_ranges) == (3, [])
    assert everything(log) == held


def test_a_lost_tail_is_noticed_also_behind_a_state_that_took_the_place_of_a_damaged_one() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 5, epoch=1)
    log.truncate(4)
    point = log.close()
    disk.flip_bit(PATH, 40)
    log = open_in(disk, point=point, power_loss=False)
    log.note_copied(1)
    position = log.segments[0].find(3).position
    log.abandon()
    del disk.file(log.segments[0].path).content[position:]
    assert open_in(disk, point=point, power_loss=False).bad_ranges == [(3, 4)]


def test_a_state_that_is_older_than_the_recovery_point_is_a_damaged_one() -> None:
    """Somebody has put an old copy in its place, or removed it."""
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 10, epoch=1)
    log.truncate(6)
    fill(log, 2, epoch=2)
    log.flush()
    log.high_watermark = log.end_offset
    point = log.checkpoint()
    log.truncate(5)
    fill(log, 5, epoch=3)
    log.flush()
    expected = log.epoch_entries
    disk.remove(PATH)
    disk.remove(f"{PATH}.previous")
    for _ in range(2):
        log = open_in(disk, point=point, power_loss=False)
        assert (log.epoch_entries, log.high_watermark) == (expected, 0)
        log.note_copied(1)


class NoRoomForPoints(MemoryDisk):
    is_short = False

    def create(self, path: str) -> int:
        if self.is_short and POINTS_FILE in path:
            raise DiskFull("no space left")
        return super().create(path)


def started(disk: MemoryDisk) -> PartitionLog:
    store = Store(disk, "/d", 1, lambda: 0)
    store.start("boot-1")
    store.recover(lambda: None)
    return store.open("t", "id", 0, SMALL)


def append(log: PartitionLog, epoch: int, end_offset: int) -> None:
    while log.end_offset < end_offset:
        log.append([make(log.end_offset, epoch, size=500)])
    log.flush()


def saved_before_any_point(*, is_short: bool = True) -> tuple[PartitionLog, bytes]:
    """The point speaks of records of epoch 2 that were cut. Beside a damaged state there is room
    for the new start of a log, and none for the next points."""
    disk = NoRoomForPoints()
    store = Store(disk, "/d", 1, lambda: 0)
    store.start("boot-1")
    log = store.open("t", "id", 0, SMALL)
    append(log, 1, 20)
    append(log, 2, 26)
    log.high_watermark = 20
    log.note_copied(1)
    store.checkpoint()
    log.truncate(20)
    append(log, 3, 22)
    append(log, 4, 28)
    held = everything(log)
    log.abandon()
    disk.kill()
    disk.flip_bit(PATH, 40)
    disk.is_short = is_short
    log = started(disk)
    log.high_watermark = log.end_offset
    log.advance_start(log.segments[1].base_offset)
    log.abandon()
    disk.kill()
    disk.is_short = False
    return started(disk), held


@pytest.mark.parametrize("is_short", [False, True])
def test_no_point_of_before_a_lost_cut_counts_again_when_the_state_is_saved(is_short: bool) -> None:
    log, held = saved_before_any_point(is_short=is_short)
    assert log.epoch_entries == [(1, log.start_offset), (3, 20), (4, 22)]
    assert held.endswith(everything(log))
    assert log.bad_ranges == []


@pytest.mark.parametrize("is_short", [False, True])
def test_no_follower_is_told_to_cut_what_is_committed_by_epochs_of_before_a_lost_cut(is_short: bool) -> None:
    leader, _ = saved_before_any_point(is_short=is_short)
    log = open_in(MemoryDisk())
    append(log, 1, 20)
    append(log, 3, 22)
    log.high_watermark = 22
    state = partition_state(replicas=[0, 1], leader=0, leader_epoch=5)
    settings = TopicSettings(segment_bytes=4096)
    following = FollowerState(state, 5, 0, settings, log)
    leading = LeaderState(0, 1, state, settings, leader, lambda *_: True, 0)
    diverging = leading.on_fetch(1, 1, following.next_fetch(), 0)
    if diverging is not None:
        following.truncate(*diverging)
    assert (log.end_offset, log.records_lost) == (22, [0, 0, 0, 0])
