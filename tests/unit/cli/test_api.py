"""Commands over several URLs: what is asked again, what is not, and what is said of what may have
happened."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from minilog.cli import api as api_module
from minilog.cli.api import Api, resolve_url
from minilog.cli.group.api import GroupApi
from minilog.cli.local.cluster import http_ok
from minilog.cli.local.ports import free_ports
from minilog.cli.main import explain
from minilog.cli.output import CliError
from minilog.errors import BrokerUnavailable, MinilogError, Overloaded, TimedOut, UnknownTopic
from minilog.wire.http import problem_body
from minilog.wire.json.json_answers import OffsetFound

END = msgspec.json.encode(OffsetFound("t", 0, 1, None, None, "id-t"))
DONE = b'{"topic": "t", "topic_id": "i", "partitions": [], "config": {}}'


class Broker:
    """A real server: answers questions, and does with changes what it is told to."""

    def __init__(self, on_change: Callable[[BaseHTTPRequestHandler], None] | None = None) -> None:
        self.asked: list[str] = []
        broker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                broker.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                answer(self, 200, END)

            def do_DELETE(self) -> None:
                broker.asked.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                (on_change or (lambda handler: answer(handler, 200, DONE)))(self)

            do_POST = do_PUT = do_PATCH = do_DELETE  # noqa: N815

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Broker:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def changes(self) -> list[str]:
        return [asked for asked in self.asked if not asked.startswith("GET")]


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, media: str = "application/json") -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", media)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def slow(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)
    answer(handler, 200, DONE)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def half_an_answer(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{")
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def frozen() -> Iterator[str]:
    """A broker that was stopped by SIGSTOP: the kernel takes connections, nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


CHANGES: list[Callable[[GroupApi], object]] = [
    lambda api: api.create_topic("t", 1, 1, {}),
    lambda api: api.add_partitions("t", 2),
    lambda api: api.delete_topic("t"),
    lambda api: api.delete_group("g", 3),
    lambda api: api.commit("g", {("t", 0): 1}, 3),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fate", [slow, hang_up, reset, half_an_answer])
def test_a_change_whose_answer_does_not_come_is_sent_once_and_may_have_happened(
    change: Callable[[GroupApi], object], fate: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    with Broker(fate) as first, Broker() as second:
        with pytest.raises(MinilogError) as caught:
            change(GroupApi(f"{first.url},{second.url}", timeout_s=0.3))
        assert len(first.changes) == 1
        assert not second.changes
    assert not caught.value.definite
    assert "may have happened" in caught.value.detail
    assert isinstance(caught.value, TimedOut if fate is slow else BrokerUnavailable)
    assert explain(caught.value)[0] == 3


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_not_entrusted_to_a_broker_that_does_not_answer(change: Callable[[GroupApi], object]) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with frozen() as stopped, Broker() as alive:
        change(GroupApi(f"{dead},{stopped},{alive.url}", timeout_s=0.3))
        assert len(alive.changes) == 1


def test_a_change_nobody_could_be_given_is_definite() -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    for urls in (dead, f"{dead},{dead}"):
        with pytest.raises(BrokerUnavailable, match="cannot reach") as caught:
            Api(urls).delete_topic("t")
        assert caught.value.definite
    with frozen() as stopped, pytest.raises(BrokerUnavailable) as caught:
        Api(f"{stopped},{dead}", timeout_s=0.2).delete_topic("t")
    assert caught.value.definite, "it was asked whether it answers, and given nothing"


def test_questions_go_on_to_the_next_broker_whatever_happens() -> None:
    with ExitStack() as stack:
        stopped = stack.enter_context(frozen())
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        alive = stack.enter_context(Broker())

        def hang_up_on_all() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                client.recv(1000)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")
                client.close()

        threading.Thread(target=hang_up_on_all, daemon=True).start()
        broken = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert Api(f"{broken},{stopped},{alive.url}", timeout_s=0.3).end_offset("t", 0) == 1
        listening.shutdown(socket.SHUT_RDWR)


def test_a_frozen_first_broker_costs_one_short_time_per_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SHORT_TIMEOUT_S", 0.3)
    with frozen() as stopped, Broker() as alive:
        api = GroupApi(f"{stopped},{alive.url}", timeout_s=60)
        began_s = time.monotonic()
        for partition in range(5):
            assert api.end_offset("t", partition) == 1
        api.delete_topic("t")
        api.delete_group("g", 3)
        assert 0.3 <= time.monotonic() - began_s < 1.5


def test_the_last_broker_of_the_list_is_given_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SHORT_TIMEOUT_S", 0.05)
    with frozen() as stopped:
        began_s = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            Api(f"{stopped},{stopped}", timeout_s=0.4).end_offset("t", 0)
        assert time.monotonic() - began_s >= 0.4
        assert caught.value.definite
        assert "no answer in 0.4 s" in caught.value.detail


def test_a_refusal_is_an_answer() -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        answer(handler, 404, problem_body(UnknownTopic("there is no topic 't'")), "application/problem+json")

    with Broker(refuse) as first, Broker() as second:
        with pytest.raises(UnknownTopic):
            Api(f"{first.url},{second.url}").delete_topic("t")
        assert not second.asked


def test_no_proxy_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with Broker() as alive:
        assert Api(alive.url).end_offset("t", 0) == 1
        assert http_ok(alive.url + "/healthz")


@pytest.mark.parametrize(
    "url", ["http://a..b:1", f"http://{'x' * 64}:1", "http://[::1", "http://a:99999", "http://a:0", "http://a:x", "a:1"]
)
def test_what_is_no_url_is_said_so(url: str) -> None:
    with pytest.raises(CliError) as refused:
        resolve_url(url)
    assert refused.value.exit_code == 2
    assert repr(url) in refused.value.sentence


def test_a_host_beyond_ascii_is_asked_for_as_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    names = {"xn--bcher-kva.test": "127.0.0.1"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **o: real(names.get(host, host), *a, **o))
    with Broker() as alive:
        port = alive.url.rpartition(":")[2]
        assert Api(f"http://bücher.test:{port}").end_offset("t", 0) == 1


def overloaded(*, definite: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        body = problem_body(Overloaded("too much at once", definite=definite))
        answer(handler, 503, body, "application/problem+json")

    return refuse


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_one_broker_definitely_refuses_for_now_goes_to_the_next(
    change: Callable[[GroupApi], object],
) -> None:
    with Broker(overloaded(definite=True)) as first, frozen() as stopped, Broker() as last:
        change(GroupApi(f"{first.url},{stopped},{last.url}", timeout_s=0.3))
        assert (len(first.changes), len(last.changes)) == (1, 1)


def test_a_change_that_may_have_happened_goes_nowhere_else() -> None:
    with Broker(overloaded(definite=False)) as first, Broker() as second:
        with pytest.raises(Overloaded):
            Api(f"{first.url},{second.url}").delete_topic("t")
        assert not second.changes


def test_what_all_brokers_refuse_is_refused() -> None:
    with Broker(overloaded(definite=True)) as first, Broker(overloaded(definite=True)) as second:
        with pytest.raises(Overloaded, match="too much"):
            Api(f"{first.url},{second.url}").delete_topic("t")
        assert (len(first.changes), len(second.changes)) == (1, 1)


def test_an_answer_to_a_change_that_is_not_understood_may_mean_anything() -> None:
    with Broker(lambda handler: answer(handler, 200, b"[1]")) as only, pytest.raises(BrokerUnavailable) as caught:
        Api(only.url).delete_topic("t")
    assert not caught.value.definite
    assert "may have happened" in caught.value.detail
