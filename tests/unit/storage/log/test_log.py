from __future__ import annotations

import pytest

from minilog.config import TopicSettings
from minilog.core.ports import ReplicaLog
from minilog.errors import CorruptRange, DiskFull, StorageFailed
from minilog.storage.log.stored_log import OPEN_SEALED_MAX
from minilog.wire.batch import split
from tests.unit.storage.batches import NOW_MS, SMALL, everything, fill, flush, make, make_timed, open_in
from tests.unit.storage.memory_disk import MemoryDisk

LARGE = TopicSettings(segment_bytes=1 << 20)


def test_a_log_is_what_the_core_expects() -> None:
    log: ReplicaLog = open_in(MemoryDisk())
    assert (log.start_offset, log.end_offset, log.durable_end, log.high_watermark) == (0, 0, 0, 0)
    assert (log.last_epoch, log.size_bytes) == (-1, 0)
    assert log.read(0, 100, 0) == b""
    assert log.epoch_end(3) == (3, 0)
    assert log.epoch_at(0) == -1
    assert log.offset_at(0) is None


def test_read_returns_whole_batches_within_the_bounds() -> None:
    log = open_in(MemoryDisk(), LARGE)
    batches = fill(log, 5, records=10)
    size = batches[0].bytes_total
    assert log.read(0, 1 << 20, 50) == everything(log)
    assert log.read(0, size, 50) == batches[0].tobytes()
    assert log.read(0, size * 2 - 1, 50) == batches[0].tobytes()
    assert log.read(0, 1, 50) == batches[0].tobytes(), "at least one batch, whatever max_bytes"
    assert log.read(25, size, 50) == batches[2].tobytes(), "the batch that holds the offset"
    assert log.read(30, 1 << 20, 40) == batches[3].tobytes(), "nothing at or above the end"
    assert log.read(30, 1 << 20, 39) == b"", "no part of a batch"
    assert log.read(50, 1 << 20, 50) == b""


def test_a_batch_larger_than_max_bytes_and_chunks_is_read_whole() -> None:
    log = open_in(MemoryDisk(), TopicSettings(segment_bytes=64 << 20))
    big = make(1, size=3 << 20)
    log.append([make(0), big, make(2)])
    assert log.read(1, 100, 3) == big.tobytes()
    assert len(log.recompute_epochs()) == 1


def test_small_batches_are_found_between_index_entries() -> None:
    log = open_in(MemoryDisk(), LARGE)
    batches = fill(log, 400)
    assert log.size_bytes > 3 * 4096
    for offset in (0, 1, 57, 58, 111, 399, 200):
        assert log.read(offset, 1, 400) == batches[offset].tobytes()
        rest = b"".join(batch.tobytes() for batch in batches[offset:])
        data = log.read(offset, 10_000, 400)
        assert rest.startswith(data)
        assert min(len(rest), 10_000 - 4096 - batches[0].bytes_total) <= len(data) <= 10_000


def test_a_read_that_ends_at_a_border_of_the_index_is_one_disk_read_without_a_copy() -> None:
    class CountingDisk(MemoryDisk):
        def pread(self, handle: int, position: int, size: int) -> bytes:
            reads.append((position, size))
            return super().pread(handle, position, size)

    reads: list[tuple[int, int]] = []
    log = open_in(CountingDisk(), LARGE)
    size = fill(log, 20, size=8000)[0].bytes_total
    del reads[:]
    log.read(0, 3 * size + 100, 20)
    log.read(3, 1 << 20, 5)
    log.read(5, 1 << 20, 20)
    assert reads == [(0, 3 * size), (3 * size, 2 * size), (5 * size, 15 * size)]


def test_a_sequential_reader_of_small_batches_finds_its_place_again() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 30)
    log.read(0, 1000, 30)
    first = len(split(log.read(0, 1000, 30), 2**31, stored=True))
    log.truncate(first - 1)
    fill(log, 20, epoch=1, size=33)
    assert log.read(first, 1, 19 + first) == make(first, 1, size=33).tobytes()


def test_many_batches_in_one_call_are_one_write() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    before = len(disk.operations)
    log.append([make(0, records=3), make(3), make(4, records=2)])
    assert disk.operations[before:] == ["append"]
    assert log.end_offset == 6


def test_roll_seals_the_old_segment_durably_before_the_new_one_is_used() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 2, size=1900)
    assert log.durable_end == 0
    before = len(disk.operations)
    fill(log, 1, size=1900)
    rolled = [operation for operation in disk.operations[before:] if "index" not in operation]
    assert rolled[0] == "fdatasync"
    assert rolled[-4:] == ["create 00000000000000000002.log", "fdatasync", "fsync_dir t-0", "append"]
    assert (log.durable_end, log.end_offset, len(log.segments)) == (2, 3, 2)
    assert b"".join(make(i, size=1900).tobytes() for i in range(3)) == everything(log)


def test_an_append_larger_than_a_segment_fits_into_an_empty_one() -> None:
    log = open_in(MemoryDisk())
    fill(log, 2, size=9000)
    assert len(log.segments) == 2


def test_only_few_sealed_segments_stay_open() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 40, size=4000)
    everything(log)
    assert len(log.segments) == 40
    assert disk.open_handles <= OPEN_SEALED_MAX + 1


def test_appending_out_of_place_is_a_programmer_error() -> None:
    log = open_in(MemoryDisk())
    fill(log, 1, epoch=3)
    with pytest.raises(AssertionError):
        log.append([make(0)])
    with pytest.raises(AssertionError):
        log.append([make(1, epoch=2)])
    assert log.end_offset == 1


def test_a_full_disk_leaves_the_log_as_it_was() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 2)
    disk.faults[len(disk.operations) + 1] = "full"
    with pytest.raises(DiskFull):
        log.append([make(2, epoch=9)])
    assert (log.end_offset, log.last_epoch) == (2, 0)
    fill(log, 1, epoch=1)
    assert [b.base_offset for b in split(everything(log), 2**31, stored=True)] == [0, 1, 2]


def test_a_full_disk_at_a_roll_keeps_the_old_segment_in_use() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 1, size=3000)
    for ahead in range(1, 12):
        disk.faults[len(disk.operations) + ahead] = "full"
    with pytest.raises(DiskFull):
        fill(log, 1, size=3000)
    disk.faults.clear()
    assert (len(log.segments), log.end_offset) == (1, 1)
    fill(log, 2, size=3000)
    assert len(everything(log)) == log.size_bytes
    assert len(log.segments) == 3


def test_durable_end_moves_to_the_end_captured_before_the_flush() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 2)
    job = log.flush_job()
    fill(log, 3)
    job.run()
    assert log.complete(job)
    assert log.durable_end == 2
    flush(log)
    assert log.durable_end == 5
    idle = log.flush_job()
    idle.run()
    assert log.complete(idle)


def test_a_flush_proves_nothing_about_what_was_written_after_a_truncation() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 5)
    job = log.flush_job()
    log.truncate(2)
    fill(log, 4, epoch=1)
    job.run()
    assert not log.complete(job)
    assert log.durable_end == 2


def test_a_flush_survives_roll_truncation_and_removal_of_its_file() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 3, size=2500)
    jobs = [log.flush_job()]
    fill(log, 2, size=2500)
    jobs.append(log.flush_job())
    log.truncate(1)
    log.abandon()
    for job in jobs:
        job.run()
        assert not log.complete(job)
    assert disk.open_handles == 0


def test_a_failed_flush_is_never_retried() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 1)
    disk.faults[len(disk.operations) + 1] = "error"
    with pytest.raises(StorageFailed):
        log.flush_job().run()
    with pytest.raises(StorageFailed):
        log.flush_job().run()
    assert log.durable_end == 0


def test_truncate_cuts_at_a_batch_border_and_clamps() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 2, epoch=1, records=10)
    fill(log, 2, epoch=4, records=10)
    flush(log)
    log.high_watermark = 35
    assert log.truncate(40) == 40
    assert log.generation == 0
    assert log.truncate(33) == 30, "a cut inside a batch takes the whole batch"
    assert (log.end_offset, log.durable_end, log.high_watermark) == (30, 30, 30)
    assert log.epoch_entries == [(1, 0), (4, 20)]
    assert log.truncate(20) == 20
    assert (log.last_epoch, log.epoch_entries) == (1, [(1, 0)])
    fill(log, 1, epoch=5)
    assert log.epoch_entries == log.recompute_epochs() == [(1, 0), (5, 20)]
    assert log.generation == 2


def test_truncate_across_segments_and_to_nothing() -> None:
    log = open_in(MemoryDisk())
    fill(log, 10, size=1500)
    assert len(log.segments) == 5
    assert log.truncate(3) == 3
    assert len(log.segments) == 2
    fill(log, 4, epoch=1, size=1500)
    assert len(split(everything(log), 2**31, stored=True)) == 7
    assert log.truncate(0) == 0
    assert (log.size_bytes, len(log.segments), log.last_epoch) == (0, 1, -1)
    fill(log, 1, epoch=2)
    assert log.read(0, 1, 1) == make(0, 2).tobytes()


def test_what_truncate_cuts_is_in_quarantine_and_counted() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    log.append([make(0, epoch=1)])
    tail = [
        make(1, 1, records=2, acks_level=1),
        make(3, 2, size=3000, acks_level=2),
        make(4, 2, size=3000, timestamp=77),
    ]
    for batch in tail:
        log.append([batch])
    log.truncate(1)
    assert log.records_lost == [0, 2, 1, 1]
    directory = "/d/quarantine/t-0"
    assert disk.list(directory) == ["1-1-5.json", "1-1-5.log"]
    assert bytes(disk.file(f"{directory}/1-1-5.log").durable) == b"".join(b.tobytes() for b in tail)
    description = disk.file(f"{directory}/1-1-5.json").durable
    for part in (b'"records":4', b'"records_by_acks":[0,2,1,1]', b'"first_epoch":1', b'"last_epoch":2', b'"batches":3'):
        assert part in description
    assert f'"cut_at_ms":{NOW_MS}'.encode() in description
    assert b'"first_timestamp":1000,"last_timestamp":1000' in description


def test_a_reset_that_finds_no_room_leaves_an_empty_log() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 12, size=900)
    flush(log)
    log.high_watermark = 12
    disk.faults = dict.fromkeys(range(len(disk.operations) + 1, 1000), "full")
    with pytest.raises(DiskFull):
        log.reset(50)
    assert (log.start_offset, log.end_offset) == (0, 12), "nothing is dropped before it was noted"
    disk.faults = {}
    at = len(disk.operations) + len(["create", "append", "fdatasync", "rename", "rename", "fsync_dir"])
    disk.faults = dict.fromkeys(range(at + 1, at + 100), "full")  # the cut is noted, the new name finds no room
    with pytest.raises(DiskFull):
        log.reset(50)
    disk.faults = {}
    assert (log.start_offset, log.end_offset, len(log.segments)) == (0, 0, 1)
    fill(log, 1)
    log.reset(50)
    fill(log, 1)
    assert (log.start_offset, log.end_offset) == (50, 51)


def test_a_cut_that_comes_again_is_kept_once() -> None:
    """The disk was full when the cut was to be noted: nothing was cut or counted, and the copy is
    not made anew."""
    full_at = 0
    for _ in range(2):  # the first time to find the operation
        disk = MemoryDisk()
        log = open_in(disk)
        fill(log, 3, epoch=1)
        flush(log)
        if full_at:
            disk.faults = {full_at: "full"}
            with pytest.raises(DiskFull):
                log.truncate(1)
            assert (log.end_offset, log.records_lost) == (3, [0, 0, 0, 0])
        assert log.truncate(1) == 1
        full_at = disk.operations.index("create truncations.tmp") + 1
        assert log.records_lost == [0, 0, 0, 2]
        assert disk.list("/d/quarantine/t-0") == ["1-1-3.json", "1-1-3.log"]


def test_the_same_offsets_cut_twice_are_kept_twice() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    for size in (10, 20):
        fill(log, 2, epoch=1, size=size)
        log.truncate(1)
        log.truncate(0)
    assert disk.list("/d/quarantine/t-0") == [
        "1-0-1-2.json",
        "1-0-1-2.log",
        "1-0-1.json",
        "1-0-1.log",
        "1-1-2-2.json",
        "1-1-2-2.log",
        "1-1-2.json",
        "1-1-2.log",
    ]


def test_truncate_without_room_for_the_quarantine_changes_nothing() -> None:
    for ahead in range(1, 10):
        disk = MemoryDisk()
        log = open_in(disk, LARGE)
        fill(log, 3)
        disk.faults[len(disk.operations) + ahead] = "full"
        try:
            log.truncate(1)
        except DiskFull:
            assert (log.end_offset, log.epoch_entries) == (3, [(0, 0)])
            assert len(split(everything(log), 2**31, stored=True)) == 3
            disk.faults.clear()
            log.truncate(1)
        assert log.end_offset == 1


def test_epoch_end_in_the_seven_cases_of_divergence() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 3, epoch=2)
    fill(log, 4, epoch=5)
    assert log.epoch_end(5) == (5, 7)
    assert log.epoch_end(9) == (5, 7)
    assert log.epoch_end(2) == (2, 3)
    assert log.epoch_end(4) == (2, 3)
    assert log.epoch_end(1) == (1, 0)
    assert [log.epoch_at(offset) for offset in (0, 2, 3, 6, 7)] == [2, 2, 5, 5, -1]


def test_reset_begins_anew_at_the_leaders_start() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 5, size=3000)
    log.reset(1000)
    assert (log.start_offset, log.end_offset, log.durable_end, log.high_watermark) == (1000, 1000, 1000, 1000)
    assert (log.last_epoch, len(log.segments), log.epoch_entries) == (-1, 1, [])
    fill(log, 2, epoch=7)
    again = open_in(disk, point=log.close())
    assert (again.start_offset, again.end_offset, again.epoch_entries) == (1000, 1002, [(7, 1000)])
    assert not again.is_damaged


def test_advancing_the_start_removes_whole_sealed_segments_only() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 2, epoch=1, size=2500)
    fill(log, 4, epoch=3, size=2500)
    flush(log)
    log.high_watermark = 6
    log.advance_start(0)
    log.advance_start(3)
    assert log.epoch_entries == log.recompute_epochs() == [(3, 3)]
    assert len(log.segments) == 3
    log.advance_start(6)
    assert (log.start_offset, log.end_offset, len(log.segments)) == (6, 6, 1), "the active segment stays"
    fill(log, 1, epoch=3, size=10)
    again = open_in(disk, point=log.close())
    assert (again.start_offset, again.end_offset, again.epoch_entries) == (6, 7, [(3, 6)])


def test_offset_at_is_exact_to_the_record() -> None:
    log = open_in(MemoryDisk())
    log.append([make_timed(0, [100, 300, 200])])
    log.append([make_timed(3, [250, 260])])
    log.append([make_timed(5, [400, 500, 600], compression="gzip")])
    assert log.offset_at(-1) == (0, 100)
    assert log.offset_at(101) == (1, 300)
    assert log.offset_at(300) == (1, 300)
    assert log.offset_at(301) == (5, 600), "compressed: to the batch"
    assert log.offset_at(601) is None


def test_offset_at_across_segments_and_restarts() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    for i in range(60):
        log.append([make(i, size=700, timestamp=1000 + 10 * (i if i % 7 else 0))])
    expected = [log.offset_at(ts) for ts in range(990, 1600, 5)]
    assert expected[0] == (0, 1000)
    assert (log.offset_at(1590), log.offset_at(1591)) == ((59, 1590), None)
    again = open_in(disk, point=log.close())
    assert [again.offset_at(ts) for ts in range(990, 1600, 5)] == expected
    naive = [
        next(((i, t) for i in range(60) if (t := 1000 + 10 * (i if i % 7 else 0)) >= ts), None)
        for ts in range(990, 1600, 5)
    ]
    assert expected == naive


def test_corruption_is_reported_and_never_skipped() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 100, size=200)
    flush(log)
    disk.file("/d/t-0/00000000000000000000.log").content[50 * batches[0].bytes_total + 100] ^= 1
    good = log.read(0, 1 << 20, 100)
    assert good == b"".join(batch.tobytes() for batch in batches[:50]), "what is good before it is served"
    with pytest.raises(CorruptRange) as caught:
        log.read(50, 1 << 20, 100)
    assert (caught.value.info["start_offset"], caught.value.info["end_offset"]) == (50, 51)
    assert log.bad_ranges == [(50, 51)]
    assert log.is_damaged
    assert log.read(51, 1 << 20, 100) == b"".join(batch.tobytes() for batch in batches[51:])
    log.truncate(50)
    assert not log.is_damaged


def test_a_batch_of_another_epoch_than_the_log_knows_is_corrupt() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 2, epoch=3)
    disk.file("/d/t-0/00000000000000000000.log").content[12:16] = (2).to_bytes(4, "big")  # outside the CRC
    with pytest.raises(CorruptRange, match="leader epoch is 2"):
        log.read(0, 100, 2)


def test_settings_change_takes_effect_at_the_next_append() -> None:
    log = open_in(MemoryDisk(), LARGE)
    fill(log, 2, size=3000)
    assert len(log.segments) == 1
    log.configure(SMALL)
    fill(log, 1, size=3000)
    assert len(log.segments) == 2
