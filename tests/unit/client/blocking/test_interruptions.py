"""A thread that is interrupted while it waits (a time limit by SIGALRM, Ctrl-C in a notebook) loses
nothing: real threads, so milliseconds."""

from __future__ import annotations

import signal
from itertools import islice
from queue import SimpleQueue
from typing import Any

import pytest

from minilog_client import Client, ClientClosed, InvalidRequest
from minilog_client.connection import work as module
from tests.unit.client.blocking import interrupts
from tests.unit.client.blocking.test_client import connected as plain
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator

Keys = list[tuple[str, int]]


class Interrupted(BaseException):
    pass


class Interrupting(SimpleQueue[Any]):
    """Raises once when the work has ended in the loop's thread, and the waiting thread does not
    know it yet."""

    armed = False

    def get(self, *arguments: Any, **named: Any) -> Any:
        got = super().get(*arguments, **named)
        if got is module._END and Interrupting.armed:
            Interrupting.armed = False
            raise Interrupted
        return got


@pytest.mark.parametrize("iterates", [True, False])
@pytest.mark.parametrize("group", [None, "g"])
def test_an_interrupted_read_loses_nothing(group: str | None, iterates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SimpleQueue", Interrupting)
    options: dict[str, Any] = {} if group is None else {"group": group}
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 30, each=10)
        with client.consumer("t", **options) as consumer:
            seen = [record.offset for record in consumer.batch(10)]
            Interrupting.armed = True
            with pytest.raises(Interrupted):
                next(consumer) if iterates else consumer.batch(10)
            if group is not None:
                consumer.commit()
                assert (coordinator.committed("g")[0] or 0) <= 10
            while len(seen) < 30 and (more := consumer.batch(10, max_wait_ms=300)):
                seen += [record.offset for record in more]
        assert seen == list(range(30))


@pytest.mark.parametrize("way", interrupts.WAYS)
@pytest.mark.parametrize("group", [True, False])
def test_a_thread_that_is_interrupted_at_any_line_skips_nothing(group: bool, way: str) -> None:
    result = interrupts.run(60, group=group, way=way)
    assert (result.skipped, result.repeated, result.committed_unseen) == (0, 0, 0)
    assert result.received > 0


def test_a_callback_that_was_interrupted_is_called_again() -> None:
    with connected(1) as (cluster, _, client):
        fill(cluster.logs["t"][0], 20)
        calls: list[Keys] = []

        def assigned(keys: Keys) -> None:
            calls.append(keys)
            if len(calls) == 1:
                raise Interrupted
            consumer.seek(*keys[0], 15)

        consumer = client.consumer("t", group="g", on_assigned=assigned)
        with pytest.raises(Interrupted):
            consumer.batch()
        assert consumer.batch()[0].offset == 15
        assert calls == [[("t", 0)]] * 2


def test_a_callback_may_close_its_consumer_and_not_read_it() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 20)
        told: list[str] = []

        def assigned(_: Keys) -> None:
            with pytest.raises(InvalidRequest, match="not from a callback"):
                consumer.batch()
            told.append("assigned")
            consumer.close(timeout_ms=60_000)

        consumer = client.consumer("t", group="g", on_assigned=assigned, on_revoked=lambda keys: told.append("revoked"))
        with pytest.raises(ClientClosed):
            consumer.batch()
        assert told == ["assigned", "revoked"]
        assert coordinator.group("g").members == {}


def test_all_consumers_are_closed_whatever_a_callback_raises() -> None:
    cluster = FakeCluster()
    for topic in ("t", "u"):
        fill(cluster.create(topic, 1)[0], 20)
    coordinator = FakeCoordinator(cluster, interval_ms=10)

    def fails(_: object) -> None:
        raise RuntimeError("the application's own")

    client = Client(cluster.bootstrap, transport=cluster)
    first = client.consumer("t", group="g", on_revoked=fails)
    second = client.consumer("u", group="h", auto_commit_interval_ms=60_000)
    first.batch()
    assert len(second.batch()) == 20
    second.batch(max_wait_ms=10)
    with pytest.raises(RuntimeError, match="own"):
        client.close()
    assert coordinator.committed("h", "u") == {0: 20}
    assert coordinator.group("h").members == {}


def test_every_record_is_settled_when_closing_is_interrupted() -> None:
    cluster = FakeCluster()
    cluster.create("t", 1)
    client = Client(cluster.bootstrap, transport=cluster)
    producer = client.producer(buffer_bytes=3000, batch_bytes=1000)
    producer.send("t", b"1").result(5)
    cluster.silent = {1, 2, 3}
    futures = [producer.send("t", b"x" * 500) for _ in range(20)]  # in flight, in the buffer, and waiting for room

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            client.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    errors = [future.exception(1) for future in futures]
    assert {type(error) for error in errors} == {ClientClosed}
    assert {error.definite for error in errors if isinstance(error, ClientClosed)} == {True, False}


# --- a seek that is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("to_time", [True, False])
def test_a_refused_seek_loses_nothing(to_time: bool) -> None:
    with plain() as (cluster, client):
        fill(cluster.logs["t"][0], 100, each=100)
        with client.consumer("t") as consumer:
            seen = [record.offset for record in islice(consumer, 10)]
            with pytest.raises(InvalidRequest):
                consumer.seek_to_time(-5) if to_time else consumer.seek("t", 0, -1)
            with pytest.raises(InvalidRequest):
                consumer.seek("t", 7, 1)
            seen += [record.offset for record in islice(consumer, 10)]
        assert seen == list(range(20))


def test_a_group_commits_nothing_that_a_refused_seek_hides() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 100, each=100)
        with client.consumer("t", group="g", auto_commit_interval_ms=10) as consumer:
            seen = [record.offset for record in islice(consumer, 10)]
            with pytest.raises(InvalidRequest):
                consumer.seek("t", 0, -1)
            rest = consumer.batch(max_wait_ms=100)
            consumer.commit()
        assert [*seen, *(record.offset for record in rest)] == list(range(coordinator.committed("g")[0] or 0))
