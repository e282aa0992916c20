"""Checkpoints, epoch cache, indexes: the small parts."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import DiskFull
from minilog.storage import checkpoint
from minilog.storage.checkpoint import Loaded
from minilog.storage.log.epochs import EpochCache, recompute
from minilog.storage.segment.sparse_index import OffsetIndex, TimeIndex
from tests.unit.storage.batches import make
from tests.unit.storage.memory_disk import Crash, MemoryDisk


def new_disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.mkdir("/d")
    disk.fsync_dir("/")
    return disk


def test_a_checkpoint_is_json_and_comes_back() -> None:
    disk = new_disk()
    assert checkpoint.load(disk, "/d/f") == Loaded(None, False)
    checkpoint.save(disk, "/d/f", {"a": [1, "x"]})
    assert bytes(disk.file("/d/f").durable).endswith(b'"body":{"a":[1,"x"]}}\n')
    assert checkpoint.load(disk, "/d/f") == Loaded({"a": [1, "x"]}, False)
    checkpoint.remove(disk, "/d/f")
    checkpoint.remove(disk, "/d/f")
    assert checkpoint.load(disk, "/d/f") == Loaded(None, False)


def test_any_damage_to_the_newest_generation_falls_back_to_the_previous() -> None:
    disk = new_disk()
    checkpoint.save(disk, "/d/f", {"n": 1})
    checkpoint.save(disk, "/d/f", {"n": 2})
    whole = bytes(disk.file("/d/f").content)
    for size in range(len(whole)):
        disk.file("/d/f").content[:] = whole[:size]
        assert checkpoint.load(disk, "/d/f") == Loaded({"n": 1}, True)
    for at in range(len(whole)):
        disk.file("/d/f").content[:] = whole
        disk.file("/d/f").content[at] ^= 1
        assert checkpoint.load(disk, "/d/f") == Loaded({"n": 1}, True)


def test_a_power_cut_at_every_step_leaves_the_old_or_the_new() -> None:
    for survives in (None, random.Random(1), random.Random(2)):
        for crash_at in range(1, 12):
            disk = new_disk()
            checkpoint.save(disk, "/d/f", {"n": 1})
            disk.faults[len(disk.operations) + crash_at] = "crash"
            finished = True
            try:
                checkpoint.save(disk, "/d/f", {"n": 2})
            except Crash:
                finished = False
            disk.crash(survives)
            loaded = checkpoint.load(disk, "/d/f")
            assert loaded in (
                [Loaded({"n": 2}, False)] if finished else [Loaded({"n": 1}, False), Loaded({"n": 2}, False)]
            )


def test_a_full_disk_leaves_the_old_checkpoint_in_force() -> None:
    for fail_at in range(1, 6):
        disk = new_disk()
        checkpoint.save(disk, "/d/f", {"n": 1})
        disk.faults[len(disk.operations) + fail_at] = "full"
        expected = {"n": 2}
        try:
            checkpoint.save(disk, "/d/f", {"n": 2})
        except DiskFull:
            expected = {"n": 1}
        assert checkpoint.load(disk, "/d/f") == Loaded(expected, False)


epoch_runs = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), max_size=8)


@given(runs=epoch_runs, start=st.floats(0, 1), end=st.floats(0, 1))
@settings(max_examples=60)
def test_epochs_agree_with_the_batches_after_trimming_both_ends(
    runs: list[tuple[int, int, int]], start: float, end: float
) -> None:
    batches, offset, epoch = [], 0, 0
    for step, count, records in runs:
        epoch += step
        for _ in range(count):
            batches.append(make(offset, epoch, records=records))
            offset += records
    cache = EpochCache()
    for batch in batches:
        cache.observe(batch.leader_epoch, batch.base_offset)
    assert cache.entries == recompute(batches)
    borders = [batch.base_offset for batch in batches] + [offset]
    end_offset = borders[int(end * (len(borders) - 1))]
    cache.truncate_end(end_offset)
    kept = [batch for batch in batches if batch.base_offset < end_offset]
    assert cache.entries == recompute(kept)
    start_offset = borders[int(start * (len(borders) - 1))]
    cache.truncate_start(start_offset, end_offset)
    kept = [batch for batch in kept if batch.base_offset >= start_offset]
    assert cache.entries == recompute(kept)
    for batch in kept:
        assert cache.epoch_at(batch.base_offset) == cache.epoch_at(batch.last_offset) == batch.leader_epoch
    assert cache.last_epoch == (kept[-1].leader_epoch if kept else -1)


@given(steps=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9000)), max_size=30), probe=st.integers(0, 1600))
@settings(max_examples=60)
def test_the_offset_index_against_a_list(steps: list[tuple[int, int]], probe: int) -> None:
    base, entries = 1000, [(1000, 0)]
    index = OffsetIndex(base)
    for delta, size in steps:
        entries.append((entries[-1][0] + delta, entries[-1][1] + size))
        index.add(*entries[-1])
    offset, position = base + probe, probe * 60
    assert index.floor(offset) == max(entry for entry in entries if entry[0] <= offset)
    assert index.ceiling(offset) == next((entry[1] for entry in entries[1:] if entry[0] >= offset), None)
    assert index.border(position) == max(entry[1] for entry in entries if entry[1] <= position)
    size_bytes = entries[-1][1] + 1
    copy = OffsetIndex.decode(index.encode(), base, size_bytes)
    assert copy is not None
    assert copy.entries == index.entries == entries[1:]
    assert index.encode(len(steps) // 2) == index.encode()[len(steps) // 2 * 8 :]
    if steps:
        assert OffsetIndex.decode(index.encode(), base, entries[-1][1]) is None, "leads beyond the log"
        assert OffsetIndex.decode(index.encode()[:-1], base, size_bytes) is None
        assert OffsetIndex.decode(index.encode() + bytes(8), base, size_bytes) is None
    index.truncate(position)
    assert index.entries == [entry for entry in entries[1:] if entry[1] < position]


@given(steps=st.lists(st.tuples(st.integers(-5, 20), st.integers(1, 5)), max_size=30), probe=st.integers(-1, 300))
@settings(max_examples=60)
def test_the_time_index_never_skips_a_late_enough_record(steps: list[tuple[int, int]], probe: int) -> None:
    index, records, offset, timestamp, latest = TimeIndex(10), [], 10, 50, -1
    for step, count in steps:
        for _ in range(count):
            timestamp = max(timestamp + step, 0)
            records.append((offset, timestamp))
            offset += 1
            latest = max(latest, timestamp)
        index.maybe_add(latest, offset - 1)
    start = index.before(probe)[1] + (index.before(probe)[0] >= 0)
    assert all(timestamp < probe for offset, timestamp in records if offset < start)
    copy = TimeIndex.decode(index.encode(), 10)
    assert copy is not None
    assert (copy.timestamps, copy.offsets) == (index.timestamps, index.offsets)
    assert TimeIndex.decode(index.encode() + b"x", 10) is None
