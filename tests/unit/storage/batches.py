"""Batches and logs for the storage tests."""

from __future__ import annotations

from functools import lru_cache

from minilog.config import TopicSettings
from minilog.storage.disk import Disk
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import LogPlace, RecoveryPoint
from minilog.storage.log.quarantine import Quarantine
from minilog.storage.recovery.recovery import NOTHING_KNOWN, open_log
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.records import Record, encode_values
from tests.unit.wire.batches import encode_batch

SMALL = TopicSettings(segment_bytes=4096)
NOW_MS = 1_700_000_000_000


@lru_cache(1024)  # a sweep writes the same batches again at each of its stops
def make(
    base_offset: int, epoch: int = 0, *, records: int = 1, size: int = 10, acks_level: int = 3, timestamp: int = 1000
) -> Batch:
    """A stamped batch of ``records`` values of ``size`` bytes, each unlike those at other
    offsets."""
    values = [f"{base_offset + i}:{epoch}:".encode().ljust(size, b".") for i in range(records)]
    (batch,) = split(encode_values(values, timestamp), 2**31)
    return stamp(batch, base_offset, epoch, acks_level)


def make_timed(base_offset: int, timestamps: list[int], compression: str = "none") -> Batch:
    value = b"v" if compression == "none" else bytes(100)  # what does not shrink is left as it is
    records = [Record(i, timestamp, None, value) for i, timestamp in enumerate(timestamps)]
    (batch,) = split(encode_batch(records, compression=compression), 2**31)
    return stamp(batch, base_offset, 0, 0)


def place(disk: Disk, directory: str = "/d/t-0") -> LogPlace:
    disk.mkdir(directory)
    root = directory.rsplit("/", 1)[0]
    disk.mkdir(f"{root}/quarantine")
    for path in ("/", root, directory):
        disk.fsync_dir(path)
    return LogPlace(disk, directory, "t-0", Quarantine(disk, f"{root}/quarantine", lambda: NOW_MS))


def open_in(
    disk: Disk, settings: TopicSettings = SMALL, point: RecoveryPoint = NOTHING_KNOWN, *, power_loss: bool = True
) -> PartitionLog:
    return open_log(place(disk), settings, point, power_loss)


def fill(log: PartitionLog, count: int, epoch: int = 0, *, records: int = 1, size: int = 10) -> list[Batch]:
    """Append ``count`` batches, one a call."""
    batches = []
    for _ in range(count):
        batch = make(log.end_offset, epoch, records=records, size=size)
        log.append([batch])
        batches.append(batch)
    return batches


def flush(log: PartitionLog) -> None:
    job = log.flush_job()
    job.run()
    assert log.complete(job)


def grow_old(log: PartitionLog, ms: int) -> None:
    """What is in it has been there for so long, and somebody has watched it."""
    log.look(0)
    log.look(ms)


def everything(log: PartitionLog) -> bytes:
    """All bytes from start to end, read as a consumer would."""
    offset, parts = log.start_offset, []
    while offset < log.end_offset:
        data = log.read(offset, 1 << 20, log.end_offset)
        batches = split(data, 2**31, stored=True)
        assert batches[0].base_offset == offset
        offset = batches[-1].end_offset
        parts.append(data)
    return b"".join(parts)
