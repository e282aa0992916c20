"""A follower's side of replica fetching: one request in flight, answers matched exactly, and what
is named when (R5, R35)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.config import MIB
from minilog.core.effects import Flush
from minilog.core.replication.replica_fetcher import (
    RETRY_MS,
    TURN_WORK,
    ReplicaFetcher,
)
from minilog.wire.messages import ReplicaFetchReply, ReplicaFetchResult
from tests.unit.core.builders import extend, memory_log
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
