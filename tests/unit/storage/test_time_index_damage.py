"""A bit changes in a time index, whose file has no checksum: no record goes too early, and none is passed over."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest

from minilog.config import TopicSettings
from minilog.storage.index import TIME_ENTRY_BYTES
from minilog.storage.log import PartitionLog
from tests.unit.storage.batches import NOW_MS, flush, make_timed
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.test_store import started

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
