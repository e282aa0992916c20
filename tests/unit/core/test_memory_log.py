"""The fake log is only worth something if it is exact: each answer against one worked out record by
record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptRange, DiskFull
from minilog.wire.batch import split
from tests.unit.core.builders import batch_at, log_of, runs_of
from tests.unit.core.memory_log import MemoryLog

runs = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), max_size=4)
"""(epochs further, records)"""


def grown(steps: list[tuple[int, int]], start_offset: int = 0) -> tuple[MemoryLog, dict[int, int]]:
    """A log, and the epoch of every record in it."""
    epochs: dict[int, int] = {}
    epoch, offset, described = 0, start_offset, []
    for further, count in steps:
        epoch += further
        described.append((epoch, count))
        for _ in range(count):
            epochs[offset] = epoch
            offset += 1
    return log_of(*described, start_offset=start_offset), epochs


@given(runs, st.integers(0, 9), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_epoch_lookups(steps: list[tuple[int, int]], asked: int, start_offset: int) -> None:
    log, epochs = grown(steps, start_offset)
    assert log.end_offset == start_offset + len(epochs)
    assert [log.epoch_at(o) for o in range(start_offset, log.end_offset)] == list(epochs.values())
    assert log.epoch_at(log.end_offset) == log.epoch_at(start_offset - 1) == -1
    older = [e for e in epochs.values() if e <= asked]
    newer = [o for o, e in epochs.items() if e > asked]
    expected_epoch = max(older, default=asked)
    expected_end = min(newer, default=log.end_offset)
    assert log.epoch_end(asked) == (expected_epoch, expected_end)


@given(runs, st.integers(0, 14))
@settings(deadline=None, max_examples=60)
def test_truncation_keeps_the_records_below(steps: list[tuple[int, int]], end_offset: int) -> None:
    log, epochs = grown(steps)
    log.high_watermark = log.end_offset
    assert log.truncate(end_offset) == min(end_offset, len(epochs))
    assert [o for o, _, _ in log.content()] == [o for o in epochs if o < end_offset]
    assert log.durable_end <= log.end_offset
    assert log.high_watermark <= log.end_offset


def test_truncation_falls_on_a_batch_border() -> None:
    log = MemoryLog()
    log.append([batch_at(0, 1, b"a", b"b"), batch_at(2, 1, b"c", b"d")])
    assert log.truncate(3) == 2


def test_reads_hold_whole_batches_below_the_end() -> None:
    log = MemoryLog()
    log.append([batch_at(0, 1, b"a", b"b"), batch_at(2, 1, b"c"), batch_at(3, 2, b"d", b"e")])
    one = log.batches[0].bytes_total

    def bases(offset: int, max_bytes: int, end_offset: int) -> list[int]:
        return [b.base_offset for b in split(log.read(offset, max_bytes, end_offset), 1 << 20, stored=True)]

    assert bases(0, 1 << 20, 5) == [0, 2, 3]
    assert bases(1, 1 << 20, 5) == [0, 2, 3]
    assert bases(2, 1 << 20, 4) == [2]
    assert bases(0, 1, 5) == [0], "at least one"
    assert bases(0, one, 5) == [0]
    assert bases(5, 1, 5) == []


def test_faults_on_demand() -> None:
    log = log_of((1, 2))
    log.room = 1
    log.append([batch_at(2, 1)])
    with pytest.raises(DiskFull):
        log.append([batch_at(3, 1)])
    log.damaged = True
    with pytest.raises(CorruptRange):
        log.read(0, 1, 2)
    assert runs_of(log) == [(1, 3)]


def test_a_log_takes_only_what_joins_on() -> None:
    log = log_of((3, 2))
    with pytest.raises(AssertionError):
        log.append([batch_at(3, 3)])
    with pytest.raises(AssertionError):
        log.append([batch_at(2, 2)])
