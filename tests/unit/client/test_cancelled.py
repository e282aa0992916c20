"""Every public coroutine is cancelled at each of its awaits in turn, as a time limit does it: before
what it waits for has come, and in the moment in which that has come. Whatever the place, nothing is
skipped, nothing is committed that the application has not got, every record has an end and is written
once, and the object is usable at once. Time is virtual."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Literal, NamedTuple

import pytest

from minilog_client import AsyncClient, ClientClosed, Consumer, GroupConsumer, MinilogError, Producer, Record
from minilog_client.consumer.read_ahead import ReadAhead
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

_PLACES_MAX: Final = 200
_RECORDS: Final = 30


How = Literal["early", "late", "twice"]
HOWS: Final[tuple[How, ...]] = ("early", "late", "twice")


class CancelledAt:
    """``coroutine``, whose task is cancelled at its await number ``place``. ``late``: what is awaited
    there has come already when that happens. ``twice``: and at the one after that."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], place: int, how: How) -> None:
        self._coroutine = coroutine
        self._place = place
        self._how = how
        self.is_cut = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        place = 0
        while True:
            try:
                awaited = step()
            except StopIteration as stop:
                return stop.value
            place += 1
            if place == self._place or (self._how == "twice" and place == self._place + 1):
                self._cut(awaited)
            try:
                got = yield awaited
                step = lambda got=got: self._coroutine.send(got)  # type: ignore[misc]  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self._coroutine.throw(error)  # type: ignore[misc]  # noqa: E731

    def _cut(self, awaited: Any) -> None:
        self.is_cut = True
        task = asyncio.current_task()
        assert task is not None
        if self._how == "late" and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


async def cut(coroutine: Coroutine[Any, Any, Any], place: int, how: How) -> tuple[Any, bool]:
    """What it returned (None if it was cancelled), and whether it has so many awaits."""

    async def carried_out() -> Any:
        return await cutting

    cutting = CancelledAt(coroutine, place, how)
    try:
        return await asyncio.get_running_loop().create_task(carried_out()), cutting.is_cut
    except (asyncio.CancelledError, MinilogError):
        return None, cutting.is_cut


class Reader(NamedTuple):
    """How an application is called that reads, and what it has got. Each is one partition."""

    consumer: Any
    seen: list[int]
    ahead: ReadAhead

    def take(self, records: Any) -> None:
        got = [records] if isinstance(records, Record) else records or []
        self.seen.extend(record.offset for record in got)


async def read_ahead(reader: Reader) -> list[Record]:
    await reader.consumer.read_ahead(reader.ahead, 4, 1000)
    return reader.ahead.take(4, list)


READS: Final[dict[str, Callable[[Reader], Coroutine[Any, Any, Any]]]] = {
    "start": lambda reader: reader.consumer.start(),
    "batch": lambda reader: reader.consumer.batch(4, 1000),
    "batch_columns": lambda reader: reader.consumer.batch_columns(4, 1000),
    "batch of nothing": lambda reader: reader.consumer.batch(4, 0),
    "__anext__": lambda reader: reader.consumer.__anext__(),
    "read_ahead": read_ahead,
}
COMMITS: Final[dict[str, Callable[[Reader], Coroutine[Any, Any, Any]]]] = {
    "commit": lambda reader: reader.consumer.commit(),
    "commit of an offset": lambda reader: reader.consumer.commit({("t", 0): len(reader.seen)}),
    "committed": lambda reader: reader.consumer.committed(),
}
BEFORE: Final[dict[str, Callable[[Reader], Coroutine[Any, Any, Any] | None]]] = {
    "nothing": lambda reader: None,
    "a batch": lambda reader: reader.consumer.batch(4, 5000),
    "iteration": lambda reader: reader.consumer.__anext__(),
}
"""What the application did just before."""


def places(check: Callable[[int, How], bool]) -> int:
    """``check`` each place, until there is none any more. Returns how many there are."""
    for how in HOWS:
        for place in range(1, _PLACES_MAX):
            if not check(place, how):
                break
        else:
            raise AssertionError("it never ends")
    return place - 1


def read_cut(options: dict[str, Any], before: str, call: Any, place: int, how: How) -> bool:
    was_cut: list[bool] = []

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], _RECORDS, each=7)
        reader = Reader(client.consumer("t", **options), [], ReadAhead())

        def check_commits() -> None:
            assert (coordinator.committed("g").get(0) or 0) <= len(reader.seen), "committed unseen"

        if (reading := BEFORE[before](reader)) is not None:
            reader.take(await reading)
        got, is_cut = await cut(call(reader), place, how)
        was_cut.append(is_cut)
        if not isinstance(got, dict):
            reader.take(got)
        check_commits()
        if place % 2:
            await asyncio.sleep(3)  # what goes on in the background has its time
            check_commits()
        if call is not read_ahead or not is_cut:
            reader.consumer.return_unread(reader.ahead.unread)
        while len(reader.seen) < _RECORDS:
            if call is read_ahead:
                reader.take(await read_ahead(reader))
            else:
                reader.take(await asyncio.wait_for(reader.consumer.batch(5, 5000), 20))
            check_commits()
        assert reader.seen == list(range(_RECORDS)), "in order, each once"
        await reader.consumer.close()
        check_commits()

    return was_cut[0]


# A consumer is read ahead, or in another way, and not in both.
@pytest.mark.parametrize(
    ("before", "name"),
    [(before, name) for before in BEFORE for name in READS if name != "read_ahead" or before == "nothing"],
)
@pytest.mark.parametrize("group", [None, "g"])
def test_a_cancelled_read_skips_nothing_and_the_next_one_goes_on(group: str | None, name: str, before: str) -> None:
    options: dict[str, Any] = {} if group is None else {"group": group, "auto_commit_interval_ms": 20}
    assert places(lambda place, how: read_cut(options, before, READS[name], place, how)) >= (before == "nothing")


@pytest.mark.parametrize("before", ["a batch", "iteration"])
@pytest.mark.parametrize("name", COMMITS)
@pytest.mark.parametrize("auto_commit", [True, False])
def test_a_cancelled_commit_commits_nothing_unseen(auto_commit: bool, name: str, before: str) -> None:
    options: dict[str, Any] = {"group": "g", "auto_commit": auto_commit, "auto_commit_interval_ms": 20}
    assert places(lambda place, how: read_cut(options, before, COMMITS[name], place, how)) >= 1


def close_cut(options: dict[str, Any], closes_client: bool, place: int, how: How) -> bool:
    was_cut: list[bool] = []

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], _RECORDS, each=7)
        made = AsyncClient(cluster.bootstrap, transport=cluster)
        reader = Reader(made.consumer("t", **options), [], ReadAhead())
        for _ in range(10):
            reader.take(await reader.consumer.batch(1))
        _, is_cut = await cut(made.close() if closes_client else reader.consumer.close(), place, how)
        was_cut.append(is_cut)
        with pytest.raises(ClientClosed):
            await reader.consumer.batch()
        await asyncio.sleep(2)
        assert not made._owned
        if options:
            assert coordinator.group("g").members == {}, "it has left"
            assert coordinator.committed("g") == {0: 9}, "what is finished, and no more"
        await made.close()
        cluster.closed = False

    return was_cut[0]


@pytest.mark.parametrize("closes_client", [False, True])
@pytest.mark.parametrize("group", [None, "g"])
def test_a_cancelled_close_is_carried_out(group: str | None, closes_client: bool) -> None:
    options = {} if group is None else {"group": group, "auto_commit_interval_ms": 10**6}
    assert places(lambda place, how: close_cut(options, closes_client, place, how)) >= 1


SENDS: Final[dict[str, Callable[[Producer], Coroutine[Any, Any, Any]]]] = {
    "send": lambda producer: producer.send("t", b"cut"),
    "send with a key": lambda producer: producer.send("t", b"cut", b"key"),
    "append": lambda producer: producer.append("t", [b"cut", b"cut-1"], partition=0, expected_offset=2),
    "send_many": lambda producer: producer.send_many("t", [b"cut-%d" % number for number in range(50)]),
    "send_many of pairs": lambda producer: producer.send_many(
        "t", [(b"k", b"cut-%d" % number) for number in range(50)]
    ),
    "flush": lambda producer: producer.flush(),
    "close": lambda producer: producer.close(),
}


def send_cut(
    call: Callable[[Producer], Coroutine[Any, Any, Any]], options: dict[str, Any], place: int, how: How
) -> bool:
    was_cut: list[bool] = []

    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        producer = client.producer(**options)
        before = [producer.send_nowait("t", b"before-%d" % number, partition=number % 2) for number in range(4)]
        _, is_cut = await cut(call(producer), place, how)
        was_cut.append(is_cut)
        if call is SENDS["close"]:
            await asyncio.sleep(0.1)
            assert all(future.done() for future in before), "each has an end"
            with pytest.raises(ClientClosed):
                producer.send_nowait("t", b"after")
        else:
            assert (await asyncio.wait_for(producer.send("t", b"after", partition=0), 5)).partition == 0
            await asyncio.wait_for(producer.flush(), 5)
            assert producer.statistics().buffered_bytes == 0
        written = [value for log in cluster.logs["t"] for value in log.values()]
        assert len(written) == len(set(written)), "each is written once"
        for future in before:
            error = future.exception()
            assert error is None or isinstance(error, ClientClosed)
            if error is None:
                assert cluster.logs["t"][future.result().partition].values()[future.result().offset or 0]
        await producer.close()
        assert not producer._accumulator.buffered_bytes

    return was_cut[0]


@pytest.mark.parametrize("buffer_bytes", [320, 64 * 1024 * 1024])
@pytest.mark.parametrize("name", SENDS)
def test_a_cancelled_send_leaves_no_record_without_an_end(name: str, buffer_bytes: int) -> None:
    options = {"buffer_bytes": buffer_bytes, "batch_bytes": min(buffer_bytes, 256 * 1024)}
    assert places(lambda place, how: send_cut(SENDS[name], options, place, how)) >= 1


def test_every_public_coroutine_is_cut() -> None:
    rows = {name.split()[0] for name in (*READS, *COMMITS, *SENDS, "close", "__aenter__", "__aexit__")}
    for kind in (Consumer, GroupConsumer, Producer):
        public = {
            name
            for name in dir(kind)
            if (not name.startswith("_") or name.startswith("__a")) and inspect.iscoroutinefunction(getattr(kind, name))
        }
        assert public <= rows, kind


def test_the_cut_is_made_where_it_says() -> None:
    """The test's own tool: each place once, and then no more."""

    async def main() -> None:
        done: list[int] = []

        async def work() -> None:
            for number in range(3):
                await asyncio.sleep(0.01 * (number % 2))
                done.append(number)

        for how in HOWS[:2]:
            for place in range(1, 4):
                done.clear()
                assert await cut(work(), place, how) == (None, True)
                assert done == list(range(place - 1))
            done.clear()
            assert await cut(work(), 4, how) == (None, False)
            assert done == [0, 1, 2]

    asyncio.run(main())
