"""Misuse is an error of the tree, at once: another event loop, none at all, a call that would wait
for itself, options by other clients' names, partitions that were added a moment ago, python -O."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

import minilog_client
from minilog.errors import InvalidRequest, UnknownTopic
from minilog_client import AsyncClient
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.tasks import TaskScope
from minilog_client.connection.work import Work
from tests.unit.client.blocking.test_client import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.virtual_time import run

ELSEWHERE: dict[str, Callable[[AsyncClient, Any, Any], Awaitable[Any]]] = {
    "a call": lambda client, producer, consumer: client.list_topics(),
    "send": lambda client, producer, consumer: producer.send("t", b"x"),
    "send_many": lambda client, producer, consumer: producer.send_many("t", [b"x"]),
    "flush": lambda client, producer, consumer: producer.flush(),
    "batch": lambda client, producer, consumer: consumer.batch(),
    "next": lambda client, producer, consumer: anext(consumer),
}


@pytest.mark.parametrize("call", ELSEWHERE)
def test_a_second_event_loop_is_told_so_at_once(call: str) -> None:
    cluster = FakeCluster()
    fill(cluster.create("t")[0], 10)
    used: list[Any] = []

    async def first() -> None:
        client = AsyncClient(cluster.bootstrap, transport=cluster)
        producer, consumer = client.producer(), client.consumer("t")
        await producer.send("t", b"x")
        await consumer.batch()
        used.extend([client, producer, consumer])

    async def second() -> None:
        with pytest.raises(InvalidRequest, match="another event loop"):
            await asyncio.wait_for(ELSEWHERE[call](*used), 5)

    async def end() -> None:
        await used[0].close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    run(second())
    loop.run_until_complete(end())
    loop.close()


def test_without_an_event_loop_it_says_which_client_to_use() -> None:
    client = AsyncClient("http://127.0.0.1:9")
    for call in (client.producer, lambda: client.consumer("t")):
        with pytest.raises(InvalidRequest, match=r"no event loop of asyncio.*trio.*Client"):
            call()
    waits = client.list_topics()
    with pytest.raises(InvalidRequest, match="no event loop"):
        waits.send(None)


@pytest.mark.parametrize("how", ["flush", "close", "send_many", "list_topics"])
def test_a_call_that_would_wait_for_itself_is_refused(how: str) -> None:
    with connected() as (_, client):
        producer = client.producer()
        told: SimpleQueue[BaseException | None] = SimpleQueue()
        calls: dict[str, Callable[[], object]] = {
            "flush": producer.flush,
            "close": producer.close,
            "send_many": lambda: producer.send_many("t", [b"x"]),
            "list_topics": client.list_topics,
        }

        def callback(_: Future[Any]) -> None:
            try:
                calls[how]()
            except BaseException as error:
                told.put(error)
            else:
                told.put(None)

        producer.send("t", b"x").add_done_callback(callback)
        error = told.get(timeout=5)
        assert isinstance(error, InvalidRequest)
        assert "callback" in error.detail
        producer.send("t", b"y").result(5)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("group_id", "group"), ("auto_offset_reset", "start"), ("auto.offset.reset", "start"), ("autocommit", "auto_commit"),
        ("enable_auto_commit", "auto_commit"), ("session_timeout", "session_timeout_ms"), ("max_poll_records", "max_records"),
    ],
)  # fmt: skip
def test_an_unknown_option_names_the_one_that_was_meant(option: str, meant: str) -> None:
    with connected() as (_, client), pytest.raises(InvalidRequest, match=rf"did you mean {meant}\b"):
        client.consumer("t", group="g", **{option: "x"})  # type: ignore[call-overload]


def test_so_does_one_of_a_producer() -> None:
    with connected() as (_, client):
        for option, meant in (
            ("compression_type", "compression"),
            ("linger", "linger_ms"),
            ("batch.size", "batch_bytes"),
        ):
            with pytest.raises(InvalidRequest, match=f"did you mean {meant}"):
                client.producer(**{option: 1})  # type: ignore[call-overload]


@pytest.mark.parametrize("many", [True, False])
def test_a_partition_that_was_added_is_asked_for(many: bool) -> None:
    with connected() as (cluster, client):
        producer = client.producer()
        producer.send("t", b"x", partition=0).result(5)
        count = len(cluster.logs["t"])
        client._thread.call(lambda: cluster.grow("t", count + 2))
        if many:
            assert producer.send_many("t", [b"y"], partition=count)[0].partition == count
        else:
            assert producer.send("t", b"y", partition=count).result(5).partition == count
        assert producer.send("t", b"y", partition=count + 1).result(5).offset == 0
        with pytest.raises(UnknownTopic, match=f"partition is {count + 5}"):
            producer.send("t", b"z", partition=count + 5).result(5)


def _public_code() -> list[Any]:
    kinds = [kind for name in minilog_client.__all__ if inspect.isclass(kind := getattr(minilog_client, name))]
    classes = {base for kind in [*kinds, LoopThread, TaskScope, Work] for base in kind.__mro__}
    return [
        function
        for kind in classes
        if kind.__module__.startswith("minilog_client")
        for name, function in vars(kind).items()
        if inspect.isfunction(function) and (not name.startswith("_") or name.startswith("__"))
        and "minilog_client" in function.__code__.co_filename
    ]  # fmt: skip


def test_no_public_call_relies_on_an_assert() -> None:
    """``python -O`` takes them away."""
    asserting = [
        function.__qualname__
        for function in _public_code()
        if any(
            isinstance(node, ast.Assert) for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        )
    ]
    assert asserting == ["Work.wait"], "which is called by nobody but its own thread"


def test_misuse_is_refused_without_asserts_too() -> None:
    script = """
from minilog_client import AsyncClient, Client, InvalidRequest
for call in (lambda: AsyncClient("http://127.0.0.1:9").producer(), lambda: Client("http://127.0.0.1:9", group_id="x")):
    try:
        call()
    except InvalidRequest as error:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["refused"] * 2, done.stderr
