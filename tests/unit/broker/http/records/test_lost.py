"""Lost records over HTTP: told, read, written again once, discarded."""

from __future__ import annotations

import json
from typing import Any

from minilog.errors import BrokerUnavailable, NotLeader, TimedOut
from minilog.storage.aside.lost_tails import LostTails
from minilog.storage.log.quarantine import Piece, Quarantine
from minilog.storage.segment.scan import LogBytes
from minilog.wire.batch import split
from minilog.wire.http import BATCH, NDJSON
from minilog.wire.journal.metadata_records import BrokerRegistered, LostClaimed
from minilog.wire.json.json_answers import LostList, LostTailInfo
from minilog.wire.messages import ClaimLost, Message, Problem, Produce, ProduceReply, ProduceResult
from minilog.wire.records import Record, decode_batch
from tests.unit.broker.http.fake_runtime import NOW_MS, FakeCluster, topic_id_of
from tests.unit.broker.http.harness import Answer, Broker, Connection, with_broker
from tests.unit.storage.batches import make
from tests.unit.storage.memory_disk import MemoryDisk

DATA = "/nowhere"
ORDERS = topic_id_of("orders")


def lose(tails: LostTails, records: int = 5, base: int = 100, epoch: int = 2, *, topic_id: str = ORDERS) -> str:
    """As a broker does that cuts ``records`` from the end of orders-0."""
    disk = tails._disk
    assert isinstance(disk, MemoryDisk)
    disk.mkdir(f"{DATA}/quarantine")
    handle = disk.create(f"{DATA}/log")
    data = b"".join(make(base + i, epoch, acks_level=2, timestamp=NOW_MS).tobytes() for i in range(records))
    disk.append(handle, 0, [data])
    cut = Quarantine(disk, f"{DATA}/quarantine", lambda: NOW_MS)
    cut.save("orders-0", "a test", base + records, [Piece(LogBytes(disk, handle, len(data)), 0, base)], topic_id)
    return f"orders-0:{epoch}-{base}-{base + records}"


def records_of(broker: Broker, partition: int = 0, topic: str = "orders") -> list[Record]:
    log = broker.runtime.cluster.logs[topic, partition]
    return [record for batch in log.batches for record in decode_batch(split(batch.tobytes(), 2**31, stored=True)[0])]


async def replay(connection: Connection, name: str, body: dict[str, Any] | None = None) -> Answer:
    return await connection.request(
        "POST", f"/v1/lost/{name}/replay", json.dumps(body or {}).encode(), "application/json"
    )


def test_what_was_cut_is_told_with_all_that_is_known() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert (await connection.request("GET", "/v1/lost")).json() == {"broker_id": 1, "tails": []}
        name = lose(broker.runtime.tails)
        (told,) = (await connection.request("GET", "/v1/lost")).json()["tails"]
        assert told == (await connection.request("GET", f"/v1/lost/{name}")).json()
        assert told == {
            "tail": name, "broker_id": 1, "topic": "orders", "topic_id": ORDERS, "partition": 0, "reason": "a test",
            "cut_at_ms": NOW_MS, "base_offset": 100, "end_offset": 105, "first_epoch": 2, "last_epoch": 2,
            "bytes": told["bytes"], "records": 5, "records_by_acks": {"unknown": 0, "0": 0, "1": 5, "many": 0},
            "unreadable_bytes": 0, "first_timestamp": NOW_MS, "last_timestamp": NOW_MS, "replay": None, "note": "",
            "left_open": 0,
        }  # fmt: skip
        other = await connection.request("GET", "/v1/lost/orders-0:2-100-106")
        assert (other.status, other.json()["code"]) == (404, "UNKNOWN_ROUTE")
        assert (await connection.request("GET", "/v1/lost/orders")).status == 400

    with_broker(test)


def test_it_is_read_in_pages_of_every_form() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        name = lose(broker.runtime.tails)
        page = (await connection.request("GET", f"/v1/lost/{name}/records?format=text&max_records=3")).json()
        assert [record["offset"] for record in page["records"]] == [100, 101, 102]
        assert page["next_offset"] == 103
        rest = (await connection.request("GET", f"/v1/lost/{name}/records?format=text&offset=103")).json()
        assert [record["offset"] for record in rest["records"]] == [103, 104]
        assert rest["next_offset"] is None
        lines = await connection.request("GET", f"/v1/lost/{name}/records?format=text&max_bytes=150", Accept=NDJSON)
        assert [json.loads(line)["offset"] for line in lines.body.splitlines()] == [100]
        assert lines.headers["minilog-next-offset"] == "101"
        batches = await connection.request("GET", f"/v1/lost/{name}/records", Accept=BATCH)
        assert [batch.base_offset for batch in split(batches.body, 2**31, stored=True)] == [100, 101, 102, 103, 104]
        wrong = await connection.request("GET", f"/v1/lost/{name}/records?max_records=1", Accept=BATCH)
        assert wrong.status == 400

    with_broker(test)


def test_it_is_written_again_once_however_often_that_is_asked() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        name = lose(broker.runtime.tails)
        for _ in range(3):
            told = (await replay(connection, name)).json()
            assert told["replay"] == {
                "into": "orders", "partition": 0, "topic_id": ORDERS, "claimed": 5, "written": 5, "skipped": 0,
                "first_offset": 0, "end_offset": 5, "finished": True,
            }  # fmt: skip
        found = records_of(broker)
        assert [record.value for record in found] == [b"%d:2:...." % i for i in range(100, 105)]
        assert dict(found[4].headers) == {
            "minilog-lost-partition": b"orders-0",
            "minilog-lost-offset": b"104",
            "minilog-lost-leader-epoch": b"2",
        }

    with_broker(test)


def test_an_answer_that_says_nothing_for_certain_doubles_nothing() -> None:
    """The write is done and its answer lost, then it is asked once more."""

    async def test(broker: Broker, connection: Connection) -> None:
        runtime, name = broker.runtime, lose(broker.runtime.tails)

        def written_and_not_told(request: Message) -> Message | None:
            if not isinstance(request, Produce):
                return None
            runtime.intercept = lambda _: None
            (entry,) = request.partitions
            assert runtime._produce(request, entry).problem is None
            late = Problem.of(TimedOut("no answer"))
            return ProduceReply([ProduceResult(entry.topic, entry.partition, late)])

        runtime.intercept = written_and_not_told
        answer = await replay(connection, name)
        assert (answer.status, answer.json()["definite"]) == (504, False)
        told = (await connection.request("GET", f"/v1/lost/{name}")).json()
        assert (told["replay"]["written"], told["replay"]["finished"]) == (0, False)
        told = (await replay(connection, name)).json()
        assert (told["replay"]["written"], told["replay"]["finished"]) == (5, True)
        assert len(records_of(broker)) == 5

    with_broker(test)


def test_a_batch_that_cannot_be_made_again_passes_no_other_off_as_written() -> None:
    """It is written and its answer lost, and then its records are damaged in the tail. Other
    records with the same sequence would be answered as if they were there."""

    async def test(broker: Broker, connection: Connection) -> None:
        runtime, name = broker.runtime, lose(broker.runtime.tails)

        def written_and_not_told(request: Message) -> Message | None:
            if not isinstance(request, Produce):
                return None
            runtime.intercept = lambda _: None
            (entry,) = request.partitions
            assert runtime._produce(request, entry).problem is None
            return ProduceReply([ProduceResult(entry.topic, entry.partition, Problem.of(TimedOut("no answer")))])

        runtime.intercept = written_and_not_told
        assert (await replay(connection, name)).status == 504
        disk = runtime.tails._disk
        assert isinstance(disk, MemoryDisk)
        disk.file(f"{DATA}/quarantine/orders-0/2-100-105.log").content[80] ^= 1
        answer = await replay(connection, name)
        assert (answer.status, "minilog lost export" in answer.json()["detail"]) == (400, True), answer.json()
        assert len(records_of(broker)) == 5

    with_broker(test)


def test_of_another_copy_only_what_nobody_has_claimed_is_written() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        record = LostClaimed(2, "x", "orders", ORDERS, 0, [(2, 90, 103)], "orders", ORDERS, 0, 5)
        broker.runtime.cluster.apply(record)
        told = (await replay(connection, lose(broker.runtime.tails))).json()["replay"]
        assert (told["claimed"], told["written"], told["finished"]) == (2, 2, True)
        assert [record.value[:3] for record in records_of(broker) if record.value] == [b"103", b"104"]

    with_broker(test)


def test_what_was_left_to_a_copy_that_was_lost_before_it_was_written_is_taken_over() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        runtime, cluster = broker.runtime, broker.runtime.cluster
        cluster.apply(LostClaimed(2, "x", "orders", ORDERS, 0, [(2, 90, 103)], "orders", ORDERS, 0, 5, "its disk"))
        name = lose(runtime.tails)
        told = (await replay(connection, name)).json()
        assert (told["replay"]["written"], told["replay"]["finished"], told["left_open"]) == (2, True, 3)
        assert runtime.tails.prune(-1, 0, cluster.image.open_claims()) == []
        assert runtime.tails.kept.unwritten == 3
        assert (await replay(connection, name)).json() == told, "its broker may be writing them"
        index = cluster.image.metadata_offset + 1
        cluster.apply(BrokerRegistered(2, index, "i", "http://b", directory_id="another"))
        told = (await replay(connection, name)).json()
        assert (told["replay"]["claimed"], told["replay"]["written"], told["left_open"]) == (5, 5, 0)
        assert (await replay(connection, name)).json() == told
        values = [record.value[:3] for record in records_of(broker) if record.value]
        assert values == [b"103", b"104", b"100", b"101", b"102"]
        (own, more, its) = sorted(cluster.image.lost_claims.values(), key=lambda claim: (claim.broker_id, claim.tail))
        assert (own.finished, more.finished, its.finished, its.runs) == (True, True, False, [(2, 90, 100)])
        assert [tail.unwritten for tail in runtime.tails.prune(-1, NOW_MS + 1, cluster.image.open_claims())] == [0]

    with_broker(test)


def test_what_is_left_to_a_claim_that_is_open_is_dropped_as_unwritten() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        runtime, cluster = broker.runtime, broker.runtime.cluster
        cluster.apply(LostClaimed(2, "x", "orders", ORDERS, 0, [(2, 90, 103)], "orders", ORDERS, 0, 5, "its disk"))
        await replay(connection, lose(runtime.tails))
        assert [tail.unwritten for tail in runtime.tails.prune(-1, NOW_MS + 1, cluster.image.open_claims())] == [3]
        assert runtime.tails.records_dropped == {"size": 0, "age": 3}

    with_broker(test)


def test_it_is_not_finished_before_the_controller_knows() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        runtime, name = broker.runtime, lose(broker.runtime.tails)
        runtime.tails.directory_id = "mine"

        def not_told(request: Message) -> Message | None:
            is_end = isinstance(request, ClaimLost) and request.finished
            return Problem.of(BrokerUnavailable("no controller")) if is_end else None

        runtime.intercept = not_told
        assert (await replay(connection, name)).status == 502
        (tail,) = runtime.tails.all()
        assert not tail.is_written
        assert len(runtime.cluster.image.open_claims()) == 1
        runtime.intercept = lambda _: None
        assert (await replay(connection, name)).json()["replay"]["finished"]
        assert runtime.cluster.image.open_claims() == []
        assert len(records_of(broker)) == 5

    with_broker(test)


def test_it_goes_where_it_is_told_to_and_the_rest_goes_there_too() -> None:
    cluster = FakeCluster()
    cluster.create("orders", 4)
    cluster.create("other", 2)

    async def test(broker: Broker, connection: Connection) -> None:
        name = lose(broker.runtime.tails)
        told = (await replay(connection, name, {"into": "other", "partition": 0})).json()["replay"]
        assert (told["into"], told["written"]) == ("other", 5)
        assert len(records_of(broker, topic="other")) == 5
        again = (await replay(connection, name)).json()["replay"]
        assert (again["into"], again["finished"]) == ("other", True)

    with_broker(test, cluster)


def test_what_would_overwrite_or_be_elsewhere_is_refused_with_a_sentence() -> None:
    cluster = FakeCluster()
    cluster.create("orders", 4)
    cluster.create("keys", 1, {"cleanup.policy": "compact"})

    async def test(broker: Broker, connection: Connection) -> None:
        name = lose(broker.runtime.tails)
        older = lose(broker.runtime.tails, base=300, topic_id="0" * 32)
        for tail, body, code, word in (
            (name, {"into": "keys"}, 400, "compacted"),
            (older, {}, 400, "made anew"),
            (name, {"into": "gone"}, 404, "gone"),
            (name, {"partition": 77}, 404, "77"),
            (name, {"into": "../x"}, 422, "../x"),
            (name, {"to": "orders"}, 400, "to"),
            (name, {"into": "__consumer_offsets"}, 422, "__consumer_offsets"),
        ):
            answer = await replay(connection, tail, body)
            assert (answer.status, word in answer.json()["detail"]) == (code, True), (body, answer.json())
        told = (await replay(connection, name, {"into": "keys", "overwrites": True})).json()["replay"]
        assert told["written"] == 5
        told = (await replay(connection, older, {"overwrites": True})).json()["replay"]
        assert told["written"] == 5

    with_broker(test, cluster)


def test_a_refusal_leaves_it_to_be_asked_again() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        runtime, name = broker.runtime, lose(broker.runtime.tails)
        refusals: list[Problem] = [
            Problem.of(BrokerUnavailable("away", definite=True)),
            Problem.of(NotLeader("not here")),
        ]

        def refuse(request: Message) -> Message | None:
            if isinstance(request, Produce) and refusals:
                (entry,) = request.partitions
                return ProduceReply([ProduceResult(entry.topic, entry.partition, refusals.pop())])
            return None

        runtime.intercept = refuse
        told = (await replay(connection, name)).json()["replay"]
        assert (told["written"], told["finished"], refusals) == (5, True, [])

    with_broker(test)


def test_discarded_is_gone() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        name = lose(broker.runtime.tails)
        gone = (await connection.request("DELETE", f"/v1/lost/{name}")).json()
        assert gone == {"tail": name, "records": 5}
        assert (await connection.request("DELETE", f"/v1/lost/{name}")).status == 404
        assert (await replay(connection, name)).status == 404

    with_broker(test)


def test_answers_are_as_declared() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        import msgspec

        name = lose(broker.runtime.tails)
        await replay(connection, name)
        found = msgspec.json.decode((await connection.request("GET", "/v1/lost")).body, type=LostList)
        assert isinstance(found.tails[0], LostTailInfo)
        assert found.tails[0].replay is not None

    with_broker(test)
