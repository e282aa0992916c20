"""What is written again, in which batches, and the same batches when it is asked once more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.core.broker.requests.allowance import Share, inspect
from minilog.core.lost_replay import EPOCH_HEADER, OFFSET_HEADER, PARTITION_HEADER, next_step, runs_of
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.codec import codec
from minilog.wire.messages import LostRun, Produce, ProducePartition
from minilog.wire.records import Record, SealedBatch, decode_batch
from tests.unit.wire.batches import encode_batch, unreadable

LARGE = 2**20


def batch_of(base_offset: int, count: int, epoch: int = 1, compression: str = "none", size: int = 10) -> Batch:
    records = [
        Record(i, 1000 + base_offset + i, b"k%d" % (base_offset + i), b"v" * size, (("h", b"x"),)) for i in range(count)
    ]
    (batch,) = split(encode_batch(records, compression=compression), 2**31)
    return stamp(batch, base_offset, epoch, 1)


def placed(batches: list[Batch]) -> list[tuple[int, Batch]]:
    positions = [sum(b.bytes_total for b in batches[:i]) for i in range(len(batches))]
    whole = [batch._replace(buffers=(batch.tobytes(),)) for batch in batches]
    return list(zip(positions, whole, strict=True))


def written(data: bytes) -> list[Record]:
    return [record for batch in split(data, 2**31) for record in decode_batch(batch)]


def all_steps(tail: list[tuple[int, Batch]], runs: list[LostRun], bytes_max: int) -> tuple[list[Record], int]:
    """Every step is made twice: as it is decided, and as it was noted."""
    records: list[Record] = []
    next_offset = position = skipped = 0
    base_offset = -1
    while True:
        rest = [entry for entry in tail if entry[0] >= position]
        step = next_step(rest, "t-0", runs, next_offset, bytes_max)
        if step.batch is not None:
            noted = next_step(rest, "t-0", runs, next_offset, bytes_max, step.next_offset)
            assert noted.batch == step.batch
            assert noted[1:5] == step[1:5]
            records += written(step.batch.head() + step.batch.payload)
        next_offset, position, base_offset = step.next_offset, step.position, step.base_offset
        skipped += step.skipped
        assert base_offset < 0 or (position, base_offset) in {(at, batch.base_offset) for at, batch in tail}
        if step.is_last:
            return records, skipped


def test_records_keep_all_they_had_and_say_where_they_were() -> None:
    tail = placed([batch_of(10, 2), batch_of(12, 1, epoch=3, compression="zstd", size=300)])
    records, skipped = all_steps(tail, runs_of(b for _, b in tail), LARGE)
    assert [(r.key, r.timestamp) for r in records] == [(b"k10", 1010), (b"k11", 1011), (b"k12", 1012)]
    assert records[2].headers == (
        ("h", b"x"), (PARTITION_HEADER, b"t-0"), (OFFSET_HEADER, b"12"), (EPOCH_HEADER, b"3")
    )  # fmt: skip
    assert skipped == 0


def test_what_is_not_claimed_is_left_out() -> None:
    tail = placed([batch_of(10, 5), batch_of(15, 5, epoch=2)])
    records, _ = all_steps(tail, [LostRun(1, 11, 13), LostRun(2, 19, 20), LostRun(1, 15, 18)], LARGE)
    assert [r.key for r in records] == [b"k11", b"k12", b"k19"]


def test_what_cannot_be_read_or_has_no_room_is_counted() -> None:
    bad = stamp(split(unreadable(3), 2**31)[0], 12, 1, 1)
    tail = placed([batch_of(10, 2), bad, batch_of(15, 1, size=5000), batch_of(16, 1)])
    records, skipped = all_steps(tail, runs_of(b for _, b in tail), 1000)
    assert [r.key for r in records] == [b"k10", b"k11", b"k16"]
    assert skipped == 4


@pytest.mark.parametrize("times", [[-10], [-(2**63)], [-(2**63), 2**62], [2**62, -(2**63)], [5, -10, 2**63 - 1]])
def test_records_of_any_time_that_can_be_acknowledged_are_written_again(times: list[int]) -> None:
    """A batch begins in 1970 at the earliest, and a record in it may be of any time before."""
    tail = placed([batch_at(10 + index, time) for index, time in enumerate(times)])
    records, skipped = all_steps(tail, runs_of(b for _, b in tail), LARGE)
    assert ([r.timestamp for r in records], skipped) == (times, 0)


def batch_at(base_offset: int, timestamp: int) -> Batch:
    parts: list[bytes] = []
    base = max(timestamp, -1)
    codec.append_record(parts, 0, timestamp - base, None, b"v", ())
    sealed = SealedBatch(0, base, base, 1, b"".join(parts))
    (entry,) = inspect(Produce(1, 1000, [ProducePartition("t", 0, memoryview(sealed.head() + sealed.payload))])).shares
    assert isinstance(entry, Share), entry
    return stamp(entry.batches[0], base_offset, 1, 1)


def test_runs_are_by_epoch() -> None:
    assert runs_of([batch_of(1, 2), batch_of(3, 2), batch_of(5, 1, epoch=4)]) == [LostRun(1, 1, 5), LostRun(4, 5, 6)]


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 1), st.sampled_from(["none", "gzip"])), min_size=1, max_size=6
    ),
    st.integers(180, 900),
)
def test_each_record_comes_once_and_in_order(shape: list[tuple[int, int, str]], bytes_max: int) -> None:
    batches, offset, epoch = [], 0, 0
    for count, step, compression in shape:
        epoch += step
        batches.append(batch_of(offset, count, epoch, compression))
        offset += count
    tail = placed(batches)
    records, skipped = all_steps(tail, runs_of(batches), bytes_max)
    assert [r.key for r in records] == [b"k%d" % i for i in range(offset)]
    assert skipped == 0


def test_what_cannot_be_read_is_left_to_those_who_can() -> None:
    assert runs_of([batch_of(1, 2), batch_of(5, 2)]) == [LostRun(1, 1, 3), LostRun(1, 5, 7)]


def test_what_was_damaged_after_it_was_claimed_is_counted() -> None:
    tail = placed([batch_of(10, 2), batch_of(12, 3), batch_of(15, 1), batch_of(16, 4)])
    runs = runs_of(b for _, b in tail)
    for size in (180, LARGE):
        records, skipped = all_steps([tail[0], tail[2]], runs, size)
        assert [r.key for r in records] == [b"k10", b"k11", b"k15"]
        assert skipped == 3 + 4


def test_a_record_is_as_large_as_its_topic_allows() -> None:
    tail = placed([batch_of(10, 1, size=3 * LARGE), batch_of(11, 3, size=LARGE // 2)])
    records, skipped = all_steps(tail, runs_of(b for _, b in tail), 4 * LARGE)
    assert [r.key for r in records] == [b"k10", b"k11", b"k12", b"k13"]
    assert skipped == 0
    step = next_step(tail[1:], "t-0", [LostRun(1, 11, 14)], 11, 4 * LARGE)
    assert step.batch is not None
    assert (step.batch.record_count, step.is_last) == (2, False), "a batch has room for others"
