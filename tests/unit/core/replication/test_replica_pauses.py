"""Partitions that cannot go on, begin anew, or come in smaller portions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.config import MIB
from minilog.core.replication.budget import Budget
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.replica_fetcher import (
    BYTES_MIN,
    DISK_FULL_RETRY_MS,
    RETRY_MS,
    ReplicaFetcher,
)
from minilog.errors import CorruptRange, FencedLeaderEpoch, OffsetOutOfRange
from minilog.wire.messages import Problem, ReplicaFetchResult
from tests.unit.core.builders import batch_at, follower_of, log_of, memory_log, partition_state
from tests.unit.core.replication.fetcher_bench import (
    FIRST,
    SECOND,
    Spoil,
    answer,
    ask,
    fetcher,
    follower,
    named,
    result,
    settle,
)


def spoil_crc(found: ReplicaFetchResult) -> None:
    found.batches = memoryview(bytes(found.batches[:-1]) + b"\xff")


def spoil_offset(found: ReplicaFetchResult) -> None:
    found.batches = memoryview(batch_at(9, 5, b"v").tobytes())


def spoil_length(found: ReplicaFetchResult) -> None:
    found.batches = memoryview(bytes(found.batches[:8]) + b"\x7f\xff\xff\xff" + bytes(found.batches[12:]))


def fence(found: ReplicaFetchResult) -> None:
    found.problem = Problem.of(FencedLeaderEpoch("over"))


@pytest.mark.parametrize("spoil", [spoil_crc, spoil_offset, spoil_length, fence])
def test_a_partition_that_cannot_go_on_pauses_and_the_others_do_not(spoil: Spoil) -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    bad = result(0, values=1)
    spoil(bad)
    made.on_reply(request, answer(request, bad, result(1, values=1)), 1000)
    settle(made, SECOND)
    assert made.followers[FIRST].log.end_offset == 3
    request = ask(made, 1000)
    assert named(request) == {1: 4}
    made.on_reply(request, answer(request), 1000 + RETRY_MS)
    assert named(ask(made, 1000 + RETRY_MS)) == {0: 3}


def test_a_full_disk_pauses_longer() -> None:
    made = fetcher(follower())
    memory_log(made.followers[FIRST]).room = 0
    request = ask(made)
    made.on_reply(request, answer(request, result(values=1)), 0)
    request = ask(made, RETRY_MS)
    assert named(request) == {}
    made.on_reply(request, answer(request), DISK_FULL_RETRY_MS)
    assert named(ask(made, DISK_FULL_RETRY_MS)) == {0: 3}


def lacking() -> FollowerState:
    """Of a log that ends below what it was swept for, as the epoch begins."""
    log = log_of((4, 3))
    log.note_copied(10)
    return follower_of(partition_state(), log)


def test_what_lacks_older_values_acknowledges_nothing() -> None:
    made = fetcher(lacking())
    assert named(ask(made)) == {0: 0}
    assert made.followers[FIRST].log.end_offset == 0


def test_what_lacks_older_values_waits_for_the_room_to_begin_anew() -> None:
    made = fetcher(lacking(), follower(1))
    log = memory_log(made.followers[FIRST])
    log.room = 0
    request = ask(made)
    assert (named(request), log.end_offset) == ({1: 3}, 3)
    made.on_reply(request, answer(request), 0)
    log.room = None
    assert named(ask(made, DISK_FULL_RETRY_MS)) == {0: 0}


def test_a_new_session_leaves_a_pausing_partition_out_until_its_time() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    bad = result(0)
    fence(bad)
    made.on_reply(request, answer(request, bad), 1000)
    made.on_failed(ask(made, 1000), 990)
    assert named(ask(made, 1040)) == {1: 3}


def test_removing_a_pausing_partition_ends_its_pause() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    bad = result(0)
    fence(bad)
    made.on_reply(request, answer(request, bad), 0)
    made.remove(FIRST)
    assert named(ask(made, RETRY_MS)) == {}


def test_a_follower_whose_records_are_deleted_on_the_leader_begins_at_its_start() -> None:
    made = fetcher(follower())
    request = ask(made)
    behind = result()
    behind.problem, behind.log_start_offset = Problem.of(OffsetOutOfRange("out of range")), 20
    made.on_reply(request, answer(request, behind), 0)
    log = made.followers[FIRST].log
    assert (log.start_offset, log.end_offset) == (20, 20)
    again = ask(made)
    assert [(e.fetch_offset, e.last_epoch) for e in again.partitions] == [(20, -1)]


@pytest.mark.parametrize(
    ("start", "epoch", "committed"), [(20, 4, True), (20, 3, False), (20, 5, False), (20, None, False), (3, 4, False)]
)
def test_what_the_leaders_epoch_reaches_back_to_was_committed_and_is_not_lost(
    start: int, epoch: int | None, committed: bool
) -> None:
    made = fetcher(follower())
    log = memory_log(made.followers[FIRST])
    assert (log.last_epoch, log.high_watermark) == (4, 0)
    before: list[int] = []
    told: list[int] = []

    def reset(start_offset: int, start_epoch: int = -1) -> None:
        before.append(log.high_watermark)
        told.append(start_epoch)

    log.reset = reset  # type: ignore[method-assign]
    request = ask(made)
    behind = result()
    error = OffsetOutOfRange("out of range")
    error.info |= {} if epoch is None else {"log_start_epoch": epoch}
    behind.problem, behind.log_start_offset = Problem.of(error), start
    made.on_reply(request, answer(request, behind), 0)
    assert before == [3 if committed else 0]
    assert told == [-1 if epoch is None or epoch > made.followers[FIRST].leader_epoch else epoch]


def test_a_follower_that_cannot_read_what_it_would_give_up_keeps_it() -> None:
    made = fetcher(follower())
    log = memory_log(made.followers[FIRST])

    def reset(start_offset: int, start_epoch: int = -1) -> None:
        raise CorruptRange("unreadable")

    log.reset = reset  # type: ignore[method-assign]
    request = ask(made)
    behind = result()
    behind.problem, behind.log_start_offset = Problem.of(OffsetOutOfRange("out of range")), 20
    made.on_reply(request, answer(request, behind), 0)
    assert (log.start_offset, log.end_offset) == (0, 3)
    assert named(ask(made, RETRY_MS)) == {0: 3}


def test_a_follower_that_begins_anew_is_no_longer_as_fresh_as_it_was() -> None:
    """It shows nothing of what it had shown before, until it has all of it once more."""
    made = fetcher(follower())
    following = made.followers[FIRST]
    request = ask(made)
    made.on_reply(request, answer(request, result(high_watermark=3)), 1000)
    assert following.lag_ms(1000) == 1000
    request = ask(made, 1000)
    error = OffsetOutOfRange("it lacks records", begins_anew=True)
    made.on_reply(request, answer(request, replace(result(high_watermark=3), problem=Problem.of(error))), 1000)
    assert (following.log.end_offset, following.lag_ms(1000)) == (0, None)
    request = ask(made, 2000)
    made.on_reply(request, answer(request, result(fetch_offset=0, values=3, high_watermark=3)), 2000)
    assert following.lag_ms(2000) == 0


def test_a_follower_that_finds_no_room_to_begin_anew_tries_again_later() -> None:
    made = fetcher(follower())
    request = ask(made)
    behind = result()
    behind.problem, behind.log_start_offset = Problem.of(OffsetOutOfRange("out of range")), 20
    log = memory_log(made.followers[FIRST])
    log.room = 0
    made.on_reply(request, answer(request, behind), 0)
    assert (log.start_offset, log.end_offset) == (0, 3)
    request = ask(made, RETRY_MS)
    assert named(request) == {}
    made.on_reply(request, answer(request), DISK_FULL_RETRY_MS)
    assert named(ask(made, DISK_FULL_RETRY_MS)) == {0: 3}


def test_out_of_range_on_the_other_side_deletes_nothing() -> None:
    made = fetcher(follower())
    request = ask(made)
    ahead = result()
    ahead.problem = Problem.of(OffsetOutOfRange("out of range"))
    made.on_reply(request, answer(request, ahead), 0)
    assert made.followers[FIRST].log.end_offset == 3


def portions(made: ReplicaFetcher, count: int, took_ms: int | None, now_ms: int = 0) -> list[int]:
    """What ``count`` requests asked for. Each is answered after ``took_ms``, or lost."""
    asked = []
    for number in range(count):
        now_ms = max(now_ms, made.retry_ms) + 1
        request = ask(made, now_ms)
        asked.append(request.max_bytes)
        if took_ms is None:
            made.on_failed(request, now_ms, was_lost=True)
        else:
            made.on_reply(request, answer(request, held_ms=number), now_ms + took_ms + number)
            now_ms += took_ms + number
    return asked


def test_what_does_not_come_through_is_asked_for_in_smaller_portions_down_to_a_least_one() -> None:
    made = fetcher(follower())
    assert portions(made, 3, None) == [MIB, MIB // 2, MIB // 4]
    portions(made, 20, None)
    assert portions(made, 2, None) == [BYTES_MIN, BYTES_MIN]


def test_portions_grow_again_while_twice_as_much_would_come_in_time() -> None:
    made = fetcher(follower())
    portions(made, 4, None)
    assert portions(made, 2, 1001, made.retry_ms) == [MIB // 16, MIB // 16], "twice as much may be too much"
    assert portions(made, 6, 1000, 10_000) == [MIB // 16, MIB // 8, MIB // 4, MIB // 2, MIB, MIB]


def test_a_portion_that_comes_but_takes_too_long_is_made_smaller() -> None:
    """Every other partition of that leader waits behind it."""
    made = fetcher(follower(0), follower(1))
    assert portions(made, 3, 30_000) == [MIB, MIB // 2, MIB // 4]


def test_a_request_that_was_refused_says_nothing_of_the_way() -> None:
    made = fetcher(follower())
    request = ask(made)
    made.on_failed(request, 0)
    assert ask(made, RETRY_MS).max_bytes == MIB


def test_who_asks_for_less_than_the_least_portion_goes_on_asking_for_that() -> None:
    made = ReplicaFetcher(2, 1, 500, 1000, 2000)
    made.add(follower())
    assert portions(made, 3, None) == [1000, 1000, 1000]


def test_what_rests_for_the_budget_goes_on_when_it_is_in_sync() -> None:
    """R113: its leader has counted the position that it named last. Writes wait for it from then on."""
    coming = replace(partition_state(isr=(1, 3)), former=[1, 3], target=[1, 2])
    made = ReplicaFetcher(2, 1, 500, MIB, 2000, budget=Budget(10))
    role = follower_of(coming, log_of((4, 3)))
    made.add(role)
    request = ask(made)
    made.on_reply(request, answer(request, result(0, values=4)), 1000)
    settle(made)
    request = ask(made, 1100)
    assert (named(request), request.forgotten) == ({}, [FIRST]), "the budget is spent for a long time"
    made.on_reply(request, answer(request), 1600)
    role.state = replace(coming, isr=[1, 2, 3], partition_epoch=11)
    assert named(ask(made, 1700)) == {0: 7}
