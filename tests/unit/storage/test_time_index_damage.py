"""A time index that has lost something, or in which a bit has changed (its file has no checksum):
no record goes too early, and none is passed over."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest

from minilog.config import TopicSettings
from minilog.storage.log.log import PartitionLog
from minilog.storage.segment.sparse_index import TIME_ENTRY_BYTES
from tests.unit.storage.batches import NOW_MS, flush, make_timed
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import started, store_on

DAY_MS = 24 * 3600 * 1000
RECORDS = 600
SEALED, ACTIVE = "00000000000000000000", "00000000000000000474"


@cache
def _written() -> tuple[MemoryDisk, dict[str, int]]:
    return written()


def copied() -> MemoryDisk:
    return deepcopy(_written()[0])


def written() -> tuple[MemoryDisk, dict[str, int]]:
    """A broker that was stopped cleanly, and by segment how many entries its time index has."""
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("t", "id", 0, settings())
    while log.end_offset < RECORDS:
        log.append([make_timed(log.end_offset, [NOW_MS + log.end_offset])])
    flush(log)
    log.high_watermark = log.end_offset
    for segment in log.segments:
        segment.index.save()
    store.close_cleanly(1)
    sizes = {name: len(disk.file(f"/data/t-0/{name}.timeindex").content) for name in (SEALED, ACTIVE)}
    return disk, {name: size // TIME_ENTRY_BYTES for name, size in sizes.items()}


def settings() -> TopicSettings:
    return TopicSettings(segment_bytes=16_400, retention_ms=DAY_MS)


def opened(disk: MemoryDisk) -> PartitionLog:
    log = started(disk).open("t", "id", 0, settings())
    log.high_watermark = log.end_offset
    return log


def check(log: PartitionLog) -> None:
    assert log.expired_end(NOW_MS + DAY_MS) == 0, "no record is older than a day"
    for offset in range(0, RECORDS, 29):
        assert log.offset_at(NOW_MS + offset) == (offset, NOW_MS + offset)
    assert [segment.max_timestamp for segment in log.segments] == [
        NOW_MS + segment.end_offset - 1 for segment in log.segments
    ]
    assert not log.is_damaged


def test_without_damage() -> None:
    disk, entries = written()
    assert entries[SEALED] > 2
    check(opened(disk))


@pytest.mark.parametrize("name", [SEALED, ACTIVE])
@pytest.mark.parametrize("byte", range(2 * TIME_ENTRY_BYTES))
def test_a_changed_bit_in_one_of_the_last_two_entries(name: str, byte: int) -> None:
    for bit in range(8):
        disk = copied()
        content = disk.file(f"/data/t-0/{name}.timeindex").content
        content[len(content) - 1 - byte] ^= 1 << bit
        check(opened(disk))


@pytest.mark.parametrize("kept", [0, 1, 20, 60, 66])
def test_a_power_cut_takes_the_end_of_the_time_index_and_not_of_the_other(kept: int) -> None:
    """Neither file is synced before the segment is sealed. Among old records there are some of
    today."""
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("t", "id", 0, TopicSettings(segment_ms=30 * DAY_MS))
    for count, first_ms in ((4000, NOW_MS - 10 * DAY_MS), (100, NOW_MS), (2000, NOW_MS - 9 * DAY_MS)):
        for number in range(count):
            log.append([make_timed(log.end_offset, [first_ms + number])])
    flush(log)
    log.high_watermark = log.end_offset
    store.checkpoint()
    for name in (SEALED + ".index", SEALED + ".timeindex"):
        disk.file(f"/data/t-0/{name}").sync()
    disk.fsync_dir("/data/t-0")
    del disk.file(f"/data/t-0/{SEALED}.timeindex").durable[kept * TIME_ENTRY_BYTES :]
    disk.crash()
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    log = store.open("t", "id", 0, TopicSettings(segment_ms=30 * DAY_MS))
    assert (log.end_offset, log.segments[0].max_timestamp) == (6100, NOW_MS + 99)
    assert log.offset_at(NOW_MS + 50) == (4050, NOW_MS + 50)
