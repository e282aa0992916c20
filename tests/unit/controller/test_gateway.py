"""What stands between a controller and etcd may answer anything: the outcome is one of three."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from minilog.controller.etcd.access import Access, Endpoint
from minilog.controller.etcd.gateway import Gateway, Pin
from minilog.core.controller.shared.transaction import Get, NotSent, Refused, Transaction, Unsure

ASKED = Transaction((), (Get("/a"),))
WELL = {"/version": b'{"etcdserver":"3.5.0"}', "/v3/kv/range": b'{"header":{"cluster_id":"1","revision":"7"}}'}


class Etcd(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Etcd)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    made = Gateway(Access((Endpoint("127.0.0.1", server.server_port, False),), None, "", ""), Pin(), "/term", 1000)
    yield made
    made.close()
    server.shutdown()
    server.server_close()


def say(status: int, body: bytes) -> None:
    others = ("/v3/kv/txn", "/v3/lease/grant", "/v3/lease/keepalive")
    Etcd.answers = {path: (200, told) for path, told in WELL.items()} | dict.fromkeys(others, (status, body))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b'{"code":"UNAVAILABLE","message":"upstream"}'),
        (503, b'{"error":{"grpc_code":null,"message":"upstream"}}'),
        (200, b'{"header":3}'),
        (200, b'{"header":null,"result":null}'),
        (200, b'{"header":{"cluster_id":"1"},"responses":7,"succeeded":true,"ID":"x","result":{"TTL":"x"}}'),
        (200, b'{"header":{"cluster_id":"1","revision":"1"},"responses":[3],"succeeded":true,"result":3}'),
        (200, b"[]"),
        (200, b"<html>"),
    ],
)
@pytest.mark.parametrize("call", [lambda g: g.run(ASKED), lambda g: g.grant(2), lambda g: g.keep_alive(1)])
def test_what_etcd_never_answers_leaves_the_outcome_unknown(
    gateway: Gateway, call: Callable[[Gateway], object], status: int, body: bytes
) -> None:
    """An exception of another kind ends the controller, and so all that ask by the same proxy."""
    say(status, body)
    try:
        outcome = call(gateway)
    except (NotSent, Unsure, Refused):
        return
    assert outcome is False, "of a lease: it is over, and another one is granted"
