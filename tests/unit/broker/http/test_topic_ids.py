"""Which topic a request means: by its id, where the client names one. A successor of the same name
is another topic."""

from __future__ import annotations

import pytest

from minilog.wire.admin_messages import ConfigureTopic
from minilog.wire.http import JSON, NDJSON
from minilog.wire.messages import AddPartitions, DeleteTopic, Fetch, Offsets, Produce
from tests.unit.broker.http.harness import Broker, Connection, orders, with_broker

OTHER = "0" * 32
HERE = "127.0.0.1 by way of broker 1"
P0 = "/v1/topics/orders/partitions/0"
RECORD = b'{"records": [{"value": 1, "partition": 0}]}'
REQUESTS = (
    ("GET", f"{P0}/records", b"", ""),
    ("GET", f"{P0}/offsets", b"", ""),
    ("POST", f"{P0}/records", RECORD, JSON),
    ("POST", "/v1/topics/orders/records", RECORD, JSON),
)


@pytest.mark.parametrize(("method", "target", "body", "media"), REQUESTS)
def test_a_request_that_means_another_topic_is_refused_and_does_nothing(
    method: str, target: str, body: bytes, media: str
) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request(method, f"{target}?topic_id={OTHER}", body, media)
        assert (answer.status, answer.json()["code"]) == (409, "INCONSISTENT_TOPIC_ID")
        assert answer.json()["definite"] is True
        assert OTHER in answer.json()["detail"]
        assert broker.runtime.cluster.logs["orders", 0].end_offset == 0

    with_broker(test, orders())


@pytest.mark.parametrize(("method", "target", "body", "media"), REQUESTS)
def test_what_is_passed_on_names_the_topic_whether_the_client_did_or_not(
    method: str, target: str, body: bytes, media: str
) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        topic_id = broker.runtime.image.topics["orders"].topic_id
        for query in ("", f"?topic_id={topic_id}"):
            answer = await connection.request(method, f"{target}{query}", body, media)
            assert answer.status == 200
        messages = [m for m in broker.runtime.submitted if isinstance(m, Produce | Fetch | Offsets)]
        assert messages
        assert {entry.topic_id for message in messages for entry in message.partitions} == {topic_id}

    with_broker(test, orders())


def test_what_the_controller_is_asked_to_change_is_the_topic_that_was_meant() -> None:
    """A DELETE that a proxy sends a second time names the first topic still."""

    async def test(broker: Broker, connection: Connection) -> None:
        topic_id = broker.runtime.image.topics["orders"].topic_id
        await connection.request("PATCH", "/v1/topics/orders", b'{"partitions": 8}', JSON)
        await connection.request("DELETE", f"/v1/topics/orders?topic_id={OTHER}")
        await connection.request("DELETE", "/v1/topics/orders")
        asked = [m for _, m in broker.runtime.calls if isinstance(m, AddPartitions | DeleteTopic)]
        assert asked == [
            AddPartitions("orders", 8, topic_id, HERE),
            DeleteTopic("orders", OTHER, HERE),
            DeleteTopic("orders", topic_id, HERE),
        ]

    with_broker(test, orders())


def test_settings_are_asked_for_of_the_topic_that_was_meant() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        topic_id = broker.runtime.image.topics["orders"].topic_id
        body = b'{"config": {"retention.ms": 5000, "unclean.leader.election.enable": true, "flush.ms": null}}'
        answer = await connection.request("PATCH", "/v1/topics/orders", body, JSON)
        assert answer.status == 200
        assert answer.json()["config"] == {
            "min.insync.replicas": "2",
            "retention.ms": "5000",
            "unclean.leader.election.enable": "true",
        }
        asked = [m for _, m in broker.runtime.calls if isinstance(m, ConfigureTopic)]
        given = {"retention.ms": "5000", "unclean.leader.election.enable": "true"}
        assert asked == [ConfigureTopic("orders", given, ["flush.ms"], topic_id, asked_by=HERE)]

    with_broker(test, orders())


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"partitions": 3, "config": {}}',
        b'{"partitions": 3, "dry_run": true}',
        b'{"config": {"a": []}}',
        b'{"configs": {}}',
        b'{"partitions": 0}',
    ],
)
def test_a_change_that_means_nothing_is_refused(body: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("PATCH", "/v1/topics/orders", body, JSON)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "how many in all" in answer.json()["detail"]
        assert broker.runtime.calls == []

    with_broker(test, orders())


@pytest.mark.parametrize("topic_id", ["x", "0" * 31, "0" * 33, "A" * 32, "%00" * 32])
def test_what_is_no_topic_id_is_refused(topic_id: str) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("DELETE", f"/v1/topics/orders?topic_id={topic_id}")
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "32 hexadecimal digits" in answer.json()["detail"]

    with_broker(test, orders())


def test_answers_say_which_topic_they_are_about() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        topic_id = broker.runtime.image.topics["orders"].topic_id
        receipts = (await connection.request("POST", f"{P0}/records", RECORD, JSON)).json()["receipts"]
        assert [receipt["topic_id"] for receipt in receipts] == [topic_id]
        assert (await connection.request("GET", f"{P0}/records")).json()["topic_id"] == topic_id
        assert (await connection.request("GET", f"{P0}/offsets")).json()["topic_id"] == topic_id
        lines = await connection.request("GET", f"{P0}/records", accept=NDJSON)
        assert lines.headers["minilog-topic-id"] == topic_id

    with_broker(test, orders())
