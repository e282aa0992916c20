"""A cluster on uvloop: what minilog asks of a transport and of a loop, that one does as well."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from minilog_client import Client
from tests.process.conftest import leave_out
from tests.process.rig.cluster import ProcessCluster, process_cluster

RECORDS = "/v1/topics/t/records"
PAGE = "/v1/topics/t/partitions/0/records"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        leave_out("uvloop is not installed")
    with process_cluster(tmp_path_factory.mktemp("uvloop") / "cluster", event_loop="uvloop") as made:
        with Client(made.url) as client:
            client.create_topic("t", 1, 3, {"min.insync.replicas": "2"})
        yield made
        for name in made.names:
            assert "the event loop is that of uvloop" in made.log(name)
            assert "this is a bug" not in made.log(name)
            assert "unhandled" not in made.log(name)


@pytest.fixture
def wire(cluster: ProcessCluster) -> Iterator[socket.socket]:
    """To the leader."""
    cluster.wait_in_sync("t")
    url = cluster.url.split(",")[cluster.broker_ids.index(cluster.leader("t"))]
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as made:
        yield made


def post(path: str, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def answered(wire: socket.socket) -> tuple[int, bytes]:
    """The status and the body of the next answer."""
    with wire.makefile("rb", buffering=0) as file:
        status, length = int(file.readline().split()[1]), 0
        while (line := file.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = b""
        while len(body) < length:
            body += file.read(length - len(body)) or b""
        return status, body


def produced(wire: socket.socket, value: object) -> int:
    body = json.dumps({"records": [{"value": value}]}).encode()
    wire.sendall(post(RECORDS, f"Content-Length: {len(body)}") + body)
    status, answer = answered(wire)
    assert status == 200, answer
    return int(json.loads(answer)["results"][0]["offset"])


def test_long_bodies_and_chunks_of_one_byte(wire: socket.socket) -> None:
    produced(wire, "x" * 1_000_000)
    body = json.dumps({"records": [{"value": 1}] * 100_000}).encode()
    wire.sendall(post(RECORDS, f"Content-Length: {len(body)}"))
    for start in range(0, len(body), 100_000):
        wire.sendall(body[start : start + 100_000])
        time.sleep(0.005)
    status, answer = answered(wire)
    assert status == 200, answer
    assert len(json.loads(answer)["results"]) == 100_000
    wire.sendall(post(RECORDS, "Transfer-Encoding: chunked"))
    for byte in b'{"records": [{"value": 1}]}':
        wire.sendall(b"1\r\n%c\r\n" % byte)
    wire.sendall(b"0\r\n\r\n")
    assert answered(wire)[0] == 200


def test_reading_pauses_behind_a_poll_and_goes_on(wire: socket.socket) -> None:
    end = produced(wire, 1) + 1
    wire.sendall(f"GET {PAGE}?offset={end}&wait_ms=700 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    ahead = HEALTH * 1500
    wire.sendall(ahead)
    assert len(ahead) > 64 * 1024 - 20_000
    assert answered(wire)[0] == 200
    assert [answered(wire)[0] for _ in range(1500)] == [200] * 1500


def test_a_reader_that_takes_its_time_has_a_whole_answer(wire: socket.socket) -> None:
    first = produced(wire, "y" * 900_000)
    for _ in range(9):
        last = produced(wire, "y" * 900_000)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    wire.sendall(f"GET {PAGE}?offset={first}&max_bytes=16000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    time.sleep(1.0)
    status, body = answered(wire)
    assert (status, json.loads(body)["next_offset"]) == (200, last + 1)


def test_a_tail_is_told_of_what_comes(cluster: ProcessCluster, wire: socket.socket) -> None:
    end = produced(wire, 1) + 1
    host, port = wire.getpeername()[:2]
    with socket.create_connection((host, port), timeout=20) as tail, tail.makefile("rb") as events:
        tail.sendall(
            f"GET {PAGE}?offset={end} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        assert b"200" in events.readline()
        for value in range(3):
            assert produced(wire, value) == end + value
            while not (line := events.readline()).startswith(b"id: "):
                pass
            assert line.startswith(b"id: 0-%d-" % (end + value))


def test_who_leaves_in_the_middle_and_who_speaks_no_http(cluster: ProcessCluster, wire: socket.socket) -> None:
    address = wire.getpeername()[:2]
    for sent in (post(RECORDS, "Content-Length: 90") + b"{", b"GET /hea", post(RECORDS, "Transfer-Encoding: chunked")):
        with socket.create_connection(address) as one:
            one.sendall(sent)
    with socket.create_connection(address, timeout=20) as one:
        one.sendall(b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n")
        assert answered(one)[0] == 400
        assert one.recv(1) == b""
    with socket.create_connection(address, timeout=20) as one:
        one.sendall(HEALTH)
        one.shutdown(socket.SHUT_WR)
        assert answered(one)[0] == 200
    assert produced(wire, 1) > 0


def test_kill_9_of_the_leader_loses_nothing_and_is_noticed_at_once(cluster: ProcessCluster) -> None:
    cluster.wait_in_sync("t")
    with Client(cluster.url) as client:
        producer, sent = client.producer(), []
        for round_ in range(3):
            sent += [producer.send("t", f"{round_}-{number}".encode()) for number in range(200)]
            victim = cluster.leader("t")
            cluster.kill(victim)
            began_s = time.monotonic()
            sent.append(producer.send("t", f"{round_}-after".encode()))
            sent[-1].result(timeout=20)
            assert time.monotonic() - began_s < 1.9, "a refused connection is noticed before the session is over"
            cluster.start(victim)
            cluster.wait_in_sync("t")
        receipts = [future.result(timeout=20) for future in sent]
        start = min(receipt.offset or 0 for receipt in receipts)
        with client.consumer("t", start=start) as consumer:
            read: list[bytes] = []
            while len(read) < len(sent):
                read += [record.value or b"" for record in consumer.batch(max_wait_ms=5000)]
    expected = [b"%d-%s" % (r, n) for r in range(3) for n in [*(b"%d" % i for i in range(200)), b"after"]]
    assert [value for value in read if b"-" in value] == expected


def test_everybody_stops_cleanly_and_comes_back(cluster: ProcessCluster) -> None:
    for broker_id in cluster.broker_ids:
        cluster.wait_in_sync("t")
        assert cluster.terminate(broker_id) < 10
        assert (cluster.data_dir(broker_id) / "clean-shutdown").exists()
        cluster.start(broker_id)
    cluster.terminate("controller")
    cluster.start("controller")
    cluster.wait_in_sync("t")
