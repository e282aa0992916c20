"""Group commit: one job in flight per log, everything asked for meanwhile in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from minilog.broker.flusher import Flusher
from minilog.errors import StorageFailed
from minilog.server.process import Failure
from minilog.wire.topic_partition import TopicPartition
from tests.unit.broker.fake_ports import FakeLog, FakeStore
from tests.unit.server.peer_server import until

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Fixture:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.failure = Failure()
        self.flushed: list[TopicPartition] = []
        self.flusher = Flusher(self.store, self.failure, self.flushed.append)
        self.store.logs[P0] = self.log = FakeLog(10)


def run(check: Callable[[Fixture], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            fixture = Fixture()
            await check(fixture)
            await fixture.flusher.drain()
            fixture.flusher.close()

    asyncio.run(main())


def test_requests_during_a_flush_share_the_next_one() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P0, 10)
        f.log.end_offset = 13
        for end_offset in (11, 13, 12):
            f.flusher.request(P0, end_offset)
        assert len(f.log.jobs) == 1
        f.log.jobs[0].gate.set()
        await until(lambda: len(f.log.jobs) == 2)
        assert f.log.durable_end == 10, "what was appended after the job was made is not its to report"
        f.log.jobs[1].gate.set()
        await until(lambda: f.flushed == [P0, P0])
        assert f.log.durable_end == 13
        assert len(f.log.jobs) == 2

    run(check)


def test_a_request_that_the_job_in_flight_covers_needs_no_other() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P0, 5)
        f.flusher.request(P0, 10)
        f.log.jobs[0].gate.set()
        await until(lambda: f.flushed == [P0])
        await f.flusher.drain()
        assert len(f.log.jobs) == 1

    run(check)


def test_logs_are_flushed_side_by_side() -> None:
    async def check(f: Fixture) -> None:
        f.store.logs[P1] = other = FakeLog(3)
        f.flusher.request(P0, 10)
        f.flusher.request(P1, 3)
        other.jobs[0].gate.set()
        await until(lambda: f.flushed == [P1])
        f.log.jobs[0].gate.set()
        await until(lambda: f.flushed == [P1, P0])

    run(check)


def test_a_deleted_log_is_nobodys_business_any_more() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P1, 3)
        f.flusher.request(P0, 10)
        f.flusher.request(P0, 99)
        del f.store.logs[P0]
        f.log.jobs[0].gate.set()
        await f.flusher.drain()
        assert len(f.log.jobs) == 1
        assert f.flushed == [P0]

    run(check)


def test_a_log_made_anew_during_a_flush_is_flushed_itself() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P0, 10)
        f.store.logs[P0] = anew = FakeLog(4)
        f.flusher.request(P0, 4)
        f.log.jobs[0].gate.set()
        await until(lambda: len(anew.jobs) == 1)
        anew.jobs[0].gate.set()
        await until(lambda: anew.durable_end == 4)

    run(check)


def test_a_failed_sync_stops_everything_and_reports_nothing() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P0, 10)
        f.flusher.request(P0, 12)
        f.log.jobs[0].error = StorageFailed("EIO")
        f.log.jobs[0].gate.set()
        await f.flusher.drain()
        assert f.failure.tripped
        assert (f.log.durable_end, f.flushed, len(f.log.jobs)) == (0, [], 1)
        f.flusher.request(P0, 14)
        assert len(f.log.jobs) == 1, "never retried"

    run(check)


def test_drain_waits_for_the_job_in_flight() -> None:
    async def check(f: Fixture) -> None:
        f.flusher.request(P0, 10)
        draining = asyncio.create_task(f.flusher.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        assert f.flusher.statistics().in_flight == 1
        f.log.jobs[0].gate.set()
        await draining
        assert f.flushed == [P0]
        assert f.flusher.statistics().in_flight == 0

    run(check)
