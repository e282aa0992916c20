"""Stories of what can be read: nothing else is acknowledged, and what was taken all the same, by a
broker that did not look inside, stops nobody."""

from __future__ import annotations

import json
from typing import Any

from minilog.broker.http.records.record_page import PAGE_BYTES_MIN, Wanted, page_of
from minilog.core.broker.requests.consumer_read import find_offset
from minilog.wire.codec.compression import CODECS
from minilog.wire.messages import (
    ACKS_ALL,
    OffsetsPartition,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
)
from minilog.wire.records import encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response
from tests.sim.nodes.older import older_brokers
from tests.unit.wire.batches import unreadable

FINE = encode_values([b"1", b"2"], 1000, keys=[b"k", b"l"])
NUMBERED: dict[str, Any] = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}
UNNUMBERED: dict[str, Any] = {}


def cluster() -> SimCluster:
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    return c


def send(c: SimCluster, *batches: bytes) -> ProduceResult:
    answers: list[Response] = []
    message = Produce(ACKS_ALL, 1000, [ProducePartition("t", 0, memoryview(b"".join(batches)))])
    c.admin.ask(c.leader("t"), message, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    (answer,) = answers
    assert isinstance(answer, ProduceReply), answer
    return answer.partitions[0]


def shown(c: SimCluster, broker_id: int, offset: int) -> list[tuple[int, str]]:
    """What a reader of JSON is shown from there on, page by page: offsets, and values or codes."""
    log, wanted = c.log(broker_id, "t"), Wanted(1, "json", "json", PAGE_BYTES_MIN, 1 << 20)
    found: list[tuple[int, str]] = []
    while data := log.read(offset, 1 << 20, log.end_offset):
        page = page_of(memoryview(data), offset, -1, wanted)
        assert page.next_offset > offset, "a reader that stays where it is reads the same for ever"
        for text in page.texts:
            record = json.loads(text)
            told = record["error"]["code"] if "error" in record else str(record["value"])
            found.append((record["offset"], told))
        offset = page.next_offset
    return found


def test_a_batch_that_nobody_could_read_is_refused_and_nothing_of_it_is_written() -> None:
    """R41: whatever it is compressed with, and with a number too. A batch that follows is no gap."""
    c = cluster()
    for compression in CODECS:
        for number in (UNNUMBERED, NUMBERED):
            result = send(c, FINE, unreadable(3, compression, **number))
            assert result.problem is not None
            assert (result.problem.code, result.problem.definite) == ("CORRUPT_BATCH", True)
    assert c.ends("t") == [0, 0, 0]
    assert send(c, encode_values([b"v"], 1000, **NUMBERED)).base_offset == 0


def test_what_was_taken_unread_stops_neither_replicas_nor_their_start_nor_readers() -> None:
    """R41: it is copied, found again by a start with the number of its producer, looked up by its
    time, and marked where records are shown."""
    c = cluster()
    assert send(c, FINE).problem is None
    with older_brokers():
        assert send(c, unreadable(3, "zstd"), unreadable(2, **NUMBERED)).problem is None
    assert send(c, FINE).base_offset == 7
    c.kill_all()
    c.start_all()
    c.settle("t")
    assert c.ends("t") == [9, 9, 9]
    everything = [(0, "1"), (1, "2"), (2, "CORRUPT_BATCH"), (5, "CORRUPT_BATCH"), (7, "1"), (8, "2")]
    for broker_id in (1, 2, 3):
        assert shown(c, broker_id, 0) == everything
        assert shown(c, broker_id, 6) == [(6, "CORRUPT_BATCH"), *everything[4:]]
    again = send(c, encode_values([b"v", b"w"], 1000, **NUMBERED))
    assert (again.duplicate, again.base_offset) == (True, 5), "the start has found its number"
    leader = c.replica(c.leader("t"), "t")
    assert leader is not None
    assert find_offset(leader, OffsetsPartition("t", 0, 1000)).offset == 0
    assert find_offset(leader, OffsetsPartition("t", 0, 2000)).offset == 9
