from __future__ import annotations

import random

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.recovery.recovery import NOTHING_KNOWN
from minilog.storage.segment.segment_index import UNSAVED_MAX
from minilog.wire.batch import split
from tests.sim.nodes.disk import File
from tests.unit.storage.batches import everything, fill, flush, make, open_in
from tests.unit.storage.memory_disk import Crash, MemoryDisk

LARGE = TopicSettings(segment_bytes=1 << 20)
FIRST = "/d/t-0/00000000000000000000.log"


def reopened(disk: MemoryDisk, point: RecoveryPoint = NOTHING_KNOWN, *, power_loss: bool = True) -> PartitionLog:
    """After a kill -9: what was written is still there."""
    log = open_in(disk, LARGE, point, power_loss=power_loss)
    assert log.durable_end == log.end_offset
    return log


def log_file(disk: MemoryDisk) -> File:
    return disk.file(FIRST)


def test_everything_written_is_there_after_a_kill_and_durable_after_recovery() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 3, epoch=1, size=1500)
    fill(log, 30, epoch=2, records=3, size=200)
    written = everything(log)
    again = reopened(disk, power_loss=False)
    assert everything(again) == written
    assert again.epoch_entries == [(1, 0), (2, 3)]
    disk.crash()
    assert everything(reopened(disk)) == written


def test_a_file_cut_at_every_byte_of_its_last_batches_gives_the_whole_batches_before() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 4, records=3)
    data = bytes(log_file(disk).content)
    borders = [sum(b.bytes_total for b in batches[:i]) for i in range(5)]
    for size in range(borders[2], len(data)):
        for power_loss in (True, False):
            log_file(disk).content[:] = data[:size]
            again = reopened(disk, power_loss=power_loss)
            whole = sum(border <= size for border in borders) - 1
            assert again.end_offset == 3 * whole
            assert len(log_file(disk).content) == again.size_bytes == borders[whole]
            assert again.recovered.torn_bytes == size - borders[whole]
            assert not again.is_damaged
            fill(again, 1)
            assert len(split(everything(again), 2**31, stored=True)) == whole + 1
            again.abandon()


def test_a_tail_of_zeros_is_torn_after_a_power_cut() -> None:
    disk = MemoryDisk()
    fill(open_in(disk, LARGE), 3)
    log_file(disk).content.extend(bytes(5000))
    again = reopened(disk)
    assert (again.end_offset, again.recovered.torn_bytes, again.is_damaged) == (3, 5000, False)


def test_a_bit_flip_in_the_middle_is_marked_and_not_cut() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 20, size=300)
    log_file(disk).content[10 * batches[0].bytes_total + 80] ^= 4
    for power_loss in (True, False):
        again = reopened(disk, power_loss=power_loss)
        assert (again.end_offset, again.bad_ranges) == (20, [(10, 11)])
        with pytest.raises(CorruptRange):
            again.read(10, 100, 20)
        with pytest.raises(CorruptRange):
            everything(again)
        assert again.read(11, 1 << 20, 20) == b"".join(batch.tobytes() for batch in batches[11:])
        fill(again, 1)
        assert again.read(20, 1000, 21) == make(20).tobytes()
        again.truncate(20)


def test_a_wrong_length_field_in_the_middle_is_marked_and_not_cut() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 20, size=300)
    for value in (0, 2, 100, 2**31 - 1):
        content = bytes(log_file(disk).content)
        at = 5 * batches[0].bytes_total + 8
        log_file(disk).content[at : at + 4] = value.to_bytes(4, "big")
        again = reopened(disk)
        assert (again.end_offset, again.bad_ranges) == (20, [(5, 6)])
        assert again.read(7, 1, 20) == batches[7].tobytes()
        log_file(disk).content[:] = content


def test_a_sealed_segment_that_lost_its_end_is_corrupt_there() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 9, size=900)
    point = log.close()
    del log_file(disk).content[1200:]
    for again in (open_in(disk, point=point), open_in(disk)):
        assert again.read(0, 1, 9) == make(0, size=900).tobytes()
        with pytest.raises(CorruptRange):
            again.read(1, 1, 9)
        assert again.bad_ranges == [(1, 4)]
        assert again.read(4, 1, 9) == make(4, size=900).tobytes()
    assert open_in(disk).bad_ranges == [(1, 4)]


def test_several_damaged_stretches_are_all_marked() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    size = fill(log, 20, size=300)[0].bytes_total
    for index in (3, 4, 9):
        log_file(disk).content[index * size + 70] ^= 4
    assert reopened(disk).bad_ranges == [(3, 5), (9, 10)]


def test_a_batch_of_the_log_inside_a_record_is_not_taken_for_one_of_the_log() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    log.append([make(0)])
    log.append([make(1, size=200)])
    inner = make(2).tobytes()
    content = log_file(disk).content
    content[-len(inner) :] = inner  # a record's value that is itself a batch. The outer CRC is now wrong
    log.abandon()
    log_file(disk).content.extend(make(2).tobytes())
    again = reopened(disk, power_loss=False)
    assert (again.bad_ranges, again.end_offset) == ([(1, 2)], 3)
    assert again.read(2, 1000, 3) == make(2).tobytes()


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_bad_last_batch_is_torn_only_when_a_crash_explains_it(is_lost: bool) -> None:
    for power_loss, point, damaged in ((True, 0, False), (False, 0, True), (True, 3, True), (True, 2, False)):
        disk = MemoryDisk()
        size = fill(open_in(disk, LARGE), 3)[-1].bytes_total
        content = log_file(disk).content
        if is_lost:
            content[-size:] = bytes(size)
        else:
            content[-1] ^= 1
        left = bytes(content[-size:])
        again = reopened(disk, RecoveryPoint(point, 0, 0), power_loss=power_loss)
        assert (again.end_offset, again.is_damaged) == (2, damaged)
        kept = "t-0" in disk.list("/d/quarantine")
        assert kept == (damaged or not is_lost), "what may have been durable is kept, and no torn write"
        assert not kept or disk.file("/d/quarantine/t-0/0-2-2.log").content == left
        fill(again, 1)
        assert again.is_damaged == damaged, "replaced, but not yet durable"
        flush(again)
        assert not again.is_damaged


def test_a_lost_durable_tail_makes_the_replica_incomplete() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    size = fill(log, 5)[0].bytes_total
    point = log.close()
    assert point.offset == 5
    del log_file(disk).content[3 * size :]
    again = reopened(disk, point)
    assert again.bad_ranges == [(3, 5)]
    fill(again, 2)
    flush(again)
    assert not again.is_damaged
    del log_file(disk).content[3 * size :]
    again = reopened(disk, point)
    assert again.is_damaged
    again.truncate(2)
    assert not again.is_damaged, "the leader says that it is not part of the log"


def test_writes_that_reached_the_disk_out_of_order_are_torn_and_kept_in_quarantine() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 8, size=900)
    point = RecoveryPoint(2, 0, 0)
    lost = (3 * batches[0].bytes_total // 512 + 1) * 512
    log_file(disk).content[lost : lost + 512] = bytes(512)
    again = reopened(disk, point)
    assert (again.end_offset, again.is_damaged) == (3, False)
    assert disk.list("/d/quarantine/t-0") == ["0-3-8.json", "0-3-8.log"]
    strict = MemoryDisk()
    log = open_in(strict, LARGE)
    fill(log, 8, size=900)
    log_file(strict).content[lost : lost + 512] = bytes(512)
    assert reopened(strict, point, power_loss=False).bad_ranges == [(3, 4)]


def test_recovery_reads_only_from_the_recovery_point() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    size = fill(log, 200, size=2000)[0].bytes_total
    point = log.close()
    log_file(disk).content[10 * size + 100] ^= 1
    again = reopened(disk, point, power_loss=False)
    assert not again.is_damaged, "sealed and checkpointed bytes are not read at start"
    with pytest.raises(CorruptRange):
        again.read(10, 1, 100)


def test_missing_or_damaged_index_files_are_rebuilt() -> None:
    for damage in ("remove", "zeros", "short", "garbage", "misleading"):
        disk = MemoryDisk()
        log = open_in(disk)
        batches = fill(log, 60, size=600)
        point = log.close()
        for name in disk.list("/d/t-0"):
            if name.endswith("index"):
                content = disk.file(f"/d/t-0/{name}").content
                if damage == "remove":
                    disk.remove(f"/d/t-0/{name}")
                elif damage == "zeros":
                    content[:] = bytes(len(content))
                elif damage == "short":
                    del content[5:]
                elif damage == "garbage":
                    content[:] = random.Random(1).randbytes(len(content))
                elif name.endswith(".index"):
                    inside_the_last_batch = disk.size(f"/d/t-0/{name}".replace(".index", ".log")) - 10
                    content[:] = b"\0\0\0\1" + inside_the_last_batch.to_bytes(4, "big")
        again = open_in(disk, point=point)
        assert everything(again) == b"".join(batch.tobytes() for batch in batches)
        assert not again.is_damaged
        assert again.offset_at(5000) is None


def test_without_a_whole_record_of_truncations_or_epochs_everything_is_derived_from_the_batches() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    for epoch in (1, 4, 9):
        fill(log, 4, epoch=epoch, size=1500)
    log.truncate(10)
    point = log.close()
    assert point.epochs == ((1, 0), (4, 4), (9, 8))
    again = open_in(disk, point=point._replace(epochs=()))
    assert again.epoch_entries == [(1, 0), (4, 4), (9, 8)]
    disk.file("/d/t-0/truncations").content[-3] ^= 1
    again = open_in(disk, point=point._replace(epochs=((1, 0), (5, 3))))
    assert again.epoch_entries == [(1, 0), (4, 4), (9, 8)]
    assert not again.is_damaged


def test_epochs_of_another_log_are_not_believed() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 4, epoch=3, size=1500)
    point = log.checkpoint()._replace(offset=2, epochs=((7, 0),))
    assert open_in(disk, point=point).epoch_entries == [(3, 0)]
    fill(log, 2, epoch=5, size=1500)
    log.close()
    second = len(disk.file(FIRST).content) // 2
    for start in (12, second + 12):  # the epoch is outside the CRC
        disk.file(FIRST).content[start : start + 4] = (9).to_bytes(4, "big")
    with pytest.raises(CorruptRange, match="go backwards"):
        open_in(disk)


def test_a_recovery_point_older_than_a_truncation_is_not_believed() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 10)
    flush(log)
    point = log.checkpoint()
    log.truncate(4)
    again = reopened(disk, point)
    assert (again.end_offset, again.is_damaged) == (4, False)
    fill(again, 2, epoch=1)
    again.truncate(5)
    fill(again, 20, epoch=2)
    third = reopened(disk, point)
    assert (third.end_offset, third.is_damaged, third.generation) == (25, False, 2)
    assert third.epoch_entries == [(0, 0), (1, 4), (2, 5)]


def test_old_and_new_batches_never_mix_after_a_truncation_and_a_power_cut() -> None:
    """Same positions, sizes and offsets, another epoch: lost new sectors must not uncover the old
    batches."""
    for seed in range(30):
        disk = MemoryDisk()
        log = open_in(disk, LARGE)
        fill(log, 12, epoch=1, size=430)
        flush(log)
        point = log.checkpoint()
        log.truncate(4)
        fill(log, 8, epoch=2, size=430)
        disk.crash(random.Random(seed))
        again = reopened(disk, point)
        assert not again.is_damaged
        assert again.epoch_entries in ([(1, 0)], [(1, 0), (2, 4)])
        everything(again)


def test_index_files_are_continued_after_a_restart() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    index_path = "/d/t-0/00000000000000000000.index"
    fill(log, 60, size=2000)
    log.checkpoint()
    assert "00000000000000000000.index" not in disk.list("/d/t-0"), "not worth it yet"
    for _ in range(3):
        fill(log, 130, size=2000)
        log = open_in(disk, LARGE, log.close(), power_loss=False)
        log.checkpoint()
    entries = 450 // 2 - 1  # every second batch, but not the first
    assert entries - UNSAVED_MAX < len(disk.file(index_path).content) // 8 <= entries
    assert len(everything(log)) == log.size_bytes


@pytest.mark.parametrize("starts", [1, 2, 3])
@pytest.mark.parametrize("power_loss", [False, True])
def test_the_time_index_of_a_sealed_segment_reaches_its_end_however_often_it_is_recovered(
    starts: int, power_loss: bool
) -> None:
    """Killed soon after a roll: recovery walks the sealed segment, and what it saves is all that
    later starts look at."""
    disk = MemoryDisk()
    settings = TopicSettings(segment_bytes=300_000)
    log = open_in(disk, settings)
    point = log.checkpoint()
    while len(log.segments) < 3:
        log.append([make(log.end_offset, size=2000, timestamp=1_000_000 + log.end_offset * 60_000)])
    flush(log)
    expected = [(segment.max_timestamp, segment.end_offset - 1) for segment in log.segments]
    for _ in range(starts):
        if power_loss:
            disk.crash()
        log = open_in(disk, settings, point, power_loss=power_loss)
        point = log.checkpoint()
    for segment, (latest, last_offset) in zip(log.segments, expected, strict=True):
        assert segment.max_timestamp == latest
        assert log.offset_at(latest) == (last_offset, latest)


def test_batches_in_the_wrong_place_are_corrupt_although_their_checksums_are_right() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    size = fill(log, 12, epoch=5, size=100)[10].bytes_total
    whole = bytes(log_file(disk).content)
    stale = make(10, epoch=4, size=100).tobytes()
    for wrong in (whole[:size], whole[11 * size : 12 * size], stale):
        log_file(disk).content[10 * size : 10 * size + len(wrong)] = wrong
        for again in (log, reopened(disk, RecoveryPoint(12, 0, 0))):
            with pytest.raises(CorruptRange):
                again.read(10, 1000, 12)
            assert (10, 11) in again.bad_ranges
        log_file(disk).content[:] = whole


def test_the_high_watermark_of_the_checkpoint_is_clamped() -> None:
    disk = MemoryDisk()
    fill(open_in(disk, LARGE), 5)
    assert reopened(disk, RecoveryPoint(0, 3, 0)).high_watermark == 3
    assert reopened(disk, RecoveryPoint(0, 99, 0)).high_watermark == 5


@pytest.mark.parametrize("survives", ["nothing", "some"])
@pytest.mark.parametrize("step", ["roll", "truncate", "reset", "drop"])
def test_a_power_cut_at_every_operation_leaves_a_log_that_recovers(step: str, survives: str) -> None:
    """Durable batches below the cut survive. What is there is a prefix of what was written. Nothing
    is damaged."""
    for crash_at in range(1, 60):
        disk = MemoryDisk()
        log = open_in(disk)
        batches = fill(log, 3, epoch=1, size=1500) + fill(log, 4, epoch=2, size=1500)
        flush(log)
        log.high_watermark = 3
        point = log.checkpoint()
        if step == "roll":
            batches += [make(offset, 3, size=1500) for offset in range(7, 12)]
        disk.faults[len(disk.operations) + crash_at] = "crash"
        try:
            if step == "roll":
                fill(log, 5, epoch=3, size=1500)
            elif step == "truncate":
                log.truncate(2)
            elif step == "reset":
                log.reset(50)
            else:
                log.advance_start(3)
            disk.faults.clear()
            finished = True
        except Crash:
            finished = False
        disk.crash(random.Random(crash_at) if survives == "some" else None)
        again = open_in(disk, point=point)
        check_after(step, again, b"".join(batch.tobytes() for batch in batches))
        fill(again, 3, epoch=9, size=1500)
        assert again.epoch_entries == again.recompute_epochs()
        if finished:
            return
    raise AssertionError("the step never finished")


def check_after(step: str, log: PartitionLog, written: bytes) -> None:
    assert not log.is_damaged
    assert log.epoch_entries == log.recompute_epochs()
    stored = everything(log)
    if step in ("roll", "truncate"):
        assert written.startswith(stored)
        assert log.end_offset >= (7 if step == "roll" else 2)
    elif step == "reset":
        assert written.startswith(stored) or log.start_offset == log.end_offset == 50
    else:
        assert written.endswith(stored)
        assert (log.start_offset <= 3, log.end_offset) == (True, 7)


def test_a_tail_that_damage_has_taken_is_missing_at_every_later_start() -> None:
    """The first start cuts it, and refuses. The second must not find a log that is shorter and
    whole."""
    disk = MemoryDisk()
    fill(open_in(disk, LARGE), 3)
    log_file(disk).content[-1] ^= 1
    for _ in range(3):
        again = reopened(disk, power_loss=False)
        assert (again.end_offset, again.bad_ranges) == (2, [(2, 3)])
    fill(again, 1)
    flush(again)
    assert not again.is_damaged
    assert not reopened(disk, power_loss=False).is_damaged, "it is all there again"


def test_a_wrong_length_in_the_last_batch_is_no_torn_write() -> None:
    for bit in range(32):
        disk = MemoryDisk()
        size = fill(open_in(disk, LARGE), 3, size=100)[0].bytes_total
        log_file(disk).content[2 * size + 8 + bit // 8] ^= 1 << bit % 8
        again = reopened(disk, power_loss=False)
        assert (again.end_offset, again.is_damaged) == (2, True)
        again.truncate(1)
        assert not reopened(disk, power_loss=False).is_damaged, "the leader has said that it is not part of the log"


class BadSector(MemoryDisk):
    bad: tuple[str, int] | None = None

    def pread(self, handle: int, position: int, size: int) -> bytes:
        if self.bad is not None:
            path, at = self.bad
            if self._opened(handle) is self._find(path) and position <= at < position + size:
                raise CorruptRange("could not be read: input/output error")
        return super().pread(handle, position, size)


@pytest.mark.parametrize("power_loss", [True, False])
def test_nothing_is_cut_that_cannot_be_read(power_loss: bool) -> None:
    """No crash makes a sector unreadable, and the next attempt may be luckier."""
    disk = BadSector()
    log = open_in(disk, LARGE)
    fill(log, 3, size=600)
    written = everything(log)
    disk.bad = (FIRST, len(written) - 1)
    for _ in range(2):
        with pytest.raises(CorruptRange, match="could not be read"):
            open_in(disk, LARGE, power_loss=power_loss)
    disk.bad = None
    assert everything(reopened(disk, power_loss=power_loss)) == written
