"""A log and a store in memory: the exact contract of core/ports.py and nothing else, for speed.

The simulator's default is the real storage on a simulated disk; this one runs several times as many schedules in the same
time. It knows what is durable and what is only written: ``crash`` drops a random part of the latter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from random import Random

from minilog.config import TopicSettings
from minilog.wire.batch import Batch
from minilog.wire.records import decode_batch


class MemoryFlush:
    """As storage's FlushJob: what was appended before it was made is durable once it has run."""

    def __init__(self, end_offset: int, generation: int) -> None:
        self.end_offset, self.generation = end_offset, generation

    def run(self) -> None:
        pass


class MemoryLog:
    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id
        self.start_offset = 0
        self.durable_end = 0
        self.high_watermark = 0
        self.saved_high_watermark = 0
        self.generation = 0
        self._batches: list[Batch] = []
        self._bases: list[int] = []

    @property
    def end_offset(self) -> int:
        return self._batches[-1].end_offset if self._batches else self.start_offset

    @property
    def last_epoch(self) -> int:
        return self._batches[-1].leader_epoch if self._batches else -1

    @property
    def size_bytes(self) -> int:
        return sum(batch.bytes_total for batch in self._batches)

    def append(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            assert batch.base_offset == self.end_offset, f"append at {batch.base_offset}, the end is {self.end_offset}"
            assert batch.leader_epoch >= self.last_epoch
            self._batches.append(batch)
            self._bases.append(batch.base_offset)

    def read(self, offset: int, max_bytes: int, end_offset: int) -> bytes:
        assert self.start_offset <= offset <= self.end_offset
        found: list[bytes] = []
        size = 0
        for batch in self._batches[max(0, bisect_right(self._bases, offset) - 1) :]:
            if batch.end_offset <= offset:
                continue
            if batch.end_offset > end_offset or (found and size + batch.bytes_total > max_bytes):
                break
            found.append(batch.tobytes())
            size += batch.bytes_total
        return b"".join(found)

    def truncate(self, end_offset: int) -> int:
        keep = bisect_left(self._bases, end_offset)
        if keep and self._batches[keep - 1].end_offset > end_offset:
            keep -= 1
        if keep < len(self._batches):
            del self._batches[keep:], self._bases[keep:]
            self.generation += 1
            self.durable_end = self.end_offset
            self.high_watermark = min(self.high_watermark, self.end_offset)
            self.saved_high_watermark = min(self.saved_high_watermark, self.end_offset)
        return self.end_offset

    def reset(self, start_offset: int) -> None:
        self._batches, self._bases = [], []
        self.generation += 1
        self.start_offset = self.durable_end = self.high_watermark = self.saved_high_watermark = start_offset

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        best = -1
        for batch in self._batches:
            if batch.leader_epoch > epoch:
                return (best if best >= 0 else epoch), batch.base_offset
            best = batch.leader_epoch
        return (best if best >= 0 else epoch), self.end_offset

    def epoch_at(self, offset: int) -> int:
        if not self.start_offset <= offset < self.end_offset:
            return -1
        return self._batches[bisect_right(self._bases, offset) - 1].leader_epoch

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        for batch in self._batches:
            if batch.max_timestamp >= timestamp_ms:
                for record in decode_batch(batch):
                    if record.timestamp >= timestamp_ms:
                        return record.offset, record.timestamp
        return None

    def configure(self, settings: TopicSettings) -> None:
        pass

    def flush_job(self) -> MemoryFlush:
        return MemoryFlush(self.end_offset, self.generation)

    def complete(self, job: MemoryFlush) -> bool:
        if job.generation != self.generation:
            return False
        self.durable_end = max(self.durable_end, job.end_offset)
        return True

    def reopen(self) -> None:
        """A new process finds what is written, syncs it, and remembers the last saved high watermark only."""
        self.durable_end = self.end_offset
        self.high_watermark = self.saved_high_watermark = min(self.saved_high_watermark, self.end_offset)

    def crash(self, rng: Random) -> None:
        unsynced = sum(1 for batch in self._batches if batch.end_offset > self.durable_end)
        lost = rng.randint(0, unsynced)
        if lost:
            del self._batches[-lost:], self._bases[-lost:]
        self.saved_high_watermark = min(self.saved_high_watermark, self.end_offset)


class MemoryStore:
    """The data directory of one broker; survives its processes."""

    def __init__(self) -> None:
        self.controller_epoch = 0
        self.cluster_id = ""
        self._logs: dict[tuple[str, int], MemoryLog] = {}
        self._open: dict[tuple[str, int], MemoryLog] = {}
        self._clean = True

    def start(self) -> bool:
        """A new process opens the directory; answers whether nothing written before can be missing."""
        self._open = {}
        for log in self._logs.values():
            log.reopen()
        clean, self._clean = self._clean, True
        return clean

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> MemoryLog:
        key = (topic, partition)
        assert key not in self._open, f"{key} is open already"
        if key not in self._logs or self._logs[key].topic_id != topic_id:
            self._logs[key] = MemoryLog(topic_id)
        self._open[key] = self._logs[key]
        return self._logs[key]

    def get(self, topic: str, partition: int) -> MemoryLog | None:
        return self._open.get((topic, partition))

    def close(self, topic: str, partition: int) -> None:
        log = self._open.pop((topic, partition))
        log.durable_end = log.end_offset
        log.saved_high_watermark = log.high_watermark

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        log = self._logs.get((topic, partition))
        if log is not None and log.topic_id == topic_id:
            del self._logs[topic, partition]
            self._open.pop((topic, partition), None)

    def save_controller_epoch(self, epoch: int) -> None:
        assert epoch > self.controller_epoch
        self.controller_epoch = epoch

    def bind_cluster(self, cluster_id: str) -> None:
        assert self.cluster_id in ("", cluster_id)
        self.cluster_id = cluster_id

    def checkpoint(self) -> None:
        for log in self._open.values():
            log.saved_high_watermark = log.high_watermark

    def close_cleanly(self, broker_epoch: int) -> None:
        for key in list(self._open):
            self.close(*key)

    def kill(self) -> None:
        """The process is gone, the machine goes on: what was written stays."""
        self._open = {}

    def crash(self, rng: Random) -> None:
        """The machine is gone, and with it a random part of what was not synced."""
        self._open = {}
        self._clean = False
        for log in self._logs.values():
            log.crash(rng)
