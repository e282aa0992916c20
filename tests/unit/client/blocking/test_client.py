"""The synchronous face: a thread and a loop around the same objects, so real time, in
milliseconds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import pytest

from minilog.errors import BufferFull, ClientClosed, InvalidRequest, LogTruncated, NotLeader, TimedOut, UnknownTopic
from minilog_client import Client, Receipt, SyncProducer
from minilog_client.connection.transport import Response
from tests.unit.client.consumer.consumer_bench import fill, lose_tail
from tests.unit.client.fake_cluster import FakeCluster, Fault


@contextmanager
def connected(partitions: int = 1, **options: Any) -> Iterator[tuple[FakeCluster, Client]]:
    cluster = FakeCluster()
    cluster.create("t", partitions)
    with Client(cluster.bootstrap, transport=cluster, **options) as client:
        yield cluster, client


def test_send_returns_a_future_and_keeps_order() -> None:
    with connected() as (cluster, client), client.producer() as producer:
        futures = [producer.send("t", b"%04d" % number, key=b"k") for number in range(500)]
        assert [future.result(5).offset for future in futures] == list(range(500))
        assert cluster.logs["t"][0].values() == [b"%04d" % number for number in range(500)]
        assert producer.statistics().records_acknowledged == 500


def test_many_threads_may_send() -> None:
    with connected(2) as (cluster, client), client.producer() as producer:

        def work(name: int) -> None:
            for number in range(100):
                producer.send("t", b"%d-%03d" % (name, number), key=b"%d" % name)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()
        values = [value for log in cluster.logs["t"] for value in log.values() if value]
        for name in range(4):
            own = [value for value in values if value.startswith(b"%d-" % name)]
            assert own == [b"%d-%03d" % (name, number) for number in range(100)]


def test_send_many_flush_and_admin() -> None:
    with connected() as (_cluster, client):
        client.create_topic("u", partitions=2)
        producer = client.producer(linger_ms=60_000)
        future = producer.send("t", b"first")
        producer.flush()
        assert future.done()
        assert sum(r.record_count for r in client.producer().send_many("u", [b"x"] * 1000)) == 1000
        assert sum(client.offsets("u", p)[1] for p in range(2)) == 1000
        assert [info.topic for info in client.list_topics()] == ["t", "u"]
        client.delete_topic("u")
        with pytest.raises(UnknownTopic):
            client.describe_topic("u")


def test_errors_arrive_in_the_future() -> None:
    with connected() as (cluster, client), client.producer(retries="none", idempotent=False) as producer:
        producer.send("t", b"warm").result(5)
        cluster.faults.append(Fault("produce", NotLeader("moved")))
        with pytest.raises(NotLeader):
            producer.send("t", b"x").result(5)
        with pytest.raises(UnknownTopic):
            producer.send("t", b"x", partition=7).result(5)
        with pytest.raises(TypeError, match="value must be bytes, got str"):
            producer.send("t", "text")  # type: ignore[arg-type]


def test_a_full_buffer_makes_send_wait_and_nothing_is_lost() -> None:
    with connected() as (_cluster, client), client.producer(buffer_bytes=3000, batch_bytes=1000) as producer:
        futures = [producer.send("t", b"%04d" % number + b"x" * 60) for number in range(300)]
        producer.flush()
        assert [future.result(5).offset for future in futures] == list(range(300))


def test_waiting_for_room_ends_in_an_error() -> None:
    with connected() as (cluster, client):
        producer = client.producer(buffer_bytes=1000, batch_bytes=1000, block_timeout_ms=30, delivery_timeout_ms=500)
        producer.send("t", b"warm").result(5)
        cluster.refusing |= {1, 2, 3}
        futures = [producer.send("t", b"x" * 600) for _ in range(3)]
        with pytest.raises(BufferFull):
            futures[1].result(5)
        with pytest.raises(TimedOut, match="close took longer than 1 ms"):
            producer.close(timeout_ms=1)
        assert all(future.done() for future in futures)


def test_records_that_wait_for_room_wait_beside_each_other() -> None:
    cluster = FakeCluster()
    cluster.create("t", 1)
    cluster.silent = {1, 2, 3}
    options: dict[str, Any] = {"buffer_bytes": 4000, "batch_bytes": 1000, "close_timeout_ms": 1}
    with Client(cluster.bootstrap, transport=cluster) as client:
        producer = client.producer(block_timeout_ms=100, delivery_timeout_ms=600, **options)
        began = time.monotonic()
        futures = [producer.send("t", b"x" * 1000) for _ in range(60)]
        assert all(future.exception(5) for future in futures)
        assert time.monotonic() - began < 1.5


class SlowCluster(FakeCluster):
    """Every produce takes 20 ms."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> Response:
        if url.endswith("/v1/produce"):
            await asyncio.sleep(0.02)
        return await super().request(method, url, headers, body, timeout_ms)


def overfull(cluster: FakeCluster, client: Client, **options: Any) -> tuple[SyncProducer, list[Future[Receipt]]]:
    """A producer that was given much more than its buffer takes."""
    cluster.create("t")
    producer = client.producer(buffer_bytes=4000, batch_bytes=1000, **options)
    return producer, [producer.send("t", b"%05d" % number + b"." * 500) for number in range(60)]


def test_close_sends_what_was_taken_and_has_found_no_room_yet() -> None:
    cluster = SlowCluster()
    with Client(cluster.bootstrap, transport=cluster) as client:
        producer, futures = overfull(cluster, client, close_timeout_ms=10_000)
        producer.close()
        assert [future.result(0).offset for future in futures] == list(range(60))
    assert len(cluster.logs["t"][0].values()) == 60


def test_close_tells_of_what_has_found_no_room_in_time() -> None:
    cluster = FakeCluster()
    with Client(cluster.bootstrap, transport=cluster) as client:
        cluster.silent |= {1, 2, 3}
        producer, futures = overfull(cluster, client)
        with pytest.raises(TimedOut, match=r"^close took longer than 60 ms; .* records have found no room") as raised:
            producer.close(timeout_ms=60)
        assert not raised.value.definite
        errors = [future.exception(0) for future in futures]
        assert {type(error) for error in errors} == {ClientClosed}
        last = errors[-1]
        assert isinstance(last, ClientClosed)
        assert last.definite, "it was never sent"
        producer.close()


def test_close_does_not_wait_for_what_is_sent_after_it_was_called() -> None:
    cluster = SlowCluster()
    with Client(cluster.bootstrap, transport=cluster) as client:
        producer, futures = overfull(cluster, client)
        closing = threading.Thread(target=producer.close, args=(10_000,))
        closing.start()
        late = []
        while closing.is_alive():
            late.append(producer.send("t", b"late" + b"." * 500))
            closing.join(0.001)
        assert all(future.exception(0) is None for future in futures)
        assert isinstance(late[-1].exception(5), ClientClosed)


def test_flush_has_the_time_it_was_given_and_names_it() -> None:
    cluster = SlowCluster()
    with Client(cluster.bootstrap, transport=cluster) as client:
        producer, futures = overfull(cluster, client, block_timeout_ms=500)
        producer.flush(10_000)
        assert all(future.done() for future in futures)
        cluster.silent |= {1, 2, 3}
        futures = [producer.send("t", b"." * 500) for _ in range(60)]
        with pytest.raises(TimedOut, match=r"^flush took longer than 70 ms; .* records have found no room"):
            producer.flush(70)
        with pytest.raises(TimedOut, match=r"^close took longer than 0 ms"):
            producer.close(timeout_ms=0)


def test_what_was_closed_is_not_kept() -> None:
    with connected() as (cluster, client):
        fill(cluster.logs["t"][0], 100)
        closed: list[weakref.ref[Any]] = []
        for _ in range(3):
            with client.consumer("t") as consumer, client.producer() as producer:
                next(consumer)
                producer.send("t", b"x").result(5)
            closed += [weakref.ref(consumer), weakref.ref(producer)]
            del consumer, producer
        gc.collect()
        assert [kept() for kept in closed] == [None] * 6


def test_time_limits_of_several_producers_do_not_add_up() -> None:
    cluster = FakeCluster()
    cluster.create("t")
    cluster.silent = {1, 2, 3}
    client = Client(cluster.bootstrap, transport=cluster)
    futures = [client.producer(close_timeout_ms=300).send("t", b"x") for _ in range(5)]
    began = time.monotonic()
    with pytest.raises(TimedOut, match="close took longer than 300 ms"):
        client.close()
    assert time.monotonic() - began < 1.2
    assert all(future.done() for future in futures)


def test_iteration_reads_everything_and_knows_its_place() -> None:
    with connected(2) as (_cluster, client):
        client.producer().send_many("t", [b"%d" % n for n in range(400)], keys=[b"%d" % n for n in range(400)])
        with client.consumer("t") as consumer:
            seen: dict[int, list[int]] = {0: [], 1: []}
            for record in islice(consumer, 123):
                seen[record.partition].append(record.offset)
            for partition in (0, 1):
                assert consumer.position("t", partition) == len(seen[partition])
            for record in islice(consumer, 277):
                seen[record.partition].append(record.offset)
            assert all(offsets == list(range(len(offsets))) for offsets in seen.values())
            assert consumer.batch(max_wait_ms=5) == []
            assert {lag.records for lag in consumer.lag().values()} == {0}


def test_seek_and_pause_reach_what_iteration_has_read_ahead() -> None:
    with connected() as (_cluster, client):
        client.producer().send_many("t", [b"%d" % n for n in range(100)])
        consumer = client.consumer("t")
        assert [record.offset for record in islice(consumer, 3)] == [0, 1, 2]
        consumer.seek("t", 0, 50)
        assert next(consumer).offset == 50
        consumer.pause("t", 0)
        assert consumer.batch(max_wait_ms=5) == []
        consumer.resume("t", 0)
        assert next(consumer).offset == 51
        consumer.seek_to_time(0)
        assert next(consumer).offset == 0
        assert consumer.positions() == {("t", 0): 1}
        assert consumer.assignment == [("t", 0)]


@pytest.mark.parametrize("pauses", [False, True])
def test_a_pause_hides_no_loss(pauses: bool) -> None:
    with connected() as (cluster, client):
        log = cluster.logs["t"][0]
        fill(log, 30)
        consumer = client.consumer("t")
        assert [record.offset for record in islice(consumer, 25)] == list(range(25))

        def lose() -> None:
            lose_tail(cluster, log, 20)
            fill(log, 20)

        client._thread.call(lose)
        if pauses:
            consumer.pause("t", 0)
            consumer.resume("t", 0)
        with pytest.raises(LogTruncated, match="from 20 up to"):
            list(islice(consumer, 10))


def test_closed_means_closed() -> None:
    with connected() as (_cluster, client):
        producer, consumer = client.producer(), client.consumer("t")
        future = producer.send("t", b"x")
    assert future.result(0).offset == 0
    for use in (
        lambda: producer.send("t", b"x"),
        lambda: producer.send("t", b"again"),
        lambda: producer.send_many("t", [b"x"]),
        lambda: next(consumer),
        client.list_topics,
        client.producer,
    ):
        with pytest.raises(ClientClosed):
            use()
    producer.close()
    consumer.close()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "minilog_client"]


def test_every_record_that_meets_the_end_of_the_client_is_settled() -> None:
    for _ in range(20):
        with connected() as (_cluster, client):
            producer = client.producer()
            futures: list[Future[Receipt]] = []
            threads = [threading.Thread(target=send_to_the_end, args=(producer, futures)) for _ in range(3)]
            for thread in threads:
                thread.start()
            while not futures:
                time.sleep(0.0001)
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive(), "it waits for a loop that runs no more"
        for future in futures:
            error = future.exception(5)
            assert error is None or isinstance(error, ClientClosed)


def send_to_the_end(producer: SyncProducer, futures: list[Future[Receipt]]) -> None:
    with suppress(ClientClosed):
        while True:
            futures.append(producer.send("t", b"x"))
            producer.statistics()


def test_close_wakes_a_reader() -> None:
    with connected() as (cluster, client):
        consumer = client.consumer("t")
        outcome: list[BaseException] = []

        def wait() -> None:
            try:
                next(consumer)
            except ClientClosed as error:
                outcome.append(error)

        reader = threading.Thread(target=wait)
        reader.start()
        deadline = time.monotonic() + 5
        while not cluster.count("fetch") and time.monotonic() < deadline:
            time.sleep(0.001)
        client.close()
        reader.join(5)
        assert len(outcome) == 1


def test_a_client_that_cannot_be_made_leaves_no_thread() -> None:
    with pytest.raises(InvalidRequest):
        Client("http://a:8082", request_timeout=5)  # type: ignore[call-arg]
    assert not [thread for thread in threading.enumerate() if thread.name == "minilog_client"]
