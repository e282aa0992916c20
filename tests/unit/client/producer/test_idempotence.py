"""Retries that write nothing twice and let nothing overtake, over a network that loses, delays and
repeats."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import (
    BrokerUnavailable,
    DuplicateSequence,
    InvalidRequest,
    LeadershipLost,
    MinilogError,
    NotEnoughReplicas,
    NotLeader,
    OutOfOrderSequence,
    ProducerFenced,
    TimedOut,
)
from minilog.wire.batch import split
from minilog_client import AsyncClient, Producer, Receipt
from tests.unit.client.fake_cluster import FakeCluster, Fault, Log
from tests.unit.client.producer.test_accumulator import Rig, bytes_of, values_of
from tests.unit.client.producer.test_producer import now, scenario
from tests.unit.client.virtual_time import run

LAST_TRIES_MAX = 10
Sent = dict[bytes, tuple[int, asyncio.Future[Receipt]]]


def numbers(log: Log) -> list[tuple[int, int]]:
    """(epoch, base sequence) of each batch in the log."""
    return [(batch.producer_epoch, batch.base_sequence) for batch in log.batches]


def test_batches_are_numbered_by_partition_under_one_id() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        for partition in (0, 0, 1, 0):
            await producer.send_many("t", [b"a", b"b", b"c"], partition=partition)
        first, second = cluster.logs["t"]
        assert numbers(first) == [(0, 0), (0, 3), (0, 6)]
        assert numbers(second) == [(0, 0)]
        assert {batch.producer_id for log in (first, second) for batch in log.batches} == {1000}
        assert cluster.count("initproducer") == 1


def test_a_second_producer_has_an_id_of_its_own() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            for _ in range(2):
                await client.producer().send("t", b"x")
        assert [batch.producer_id for batch in cluster.logs["t"][0].batches] == [1000, 1001]

    run(main())


def test_no_id_is_asked_for_before_there_is_a_record() -> None:
    @scenario()
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await asyncio.sleep(5)
        assert cluster.count("initproducer") == 0


def test_a_repeated_request_is_answered_with_the_first_offsets() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        cluster.faults.append(Fault("produce", "lose_answer"))
        receipts = await producer.send_many("t", [b"a", b"b"])
        assert [(r.base_offset, r.end_offset, r.duplicate) for r in receipts] == [(1, 3, True)]
        assert cluster.logs["t"][0].values() == [b"before", b"a", b"b"]


def test_batches_that_travelled_together_are_recognized_one_by_one() -> None:
    """More batches than a leader remembers: they travel in groups it can still recognize, and
    return alone."""

    @scenario(1, batch_bytes=200, linger_ms=0)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults += [Fault("produce", "lose_answer", times=3)]
        values = [b"%03d" % n for n in range(200)]
        receipts = await producer.send_many("t", values)
        log = cluster.logs["t"][0]
        assert log.values() == values
        assert [r.base_offset for r in receipts] == [batch.base_offset for batch in log.batches]
        assert len(log.batches) > 10
        assert any(r.duplicate for r in receipts)


def test_a_late_copy_of_what_was_given_up_cannot_be_written_any_more() -> None:
    @scenario(1, delivery_timeout_ms=2000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        cluster.lateness = lambda: 10.0
        cluster.faults += [Fault("produce", "late"), Fault("produce", NotEnoughReplicas("few"), times=1000)]
        with pytest.raises(TimedOut, match="it may be written") as caught:
            await producer.send("t", b"given up")
        cluster.faults.clear()
        assert caught.value.definite is False
        assert caught.value.info["base_sequence"] == 1
        receipt = await producer.send("t", b"after")
        await asyncio.sleep(20)
        log = cluster.logs["t"][0]
        assert log.values() == [b"before", b"after"]
        assert numbers(log) == [(0, 0), (1, 0)]
        assert (receipt.offset, producer.statistics().restarts) == (1, 1)


def test_what_was_never_sent_has_no_number() -> None:
    @scenario(1, delivery_timeout_ms=2000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        log = cluster.logs["t"][0]
        await producer.send("t", b"before")
        cluster.move(log, -1)
        await asyncio.sleep(11)
        with pytest.raises(TimedOut) as caught:
            await producer.send("t", b"given up")
        assert caught.value.definite is True
        cluster.move(log, 1)
        await producer.send("t", b"after")
        assert numbers(log) == [(0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("error", "definite", "said"),
    [
        (OutOfOrderSequence("a gap"), True, "acknowledged records are missing; it is not written"),
        (ProducerFenced("epoch 9 runs"), True, "another producer"),
        (DuplicateSequence("long ago"), False, "the record is in the log, but at which offset is not known"),
    ],
)
def test_what_a_leader_says_about_numbers_fails_one_batch_and_no_other(
    error: MinilogError, definite: bool, said: str
) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        cluster.faults.append(Fault("produce", error))
        with pytest.raises(type(error), match=said) as caught:
            await producer.send("t", b"failed")
        assert caught.value.definite is definite
        await producer.send("t", b"after")
        log = cluster.logs["t"][0]
        fresh_id = isinstance(error, ProducerFenced)
        assert numbers(log) == [(0, 0), (0 if fresh_id else 1, 0)]
        assert [batch.producer_id for batch in log.batches] == [1000, 1001 if fresh_id else 1000]


def test_records_lost_by_a_leader_with_acks_1_are_stepped_over(caplog: pytest.LogCaptureFixture) -> None:
    @scenario(1, acks=1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        log = cluster.logs["t"][0]
        for value in (b"kept", b"lost", b"lost too"):
            await producer.send("t", value)
        log.truncate(1)
        cluster.move(log, 2)
        receipt = await producer.send("t", b"after")
        assert (receipt.offset, receipt.duplicate) == (1, False)
        assert log.values() == [b"kept", b"after"]
        assert numbers(log) == [(0, 0), (1, 0)]

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("producer 1000 goes on in epoch 1 after records of t-0 were given up: t-0: the log")


def test_acks_all_tells_that_acknowledged_records_are_missing() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        log = cluster.logs["t"][0]
        for value in (b"kept", b"lost"):
            await producer.send("t", value)
        log.truncate(1)
        with pytest.raises(OutOfOrderSequence, match="acknowledged records are missing; it is not written") as caught:
            await producer.send("t", b"refused")
        assert caught.value.definite is True
        await producer.send("t", b"after")
        assert log.values() == [b"kept", b"after"]


def test_what_may_be_written_keeps_its_number_until_its_fate_is_known() -> None:
    """Two batches in one request with no answer. The first one's time is up before the second
    one's: the second is asked about under its old number, and only then does a new epoch begin,
    with what was never sent."""
    rig = Rig(linger_ms=0, batch_bytes=200, delivery_timeout_ms=2000, idempotent=True)
    rig.accumulator.identity.assign(7)
    queue = rig.topic.partitions[0]
    rig.add(b"a" * 100, 0)
    rig.add(b"b" * 100, 100)
    assert sent_numbers(rig, 100) == [(0, 0), (0, 1)]
    rig.add(b"c" * 100, 100)
    rig.fail(0, BrokerUnavailable("reset"), 100)
    rig.expire(2000)
    assert [(type(f.error), f.error.definite) for f in rig.failures] == [(TimedOut, False)]
    assert sent_numbers(rig, 2050) == [(0, 1)]
    rig.fail(0, OutOfOrderSequence("a gap"), 2050)
    error = rig.failures[1].error
    assert (type(error), error.definite) == (OutOfOrderSequence, False)
    assert "records before it were given up" in error.detail
    assert sent_numbers(rig, 2060) == [(1, 0)]
    assert values_of(queue) == [b"c" * 100]


def test_batches_without_a_number_wait_for_an_id() -> None:
    rig = Rig(linger_ms=0, idempotent=True)
    rig.add(b"a")
    assert rig.drain(0) == []
    assert rig.needs_producer_id
    assert rig.accumulator.next_wake_ms(0) == 120_000
    rig.accumulator.identity.assign(7)
    assert sent_numbers(rig, 0) == [(0, 0)]


def sent_numbers(rig: Rig, now_ms: int) -> list[tuple[int, int]]:
    """(epoch, base sequence) of each batch drained at ``now_ms``."""
    queues = [queue for dispatch in rig.drain(now_ms) for queue in dispatch.queues]
    found = [batch for queue in queues for batch in split(bytes_of(queue), 2**31)]
    return [(batch.producer_epoch, batch.base_sequence) for batch in found]


def test_an_id_is_asked_for_again_when_the_epochs_are_used_up() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        sequences = producer._accumulator.topics["t"].partitions[0].sequences
        assert sequences is not None
        sequences.producer_epoch = 32767
        cluster.faults.append(Fault("produce", DuplicateSequence("long ago")))
        with pytest.raises(DuplicateSequence):
            await producer.send("t", b"failed")
        await producer.send("t", b"after")
        assert [batch.producer_id for batch in cluster.logs["t"][0].batches] == [1000, 1001]


def test_sequences_wrap() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        sequences = producer._accumulator.topics["t"].partitions[0].sequences
        assert sequences is not None
        sequences.give_up()
        assert sequences.renew()
        sequences.next_sequence = 2**31 - 2
        cluster.logs["t"][0].batches.clear()
        cluster.faults.append(Fault("produce", "lose_answer"))
        await producer.send_many("t", [b"a", b"b", b"c"])
        await producer.send("t", b"after")
        log = cluster.logs["t"][0]
        assert numbers(log) == [(1, 2**31 - 2), (1, 1)]
        assert log.values() == [b"a", b"b", b"c", b"after"]


def test_a_broker_that_knows_no_ids_is_an_error_at_once() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("initproducer", InvalidRequest("the message is an InitProducer"), times=3))
        with pytest.raises(InvalidRequest, match="idempotent=False sends without one") as caught:
            await producer.send("t", b"x")
        assert caught.value.definite is True
        assert now() < 1001
        await producer.send("t", b"y")


def test_no_id_within_the_delivery_timeout() -> None:
    @scenario(1, delivery_timeout_ms=3000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("initproducer", "reset", times=1000))
        began = now()
        with pytest.raises(TimedOut, match="never sent: no producer id") as caught:
            await producer.send("t", b"x")
        assert caught.value.definite is True
        assert now() - began < 3.1


def test_a_silent_broker_delays_the_id_by_a_hedge() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("initproducer", "hang"))
        began = now()
        await producer.send("t", b"x")
        assert now() - began < 0.3


# --- a random network -----------------------------------------------------------------------------

_ACTIONS: list[str | MinilogError] = [
    "refuse",
    "reset",
    "lose_answer",
    "late",
    "hang",
    NotLeader("moved"),
    LeadershipLost("appended, then deposed"),
    NotEnoughReplicas("few"),
]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    acks=st.sampled_from(["all", 1]),
    batch_bytes=st.sampled_from([150, 1000]),
    delivery_timeout_ms=st.sampled_from([600, 3000, 30_000]),
    retries=st.sampled_from(["all", "all", "definite"]),
)
def test_nothing_is_doubled_or_overtaken(seed: int, rate: float, **options: Any) -> None:
    @scenario(3, linger_ms=1, **options)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        random = Random(seed)
        cluster.chaos = lambda kind, broker: _draw(random, rate, kind)
        cluster.lateness = lambda: random.choice([0.005, 0.05, 0.5, 5.0])
        lost: set[bytes | None] = set()
        timeout_s = options["delivery_timeout_ms"] / 1000
        sent: Sent = {}
        late: list[float] = []
        for number in range(150):
            value, partition, began = b"%05d" % number, random.randrange(3), now()
            future = producer.send_nowait("t", value, partition=partition)
            future.add_done_callback(lambda _, began=began: late.append(now() - began - timeout_s))  # type: ignore[misc]
            sent[value] = (partition, future)
            if random.random() < 0.3:
                await asyncio.sleep(random.random() * 0.3)
            if random.random() < 0.05:
                lost |= _fail_over(cluster, random, options["acks"])
        await producer.flush()
        cluster.chaos = lambda kind, broker: None
        for partition in range(3):
            await _write_last(producer, partition, sent, options["acks"])
        await asyncio.sleep(10)
        _check(cluster, sent, lost)
        if options["acks"] == "all":
            _check_errors(sent)
        assert max(late) < 0.5
        assert producer.statistics().buffered_bytes == 0


async def _write_last(producer: Producer, partition: int, sent: Sent, acks: Any) -> None:
    """In calm weather it succeeds, at the latest when old answers have stopped to arrive and the
    leader is known."""
    for number in range(LAST_TRIES_MAX):
        value = b"last of %d, %d" % (partition, number)
        sent[value] = partition, asyncio.ensure_future(producer.send("t", value, partition=partition))
        await asyncio.wait([sent[value][1]])
        if acks != "all" or sent[value][1].exception() is None:
            return
    raise AssertionError(f"nothing is acknowledged any more: {sent[value][1].exception()!r}")


def _draw(random: Random, rate: float, kind: str) -> str | MinilogError | None:
    if random.random() >= rate:
        return None
    action = random.choice(_ACTIONS)
    return "reset" if action == "late" and kind != "produce" else action


def _fail_over(cluster: FakeCluster, random: Random, acks: Any) -> set[bytes | None]:
    """Another leader. With acks=1 it may lack the last batches. Returns the values that are
    gone."""
    log = random.choice(cluster.logs["t"])
    before = log.values()
    if acks == 1 and log.batches and random.random() < 0.5:
        log.truncate(random.choice(log.batches).base_offset)
    cluster.move(log, random.choice([1, 2, 3]))
    return set(before) - set(log.values())


def _check(cluster: FakeCluster, sent: Sent, lost: set[bytes | None]) -> None:
    logs = [log.values() for log in cluster.logs["t"]]
    for values in logs:
        assert len(set(values)) == len(values), "a record is in the log twice"
        assert values == sorted(values, key=lambda value: value or b""), "a record has overtaken another"
    for value, (partition, future) in sent.items():
        error = future.exception()
        if error is None and value not in lost:
            offset = future.result().offset
            assert offset is not None
            assert lost or logs[partition][offset] == value
            assert value in logs[partition]
        elif isinstance(error, MinilogError) and error.definite:
            assert value not in logs[partition]
        else:
            assert value in lost or isinstance(error, MinilogError)


def _check_errors(sent: Sent) -> None:
    """Nobody is told that acknowledged records are missing while none are, nor that a place was
    forgotten."""
    for _, future in sent.values():
        error = future.exception()
        assert not isinstance(error, DuplicateSequence | ProducerFenced)
        assert not isinstance(error, OutOfOrderSequence) or not error.definite


def test_the_check_sees_what_numbers_prevent() -> None:
    """Without numbers the same network writes records twice: the property above is not empty."""
    doubled = 0
    for seed in range(5):

        @scenario(3, linger_ms=1, idempotent=False)
        async def _(cluster: FakeCluster, producer: Producer, seed: int = seed) -> None:
            nonlocal doubled
            random = Random(seed)
            cluster.chaos = lambda kind, broker: _draw(random, 0.4, kind)
            for number in range(60):
                producer.send_nowait("t", b"%05d" % number, partition=number % 3)
                await asyncio.sleep(random.random() * 0.1)
            await producer.flush()
            doubled += sum(len(log.values()) - len(set(log.values())) for log in cluster.logs["t"])

    assert doubled > 0


def test_one_lane_alone_starts_over() -> None:
    @scenario(2, delivery_timeout_ms=1000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        for partition in (0, 1):
            await producer.send("t", b"before", partition=partition)
        cluster.faults.append(Fault("produce", "lose_answer"))
        cluster.faults.append(Fault("produce", BrokerUnavailable("gone"), times=1000, broker=1))
        with pytest.raises(TimedOut):
            await producer.send("t", b"given up", partition=0)
        cluster.faults.clear()
        for partition in (0, 1):
            await producer.send("t", b"after", partition=partition)
        first, second = cluster.logs["t"]
        assert first.values() == [b"before", b"given up", b"after"]
        assert numbers(first) == [(0, 0), (0, 1), (1, 0)]
        assert numbers(second) == [(0, 0), (0, 1)]
