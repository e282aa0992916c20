"""What can be read, on real processes (R41): no way in takes what nobody could read, and what older
brokers have taken stops nobody."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog.errors import CorruptBatch
from minilog.wire.batch import split, stamp
from minilog.wire.codec.compression import CODECS
from minilog.wire.http import BATCH, EVENTS, JSON, MSGPACK, NDJSON
from minilog.wire.messages import ACKS_ALL, Produce, ProducePartition, ProduceReply, decode, encode
from minilog.wire.records import encode_values
from minilog_client import Client
from tests.process.faults.test_disks import Bench
from tests.process.rig.cluster import ProcessCluster, process_cluster
from tests.unit.wire.batches import unreadable

RECORDS = "/v1/topics/t/partitions/0/records"
MARKED = [(0, "1"), (1, "CORRUPT_BATCH"), (4, "CORRUPT_BATCH"), (6, "2")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with process_cluster(tmp_path / "cluster", overrides=("session_timeout_ms=2000",)) as cluster:
        found = Bench(cluster)
        found.create(min_isr=2)
        yield found


def asked(cluster: ProcessCluster, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Of the leader."""
    url = cluster.url.split(",")[cluster.broker_ids.index(cluster.leader("t"))]
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, body, names), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def events(cluster: ProcessCluster, path: str, last: int, **headers: str) -> list[Any]:
    """The data of a tail's events up to the one of offset ``last``."""
    url = cluster.url.split(",")[cluster.broker_ids.index(cluster.leader("t"))]
    names = {"Accept": EVENTS} | {name.replace("_", "-"): value for name, value in headers.items()}
    found: list[Any] = []
    with urllib.request.urlopen(urllib.request.Request(url + path, headers=names), timeout=10) as stream:
        while not found or found[-1]["offset"] != last:
            line = stream.readline()
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
    return found


def told(records: list[Any]) -> list[tuple[int, str]]:
    return [(r["offset"], r["error"]["code"] if "error" in r else str(r["value"])) for r in records]


def put_into_all_logs(cluster: ProcessCluster, epoch: int) -> None:
    """As brokers have left it that looked at headers and checksums alone: one record, two batches
    that cannot be decoded, one record."""
    for broker_id in cluster.broker_ids:
        (segment,) = (cluster.data_dir(broker_id) / "t-0").glob("*.log")
        end_offset = 1
        with segment.open("ab") as file:
            for data in (unreadable(3), unreadable(2, "zstd"), encode_values([b"2"], 2000)):
                whole = stamp(split(data, 1 << 20)[0], end_offset, epoch, 3)
                file.write(whole.tobytes())
                end_offset = whole.end_offset


def test_no_way_in_takes_what_nobody_could_read(bench: Bench) -> None:
    cluster = bench.cluster
    number = {"Minilog_Producer_Id": "0", "Minilog_Producer_Epoch": "0", "Minilog_Sequence": "0"}
    for compression in CODECS:
        bad = unreadable(3, compression)
        for headers in ({}, number):
            status, body = asked(cluster, RECORDS, bad, Content_Type=BATCH, **headers)
            answer = json.loads(body)
            assert (status, answer["code"], answer["definite"]) == (400, "CORRUPT_BATCH", True)
        message = encode(Produce(ACKS_ALL, 1000, [ProducePartition("t", 0, memoryview(bad))]))
        reply = decode(asked(cluster, "/v1/produce", message, Content_Type=MSGPACK)[1])
        assert isinstance(reply, ProduceReply)
        assert reply.partitions[0].problem is not None
        assert reply.partitions[0].problem.code == "CORRUPT_BATCH"
    status, body = asked(
        cluster, RECORDS, encode_values([b"1"], 1000, compression="zstd"), Content_Type=BATCH, **number
    )
    assert (status, json.loads(body)["results"][0]["offset"]) == (200, 0)


def test_what_older_brokers_have_taken_stops_no_reader(bench: Bench) -> None:
    cluster = bench.cluster
    asked(cluster, RECORDS, b'{"value": 1, "timestamp": 500}', Content_Type=NDJSON)
    epoch = bench.state()["leader_epoch"]
    cluster.kill(*cluster.names)
    put_into_all_logs(cluster, epoch)
    cluster.start(*cluster.names)
    cluster.wait_in_sync("t")
    assert bench.end() == 7

    status, body = asked(cluster, RECORDS)
    page = json.loads(body)
    assert (status, told(page["records"]), page["next_offset"]) == (200, MARKED, 7)
    assert [mark["end_offset"] for mark in page["records"][1:3]] == [4, 6]
    lines = asked(cluster, RECORDS, Accept=NDJSON)[1].splitlines()
    assert told([json.loads(line) for line in lines]) == MARKED
    assert told(json.loads(asked(cluster, RECORDS + "?errors_tolerance=all")[1])["records"]) == [MARKED[0], MARKED[3]]
    assert told(json.loads(asked(cluster, RECORDS + "?offset=5", Accept=JSON)[1])["records"]) == [
        (5, MARKED[2][1]),
        (6, "2"),
    ]
    assert told(events(cluster, RECORDS + "?offset=earliest", 6)) == MARKED
    assert told(events(cluster, RECORDS, 6, Last_Event_ID="0-3")) == MARKED[2:]
    assert json.loads(asked(cluster, "/v1/topics/t/partitions/0/offsets?at=1500")[1])["offset"] == 6
    read_by_python(cluster.url)
    read_by_command(bench)


def read_by_python(url: str) -> None:
    with Client(url) as client:
        with client.consumer("t") as consumer:
            assert [record.offset for record in consumer.batch(max_wait_ms=5000)] == [0]
            for end_offset in (4, 6):
                for _ in range(2):
                    with pytest.raises(CorruptBatch) as caught:
                        consumer.batch(max_wait_ms=5000)
                    assert caught.value.info["end_offset"] == end_offset
                consumer.seek("t", 0, end_offset)
            assert [record.offset for record in consumer.batch(max_wait_ms=5000)] == [6]
        with client.consumer("t", errors_tolerance="all") as consumer:
            assert [record.offset for record in consumer.batch(max_wait_ms=5000)] == [0, 6]


def read_by_command(bench: Bench) -> None:
    code, printed = bench.minilog("topic", "consume", "t", "-e", "-f", r"%o\n")
    assert code == 1
    assert [line for line in printed.splitlines() if line.isdecimal()] == ["0", "6"]
    assert "t-0: the records from 1 up to 4 cannot be decoded" in printed
    assert "Reading goes on at 6" in printed
    code, printed = bench.minilog("topic", "consume", "t", "-e", "--errors-tolerance", "all", "-f", r"%o\n")
    assert (code, [line for line in printed.splitlines() if line.isdecimal()]) == (0, ["0", "6"])
    code, printed = bench.minilog("topic", "consume", "t", "-e", "--group", "g", "-f", r"%o\n")
    assert code == 1
    assert "`--errors-tolerance all` skips them for this group" in printed
    code, printed = bench.minilog(
        "topic", "consume", "t", "-e", "--group", "g", "--errors-tolerance", "all", "-f", r"%o\n"
    )
    assert (code, [line for line in printed.splitlines() if line.isdecimal()]) == (0, ["6"])
    code, printed = bench.minilog("topic", "tail", "t", "--no-follow", "-f", r"%o\n")
    assert code == 1
    assert [line for line in printed.splitlines() if line.isdecimal()] == ["0", "6"]
    (folder, *_) = [bench.cluster.data_dir(broker_id) / "t-0" for broker_id in bench.cluster.broker_ids]
    code, printed = bench.minilog("log", "dump", "--records", str(folder))
    assert code == 1
    assert "offsets 1 to 3 cannot be decoded" in printed
    assert '"offset":6' in printed
