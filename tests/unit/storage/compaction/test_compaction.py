"""Compaction case by case, and one cleaning stopped at every operation of the disk."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest

from minilog.config import TopicSettings, topic_settings
from minilog.errors import CorruptRange, DiskFull, InvalidConfig
from minilog.storage.compaction.cleaning_round import Dirt, Round, is_due, survey
from minilog.storage.compaction.offset_map import OffsetMap
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.log.log import PartitionLog
from minilog.wire.batch import split, stamp
from minilog.wire.records import Record
from tests.unit.storage.batches import open_in
from tests.unit.storage.compaction.keyed import COMPACTED, Seen, Stop, StoppingDisk, commit, keyed, read_from
from tests.unit.storage.compaction.rounds import clean_now
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.wire.batches import decode_all, encode_batch

NOW_MS = 10_000


def make_log(disk: StoppingDisk, settings: TopicSettings = COMPACTED) -> PartitionLog:
    """Four keys, written in turn in two epochs over some small segments. Key 3 is deleted in the
    end."""
    log = open_in(disk, settings)
    for i in range(60):
        value = None if i > 52 and i % 4 == 3 else b"%d" % i
        keyed(log, [(b"k%d" % (i % 4), value)], epoch=i // 30, timestamp=1000)
    commit(log)
    log.maybe_roll(NOW_MS + log.settings.segment_ms)
    return log


def survivors(log: PartitionLog) -> list[Seen]:
    return read_from(log, log.start_offset)


AFTER_CLEANING = [Seen(56, b"k0", b"56"), Seen(57, b"k1", b"57"), Seen(58, b"k2", b"58"), Seen(59, b"k3", None)]


def test_the_last_value_of_each_key_stays_where_it_was() -> None:
    log = make_log(StoppingDisk())
    figures = CleaningFigures()
    assert clean_now(log, NOW_MS, figures)
    assert survivors(log) == AFTER_CLEANING
    assert (log.start_offset, log.end_offset, log.state.cleaned_end) == (0, 60, 60)
    assert log.epoch_entries == log.recompute_epochs() == [(0, 0), (1, 30)]
    assert (figures.records_read, figures.records_removed, figures.rounds) == (60, 56, 1)
    assert read_from(log, 20, max_bytes=1) == AFTER_CLEANING


def test_a_tombstone_stays_until_its_horizon_and_then_goes() -> None:
    log = make_log(StoppingDisk())
    assert clean_now(log, NOW_MS)
    assert log.state.horizon_ms == NOW_MS + 1000
    assert not is_due(log, survey(log, NOW_MS + 999), NOW_MS + 999)
    assert clean_now(log, NOW_MS + 999)
    assert survivors(log) == AFTER_CLEANING
    assert not is_due(log, survey(log, NOW_MS + 10**9), NOW_MS + 10**9), "a jump of the clock is no time to read it"
    log.look(NOW_MS + 1000)
    assert not is_due(log, survey(log, None), None)
    assert is_due(log, survey(log, NOW_MS + 1000), NOW_MS + 1000), "on an idle log too"
    assert clean_now(log, NOW_MS + 1000)
    assert survivors(log) == AFTER_CLEANING[:3]
    assert log.state.horizon_ms == -1


def test_records_keep_their_times_when_the_horizon_takes_the_base_timestamp() -> None:
    log = make_log(StoppingDisk())
    clean_now(log, NOW_MS)
    data = log.read(59, 1 << 20, log.end_offset)
    assert split(data, 1 << 20, stored=True)[0].delete_horizon_ms == NOW_MS + 1000
    assert [record.timestamp for record in decode_all(data)] == [1000]
    assert log.offset_at(1000) == (56, 1000), "a batch without records has no time to be found at"


def test_a_record_as_far_as_can_be_from_the_horizon_leaves_its_batch_readable() -> None:
    log = make_log(StoppingDisk())
    records = [Record(0, -1, b"k0"), Record(1, 0, b"new", b"v"), Record(2, -(2**63), b"k1", b"w")]
    (batch,) = split(encode_batch(records), 1 << 20)
    log.append([stamp(batch, 60, 1, 3)])
    keyed(log, [(b"new", b"newer")], epoch=1, timestamp=1000)
    commit(log)
    log.maybe_roll(NOW_MS + log.settings.segment_ms)
    for now_ms in (NOW_MS, NOW_MS + 1000, NOW_MS + 5000):
        assert clean_now(log, now_ms)
        kept = [record for record in decode_all(log.read(60, 1 << 20, log.end_offset)) if record.offset < 63]
        assert [(record.timestamp, record.key) for record in kept] == [(-1, b"k0"), (-(2**63), b"k1")]
    assert log.state.horizon_ms == -1, "a tombstone that can never go makes no cleaning due"
    assert not is_due(log, survey(log, NOW_MS + 10**9), NOW_MS + 10**9)


def test_neighbours_are_merged_up_to_the_size_of_a_segment() -> None:
    log = make_log(StoppingDisk())
    before = len(log.segments)
    assert clean_now(log, NOW_MS)
    assert clean_now(log, NOW_MS)
    assert 2 < len(log.segments) < before, "what stays does not fit into one"
    log.configure(TopicSettings(segment_bytes=4096, cleanup_policy="compact"))
    assert clean_now(log, NOW_MS)
    assert len(log.segments) == 2, "one cleaned, one active"
    again = open_in(log.place.disk, COMPACTED, log.close())
    assert survivors(again) == AFTER_CLEANING


def test_a_small_map_takes_several_rounds() -> None:
    log = make_log(StoppingDisk())
    rounds = 0
    while log.state.cleaned_end < 60:
        assert clean_now(log, NOW_MS, map_bytes_max=1)
        rounds += 1
    assert rounds == 60
    assert survivors(log) == AFTER_CLEANING


def test_what_has_no_key_or_cannot_be_read_stays() -> None:
    log = open_in(StoppingDisk(), COMPACTED)
    keyed(log, [(None, b"1"), (b"k", b"2")], 0, 1000)
    data = encode_batch([Record(0, 1000, b"k", b"3")], compression="gzip")
    (good,) = split(data, 1 << 20)
    (odd,) = split(stamp(good._replace(attributes=2), 2, 0, 1).tobytes(), 1 << 20, stored=True)
    log.append([odd])  # gzip bytes that claim to be snappy
    keyed(log, [(b"k", b"4")], 0, 1000)
    commit(log)
    log.maybe_roll(NOW_MS + COMPACTED.segment_ms)
    figures = CleaningFigures()
    clean_now(log, NOW_MS, figures)
    assert figures.batches_unreadable == 1
    assert log.read(2, 1, 3) == odd.tobytes()
    assert read_from(log, 0, 2) == [Seen(0, None, b"1")]
    assert read_from(log, 3) == [Seen(3, b"k", b"4")]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_batches_are_cleaned_and_stay_compressed(compression: str) -> None:
    log = open_in(StoppingDisk(), COMPACTED)
    for _ in range(2):
        records = [Record(i, 1000, b"k%d" % i, b"v" * 50) for i in range(4)]
        (batch,) = split(encode_batch(records[: 4 - log.end_offset // 4], compression=compression), 1 << 20)
        log.append([stamp(batch, log.end_offset, 0, 3)])
    commit(log)
    log.maybe_roll(NOW_MS + COMPACTED.segment_ms)
    clean_now(log, NOW_MS)
    assert [seen.offset for seen in survivors(log)] == [3, 4, 5, 6]
    codecs = [batch.codec for batch in split(log.read(0, 1 << 20, 7), 1 << 20, stored=True)]
    assert codecs[0] == codecs[1] > 0


def test_young_records_wait_for_their_lag() -> None:
    settings = TopicSettings(segment_bytes=600, cleanup_policy="compact", min_compaction_lag_ms=5000)
    log = make_log(StoppingDisk(), settings)
    log.look(0)
    log.look(4999)
    assert survey(log, 10**9).dirty_bytes == 0, "they are old, and were written a moment ago"
    log.look(5000)
    assert survey(log, None).dirty_bytes == 0
    assert survey(log, 5999).dirty_bytes == 0
    assert survey(log, 6000).end_offset == 60


def test_when_a_log_is_due() -> None:
    log = make_log(StoppingDisk())

    def due(dirt: Dirt, **changes: object) -> bool:
        log.configure(topic_settings({"cleanup.policy": "compact", **{k: str(v) for k, v in changes.items()}}))
        return is_due(log, dirt, NOW_MS)

    assert due(Dirt(100, 100, 60, 1000))
    assert not due(Dirt(101, 99, 60, 1000))
    assert due(Dirt(101, 99, 60, 1000), **{"min.cleanable.dirty.ratio": 0.4})
    assert due(Dirt(101, 99, 60, 1000), **{"max.compaction.lag.ms": 8999})
    assert not due(Dirt(101, 99, 60, 1000), **{"max.compaction.lag.ms": 9000})
    assert not due(Dirt(100, 0, 60, -1), **{"min.cleanable.dirty.ratio": 0})
    assert not due(Dirt(0, 100, 60, 1000), **{"cleanup.policy": "delete"})


@pytest.mark.parametrize(
    "config",
    [
        {"cleanup.policy": "compress"},
        {"min.cleanable.dirty.ratio": "1.5"},
        {"retention.ms": "-2"},
        {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "9"},
    ],
)
def test_impossible_settings_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        topic_settings(config)


@pytest.mark.parametrize("change", ["cut", "new start"])
def test_a_cut_or_a_new_start_meanwhile_cancels_the_round(change: str) -> None:
    log = make_log(StoppingDisk())
    figures = CleaningFigures()
    round_ = Round(log, survey(log, NOW_MS).end_offset, NOW_MS, figures)
    groups = round_.prepare()
    assert all(round_.clean(group) for group in groups)
    if change == "cut":
        log.truncate(40)
    else:
        log.advance_start(30)
    kept = survivors(log)
    assert not round_.install(groups[0])
    assert figures.cancelled > 0
    round_.close()
    assert survivors(log) == kept


def test_a_log_that_is_cut_below_what_its_cleaning_went_by_begins_anew() -> None:
    """Only an unclean election does that. Value 0 went because of value 59, and now neither would
    be there."""
    log = make_log(StoppingDisk())
    assert clean_now(log, NOW_MS)
    assert log.state.swept_end == 60
    assert log.truncate(58) == 0
    assert (log.start_offset, log.end_offset, log.last_epoch) == (0, 0, -1)
    assert sum(log.records_lost) == 2, "the rest is with the leader"
    keyed(log, [(b"k", b"v")], 2, 1000)
    again = open_in(log.place.disk, COMPACTED, log.close())
    assert survivors(again) == [Seen(0, b"k", b"v")]


def test_a_damaged_segment_is_named_and_left_alone() -> None:
    disk = MemoryDisk()
    log = open_in(disk, COMPACTED)
    for i in range(20):
        keyed(log, [(b"k", b"%d" % i)], 0, 1000)
    commit(log)
    disk.file(log.segments[0].path).content[100] ^= 1
    with pytest.raises(CorruptRange, match="damaged at byte"):
        clean_now(log, NOW_MS)
    assert not [name for name in disk.list("/d/t-0") if "cleaned" in name]
    assert log.segments[0].bad_ranges == [], "whoever reads it next finds out and says so"


class FullDisk(StoppingDisk):
    """No name with this ending can be made."""

    ending = "nothing"

    def rename(self, source: str, target: str) -> None:
        if target.endswith(self.ending):
            raise DiskFull("no space left")
        super().rename(source, target)


@pytest.mark.parametrize("ending", [".deleted", ".index", ".timeindex"])
def test_a_disk_that_is_full_half_way_through_a_swap_does_not_stop_it(ending: str) -> None:
    """What would wait to be removed goes at once, and indexes are made anew when they are
    needed."""
    disk = FullDisk()
    log = make_log(disk)
    disk.ending = ending
    log.configure(TopicSettings(segment_bytes=4096, cleanup_policy="compact"))
    assert clean_now(log, NOW_MS)
    assert survivors(log) == AFTER_CLEANING
    assert bool(log.garbage) == (ending != ".deleted")
    disk.ending = "nothing"
    assert survivors(open_in(disk, COMPACTED, log.close())) == AFTER_CLEANING


def test_a_full_disk_changes_nothing() -> None:
    for at in range(1, 30):
        disk = MemoryDisk()
        log = open_in(disk, COMPACTED)
        for i in range(20):
            keyed(log, [(b"k%d" % (i % 3), b"%d" % i)], 0, 1000)
        commit(log)
        before = survivors(log)
        disk.faults[len(disk.operations) + at] = "full"
        try:
            clean_now(log, NOW_MS)
        except DiskFull:
            assert survivors(log)[-3:] == before[-3:]
            assert clean_now(log, NOW_MS), "and the next round does it"
        except Exception as error:  # behind the decision: the process stops, and recovery completes it
            assert "could not be put in place" in str(error)  # noqa: PT017
        again = open_in(disk, COMPACTED)
        assert {seen.key: seen.value for seen in survivors(again)} == {seen.key: seen.value for seen in before}
        if at > len(disk.operations):
            return


def sweep_cleaning(make: Callable[[StoppingDisk], PartitionLog], expected: list[Seen]) -> int:
    """One cleaning, stopped before, after and within each of its disk operations, with and without
    the page cache, and once more in the recovery that follows; returns the number of cases. Raises
    when anything but ``expected`` is left after the cleaning that is done in the end, or anything
    that was to be kept is missing before it."""
    disk = StoppingDisk()
    log = make(disk)
    disk.arm(0, "")
    clean_now(log, NOW_MS)
    operations = list(disk.operations)
    cases = 0
    for at, operation in enumerate(operations, 1):
        for how in ("before", "after", "torn") if operation == "append" else ("before", "after"):
            for power in (False, True):
                _stop_one(make, expected, at, how, power)
                cases += 1
    return cases


def _stop_one(
    make: Callable[[StoppingDisk], PartitionLog], expected: list[Seen], at: int, how: str, power: bool
) -> None:
    disk = StoppingDisk()
    log = make(disk)
    point = log.checkpoint()
    written = survivors(log)
    disk.arm(at, how)
    with pytest.raises(Stop):
        clean_now(log, NOW_MS)
    for second in (at % 5 + 1, 0):  # the recovery is stopped as well, the next one is let through
        disk.arm(second, how)
        if power:
            disk.crash(random.Random(at))
        else:
            disk.kill()
        try:
            log = open_in(disk, COMPACTED, point, power_loss=power)
        except Stop:
            continue
    assert not log.is_damaged
    assert set(expected) <= set(survivors(log)) <= set(written)
    assert log.epoch_entries == log.recompute_epochs()
    leftovers = [name for name in disk.list("/d/t-0") if "cleaned" in name or "swap" in name or "deleted" in name]
    assert leftovers == []
    log.high_watermark = log.end_offset
    disk.arm(0, "")
    assert clean_now(log, NOW_MS)
    assert survivors(log) == expected


def test_a_stop_at_every_operation_of_a_cleaning() -> None:
    def make(disk: StoppingDisk) -> PartitionLog:
        log = open_in(disk, COMPACTED)
        for i in range(24):
            keyed(log, [(b"k%d" % (i % 2), b"%d" % i if i < 23 else None)], epoch=i // 10, timestamp=1000)
        commit(log)
        log.maybe_roll(NOW_MS + log.settings.segment_ms)
        assert clean_now(log, NOW_MS)  # so that there are small neighbours to merge
        for i in range(4):
            keyed(log, [(b"k%d" % (i % 2), b"new")], epoch=3, timestamp=1000)
        commit(log)
        log.maybe_roll(NOW_MS + log.settings.segment_ms)
        return log

    assert sweep_cleaning(make, [Seen(26, b"k0", b"new"), Seen(27, b"k1", b"new")]) > 100


def test_the_offset_map_knows_what_it_costs() -> None:
    for key_bytes in (8, 40, 200):
        tracemalloc.start()
        latest = OffsetMap(1 << 30)
        for i in range(6_000):
            latest.put(b"%0*d" % (key_bytes, i), 2**40 + i)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used <= latest.bytes_used * 1.02
        assert latest.latest(b"%0*d" % (key_bytes, 7)) == 2**40 + 7
        assert latest.latest(b"none") == -1
