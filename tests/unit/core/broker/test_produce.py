"""Producing through one broker: what is checked, what is appended, when the answer comes, and that
it comes once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.config import Limits
from minilog.wire.journal.metadata_records import NO_LEADER, PartitionChanged
from minilog.wire.messages import ACKS_ALL, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.records import encode_values
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state, produced

LED = partition_state()
ALONE = partition_state(replicas=[1])


def code(found: ProduceResult) -> str | None:
    return None if found.problem is None else found.problem.code


def only(bench: BrokerBench, request_id: int) -> ProduceResult:
    (result,) = bench.produced(request_id)
    return result


def next_state(state: PartitionChanged, **changes: object) -> PartitionChanged:
    return replace(state, partition_epoch=state.partition_epoch + 1, **changes)


# --- acks -----------------------------------------------------------------------------------------


def test_acks_all_is_answered_when_every_isr_member_holds_it_durably() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"a", b"b")
    bench.flush()
    bench.acknowledge(2, 2)
    assert sent not in bench.replies
    bench.acknowledge(3, 2)
    found = only(bench, sent)
    assert (found.base_offset, found.end_offset, found.leader_epoch, found.acks) == (0, 2, 5, ACKS_ALL)
    assert found.isr == [1, 2, 3]
    assert bench.waiting_count == 0


def test_a_leader_alone_still_waits_for_its_disk() -> None:
    bench = BrokerBench.started(ALONE)
    sent = bench.produce(b"a")
    assert sent not in bench.replies
    assert [(f.partition.partition, f.end_offset) for f in bench.flushes] == [(0, 1)]
    bench.flush()
    assert code(only(bench, sent)) is None


def test_acks_one_waits_for_nobody_else() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"a", acks=1)
    assert sent not in bench.replies
    bench.flush()
    assert only(bench, sent).base_offset == 0


def test_acks_two_waits_for_one_other() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"a", acks=2)
    bench.flush()
    assert sent not in bench.replies
    bench.acknowledge(3, 1)
    assert only(bench, sent).acks == 2


def test_acks_zero_waits_for_nothing_and_promises_nothing() -> None:
    bench = BrokerBench.started(LED)
    found = only(bench, bench.produce(b"a", acks=0))
    assert (code(found), found.base_offset, found.acks) == (None, None, 0)
    assert bench.log().end_offset == 1


def test_under_flush_policy_interval_nothing_waits_for_the_disk_and_it_is_flushed_later() -> None:
    bench = BrokerBench.started(ALONE, config={"flush.policy": "interval", "flush.ms": "100"})
    assert only(bench, bench.produce(b"a")).base_offset == 0
    assert bench.flushes == []
    bench.tick(99)
    bench.produce(b"b")
    assert bench.flushes == []
    bench.tick(1)
    assert [f.end_offset for f in bench.flushes] == [2]


def test_under_flush_policy_never_nothing_is_ever_flushed() -> None:
    bench = BrokerBench.started(ALONE, config={"flush.policy": "never"})
    assert only(bench, bench.produce(b"a")).base_offset == 0
    bench.tick(10_000)
    assert bench.flushes == []


# --- one request, many partitions -----------------------------------------------------------------


def test_a_request_is_answered_when_its_last_partition_is_decided() -> None:
    states = [partition_state(replicas=[1], partition=p) for p in range(3)]
    bench = BrokerBench.started(*states)
    sent = bench.produce(b"a", partitions=(2, 0, 1))
    bench.flush(0)
    bench.flush(2)
    assert sent not in bench.replies
    bench.flush(1)
    assert [r.partition for r in bench.produced(sent)] == [2, 0, 1], "in the order of the request"


def test_each_partition_has_its_own_result() -> None:
    elsewhere = partition_state(partition=1, leader=2)
    leaderless = partition_state(partition=2, leader=NO_LEADER)
    bench = BrokerBench.started(ALONE, elsewhere, leaderless)
    entries = [ProducePartition(TOPIC, p, memoryview(produced(b"a"))) for p in (0, 1, 2, 9)]
    entries.append(ProducePartition("absent", 0, memoryview(produced(b"a"))))
    sent = bench.send(Produce(1, 1000, entries))
    bench.flush()
    assert [code(r) for r in bench.produced(sent)] == [
        None, "NOT_LEADER", "LEADER_NOT_AVAILABLE", "UNKNOWN_PARTITION", "UNKNOWN_TOPIC_OR_PARTITION"
    ]  # fmt: skip
    assert all(r.problem is None or r.problem.definite for r in bench.produced(sent))
    assert [bench.log(p).end_offset for p in (0, 1, 2)] == [1, 0, 0]


# --- where to go instead --------------------------------------------------------------------------


@pytest.mark.parametrize("state", [partition_state(leader=2), partition_state(replicas=[2, 3], leader=2)])
def test_who_does_not_lead_says_who_does_and_where(state: PartitionChanged) -> None:
    bench = BrokerBench.started(state)
    found = only(bench, bench.produce(b"a"))
    assert found.problem is not None
    assert found.problem.code == "NOT_LEADER"
    assert found.problem.info == {"leader": 2, "leader_url": "http://broker-2:8082", "leader_epoch": 5}
    assert found.problem.detail == "orders-0 is led by broker 2 at http://broker-2:8082, not by broker 1"


# --- refusals of the whole request ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("acks", "timeout_ms", "partitions", "code_", "sentence"),
    [
        (-2, 1000, 1, "INVALID_ACKS", "acks=-2 is not allowed; use 0, 1, a number of copies up to 32, or all (-1)"),
        (33, 1000, 1, "INVALID_ACKS", "acks=33 is not allowed"),
        (1, 0, 1, "INVALID_REQUEST", "timeout_ms=0 is not allowed; use 1 to 300000"),
        (1, 300_001, 1, "INVALID_REQUEST", "timeout_ms=300001 is not allowed; use 1 to 300000"),
        (1, 1000, 0, "INVALID_REQUEST", "a produce request names 1 to 3 partitions, this one 0"),
        (1, 1000, 4, "INVALID_REQUEST", "a produce request names 1 to 3 partitions, this one 4"),
        (1, 1000, 2, "INVALID_REQUEST", "orders-0 is named twice; put all of its batches into one entry"),
    ],
)
def test_what_is_not_allowed(acks: int, timeout_ms: int, partitions: int, code_: str, sentence: str) -> None:
    bench = BrokerBench.started(ALONE, limits=Limits(partitions_max=3))
    problem = bench.refusal(bench.produce(b"a", acks=acks, timeout_ms=timeout_ms, partitions=[0] * partitions))
    assert problem.code == code_
    assert problem.definite
    assert problem.detail.startswith(sentence)
    assert bench.log().end_offset == 0


def test_no_more_requests_wait_than_allowed() -> None:
    bench = BrokerBench.started(ALONE, limits=Limits(parked_requests_max=2))
    waiting = [bench.produce(b"a"), bench.produce(b"b")]
    refused = bench.refusal(bench.produce(b"c"))
    assert (refused.code, refused.definite) == ("OVERLOADED", True)
    assert bench.log().end_offset == 2, "what is refused was not written"
    bench.flush()
    assert [only(bench, sent).base_offset for sent in waiting] == [0, 1]
    bench.produce(b"d")
    bench.flush()
    assert bench.log().end_offset == 3


# --- refusals of one partition, before anything is written ----------------------------------------


GOOD = produced(b"good")
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "INVALID_REQUEST"),
    "garbage": (b"garbage", "CORRUPT_BATCH"),
    "a bad CRC": (GOOD[:-1] + b"\xff", "CORRUPT_BATCH"),
    "a good batch and a cut one": (GOOD + GOOD[:-1], "CORRUPT_BATCH"),
    "too large": (produced(b"x" * 1100), "RECORD_TOO_LARGE"),
    "a producer id without a sequence": (
        encode_values([b"a"], 1000, producer_id=9, producer_epoch=0, base_sequence=-1),
        "CORRUPT_BATCH",
    ),
}


@pytest.mark.parametrize(("batches", "code_"), BAD.values(), ids=BAD)
def test_a_batch_that_cannot_be_taken(batches: bytes, code_: str) -> None:
    bench = BrokerBench.started(ALONE, config={"max.message.bytes": "1024"})
    found = only(bench, bench.send(Produce(1, 1000, [ProducePartition(TOPIC, 0, memoryview(batches))])))
    assert code(found) == code_
    assert found.problem is not None
    assert found.problem.definite
    assert bench.log().end_offset == 0
    assert bench.waiting_count == 0


@pytest.mark.parametrize(("topic_id", "code_"), [("", None), (TOPIC_ID, None), ("another", "INCONSISTENT_TOPIC_ID")])
@pytest.mark.parametrize("acks", [0, 1])
def test_a_write_goes_to_the_topic_that_was_meant_or_to_none(topic_id: str, code_: str | None, acks: int) -> None:
    bench = BrokerBench.started(partition_state(replicas=[1]))
    sent = bench.send(Produce(acks, 1000, [ProducePartition(TOPIC, 0, memoryview(produced(b"a")), topic_id)]))
    bench.flush()
    (result,) = bench.produced(sent)
    if code_ is None:
        assert (result.problem, result.topic_id) == (None, TOPIC_ID)
    else:
        assert result.problem is not None
        assert (result.problem.code, result.problem.definite) == (code_, True)
        assert result.problem.info == {"topic_id": TOPIC_ID}
    assert bench.log().end_offset == int(code_ is None)


def test_a_full_disk_is_definite() -> None:
    bench = BrokerBench.started(ALONE)
    bench.log().room = 0
    found = only(bench, bench.produce(b"a"))
    assert found.problem is not None
    assert (found.problem.code, found.problem.definite) == ("DISK_FULL", True)
    assert bench.waiting_count == 0


@pytest.mark.parametrize(
    ("isr", "acks", "code_"),
    [([1], ACKS_ALL, "NOT_ENOUGH_REPLICAS"), ([1, 2], 3, "NOT_ENOUGH_REPLICAS"), ([1, 2, 3], 4, "INVALID_ACKS")],
)
def test_a_promise_that_cannot_be_kept_is_refused_before_the_append(isr: list[int], acks: int, code_: str) -> None:
    bench = BrokerBench.started(partition_state(isr=isr), min_isr=2)
    found = only(bench, bench.produce(b"a", acks=acks))
    assert found.problem is not None
    assert (found.problem.code, found.problem.definite) == (code_, True)
    assert bench.log().end_offset == 0


# --- how waiting ends -----------------------------------------------------------------------------


def test_at_its_deadline_a_request_is_told_that_nothing_is_proven() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"a", timeout_ms=100)
    bench.flush()
    bench.tick(99)
    assert sent not in bench.replies
    bench.tick(1)
    found = only(bench, sent)
    assert found.problem is not None
    assert (found.problem.code, found.problem.definite, found.base_offset) == ("REQUEST_TIMED_OUT", False, None)
    bench.acknowledge(2, 1)
    bench.acknowledge(3, 1)
    assert bench.leader().high_watermark == 1
    assert bench.waiting_count == 0


def test_at_the_deadline_the_partitions_that_are_done_keep_their_receipts() -> None:
    bench = BrokerBench.started(ALONE, partition_state(partition=1))
    sent = bench.produce(b"a", partitions=(0, 1), timeout_ms=100)
    bench.flush(0)
    bench.tick(100)
    assert [code(r) for r in bench.produced(sent)] == [None, "REQUEST_TIMED_OUT"]


@pytest.mark.parametrize("leader", [2, NO_LEADER])
def test_losing_the_leadership_ends_all_waiting_without_proof(leader: int) -> None:
    bench = BrokerBench.started(LED)
    waiting = [bench.produce(b"v", acks=acks) for acks in (ACKS_ALL, 1, 2)]
    bench.metadata(next_state(LED, leader=leader, leader_epoch=6, isr=[2, 3]))
    for sent in waiting:
        found = only(bench, sent)
        assert found.problem is not None
        assert (found.problem.code, found.problem.definite) == ("LEADERSHIP_LOST", False)
    assert bench.waiting_count == 0


def test_a_waiter_is_never_woken_by_a_later_epoch_of_the_same_leader() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"mine")
    bench.flush()
    lost = next_state(LED, leader=2, leader_epoch=6, isr=[2, 3])
    bench.metadata(lost)
    bench.log().truncate(0)
    bench.metadata(next_state(lost, leader=1, leader_epoch=7, isr=[1, 2, 3]))
    later = bench.produce(b"other")
    bench.flush()
    bench.acknowledge(2, 1)
    bench.acknowledge(3, 1)
    assert code(only(bench, sent)) == "LEADERSHIP_LOST"
    assert (only(bench, later).base_offset, only(bench, later).leader_epoch) == (0, 7)


def test_an_isr_that_shrinks_below_the_promise_ends_the_wait_without_proof() -> None:
    bench = BrokerBench.started(LED, min_isr=2)
    sent = bench.produce(b"a")
    one = bench.produce(b"b", acks=1)
    bench.metadata(next_state(LED, isr=[1], elr=[2, 3]))
    found = only(bench, sent)
    assert found.problem is not None
    assert (found.problem.code, found.problem.definite) == ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", False)
    bench.flush()
    assert code(only(bench, one)) is None


def test_a_shrink_answers_what_the_rest_holds() -> None:
    bench = BrokerBench.started(LED, min_isr=2)
    sent = bench.produce(b"a")
    bench.flush()
    bench.acknowledge(2, 1)
    assert sent not in bench.replies
    bench.metadata(next_state(LED, isr=[1, 2]))
    assert only(bench, sent).isr == [1, 2]


def test_a_client_that_went_away_does_not_keep_its_request_waiting_for_ever() -> None:
    bench = BrokerBench.started(LED)
    sent = bench.produce(b"a", timeout_ms=100)
    bench.disconnect(sent)
    bench.tick(100)
    assert bench.waiting_count == 0


# --- not while leaving, not when cut off ----------------------------------------------------------


def test_a_broker_that_hands_over_takes_no_more_writes_and_finishes_what_it_took() -> None:
    bench = BrokerBench.started(LED)
    taken = bench.produce(b"a")
    bench.perform(bench.core.begin_shutdown(bench.now_ms))
    bench.metadata()
    refused = only(bench, bench.produce(b"b"))
    assert refused.problem is not None
    assert (refused.problem.code, refused.problem.definite) == ("LEADER_NOT_AVAILABLE", True)
    bench.flush()
    bench.acknowledge(2, 1)
    bench.acknowledge(3, 1)
    assert code(only(bench, taken)) is None


@pytest.mark.parametrize(("self_fencing", "code_"), [(True, "LEADER_NOT_AVAILABLE"), (False, None)])
def test_a_broker_that_does_not_hear_from_the_controller(self_fencing: bool, code_: str | None) -> None:
    bench = BrokerBench.started(ALONE, self_fencing=self_fencing, session_timeout_ms=2000)
    bench.now_ms = 2000
    assert bench.produce(b"a", acks=1) not in bench.replies
    bench.now_ms = 2001
    sent = bench.produce(b"b", acks=1)
    bench.flush()
    assert code(only(bench, sent)) == code_


# --- exactly one answer each (R34) ----------------------------------------------------------------


@dataclass
class Traffic:
    """Produce requests while everything else happens. The bench itself refuses a second answer."""

    bench: BrokerBench = field(
        default_factory=lambda: BrokerBench.started(LED, partition_state(partition=1), min_isr=2)
    )
    state: PartitionChanged = LED
    sent: list[int] = field(default_factory=list)

    def produce(self, number: int) -> None:
        acks = [ACKS_ALL, 1, 2, 0, 3][number % 5]
        self.sent.append(self.bench.produce(b"v", acks=acks, timeout_ms=100 * (1 + number), partitions=(0, 1)))

    def flush(self, _: int) -> None:
        self.bench.flush()

    def acknowledge(self, number: int) -> None:
        offset = number // 2
        if offset <= self.bench.log().end_offset and self.state.leader == 1:
            self.bench.acknowledge(2 + number % 2, offset)

    def wait(self, number: int) -> None:
        self.bench.tick(50 * number)

    def lose(self, number: int) -> None:
        if self.state.leader == 1:
            self.change(leader=2, leader_epoch=self.state.leader_epoch + 1, isr=[2, 3])

    def win(self, number: int) -> None:
        if self.state.leader != 1:
            self.change(leader=1, leader_epoch=self.state.leader_epoch + 1, isr=[1, 2, 3])

    def shrink(self, number: int) -> None:
        if self.state.leader == 1:
            self.change(isr=[1, 2, 3][: 1 + number % 3])

    def change(self, **changes: object) -> None:
        self.state = next_state(self.state, **changes)
        self.bench.metadata(self.state)


MOVES = ["produce", "produce", "flush", "flush", "acknowledge", "acknowledge", "wait", "lose", "win", "shrink"]


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 7)), max_size=30))
@settings(deadline=None, max_examples=50)
def test_every_request_is_answered_exactly_once_whatever_happens(steps: list[tuple[str, int]]) -> None:
    traffic = Traffic()
    for name, number in steps:
        getattr(traffic, name)(number)
    traffic.bench.tick(10_000)
    for sent in traffic.sent:
        reply = traffic.bench.replies[sent]
        assert isinstance(reply, ProduceReply)
        assert len(reply.partitions) == 2
        for result in reply.partitions:
            assert (result.problem is None) == (result.acks is not None)
            assert result.base_offset is None or result.problem is None
    assert traffic.bench.waiting_count == 0
