"""The console's routes on a broker: the page for browsers, the stream, and what the broker tells of
itself."""

from __future__ import annotations

import json

from minilog.broker.figures import FRESH_MS
from minilog.wire.figure_messages import DescribeBroker, DescribeBrokerReply
from minilog.wire.http import EVENTS, JSON, MSGPACK
from minilog.wire.messages import Problem, decode, encode
from tests.unit.broker.http.fake_runtime import FakeRuntime
from tests.unit.broker.http.harness import Broker, Connection, with_broker

BROWSER = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"


def test_a_browser_gets_the_page_and_a_program_what_it_got_before() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        shown = await connection.request("GET", "/", Accept=BROWSER)
        assert (shown.status, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "script-src 'sha256-" in shown.headers["content-security-policy"]
        assert (await connection.request("GET", "/")).json()["name"] == "minilog"
        refused = await connection.request("GET", "/", Accept="image/png")
        assert refused.json()["code"] == "NOT_ACCEPTABLE"

    with_broker(test)


def test_the_state_comes_once_as_json_and_as_a_stream() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.cluster.down.add(2)
        state = (await connection.request("GET", "/v1/cluster/live", Accept=JSON)).json()
        assert (state["about"]["role"], state["about"]["broker_id"]) == ("broker", 1)
        assert [topic["topic"] for topic in state["topics"]] == ["orders"]
        assert [one["version"] is not None for one in state["brokers"]] == [True, False], "broker 2 is down"
        head = await connection.request("HEAD", "/v1/cluster/live", Accept=EVENTS)
        assert head.headers["content-type"] == EVENTS

    with_broker(test)


def test_a_broker_that_knows_nothing_yet_shows_nothing() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.core.informed = False
        assert (await connection.request("GET", "/v1/cluster/live")).json()["code"] == "LEADER_NOT_AVAILABLE"

    with_broker(test)


def test_a_broker_tells_of_itself_and_counts_once_for_many() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async def told() -> DescribeBrokerReply:
            answer = await connection.request("POST", "/internal/rpc", encode(DescribeBroker()), MSGPACK)
            reply = decode(answer.body)
            assert isinstance(reply, DescribeBrokerReply), isinstance(reply, Problem) and reply.detail
            return reply

        before = await told()
        assert (before.broker_id, before.leaders, before.replicas, before.lost) == (1, 2, 4, [])
        body = json.dumps({"records": [{"value": 1, "partition": 0}]}).encode()
        assert (await connection.request("POST", "/v1/topics/orders/records", body, JSON)).status == 200
        assert (await told()) == before, "it was asked less than FRESH_MS ago"
        broker.runtime.clock.passed_ms += FRESH_MS
        assert (await told()).produces == before.produces + 1

    with_broker(test)


def test_where_partitions_begin_and_end_is_asked_of_their_leaders() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.cluster.down.add(2)
        found = (await connection.request("GET", "/v1/topics/orders/offsets")).json()["partitions"]
        assert [place["high_watermark"] for place in found] == [0, None, 0, None], "broker 2 is down"
        missing = await connection.request("GET", "/v1/topics/nothing/offsets")
        assert missing.json()["code"] == "UNKNOWN_TOPIC_OR_PARTITION"

    with_broker(test)


def test_a_page_has_the_broker_ask_where_another_one_leads() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        FakeRuntime(broker.runtime.cluster, 2)
        for path in ("/v1/topics/orders/partitions/1/records", "/v1/topics/orders/partitions/1/offsets"):
            assert (await connection.request("GET", path)).status == 307
            assert (await connection.request("GET", f"{path}?elsewhere=ask")).status == 200

    with_broker(test)
