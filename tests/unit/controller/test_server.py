"""The controller's HTTP face on a real socket."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from minilog.config import ControllerSettings, Limits
from minilog.controller.main import Controller
from minilog.wire.http import MSGPACK, PROBLEM
from minilog.wire.messages import CreateTopic, Heartbeat, Message, Ok, Produce, decode, encode
from tests.unit.broker.fake_ports import FakeControllerCore, FakeJournal
from tests.unit.server.peer_server import until

PARKED = Heartbeat(1, 1, "process", 1, 0, 0)
DISCONNECT_S_MAX = 0.5
"""Milliseconds on an idle machine; far below every timeout, so that only the socket's end can have
told."""


class Fixture:
    def __init__(self, controller: Controller, core: FakeControllerCore, session: aiohttp.ClientSession) -> None:
        self.controller = controller
        self.core = core
        self.session = session
        self.host, _, port = controller.url.removeprefix("http://").partition(":")
        self.port = int(port)

    async def rpc(self, message: Message) -> Any:
        return await self.post(encode(message))

    async def post(self, body: bytes, content_type: str = MSGPACK) -> Any:
        headers = {"Content-Type": content_type}
        data_of = io.BytesIO(body)  # aiohttp warns of large bytes
        async with self.session.post(f"{self.controller.url}/internal/rpc", data=data_of, headers=headers) as response:
            data = await response.read()
            if response.status == 200:
                return decode(data)
            assert response.headers["Content-Type"].startswith(PROBLEM)
            return response.status, json.loads(data)["code"]

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.controller.url + path) as response:
            return response.status, await response.text()


def run(check: Callable[[Fixture], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        core = FakeControllerCore()
        controller = Controller(ControllerSettings(data_dir="", port=0, **settings), lambda: core, FakeJournal())
        stop = asyncio.Event()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
            tasks.create_task(controller.run(stop))
            await controller.listening.wait()
            await check(Fixture(controller, core, session))
            stop.set()

    asyncio.run(main())


def test_messages_are_answered() -> None:
    async def check(f: Fixture) -> None:
        assert await f.rpc(CreateTopic("t")) == Ok(2)
        assert await f.rpc(CreateTopic("u", asked_by="10.0.0.9 by way of broker 1")) == Ok(3)
        asked = [request.asked_by for request in f.core.requests if isinstance(request, CreateTopic)]
        assert asked == ["127.0.0.1 without any broker", "10.0.0.9 by way of broker 1"]

    run(check)


def test_what_is_not_a_message_for_a_controller_is_refused() -> None:
    async def check(f: Fixture) -> None:
        assert await f.rpc(Produce(1, 1, [])) == (400, "INVALID_REQUEST")
        assert await f.post(b"\xc1") == (400, "INVALID_REQUEST")
        assert await f.post(b"{}", "application/json") == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert await f.post(bytes(5000)) == (413, "REQUEST_TOO_LARGE")
        status, text = await f.get("/internal/rpc")
        assert (status, json.loads(text)["code"]) == (405, "METHOD_NOT_ALLOWED")
        status, text = await f.get("/nothing")
        assert (status, json.loads(text)["code"]) == (404, "UNKNOWN_ROUTE")
        assert not [event for event in f.core.events if event[0] == "request"]

    run(check, limits=Limits(request_bytes_max=4096))


def test_a_head_that_does_not_arrive_in_time_ends_the_connection() -> None:
    async def check(f: Fixture) -> None:
        reader, writer = await asyncio.open_connection(f.host, f.port)
        writer.write(b"GET /healthz HTT")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()

    run(check, limits=Limits(header_read_ms=30))


def test_connections_over_the_limit_are_refused_and_counted() -> None:
    async def check(f: Fixture) -> None:
        held, writer = await asyncio.open_connection(f.host, f.port)
        more, other = await asyncio.open_connection(f.host, f.port)
        assert (await more.read()).startswith(b"HTTP/1.1 503 ")
        other.close()
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"minilog_http_connections_refused_total 1\n" in await held.read()
        writer.close()

    run(check, limits=Limits(connections_max=1))


def test_a_bug_in_a_route_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(f: Fixture) -> None:
        monkeypatch.setattr(f.core, "description", lambda: Ok(1))
        status, text = await f.get("/v1/cluster")
        assert status == 500
        assert json.loads(text)["code"] == "INTERNAL"
        assert "assert" not in text.lower()

    run(check)


def test_pages_for_people_and_monitoring() -> None:
    async def check(f: Fixture) -> None:
        assert (await f.get("/healthz"))[0] == 200
        assert (await f.get("/readyz"))[0] == 200
        status, text = await f.get("/v1/cluster")
        assert status == 200
        assert json.loads(text)["elections"] == {"clean": 3}
        status, text = await f.get("/metrics")
        assert status == 200
        for line in (
            "minilog_active_controller 1",
            'minilog_brokers{state="running"} 0',
            'minilog_leader_elections_total{kind="clean"} 3',
            "minilog_journal_index 1",
            "minilog_journal_append_seconds_count 1.0",
        ):
            assert line in text.splitlines()

    run(check)


def parked_socket(f: Fixture) -> bytes:
    body = encode(PARKED)
    head = f"POST /internal/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MSGPACK}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def disconnected(f: Fixture) -> bool:
    return any(event[0] == "disconnect" for event in f.core.events)


async def seconds_to_disconnect(f: Fixture) -> float:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await until(lambda: disconnected(f))
    return loop.time() - begin


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_parked_heartbeat_whose_connection_drops_is_told_at_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(f: Fixture) -> None:
        monkeypatch.setattr(f.core, "tick", lambda now_ms: f.core.on_response(0, PARKED, Ok(), now_ms))
        client = socket.create_connection((f.host, f.port))
        client.sendall(parked_socket(f))
        await until(lambda: f.core.parked)
        if way == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert await seconds_to_disconnect(f) < DISCONNECT_S_MAX

    run(check)


def test_the_heartbeat_of_a_killed_process_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); "
        "s.sendall(sys.stdin.buffer.read()); s.recv(1)"
    )

    async def check(f: Fixture) -> None:
        monkeypatch.setattr(f.core, "tick", lambda now_ms: f.core.on_response(0, PARKED, Ok(), now_ms))
        command = [sys.executable, "-S", "-E", "-c", script, f.host, str(f.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: ASYNC220 - starting it is quick
            assert process.stdin is not None
            process.stdin.write(parked_socket(f))
            process.stdin.close()
            await until(lambda: f.core.parked)
            process.kill()
            seconds = await seconds_to_disconnect(f)
        assert seconds < DISCONNECT_S_MAX

    run(check)


def test_the_log_level_is_shown_and_set_until_the_process_ends() -> None:
    root = logging.getLogger()
    before = root.level

    async def check(f: Fixture) -> None:
        root.setLevel(logging.INFO)
        url = f.controller.url + "/v1/loglevel"
        async with f.session.put(url, json={"level": "debug"}) as answer:
            assert await answer.json() == {"level": "debug", "configured": "info"}
        assert await f.get("/v1/loglevel") == (200, '{"level":"debug","configured":"info"}')
        async with f.session.put(url, json={"level": "trace"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "INVALID_REQUEST")
        async with f.session.put(url, data=b'{"level": "info"}') as answer:
            assert answer.status == 415
        async with f.session.post(url, json={"level": "info"}) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, PUT")
        assert root.level == logging.DEBUG

    try:
        run(check)
    finally:
        root.setLevel(before)
