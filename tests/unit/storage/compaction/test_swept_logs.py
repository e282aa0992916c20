"""A log from which older values were swept, because of records that an unclean election has cut
since: it never passes for whole.

Epoch 1 is on both logs and committed. Epoch 2 is committed on the one that is cleaned then. The
leader of epoch 3 lacks it.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from minilog.config import TopicSettings
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import CorruptRange, DiskFull
from minilog.storage.compaction.cleaning_round import Round, survey
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_state import STATE_FILE
from minilog.storage.recovery.recovery import NOTHING_KNOWN
from minilog.wire.batch import split
from minilog.wire.messages import ReplicaFetchResult
from minilog.wire.records import Record
from tests.unit.core.builders import partition_state
from tests.unit.storage.batches import open_in
from tests.unit.storage.compaction.keyed import commit, keyed, read_from
from tests.unit.storage.compaction.rounds import clean_now
from tests.unit.storage.memory_disk import Crash, MemoryDisk
from tests.unit.wire.batches import encode_batch

SETTINGS = TopicSettings(segment_bytes=400, cleanup_policy="compact", delete_retention_ms=10**9, max_message_bytes=4096)
NOW = 10_000
Latest = dict[bytes | None, bytes | None]


def follow(leader: PartitionLog, log: PartitionLog, epoch: int, *, fetches: int = 100, says_sweep: bool = True) -> None:
    """The follower's own code against the leader's own code, until nothing is left to do or so many
    fetches are answered."""
    state = partition_state(replicas=[0, 1], leader=0, leader_epoch=epoch)
    leading = LeaderState(0, 1, state, SETTINGS, leader, lambda *_: True, NOW)
    following = FollowerState(state, epoch, 0, SETTINGS, log)
    for _ in range(fetches):
        entry = following.next_fetch()
        diverging = leading.on_fetch(1, 1, entry, NOW)
        data = memoryview(b"")
        if diverging is None:
            if entry.fetch_offset == leader.end_offset:
                return
            data = memoryview(leader.read(entry.fetch_offset, 400, leader.end_offset))
        result = ReplicaFetchResult(
            entry.topic,
            entry.topic_id,
            entry.partition,
            epoch,
            entry.fetch_offset,
            leader.high_watermark,
            leader.start_offset,
            batches=data,
            diverging=diverging,
            swept_end=leader.swept_end if says_sweep else -1,
        )
        following.on_fetched(result, NOW)
        log.flush()
    assert fetches < 100, "it does not end"


def latest(log: PartitionLog) -> Latest:
    return {record.key: record.value for record in read_from(log, log.start_offset)}


def committed_in_epoch_1(*logs: PartitionLog) -> None:
    for log in logs:
        keyed(log, [(b"a", b"kept")], 1, 1000)
        for number in range(6):
            keyed(log, [(b"b%d" % number, b"x" * 50)], 1, 1000)
        commit(log)


def committed_in_epoch_2(log: PartitionLog) -> None:
    keyed(log, [(b"a", b"newer")], 2, 1000)
    for number in range(12):
        keyed(log, [(b"c%d" % number, b"y" * 50)], 2, 1000)
    commit(log)


def written_in_epoch_3(leader: PartitionLog) -> None:
    keyed(leader, [(b"z", b"3")], 3, 1000)
    leader.flush()


def logs_on(disk: MemoryDisk) -> tuple[PartitionLog, PartitionLog]:
    """(the leader of epoch 3, the log on ``disk`` that was cleaned)."""
    leader, log = open_in(MemoryDisk(), SETTINGS), open_in(disk, SETTINGS)
    committed_in_epoch_1(leader, log)
    committed_in_epoch_2(log)
    assert clean_now(log, NOW)
    written_in_epoch_3(leader)
    return leader, log


def check_same(leader: PartitionLog, log: PartitionLog, when: str = "") -> None:
    assert log.end_offset == leader.end_offset, when
    assert latest(log) == latest(leader), when


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_crash_while_a_log_begins_anew_does_not_hide_what_was_swept(checkpointed: bool, power_loss: bool) -> None:
    for stop in range(1, 300):
        disk = MemoryDisk()
        leader, log = logs_on(disk)
        point = log.checkpoint() if checkpointed else NOTHING_KNOWN
        done = len(disk.operations)
        disk.faults[done + stop] = "crash"
        with suppress(Crash):
            follow(leader, log, 3)
        was_stopped = len(disk.operations) == done + stop
        where = f"stopped at operation {stop}, {disk.operations[-1]}"
        disk.faults.clear()
        if power_loss:
            disk.crash()
        else:
            disk.kill()
        again = open_in(disk, SETTINGS, point, power_loss=power_loss)
        assert not again.is_damaged
        follow(leader, again, 3)
        check_same(leader, again, where)
        if not was_stopped:
            return
    raise AssertionError("it never got to its end")


def test_what_was_noted_on_the_way_is_settled_before_anything_is_written_behind_it() -> None:
    """The last note of an emptied log finds no room: what comes in then is not taken for the rest
    of the old log."""
    disk = MemoryDisk()
    _, log = logs_on(disk)
    log.reset(0, -1)
    begins = disk.operations.index("truncate")
    disk = MemoryDisk()
    _, log = logs_on(disk)
    disk.faults = dict.fromkeys(range(begins + 1, 1000), "full")
    log.reset(0, -1)
    with pytest.raises(DiskFull):
        keyed(log, [(b"z", b"3")], 3, 1000)
    disk.faults.clear()
    keyed(log, [(b"z", b"3")], 3, 1000)
    commit(log)
    disk.kill()
    again = open_in(disk, SETTINGS, power_loss=False)
    assert (again.end_offset, again.swept_end) == (1, 0)


def partly_swept(disk: MemoryDisk) -> PartitionLog:
    log = open_in(disk, SETTINGS)
    committed_in_epoch_1(log)
    committed_in_epoch_2(log)
    round_ = Round(log, survey(log, NOW).end_offset, NOW, CleaningFigures())
    for group in round_.prepare()[:1]:
        assert round_.clean(group)
        assert round_.install(group)
    round_.close()
    return log


@pytest.mark.parametrize("starts", [1, 2])
def test_a_log_with_holes_and_a_damaged_state_is_not_given_up_for_a_cut(starts: int) -> None:
    """R94, R53: what was swept, and for what, is not known. Perhaps nobody else holds the rest."""
    disk = MemoryDisk()
    leader = open_in(MemoryDisk(), SETTINGS)
    committed_in_epoch_1(leader)
    written_in_epoch_3(leader)
    log = partly_swept(disk)
    held = latest(log)
    log.abandon()
    disk.kill()
    disk.flip_bit(f"/d/t-0/{STATE_FILE}", 40)
    for _ in range(starts):
        again = open_in(disk, SETTINGS, power_loss=False)
        assert not again.is_damaged
        assert again.state.swept_end == 0, (
            "of what was cut nobody knows now, so nothing counts as committed because of this"
        )
        with pytest.raises(CorruptRange, match="Move the directory away"):
            follow(leader, again, 3)
        assert again.is_damaged
        again.note_damage()
        assert latest(again) == held
        again.abandon()
        disk.kill()


def test_what_was_swept_for_lies_below_what_is_committed() -> None:
    """A cut above loses nothing. A copy is told no more than that."""
    disk = MemoryDisk()
    log = partly_swept(disk)
    end_offset = log.end_offset
    keyed(log, [(b"t", b"never committed")], 2, 1000)
    log.flush()
    log.abandon()
    disk.kill()
    disk.flip_bit(f"/d/t-0/{STATE_FILE}", 40)
    again = open_in(disk, SETTINGS, power_loss=False)
    assert again.state.unsure_end == again.end_offset == end_offset + 1
    assert again.swept_end == again.high_watermark
    again.high_watermark = end_offset
    assert again.swept_end == end_offset


@pytest.mark.parametrize("says_sweep", [True, False], ids=["the leader says it", "a leader of before that"])
def test_a_copy_of_a_cleaned_log_is_cut_like_the_cleaned_one(says_sweep: bool) -> None:
    leader, cleaned = logs_on(MemoryDisk())
    copy = open_in(MemoryDisk(), SETTINGS)
    follow(cleaned, copy, 2, says_sweep=says_sweep)
    assert copy.end_offset == cleaned.end_offset
    for log in (cleaned, copy):
        follow(leader, log, 3)
        check_same(leader, log)


@pytest.mark.parametrize("restarts", [False, True])
def test_half_a_copy_of_a_cleaned_log_is_none_when_another_epoch_begins(restarts: bool) -> None:
    """Nothing that it holds diverges. What made older values go lies in what it never got."""
    leader, cleaned = logs_on(MemoryDisk())
    disk = MemoryDisk()
    copy = open_in(disk, SETTINGS)
    follow(cleaned, copy, 2, fetches=2)
    assert 0 < copy.end_offset < 14
    assert copy.swept_end == cleaned.swept_end
    if restarts:
        disk.kill()
        copy = open_in(disk, SETTINGS, power_loss=False)
    follow(leader, copy, 3)
    check_same(leader, copy)
    assert copy.records_lost == [0, 0, 0, 0], "all of it is known to be committed"


def test_a_copy_is_not_cleaned_of_its_mark_by_a_tail_that_is_cut() -> None:
    """A cut above what was swept costs nothing, and what is above it stays in force."""
    _, cleaned = logs_on(MemoryDisk())
    copy = open_in(MemoryDisk(), SETTINGS)
    follow(cleaned, copy, 2)
    end_offset = copy.end_offset
    keyed(copy, [(b"t", b"never committed")], 2, 1000)
    assert copy.truncate(end_offset) == end_offset
    assert copy.swept_end == cleaned.swept_end


def test_a_retry_is_known_after_a_cut_above_what_a_round_with_a_full_map_has_swept() -> None:
    """R32: which batches are a producer's last was asked for the whole of what was to be
    cleaned."""
    leader, log = open_in(MemoryDisk(), SETTINGS), open_in(MemoryDisk(), SETTINGS)
    for one in (leader, log):
        keyed(one, [(b"a", b"1")], 1, 1000, producer=(7, 0, 0))  # the write that will be sent again
        keyed(one, [(b"a", b"2")], 1, 1000)
        for number in range(12):
            keyed(one, [(b"k%d" % number, b"x" * 50)], 1, 1000)
        commit(one)
    for number in range(4):
        keyed(log, [(b"l%d" % number, b"x" * 50)], 2, 1000)
    keyed(log, [(b"z", b"3")], 2, 1000, producer=(7, 0, 1))
    for number in range(12):
        keyed(log, [(b"m%d" % number, b"x" * 50)], 2, 1000)
        commit(log)  # each time: snapshots of producers that are no longer needed go
    assert clean_now(log, NOW, map_bytes_max=8 * 160)
    assert 2 <= log.state.cleaned_end < 14
    written_in_epoch_3(leader)
    follow(leader, log, 3)
    data = encode_batch([Record(0, 1000, b"a", b"1")], producer_id=7, producer_epoch=0, base_sequence=0)
    again = split(data, 1 << 20)
    for one in (leader, log):
        assert [place and place.base_offset for place in one.find_written(again)] == [0]
