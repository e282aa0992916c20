"""What is answered from the metadata has its share of each round of the loop (R45), and no more."""

from __future__ import annotations

import asyncio
import contextlib
import time

from minilog.broker.http.cluster.events import _behind
from minilog.broker.http.exchange import EVENT_STREAMS_MAX
from minilog.core.image import EVENTS_MAX, ClusterImage
from minilog.wire.http import EVENTS
from minilog.wire.journal.events import INFO, Event
from minilog.wire.journal.metadata_records import EventNoted
from tests.unit.broker.http.harness import Broker, Connection, orders, serving
from tests.unit.broker.http.test_connections import refused

CROWD = 60
PARTITIONS = 1000


class Rounds:
    """The longest time in which nobody else was served."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.perf_counter() - began_s)

    def end(self) -> float:
        self._ticking.cancel()
        return self.longest_s


async def ask_all(broker: Broker, path: str) -> tuple[float, float]:
    """(the longest round, the time it took in all) of a crowd that asks at once."""
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(broker.connect()) for _ in range(CROWD)]
        for one in crowd:
            assert (await one.request("GET", "/healthz")).status == 200
        began_s, rounds = time.perf_counter(), Rounds()
        for one in crowd:
            one.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answers = [await one.answer() for one in crowd]
        assert {answer.status for answer in answers} <= {200, 503}
        return rounds.end(), time.perf_counter() - began_s


def test_a_crowd_that_asks_for_all_topics_leaves_room_for_others() -> None:
    async def main() -> None:
        cluster = orders()
        cluster.create("many", PARTITIONS)
        async with serving(cluster) as broker:
            for path in ("/v1/topics", "/v1/metadata", "/v1/cluster/health"):
                longest_s, all_s = await ask_all(broker, path)
                assert longest_s < all_s / 4, f"{path}: {longest_s:.2f} of {all_s:.2f} s in one round"

    asyncio.run(main())


FOLLOW = f"GET /v1/cluster/events HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENTS}\r\n\r\n".encode()


def test_streams_of_events_are_as_many_as_a_broker_bears_and_a_client_leaves_some() -> None:
    async def follow(broker: Broker, stack: contextlib.AsyncExitStack) -> Connection:
        one = await stack.enter_async_context(broker.connect())
        one.send(FOLLOW)
        return one

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(serving(orders()))
            streams = [await follow(broker, stack) for _ in range(EVENT_STREAMS_MAX // 2)]
            for one in streams:
                assert (await one.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            refused(await (await follow(broker, stack)).answer(), 503, "OVERLOADED")
            streams[0].writer.close()
            head = b""
            async with asyncio.timeout(5):
                while not head.startswith(b"HTTP/1.1 200"):
                    head = await (await follow(broker, stack)).reader.readuntil(b"\r\n\r\n")

    asyncio.run(main())


def test_who_has_seen_all_but_the_last_event_costs_no_look_at_all_of_them() -> None:
    image = ClusterImage()
    for number in range(1, EVENTS_MAX + 1):
        image.events.append(EventNoted(number, Event(number, "kind", INFO, "it happened")))
    assert [noted.number for noted in _behind(image, EVENTS_MAX - 2, 0)] == [EVENTS_MAX - 1, EVENTS_MAX]
    assert [noted.number for noted in _behind(image, -1, EVENTS_MAX)] == [EVENTS_MAX]
    assert _behind(image, EVENTS_MAX, 0) == []
