"""Nobody is there, TLS is tried, a name does not resolve: every call says the address and the
cause."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest

from minilog.errors import MinilogError
from minilog_client import Client, SyncConsumer
from minilog_client.connection.transport import Response
from tests.unit.client.fake_cluster import FakeCluster


def reading(consumer: SyncConsumer, read: Callable[[SyncConsumer], object]) -> object:
    with closing(consumer):
        return read(consumer)


CALLS: dict[str, Callable[[Client], object]] = {
    "list_topics": lambda client: client.list_topics(timeout_ms=600),
    "send": lambda client: client.producer(delivery_timeout_ms=600).send("t", b"x").result(),
    "batch": lambda client: reading(client.consumer("t"), SyncConsumer.batch),
}
AT_ONCE: dict[str, Callable[[Client], object]] = {
    "list_topics": lambda client: client.list_topics(),
    "create_topic": lambda client: client.create_topic("t"),
    "delete_topic": lambda client: client.delete_topic("t"),
    "cluster": lambda client: client.cluster(),
    "offset_at": lambda client: client.offset_at("t", 0, "latest"),
    "groups": lambda client: client.groups(),
    "describe_group": lambda client: client.describe_group("g"),
    "group_offsets": lambda client: client.group_offsets("g"),
    "send": lambda client: client.producer().send("t", b"x").result(),
    "send without numbers": lambda client: client.producer(idempotent=False).send("t", b"x").result(),
    "send_many": lambda client: client.producer().send_many("t", [b"x"]),
    "batch": lambda client: reading(client.consumer("t"), SyncConsumer.batch),
    "next": lambda client: reading(client.consumer("t"), next),
    "batch of a group": lambda client: reading(client.consumer("t", group="g"), SyncConsumer.batch),
}
"""With the time limits that they have when nobody sets one."""


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: str = "200 OK") -> None:
    await reader.read(65_536)
    body = b"<html>It works</html>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    writer.close()


async def shell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    writer.close()


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Somebody at a port, in a thread of its own."""

    async def serve() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            await stop.wait()

    ports: list[int] = []
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # what TLS fails with is the client's to tell
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, "-days", "2", "-subj", "/CN=a"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return context


STRANGERS: dict[str, tuple[Answer, str]] = {
    "a page": (page, "another server"),
    "a page that is not there": (partial(page, status="404 Not Found"), "HTTP status 404"),
    "a proxy without a server": (partial(page, status="502 Bad Gateway"), "HTTP status 502"),
    "no HTTP": (shell, "SSH-2.0-OpenSSH_9.6"),
}


def told_at_once(url: str, call: str) -> str:
    with Client(url) as client:
        began_s = time.monotonic()
        with pytest.raises(MinilogError) as refused:
            AT_ONCE[call](client)
        assert time.monotonic() - began_s < 3
    return refused.value.detail


@pytest.mark.parametrize("call", AT_ONCE)
@pytest.mark.parametrize("who", STRANGERS)
def test_another_server_is_told_at_once_by_every_call(who: str, call: str) -> None:
    answer, cause = STRANGERS[who]
    with serving(answer) as port:
        told = told_at_once(f"http://127.0.0.1:{port}", call)
    assert f"http://127.0.0.1:{port}" in told
    assert cause in told


@pytest.mark.parametrize("call", AT_ONCE)
def test_so_is_a_port_that_speaks_tls(tls: ssl.SSLContext, call: str) -> None:
    with serving(page, tls) as port:
        told = told_at_once(f"http://127.0.0.1:{port}", call)
    assert f"http://127.0.0.1:{port}" in told
    assert "speaks TLS" in told


@pytest.mark.parametrize("call", AT_ONCE)
def test_so_is_one_that_speaks_none(call: str) -> None:
    with serving(page) as port:
        told = told_at_once(f"https://127.0.0.1:{port}", call)
    assert f"https://127.0.0.1:{port}" in told
    assert "does this broker speak http:// without TLS?" in told


def test_a_certificate_that_nobody_knows_is_the_cause_that_is_told(tls: ssl.SSLContext) -> None:
    with serving(page, tls) as port:
        told = said(f"https://127.0.0.1:{port}", "list_topics")
    assert "self-signed certificate" in told
    assert "without TLS" not in told


def test_one_wrong_address_beside_a_right_one_hides_nothing() -> None:
    cluster = FakeCluster()
    cluster.create("t")

    class Mixed(FakeCluster):
        async def request(self, method: str, url: str, *rest: Any) -> Response:
            if url.startswith("http://page"):
                return Response(200, {"content-type": "text/html"}, b"<html>")
            return await cluster.request(method, url, *rest)

    for bootstrap in (["http://page", *cluster.bootstrap], [*cluster.bootstrap, "http://page"]):
        with Client(bootstrap, transport=Mixed()) as client:
            assert client.producer().send("t", b"x").result(5).topic == "t"
            assert reading(client.consumer("t"), SyncConsumer.batch)


def test_a_stranger_in_the_place_of_a_broker_that_was_heard_may_pass() -> None:
    """As the page of a proxy does while brokers restart."""
    cluster = FakeCluster()
    cluster.create("t")
    away = threading.Event()

    class Proxied(FakeCluster):
        async def request(self, method: str, url: str, *rest: Any) -> Response:
            if away.is_set() and "/v1/metadata" in url:
                return Response(200, {"content-type": "text/html"}, b"<html>")
            return await cluster.request(method, url, *rest)

    with Client(cluster.bootstrap, transport=Proxied()) as client:
        producer = client.producer()
        producer.send("t", b"x").result(5)
        away.set()
        cluster.create("u")
        future = producer.send("u", b"x")
        with pytest.raises(TimeoutError):
            future.result(1)
        away.clear()
        assert future.result(5).topic == "u"


def said(url: str, call: str) -> str:
    with Client(url) as client, pytest.raises(MinilogError) as refused:
        CALLS[call](client)
    error: MinilogError = refused.value
    return error.detail


@pytest.mark.parametrize("call", CALLS)
def test_nobody_listens(call: str) -> None:
    with socket.socket() as held:  # bound, and refusing
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        told = said(url, call)
    assert url in told
    assert "Connection refused" in told
    assert "ssl" not in told


@pytest.mark.parametrize("call", CALLS)
def test_a_name_does_not_resolve(call: str) -> None:
    url = "http://nohost.invalid:8082"
    told = said(url, call)
    assert url in told
    assert "cannot be resolved" in told
