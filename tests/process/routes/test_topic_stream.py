"""A whole topic as server-sent events through the death of a leader: a client that comes back to
another broker with Last-Event-ID misses nothing and sees nothing twice."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilog.testing import MinilogCluster
from minilog_client import Client
from tests.process.rig.cluster import process_cluster
from tests.process.routes.test_group_routes import Shell

RECORDS = 3000
PARTITIONS = 6


def events(url: str, last: str) -> Iterator[tuple[str, Any]]:
    """Id and data of each event, until the stream ends, however it does."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    request = urllib.request.Request(f"{url}/v1/topics/t/records?offset=earliest", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            found: dict[str, str] = {}
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if not name and "id" in found:
                    yield found["id"], json.loads(found["data"])
                found = {} if not name else found | {name: value}
    except (OSError, urllib.error.HTTPError):
        return


def test_a_stream_of_a_topic_survives_the_death_of_a_leader(tmp_path_factory: Any) -> None:
    with process_cluster(tmp_path_factory.mktemp("stream") / "cluster") as cluster:
        shell = Shell(cluster)
        shell.ok("POST", "/v1/topics", {"topic": "t", "partitions": PARTITIONS, "replication_factor": 3})
        seen: Counter[int] = Counter()
        last, turn, sent_rest = "", 0, False
        with Client(cluster.url) as client:
            producer = client.producer(linger_ms=1)
            for number in range(RECORDS // 2):
                producer.send("t", b"%d" % number)
            while len(seen) < RECORDS:
                for cursor, record in events(shell.urls[turn % 3], last):
                    last = cursor
                    seen[record["value"]] += 1
                    if len(seen) == RECORDS // 3:
                        cluster.kill(1)  # who serves the stream, and leads a third of the partitions
                    if len(seen) == RECORDS // 3 + 1 and not sent_rest:
                        sent_rest = True
                        for number in range(RECORDS // 2, RECORDS):
                            producer.send("t", b"%d" % number)
                    if len(seen) == RECORDS:
                        break
                turn += 1
            producer.flush()
        assert turn > 1, "the stream was broken off"
        assert set(seen) == set(range(RECORDS)), "nothing is missed"
        assert set(seen.values()) == {1}, "and nothing comes twice"


def lines(cluster: MinilogCluster, broker: int, path: str, token_file: Path) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
    request = urllib.request.Request(cluster.url_of(broker) + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, [json.loads(line) for line in answer.read().split(b"\n") if line]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["code"]


def test_a_stream_and_a_group_are_for_those_who_may(minilog_secured: MinilogCluster) -> None:
    """Also what the broker that is asked has to read from others."""
    for topic in ("orders", "secret"):
        minilog_secured.create_topic(topic, partitions=PARTITIONS)
    reader = minilog_secured.add_principal("reader", allow=["read orders"])
    member = minilog_secured.add_principal("member", allow=["read orders", "group mail"])
    producer = minilog_secured.client().producer()
    for number in range(60):
        producer.send("orders", b"%d" % number, key=b"%d" % number)
    producer.flush()
    path = "/v1/topics/orders/records"
    for broker in minilog_secured.broker_ids:
        status, found = lines(minilog_secured, broker, path, reader)
        assert (status, sorted(line["value"] for line in found)) == (200, list(range(60)))
    assert lines(minilog_secured, 1, "/v1/topics/secret/records", reader) == (403, "FORBIDDEN")
    back = f"{path}?group=mail&cursor={found[29]['cursor']}"
    for target in (f"{path}?group=mail", back):
        assert lines(minilog_secured, 1, target, reader) == (403, "FORBIDDEN")
    rest = sorted(line["value"] for line in found[30:])
    for broker, target in ((2, back), (3, f"{path}?group=mail")):
        status, more = lines(minilog_secured, broker, target, member)
        assert (status, sorted(line["value"] for line in more)) == (200, rest)
