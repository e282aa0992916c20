"""A log in memory: the plainest thing that is exactly what core/ports.py asks for.

A list of batches and nothing derived: every answer is worked out from the list when it is asked
for, so there is no cache that could be wrong. ``sync`` is what a flush does. Without it
``durable_end`` stays behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from minilog.config import TopicSettings
from minilog.core.ports import CutTail, LogStore, ReplicaLog
from minilog.errors import CorruptRange, DiskFull
from minilog.storage.log.producers import ProducerTable, WrittenBatch
from minilog.wire.batch import Batch
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import ReplicaName
from minilog.wire.records import Record
from minilog.wire.topic_partition import TopicPartition
from tests.unit.wire.batches import decode_all


class MemoryLog:
    """``room``: appends that still succeed (None: all). ``damaged``: reads raise CorruptRange.

    ``is_damaged`` is what recovery has found out, not what reads will meet.
    """

    def __init__(self, start_offset: int = 0) -> None:
        self.batches: list[Batch] = []
        self.start_offset = start_offset
        self.start_epoch = -1
        self.swept_end = 0
        self.durable_end = start_offset
        self.high_watermark = start_offset
        self.settings = TopicSettings()
        self.room: int | None = None
        self.damaged = False
        self.is_damaged = self.damage_noted = False
        self.expired = 0

    @property
    def end_offset(self) -> int:
        return self.batches[-1].end_offset if self.batches else self.start_offset

    @property
    def last_epoch(self) -> int:
        return self.batches[-1].leader_epoch if self.batches else -1

    @property
    def size_bytes(self) -> int:
        return sum(batch.bytes_total for batch in self.batches)

    def note_damage(self) -> None:
        if self.room == 0:
            raise DiskFull("no room left in memory")
        self.damage_noted = True

    # --- writing ----------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch]) -> None:
        if self.room == 0:
            raise DiskFull("no room left in memory")
        for batch in batches:
            assert batch.base_offset == self.end_offset, f"{batch.base_offset} after {self.end_offset}"
            assert batch.leader_epoch >= self.last_epoch, f"epoch {batch.leader_epoch} after {self.last_epoch}"
            self.batches.append(batch)
        if self.room is not None:
            self.room -= 1

    def note_copied(self, swept_end: int) -> None:
        self.swept_end = max(self.swept_end, swept_end)

    def sync(self, end_offset: int | None = None) -> None:
        """Make everything durable, or only what lies below ``end_offset``."""
        self.durable_end = self.end_offset if end_offset is None else min(end_offset, self.end_offset)

    def truncate(self, end_offset: int) -> int:
        self.batches = [batch for batch in self.batches if batch.end_offset <= end_offset]
        self.durable_end = min(self.durable_end, self.end_offset)
        self.high_watermark = min(self.high_watermark, self.end_offset)
        return self.end_offset

    def reset(self, start_offset: int, start_epoch: int = -1) -> None:
        if self.room == 0:
            raise DiskFull("no room to note a new start")
        self.batches = []
        self.swept_end = 0
        self.start_epoch = start_epoch
        self.start_offset = self.durable_end = self.high_watermark = start_offset

    def trim(self, start_offset: int) -> None:
        """What retention does: forget everything before ``start_offset``, which lies on a batch
        border."""
        self.start_epoch = self.epoch_at(start_offset - 1) if start_offset > self.start_offset else self.start_epoch
        self.batches = [batch for batch in self.batches if batch.base_offset >= start_offset]
        self.start_offset = start_offset
        self.durable_end = max(self.durable_end, start_offset)
        self.high_watermark = max(self.high_watermark, start_offset)

    def look(self, now_ms: int) -> None:
        """All of it is as if it were written now."""

    def written_at(self, offset: int) -> tuple[int, int] | None:
        return None

    def note_written(self, end_offset: int, ms_ago: int) -> None:
        pass

    def expired_end(self, wall_ms: int | None) -> int:
        """Whatever a test has put into ``expired``."""
        return max(self.start_offset, min(self.expired, self.high_watermark))

    def advance_start(self, offset: int) -> None:
        assert self.start_offset <= offset <= min(self.high_watermark, self.durable_end)
        self.trim(offset)

    def maybe_roll(self, wall_ms: int | None) -> bool:
        return False

    def configure(self, settings: TopicSettings) -> None:
        self.settings = settings

    # --- reading ----------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, end_offset: int) -> bytes:
        assert self.start_offset <= offset <= self.end_offset, "the caller's duty"
        if self.damaged:
            raise CorruptRange("this memory is damaged on purpose")
        found = b""
        for batch in self.batches:
            if batch.end_offset <= offset:
                continue
            if batch.end_offset > end_offset or (found and len(found) + batch.bytes_total > max_bytes):
                break
            found += batch.tobytes()
        return found

    def find_written(self, batches: Sequence[Batch]) -> list[WrittenBatch | None]:
        table = ProducerTable(self.settings.producer_id_expiration_ms)
        for batch in self.batches:
            table.observe(batch)
        return table.find_written(batches)

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        known = sorted({batch.leader_epoch for batch in self.batches})
        if not known:
            return epoch, self.end_offset
        if epoch < known[0]:
            return epoch, self._start_of(known[0])
        found = max(e for e in known if e <= epoch)
        later = [e for e in known if e > found]
        return found, self._start_of(later[0]) if later else self.end_offset

    def _start_of(self, epoch: int) -> int:
        return min(batch.base_offset for batch in self.batches if batch.leader_epoch == epoch)

    def epoch_at(self, offset: int) -> int:
        for batch in self.batches:
            if batch.base_offset <= offset < batch.end_offset:
                return batch.leader_epoch
        return -1

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        for record in self.records():
            if record.timestamp >= timestamp_ms:
                return record.offset, record.timestamp
        return None

    # --- for tests --------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        return decode_all(b"".join(batch.tobytes() for batch in self.batches))

    def content(self) -> list[tuple[int, int, bytes]]:
        """(base offset, leader epoch, bytes) of every batch: what log matching compares."""
        return [(batch.base_offset, batch.leader_epoch, batch.tobytes()) for batch in self.batches]


class MemoryStore:
    """A broker's data directory. Logs outlive ``close``, as files do. ``delete`` removes them.

    ``is_full``: no log can be made or moved away. ``opens`` False: none can be opened for want of
    room.
    """

    def __init__(self) -> None:
        self.is_full = False
        self.opens = True
        self.logs: dict[TopicPartition, MemoryLog] = {}
        self.topic_ids: dict[TopicPartition, str] = {}
        self.controller_epoch = 0
        self.cluster_id = ""
        self.directory_id = "directory"
        self.broker_epoch = 0
        self.lost: list[ReplicaName] = []
        self.metadata = MetadataCopy()
        self.aside: dict[tuple[str, str, int], MemoryLog] = {}
        self.cuts: list[CutTail] = []

    @property
    def lacks(self) -> int:
        return 0

    def take_cuts(self) -> list[CutTail]:
        cuts, self.cuts = self.cuts, []
        return cuts

    @property
    def records_lost(self) -> tuple[int, int, int, int]:
        return 0, 0, 0, 0

    @property
    def lost_kept(self) -> int:
        return 0

    @property
    def strays(self) -> int:
        return len(self.aside)

    def partitions(self) -> list[tuple[str, str, int]]:
        return [(key.topic, topic_id, key.partition) for key, topic_id in self.topic_ids.items()]

    def put_aside(self, topic: str, topic_id: str, partition: int) -> None:
        key = TopicPartition(topic, partition)
        if self.topic_ids.get(key) == topic_id and not self.is_full:
            self.aside[topic, topic_id, partition] = self.logs[key]
        self.delete(topic, topic_id, partition)

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> MemoryLog:
        key = TopicPartition(topic, partition)
        if self.topic_ids.get(key) != topic_id or not self.opens:
            if self.is_full or not self.opens:
                raise DiskFull("no room left in memory")
            self.logs[key] = MemoryLog()
            self.topic_ids[key] = topic_id
        self.logs[key].configure(settings)
        return self.logs[key]

    def close(self, topic: str, partition: int) -> None:
        assert TopicPartition(topic, partition) in self.logs

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        key = TopicPartition(topic, partition)
        if self.topic_ids.get(key) == topic_id:
            if self.is_full:
                raise DiskFull("no room left in memory")
            del self.logs[key], self.topic_ids[key]

    def save_controller_epoch(self, epoch: int) -> None:
        assert epoch > self.controller_epoch
        self.controller_epoch = epoch

    def save_broker_epoch(self, epoch: int) -> None:
        self.broker_epoch = epoch

    def bind_cluster(self, cluster_id: str) -> None:
        assert self.cluster_id in ("", cluster_id)
        self.cluster_id = cluster_id


def as_ports() -> tuple[type[ReplicaLog], type[LogStore]]:
    """Checked by mypy: the fakes are what the protocols ask for."""
    return MemoryLog, MemoryStore
