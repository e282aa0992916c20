"""A whole topic as server-sent events through the death of a leader: a client that comes back to
another broker with Last-Event-ID misses nothing and sees nothing twice."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

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
