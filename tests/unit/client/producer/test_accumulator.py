"""The accumulator, driven by hand: time, leaders and answers are all arguments."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import (
    BrokerUnavailable,
    CorruptBatch,
    MinilogError,
    NotEnoughReplicas,
    NotLeader,
    RecordTooLarge,
    TimedOut,
    UnknownTopic,
)
from minilog.wire.batch import ACKS_MANY, split
from minilog.wire.records import decode_batch
from minilog_client.connection.routing import Leader
from minilog_client.producer.accumulator import Accumulator
from minilog_client.producer.failed_tries import Failure
from minilog_client.producer.packing import Dispatch
from minilog_client.producer.partition_queue import PartitionQueue
from minilog_client.producer.partitioner import partition_for_key
from minilog_client.settings import ProducerSettings

LEADER = Leader(1, "http://a", 0)


class Rig:
    """An accumulator with topic "t", an adjustable leader, and everything that came out."""

    def __init__(self, partitions: int = 1, **options: Any) -> None:
        self.accumulator = Accumulator(ProducerSettings(**{"linger_ms": 5, "idempotent": False, **options}), Random(1))
        self.leaders: dict[int, Leader | None] = dict.fromkeys(range(partitions), LEADER)
        self.busy = False
        self.failures: list[Failure] = []
        self.topic = self.accumulator.topic("t")
        if partitions:
            self.accumulator.on_partitions("t", partitions, 1024 * 1024, 0)

    def add(self, value: bytes, now_ms: int = 0, partition: int | None = 0, key: bytes | None = None) -> int | None:
        return self.accumulator.append(self.topic, value, key, (), partition, 1, value, now_ms)

    def drain(self, now_ms: int) -> list[Dispatch]:
        drained = self.accumulator.drain(now_ms, lambda _, p: self.leaders[p], lambda url: self.busy)
        self.leaderless, self.needs_producer_id = drained.is_leaderless, drained.needs_producer_id
        return drained.dispatches

    def sent(self, now_ms: int) -> list[tuple[int, list[bytes | None]]]:
        """(partition, values) of everything drained at ``now_ms``."""
        return [(queue.partition, values_of(queue)) for dispatch in self.drain(now_ms) for queue in dispatch.queues]

    def fail(self, partition: int, error: MinilogError, now_ms: int) -> None:
        self.failures += self.accumulator.on_failure(self.topic.partitions[partition], error, now_ms)

    def succeed(self, partition: int) -> list[Any]:
        return [
            token
            for batch in self.accumulator.on_success(self.topic.partitions[partition])
            for *_, token in batch.spans()
        ]

    def expire(self, now_ms: int) -> None:
        self.failures += self.accumulator.expire(now_ms)


def bytes_of(queue: PartitionQueue) -> bytes:
    """What is in flight, as a request has it."""
    return b"".join(batch.head + batch.sealed.payload for batch in queue.in_flight)


def values_of(queue: PartitionQueue) -> list[bytes | None]:
    return [record.value for batch in split(bytes_of(queue), 2**31) for record in decode_batch(batch)]


def test_a_record_lingers_and_is_joined_by_others() -> None:
    rig = Rig()
    assert rig.add(b"a", 0) == 5
    assert rig.add(b"b", 3) is None
    assert rig.accumulator.next_wake_ms(3) == 5
    assert rig.sent(4) == []
    assert rig.sent(5) == [(0, [b"a", b"b"])]


def test_a_full_batch_leaves_at_once_and_keeps_its_order() -> None:
    rig = Rig(batch_bytes=200)
    due = [rig.add(b"%02d" % n + b"x" * 40) for n in range(6)]
    assert due == [5, None, 0, None, 0, None]
    assert [value[:2] for _, values in rig.sent(0) for value in values if value] == [b"00", b"01", b"02", b"03"]


def test_one_request_per_partition_and_many_partitions_per_request() -> None:
    rig = Rig(3, linger_ms=0)
    rig.leaders[2] = Leader(2, "http://b", 0)
    for partition in range(3):
        rig.add(b"first", 0, partition)
    dispatches = rig.drain(0)
    assert [(d.leader.url, [queue.partition for queue in d.queues]) for d in dispatches] == [
        ("http://a", [0, 1]),
        ("http://b", [2]),
    ]
    rig.add(b"second", 0, 0)
    assert rig.drain(100) == []
    assert rig.succeed(0) == [b"first"]
    assert rig.sent(100) == [(0, [b"second"])]


def test_a_busy_leader_gets_nothing_new() -> None:
    rig = Rig(linger_ms=0)
    rig.add(b"a")
    rig.busy = True
    assert rig.drain(0) == []
    rig.busy = False
    assert rig.sent(0) == [(0, [b"a"])]


def test_a_retry_sends_the_same_bytes_before_anything_later() -> None:
    rig = Rig(linger_ms=0)
    rig.add(b"first")
    rig.drain(0)
    queue = rig.topic.partitions[0]
    first = bytes_of(queue)
    rig.add(b"second")
    rig.fail(0, BrokerUnavailable("reset"), 10)
    assert rig.drain(10) == []
    rig.drain(1000)
    assert bytes_of(queue).startswith(first)
    assert values_of(queue)[0] == b"first"


def test_a_newer_leader_is_tried_without_delay() -> None:
    rig = Rig(linger_ms=0)
    rig.add(b"a")
    rig.drain(0)
    rig.fail(0, NotLeader("moved"), 0)
    assert rig.drain(1) == []
    rig.leaders[0] = Leader(2, "http://b", 1)
    assert rig.drain(1)[0].leader.url == "http://b"


def test_what_fails_travels_apart_from_what_does_not() -> None:
    rig = Rig(2, linger_ms=0)
    rig.add(b"a", 0, 0)
    rig.drain(0)
    rig.fail(0, NotEnoughReplicas("few"), 0)
    rig.add(b"b", 1000, 1)
    assert sorted((d.is_retry, d.queues[0].partition) for d in rig.drain(1000)) == [(False, 1), (True, 0)]


def test_no_leader_asks_for_metadata_at_the_pace_of_the_backoff() -> None:
    rig = Rig(linger_ms=0)
    rig.leaders[0] = None
    rig.add(b"a")
    asked = 0
    for now_ms in range(300):
        rig.drain(now_ms)
        asked += rig.leaderless
    assert 4 <= asked <= 20


@pytest.mark.parametrize(
    ("retries", "error", "retried", "definite"),
    [
        ("all", BrokerUnavailable("reset"), True, None),
        ("all", NotLeader("moved"), True, None),
        ("all", RecordTooLarge("big"), False, True),
        ("definite", BrokerUnavailable("refused", definite=True), True, None),
        ("definite", BrokerUnavailable("reset"), False, False),
        ("none", NotLeader("moved"), False, True),
    ],
)
def test_what_is_retried(retries: Any, error: MinilogError, retried: bool, definite: bool | None) -> None:
    rig = Rig(linger_ms=0, retries=retries)
    rig.add(b"a")
    rig.drain(0)
    rig.fail(0, error, 0)
    assert bool(rig.failures) is not retried
    if not retried:
        assert rig.failures[0].error.definite is definite
        assert "t-0" in rig.failures[0].error.detail
        assert rig.accumulator.buffered_bytes == 0


def test_after_one_open_end_no_later_refusal_is_definite() -> None:
    rig = Rig(linger_ms=0)
    rig.add(b"a")
    rig.drain(0)
    rig.fail(0, BrokerUnavailable("reset"), 0)
    rig.drain(1000)
    rig.fail(0, RecordTooLarge("big"), 1000)
    assert rig.failures[0].error.definite is False


@pytest.mark.parametrize(("error", "definite"), [(NotLeader("moved"), True), (TimedOut("silence"), False)])
def test_expiry_says_whether_the_record_can_be_there(error: MinilogError, definite: bool) -> None:
    rig = Rig(linger_ms=0, delivery_timeout_ms=1000)
    rig.add(b"a")
    rig.drain(0)
    rig.expire(5000)
    assert rig.failures == []
    rig.fail(0, error, 5000)
    rig.expire(5000)
    failed = rig.failures[0].error
    assert (type(failed), failed.definite) == (TimedOut, definite)
    assert error.detail in failed.detail


def test_expiry_of_what_was_never_sent_is_definite() -> None:
    rig = Rig(delivery_timeout_ms=1000)
    rig.leaders[0] = None
    rig.add(b"a", 0)
    assert rig.accumulator.next_wake_ms(500) == 1000
    rig.expire(999)
    assert rig.failures == []
    rig.expire(1000)
    assert [f.error.definite for f in rig.failures] == [True]
    assert rig.accumulator.next_wake_ms(1000) is None


def test_one_bad_batch_does_not_take_its_neighbours_along() -> None:
    rig = Rig(linger_ms=0, batch_bytes=1024)
    for name in (b"a", b"b", b"c"):
        rig.add(name * 800)
    rig.accumulator.flush()
    assert [len(values) for _, values in rig.sent(0)] == [3]
    rig.fail(0, CorruptBatch("one of them is damaged"), 0)
    assert rig.failures == []
    outcomes = []
    for now_ms in range(3):
        outcomes += [values[0][:1] for _, values in rig.sent(now_ms) if values[0]]
        if outcomes[-1] == b"b":
            rig.fail(0, CorruptBatch("this one"), now_ms)
        else:
            rig.succeed(0)
    assert outcomes == [b"a", b"b", b"c"]
    assert [[token[:1] for *_, token in failure.spans] for failure in rig.failures] == [[b"b"]]
    assert rig.accumulator.buffered_bytes == 0


def test_records_wait_for_their_topic_and_keep_their_order() -> None:
    rig = Rig(0)
    for number in range(5):
        assert rig.add(b"%d" % number, 0, None, b"key") == 0
    assert rig.sent(100) == []
    rig.leaders = dict.fromkeys(range(4), LEADER)
    assert rig.accumulator.on_partitions("t", 4, 1000, 50) == []
    assert rig.sent(100) == [(partition_for_key(b"key", 4), [b"0", b"1", b"2", b"3", b"4"])]


def test_waiting_for_a_topic_ends_with_the_delivery_timeout() -> None:
    rig = Rig(0, delivery_timeout_ms=100)
    rig.add(b"a", 0)
    assert rig.accumulator.next_wake_ms(0) == 100
    rig.expire(100)
    assert [f.error.definite for f in rig.failures] == [True]
    assert rig.accumulator.buffered_bytes == 0


def test_a_partition_the_topic_does_not_have_is_refused() -> None:
    """Once the layout was asked for after it was given."""
    rig = Rig(2)
    before = rig.accumulator.last_sequence
    rig.add(b"a", 0, 2)
    assert rig.accumulator.beyond == {"t"}
    assert rig.accumulator.on_partitions("t", 2, 1024 * 1024, 0) == []
    assert rig.accumulator.on_partitions("t", 2, 1024 * 1024, 0, asked_after=before) == []
    asked = rig.accumulator.last_sequence
    (failure,) = rig.accumulator.on_partitions("t", 2, 1024 * 1024, 0, asked_after=asked)
    assert isinstance(failure.error, UnknownTopic)
    assert "0 to 1" in failure.error.detail
    assert rig.accumulator.buffered_bytes == 0


def test_a_partition_that_was_added_is_sent_to() -> None:
    rig = Rig(2)
    rig.add(b"a", 0, 2)
    rig.leaders[2] = LEADER
    assert rig.accumulator.on_partitions("t", 3, 1024 * 1024, 0) == []
    assert rig.sent(5) == [(2, [b"a"])]


def test_a_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    rig = Rig(batch_bytes=100)
    rig.add(b"x" * 5000)
    assert [len(values) for _, values in rig.sent(5)] == [1]
    with pytest.raises(RecordTooLarge):
        rig.add(b"x" * 2_000_000)


def test_batches_say_which_acks_were_asked_for() -> None:
    rig = Rig(linger_ms=0, acks=2)
    rig.add(b"a")
    rig.drain(0)
    assert split(bytes_of(rig.topic.partitions[0]), 1000)[0].acks_level == ACKS_MANY


def test_unkeyed_records_stay_with_a_partition_until_its_batch_leaves() -> None:
    rig = Rig(4)
    for number in range(10):
        rig.add(b"%d" % number, 0, None)
    sent = rig.sent(5)
    assert [len(values) for _, values in sent] == [10]
    for number in range(10):
        rig.add(b"%d" % number, 5, None)
    assert rig.sent(10)[0][0] != sent[0][0]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_record_meets_one_fate_in_order(data: st.DataObject) -> None:
    """Random appends, answers and time: each token comes out once, partitions keep their order, the
    buffer empties."""
    retries = data.draw(st.sampled_from(["all", "definite", "none"]))
    rig = Rig(3, linger_ms=2, batch_bytes=150, delivery_timeout_ms=5000, retries=retries)
    sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    written: dict[int, list[bytes | None]] = {0: [], 1: [], 2: []}
    acknowledged: list[bytes] = []
    now_ms = number = 0
    errors = [NotLeader("x"), BrokerUnavailable("x"), RecordTooLarge("x"), NotEnoughReplicas("x")]
    for _ in range(data.draw(st.integers(1, 60))):
        now_ms += data.draw(st.integers(0, 400))
        for _ in range(data.draw(st.integers(0, 4))):
            partition = data.draw(st.integers(0, 2))
            value = b"%05d" % number
            number += 1
            rig.add(value, now_ms, partition)
            sent[partition].append(value)
        rig.expire(now_ms)
        rig.drain(now_ms)
        for queue in [queue for queue in rig.topic.partitions if queue.in_flight]:
            outcome = data.draw(st.integers(0, 7))
            if outcome <= 3:
                error = errors[outcome]
                if not error.definite and data.draw(st.booleans()):
                    written[queue.partition] += values_of(queue)
                rig.fail(queue.partition, error, now_ms)
            elif outcome <= 6:
                written[queue.partition] += values_of(queue)
                acknowledged += rig.succeed(queue.partition)
    rig.accumulator.requeue_in_flight()
    rig.failures += rig.accumulator.fail_all(TimedOut("closed", definite=True))
    failed = [token for failure in rig.failures for *_, token in failure.spans]
    assert sorted(acknowledged + failed) == sorted(value for values in sent.values() for value in values)
    assert rig.accumulator.buffered_bytes == 0
    assert rig.accumulator.oldest_sequence() is None
    for partition, values in written.items():
        firsts = list(dict.fromkeys(values))
        assert firsts == sorted(firsts, key=lambda v: v or b""), partition
        if retries != "all":
            assert len(firsts) == len(values)
    present = {value for values in written.values() for value in values}
    assert set(acknowledged) <= present
    absent = {token for failure in rig.failures if failure.error.definite for *_, token in failure.spans}
    assert not absent & present
