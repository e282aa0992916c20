"""PartitionLog against a list of batches."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.recovery.recovery import NOTHING_KNOWN
from minilog.wire.batch import Batch
from tests.unit.storage.batches import everything, flush, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk


class LogMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.disk = MemoryDisk()
        self.log = open_in(self.disk)
        self.batches: list[Batch] = []
        self.start = 0
        self.epoch = 0
        self.durable_end = 0
        self.point = NOTHING_KNOWN

    @property
    def end(self) -> int:
        return self.batches[-1].end_offset if self.batches else self.start

    @rule(
        sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 1500)), min_size=1, max_size=4), bump=st.booleans()
    )
    def append(self, sizes: list[tuple[int, int]], bump: bool) -> None:
        self.epoch += bump
        new: list[Batch] = []
        for records, size in sizes:
            base_offset = new[-1].end_offset if new else self.end
            new.append(make(base_offset, self.epoch, records=records, size=size))
        self.log.append(new)
        self.batches += new

    @rule()
    def flush(self) -> None:
        flush(self.log)
        assert self.log.durable_end == self.end

    @rule()
    def checkpoint(self) -> None:
        self.point = self.log.checkpoint()

    @rule(fraction=st.floats(0, 1))
    def truncate(self, fraction: float) -> None:
        target = self.start + int(fraction * (self.end - self.start))
        kept = [batch for batch in self.batches if batch.end_offset <= target]
        cut = self.batches[len(kept) :]
        lost = list(self.log.records_lost)
        self.batches = kept
        assert self.log.truncate(target) == self.end
        assert sum(self.log.records_lost) - sum(lost) == sum(batch.record_count for batch in cut)
        if cut:
            assert self.log.durable_end == self.end

    @rule(ahead=st.integers(0, 1000))
    def reset(self, ahead: int) -> None:
        self.start = self.end + ahead
        self.batches = []
        self.log.reset(self.start)

    @rule(fraction=st.floats(0, 1))
    def drop(self, fraction: float) -> None:
        self.log.high_watermark = self.end
        target = self.start + int(fraction * (self.end - self.start))
        borders = [self.start, *(batch.end_offset for batch in self.batches)]
        self.start = max(border for border in borders if border <= target)
        flush(self.log)
        self.log.advance_start(self.start)
        self.batches = [batch for batch in self.batches if batch.base_offset >= self.start]

    @rule(fraction=st.floats(0, 1), max_bytes=st.integers(0, 5000), limit=st.floats(0, 1))
    def read(self, fraction: float, max_bytes: int, limit: float) -> None:
        offset = self.start + int(fraction * (self.end - self.start))
        end_offset = offset + int(limit * (self.end - offset))
        data = self.log.read(offset, max_bytes, end_offset)
        expected = [b.tobytes() for b in self.batches if b.end_offset > offset and b.end_offset <= end_offset]
        assert b"".join(expected).startswith(data)
        if expected:
            assert len(expected[0]) <= len(data) <= max(max_bytes, len(expected[0]))

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        """A clean stop, or a kill -9: the page cache survives."""
        high_watermark = self.log.high_watermark
        if clean:
            self.point = self.log.close()
        else:
            self.log.abandon()
        assert self.disk.open_handles == 0
        self.log = open_in(self.disk, point=self.point, power_loss=False)
        assert self.log.durable_end == self.end
        if clean:
            assert self.log.high_watermark == high_watermark

    @rule(seed=st.integers(0, 2**32))
    def power_cut(self, seed: int) -> None:
        durable_end, start = self.log.durable_end, self.start
        self.disk.crash(random.Random(seed))
        self.log = open_in(self.disk, point=self.point)
        assert durable_end <= self.log.end_offset <= self.end
        assert self.log.start_offset == start
        self.batches = [batch for batch in self.batches if batch.end_offset <= self.log.end_offset]

    @rule(epoch=st.integers(-1, 12))
    def epoch_end(self, epoch: int) -> None:
        at_most = [batch for batch in self.batches if batch.leader_epoch <= epoch]
        if not self.batches:
            assert self.log.epoch_end(epoch) == (epoch, self.end)
        elif not at_most:
            assert self.log.epoch_end(epoch) == (epoch, self.start)
        else:
            assert self.log.epoch_end(epoch) == (at_most[-1].leader_epoch, at_most[-1].end_offset)

    @invariant()
    def agrees(self) -> None:
        log = self.log
        assert (log.start_offset, log.end_offset) == (self.start, self.end)
        assert log.start_offset <= log.high_watermark <= log.end_offset
        assert log.durable_end <= log.end_offset
        assert log.last_epoch == (self.batches[-1].leader_epoch if self.batches else -1)
        assert log.size_bytes >= sum(batch.bytes_total for batch in self.batches)
        assert not log.is_damaged
        assert log.epoch_entries == log.recompute_epochs()
        assert everything(log) == b"".join(batch.tobytes() for batch in self.batches)
        assert isinstance(self.point, RecoveryPoint)


LogMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_log_model = LogMachine.TestCase
