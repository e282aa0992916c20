"""Keyed logs for the compaction tests: making them, reading them back, and a disk that stops at a
chosen operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from minilog.config import TopicSettings
from minilog.storage.disk import Buffer
from minilog.storage.log.log import PartitionLog
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.records import Record
from tests.sim.nodes.disk import SimDisk
from tests.unit.wire.batches import decode_all, encode_batch

COMPACTED = TopicSettings(segment_bytes=600, cleanup_policy="compact", delete_retention_ms=1000)
UNBOUNDED = 2**31


class Seen(NamedTuple):
    """A record as the tests compare it."""

    offset: int
    key: bytes | None
    value: bytes | None


def keyed(
    log: PartitionLog,
    pairs: Sequence[tuple[bytes | None, bytes | None]],
    epoch: int,
    timestamp: int,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> Batch:
    """Append one batch of these keys and values. ``producer``: id, epoch, base sequence."""
    batch = stamp(_encoded(tuple(pairs), timestamp, producer), log.end_offset, epoch, 3)
    log.append([batch])
    return batch


@lru_cache(1024)  # a sweep writes the same batches again at each of its stops
def _encoded(
    pairs: tuple[tuple[bytes | None, bytes | None], ...], timestamp: int, producer: tuple[int, int, int]
) -> Batch:
    records = [Record(i, timestamp, key, value) for i, (key, value) in enumerate(pairs)]
    producer_id, producer_epoch, base_sequence = producer
    data = encode_batch(records, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence)
    (batch,) = split(data, UNBOUNDED)
    return batch


def commit(log: PartitionLog) -> None:
    """Everything is durable and below the high watermark."""
    log.flush()
    log.high_watermark = log.end_offset


def read_from(log: PartitionLog, offset: int, end_offset: int | None = None, max_bytes: int = 1 << 20) -> list[Seen]:
    """All records from ``offset`` on, as a consumer reads them; checks that no offset is left out
    on the way."""
    end_offset = log.end_offset if end_offset is None else end_offset
    seen: list[Seen] = []
    while offset < end_offset:
        data = log.read(offset, max_bytes, end_offset)
        if not data:
            break
        batches = split(data, UNBOUNDED, stored=True)
        assert batches[0].base_offset <= offset < batches[0].end_offset
        assert all(a.end_offset == b.base_offset for a, b in pairwise(batches))
        seen += [Seen(r.offset, r.key, r.value) for r in decode_all(data) if r.offset >= offset]
        offset = batches[-1].end_offset
    return seen


class Stop(BaseException):
    """The machine stops here."""


class StoppingDisk(SimDisk):
    """SimDisk that stops at its n-th changing operation: before it, after it, or with half of it
    done (a write)."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.stop_at = 0
        self.stop_how = "before"

    def arm(self, at: int, how: str) -> None:
        """``at`` counts from 1, from now on; 0: never."""
        self.operations.clear()
        self.stop_at, self.stop_how = at, how

    def _step(self, name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        self.operations.append(name)
        if len(self.operations) != self.stop_at:
            return operation(*arguments)
        if self.stop_how == "after":
            operation(*arguments)
        if self.stop_how == "torn" and name == "append":
            handle, position, buffers = arguments
            data = b"".join(bytes(buffer) for buffer in buffers)
            operation(handle, position, [data[: len(data) // 2]])
        raise Stop

    def create(self, path: str) -> int:
        return int(self._step("create", super().create, path))

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._step("append", super().append, handle, position, buffers)

    def truncate(self, handle: int, size: int) -> None:
        self._step("truncate", super().truncate, handle, size)

    def fdatasync(self, handle: int) -> None:
        self._step("fdatasync", super().fdatasync, handle)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir", super().fsync_dir, path)

    def rename(self, source: str, target: str) -> None:
        self._step("rename", super().rename, source, target)

    def remove(self, path: str) -> None:
        self._find(path)  # nothing is done when it is not there
        self._step("remove", super().remove, path)
