"""The broker's runtime with a core that records: one turn per event, each Future resolved once,
fail-stop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from minilog.broker import runtime
from minilog.broker.offset_parts import AT_ONCE
from minilog.broker.request_kinds import kind_of
from minilog.broker.runtime import Runtime
from minilog.config import BrokerSettings, Limits
from minilog.core.broker.requests.allowance import Inspected, Share, inspect
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, Reply, Send
from minilog.errors import BrokerUnavailable, RefusesToStart, StorageFailed
from minilog.server.clock import Clock
from minilog.server.inbound.request_gate import CLIENT
from minilog.server.process import FailStop, Failure
from minilog.wire.group_messages import GroupHeartbeat
from minilog.wire.messages import (
    LATEST,
    Fetch,
    Heartbeat,
    Message,
    Metadata,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    OffsetsResult,
    Ok,
    Probe,
    Problem,
    Produce,
    ProducePartition,
    Register,
    ReplicaFetch,
)
from minilog.wire.records import encode_values
from minilog.wire.topic_partition import TopicPartition
from tests.unit.broker.fake_ports import FakeBrokerCore, FakeLog, FakeStore
from tests.unit.server.peer_server import Exchange, PeerServer, until

PARKED = Heartbeat(1, 1, "process", 1, 0, 0)
FETCH = Fetch([], 60_000, 1, 1)
HEARTBEAT = GroupHeartbeat("g", "m", 0)
P0 = TopicPartition("t", 0)


class Fixture:
    def __init__(self, tasks: asyncio.TaskGroup, **settings: Any) -> None:
        self.core = FakeBrokerCore()
        self.store = FakeStore()
        self.failure = Failure()
        self.tasks = tasks
        chosen = BrokerSettings(broker_id=1, data_dir="", **settings)
        self.runtime = Runtime(self.core, self.store, chosen, Clock(), self.failure, tasks)

    def park(self) -> asyncio.Task[Message]:
        return asyncio.get_running_loop().create_task(self.runtime.submit(PARKED))

    async def event(self, name: str) -> tuple[Any, ...]:
        """Wait for an event of this name."""
        await until(lambda: any(event[0] == name for event in self.core.events))
        return next(event for event in self.core.events if event[0] == name)


def run(check: Callable[[Fixture], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            fixture = Fixture(tasks, **settings)
            await check(fixture)
            fixture.runtime.close()
            fixture.runtime.flusher.close()

    asyncio.run(main())


def test_an_immediate_answer_needs_no_wait() -> None:
    async def check(f: Fixture) -> None:
        coroutine = f.runtime.submit(Metadata())
        with pytest.raises(StopIteration) as done:  # it never suspends
            coroutine.send(None)
        assert done.value.value == Ok(1)

    run(check)


def test_each_request_gets_its_own_answer() -> None:
    async def check(f: Fixture) -> None:
        first, second = f.park(), f.park()
        await f.event("request")
        f.core.plan["request"] = [[Reply(2, Ok(22)), Reply(1, Ok(11))]]
        await f.runtime.submit(Metadata())
        assert [await first, await second] == [Ok(11), Ok(22)]

    run(check)


def test_a_second_or_unknown_reply_is_ignored_and_counted() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        f.core.plan["request"] = [[Reply(1, Ok(1)), Reply(1, Ok(2)), Reply(99, Ok(3))]]
        await f.runtime.submit(Metadata())
        assert await parked == Ok(1)
        assert f.runtime.statistics().replies_unclaimed == 2

    run(check)


def test_a_client_that_goes_away_is_forgotten_once() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        parked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await parked
        assert f.core.events[-1] == ("disconnect", 1)
        assert sum(f.runtime.statistics().waiting.values()) == 0
        f.core.plan["request"] = [[Reply(1, Ok(1))]]
        await f.runtime.submit(Metadata())
        assert f.runtime.statistics().replies_unclaimed == 1

    run(check)


def test_an_answer_and_a_disconnect_in_the_same_moment() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        f.core.plan["request"] = [[Reply(1, Ok(1))]]
        await f.runtime.submit(Metadata())
        parked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await parked
        assert not [event for event in f.core.events if event[0] == "disconnect"], "the core has answered already"

    run(check)


def test_a_disconnect_and_then_an_answer_in_the_same_moment() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        parked.cancel()
        f.core.plan["request"] = [[Reply(1, Ok(1))]]
        await f.runtime.submit(Metadata())
        with pytest.raises(asyncio.CancelledError):
            await parked
        assert not [event for event in f.core.events if event[0] == "disconnect"]

    run(check)


def test_the_callers_own_time_limit_is_not_definite() -> None:
    async def check(f: Fixture) -> None:
        reply = await f.runtime.submit(PARKED, timeout_ms=1)
        assert isinstance(reply, Problem)
        assert (reply.code, reply.definite) == ("REQUEST_TIMED_OUT", False)
        assert f.core.events[-1] == ("disconnect", 1)

    run(check)


def test_offsets_of_many_partitions_are_looked_for_in_several_turns() -> None:
    """R42: and answered together. More than may be named are refused as a whole."""

    class Core(FakeBrokerCore):
        def on_request(self, request_id: int, request: Message | Inspected, now_ms: int) -> list[Effect]:
            assert isinstance(request, Offsets)
            self.events.append(("request", len(request.partitions)))
            return [Reply(request_id, OffsetsReply([OffsetsResult(p.topic, p.partition) for p in request.partitions]))]

    async def check(f: Fixture) -> None:
        f.runtime.core = core = Core()
        count, most = 2 * AT_ONCE + 1, f.runtime.settings.limits.partitions_max
        reply = await f.runtime.submit(Offsets([OffsetsPartition("t", number, LATEST) for number in range(count)]))
        assert isinstance(reply, OffsetsReply)
        assert [result.partition for result in reply.partitions] == list(range(count))
        assert [event[1] for event in core.events] == [AT_ONCE, AT_ONCE, 1]
        await f.runtime.submit(Offsets([OffsetsPartition("t", 0, LATEST)] * (most + 1)))
        assert core.events[-1] == ("request", most + 1)

    run(check)


def test_too_many_parked_requests_are_refused_definitely_but_not_what_the_cluster_needs() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        reply = await f.runtime.submit(Metadata())
        assert isinstance(reply, Problem)
        assert (reply.code, reply.definite) == ("OVERLOADED", True)
        assert await f.runtime.submit(Probe(1, "x")) == Ok(2)
        assert await f.runtime.submit(ReplicaFetch(1, 1, 1, 1, 1, 1, 1, [])) == Ok(3)
        f.runtime.close()
        await parked

    run(check, limits=Limits(parked_requests_max=1))


def test_requests_of_groups_are_refused_by_their_coordinator_which_hears_them() -> None:
    """R87: a member that is refused here would be silent there."""

    async def check(f: Fixture) -> None:
        f.core.parks = type(HEARTBEAT)
        parked = asyncio.get_running_loop().create_task(f.runtime.submit(HEARTBEAT))
        await f.event("request")
        f.core.parks = Register
        assert isinstance(await f.runtime.submit(HEARTBEAT), Ok)
        parked.cancel()
        await asyncio.wait([parked])

    run(check, limits=Limits(parked_requests_max=1))


@pytest.mark.parametrize("waiting", [FETCH, PARKED])
def test_what_waits_in_great_numbers_refuses_its_own_kind_alone(waiting: Message) -> None:
    async def check(f: Fixture) -> None:
        f.core.parks = type(waiting)
        parked = asyncio.get_running_loop().create_task(f.runtime.submit(waiting))
        await f.event("request")
        reply = await f.runtime.submit(waiting)
        assert isinstance(reply, Problem)
        assert (reply.code, reply.definite) == ("OVERLOADED", True)
        for other in (Produce(-1, 1000, []), FETCH, HEARTBEAT, Metadata()):
            refused = isinstance(await f.runtime.submit(other), Problem)
            assert refused == (kind_of(other) == kind_of(waiting)), other
        parked.cancel()
        await asyncio.wait([parked])
        f.core.parks = Register
        assert isinstance(await f.runtime.submit(waiting), Ok), "who has left has left room"

    run(check, limits=Limits(parked_requests_max=1))


def test_one_client_that_waits_for_much_leaves_room_for_another() -> None:
    """R45: it may have as many as are free."""

    async def ask_as(client: str, f: Fixture) -> Message:
        CLIENT.set(client)
        return await f.runtime.submit(FETCH)

    async def check(f: Fixture) -> None:
        f.core.parks = Fetch
        asked = {client: [f.tasks.create_task(ask_as(client, f)) for _ in range(8)] for client in ("crowd", "guest")}
        await until(lambda: f.runtime.statistics().waiting["fetch"] == 6)
        refused = {client: [task.result() for task in tasks if task.done()] for client, tasks in asked.items()}
        assert {client: len(answers) for client, answers in refused.items()} == {"crowd": 4, "guest": 6}
        problem = refused["crowd"][0]
        assert isinstance(problem, Problem)
        assert "4 fetch requests already wait here, 4 of them of this client: of 8" in problem.detail
        assert (problem.code, problem.definite) == ("OVERLOADED", True)

    run(check, limits=Limits(parked_requests_max=8))


def test_a_call_under_way_ends_with_the_process_and_proves_nothing() -> None:
    async def never(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async def check(f: Fixture) -> None:
        async with PeerServer(never) as peer:
            calling = asyncio.get_running_loop().create_task(f.runtime.call(peer.url, Metadata(), 60_000))
            await until(lambda: peer.requests)
            f.runtime.close()
            reply = await calling
            assert isinstance(reply, Problem)
            assert (reply.code, reply.definite) == ("BROKER_UNAVAILABLE", False)
            later = await f.runtime.call(peer.url, Metadata(), 60_000)
            assert isinstance(later, Problem)
            assert later.definite

    run(check)


def test_effects_are_performed_in_order_and_outcomes_are_turns() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.reply(Ok(8))

    async def check(f: Fixture) -> None:
        async with PeerServer(handle) as peer:
            f.core.knows(2, peer.url)
            f.store.logs[P0] = log = FakeLog(7)
            f.core.plan["request"] = [[Send(2, PARKED), Flush(P0, 7)]]
            assert await f.runtime.submit(Metadata()) == Ok(1)
            log.jobs[0].gate.set()
            assert await f.event("response") == ("response", 2, PARKED, Ok(8))
            assert await f.event("flushed") == ("flushed", P0)
            assert log.durable_end == 7

    run(check)


def test_the_controller_is_reached_where_the_core_says_it_is() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.reply(Ok(9))

    async def main() -> None:
        async with PeerServer(handle) as peer, asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            f = Fixture(tasks)
            f.core.controller_url = peer.url
            f.core.plan["request"] = [[Send(CONTROLLER_ID, PARKED)]]
            await f.runtime.submit(Metadata())
            assert await f.event("response") == ("response", CONTROLLER_ID, PARKED, Ok(9))
            assert await f.runtime.call(peer.url, Metadata(), 1000) == Ok(9)
            f.runtime.close()

    asyncio.run(main())


def test_an_unknown_broker_is_an_outcome_too() -> None:
    async def check(f: Fixture) -> None:
        f.core.plan["request"] = [[Send(9, PARKED)]]
        await f.runtime.submit(Metadata())
        _, node_id, _, error = await f.event("response")
        assert node_id == 9
        assert isinstance(error, BrokerUnavailable)

    run(check)


def test_ticks_come_by_themselves_with_growing_time() -> None:
    async def check(f: Fixture) -> None:
        ticking = f.tasks.create_task(f.runtime.tick())
        await until(lambda: len(f.core.events) >= 3)
        ticking.cancel()
        times = [now_ms for _, now_ms in f.core.events]
        assert times == sorted(times)
        assert f.runtime.statistics().loop_lag_seconds >= 0

    run(check)


def fails(error: Exception) -> tuple[Callable[[], Coroutine[Any, Any, None]], list[Message]]:
    """A process whose core raises ``error`` while another request waits. The answers both get."""
    answers: list[Message] = []

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            f = Fixture(tasks)
            tasks.create_task(f.failure.wait())
            parked = f.park()
            await f.event("request")

            def explode(event: tuple[Any, ...]) -> None:
                raise error

            f.core.on_event = explode
            answers.append(await f.runtime.submit(Metadata()))
            answers.append(await parked)
            turns = f.runtime.statistics().turns
            answers.append(await f.runtime.submit(Metadata()))
            assert f.runtime.statistics().turns == turns, "no turn after a failure"
            assert not f.runtime.ready
            await asyncio.Event().wait()

    return main, answers


def test_a_failed_disk_stops_the_process_with_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    main, answers = fails(StorageFailed("EIO on t-0"))
    with caplog.at_level(logging.CRITICAL), pytest.raises(BaseExceptionGroup) as stopped:
        asyncio.run(main())
    assert [type(error) for error in stopped.value.exceptions] == [FailStop]
    assert [record.getMessage() for record in caplog.records] == ["stopping: the disk failed: EIO on t-0"]
    assert caplog.records[0].exc_info is None
    assert [a.definite for a in answers if isinstance(a, Problem)] == [False, False, True]


def test_a_bug_stops_the_process_and_its_traceback_goes_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    main, answers = fails(AssertionError("offset 5 twice"))
    with caplog.at_level(logging.CRITICAL), pytest.raises(BaseExceptionGroup):
        asyncio.run(main())
    assert caplog.records[0].exc_info
    assert not [a for a in answers if isinstance(a, Problem) and "offset 5" in a.detail]


def test_a_refused_registration_becomes_a_refusal_to_start() -> None:
    main, _ = fails(RefusesToStart("wrong cluster"))
    with pytest.raises(BaseExceptionGroup) as stopped:
        asyncio.run(main())
    assert str(stopped.value.exceptions[0]) == "wrong cluster"


def produce(value_bytes: int) -> Produce:
    batches = encode_values([bytes(value_bytes)] * 10, 1000, compression="zstd")
    return Produce(1, 1000, [ProducePartition("t", 0, memoryview(batches))])


@pytest.mark.parametrize("value_bytes", [100, 1_000_000])
def test_what_takes_long_to_look_into_is_looked_into_in_a_thread_before_its_turn(
    value_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def watched(request: Produce) -> Inspected:
        threads.append(threading.current_thread())
        return inspect(request)

    async def check(f: Fixture) -> None:
        assert await f.runtime.submit(produce(value_bytes)) == Ok(1)
        sent = f.core.events[-1][2]
        assert isinstance(sent, Inspected)
        assert isinstance(sent.shares[0], Share)
        assert [thread is threading.main_thread() for thread in threads] == ([] if value_bytes == 100 else [False])

    monkeypatch.setattr(runtime, "inspect", watched)
    run(check)


def test_a_process_that_ends_while_it_looks_takes_nothing_any_more() -> None:
    async def check(f: Fixture) -> None:
        sent = asyncio.get_running_loop().create_task(f.runtime.submit(produce(1_000_000)))
        await asyncio.sleep(0)
        f.runtime.close()
        answer = await sent
        assert isinstance(answer, Problem)
        assert (answer.code, answer.definite) == ("BROKER_UNAVAILABLE", True)
        assert f.core.events == []

    run(check)


def test_closing_answers_who_still_waits_and_takes_nothing_new() -> None:
    async def check(f: Fixture) -> None:
        parked = f.park()
        await f.event("request")
        f.runtime.begin_shutdown()
        assert f.runtime.may_exit.is_set()
        f.runtime.close()
        left = await parked
        assert isinstance(left, Problem)
        assert not left.definite, "closing proves nothing about what was appended"
        refused = await f.runtime.submit(Metadata())
        assert isinstance(refused, Problem)
        assert refused.definite

    run(check)


def test_turns_go_by_the_monotonic_clock_and_are_told_how_far_the_wall_clock_is_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(f: Fixture) -> None:
        wall_s, monotonic_s = time.time(), time.monotonic()
        monkeypatch.setattr(time, "monotonic_ns", lambda: int(monotonic_s * 1e9))
        seen = []
        for ahead_s in (0, 7200, -7200):
            monkeypatch.setattr(time, "time_ns", lambda: int((wall_s + ahead_s) * 1e9))  # noqa: B023
            await f.runtime.submit(Metadata())
            seen.append((f.runtime.clock.now_ms(), round(f.core.wall_ahead_ms / 1000)))
        assert [ahead_s for _, ahead_s in seen] == [0, 7200, -7200]
        assert len({now_ms for now_ms, _ in seen}) == 1

    run(check)
