"""The produce routes: partitioning, forwarding, results, receipts, redirects, native envelopes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from minilog.config import Limits
from minilog.errors import LeaderNotAvailable, NotEnoughReplicas, NotLeader, RetriableError, TimedOut
from minilog.wire.batch import split
from minilog.wire.codec.murmur2 import partition_of
from minilog.wire.http import BATCH, JSON, MSGPACK, NDJSON, OCTETS
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import (
    Message,
    Metadata,
    MetadataReply,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    Probe,
    ProbeReply,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
    decode,
    encode,
)
from minilog.wire.records import Record, decode_batch, encode_values
from tests.unit.broker.http.fake_runtime import EPOCH, NOW_MS, FakeCluster
from tests.unit.broker.http.harness import Broker, Connection, orders, serving_app, with_broker

TOPIC = "/v1/topics/orders/records"
P0 = "/v1/topics/orders/partitions/0/records"
P1 = "/v1/topics/orders/partitions/1/records"
BATCHES = encode_values([b"a", b"b"], 7)


def body(*records: dict[str, Any]) -> bytes:
    return json.dumps({"records": records}).encode()


def stored(cluster: FakeCluster, partition: int, topic: str = "orders") -> list[Record]:
    return [record for batch in cluster.logs[topic, partition].batches for record in decode_batch(batch)]


def test_keyed_records_go_where_kafka_would_put_them_and_results_keep_their_order() -> None:
    keys = ["a", "b", "c", "d", "e", "f"]

    async def test(broker: Broker, connection: Connection) -> None:
        records = [{"key": key, "value": {"n": n}} for n, key in enumerate(keys)]
        answer = await connection.request("POST", TOPIC + "?format=json&key_format=text", body(*records), JSON)
        assert answer.status == 200, answer
        results = answer.json()["results"]
        wanted = [partition_of(key.encode(), 4) for key in keys]
        assert [result["partition"] for result in results] == wanted
        assert len(set(wanted)) > 1
        for n, result in enumerate(results):
            record = stored(broker.runtime.cluster, result["partition"])[result["offset"]]
            assert (record.key, record.value) == (keys[n].encode(), b'{"n": %d}' % n)
            assert result["timestamp"] == record.timestamp == NOW_MS
            assert result["leader_epoch"] == EPOCH

    with_broker(test)


def test_one_native_produce_per_leader_and_one_receipt_per_partition() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        records = [{"value": n, "partition": n} for n in (0, 1, 2, 3, 0)]
        answer = (await connection.request("POST", TOPIC, body(*records), JSON)).json()
        assert [len(m.partitions) for m in broker.runtime.submitted if isinstance(m, Produce)] == [2]
        ((url, forwarded),) = broker.runtime.calls
        assert url == "http://broker-2.test:80"
        assert isinstance(forwarded, Produce)
        assert [entry.partition for entry in forwarded.partitions] == [1, 3]
        receipts = {receipt["partition"]: receipt for receipt in answer["receipts"]}
        batch = broker.runtime.cluster.logs["orders", 0].batches[0]
        assert receipts[0] == {
            "topic": "orders",
            "partition": 0,
            "offset": 0,
            "end_offset": 2,
            "leader_epoch": EPOCH,
            "timestamp": NOW_MS,
            "crc": batch.crc,
            "acks": "all",
            "isr": [1, 2],
            "duplicate": False,
            "topic_id": broker.runtime.image.topics["orders"].topic_id,
        }
        assert sorted(receipts) == [0, 1, 2, 3]

    with_broker(test)


def test_unkeyed_records_share_a_partition_and_requests_rotate_over_those_with_a_leader() -> None:
    cluster = orders()
    cluster.lead("orders", 2, NO_LEADER)

    async def test(broker: Broker, connection: Connection) -> None:
        seen = []
        for _ in range(8):
            answer = (await connection.request("POST", TOPIC, body({"value": 1}, {"value": 2}), JSON)).json()
            first, second = (result["partition"] for result in answer["results"])
            assert first == second
            seen.append(first)
        assert set(seen) == {0, 1, 3}

    with_broker(test, cluster)


def test_ndjson_raw_records_and_every_field() -> None:
    header = {"name": "h", "value": base64.b64encode(b"\xff").decode()}

    async def test(broker: Broker, connection: Connection) -> None:
        line = json.dumps({"value": [1], "key": "k", "headers": [header], "timestamp": 0, "partition": 0}).encode()
        answer = await connection.request("POST", TOPIC, line + b"\n\n" + line, NDJSON)
        assert [result["timestamp"] for result in answer.json()["results"]] == [0, 0]
        wanted = (0, b"k", b"[1]", (("h", b"\xff"),))
        assert [(r.timestamp, r.key, r.value, r.headers) for r in stored(broker.runtime.cluster, 0)] == [wanted] * 2

        answer = await connection.request("POST", TOPIC + "?key=%00%ff", b"\x01\x02", OCTETS)
        (result,) = answer.json()["results"]
        (record,) = stored(broker.runtime.cluster, result["partition"])[result["offset"] :]
        assert (record.key, record.value, record.timestamp) == (b"\x00\xff", b"\x01\x02", NOW_MS)

    with_broker(test)


def test_acks_0_answers_202_without_offsets() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", P0 + "?acks=0", body({"value": 1}), JSON)
        assert answer.status == 202
        assert answer.json() == {"results": [{"partition": 0, "timestamp": NOW_MS}], "receipts": []}
        answer = await connection.request("POST", P0 + "?acks=0", BATCHES, BATCH)
        assert (answer.status, answer.json()["receipts"]) == (202, [])

    with_broker(test)


def test_the_leaders_time_is_reported_when_the_topic_says_so() -> None:
    cluster = orders()
    cluster.create("stamped", 1, {"message.timestamp.type": "LogAppendTime"})

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request(
            "POST", "/v1/topics/stamped/records", body({"value": 1, "timestamp": 9}), JSON
        )
        assert answer.json()["results"][0]["timestamp"] == NOW_MS + 5

    with_broker(test, cluster)


def test_some_records_fail_and_the_others_do_not() -> None:
    cluster = orders()
    cluster.create("small", 1, {"max.message.bytes": "1024"})

    async def test(broker: Broker, connection: Connection) -> None:
        records: list[dict[str, Any]] = [
            {"value": 1},
            {"value": "x" * 2000},
            {"value": 2, "partition": 5},
            {"value": 3},
        ]
        answer = await connection.request("POST", "/v1/topics/small/records", body(*records), JSON)
        assert answer.status == 207
        results = answer.json()["results"]
        assert [result.get("offset") for result in results] == [0, None, None, 1]
        assert [results[n]["error"]["code"] for n in (1, 2)] == ["RECORD_TOO_LARGE", "UNKNOWN_PARTITION"]
        assert results[1]["error"]["definite"] is True
        assert "records[1]" in results[1]["error"]["detail"]
        assert [record.value for record in stored(cluster, 0, "small")] == [b"1", b"3"]

        answer = await connection.request("POST", "/v1/topics/small/records", body({"value": "x" * 2000}), JSON)
        assert (answer.status, answer.json()["code"]) == (413, "RECORD_TOO_LARGE")

    with_broker(test, cluster)


def test_many_records_are_split_into_batches_within_the_topics_limit() -> None:
    cluster = orders()
    cluster.create("small", 1, {"max.message.bytes": "1024"})

    async def test(broker: Broker, connection: Connection) -> None:
        records = [{"value": f"{n:0300d}"} for n in range(10)]
        answer = await connection.request("POST", "/v1/topics/small/partitions/0/records", body(*records), JSON)
        assert [result["offset"] for result in answer.json()["results"]] == list(range(10))
        assert len(broker.runtime.submitted) == 1
        assert len(cluster.logs["small", 0].batches) == 4
        assert [record.value for record in stored(cluster, 0, "small")] == [b'"%0300d"' % n for n in range(10)]

    with_broker(test, cluster)


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotEnoughReplicas("two are missing", isr=[1]), 503), (TimedOut("appended, then silence"), 504)],
)
def test_when_all_fail_the_answer_is_the_problem_with_its_flag(error: RetriableError, status: int) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        def fail(request: Message) -> Message:
            assert isinstance(request, Produce)
            return ProduceReply([ProduceResult("", -1, Problem.of(error)) for _ in request.partitions])

        broker.runtime.intercept = fail
        for target in (P0, TOPIC + "?timeout_ms=50"):
            answer = await connection.request("POST", target, body({"value": 1, "partition": 0}), JSON)
            problem = answer.json()
            assert answer.status == problem["status"] == status
            assert (problem["code"], problem["definite"]) == (error.code, error.definite)
            assert problem["results"][0]["error"]["code"] == error.code
            assert "offset" not in problem["results"][0]

    with_broker(test)


def test_one_indefinite_failure_makes_the_whole_answer_indefinite() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        def fail(request: Message) -> Message:
            errors = [NotEnoughReplicas("no"), TimedOut("maybe")]
            return ProduceReply([ProduceResult("", -1, Problem.of(error)) for error in errors])

        broker.runtime.intercept = fail
        answer = await connection.request(
            "POST", TOPIC, body({"value": 1, "partition": 0}, {"value": 1, "partition": 2}), JSON
        )
        assert (answer.status, answer.json()["definite"]) == (504, False)

    with_broker(test)


def test_a_partition_led_elsewhere_redirects_to_the_configured_url_before_the_body() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(
            f"POST {P1}?acks=1&format=text HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
            "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        answer = await connection.answer()
        assert answer.status == 307
        assert answer.headers["location"] == f"http://broker-2.test:80{P1}?acks=1&format=text"
        assert answer.headers["connection"] == "close"
        assert (answer.json()["code"], answer.json()["definite"], answer.json()["status"]) == ("NOT_LEADER", True, 307)

    with_broker(test)


def test_a_leader_the_core_knows_first_is_redirected_to_as_well() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        moved = NotLeader("moved", leader_url="http://new.test:1")
        broker.runtime.intercept = lambda _: ProduceReply([ProduceResult("orders", 0, Problem.of(moved))])
        for content, media in ((body({"value": 1}), JSON), (BATCHES, BATCH)):
            answer = await connection.request("POST", P0, content, media)
            assert (answer.status, answer.headers["location"]) == (307, f"http://new.test:1{P0}")

    with_broker(test)


def test_without_a_leader_503_and_retry_after() -> None:
    cluster = orders()
    cluster.lead("orders", 0, NO_LEADER)

    async def test(broker: Broker, connection: Connection) -> None:
        for target in (P0, TOPIC + "?timeout_ms=1"):
            answer = await connection.request("POST", target, body({"value": 1, "partition": 0}), JSON)
            assert (answer.status, answer.json()["code"]) == (503, "LEADER_NOT_AVAILABLE")
            assert answer.headers["retry-after"] == "1"

    with_broker(test, cluster)


def test_the_topic_route_rides_out_an_election() -> None:
    cluster = orders()
    cluster.lead("orders", 0, NO_LEADER)

    async def test(broker: Broker, connection: Connection) -> None:
        refusals = iter([Problem.of(LeaderNotAvailable("not yet"))])

        def refuse_once(request: Message) -> Message | None:
            problem = next(refusals, None)
            return problem and ProduceReply([ProduceResult("orders", 0, problem)])

        broker.runtime.intercept = refuse_once
        asyncio.get_running_loop().call_later(0.03, cluster.lead, "orders", 0, 1)
        answer = await connection.request("POST", TOPIC, body({"value": 1, "partition": 0}), JSON)
        assert answer.status == 200
        assert len(stored(cluster, 0)) == 1

    with_broker(test, cluster)


def test_an_indefinite_failure_is_never_sent_again() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.intercept = lambda _: Problem.of(TimedOut("no answer"))
        answer = await connection.request("POST", TOPIC, body({"value": 1, "partition": 0}), JSON)
        assert answer.json()["definite"] is False
        assert len(broker.runtime.submitted) == 1

    with_broker(test)


def test_an_unreachable_leader_is_a_definite_refusal() -> None:
    cluster = orders()
    cluster.down.add(2)

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", TOPIC + "?timeout_ms=50", body({"value": 1, "partition": 1}), JSON)
        assert (answer.status, answer.json()["code"], answer.json()["definite"]) == (502, "BROKER_UNAVAILABLE", True)
        assert len(broker.runtime.calls) > 1

    with_broker(test, cluster)


def test_raw_batches() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", P0, BATCHES + BATCHES, BATCH)
        assert answer.json()["results"] == [
            {"partition": 0, "offset": 0, "end_offset": 4, "timestamp": 7, "leader_epoch": EPOCH}
        ]
        assert [record.value for record in stored(broker.runtime.cluster, 0)] == [b"a", b"b", b"a", b"b"]

    with_broker(test)


def test_native_messages() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        produce = Produce(-1, 1000, [ProducePartition("orders", p, memoryview(BATCHES)) for p in (0, 2)])
        for target in ("/v1/produce", "/internal/rpc"):
            answer = await connection.request("POST", target, encode(produce), MSGPACK)
            assert (answer.status, answer.media) == (200, MSGPACK)
            reply = decode(answer.body)
            assert isinstance(reply, ProduceReply)
            assert [result.problem for result in reply.partitions] == [None, None]
        offsets = Offsets([OffsetsPartition("orders", 0, -1)])
        reply = decode((await connection.request("POST", "/v1/fetch", encode(offsets), MSGPACK)).body)
        assert isinstance(reply, OffsetsReply)
        assert reply.partitions[0].offset == 4
        for request, kind in ((Probe(1, "i"), ProbeReply), (Metadata(), MetadataReply)):
            reply = decode((await connection.request("POST", "/internal/rpc", encode(request), MSGPACK)).body)
            assert isinstance(reply, kind)

    with_broker(test)


def test_a_native_problem_has_the_status_of_its_error() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.intercept = lambda _: Problem.of(TimedOut("late"))
        answer = await connection.request("POST", "/v1/produce", encode(Produce(1, 1, [])), MSGPACK)
        assert (answer.status, decode(answer.body)) == (504, Problem("REQUEST_TIMED_OUT", "late", definite=False))

    with_broker(test)


def test_a_client_that_leaves_does_not_stop_its_produce() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.gate = asyncio.Event()
        async with broker.connect() as other:
            content = body({"value": 1})
            other.send(
                f"POST {P0} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            await other.writer.drain()
            while not broker.runtime.submitted:
                assert (await connection.request("GET", "/healthz")).status == 200
        assert (await connection.request("GET", "/healthz")).status == 200
        broker.runtime.gate.set()
        while not stored(broker.runtime.cluster, 0):
            assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test)


def test_large_bodies_are_parsed_beside_the_event_loop_with_the_same_outcome() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        records = [{"value": "x" * 1000} for _ in range(400)]
        answer = await connection.request("POST", P0, body(*records), JSON)
        assert [result["offset"] for result in answer.json()["results"]] == list(range(400))

    with_broker(test)


def test_the_budget_for_bytes_in_flight_refuses_before_the_body_and_recovers() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.gate = asyncio.Event()
        async with broker.connect() as first:
            content = body({"value": "x" * 600})
            first.send(
                f"POST {P0} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            while not broker.runtime.submitted:
                assert (await connection.request("GET", "/healthz")).status == 200
            connection.send(
                f"POST {P0} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 700\r\n\r\n".encode()
            )
            answer = await connection.answer()
            assert (answer.status, answer.json()["code"], answer.json()["definite"]) == (503, "OVERLOADED", True)
            assert answer.headers["retry-after"] == "1"
            connection.send(b" " * 700)
            broker.runtime.gate.set()
            assert (await first.answer()).status == 200
        again = await connection.request("POST", P0, body({"value": "x" * 600}), JSON)
        assert again.status == 200

    with_broker(test, limits=Limits(inflight_bytes_max=1000))


def test_the_application_form_serves_the_same() -> None:
    async def main() -> None:
        cluster = orders()
        async with serving_app(cluster) as broker, broker.connect() as connection:
            answer = await connection.request("POST", P0, body({"value": 1}), JSON)
            assert answer.status == 200
            answer = await connection.request("GET", "/v1/topics/%2e%2e")
            assert (answer.status, answer.json()["code"]) == (422, "INVALID_TOPIC")
            answer = await connection.request("POST", P0, body({"value": 2}), JSON, Expect="100-continue")
            assert answer.status in (100, 200)
            assert split(cluster.logs["orders", 0].batches[0].tobytes(), 10_000)

    asyncio.run(main())
