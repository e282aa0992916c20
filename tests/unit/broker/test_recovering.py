"""A broker that checks its logs: alive, not ready, known to the controller's probe, and stopped
between two segments."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from minilog.broker.main import Broker
from minilog.config import BrokerSettings, ControllerSettings, Limits, TopicSettings
from minilog.controller.main import make_controller
from minilog.errors import RefusesToStart
from minilog.server import process
from minilog.storage.disk import OsDisk
from minilog.storage.recovery.recovery import open_log
from minilog.storage.store import Store
from minilog.wire.http import JSON, MSGPACK
from minilog.wire.messages import Message, Metadata, Probe, ProbeReply, Problem, decode, encode
from tests.unit.server.peer_server import until
from tests.unit.storage.batches import SMALL, fill, place


class SlowRecovery:
    """Holds back the opening of every log, as a slow disk does, until ``go_on`` is set. Then asks
    as recovery does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        real = Store._open_log

        def slowly(store: Store, *arguments: Any, **options: Any) -> Any:
            self.begun.set()
            assert self.go_on.wait(10)
            return real(store, *arguments, **options)

        monkeypatch.setattr(Store, "_open_log", slowly)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SlowRecovery:
    store = Store(OsDisk(), str(tmp_path / "b"), 1, lambda: 0)
    store.start("boot-1")
    store.registered()
    for partition in range(3):
        fill(store.open("t", "id", partition, TopicSettings()), 3)
    store.close_cleanly(7)
    return SlowRecovery(monkeypatch)


@asynccontextmanager
async def recovering(
    tmp_path: Path, slow: SlowRecovery, limits: Limits | None = None
) -> AsyncIterator[tuple[Broker, asyncio.Event, asyncio.Task[None]]]:
    settings = BrokerSettings(
        broker_id=1, data_dir=str(tmp_path / "b"), port=0, shutdown_timeout_ms=1, limits=limits or Limits()
    )
    broker = Broker(settings)
    stop = asyncio.Event()
    running = asyncio.create_task(broker.run(stop))
    async with asyncio.timeout(10):
        await until(lambda: slow.begun.is_set() or running.done())
        try:
            yield broker, stop, running
        finally:
            slow.go_on.set()
            stop.set()
            await asyncio.wait([running])


def test_it_is_alive_and_says_how_far_it_is(tmp_path: Path, slow: SlowRecovery) -> None:
    async def main() -> None:
        async with recovering(tmp_path, slow) as (broker, _, running), aiohttp.ClientSession(broker.url) as session:
            async with session.get("/healthz") as alive:
                assert (alive.status, await alive.json()) == (200, {"status": "alive", "broker_id": 1})
            async with session.get("/readyz") as ready:
                assert ready.status == 503
                assert (await ready.json())["recovery"] == {"logs_checked": 0, "logs": 3}
            async with session.get("/v1/topics") as refused:
                assert refused.status == 503
                problem = await refused.json()
                assert (problem["code"], problem["definite"]) == ("LEADER_NOT_AVAILABLE", True)
                assert "0 of 3 logs" in problem["detail"]
            async with session.get("/nowhere") as unknown:
                assert unknown.status == 404
            slow.go_on.set()
            await until(lambda: broker.listening.is_set() or running.done())
            async with session.get("/v1/topics") as served:
                assert "just started" in (await served.json())["detail"], "the server answers now"

    asyncio.run(main())


async def rpc(session: aiohttp.ClientSession, message: Message) -> Message:
    async with session.post("/internal/rpc", data=encode(message), headers={"Content-Type": MSGPACK}) as response:
        return decode(await response.read())


def test_a_probe_hears_that_another_process_is_there_and_everybody_else_that_nothing_is_to_be_had(
    tmp_path: Path, slow: SlowRecovery
) -> None:
    async def main() -> None:
        async with recovering(tmp_path, slow) as (broker, _, running), aiohttp.ClientSession(broker.url) as session:
            probed = await rpc(session, Probe(1, "the one before"))
            assert isinstance(probed, ProbeReply)
            assert probed.incarnation not in ("", "the one before")
            refused = await rpc(session, Metadata())
            assert isinstance(refused, Problem)
            assert (refused.code, refused.definite) == ("LEADER_NOT_AVAILABLE", True)
            async with session.post("/internal/rpc", data=b"\xc1", headers={"Content-Type": JSON}) as garbage:
                assert garbage.status == 503
            slow.go_on.set()
            await until(lambda: broker.listening.is_set() or running.done())
            later = await rpc(session, Probe(1, probed.incarnation))
            assert later == probed, "it is the same process, so a probe of it finds it alive"

    asyncio.run(main())


async def is_cut_off(reading_nothing: socket.socket, request: bytes, within_s: float) -> bool:
    """Whether somebody who asks again and again, and takes no answer, is."""
    ends_s = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < ends_s:
        try:
            reading_nothing.send(request * 100)
        except BlockingIOError:
            await asyncio.sleep(0.05)
        except ConnectionError:
            return True
        await asyncio.sleep(0)
    return False


def test_who_takes_no_answer_is_cut_off_also_then(
    tmp_path: Path, slow: SlowRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = process.listen

    def listen_with_little_room(bound: socket.socket, setting: str) -> None:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listen(bound, setting)

    monkeypatch.setattr(process, "listen", listen_with_little_room)

    async def main() -> None:
        limits = Limits(response_write_ms=300)
        async with recovering(tmp_path, slow, limits) as (broker, _, _):
            host, _, port = broker.url.removeprefix("http://").partition(":")
            with socket.socket() as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stranger.connect((host, int(port)))
                stranger.setblocking(False)
                assert await is_cut_off(stranger, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 7)

    asyncio.run(main())


async def heard() -> None:
    """Turns enough for the broker to hear of the stop, while its thread cannot go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def markers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "b").iterdir() if path.name in ("clean-shutdown", "running")]


def test_a_stop_ends_it_between_two_logs_and_leaves_the_marker_it_found(tmp_path: Path, slow: SlowRecovery) -> None:
    async def main() -> None:
        async with recovering(tmp_path, slow) as (broker, stop, running):
            stop.set()
            await heard()
            slow.go_on.set()
            await running
            assert not broker.listening.is_set()

    asyncio.run(main())
    assert "clean-shutdown" in markers(tmp_path)
    assert Store(OsDisk(), str(tmp_path / "b"), 1, lambda: 0).start("boot-2"), "as clean as it was"


def test_after_a_crash_there_is_no_marker_to_leave(tmp_path: Path, slow: SlowRecovery) -> None:
    (tmp_path / "b" / "clean-shutdown").unlink()

    async def main() -> None:
        async with recovering(tmp_path, slow) as (_, stop, running):
            stop.set()
            await heard()
            slow.go_on.set()
            await running

    asyncio.run(main())
    assert markers(tmp_path) == ["running"]


def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(
    tmp_path: Path, slow: SlowRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minilog.broker.main.RECOVERY_STOP_S", 0.02)

    async def main() -> None:
        async with recovering(tmp_path, slow) as (broker, stop, running):
            stop.set()
            await running
            assert not slow.go_on.is_set()
            assert not broker.listening.is_set()

    asyncio.run(main())
    assert markers(tmp_path) == ["running"], "as after a kill"


def test_who_is_cancelled_gives_its_directory_back_when_the_thread_has_ended(
    tmp_path: Path, slow: SlowRecovery
) -> None:
    async def main() -> None:
        async with recovering(tmp_path, slow) as (_, _, running):
            running.cancel()
            await asyncio.wait([running])
            with pytest.raises(RefusesToStart):
                Store(OsDisk(), str(tmp_path / "b"), 1, lambda: 0).start("boot-1")

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name == "recovery":
            thread.join(10)
    Store(OsDisk(), str(tmp_path / "b"), 1, lambda: 0).start("boot-1")


def test_the_controller_takes_the_process_before_for_dead_when_its_successor_recovers(
    tmp_path: Path, slow: SlowRecovery
) -> None:
    """Its session is open still, and the address answers: it must not look alive for that."""

    async def main() -> None:
        slow.go_on.set()
        stop_controller = asyncio.Event()
        controller = make_controller(
            ControllerSettings(data_dir=str(tmp_path / "c"), port=0, session_timeout_ms=60_000)
        )
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(controller.run(stop_controller))
            await controller.listening.wait()
            settings = BrokerSettings(broker_id=1, data_dir=str(tmp_path / "b"), port=0, controller_url=controller.url)
            async with aiohttp.ClientSession(controller.url) as session, aiohttp.ClientSession() as any_server:
                first = Broker(settings)
                running = tasks.create_task(_killed(first.run(asyncio.Event())))
                await until_state(session, "running")
                async with any_server.post(f"{first.url}/v1/topics", json={"topic": "t"}) as response:
                    assert response.status == 201
                slow.go_on.clear()
                slow.begun.clear()
                port = int(first.url.rpartition(":")[2])
                running.cancel()
                await asyncio.wait([running])
                stop = asyncio.Event()
                tasks.create_task(Broker(replace(settings, port=port)).run(stop))
                await until(slow.begun.is_set)
                await until_state(session, "fenced")
                slow.go_on.set()
                await until_state(session, "running")
                stop.set()
                stop_controller.set()

    asyncio.run(main())


async def _killed(run: Any) -> None:
    try:
        await run
    except asyncio.CancelledError:
        return


async def until_state(session: aiohttp.ClientSession, state: str) -> None:
    while True:
        async with session.get("/v1/cluster") as response:
            if [broker["state"] for broker in (await response.json())["brokers"]] == [state]:
                return
        await asyncio.sleep(0.01)


def test_what_is_asked_between_segments_ends_the_opening(tmp_path: Path) -> None:
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1

    disk = OsDisk()
    log = open_log(place(disk, str(tmp_path / "d" / "t-0")), SMALL)
    fill(log, 10, size=900)
    count = len(log.segments)
    log.abandon()
    reopened = open_log(place(disk, str(tmp_path / "d" / "t-0"))._replace(ask=ask), SMALL)
    assert asked == count
    assert reopened.end_offset == 10
