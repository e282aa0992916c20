"""A record is finished when the next one is asked for, and by nothing else. One table of all public
methods for both faces: while the application is busy with record n, at most n is committed, whatever
it calls."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest

from minilog_client import AsyncClient, GroupConsumer, InvalidRequest, MinilogError, SyncGroupConsumer
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

N: Final = 5
"""The record the application is busy with."""
Call = Callable[[Any], Any]

CALLS: Final[dict[str, list[Call]]] = {
    "assignment": [lambda c: c.assignment],
    "batch": [lambda c: c.batch(0), lambda c: c.batch(max_records=True), lambda c: c.batch("1")],
    "batch_columns": [lambda c: c.batch_columns(0), lambda c: c.batch_columns("1")],
    "close": [lambda c: c.close(), lambda c: c.close(timeout_ms=500)],
    "commit": [lambda c: c.commit({("t", 1): 0}), lambda c: c.commit(["no record"]), lambda c: c.commit(metadata="x" * 9999)],
    "committed": [lambda c: c.committed(), lambda c: c.committed([("t", 0)])],
    "is_closed": [lambda c: c.is_closed],
    "lag": [lambda c: c.lag()],
    "member_epoch": [lambda c: c.member_epoch],
    "member_id": [lambda c: c.member_id],
    "pause": [lambda c: c.pause("t", 0), lambda c: c.pause("t", 7)],
    "position": [lambda c: c.position("t", 0), lambda c: c.position("t", 7)],
    "positions": [lambda c: c.positions()],
    "resume": [lambda c: c.resume("t", 0)],
    "seek": [
        lambda c: c.seek("t", 0, N), lambda c: c.seek("t", 0, 2), lambda c: c.seek("t", 0, 30), lambda c: c.seek("t", 0, N + 1),
        lambda c: c.seek("t", 0, "latest"), lambda c: c.seek("t", 0, -1), lambda c: c.seek("t", 7, 1),
    ],
    "seek_to_time": [lambda c: c.seek_to_time(0), lambda c: c.seek_to_time(2**62), lambda c: c.seek_to_time(-1)],
    "of_topic": [lambda c: c.of_topic("t")],
    "start": [lambda c: c.start()],
    "skipped": [lambda c: c.skipped],
    "stop": [lambda c: c.stop()],
}  # fmt: skip
NOT_CALLS: Final = {
    "group", "group_settings", "settings", "check_may_read", "check_not_inside", "pause_ahead", "read_ahead",
    "return_unread", "seek_ahead", "touch", "wants_attention",
}  # fmt: skip
"""Names, and what the synchronous face uses."""
ROWS: Final = [(name, index) for name, calls in CALLS.items() for index in range(len(calls))]
WAYS: Final = ["iteration", "batch", "batch_columns"]
MAY_BE_SAID: Final = (MinilogError, TypeError)


def test_every_public_method_has_its_row() -> None:
    public = {name for kind in (GroupConsumer, SyncGroupConsumer) for name in dir(kind) if not name.startswith("_")}
    assert public - NOT_CALLS == CALLS.keys()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_nothing_but_asking_finishes_a_record(name: str, index: int, way: str) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40, each=40)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=50)
        if way != "iteration":
            read = getattr(consumer, way)
            await read(N)
            await read(1)
        else:
            for _ in range(N + 1):
                await anext(consumer)
        with suppress(*MAY_BE_SAID):
            outcome = CALLS[name][index](consumer)
            if inspect.isawaitable(outcome):
                await outcome
        await asyncio.sleep(1)
        assert coordinator.committed("g")[0] == N, "what was finished before stays so, and no more is"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "index"), [row for row in ROWS if hasattr(SyncGroupConsumer, row[0])])
def test_nor_at_the_synchronous_face(name: str, index: int, way: str) -> None:
    with connected(2) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 40, each=40)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=5)
        if way != "iteration":
            getattr(consumer, way)(N)
            getattr(consumer, way)(1)
        else:
            for _ in range(N + 1):
                next(consumer)
        with suppress(*MAY_BE_SAID):
            CALLS[name][index](consumer)
        end_s = time.monotonic() + 2
        while coordinator.committed("g").get(0) != N and time.monotonic() < end_s:
            time.sleep(0.002)
        time.sleep(0.03)
        assert coordinator.committed("g")[0] == N


@pytest.mark.parametrize("how", ["raises", "closes", "reads"])
def test_no_callback_finishes_a_record(how: str) -> None:
    """The next one is asked for, and what that ends with is the callback's doing."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40, each=40)

        async def revoked(_: object) -> None:
            if how == "raises":
                raise ValueError("the application's own")
            if how == "reads":
                with pytest.raises((InvalidRequest, MinilogError)):
                    await consumer.batch()

        consumer = client.consumer("t", group="g", on_revoked=revoked)
        for _ in range(N + 1):
            await anext(consumer)
        try:
            await consumer.close()
        except ValueError:
            assert how == "raises"
        assert coordinator.committed("g") == {0: N}


def test_what_was_finished_before_a_seek_back_stays_finished_until_something_there_is() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 40, each=40)
        consumer = client.consumer("t", group="g", auto_commit=False)
        for _ in range(N + 1):
            next(consumer)
        consumer.seek("t", 0, 2)
        consumer.commit()
        assert coordinator.committed("g") == {0: N}
        assert next(consumer).offset == 2
        assert next(consumer).offset == 3
        consumer.commit()
        assert coordinator.committed("g") == {0: 4}
