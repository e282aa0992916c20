"""A follower's side of replica fetching: one request in flight, answers matched exactly, and what
is named when (R5, R35)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from minilog.config import MIB
from minilog.core.effects import Flush
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.replica_fetcher import (
    BYTES_MIN,
    DISK_FULL_RETRY_MS,
    RETRY_MS,
    TURN_WORK,
    ReplicaFetcher,
)
from minilog.errors import CorruptRange, FencedLeaderEpoch, OffsetOutOfRange
from minilog.wire.messages import NOTHING, Problem, ReplicaFetch, ReplicaFetchReply, ReplicaFetchResult
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import TOPIC, TOPIC_ID, batch_at, extend, follower_of, log_of, memory_log, partition_state

FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
Spoil = Callable[[ReplicaFetchResult], None]


def follower(partition: int = 0, *, leader_epoch: int = 5, records: int = 3) -> FollowerState:
    return follower_of(partition_state(partition=partition, leader_epoch=leader_epoch), log_of((4, records)))


def fetcher(*followers: FollowerState) -> ReplicaFetcher:
    made = ReplicaFetcher(2, 1, 500, MIB, 2000)
    for each in followers:
        assert made.add(each) is None
    return made


def ask(made: ReplicaFetcher, now_ms: int = 0, broker_epoch: int = 7) -> ReplicaFetch:
    request = made.next_request(broker_epoch, now_ms)
    assert request is not None
    return request


def named(request: ReplicaFetch) -> dict[int, int]:
    return {entry.partition: entry.fetch_offset for entry in request.partitions}


def result(
    partition: int = 0, *, fetch_offset: int = 3, values: int = 0, high_watermark: int = 0, leader_epoch: int = 5
) -> ReplicaFetchResult:
    batches = b"".join(batch_at(fetch_offset + i, 5, b"v").tobytes() for i in range(values))
    view = memoryview(batches) if batches else NOTHING
    return ReplicaFetchResult(TOPIC, TOPIC_ID, partition, leader_epoch, fetch_offset, high_watermark, 0, batches=view)


def answer(request: ReplicaFetch, *results: ReplicaFetchResult, **more: Any) -> ReplicaFetchReply:
    return replace(ReplicaFetchReply(request.session_id, request.sequence, list(results)), **more)


def settle(made: ReplicaFetcher, partition: TopicPartition = FIRST) -> None:
    """The flush of ``partition`` ends with everything durable."""
    memory_log(made.followers[partition]).sync()
    assert made.on_flushed(partition) is None


# --- asking ---------------------------------------------------------------------------------------


def test_the_first_request_opens_a_session_and_names_everything() -> None:
    made = fetcher(follower(0), follower(1, records=5))
    request = ask(made)
    assert (request.broker_id, request.broker_epoch, request.session_id, request.sequence) == (2, 7, 1, 0)
    assert named(request) == {0: 3, 1: 5}
    assert (request.max_wait_ms, request.max_bytes, request.forgotten) == (500, 1 << 20, [])


def test_one_request_in_flight() -> None:
    made = fetcher(follower())
    request = ask(made)
    assert made.next_request(7, 0) is None
    made.on_reply(request, answer(request), 0)
    assert ask(made).sequence == 1


def test_nothing_to_follow_is_nothing_to_ask() -> None:
    assert fetcher().next_request(7, 0) is None


def test_later_requests_name_only_what_changed() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(request, answer(request), 0)
    request = ask(made)
    assert named(request) == {}
    made.on_reply(request, answer(request, result(1, values=2)), 0)
    settle(made, SECOND)
    assert named(ask(made)) == {1: 5}


def test_a_partition_no_longer_followed_is_forgotten_once() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.remove(SECOND)
    made.on_reply(request, answer(request), 0)
    request = ask(made)
    assert (named(request), request.forgotten) == ({}, [SECOND])
    made.on_reply(request, answer(request), 0)
    assert ask(made).forgotten == []


def test_one_that_is_followed_again_is_named_and_not_forgotten() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.remove(SECOND)
    made.add(follower(1, leader_epoch=6))
    made.on_reply(request, answer(request, result(1, values=1)), 0)
    request = ask(made)
    assert (named(request), request.forgotten) == ({1: 3}, [])
    assert request.partitions[0].leader_epoch == 6


# --- only durable records are acknowledged (R8) ---------------------------------------------------


def test_no_request_while_anything_waits_for_its_flush() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    flushes = made.on_reply(request, answer(request, result(0, values=2)), 0)
    assert flushes == [Flush(FIRST, 5)]
    assert made.next_request(7, 0) is None
    settle(made)
    assert named(ask(made)) == {0: 5}


def test_a_log_with_an_undurable_tail_is_flushed_before_it_is_first_fetched() -> None:
    late = follower()
    extend(memory_log(late), 4, 2, synced=False)
    made = ReplicaFetcher(2, 1, 500, MIB, 2000)
    assert made.add(late) == Flush(FIRST, 5)
    assert made.next_request(7, 0) is None
    settle(made)
    assert named(ask(made)) == {0: 5}


def test_a_flush_that_did_not_reach_the_end_is_followed_by_another() -> None:
    """A leader's flush was under way when its broker became a follower. More had been appended
    meanwhile."""
    late = follower()
    extend(memory_log(late), 4, 2, synced=False)
    made = ReplicaFetcher(2, 1, 500, MIB, 2000)
    made.add(late)
    memory_log(late).sync(4)
    assert made.on_flushed(FIRST) == Flush(FIRST, 5)
    assert made.next_request(7, 0) is None, "a fetch would acknowledge what is not durable"
    settle(made)
    assert named(ask(made)) == {0: 5}


def test_a_flush_of_what_is_not_followed_here_means_nothing() -> None:
    made = fetcher(follower())
    assert made.on_flushed(SECOND) is None


def test_what_is_no_longer_followed_holds_up_nobody() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(request, answer(request, result(0, values=2)), 0)
    made.remove(FIRST)
    assert named(ask(made)) == {}


# --- matching answers (R5) ------------------------------------------------------------------------


def test_an_answer_is_applied_once() -> None:
    made = fetcher(follower())
    request = ask(made)
    reply = answer(request, result(values=2))
    assert made.on_reply(request, reply, 0)
    settle(made)
    assert made.on_reply(request, reply, 0) == []
    assert made.followers[FIRST].log.end_offset == 5


def test_a_late_copy_of_a_diverging_answer_cuts_nothing() -> None:
    made = fetcher(follower())
    first = ask(made)
    diverging = answer(first, result())
    diverging.partitions[0].diverging = (4, 1)
    made.on_reply(first, diverging, 0)
    assert made.followers[FIRST].log.end_offset == 1
    second = ask(made)
    made.on_reply(second, answer(second, result(fetch_offset=1, values=2)), 0)
    settle(made)
    assert made.followers[FIRST].log.end_offset == 3, "at the offset that the old answer was about, in the same epoch"
    third = ask(made)
    made.on_reply(first, diverging, 0)
    made.on_reply(third, diverging, 0)
    assert made.followers[FIRST].log.end_offset == 3


@pytest.mark.parametrize("session_and_sequence", [(1, 1), (2, 0), (0, 0)])
def test_an_answer_to_another_request_is_not_applied_and_ends_the_session(
    session_and_sequence: tuple[int, int],
) -> None:
    made = fetcher(follower())
    request = ask(made)
    made.on_reply(request, ReplicaFetchReply(*session_and_sequence, [result(values=1)]), 0)
    assert made.followers[FIRST].log.end_offset == 3
    assert made.next_request(7, RETRY_MS - 1) is None
    again = ask(made, RETRY_MS)
    assert (again.session_id, again.sequence, named(again)) == (2, 0, {0: 3})


def mark_epoch(found: ReplicaFetchResult) -> None:
    found.leader_epoch = 4


def mark_offset(found: ReplicaFetchResult) -> None:
    found.fetch_offset = 2


def mark_partition(found: ReplicaFetchResult) -> None:
    found.partition = 9


def mark_topic(found: ReplicaFetchResult) -> None:
    found.topic_id = "id-of-another-topic-of-that-name"


@pytest.mark.parametrize("spoil", [mark_epoch, mark_offset, mark_partition, mark_topic])
def test_a_result_about_another_epoch_offset_partition_or_topic_is_not_applied(spoil: Spoil) -> None:
    made = fetcher(follower())
    request = ask(made)
    spoiled = result(values=1)
    spoil(spoiled)
    assert made.on_reply(request, answer(request, spoiled), 0) == []
    assert made.followers[FIRST].log.end_offset == 3


def test_whatever_an_answer_mentions_is_named_again() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(request, answer(request, result(0, leader_epoch=4), result(1, high_watermark=2)), 0)
    assert named(ask(made)) == {0: 3, 1: 3}


def test_sequences_count_the_answers_of_a_session() -> None:
    made = fetcher(follower())
    for expected in range(3):
        request = ask(made)
        assert (request.session_id, request.sequence) == (1, expected)
        made.on_reply(request, answer(request), 0)


# --- how fresh a partition is that no answer mentions ---------------------------------------------


def test_an_answer_that_does_not_mention_a_partition_says_that_nothing_is_new_there() -> None:
    made = fetcher(follower())
    assert made.quiet_ms(FIRST) is None
    request = ask(made)
    assert made.quiet_ms(FIRST) is None, "it has just been asked about"
    made.on_reply(request, answer(request, result(high_watermark=3)), 100)
    assert made.quiet_ms(FIRST) is None, "it will be named again"
    request = ask(made, 100)
    made.on_reply(request, answer(request, held_ms=500), 600)
    assert made.quiet_ms(FIRST) == 600
    request = ask(made, 650)
    made.on_failed(request, 700)
    assert made.quiet_ms(FIRST) == 600


def test_an_answer_that_was_full_says_nothing_about_what_it_left_out() -> None:
    made = fetcher(follower(0), follower(1))
    made.max_bytes = 10
    request = ask(made)
    made.on_reply(request, answer(request, held_ms=100), 100)
    request = ask(made, 100)
    made.on_reply(request, answer(request, held_ms=500), 600)
    assert made.quiet_ms(SECOND) == 600
    request = ask(made, 600)
    made.on_reply(request, answer(request, result(0, values=1), held_ms=50, untold=[SECOND]), 650)
    assert made.quiet_ms(SECOND) is None


def test_a_result_about_another_topic_is_no_word_on_this_one() -> None:
    made = fetcher(follower())
    request = ask(made)
    foreign = result(high_watermark=3)
    mark_topic(foreign)
    made.on_reply(request, answer(request, foreign, held_ms=100), 100)
    assert made.followers[FIRST].high_watermark == 0
    assert made.followers[FIRST].lag_ms(100) is None


AS_OF: dict[str, tuple[int, int, int, int, int]] = {
    # sent, answered, and what the answer says: held, unsure; as of when it speaks
    "at once": (1000, 1000, 0, 0, 1000),
    "answered at once, but long on the way": (1000, 9000, 0, 0, 1000),
    "held until the end": (1000, 1500, 500, 0, 1500),
    "held, and long on the way": (1000, 9000, 500, 0, 1500),
    "by a leader that may have been replaced": (1000, 1500, 500, 700, 800),
    "by a leader that never heard from the controller": (1000, 1500, 500, 99_999, -98_499),
    "held for longer than it took, which is a lie": (1000, 1500, 9000, 0, 1500),
    "held for less than no time, which is a lie": (1000, 1500, -9000, 0, 1000),
    "surer than sure, which is a lie": (1000, 1500, 500, -9000, 1500),
    "two lies": (1000, 1500, 9000, -9000, 1500),
}


@pytest.mark.parametrize(("sent_ms", "now_ms", "held_ms", "unsure_ms", "seen_ms"), AS_OF.values(), ids=AS_OF)
def test_as_of_when_an_answer_speaks(sent_ms: int, now_ms: int, held_ms: int, unsure_ms: int, seen_ms: int) -> None:
    """The same for a partition it mentions and for one it does not."""
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(
        request, answer(request, result(0, high_watermark=3), result(1, high_watermark=3), unsure_ms=10**6), 0
    )
    request = ask(made)
    made.on_reply(request, answer(request, unsure_ms=10**6), 0)
    made.followers[FIRST].caught_up_ms = made.followers[SECOND].caught_up_ms = None
    request = ask(made, sent_ms)
    mentioned = result(0, high_watermark=3)
    made.on_reply(request, answer(request, mentioned, held_ms=held_ms, unsure_ms=unsure_ms), now_ms)
    assert made.followers[FIRST].caught_up_ms == seen_ms
    assert made.quiet_ms(SECOND) == seen_ms
    assert made.followers[FIRST].lag_ms(now_ms) == now_ms - seen_ms


@pytest.mark.parametrize("untold", [[FIRST], [FIRST, SECOND]])
def test_silence_about_what_is_untold_means_nothing(untold: list[tuple[str, int]]) -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(request, answer(request), 0)
    request = ask(made, 100)
    made.on_reply(request, answer(request, held_ms=500, untold=untold), 600)
    assert made.quiet_ms(FIRST) is None
    assert made.quiet_ms(SECOND) == (None if SECOND in untold else 600)
    request = ask(made, 600)
    made.on_reply(request, answer(request, held_ms=500), 1100)
    assert made.quiet_ms(FIRST) == 1100, "each answer says by itself what it does not tell"


# --- large answers --------------------------------------------------------------------------------


def test_an_answer_of_many_batches_is_taken_over_in_several_turns() -> None:
    """R42: until all of it is, it is no evidence, and nothing else is asked for (R8)."""
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_reply(request, answer(request), 0)
    request, count = ask(made, 100), 2 * TURN_WORK
    mentioned = answer(request, result(0, values=count, high_watermark=3), result(1, values=1), held_ms=500)
    made.on_reply(request, mentioned, 600)
    log = made.followers[FIRST].log
    ends = [log.end_offset]
    while made.has_more:
        assert made.next_request(7, 600) is None
        assert made.answered_ms == 0
        assert made.quiet_ms(SECOND) == 0, "as the answer before said"
        made.go_on(600)
        ends.append(log.end_offset)
    assert ends[-1] == 3 + count
    assert max(after - before for before, after in zip([3, *ends], ends, strict=False)) <= TURN_WORK
    assert made.followers[SECOND].log.end_offset == 4
    assert made.answered_ms == 600


def test_what_was_cut_or_given_up_between_two_pieces_takes_no_more_of_the_answer() -> None:
    made = fetcher(follower(0))
    request = ask(made)
    made.on_reply(request, answer(request, result(0, values=2 * TURN_WORK)), 0)
    log = made.followers[FIRST].log
    log.truncate(5)
    made.go_on(0)
    assert (made.has_more, log.end_offset) == (False, 5)


def test_the_age_of_an_answer_is_told_of_its_end() -> None:
    made = fetcher(follower(0))
    request = ask(made)
    large = replace(result(0, values=2 * TURN_WORK), written=(3 + 2 * TURN_WORK, 7))
    made.on_reply(request, answer(request, large), 0)
    log = memory_log(made.followers[FIRST])
    noted: list[tuple[int, int]] = []
    log.note_written = lambda *marks: noted.append(marks)  # type: ignore[method-assign]
    while made.has_more:
        made.go_on(0)
    assert noted == [(3 + 2 * TURN_WORK, 7)]


# --- failures -------------------------------------------------------------------------------------


def test_after_a_failure_a_new_session_says_everything_again() -> None:
    made = fetcher(follower(0), follower(1))
    request = ask(made)
    made.on_failed(request, 1000)
    assert made.next_request(7, 1000 + RETRY_MS - 1) is None
    again = ask(made, 1000 + RETRY_MS)
    assert (again.session_id, again.sequence, named(again)) == (2, 0, {0: 3, 1: 3})


def test_the_failure_of_an_older_request_means_nothing() -> None:
    made = fetcher(follower())
    old = ask(made)
    made.on_failed(old, 0)
    current = ask(made, RETRY_MS)
    made.on_failed(old, RETRY_MS)
    made.on_reply(old, answer(old, result(values=1)), RETRY_MS)
    assert made.inflight is current
    assert made.followers[FIRST].log.end_offset == 3


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


# --- how much is asked for ------------------------------------------------------------------------


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
