"""What a consumer is shown of a replica (R7, R12, R23), and every refusal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.broker.requests.consumer_read import check_truncation, find_offset, known_high_watermark, read
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import LeaderNotAvailable, LogTruncated, NotLeader, OffsetNotAvailable
from minilog.wire.batch import filler, split, stamp
from minilog.wire.cleaned_batch import retain
from minilog.wire.messages import EARLIEST, LATEST, Fetch, FetchPartition, FetchResult, OffsetsPartition
from minilog.wire.records import Record, decode_batch
from tests.unit.core.builders import (
    TOPIC,
    TOPIC_ID,
    batch_at,
    extend,
    follower_of,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    replica_of,
)
from tests.unit.core.memory_log import MemoryLog
from tests.unit.wire.batches import encode_batch

ROOM = 1 << 20
Runs = list[tuple[int, int]]
Role = LeaderState | FollowerState


def leading(*runs: tuple[int, int], high_watermark: int | None = None, start_offset: int = 0) -> LeaderState:
    """A leader whose epoch's own start is committed, unless ``high_watermark`` says otherwise."""
    log = log_of(*(runs or ((5, 10),)), start_offset=start_offset)
    log.high_watermark = log.end_offset if high_watermark is None else high_watermark
    return leader_of(partition_state(), log)


def following(
    *runs: tuple[int, int], high_watermark: int, caught_up_ms: int | None = 1000, start_offset: int = 0
) -> FollowerState:
    log = log_of(*runs, start_offset=start_offset, high_watermark=high_watermark)
    follower = follower_of(partition_state(), log)
    follower.caught_up_ms = caught_up_ms
    return follower


def ask(
    role: Role,
    offset: int = 0,
    *,
    room: int = ROOM,
    max_bytes: int = ROOM,
    leader_epoch: int = -1,
    last_epoch: int = -1,
    any_replica: bool = False,
    max_lag_ms: int = -1,
    now_ms: int = 1000,
    unsure_ms: int = 0,
) -> FetchResult:
    entry = FetchPartition(TOPIC, 0, offset, max_bytes, leader_epoch, last_epoch)
    request = Fetch([entry], any_replica=any_replica, max_lag_ms=max_lag_ms)
    return read(replica_of(role), entry, request, room, now_ms, unsure_ms)


def offsets(found: FetchResult) -> list[int]:
    assert found.problem is None
    return [batch.base_offset for batch in split(found.batches, ROOM, stored=True)]


def code(found: FetchResult) -> str:
    assert found.problem is not None
    assert len(found.batches) == 0
    return found.problem.code


# --- committed records only (R12) -----------------------------------------------------------------


@given(st.integers(0, 10), st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_only_what_lies_below_the_high_watermark_is_shown(offset: int, high_watermark: int) -> None:
    found = ask(leading((5, 10), high_watermark=high_watermark), offset)
    assert offsets(found) == list(range(offset, high_watermark))


def test_a_batch_that_the_high_watermark_cuts_is_not_shown() -> None:
    log = MemoryLog()
    log.append([batch_at(0, 5, b"a"), batch_at(1, 5, b"b", b"c")])
    log.high_watermark = 2
    assert offsets(ask(leader_of(partition_state(), log), 0)) == [0]


def test_the_answer_says_where_it_stands() -> None:
    found = ask(leading((5, 10), start_offset=20), 25)
    assert (found.high_watermark, found.log_start_offset, found.leader_epoch) == (30, 20, 5)
    assert (found.lag_ms, found.lag_records) == (0, 0)


@pytest.mark.parametrize(("room", "max_bytes"), [(1, ROOM), (ROOM, 1)])
def test_bytes_are_bounded_by_request_and_partition(room: int, max_bytes: int) -> None:
    assert offsets(ask(leading(), 0, room=room, max_bytes=max_bytes)) == [0]


def test_without_room_there_are_no_records_and_no_error() -> None:
    assert offsets(ask(leading(), 0, room=0)) == []


# --- the range (leader and follower) --------------------------------------------------------------


@pytest.mark.parametrize("offset", [19, 31, 99])
def test_outside_the_leaders_log_is_an_error_that_names_the_range(offset: int) -> None:
    found = ask(leading((5, 10), start_offset=20, high_watermark=28), offset)
    assert code(found) == "OFFSET_OUT_OF_RANGE"
    assert found.problem is not None
    assert found.problem.info == {"log_start_offset": 20, "high_watermark": 28}


@pytest.mark.parametrize("offset", [28, 29, 30])
def test_between_the_high_watermark_and_the_end_there_is_nothing_yet(offset: int) -> None:
    assert offsets(ask(leading((5, 10), start_offset=20, high_watermark=28), offset)) == []


def test_a_follower_does_not_know_what_lies_beyond_its_end() -> None:
    behind = following((5, 4), high_watermark=3)
    assert offsets(ask(behind, 99, any_replica=True)) == []
    trimmed = following((5, 4), start_offset=10, high_watermark=12)
    assert code(ask(trimmed, 9, any_replica=True)) == "OFFSET_OUT_OF_RANGE"


# --- epochs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leader_epoch", "expected"),
    [(4, "FENCED_LEADER_EPOCH"), (6, "UNKNOWN_LEADER_EPOCH"), (5, None), (-1, None)],
)
def test_a_client_of_another_epoch_is_told_the_current_one(leader_epoch: int, expected: str | None) -> None:
    found = ask(leading(), 9, leader_epoch=leader_epoch)
    if expected is None:
        assert offsets(found) == [9]
        return
    assert code(found) == expected
    assert found.problem is not None
    assert found.problem.info == {"leader_epoch": 5}
    assert found.leader_epoch == 5


# --- truncation (R23) -----------------------------------------------------------------------------

TRUNCATED: dict[str, tuple[Runs, int, int, tuple[int, int, int] | None]] = {
    # log, offset, last epoch read -> (lost from, lost to, epoch)
    "read all there is": ([(1, 5), (3, 5)], 10, 3, None),
    "in the middle of an epoch": ([(1, 5), (3, 5)], 7, 3, None),
    "at the border of two epochs": ([(1, 5), (3, 5)], 5, 1, None),
    "nothing read yet": ([(3, 5)], 0, -1, None),
    "from the start of the log": ([(3, 5)], 0, 1, None),
    "read more of the epoch than survived": ([(1, 5), (3, 5)], 7, 1, (5, 7, 1)),
    "read an epoch that is gone": ([(1, 5), (3, 5)], 7, 2, (5, 7, 1)),
    "read an epoch that is gone, from an offset that is still there": ([(1, 5), (3, 5)], 3, 2, (3, 3, 1)),
    "read a newer epoch than there is": ([(1, 5)], 7, 4, (5, 7, 1)),
    "read beyond the end": ([(1, 5)], 7, 1, (5, 7, 1)),
    "read an epoch older than all that is left": ([(3, 5)], 4, 1, (0, 4, 1)),
}


@pytest.mark.parametrize(("log", "offset", "last_epoch", "lost"), TRUNCATED.values(), ids=TRUNCATED)
def test_a_consumer_is_told_when_what_it_read_is_gone(
    log: Runs, offset: int, last_epoch: int, lost: tuple[int, int, int] | None
) -> None:
    replica = replica_of(leading(*log))
    if lost is None:
        check_truncation(replica, offset, last_epoch)
        return
    with pytest.raises(LogTruncated) as caught:
        check_truncation(replica, offset, last_epoch)
    info = caught.value.info
    assert (info["lost_from"], info["lost_to"], info["epoch"]) == lost
    assert ask(leading(*log), offset, last_epoch=last_epoch).problem is not None


def test_who_has_read_a_later_epoch_than_this_broker_knows_is_asked_to_wait() -> None:
    """This leader has been replaced and does not know it yet: it may not say that anything is
    gone."""
    assert code(ask(leading((1, 5)), 5, last_epoch=6)) == "UNKNOWN_LEADER_EPOCH"


def test_what_is_deleted_by_retention_is_not_truncation() -> None:
    leader = leading((3, 10), start_offset=20)
    assert code(ask(leader, 15, last_epoch=1)) == "OFFSET_OUT_OF_RANGE"
    assert offsets(ask(leader, 20, last_epoch=1))[0] == 20


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_truncation_is_reported_exactly_when_what_was_read_differs(data: st.DataObject) -> None:
    """Second version: the consumer keeps the epoch of every record it read and compares them one by
    one."""
    steps = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), max_size=3)
    shared, read_on, led_on = data.draw(steps), data.draw(steps), data.draw(steps)

    def runs(*parts: Runs, first: int) -> Runs:
        found, epoch = [], 0
        for index, part in enumerate(parts):
            for further, count in part:
                epoch += further + (first if index else 0)
                found.append((epoch, count))
        return found

    consumed, current = log_of(*runs(shared, read_on, first=0)), log_of(*runs(shared, led_on, first=10))
    offset = data.draw(st.integers(0, consumed.end_offset))
    same = all(consumed.epoch_at(o) == current.epoch_at(o) for o in range(offset))
    current.high_watermark = current.end_offset
    leader = leader_of(partition_state(leader_epoch=99), current)
    found = ask(leader, offset, last_epoch=consumed.epoch_at(offset - 1))
    truncated = found.problem is not None and found.problem.code == "LOG_TRUNCATED"
    assert truncated is not same
    if truncated:
        assert found.problem is not None
        lost_from = found.problem.info["lost_from"]
        first_lost = next(o for o in range(offset + 1) if consumed.epoch_at(o) != current.epoch_at(o))
        assert lost_from >= first_lost
        assert found.problem.info["lost_to"] == offset


def test_a_follower_that_is_behind_does_not_cry_truncation() -> None:
    behind = following((1, 5), high_watermark=5)
    assert offsets(ask(behind, 7, last_epoch=1, any_replica=True)) == []
    assert offsets(ask(behind, 7, last_epoch=4, any_replica=True)) == []


def test_a_follower_that_has_gone_on_in_another_epoch_knows() -> None:
    ahead = following((1, 5), (3, 5), high_watermark=10)
    assert code(ask(ahead, 7, last_epoch=1, any_replica=True)) == "LOG_TRUNCATED"
    assert code(ask(ahead, 7, last_epoch=2, any_replica=True)) == "LOG_TRUNCATED"


# --- reading from followers -----------------------------------------------------------------------


def test_a_follower_refuses_who_did_not_ask_for_any_replica() -> None:
    found = ask(following((5, 10), high_watermark=7), 0)
    assert code(found) == NotLeader.code
    assert found.problem is not None
    assert found.problem.info["leader"] == 1
    assert "led by broker 1" in found.problem.detail


def test_a_follower_shows_what_it_knows_to_be_committed_and_how_old_that_is() -> None:
    follower = following((5, 10), high_watermark=7, caught_up_ms=1000)
    follower.leader_high_watermark = 12
    found = ask(follower, 5, any_replica=True, now_ms=1700)
    assert offsets(found) == [5, 6]
    assert (found.high_watermark, found.lag_ms, found.lag_records) == (7, 700, 5)


@pytest.mark.parametrize(
    ("caught_up_ms", "max_lag_ms", "served"),
    [(1000, -1, True), (1000, 700, True), (1000, 699, False), (1700, 0, True), (None, 700, False)],
)
def test_a_follower_keeps_to_the_lag_it_is_allowed(caught_up_ms: int | None, max_lag_ms: int, served: bool) -> None:
    follower = following((5, 10), high_watermark=7, caught_up_ms=caught_up_ms)
    found = ask(follower, 0, any_replica=True, max_lag_ms=max_lag_ms, now_ms=1700)
    if served:
        assert len(offsets(found)) == 7
    else:
        assert code(found) == NotLeader.code


@pytest.mark.parametrize(
    ("unsure_ms", "any_replica", "max_lag_ms", "served"),
    [
        (0, True, 0, True),
        (0, False, -1, True),
        (700, True, -1, True),
        (700, True, 700, True),
        (700, True, 699, False),
        (1, True, 0, False),
        # who asks the leader alone has named no bound
        (700, False, 0, True),
    ],
)
def test_a_leader_is_as_stale_as_it_may_have_been_replaced(
    unsure_ms: int, any_replica: bool, max_lag_ms: int, served: bool
) -> None:
    found = ask(leading(), 9, any_replica=any_replica, max_lag_ms=max_lag_ms, unsure_ms=unsure_ms)
    if served:
        assert (offsets(found), found.lag_ms) == ([9], unsure_ms)
    else:
        assert code(found) == LeaderNotAvailable.code
        assert found.problem is not None
        assert f"{unsure_ms} ms ago, allowed are {max_lag_ms} ms" in found.problem.detail


@pytest.mark.parametrize(
    ("any_replica", "max_lag_ms", "served"),
    [(True, 0, False), (True, 10**9, False), (True, -1, True), (False, -1, True)],
)
def test_a_leader_that_does_not_know_the_end_cannot_say_how_stale_it_is(
    any_replica: bool, max_lag_ms: int, served: bool
) -> None:
    found = ask(new_leader(), 0, any_replica=any_replica, max_lag_ms=max_lag_ms)
    if served:
        assert (offsets(found), found.high_watermark) == ([0, 1, 2], None)
    else:
        assert code(found) == OffsetNotAvailable.code


def test_every_answer_names_its_topic_also_a_refusal() -> None:
    assert ask(leading(), 0).topic_id == TOPIC_ID
    assert ask(leading(), 99).topic_id == TOPIC_ID
    assert find_offset(replica_of(leading()), OffsetsPartition(TOPIC, 0, LATEST)).topic_id == TOPIC_ID


# --- offsets, and not knowing the end yet (R7) ----------------------------------------------------


def new_leader() -> LeaderState:
    """It began its epoch with ten records, and knows of three of them that they are committed."""
    return leading((4, 10), high_watermark=3)


def test_a_new_leader_shows_what_it_knows_and_says_that_it_does_not_know_the_end() -> None:
    found = ask(new_leader(), 0)
    assert offsets(found) == [0, 1, 2]
    assert found.high_watermark is None
    assert known_high_watermark(replica_of(new_leader())) is None


def test_a_new_leader_does_not_guess_the_latest_offset() -> None:
    replica = replica_of(new_leader())
    for at in (LATEST, 1000):
        with pytest.raises(OffsetNotAvailable):
            find_offset(replica, OffsetsPartition(TOPIC, 0, at))
    assert find_offset(replica, OffsetsPartition(TOPIC, 0, EARLIEST)).offset == 0


def timed(*timestamps: int, high_watermark: int) -> LeaderState:
    log = MemoryLog()
    for index, timestamp_ms in enumerate(timestamps):
        log.append([batch_at(index, 4 + index // 2, b"v", timestamp_ms=timestamp_ms)])
    log.sync()
    leader = leader_of(partition_state(leader_epoch=9), log)
    leader.start_offset, leader.high_watermark = 0, high_watermark
    return leader


@pytest.mark.parametrize(
    ("at", "offset", "timestamp", "last_epoch"),
    [
        (EARLIEST, 0, None, -1),
        (LATEST, 3, None, 5),
        (0, 0, 100, -1),
        (100, 0, 100, -1),
        (101, 1, 200, 4),
        (300, 2, 300, 4),
        (301, 3, None, 5),  # the record at 400 is not committed
        (999, 3, None, 5),
    ],
)
def test_offsets_by_time(at: int, offset: int, timestamp: int | None, last_epoch: int) -> None:
    leader = timed(100, 200, 300, 400, high_watermark=3)
    found = find_offset(replica_of(leader), OffsetsPartition(TOPIC, 0, at))
    assert (found.offset, found.timestamp, found.last_epoch) == (offset, timestamp, last_epoch)
    assert (found.leader_epoch, found.problem) == (9, None)


@pytest.mark.parametrize(("behind", "timestamp"), [(0, 1000), (1, 1500), (2, 3000), (4, 3000), (5, 3000), (6, None)])
def test_lag_in_time_is_that_of_a_record_in_a_cleaned_log_too(behind: int, timestamp: int | None) -> None:
    """The delete horizon stands where the first record's time was, and a filler has no record at
    all."""
    log = MemoryLog()
    (first,) = split(encode_batch([Record(0, 1000, b"k"), Record(1, 1500, b"j", b"v")]), ROOM)
    log.append([retain(stamp(first, 0, 4, 3), decode_batch(first), 90_000_000)])
    for base_offset in (2, 4):
        gone = batch_at(base_offset, 4, b"a", b"b", timestamp_ms=2000)
        log.append([filler(gone, base_offset)] if base_offset == 2 else [retain(gone, [])])
    log.batches[-1] = filler(log.batches[-1]._replace(last_offset_delta=0), 4)
    log.append([batch_at(5, 4, b"last", timestamp_ms=3000)])
    log.sync()
    leader = leader_of(partition_state(leader_epoch=9), log)
    leader.start_offset, leader.high_watermark = 0, 6
    log.high_watermark = 6
    found = find_offset(replica_of(leader), OffsetsPartition(TOPIC, 0, LATEST, behind))
    assert found.timestamp == timestamp


def test_offsets_of_a_log_that_begins_later() -> None:
    replica = replica_of(leading((5, 3), start_offset=20))
    earliest = find_offset(replica, OffsetsPartition(TOPIC, 0, EARLIEST))
    assert (earliest.offset, earliest.last_epoch) == (20, -1)


def test_the_latest_offset_and_its_epoch_let_a_consumer_detect_truncation_later() -> None:
    leader = leading((4, 2), (5, 3))
    found = find_offset(replica_of(leader), OffsetsPartition(TOPIC, 0, LATEST))
    assert found.offset is not None
    check_truncation(replica_of(leader), found.offset, found.last_epoch)
    extend(memory_log(leader), 5, 2)
    check_truncation(replica_of(leader), found.offset, found.last_epoch)


@pytest.mark.parametrize(("behind", "timestamp"), [(0, 100), (1, 200), (2, 300), (3, None), (9, None)])
def test_the_age_of_what_a_group_has_not_read_yet(behind: int, timestamp: int | None) -> None:
    leader = timed(100, 200, 300, 400, high_watermark=3)
    found = find_offset(replica_of(leader), OffsetsPartition(TOPIC, 0, LATEST, behind))
    assert (found.offset, found.timestamp) == (3, timestamp)
