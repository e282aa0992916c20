"""What was accepted is carried out, or it is said: at the end of the process, after a fork, and when
a thread is interrupted between two lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import Future, wait
from queue import SimpleQueue
from random import Random
from typing import Any

import pytest

from minilog_client import BufferFull, Client, ClientClosed, UnknownTopic
from minilog_client.producer import at_exit
from tests.unit.client.blocking.test_client import connected
from tests.unit.client.fake_cluster import FakeCluster

EXITS = """
import sys
from minilog_client import Client

def main():
    producer = Client(sys.argv[1]).producer(close_timeout_ms=300)
    for number in range(1000):
        producer.send("orders", b"x")

main()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_process_that_ends_says_what_it_could_not_send(host: str) -> None:
    """It has tried to the end, also where the name of the host was not looked up before: there are
    no threads for that any more."""
    script = [sys.executable, "-c", EXITS, f"http://{host}:9"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert "1000 of orders" in done.stderr
    assert f"no connection to http://{host}:9" in done.stderr


FORKS = """
import os, sys
from minilog_client import Client

producer = Client("http://127.0.0.1:9").producer()
producer.send("orders", b"x")
assert producer.statistics().buffered_bytes
if child := os.fork():
    os.waitpid(child, 0)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_was_forked_off_says_nothing_of_its_parents_records() -> None:
    script = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_ends_sends_what_was_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with connected() as (cluster, client):
        producer = client.producer(linger_ms=60_000, batch_bytes=1000, buffer_bytes=2000)
        futures = [producer.send("t", b"x" * 100) for _ in range(50)]
        at_exit._at_exit()
        assert [future.done() for future in futures] == [True] * 50
        assert sum(log.end_offset for log in cluster.logs["t"]) == 50
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_process_that_was_forked_off_every_call_says_so() -> None:
    with connected() as (cluster, client):
        producer = client.producer(try_timeout_ms=200)
        producer.send("t", b"x").result(5)
        cluster.silent = {1, 2, 3}
        pending = producer.send("t", b"y")
        consumer = client.consumer("t")
        calls: list[Any] = [
            lambda: producer.send("t", b"z"), pending.result, pending.exception, producer.flush, consumer.batch,
            lambda: next(consumer), client.list_topics, client.producer, lambda: producer.send_many("t", [b"x"]),
        ]  # fmt: skip
        child = os.fork()
        if child == 0:
            os._exit(_refused(calls, client))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(calls)
        cluster.silent = set()
        pending.result(10)


def _refused(calls: list[Any], client: Client) -> int:
    signal.alarm(10)  # a call that waits for ever fails the test
    refused = 0
    for call in calls:
        try:
            call()
        except ClientClosed as error:
            refused += "fork" in error.detail
    client.close()
    return refused


def test_a_thread_that_dies_leaves_no_future_open() -> None:
    cluster = FakeCluster()
    cluster.create("t", 1)
    client = Client(cluster.bootstrap, transport=cluster)
    producer = client.producer()
    cluster.silent = {1, 2, 3}
    futures = [producer.send("t", b"x") for _ in range(10)]
    client._thread.post(client._thread.loop.stop)
    errors = [future.exception(5) for future in futures]
    assert {type(error) for error in errors} == {ClientClosed}
    with pytest.raises(ClientClosed):
        producer.send("t", b"y")
    with pytest.raises(ClientClosed):
        client.list_topics()
    client.close()


class Interrupted(Exception):
    pass


def test_a_thread_that_is_interrupted_while_it_sends_leaves_no_future_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # it struck in a destructor
    random, futures, is_armed = Random(1), list[Future[Any]](), False

    def strike(*_: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False
            raise Interrupted

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with connected() as (_, client):
            producer = client.producer(linger_ms=1)
            for _ in range(200):
                try:
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.001))
                    while is_armed:
                        future = producer.send("t", b"x")
                        futures.append(future)
                        if random.random() < 0.2:
                            future.result(5)
                except Interrupted:
                    pass
                finally:
                    is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert producer.send("t", b"last").result(5).topic == "t", "without a flush"
            assert [future.exception(5) for future in futures] == [None] * len(futures)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_flush_and_close_count_what_failed_unseen(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    with Client(cluster.bootstrap, transport=cluster, topic_wait_ms=50) as client:
        producer = client.producer(delivery_timeout_ms=300)
        for _ in range(5):
            producer.send("missing", b"x")
        assert producer.flush() == 5
        assert producer.flush() == 0
        producer.send("missing", b"x")
        assert producer.close() == 1
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("6 records of topic missing were not acknowledged, the first because" in line for line in told)


def test_what_was_never_taken_counts_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """Too large, for no partition, no topic, and without room for too long."""
    with connected() as (cluster, client):
        producer = client.producer(batch_bytes=50_000, buffer_bytes=100_000, block_timeout_ms=100, try_timeout_ms=200)
        producer.send("t", b"x").result(5)
        refused = [
            producer.send("t", b"x" * 2**21),
            producer.send("t", b"x", partition=-1),
            producer.send(7, b"x"),  # type: ignore[arg-type]
        ]
        assert producer.flush() == 3
        cluster.silent = {1, 2, 3}
        producer.send("t", b"x" * 60_000)
        with pytest.raises(BufferFull):
            producer.send("t", b"x" * 60_000).result(5)
        cluster.silent = set()
        assert producer.close() == 1
        assert producer.statistics().records_failed == 4
        assert [future.done() for future in refused] == [True] * 3
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "2 records of topic t were not acknowledged, the first because: a record of" in told[0]
    assert "1 record of topic 7 was not acknowledged, the first because: topic must be a string, got int" in told[1]


def test_a_failure_that_somebody_looks_at_is_not_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    with Client(cluster.bootstrap, transport=cluster, topic_wait_ms=50) as client:
        producer = client.producer(delivery_timeout_ms=300)
        for _ in range(2):
            with pytest.raises(UnknownTopic):
                producer.send("missing", b"x").result(5)
        assert isinstance(producer.send("missing", b"x").exception(5), UnknownTopic)
        told: SimpleQueue[Future[Any]] = SimpleQueue()
        producer.send("missing", b"x").add_done_callback(told.put)
        told.get(timeout=5)
        (done, _) = wait([producer.send("missing", b"x")], 5)
        assert [type(future.exception()) for future in done] == [UnknownTopic]
        assert producer.close() == 5
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
