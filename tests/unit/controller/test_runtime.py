"""The controller's runtime: strictly serial, durable before told, stamped with the time of
receipt."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from minilog.config import ControllerSettings, Limits
from minilog.controller import runtime
from minilog.controller.journal import FileJournal, Journal
from minilog.controller.runtime import Runtime
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.shared.sureness import DEAF_MS, SURE_MS, Sureness
from minilog.core.controller.told.own_events import WAITING_MAX, OwnEvents
from minilog.core.effects import Reply, Send
from minilog.core.image import BrokerState
from minilog.errors import BrokerUnavailable, InvalidRequest, RefusesToStart
from minilog.server import turn_watch
from minilog.server.clock import Clock
from minilog.server.process import FailStop, Failure
from minilog.wire.journal.events import INFO, Event, EventKind
from minilog.wire.journal.metadata_records import (
    BrokerRegistered,
    BrokerUnfenced,
    ControllerStarted,
    EventNoted,
    MetadataRecord,
)
from minilog.wire.messages import (
    CreateTopic,
    DescribeCluster,
    ElectLeader,
    Heartbeat,
    HeartbeatReply,
    Message,
    Metadata,
    MetadataReply,
    Ok,
    Positions,
    PositionsReply,
    Probe,
    Problem,
    StandBy,
    decode,
    encode,
)
from tests.unit.broker.fake_ports import FakeControllerCore, FakeDecision, FakeJournal
from tests.unit.server.peer_server import Exchange, PeerServer, until

PARKED = Heartbeat(1, 1, "process", 1, 0, 0)
CHANGE = CreateTopic("t")


class ManualClock(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.time_ms = 1000

    def now_ms(self) -> int:
        return self.time_ms


class Fixture:
    def __init__(self, tasks: asyncio.TaskGroup, journal: Journal, **settings: Any) -> None:
        self.core = FakeControllerCore()
        self.journal = journal
        self.clock = ManualClock()
        self.failure = Failure()
        self.tasks = tasks
        chosen = ControllerSettings(data_dir="", **settings)
        self.runtime = Runtime(self.core, journal, chosen, self.clock, self.failure, tasks)

    def submit(self, request: Message) -> asyncio.Task[Message]:
        return asyncio.get_running_loop().create_task(self.runtime.submit(request))

    def names(self) -> list[Any]:
        return [event[0] for event in self.core.events]


def run(check: Callable[[Fixture], Coroutine[Any, Any, None]], journal: Journal | None = None, **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            fixture = Fixture(tasks, journal or FakeJournal(), **settings)
            await fixture.runtime.start()
            fixture.core.events.clear()
            working = tasks.create_task(fixture.runtime.work())
            await check(fixture)
            fixture.runtime.close()
            await working

    asyncio.run(main())


def test_a_start_opens_a_new_term_and_makes_it_durable_first() -> None:
    journal = FakeJournal([ControllerStarted("c", 1), ControllerStarted("c", 2)])

    async def check(f: Fixture) -> None:
        assert [type(record) for record in f.core.replayed] == [ControllerStarted] * 3
        assert f.core.image.controller_epoch == 3
        assert journal.records[-1] == ControllerStarted("c", 3)

    run(check, journal)


def test_nobody_is_told_before_the_records_are_durable_and_replayed() -> None:
    journal = FakeJournal()

    async def check(f: Fixture) -> None:
        journal.gate.clear()
        change, question = f.submit(CHANGE), f.submit(Metadata())
        await until(lambda: f.names() == ["request"])
        assert not change.done()
        assert not question.done(), "the next event waits: it must see the state after this one"
        journal.gate.set()
        assert await change == Ok(2)
        assert f.names()[:3] == ["request", "replay", "committed"]
        await question
        assert f.names() == ["request", "replay", "committed", "request"]

    run(check, journal)


def test_who_may_be_deposed_tells_nobody_anything() -> None:
    async def check(f: Fixture) -> None:
        sureness = f.runtime.sureness = Sureness()
        sureness.on_held(f.clock.now_ms())
        assert await f.submit(CHANGE) == Ok(2)
        f.clock.time_ms += SURE_MS
        refused = await f.submit(Metadata())
        assert isinstance(refused, Problem)
        assert (refused.code, refused.info) == ("NOT_CONTROLLER", {"standby": True})
        await f.runtime.hold(StandBy("http://b:1", "", 0, 0, DEAF_MS))
        assert await f.submit(CHANGE) == Ok(3)

    run(check)


def test_what_on_committed_decides_is_carried_out_before_the_next_event() -> None:
    async def check(f: Fixture) -> None:
        f.core.after_commit = [FakeDecision([f.core.record(1)], []), FakeDecision([], [Reply(1, Ok(77))])]
        parked, change = f.submit(PARKED), f.submit(CHANGE)
        assert await parked == Ok(77)
        assert await change == Ok(2)
        assert f.names() == ["request", "request", "replay", "committed", "replay", "committed"]
        assert f.runtime.statistics().journal_index == 3

    run(check)


def test_what_brokers_say_has_the_time_of_receipt_and_what_clients_ask_for_that_of_its_turn() -> None:
    """A heartbeat was heard when it came. Who asks how old it is may have come before it, and has
    waited since. An election that a person asks for has all of its time for answers."""
    journal = FakeJournal()

    async def check(f: Fixture) -> None:
        journal.gate.clear()
        change = f.submit(CHANGE)
        await until(lambda: f.names() == ["request"])
        f.clock.time_ms = 2000
        question, parked = f.submit(ElectLeader("t", 0, dry_run=True)), f.submit(PARKED)
        await until(lambda: f.runtime.statistics().queued == 2)
        f.clock.time_ms = 9000
        journal.gate.set()
        await change
        await until(lambda: f.names().count("request") == 3)
        assert sorted(event[2] for event in f.core.events if event[0] == "request") == [1000, 2000, 9000]
        question.cancel()
        parked.cancel()

    run(check, journal)


def test_at_most_one_tick_is_queued() -> None:
    journal = FakeJournal()

    async def check(f: Fixture) -> None:
        ticking = f.tasks.create_task(f.runtime.tick())
        await until(lambda: f.core.events)
        journal.gate.clear()
        change = f.submit(CHANGE)
        await until(lambda: "request" in f.names())
        await until(lambda: f.runtime.statistics().queued == 1)
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.05
        await until(lambda: loop.time() > end)
        assert f.runtime.statistics().queued == 1
        ticking.cancel()
        journal.gate.set()
        await change

    run(check, journal)


def test_a_dropped_connection_is_an_event_after_its_request() -> None:
    async def check(f: Fixture) -> None:
        parked = f.submit(PARKED)
        await until(lambda: f.core.events)
        parked.cancel()
        await until(lambda: len(f.core.events) == 2)
        assert f.core.events == [("request", 1, 1000), ("disconnect", 1)]
        assert f.runtime.statistics().parked == 0

    run(check)


def test_sends_go_out_and_their_outcomes_are_events() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.reply(Ok(5))

    async def check(f: Fixture) -> None:
        async with PeerServer(handle) as peer:
            f.core.image.brokers[4] = BrokerState(4, 1, "i", peer.url, "")
            f.core.on_heartbeat = [FakeDecision([], [Send(4, Probe(4, "i")), Send(5, Probe(5, "i"))])]
            f.submit(PARKED)
            await until(lambda: f.names().count("response") == 2)
        outcomes = {event[1]: event[2] for event in f.core.events if event[0] == "response"}
        assert outcomes[4] == Ok(5)
        assert isinstance(outcomes[5], BrokerUnavailable)

    run(check)


def test_an_election_that_is_in_a_hurry_closes_no_connection() -> None:
    """How long an election waits is one thing, how long an answer may take another: far brokers are
    heard, too."""
    question = Positions(4, 1, 1, 1, [])

    async def far(exchange: Exchange) -> None:
        await asyncio.sleep(0.2)
        exchange.reply(PositionsReply(4, 1, 1, []))

    async def check(f: Fixture) -> None:
        async with PeerServer(far) as peer:
            f.core.image.brokers[4] = BrokerState(4, 1, "i", peer.url, "")
            f.core.on_heartbeat = [FakeDecision([], [Send(4, question), Send(4, question)])]
            f.submit(PARKED)
            await until(lambda: f.names().count("response") == 2)
            assert peer.connections == 1
        outcomes = [event[2] for event in f.core.events if event[0] == "response"]
        assert outcomes == [PositionsReply(4, 1, 1, [])] * 2

    run(check, election_timeout_ms=50)


def test_a_long_journal_is_replaced_by_a_snapshot_and_a_restart_sees_the_same(tmp_path: Path) -> None:
    async def check(f: Fixture) -> None:
        for _ in range(5):
            await f.submit(CHANGE)
        assert f.runtime.statistics().journal_tail_records == 2

    journal = FileJournal(str(tmp_path))
    run(check, journal, snapshot_records=3)
    journal.close()
    assert len(list(tmp_path.glob("snapshot-*"))) == 1

    async def check_restart(f: Fixture) -> None:
        assert f.core.metadata_offset == 7
        assert f.core.image.controller_epoch == 7
        assert len(f.core.replayed) == 3, "the two records after the snapshot, and the new term"

    journal = FileJournal(str(tmp_path))
    run(check_restart, journal, snapshot_records=10)
    journal.close()


def test_a_failed_journal_stops_the_process_and_answers_nothing_definite(caplog: pytest.LogCaptureFixture) -> None:
    journal = FakeJournal()
    replies: list[Message] = []

    async def main() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            f = Fixture(tasks, journal)
            await f.runtime.start()
            tasks.create_task(f.runtime.work())
            tasks.create_task(f.failure.wait())
            journal.failing = True
            replies.append(await f.runtime.submit(CHANGE))
            replies.append(await f.runtime.submit(CHANGE))
            await asyncio.Event().wait()

    with caplog.at_level(logging.CRITICAL), pytest.raises(BaseExceptionGroup) as stopped:
        asyncio.run(main())
    assert isinstance(stopped.value.exceptions[0], FailStop)
    assert [record.getMessage() for record in caplog.records] == ["stopping: the disk failed: the test says so"]
    assert [reply.definite for reply in replies if isinstance(reply, Problem)] == [False, True]


def test_a_core_that_refuses_to_start() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            f = Fixture(tasks, FakeJournal())

            def refuse(now_ms: int) -> FakeDecision:
                raise InvalidRequest("the journal belongs to another cluster")

            f.core.start = refuse  # type: ignore[method-assign]
            with pytest.raises(RefusesToStart, match="the journal belongs to another cluster"):
                await f.runtime.start()

    asyncio.run(main())


def test_too_many_parked_requests_are_refused_but_not_heartbeats() -> None:
    async def check(f: Fixture) -> None:
        parked = f.submit(PARKED)
        await until(lambda: f.core.events)
        reply = await f.runtime.submit(CHANGE)
        assert isinstance(reply, Problem)
        assert (reply.code, reply.definite) == ("OVERLOADED", True)
        second = f.submit(PARKED)
        await until(lambda: len(f.core.events) == 2)
        f.runtime.close()
        assert isinstance(await parked, Problem)
        assert isinstance(await second, Problem)

    run(check, limits=Limits(parked_requests_max=1))


def test_a_tick_answers_what_the_core_decides() -> None:
    async def check(f: Fixture) -> None:
        ticking = f.tasks.create_task(f.runtime.tick())
        assert isinstance(await f.submit(PARKED), HeartbeatReply)
        ticking.cancel()

    run(check)


class FullJournal(FakeJournal):
    """There is room for a decision, and none for a snapshot."""

    attempts = 0

    def snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        self.attempts += 1


def test_a_snapshot_that_finds_no_room_is_not_tried_again_with_every_event() -> None:
    journal = FullJournal()

    async def check(f: Fixture) -> None:
        for _ in range(3):
            await f.submit(CHANGE)
        for _ in range(20):
            await f.submit(Metadata())
        assert journal.attempts == 1
        for _ in range(4):
            await f.submit(CHANGE)
        await f.submit(Metadata())
        assert journal.attempts == 2

    run(check, journal, snapshot_records=3)


def test_the_journal_waits_for_nothing_else_that_uses_threads() -> None:
    """Appends and snapshots go on while every thread of the loop's own executor hangs."""
    gate = threading.Event()

    async def check(f: Fixture) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        hanging = loop.run_in_executor(None, gate.wait, 10)
        try:
            for _ in range(5):
                assert isinstance(await asyncio.wait_for(f.runtime.submit(CHANGE), 2), Ok)
            assert isinstance(f.journal, FakeJournal)
            await asyncio.wait_for(until(lambda: f.journal.snapshots), 2)  # type: ignore[attr-defined]
        finally:
            gate.set()
            await hanging

    run(check, snapshot_records=3)


def test_a_write_under_way_ends_before_the_journal_is_closed() -> None:
    async def check(f: Fixture) -> None:
        assert isinstance(f.journal, FakeJournal)
        f.journal.gate.clear()
        waiting = f.submit(CHANGE)
        await until(lambda: "request" in f.names())
        written = len(f.journal.records)
        threading.Timer(0.05, f.journal.gate.set).start()
        f.runtime.close()
        f.runtime.close_journal()
        assert len(f.journal.records) == written + 1
        assert isinstance(await waiting, Problem)

    run(check)


def test_names_of_brokers_are_looked_up_when_they_register(monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[str] = []
    monkeypatch.setattr("minilog.server.outbound.host_names.Names.expect", lambda self, host: expected.append(host))
    journal = FakeJournal([BrokerRegistered(1, 1, "i", "http://old.test:1")])

    async def check(f: Fixture) -> None:
        record = BrokerRegistered(2, f.core.metadata_offset + 1, "i", "http://new.test:1")
        f.core.on_heartbeat = [FakeDecision([record])]
        task = f.submit(PARKED)
        await until(lambda: 2 in f.core.image.brokers)
        await asyncio.sleep(0)
        assert expected == ["old.test", "new.test"]
        task.cancel()

    run(check, journal)


def test_nothing_is_written_for_who_has_left_before_it_was_begun() -> None:
    """With a slow journal such requests would pile up, and time would stand still behind them."""

    async def check(f: Fixture) -> None:
        assert isinstance(f.journal, FakeJournal)
        f.journal.gate.clear()
        first, left, parked = f.submit(CHANGE), f.submit(CHANGE), f.submit(PARKED)
        await until(lambda: "request" in f.names())
        written, heard = len(f.journal.records), f.names().count("request")
        left.cancel()
        parked.cancel()
        await asyncio.sleep(0)
        f.journal.gate.set()
        assert isinstance(await asyncio.wait_for(first, 2), Ok)
        await until(lambda: f.names().count("disconnect") == 2)
        assert len(f.journal.records) == written + 1
        assert f.names().count("request") == heard + 1, "a heartbeat says something all the same"

    run(check)


def test_what_is_being_written_is_written_before_the_work_ends() -> None:
    journal = FakeJournal()

    async def main() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            f = Fixture(tasks, journal)
            await f.runtime.start()
            working = tasks.create_task(f.runtime.work())
            journal.gate.clear()
            change, late = f.submit(CHANGE), f.submit(CHANGE)
            await until(lambda: f.runtime.statistics().decisions == 1)
            f.runtime.close()
            assert isinstance(await change, Problem)
            await asyncio.sleep(0.01)
            assert not working.done(), "the journal is in use"
            journal.gate.set()
            await working
            assert isinstance(await late, Problem)
            assert journal.last_index == 2, "the second change was never begun"

    asyncio.run(main())


def test_what_waits_for_a_slow_journal_is_bounded_also_when_its_clients_leave() -> None:
    journal = FakeJournal()

    async def check(fixture: Fixture) -> None:
        journal.gate.clear()
        first = fixture.submit(CHANGE)
        await until(lambda: "request" in fixture.names())
        refused = 0
        for _ in range(500):
            asking = fixture.submit(CreateTopic("x" * 100_000))
            await asyncio.sleep(0)
            if asking.done() and isinstance(asking.result(), Problem):
                refused += 1
            asking.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        queued = fixture.runtime.statistics().queued
        journal.gate.set()
        await asyncio.wait([first], timeout=2)
        assert queued <= 25, f"{queued} events of clients that have gone wait; parked_requests_max is 10"

    run(check, journal, limits=Limits(parked_requests_max=10))


@pytest.mark.parametrize(
    "url", ["http://broker-4..internal:8082", "", "http://" + "a" * 10**6, "nothing", "http://[::1"]
)
def test_a_journal_that_holds_an_address_that_cannot_be_ends_no_start(tmp_path: Path, url: str) -> None:
    """An older version wrote down whatever a broker said (R44). The broker is asked where it is,
    and fenced."""
    journal = FileJournal(str(tmp_path))
    journal.open()
    journal.append([ControllerStarted("c", 1), BrokerRegistered(55, 2, "typo", url, "r" * 10**5)])
    journal.append([BrokerUnfenced(55, 2)])
    journal.close()

    async def main() -> None:
        core = ControllerCore(ControllerSettings(data_dir="", session_timeout_ms=50), Random(1))
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            failure = Failure()
            runtime = Runtime(core, FileJournal(str(tmp_path)), core.settings, Clock(), failure, tasks)
            await runtime.start()
            loops = [tasks.create_task(runtime.work()), tasks.create_task(runtime.tick())]
            await until(lambda: core.image.brokers[55].fenced or failure.tripped)
            assert not failure.tripped
            described = await runtime.submit(DescribeCluster())
            assert decode(encode(described)) == described, "what is told of it can be read"
            runtime.close()
            loops[1].cancel()
        runtime.close_journal()

    asyncio.run(main())


def slow(core: FakeControllerCore) -> None:
    """A question takes two milliseconds."""
    handle = core.handle

    def handle_slowly(request_id: int, request: Message, now_ms: int) -> FakeDecision:
        ends_s = time.monotonic() + 0.002 * isinstance(request, Metadata)
        while time.monotonic() < ends_s:
            pass
        return handle(request_id, request, now_ms)

    core.handle = handle_slowly  # type: ignore[method-assign]


def test_a_crowd_of_clients_keeps_no_broker_waiting() -> None:
    async def check(f: Fixture) -> None:
        slow(f.core)
        crowd = [f.submit(Metadata()) for _ in range(200)]
        parked = f.submit(PARKED)
        await until(lambda: f.core.parked)
        assert f.names().count("request") < 50
        parked.cancel()
        await asyncio.wait(crowd)

    run(check)


def test_the_loop_goes_on_while_a_crowd_of_clients_is_answered() -> None:
    async def check(f: Fixture) -> None:
        slow(f.core)
        crowd = [f.submit(Metadata()) for _ in range(200)]
        rounds = 0
        while not all(asking.done() for asking in crowd):
            await asyncio.sleep(0)
            rounds += 1
        assert rounds >= 10

    run(check)


def test_newer_requests_of_a_client_whose_older_ones_wait_too_long_are_refused() -> None:
    journal = FakeJournal()

    async def check(f: Fixture) -> None:
        journal.gate.clear()
        first, waiting = f.submit(CHANGE), f.submit(CHANGE)
        await until(lambda: f.runtime.statistics().queued == 1)
        f.clock.time_ms += 1001
        refused, question = f.submit(CHANGE), f.submit(Metadata())
        answer = await refused
        assert isinstance(answer, Problem)
        assert (answer.code, answer.definite) == ("OVERLOADED", True)
        assert f.runtime.statistics().refused == 1
        journal.gate.set()
        assert [type(await one) for one in (first, waiting, question)] == [Ok, Ok, MetadataReply]

    run(check, journal)


def test_a_slow_journal_and_a_long_turn_are_events_and_not_a_flood_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SLOW_MS", 0)
    monkeypatch.setattr(turn_watch, "LONG_TURN_MS", -1)
    monkeypatch.setattr(turn_watch, "FELT_TURN_MS", 0)

    async def check(f: Fixture) -> None:
        f.core.own_events.take()
        for _ in range(3):
            await f.submit(CHANGE)
        told = [record.event for record in f.core.own_events.take() if isinstance(record, EventNoted)]
        assert [event.kind for event in told] == [EventKind.LONG_TURN]
        f.runtime._slow_told_s = 0.0
        for _ in range(3):
            await f.submit(CHANGE)
        (slow,) = [record.event for record in f.core.own_events.take() if isinstance(record, EventNoted)]
        assert slow.kind == EventKind.JOURNAL_SLOW
        assert "the controller's journal took" in slow.sentence

    run(check)


def test_more_own_events_than_can_wait_are_not_kept() -> None:
    events = OwnEvents()
    for number in range(WAITING_MAX + 5):
        events.add(Event(0, "k", INFO, str(number)))
    assert len(events.take()) == WAITING_MAX
    assert events.take() == []
