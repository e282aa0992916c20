"""The fetch routes: formats, positions, cutting, redirects, staleness, long polls, live tails."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from minilog.config import Limits
from minilog.errors import LogTruncated, NotLeader, OffsetNotAvailable
from minilog.wire.http import BATCH, EVENTS, JSON, NDJSON
from minilog.wire.messages import Fetch, FetchReply, FetchResult, Message, Problem
from minilog.wire.records import encode_values
from tests.unit.broker.http.fake_runtime import EPOCH, FakeCluster
from tests.unit.broker.http.harness import Broker, Connection, fill, open_tail, orders, with_broker
from tests.unit.wire.batches import decode_all

P0 = "/v1/topics/orders/partitions/0/records"
P1 = "/v1/topics/orders/partitions/1/records"


def filled(**options: Any) -> FakeCluster:
    cluster = orders()
    fill(cluster, 0, [b"0", b"1", b"2"], [b"3", b"4"], **options)
    return cluster


def test_json_shape() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("GET", P0)
        assert answer.json() == {
            "records": [
                {"offset": n, "timestamp": time, "key": '"k"', "value": n, "headers": [{"name": "h", "value": "eA=="}]}
                for n, time in enumerate((1000, 1001, 1002, 1000, 1001))
            ],
            "next_offset": 5,
            "high_watermark": 5,
            "log_start_offset": 0,
            "leader_epoch": EPOCH,
            "topic_id": broker.runtime.image.topics["orders"].topic_id,
        }

    with_broker(test, filled())


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize(
    ("query", "offsets", "next_offset"),
    [
        ("offset=0", [0, 1, 2, 3, 4], 5),
        ("offset=1", [1, 2, 3, 4], 5),
        ("offset=4", [4], 5),
        ("offset=5", [], 5),
        ("offset=latest", [], 5),
        ("offset=@1002", [2, 3, 4], 5),
        ("offset=@5000", [], 5),
        ("offset=1&max_records=1", [1], 2),
        ("offset=2&max_records=2", [2, 3], 4),
        ("max_bytes=1", [0, 1, 2], 3),
    ],
)
def test_where_a_fetch_begins_and_ends(query: str, offsets: list[int], next_offset: int, compression: str) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = (await connection.request("GET", f"{P0}?{query}")).json()
        assert [record["offset"] for record in answer["records"]] == offsets
        assert answer["next_offset"] == next_offset

    with_broker(test, filled(compression=compression))


def test_ndjson_and_raw_batches_carry_their_position_in_headers() -> None:
    cluster = filled()

    async def test(broker: Broker, connection: Connection) -> None:
        for media in (NDJSON, BATCH):
            answer = await connection.request("GET", P0 + "?offset=1", Accept=media)
            assert answer.media == media
            names = ("next-offset", "high-watermark", "log-start-offset", "leader-epoch")
            assert [answer.headers[f"minilog-{name}"] for name in names] == ["5", "5", "0", str(EPOCH)]
            if media == NDJSON:
                assert [json.loads(line)["offset"] for line in answer.body.splitlines()] == [1, 2, 3, 4]
            else:
                assert answer.body == b"".join(batch.tobytes() for batch in cluster.logs["orders", 0].batches)

    with_broker(test, cluster)


def test_formats() -> None:
    cluster = orders()
    fill(cluster, 0, ["grün".encode()])

    async def test(broker: Broker, connection: Connection) -> None:
        (record,) = (await connection.request("GET", P0 + "?format=text")).json()["records"]
        assert (record["key"], record["value"]) == ('"k"', "grün")
        (record,) = (await connection.request("GET", P0 + "?format=base64&key_format=json")).json()["records"]
        assert (record["key"], record["value"]) == ("k", "Z3LDvG4=")

    with_broker(test, cluster)


@pytest.mark.parametrize("stored", [b"not json", b"\xff\xfe", b"", b"nan", b"{", b'"\xff"'])
def test_what_the_format_cannot_show_is_shown_in_base64_under_a_name_of_its_own(stored: bytes) -> None:
    cluster = orders()
    fill(cluster, 0, [b"0", stored, b"2"])

    async def test(broker: Broker, connection: Connection) -> None:
        answer = (await connection.request("GET", P0)).json()
        assert ([record["offset"] for record in answer["records"]], answer["next_offset"]) == ([0, 1, 2], 3)
        shown = answer["records"][1]
        assert base64.b64decode(shown["value_base64"]) == stored
        assert "value" not in shown, "a null would be a tombstone"
        lines = (await connection.request("GET", P0, Accept=NDJSON)).body.splitlines()
        assert [json.loads(line) for line in lines] == answer["records"]

    with_broker(test, cluster)


def test_a_key_that_is_no_text_is_shown_in_base64_under_a_name_of_its_own() -> None:
    cluster = orders()
    fill(cluster, 0, [b"0"], key=b"\xff")

    async def test(broker: Broker, connection: Connection) -> None:
        (record,) = (await connection.request("GET", P0)).json()["records"]
        assert (record["value"], record["key_base64"], "key" in record) == (0, "/w==", False)

    with_broker(test, cluster)


def test_text_is_shown_as_text_when_that_is_asked_for() -> None:
    cluster = orders()
    fill(cluster, 0, [b"0", b"not json", b"2"])

    async def test(broker: Broker, connection: Connection) -> None:
        answer = (await connection.request("GET", P0 + "?offset=1&format=text")).json()
        assert [record["value"] for record in answer["records"]] == ["not json", "2"]

    with_broker(test, cluster)


def test_the_epoch_in_an_answer_is_that_of_the_last_record_shown() -> None:
    cluster = filled(epochs=[1, 2])
    asked: list[int] = []

    async def test(broker: Broker, connection: Connection) -> None:
        def look(request: Message) -> Message | None:
            assert isinstance(request, Fetch)
            asked.append(request.partitions[0].last_epoch)
            return None

        broker.runtime.intercept = look
        first = (await connection.request("GET", P0 + "?offset=0&max_records=2")).json()
        assert first["leader_epoch"] == 1
        second = (await connection.request("GET", P0 + "?offset=2&leader_epoch=1")).json()
        assert second["leader_epoch"] == 2
        third = (await connection.request("GET", P0 + "?offset=5&leader_epoch=2")).json()
        assert (third["records"], third["leader_epoch"]) == ([], 2)
        unknown = (await connection.request("GET", P0 + "?offset=5")).json()
        assert unknown["leader_epoch"] is None
        assert asked == [-1, 1, 2, -1]

    with_broker(test, cluster)


def answering(problem: Problem) -> Callable[[Message], Message | None]:
    def intercept(request: Message) -> Message | None:
        return FetchReply([FetchResult("orders", 0, problem)]) if isinstance(request, Fetch) else None

    return intercept


def test_truncation_and_an_unknown_end_reach_the_client() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        lost = LogTruncated("records 3 to 5 no longer exist", lost_from=3, lost_to=5, epoch=1)
        broker.runtime.intercept = answering(Problem.of(lost))
        answer = await connection.request("GET", P0 + "?offset=5&leader_epoch=2")
        assert answer.status == 409
        assert {"code": "LOG_TRUNCATED", "lost_from": 3, "lost_to": 5, "epoch": 1}.items() <= answer.json().items()
        broker.runtime.intercept = answering(Problem.of(OffsetNotAvailable("a new leader does not know it yet")))
        answer = await connection.request("GET", P0 + "?offset=0")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")

    with_broker(test)


def test_redirects_to_the_leader() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        for target in (P1, f"{P1}?offset=@5&format=text", "/v1/topics/orders/partitions/1/offsets?at=latest"):
            answer = await connection.request("GET", target)
            assert (answer.status, answer.headers["location"]) == (307, "http://broker-2.test:80" + target)
        answer = await connection.request("GET", P1, Accept=EVENTS)
        assert answer.status == 307

    with_broker(test)


def test_any_replica_answers_with_its_staleness_or_sends_to_the_leader() -> None:
    cluster = orders()
    fill(cluster, 1, [b"0"])

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("GET", P1 + "?offset=0&replica=any&max_lag_ms=10")
        assert answer.status == 200
        assert (answer.headers["minilog-replica-lag-ms"], answer.headers["minilog-replica-lag-records"]) == ("7", "0")
        asked = broker.runtime.submitted[-1]
        assert isinstance(asked, Fetch)
        assert (asked.any_replica, asked.max_lag_ms) == (True, 10)
        stale = NotLeader("too stale", leader_url="http://leader.test")
        broker.runtime.intercept = answering(Problem.of(stale))
        target = P1 + "?offset=0&replica=any&max_lag_ms=1"
        answer = await connection.request("GET", target)
        assert (answer.status, answer.headers["location"]) == (307, "http://leader.test" + target)

    with_broker(test, cluster)


def test_offsets_by_time() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        wanted = {"": 5, "?at=latest": 5, "?at=earliest": 0, "?at=1002": 2, "?at=@1002": 2, "?at=9999": 5}
        for query, offset in wanted.items():
            answer = (await connection.request("GET", "/v1/topics/orders/partitions/0/offsets" + query)).json()
            assert answer["offset"] == offset, query
            assert answer["timestamp"] == (1002 if "1002" in query else None)

    with_broker(test, filled())


def test_a_long_poll_ends_with_the_record_it_waited_for_or_empty_at_its_deadline() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async def produce() -> None:
            async with broker.connect() as other:
                await other.request("POST", P0, b'{"records": [{"value": 9}]}', JSON)

        while_waiting = asyncio.ensure_future(connection.request("GET", P0 + "?offset=latest&wait_ms=4000"))
        async with broker.connect() as other:
            while not any(isinstance(message, Fetch) for message in broker.runtime.submitted):
                assert (await other.request("GET", "/healthz")).status == 200
        await produce()
        answer = (await while_waiting).json()
        assert [record["value"] for record in answer["records"]] == [9]
        answer = (await connection.request("GET", P0 + "?offset=latest&wait_ms=10")).json()
        assert (answer["records"], answer["next_offset"]) == ([], 6)

    with_broker(test, filled())


# --- live tails -----------------------------------------------------------------------------------


def test_a_tail_shows_what_is_there_then_what_comes_and_can_be_resumed() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, P0 + "?offset=3")
        seen = [await events.next(), await events.next()]
        topic_id = broker.runtime.image.topics["orders"].topic_id
        assert [event["id"] for event in seen] == [f"0-3-{topic_id}", f"0-4-{topic_id}"]
        assert json.loads(seen[0]["data"])["value"] == 3
        async with broker.connect() as other:
            await other.request("POST", P0, b'{"records": [{"value": {\n"pretty": 1}}]}', JSON)
            event = await events.next()
            assert (event["id"], json.loads(event["data"])["value"]) == (f"0-5-{topic_id}", {"pretty": 1})

        for last in (seen[1]["id"], "0-4"):
            async with broker.connect() as other:
                resumed = await open_tail(other, P0 + "?offset=earliest", f"Last-Event-ID: {last}")
                assert (await resumed.next())["id"] == f"0-5-{topic_id}"

    with_broker(test, filled())


def test_a_tail_is_not_resumed_in_a_topic_that_has_the_name_by_now() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        last = {"Accept": EVENTS, "Last-Event-ID": f"0-4-{'0' * 32}"}
        answer = await connection.request("GET", P0, **last)  # type: ignore[arg-type]
        assert (answer.status, answer.json()["code"]) == (409, "INCONSISTENT_TOPIC_ID")
        last["Last-Event-ID"] = "0-4-x"
        answer = await connection.request("GET", P0, **last)  # type: ignore[arg-type]
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")

    with_broker(test, filled())


def test_a_tail_begins_at_the_end_by_default_and_says_so_at_once() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, P0)
        assert "" not in (await events.next()).values()
        async with broker.connect() as other:
            await other.request("POST", P0, b'{"records": [{"value": 9}]}', JSON)
        assert (await events.next())["id"].startswith("0-5-")

    with_broker(test, filled())


def test_an_error_in_a_tail_is_its_last_event() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, P0 + "?offset=4")
        await events.next()
        broker.runtime.intercept = answering(Problem.of(NotLeader("moved", leader_url="http://new.test")))
        async with broker.connect() as other:
            broker.runtime.cluster.logs["orders", 0].grown.set()
            while "event" not in (event := await events.next()):
                assert "" in event, "only comments come before the error"
            assert event["event"] == "error"
            assert json.loads(event["data"])["leader_url"] == "http://new.test"
            assert await connection.reader.readline() == b"0\r\n"
            assert (await other.request("GET", "/healthz")).status == 200

    with_broker(test, filled())


def test_a_tail_that_is_not_read_is_cut_off() -> None:
    cluster = orders()
    fill(cluster, 0, *[[b'"%0900000d"' % n] for n in range(20)])

    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"GET {P0}?offset=earliest HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENTS}\r\n\r\n".encode())
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            async with broker.connect() as other:
                while not broker.runtime.submitted:
                    assert (await other.request("GET", "/healthz")).status == 200
                while b"minilog_http_connections 1\n" in (await other.request("GET", "/metrics")).body:
                    pass
                while b"minilog_http_connections 2\n" in (await other.request("GET", "/metrics")).body:
                    pass

    with_broker(test, cluster, limits=Limits(response_write_ms=50))


def test_batches_of_a_page_decode_to_what_was_stored() -> None:
    cluster = orders()

    async def test(broker: Broker, connection: Connection) -> None:
        sent = encode_values([b"a", b"b"], 5, keys=[None, b"k"])
        await connection.request("POST", P0, sent, BATCH)
        answer = await connection.request("GET", P0, Accept=BATCH)
        assert [(record.offset, record.key, record.value) for record in decode_all(answer.body)] == [
            (0, None, b"a"),
            (1, b"k", b"b"),
        ]

    with_broker(test, cluster)


def test_leader_epoch_of_the_url_is_about_the_offset_of_the_url() -> None:
    cluster = orders()
    fill(cluster, 0, [b"1", b"2"], [b"3", b"4"], [b"5"], epochs=[3, 5, 5])

    async def check(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, f"{P0}?offset=1&leader_epoch=3", "Last-Event-ID: 0-3")
        assert (await events.next())["id"].startswith("0-4-")
        asked = [r.partitions[0] for r in broker.runtime.submitted if isinstance(r, Fetch)]
        behind = [entry.last_epoch for entry in asked if entry.offset == 4]
        assert 3 not in behind, "the record before offset 4 is of epoch 5, not of the 3 that the URL says of offset 1"

    with_broker(check, cluster)
