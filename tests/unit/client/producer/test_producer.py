"""The producer against a small cluster that loses answers, moves leaders and falls silent; time is
virtual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from minilog.errors import (
    BrokerUnavailable,
    BufferFull,
    ClientClosed,
    InvalidRequest,
    InvalidTopic,
    LeadershipLost,
    MinilogError,
    NotEnoughReplicas,
    NotLeader,
    RecordTooLarge,
    TimedOut,
    UnknownTopic,
)
from minilog_client import AsyncClient, BatchReceipt, Producer, Receipt
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster, Fault
from tests.unit.client.virtual_time import run

Body = Callable[[FakeCluster, Producer], Coroutine[Any, Any, None]]


@asynccontextmanager
async def producing(cluster: FakeCluster, **options: Any) -> AsyncIterator[Producer]:
    async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer(**options) as producer:
        yield producer


def scenario(partitions: int = 3, **options: Any) -> Callable[[Body], None]:
    """Run ``body`` against topic "t" of a fresh cluster."""

    def decorate(body: Body) -> None:
        async def main() -> None:
            cluster = FakeCluster()
            cluster.create("t", partitions)
            async with producing(cluster, **options) as producer:
                await body(cluster, producer)

        run(main())

    return decorate


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_receipt_names_the_place_of_the_record() -> None:
    @scenario()
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        receipt = await producer.send("t", b"hello", key=b"k", headers={"h": b"1"}, timestamp_ms=77)
        log = cluster.logs["t"][receipt.partition]
        assert receipt == Receipt("t", receipt.partition, 0, 77, 0, "all", (1, 2, 3), False)
        assert log.values() == [b"hello"]


def test_records_of_one_turn_share_a_batch_and_have_their_own_receipts() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        futures = [producer.send_nowait("t", b"%d" % number) for number in range(50)]
        receipts = await asyncio.gather(*futures)
        assert [receipt.offset for receipt in receipts] == list(range(50))
        assert cluster.count("produce") == 1


def test_acks_zero_promises_nothing() -> None:
    @scenario(acks=0)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        receipt = await producer.send("t", b"x")
        assert (receipt.offset, receipt.leader_epoch, receipt.acks) == (None, None, 0)


def test_send_many_is_complete_ordered_and_in_few_batches() -> None:
    @scenario(1, batch_bytes=10_000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        values = [b"%06d" % number for number in range(20_000)]
        receipts = await producer.send_many("t", values)
        assert cluster.logs["t"][0].values() == values
        assert [r.base_offset for r in receipts] == [0, *(r.end_offset for r in receipts[:-1])]
        assert sum(r.record_count for r in receipts) == 20_000
        assert receipts[0].receipt(7).offset == 7
        assert len(receipts) < 40


def test_send_many_with_keys_goes_where_the_keys_say() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        keys = [b"key-%d" % (number % 7) for number in range(100)]
        receipts = await producer.send_many("t", [b"%d" % number for number in range(100)], keys=keys)
        assert sum(r.record_count for r in receipts) == 100
        single = await producer.send("t", b"x", key=b"key-3")
        log = cluster.logs["t"][single.partition]
        assert b"3" in log.values()
        with pytest.raises(ValueError, match="2 values but 1 keys"):
            await producer.send_many("t", [b"a", b"b"], keys=[b"k"])


def test_send_many_of_nothing() -> None:
    @scenario()
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        assert await producer.send_many("t", []) == []


@pytest.mark.parametrize("action", ["refuse", "reset", "lose_answer", NotLeader("moved"), NotEnoughReplicas("few")])
def test_a_failed_try_is_repeated(action: str | MinilogError) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("produce", action))
        began = now()
        receipt = await producer.send("t", b"once")
        assert cluster.logs["t"][0].values() == [b"once"]
        assert (receipt.offset, receipt.duplicate) == (0, action == "lose_answer")
        assert now() - began < 0.05


def test_without_numbers_a_repeated_try_may_write_twice() -> None:
    @scenario(1, idempotent=False)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("produce", "lose_answer"))
        receipt = await producer.send("t", b"twice")
        assert cluster.logs["t"][0].values() == [b"twice"] * 2
        assert (receipt.offset, receipt.duplicate) == (1, False)
        assert cluster.count("initproducer") == 0


def test_an_open_end_is_an_error_when_duplicates_are_forbidden() -> None:
    @scenario(1, retries="definite")
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults += [Fault("produce", "refuse"), Fault("produce", "lose_answer")]
        with pytest.raises(BrokerUnavailable) as caught:
            await producer.send("t", b"once")
        assert caught.value.definite is False
        assert cluster.logs["t"][0].values() == [b"once"]


def test_a_dead_leader_costs_no_more_than_the_election() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        log = cluster.logs["t"][0]
        await producer.send("t", b"before")
        cluster.refusing.add(log.leader)
        future = producer.send_nowait("t", b"after")
        asyncio.get_running_loop().call_later(0.1, cluster.move, log, NO_LEADER)
        asyncio.get_running_loop().call_later(0.3, cluster.move, log, 2)
        began = now()
        await future
        assert now() - began < 0.3 * 1.3
        assert log.values() == [b"before", b"after"]


def test_a_silent_leader_is_given_up_when_another_one_leads() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        log = cluster.logs["t"][0]
        await producer.send("t", b"before")
        cluster.silent.add(log.leader)
        future = producer.send_nowait("t", b"after")
        asyncio.get_running_loop().call_later(2.0, cluster.move, log, 2)
        began = now()
        await future
        assert now() - began < 2.0 + 0.3


@pytest.mark.parametrize("neighbour", [1, NO_LEADER])
def test_a_partition_does_not_wait_for_its_neighbours_leader(neighbour: int) -> None:
    """Both travel in one request to a broker that is frozen. One gets a new leader at once, the
    other one stays, or has none for long."""

    async def main() -> None:
        cluster = FakeCluster()
        logs = cluster.create("t", 2)
        logs[0].leader = logs[1].leader = 1
        async with producing(cluster) as producer:
            for partition in (0, 1):
                await producer.send("t", b"1", partition=partition)
            cluster.silent.add(1)
            began = now()
            first, second = (producer.send_nowait("t", b"2", partition=partition) for partition in (0, 1))
            await asyncio.sleep(0.2)
            cluster.move(logs[0], 2)
            if neighbour != 1:
                cluster.move(logs[1], neighbour)
            await first
            assert now() - began < 1.5
            await asyncio.sleep(2)
            cluster.silent.clear()
            cluster.move(logs[1], 1)
            await second
        assert [log.values() for log in logs] == [[b"1", b"2"]] * 2

    run(main())


def test_a_silent_broker_does_not_block_the_partitions_of_others() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_many("t", [b"%d" % n for n in range(30)], keys=[b"%d" % n for n in range(30)])
        cluster.silent.add(1)
        stuck = producer.send_nowait("t", b"stuck", partition=0)
        began = now()
        for number in range(20):
            await producer.send("t", b"%d" % number, partition=1 + number % 2)
        assert now() - began < 0.5
        assert not stuck.done()
        cluster.move(cluster.logs["t"][0], 2)
        await stuck


def test_a_silent_bootstrap_broker_costs_a_hedge_not_a_timeout() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.move(cluster.logs["t"][0], 3)
        cluster.silent |= {1, 2}
        began = now()
        await producer.send("t", b"x")
        assert now() - began < 0.35


def test_delivery_timeout_when_nothing_was_written() -> None:
    @scenario(1, delivery_timeout_ms=3000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.refusing |= {1, 2, 3}
        began = now()
        with pytest.raises(TimedOut, match="refused") as caught:
            await producer.send("t", b"y")
        assert caught.value.definite is True
        assert 2.9 < now() - began < 3.2


def test_delivery_timeout_when_the_answer_was_lost() -> None:
    @scenario(1, delivery_timeout_ms=3000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("produce", "lose_answer"))
        cluster.faults.append(Fault("produce", NotEnoughReplicas("few"), times=1000))
        with pytest.raises(TimedOut) as caught:
            await producer.send("t", b"y")
        assert caught.value.definite is False


def test_a_whole_silent_cluster_does_not_hang() -> None:
    @scenario(1, delivery_timeout_ms=5000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.silent |= {1, 2, 3}
        began = now()
        with pytest.raises(TimedOut) as caught:
            await producer.send("t", b"y")
        assert caught.value.definite is False
        assert now() - began < 5.6


def test_without_any_broker_records_expire() -> None:
    @scenario(1, delivery_timeout_ms=5000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.refusing |= {1, 2, 3}
        with pytest.raises(TimedOut) as caught:
            await producer.send("t", b"y")
        assert caught.value.definite is True
        with pytest.raises(BrokerUnavailable):
            await producer.send_many("t", [b"y"])
        assert cluster.count("metadata") < 100


@pytest.mark.parametrize("many", [False, True])
def test_a_topic_nobody_knows_is_an_error_after_a_moment(many: bool) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        began = now()
        with pytest.raises(UnknownTopic, match="nowhere") as caught:
            await (producer.send_many("nowhere", [b"x"]) if many else producer.send("nowhere", b"x"))
        assert caught.value.definite is True
        assert 1.9 < now() - began < 2.6


def test_a_topic_created_a_moment_later_is_found() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        future = producer.send_nowait("late", b"x")
        asyncio.get_running_loop().call_later(0.5, cluster.create, "late")
        receipt = await future
        assert receipt.topic == "late"


def test_records_for_a_deleted_topic_fail() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        del cluster.logs["t"]
        cluster.metadata_offset += 1
        began = now()
        with pytest.raises(UnknownTopic):
            await producer.send("t", b"x")
        assert now() - began < 5


def test_new_partitions_are_used_after_a_while() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.grow("t", 3)
        await asyncio.sleep(11)
        receipt = await producer.send("t", b"x", partition=2)
        assert receipt.partition == 2


def test_send_nowait_raises_when_the_buffer_is_full_and_send_waits() -> None:
    @scenario(1, buffer_bytes=2000, batch_bytes=1000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        taken = [producer.send_nowait("t", b"x" * 100) for _ in range(12)]
        with pytest.raises(BufferFull, match="buffer_bytes 2000"):
            producer.send_nowait("t", b"x" * 1000)
        receipts = await asyncio.gather(*[producer.send("t", b"%03d" % n + b"y" * 97) for n in range(100)], *taken)
        assert len(receipts) == 100 + len(taken)
        values = [value[:3] for value in cluster.logs["t"][0].values() if value and value[3:4] == b"y"]
        assert values == [b"%03d" % n for n in range(100)]
        assert producer.statistics().buffered_bytes == 0


def test_waiting_for_room_ends() -> None:
    @scenario(1, buffer_bytes=2000, batch_bytes=1000, block_timeout_ms=500)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.refusing |= {1, 2, 3}
        waiting = [producer.send_nowait("t", b"x" * 1000)]
        began = now()
        with pytest.raises(BufferFull):
            await producer.send("t", b"x" * 1000)
        assert 0.4 < now() - began < 0.7
        cluster.refusing.clear()
        await asyncio.gather(*waiting)


def test_a_bounded_buffer_takes_a_stream_larger_than_itself() -> None:
    @scenario(3, buffer_bytes=20_000, batch_bytes=2000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        receipts = await producer.send_many("t", [b"x" * 50] * 5000)
        assert sum(receipt.record_count for receipt in receipts) == 5000
        assert sum(log.end_offset for log in cluster.logs["t"]) == 5000


def test_flush_waits_for_what_was_sent_before_it() -> None:
    @scenario(1, linger_ms=10_000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        futures = [producer.send_nowait("t", b"%d" % n) for n in range(10)]
        began = now()
        await producer.flush()
        assert all(future.done() for future in futures)
        assert now() - began < 0.1
        await producer.flush()


def test_flush_waits_for_records_whose_topic_is_not_known_yet() -> None:
    @scenario(1, linger_ms=1000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        future = producer.send_nowait("late", b"x")
        asyncio.get_running_loop().call_later(0.5, cluster.create, "late")
        await producer.flush()
        assert future.done()


def test_flush_ends_in_time() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.silent |= {1, 2, 3}
        future = producer.send_nowait("t", b"x")
        began = now()
        with pytest.raises(TimedOut, match="flush took longer than 700 ms"):
            await producer.flush(timeout_ms=700)
        assert 0.6 < now() - began < 0.8
        cluster.silent.clear()
        await future


def test_close_flushes() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with producing(cluster, linger_ms=10_000) as producer:
            future = producer.send_nowait("t", b"x")
        assert future.result().offset == 0
        with pytest.raises(ClientClosed):
            producer.send_nowait("t", b"x")
        with pytest.raises(ClientClosed):
            await producer.send_many("t", [b"x"])
        await producer.close()

    run(main())


def test_close_is_bounded_and_says_what_it_knows() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 2)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer()
            await producer.send("t", b"x", partition=0)
            cluster.silent.add(1)
            cluster.refusing.add(2)
            open_end = producer.send_nowait("t", b"x", partition=0)
            never_sent = producer.send_nowait("t", b"x", partition=1)
            began = now()
            with pytest.raises(TimedOut, match="close took longer than 1000 ms; 2 records are not settled") as caught:
                await producer.close(timeout_ms=1000)
            assert now() - began < 1.1
            assert [entry["record_count"] for entry in caught.value.info["unsettled"]] == [1, 1]
            assert "t-1 (last error: no connection to http://broker2:8082" in caught.value.detail
            errors = [future.exception() for future in (open_end, never_sent)]
            assert [type(error) for error in errors] == [ClientClosed, ClientClosed]
            assert [getattr(error, "definite", None) for error in errors] == [False, True]

    run(main())


def test_closing_the_client_closes_its_producers() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        client = AsyncClient(cluster.bootstrap, transport=cluster)
        future = client.producer(linger_ms=5000).send_nowait("t", b"x")
        await client.close()
        assert future.done()
        assert cluster.closed
        with pytest.raises(ClientClosed):
            client.producer()
        await client.close()

    run(main())


@pytest.mark.parametrize(
    ("send", "error", "said"),
    [
        (lambda p: p.send_nowait("t", "text"), TypeError, "value must be bytes, got str"),
        (lambda p: p.send_nowait("t", b"x", key=5), TypeError, "key must be bytes, got int"),
        (lambda p: p.send_nowait(5, b"x"), TypeError, "topic must be a string, got int"),
        (lambda p: p.send_nowait("a/b", b"x"), InvalidTopic, "a/b"),
        (lambda p: p.send_nowait("t", b"x", partition=9), UnknownTopic, "0 to 2"),
        (lambda p: p.send_nowait(["t"], b"x"), TypeError, "topic must be a string, got list"),
        (lambda p: p.send_nowait(b"t", b"x"), TypeError, "topic must be a string, got bytes"),
        (lambda p: p.send_nowait("t", b"x", partition=-1), InvalidRequest, "partition is -1; allowed are"),
        (lambda p: p.send_nowait("t", b"x", partition="1"), TypeError, "partition must be a whole number, got '1'"),
        (lambda p: p.send_nowait("t", b"x", partition=True), TypeError, "partition must be a whole number, got True"),
        (lambda p: p.send_nowait("new", b"x", partition=1.0), TypeError, "partition must be a whole number"),
        (lambda p: p.send_nowait("t", b"x", timestamp_ms=-1), InvalidRequest, "timestamp_ms is -1; allowed are"),
        (lambda p: p.send_nowait("t", b"x", timestamp_ms=2**63), InvalidRequest, "timestamp_ms is 9223372036854775808"),
        (lambda p: p.send_nowait("t", b"x", timestamp_ms="now"), TypeError, "timestamp_ms must be a whole number"),
        (lambda p: p.send_nowait("t", b"x", headers=5), TypeError, "headers must be a mapping or pairs"),
        (lambda p: p.send_nowait("t", b"x", headers={"a": "text"}), TypeError, "header a must be bytes, got str"),
        (lambda p: p.send_nowait("t", b"x", headers={"\ud800": b""}), InvalidRequest, "cannot be written as UTF-8"),
        (lambda p: p.send_nowait("t", b"x" * 2_000_000), RecordTooLarge, "2000"),
    ],
)
def test_misuse_is_refused_at_once(send: Callable[[Producer], Any], error: type[Exception], said: str) -> None:
    @scenario()
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"warm")
        with pytest.raises(error, match=said):
            await send(producer)  # raises by itself, but for a partition that may have been added just now
        assert producer.statistics().buffered_bytes == 0


def test_send_many_refuses_before_it_sends_anything() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(RecordTooLarge):
            await producer.send_many("t", [b"ok", b"x" * 2_000_000])
        assert cluster.logs["t"][0].values() == []


def test_send_many_reports_what_failed_and_what_did_not() -> None:
    @scenario(1, batch_bytes=1000, retries="none", idempotent=False)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"warm")
        cluster.faults.append(Fault("produce", NotLeader("moved")))
        with pytest.raises(NotLeader, match=r"\d+ of 4000 records were not acknowledged") as caught:
            await producer.send_many("t", [b"%04d" % n for n in range(4000)])
        info = caught.value.info
        assert info["records_failed"] + info["records_acknowledged"] == 4000
        assert info["records_acknowledged"] == cluster.logs["t"][0].end_offset - 1
        assert sum(BatchReceipt(**receipt).record_count for receipt in info["receipts"]) == info["records_acknowledged"]
        assert caught.value.definite is False


def test_a_cancelled_send_leaves_the_producer_whole() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        task = asyncio.create_task(producer.send("t", b"cancelled"))
        await asyncio.sleep(0.001)
        task.cancel()
        assert (await producer.send("t", b"next")).offset is not None
        assert producer.statistics().buffered_bytes == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("retries", ["all", "definite"])
def test_under_chaos_nothing_acknowledged_is_lost_and_order_holds(seed: int, retries: str) -> None:
    @scenario(4, retries=retries, delivery_timeout_ms=20_000, batch_bytes=300, linger_ms=1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        random = Random(seed)
        faults: list[str | MinilogError] = [
            "refuse",
            "reset",
            "lose_answer",
            "hang",
            NotLeader("x"),
            LeadershipLost("x"),
        ]
        cluster.chaos = lambda kind, broker: random.choice(faults) if random.random() < 0.15 else None
        sent: dict[bytes, tuple[int, asyncio.Future[Receipt]]] = {}
        for number in range(400):
            value, partition = b"%05d" % number, random.randrange(4)
            sent[value] = (partition, producer.send_nowait("t", value, partition=partition))
            if random.random() < 0.1:
                await asyncio.sleep(random.random() * 0.2)
            if random.random() < 0.02:
                cluster.move(random.choice(cluster.logs["t"]), random.choice([1, 2, 3]))
        await producer.flush()
        _check_fates(cluster, sent, retries)
        assert producer.statistics().buffered_bytes == 0


def _check_fates(cluster: FakeCluster, sent: dict[bytes, tuple[int, asyncio.Future[Receipt]]], retries: str) -> None:
    logs = [log.values() for log in cluster.logs["t"]]
    acknowledged = 0
    for value, (partition, future) in sent.items():
        error = future.exception()
        if error is None:
            offset = future.result().offset
            assert offset is not None
            assert logs[partition][offset] == value
            acknowledged += 1
        elif isinstance(error, MinilogError) and error.definite:
            assert value not in logs[partition]
    assert acknowledged > 100
    for partition, values in enumerate(logs):
        firsts = list(dict.fromkeys(values))
        assert firsts == sorted(firsts, key=lambda value: value or b""), partition
        assert retries == "all" or len(firsts) == len(values)
