"""What is forgotten without closing it is given back: consumers, members, clients. A ResourceWarning
says what it was and where it was made."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from minilog_client import AsyncClient, Client, GroupConsumer, Record
from tests.unit.client.blocking.test_groups import until
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

KINDS: list[dict[str, Any]] = [{}, {"group": "g"}]
FORGETS = pytest.mark.filterwarnings("ignore:.*was not closed:ResourceWarning")


@contextmanager
def told() -> Iterator[list[str]]:
    """What is warned of meanwhile, and when the garbage was collected then."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
        gc.collect()
    said.extend(str(warning.message) for warning in caught if warning.category is ResourceWarning)


def names(said: list[str]) -> list[str]:
    """Of what, once it is seen that each names a line of this file."""
    assert all(re.search(r" was not closed; .* It was made at .*test_forgotten\.py:\d+$", line) for line in said), said
    return sorted(line.partition(" was not")[0] for line in said)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("options", KINDS)
def test_a_consumer_that_is_forgotten_is_named_and_given_back(options: dict[str, Any]) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 20)
        coordinator = FakeCoordinator(cluster)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            consumer: Any = client.consumer("t", **options)
            assert [(await anext(consumer)).offset for _ in range(6)] == list(range(6))
            name = repr(consumer)
            with told() as said:
                consumer = None
            assert names(said) == [name]
            await soon(lambda: coordinator.group("g").members == {} and not client._cluster._listeners)
            if options:
                assert coordinator.committed("g") == {0: 5}, "what is finished, and no more"

    run(main())


def test_a_member_whose_callbacks_refer_to_it_is_forgotten_too() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 20)
        coordinator = FakeCoordinator(cluster)

        async def use(client: AsyncClient) -> None:
            def assigned(keys: list[tuple[str, int]]) -> None:
                consumer.seek(*keys[0], 10)

            consumer: GroupConsumer = client.consumer("t", group="g", on_assigned=assigned)
            assert (await consumer.batch())[0].offset == 10

        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            with told() as said:
                await use(client)
            assert names(said) == ["GroupConsumer(t, group=g)"]
            await soon(lambda: coordinator.group("g").members == {})

    run(main())


def test_a_client_that_is_forgotten_sends_what_it_has_and_closes() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 20)
        coordinator = FakeCoordinator(cluster)

        async def use() -> None:
            client = AsyncClient(cluster.bootstrap, transport=cluster)
            await client.consumer("t", group="g").batch()
            client.producer(linger_ms=60_000).send_nowait("t", b"last")

        with told() as said:
            await use()
        assert names(said) == [f"AsyncClient({', '.join(cluster.bootstrap)})", "GroupConsumer(t, group=g)"]
        await soon(lambda: cluster.closed)
        assert coordinator.group("g").members == {}
        assert cluster.logs["t"][0].values()[-1] == b"last"

    run(main())


def test_a_synchronous_client_that_is_forgotten_does_so_too() -> None:
    cluster = FakeCluster()
    fill(cluster.create("t")[0], 20)
    coordinator = FakeCoordinator(cluster, interval_ms=10)
    before = threading.active_count()

    def use() -> None:
        client = Client(cluster.bootstrap, transport=cluster)
        client.consumer("t", group="g").batch()
        client.producer(linger_ms=60_000).send("t", b"last")

    with told() as said:
        use()
        until(lambda: gc.collect() >= 0 and cluster.closed)  # what is sent is held on its way to the loop's thread
    assert names(said) == [f"Client({', '.join(cluster.bootstrap)})", "GroupConsumer(t, group=g)"]
    until(lambda: cluster.closed)
    until(lambda: threading.active_count() == before)
    assert coordinator.group("g").members == {}
    assert cluster.logs["t"][0].values()[-1] == b"last"


def test_what_is_closed_or_was_never_used_is_not_named() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 20)
        FakeCoordinator(cluster)
        AsyncClient("http://127.0.0.1:9")
        client = AsyncClient(cluster.bootstrap, transport=cluster)
        for options in KINDS:
            client.consumer("t", **options)
            async with client.consumer("t", **options) as consumer:
                await consumer.batch()
        await client.close()

    with told() as said:
        run(main())
    assert not said


# --- many of them ----------------------------------------------------------------------------------


@asynccontextmanager
async def served(cluster: FakeCluster) -> AsyncIterator[tuple[str, web.Server]]:
    """The cluster over HTTP, so that clients have connections."""

    async def answer(request: web.BaseRequest) -> web.Response:
        headers = {key.title(): value for key, value in request.headers.items()}
        target = str(request.rel_url)
        got = await cluster.request(
            request.method, cluster.urls[1] + target, headers, await request.read(), timeout_ms=1000
        )
        return web.Response(status=got.status, body=got.body, headers={"Content-Type": got.headers["content-type"]})

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster.urls[1], kept = f"http://127.0.0.1:{runner.addresses[0][1]}", cluster.urls[1]
    assert kept
    try:
        yield cluster.urls[1], server
    finally:
        await runner.cleanup()


def held() -> dict[str, int]:
    descriptors = "/proc/self/fd"
    return {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir(descriptors)) if os.path.isdir(descriptors) else 0,
        "tasks": len(asyncio.all_tasks()),
    }


async def soak(cluster: FakeCluster, times: int, use: Callable[[], Any], is_idle: Callable[[], bool]) -> None:
    """Make, use and forget so many ``times``. The first tenth pays for what is kept for good."""
    made: list[weakref.ref[Any]] = []

    async def left() -> tuple[int, dict[str, int]]:
        await soon(lambda: gc.collect() >= 0 and is_idle() and not any(ref() for ref in made))
        cluster.requests.clear()
        cluster.messages.clear()
        gc.collect()
        return len(gc.get_objects()), held()

    made.extend([await use() for _ in range(times // 10)])
    objects, before = await left()
    made.extend([await use() for _ in range(times - times // 10)])
    more_objects, _ = await left()
    await soon(lambda: all(now <= before[name] for name, now in held().items()))
    assert more_objects - objects < 3 * times, "of each no more is kept than the reference that this test has"


@FORGETS
@pytest.mark.parametrize("options", KINDS)
def test_many_consumers_leave_nothing_behind(options: dict[str, Any]) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 10)
        coordinator = FakeCoordinator(cluster, interval_ms=1)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            make: Any = client.consumer
            numbers = count()

            async def use() -> weakref.ref[Any]:
                consumer = make("t", **({"group": f"g{next(numbers)}"} if options else {}))
                assert isinstance(await anext(consumer), Record)
                return weakref.ref(consumer)

            def is_idle() -> bool:
                members = [group.members for group in list(coordinator.groups.values())]
                if any(members) or client._cluster._listeners:
                    return False
                coordinator.groups.clear()
                return True

            await soak(cluster, 60 if options else 1000, use, is_idle)

    run(main())


@FORGETS
def test_two_hundred_clients_leave_nothing_behind() -> None:
    async def main() -> None:
        cluster = FakeCluster(1)
        fill(cluster.create("t")[0], 10)
        written = cluster.create("u")[0].batches
        async with served(cluster) as (url, server):

            async def use() -> weakref.ref[Any]:
                client = AsyncClient(url)
                await client.producer().send("u", b"x")
                assert await client.consumer("t").batch()
                return weakref.ref(client)

            def is_idle() -> bool:
                written.clear()
                return not server.connections and len(asyncio.all_tasks()) == 1

            await soak(cluster, 200, use, is_idle)

    asyncio.run(main())
