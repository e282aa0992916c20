"""Metadata, admin, health, probes, metrics and the description of it all."""

from __future__ import annotations

import asyncio
import re

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from minilog.wire.http import JSON, MSGPACK
from minilog.wire.journal.metadata_records import NO_LEADER, BrokerFenced, PartitionChanged
from minilog.wire.messages import (
    CreateTopic,
    CreateTopicReply,
    DescribeCluster,
    DescribeClusterReply,
    MetadataReply,
    TopicInfo,
    decode,
    encode,
)
from minilog.wire.routes import ROUTES
from tests.unit.broker.http.cluster.test_events import happen
from tests.unit.broker.http.harness import Broker, Connection, orders, with_broker

HERE = "127.0.0.1 by way of broker 1"


def test_root_says_what_this_is_and_where_to_look() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        about = (await connection.request("GET", "/")).json()
        assert about["name"] == "minilog"
        for target in about["look_at"]:
            assert (await connection.request("GET", target)).status == 200

    with_broker(test)


def test_topics_are_created_described_and_deleted() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        wanted = b'{"topic": "new", "partitions": 2, "config": {"min.insync.replicas": 2}}'
        created = await connection.request("POST", "/v1/topics", wanted, JSON)
        assert (created.status, created.headers["location"]) == (201, "/v1/topics/new")
        assert created.json()["config"] == {"min.insync.replicas": "2"}
        described = (await connection.request("GET", "/v1/topics/new")).json()
        assert described == created.json()
        assert described["partitions"][1] == {
            "partition": 1,
            "leader": 2,
            "leader_epoch": 3,
            "partition_epoch": 0,
            "replicas": [2, 1],
            "isr": [2, 1],
            "elr": [],
            "adding": [],
            "removing": [],
        }
        names = [topic["topic"] for topic in (await connection.request("GET", "/v1/topics")).json()["topics"]]
        assert names == ["new", "orders"]
        more = await connection.request("PATCH", "/v1/topics/new", b'{"partitions": 4}', JSON)
        assert (more.json()["topic"], more.json()["partitions"]) == ("new", 4)
        assert len((await connection.request("GET", "/v1/topics/new")).json()["partitions"]) == 4
        refused = await connection.request("PATCH", "/v1/topics/new", b'{"partition": 4}', JSON)
        assert (refused.status, refused.json()["code"]) == (400, "INVALID_REQUEST")
        assert (await connection.request("DELETE", "/v1/topics/new")).json() == {"topic": "new", "deleted": True}
        assert (await connection.request("GET", "/v1/topics/new")).status == 404

    with_broker(test)


def test_an_admin_change_is_answered_once_this_broker_has_applied_it() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        image = broker.runtime.cluster.image
        answer = CreateTopicReply(TopicInfo("new", "x", []), image.metadata_offset + 1)

        async def call(url: str, request: object, timeout_ms: int) -> CreateTopicReply:
            return answer

        broker.runtime.call = call  # type: ignore[method-assign]
        async with broker.connect() as other:
            other.send(
                b'POST /v1/topics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"topic": "new"}'
            )
            for _ in range(20):
                assert (await connection.request("GET", "/healthz")).status == 200
            assert not other.reader._buffer  # type: ignore[attr-defined]
            broker.runtime.cluster.create("new")
            assert (await other.answer()).status == 201

    with_broker(test)


def test_metadata_in_json_and_msgpack() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        as_json = await connection.request("GET", "/v1/metadata?topics=orders,absent", Accept=JSON)
        reply = msgspec.json.decode(as_json.body, type=MetadataReply)
        assert [topic.topic for topic in reply.topics] == ["orders"]
        assert [info.broker_id for info in reply.brokers] == [1, 2]
        native = await connection.request("GET", "/v1/metadata?topics=orders,absent", Accept=f"{MSGPACK}, {JSON};q=0.5")
        assert decode(native.body) == reply
        everything = msgspec.json.decode((await connection.request("GET", "/v1/metadata")).body, type=MetadataReply)
        assert everything == reply

    with_broker(test)


def test_cluster_brokers_and_failovers() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        brokers = (await connection.request("GET", "/v1/brokers")).json()["brokers"]
        assert [(info["broker_id"], info["state"]) for info in brokers] == [(1, "running"), (2, "running")]
        cluster = (await connection.request("GET", "/v1/cluster")).json()
        assert (cluster["cluster_id"], cluster["topics"], cluster["partitions"]) == ("fake", 1, 4)
        failovers = (await connection.request("GET", "/v1/cluster/failovers")).json()
        assert failovers["failovers"][0]["kind"] == "refused"
        assert failovers["elections"] == {"clean": 1}

    with_broker(test)


def test_native_admin_messages_are_forwarded_to_the_controller() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        for request, kind in ((CreateTopic("n"), CreateTopicReply), (DescribeCluster(), DescribeClusterReply)):
            answer = await connection.request("POST", "/internal/rpc", encode(request), MSGPACK)
            assert isinstance(decode(answer.body), kind)
        claims = CreateTopic("n", asked_by="somebody else")
        answer = await connection.request("POST", "/internal/rpc", encode(claims), MSGPACK)
        assert answer.status == 409
        asked = [message.asked_by for _, message in broker.runtime.calls if isinstance(message, CreateTopic)]
        assert asked == [HERE] * 2, "the address is what the broker sees"

    with_broker(test)


def test_health_names_what_is_wrong() -> None:
    cluster = orders()
    cluster.create("strict", 1, {"min.insync.replicas": "2"})
    old = cluster.image.topics["strict"].partitions[0]
    cluster.apply(PartitionChanged("strict", old.topic_id, 0, [1, 2], 1, 4, 1, [1], [2]))
    cluster.lead("orders", 3, NO_LEADER)

    async def test(broker: Broker, connection: Connection) -> None:
        health = (await connection.request("GET", "/v1/cluster/health")).json()
        assert health["healthy"] is False
        assert [(about["topic"], about["partition"]) for about in health["offline"]] == [("orders", 3)]
        assert [(about["topic"], about["isr"]) for about in health["under_min_isr"]] == [("strict", [1])]
        assert [about["topic"] for about in health["under_replicated"]] == ["strict"]

    with_broker(test, cluster)


def test_missing_replicas_alone_are_a_warning() -> None:
    cluster = orders()
    for partition in range(4):
        old = cluster.image.topics["orders"].partitions[partition]
        cluster.apply(PartitionChanged("orders", old.topic_id, partition, old.replicas, 1, 4, 1, [1]))
    cluster.apply(BrokerFenced(2, cluster.image.brokers[2].epoch))

    async def test(broker: Broker, connection: Connection) -> None:
        health = (await connection.request("GET", "/v1/cluster/health")).json()
        assert (health["healthy"], len(health["under_replicated"]), health["brokers_not_running"]) == (True, 4, [2])

    with_broker(test, cluster)


def test_health_waits_for_what_the_controller_has_decided() -> None:
    """Or a script would stop the next broker because nobody has heard yet that one is gone."""

    async def test(broker: Broker, connection: Connection) -> None:
        async def findings() -> list[str]:
            health = (await connection.request("GET", "/v1/cluster/health")).json()
            return [finding["kind"] for finding in health["findings"]]

        broker.runtime.cluster.decided_beyond = 1
        asked = asyncio.create_task(findings())
        await broker.runtime.cluster.was_described.wait()
        happen(broker, "heard of")
        assert "metadata_behind" not in await asked
        assert "metadata_behind" in await findings()

    with_broker(test)


def test_ready_is_not_alive() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert (await connection.request("GET", "/readyz")).json()["ready"] is True
        broker.runtime.ready = False
        answer = await connection.request("GET", "/readyz")
        assert (answer.status, answer.json()["ready"]) == (503, False)
        assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test)


def test_a_broker_that_has_just_started_denies_nothing() -> None:
    """Before it has learnt the metadata, "no such topic" would make a client give up records that
    it could deliver."""

    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.core.informed = False
        body = b'{"records": [{"value": 1}]}'
        for method, path in [
            ("GET", "/v1/metadata"),
            ("GET", "/v1/topics"),
            ("GET", "/v1/topics/orders"),
            ("GET", "/v1/cluster/health"),
            ("POST", "/v1/topics/orders/records?timeout_ms=50"),
            ("GET", "/v1/topics/orders/partitions/0/records"),
        ]:
            sent = body if method == "POST" else b""
            answer = await connection.request(method, path, sent, **{"Content-Type": "application/json"})
            assert (answer.status, answer.json()["code"]) == (503, "LEADER_NOT_AVAILABLE"), path
            assert answer.json()["definite"] is True

    with_broker(test)


def test_head_answers_like_get_without_a_body() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        full = await connection.request("GET", "/v1/topics/orders")
        head = await connection.request("HEAD", "/v1/topics/orders")
        assert (head.status, head.headers["content-length"]) == (200, str(len(full.body)))
        tail = await connection.request("HEAD", "/v1/topics/orders/partitions/0/records", Accept="text/event-stream")
        assert tail.status == 200
        assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test)


def test_metrics_parse_and_hold_the_promised_names() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        records = b'{"records": [{"value": 1}]}'
        for acks in ("all", "1"):
            await connection.request("POST", f"/v1/topics/orders/partitions/0/records?acks={acks}", records, JSON)
        await connection.request("POST", "/v1/topics/orders/partitions/0/records?acks=9", records, JSON)
        await connection.request("GET", "/v1/topics/orders/partitions/0/records")
        await connection.request("GET", "/nope")
        answer = await connection.request("GET", "/metrics")
        assert answer.media == "text/plain"
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }
        partition = (("broker", "1"), ("partition", "0"), ("topic", "orders"))
        wanted = {
            ("minilog_partition_leader", partition): 1,
            ("minilog_partition_isr_size", partition): 2,
            ("minilog_partition_replicas", partition): 2,
            ("minilog_partition_under_replicated", partition): 0,
            ("minilog_partition_under_min_isr", partition): 0,
            ("minilog_partition_offline", partition): 0,
            ("minilog_partition_high_watermark", partition): 2,
            ("minilog_partition_log_end_offset", partition): 2,
            ("minilog_partition_log_start_offset", partition): 0,
            ("minilog_log_bytes", partition): 10,
            ("minilog_replica_lag_records", (*partition[:2], ("replica", "2"), partition[2])): 0,
            ("minilog_replica_lag_seconds", (*partition[:2], ("replica", "3"), partition[2])): 1.5,
            ("minilog_isr_shrinks_total", partition): 2,
            ("minilog_isr_expands_total", partition): 1,
            ("minilog_produce_requests_total", (("acks", "all"),)): 1,
            ("minilog_produce_latency_seconds_count", (("acks", "1"),)): 1,
            ("minilog_produce_errors_total", (("code", "INVALID_ACKS"),)): 1,
            ("minilog_fetch_requests_total", (("source", "leader"),)): 1,
            ("minilog_http_errors_total", (("code", "UNKNOWN_ROUTE"), ("route", "none"))): 1,
            ("minilog_event_loop_lag_seconds", ()): 0.001,
            ("minilog_brokers", (("state", "running"),)): 2,
            ("minilog_http_connections", ()): 1,
        }
        assert {key: samples.get(key) for key in wanted} == wanted
        assert samples["minilog_produce_bytes_total", (("acks", "all"),)] > 60
        assert samples["minilog_fetch_bytes_total", (("source", "leader"),)] > 60
        assert ("minilog_partition_isr_size", (("broker", "1"), ("partition", "1"), ("topic", "orders"))) not in samples
        assert any(name == "process_resident_memory_bytes" for name, _ in samples)
        assert not any(name.endswith("_created") for name, _ in samples)

    with_broker(test)


COUNTED = {f"minilog_{kind}_errors_total" for kind in ("produce", "fetch", "replica_fetch", "http")}


async def errors_counted(connection: Connection) -> dict[str, float]:
    text = (await connection.request("GET", "/metrics")).body.decode()
    return {
        f"{sample.name.removeprefix('minilog_').removesuffix('_errors_total')} {sample.labels['code']}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in COUNTED and sample.value
    }


def test_produces_that_come_to_no_leader_are_counted_and_redirects_are_not() -> None:
    cluster = orders()

    async def test(broker: Broker, connection: Connection) -> None:
        to_p1 = b'{"records": [{"value": 1, "partition": 1}]}'
        path = "/v1/topics/orders/records?timeout_ms=1"
        cluster.down.add(2)
        assert (await connection.request("POST", path, to_p1, JSON)).status == 502
        assert await errors_counted(connection) == {"produce BROKER_UNAVAILABLE": 1, "http BROKER_UNAVAILABLE": 1}
        cluster.lead("orders", 1, -1)
        both = (
            b'{"records": [{"value": 1, "partition": 1}, {"value": 1, "partition": 0}, {"value": 1, "partition": 9}]}'
        )
        assert (await connection.request("POST", path, both, JSON)).status == 207
        cluster.lead("orders", 1, 2)
        cluster.down.clear()
        assert (await connection.request("GET", "/v1/topics/orders/partitions/1/records")).status == 307
        assert (await connection.request("POST", path + "&acks=9", to_p1, JSON)).status == 422
        assert await errors_counted(connection) == {
            "produce BROKER_UNAVAILABLE": 1,
            "http BROKER_UNAVAILABLE": 1,
            "produce LEADER_NOT_AVAILABLE": 1,
            "produce UNKNOWN_PARTITION": 1,
            "http INVALID_ACKS": 1,  # the leader has counted the produce
        }

    with_broker(test, cluster)


def test_openapi_describes_every_route_and_every_parameter_the_server_takes() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        description = (await connection.request("GET", "/openapi.json")).json()
        assert description["openapi"].startswith("3.1")
        for route in ROUTES:
            if route.name == "rpc":
                assert route.path not in description["paths"]
                continue
            operation = description["paths"][route.path][route.method.lower()]
            named = {(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", ())}
            in_path = {("path", name) for name in re.findall(r"{(\w+)}", route.path)}
            in_query = {("query", parameter.name) for parameter in route.query}
            assert named == in_path | in_query | {("header", header.name) for header in route.headers}
            assert set(operation.get("requestBody", {}).get("content", ())) == set(route.accepts)
        schemas = description["components"]["schemas"]
        assert {"JsonRecord", "CreateTopicBody", "TopicInfo", "ProblemDocument", "Receipt"} <= set(schemas)
        for reference in re.findall(
            r'"\$ref": ?"#/components/schemas/(\w+)"', msgspec.json.encode(description).decode()
        ):
            assert reference in schemas

    with_broker(test)
