"""What a command leaves behind: its exit code and one sentence; and how it asks a cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from minilog.cli.api import Api, resolve_url
from minilog.cli.bench.report import latency_figures, percentile, throughput_figures
from minilog.cli.cluster.cluster import sentence, sound
from minilog.cli.cluster.partition import partition_rows
from minilog.cli.local.ports import free_ports
from minilog.cli.main import explain, run
from minilog.cli.output import CliError
from minilog.cli.topic.alter import config_of
from minilog.cli.topic.consume import Start, parse_start
from minilog.errors import BrokerUnavailable, NotEnoughReplicas, RefusesToStart, TimedOut, UnknownTopic
from minilog.settings import BadSettings
from minilog.wire.http import problem_body
from minilog.wire.json.json_answers import Health, PartitionHealth
from minilog.wire.messages import MetadataReply, PartitionInfo, TopicInfo

PARTITIONS = [
    PartitionInfo(0, leader=1, leader_epoch=3, partition_epoch=7, replicas=[1, 2, 3], isr=[1, 2, 3]),
    PartitionInfo(1, leader=2, leader_epoch=0, partition_epoch=0, replicas=[2, 3, 1], isr=[2]),
    PartitionInfo(2, leader=-1, leader_epoch=1, partition_epoch=2, replicas=[3, 1, 2], isr=[3, 1]),
]
METADATA = MetadataReply("c", 9, 1, [], [TopicInfo("orders", "id", PARTITIONS, {"min.insync.replicas": "2"})])
METADATA_JSON = {
    "cluster_id": "c", "metadata_offset": 9, "controller_epoch": 1, "brokers": [],
    "topics": [
        {"topic": "orders", "topic_id": "id", "config": {}, "partitions": [
            {"partition": 0, "leader": 1, "leader_epoch": 0, "partition_epoch": 0, "replicas": [1], "isr": [1]}]},
    ],
}  # fmt: skip


@contextmanager
def broker(answers: dict[str, tuple[int, str, bytes]]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that answers each path as told; yields its URL and what it was asked."""
    asked: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((f"{self.command} {self.path}", body))
            status, kind, answer = answers[self.path.partition("?")[0]]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def as_json(value: Any) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(value).encode()


def test_a_dead_broker_is_passed_over_and_all_dead_is_a_sentence() -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with broker({"/v1/metadata": as_json(METADATA_JSON)}) as (url, _):
        assert Api(f"{dead},{url}").metadata().topics[0].topic == "orders"
    with pytest.raises(BrokerUnavailable, match="cannot reach") as caught:
        Api(dead).metadata()
    assert explain(caught.value)[0] == 3


def test_the_errors_of_the_cluster_arrive_as_what_they_are() -> None:
    refusal = (503, "application/problem+json", problem_body(NotEnoughReplicas("one of two is there")))
    with broker({"/v1/topics": refusal}) as (url, asked), pytest.raises(NotEnoughReplicas, match="one of two"):
        Api(url).create_topic("orders", 3, 0, {"min.insync.replicas": "2"})
    assert asked[0][0] == "POST /v1/topics"
    assert json.loads(asked[0][1]) == {"topic": "orders", "config": {"min.insync.replicas": "2"}, "partitions": 3}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["topic", "create"], 2, "NAME"),
        (["topic", "create", "x", "-p", "0"], 2, "--partitions"),
        (["topic", "list", "--url", "nowhere"], 2, "is not a URL"),
        (["topic", "delete", "x"], 2, "say --yes"),
        (["topic", "consume", "x", "-f", "%q"], 2, "not a token"),
        (["topic", "produce", "x", "--acks", "some"], 2, "--acks"),
        (["dev", "status", "--data", "/nonexistent/minilog"], 1, "no dev cluster"),
        (["dev", "up", "--topics", "a:b"], 2, "--topics"),
        (["config", "check", "/nonexistent/broker.toml"], 2, "does not exist"),
        (["broker", "run", "--set", "port=x"], 2, "port"),
        (["log", "verify", "/nonexistent.log"], 2, "does not exist"),
        (["demo", "--file", "/nonexistent.ndjson"], 2, "cannot be read"),
        (["bench", "produce", "--acks", "x"], 2, "--acks"),
    ],
)
def test_misuse_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.startswith("minilog: ")
    assert len(printed.err.splitlines()) == 1


def test_commands_print_what_the_cluster_says(capsys: pytest.CaptureFixture[str]) -> None:
    health = {
        "healthy": False,
        "offline": [{"topic": "orders", "partition": 2, "leader": -1, "replicas": [1], "isr": [1], "min_isr": 1}],
        "brokers_not_running": [3],
    }
    answers = {"/v1/metadata": as_json(METADATA_JSON), "/v1/cluster/health": as_json(health)}
    with broker(answers) as (url, _):
        assert run(["topic", "list", "--url", url, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["topic"] == "orders"
        assert run(["cluster", "health", "--url", url]) == 1
        assert "unhealthy: 1 partition offline; not running: broker 3" in capsys.readouterr().out
        assert run(["partition", "list", "--url", url, "--offline"]) == 0
        assert "no offline partitions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliError("x", 2), 2),
        (BadSettings("x"), 2),
        (RefusesToStart("x"), 1),
        (BrokerUnavailable("x"), 3),
        (TimedOut("x"), 3),
        (UnknownTopic("x"), 1),
        (ExceptionGroup("g", [BrokerUnavailable("x")]), 3),
        (ValueError("x"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert explain(error)[0] == code
    assert "x" in explain(error)[1]


def test_partitions_name_their_problems() -> None:
    rows = partition_rows(METADATA)
    assert [row["state"] for row in rows] == ["ok", "under-min-isr", "offline"]
    assert rows[1]["problems"] == ["under-min-isr", "under-replicated"]
    assert rows[2]["leader"] is None


def test_health_in_words() -> None:
    assert sentence(Health(True)) == "healthy"
    missing = Health(True, under_replicated=[PartitionHealth("t", 0, 1, [1, 2], [1], 1)], brokers_not_running=[2])
    assert sentence(missing) == "healthy, but 1 partition under-replicated; not running: broker 2"
    assert sound(Health(True))
    assert not sound(missing)


def test_where_to_start_reading() -> None:
    assert parse_start("beginning") == Start("earliest")
    assert parse_start("42") == Start(offset=42)
    assert parse_start("-3") == Start(last=3)
    assert parse_start("@1700") == Start(at_ms=1700)
    for bad in ("", "-", "--3", "@-1", "x", "1.5", "9" * 30, "\u0663"):
        with pytest.raises(CliError):
            parse_start(bad)


def test_topic_config_and_urls() -> None:
    assert config_of(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(CliError):
            config_of(bad)
    assert resolve_url("http://a:1,http://b:2") == "http://a:1,http://b:2"
    for url in ("a:1", "ftp://a", "http://"):
        with pytest.raises(CliError):
            resolve_url(url)


def test_figures() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert percentile([], 0.5) == 0.0
    few = latency_figures([3.0, 1.0])
    assert few == {"p50_ms": 1.0, "p99_ms": None, "p999_ms": None, "max_ms": 3.0, "n": 2}
    many = latency_figures([float(value) for value in range(1, 1001)])
    assert many == {"p50_ms": 500.0, "p99_ms": 990.0, "p999_ms": 999.0, "max_ms": 1000.0, "n": 1000}
    assert throughput_figures(1000, 2_000_000, 2.0)["mb_per_second"] == 1.0
