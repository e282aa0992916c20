"""What the application forgets without closing it is given back.

python -m tests.unit.client.blocking.test_forgotten 1000
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from itertools import islice

import pytest

from minilog_client import Client
from tests.unit.client.blocking.test_client import connected as plain
from tests.unit.client.blocking.test_groups import connected, until
from tests.unit.client.consumer.consumer_bench import fill


def first_offset(client: Client) -> int:
    for record in client.consumer("t", group="g", on_revoked=lambda _: None):
        return record.offset
    return -1


def test_a_member_that_is_forgotten_commits_what_is_finished_and_leaves() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 20)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=60_000)
        assert [record.offset for record in islice(consumer, 6)] == list(range(6))
        with pytest.warns(ResourceWarning, match=r"GroupConsumer\(t, group=g\) was not closed"):
            consumer = None  # type: ignore[assignment]
        until(lambda: coordinator.group("g").members == {})
        assert coordinator.committed("g") == {0: 5}
        with pytest.warns(ResourceWarning):
            assert first_offset(client) == 5
        with client.consumer("t", group="g") as consumer:
            assert len(consumer.batch()) == 15, "record 5 was not finished"


def soak(count: int) -> dict[str, int]:
    """Make, use and forget ``count`` consumers. Returns what of them is left."""
    with plain() as (cluster, client):
        fill(cluster.logs["t"][0], 10)
        made: list[weakref.ref[object]] = []
        before = _held()
        for _ in range(count):
            consumer = client.consumer("t")
            next(consumer)
            made.append(weakref.ref(consumer._consumer))
        del consumer
        gc.collect()
        until(lambda: not client._client._owned and not client._client._cluster._listeners)
        gc.collect()
        left = {name: held - before[name] for name, held in _held().items()}
        listeners = len(client._client._cluster._listeners)
        return {"consumers": sum(ref() is not None for ref in made), "listeners": listeners, **left}


def _held() -> dict[str, int]:
    descriptors = "/proc/self/fd"
    return {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir(descriptors)) if os.path.isdir(descriptors) else 0,
    }


def test_producers_that_were_closed_leave_nothing_for_the_end() -> None:
    with plain() as (_, client):
        thread = client._thread
        before = len(thread._before_end), len(thread._at_end)
        for _ in range(20):
            with client.producer() as producer:
                assert producer.send("t", b"x").result(5).topic == "t"
        del producer
        gc.collect()
        assert (len(thread._before_end), len(thread._at_end)) == before


@pytest.mark.filterwarnings("ignore:.*was not closed:ResourceWarning")
def test_consumers_that_were_made_used_and_forgotten_leave_nothing_behind() -> None:
    assert soak(100) == {"consumers": 0, "listeners": 0, "threads": 0, "descriptors": 0}


if __name__ == "__main__":
    print(soak(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
