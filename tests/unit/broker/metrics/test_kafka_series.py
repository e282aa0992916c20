"""/metrics/kafka: what boards for Kafka ask for is served, or it is said why not; and the facts are
the same."""

from __future__ import annotations

import asyncio

import pytest

from minilog.broker.metrics.metrics import Metrics
from minilog.controller.kafka_names import write_kafka_cluster, write_kafka_counts, write_kafka_journal
from minilog.server.exposition import Exposition
from minilog.server.security.gate import Gate
from minilog.wire.group_messages import GroupInfo
from minilog.wire.messages import BrokerHealth, DescribeClusterReply, ProduceReply, ProduceResult
from tests.unit.broker.http.fake_runtime import FakeRuntime
from tests.unit.broker.metrics.kafka_boards import BOARDS, NOT_SERVED
from tests.unit.broker.metrics.reading import Samples, samples_in, samples_of
from tests.unit.broker.metrics.test_group_series import with_orders


class Listener:
    open_connections = 4


def of_broker(runtime: FakeRuntime) -> Samples:
    async def work() -> bytes:
        metrics = Metrics(runtime, Gate(runtime.settings))
        metrics.listener = Listener()
        metrics.requests.on_produce(1, 10, 0.1, ProduceReply([ProduceResult("orders", 0)]))
        return await metrics.render_kafka()

    return samples_in(asyncio.run(work()).decode())


def of_controller(runtime: FakeRuntime) -> Samples:
    page = Exposition()
    brokers = [BrokerHealth(b.broker_id, b.url, b.state, b.epoch, 1, 5) for b in runtime.image.brokers.values()]
    write_kafka_cluster(page, DescribeClusterReply("c", 3, 1, brokers, [], {"unclean": 1}), runtime.image)
    write_kafka_counts(page, {"all": 3, "offline": 1})
    write_kafka_journal(page, is_active=True, epoch=3, journal_index=9)
    return samples_of(page)


@pytest.fixture
def runtime() -> FakeRuntime:
    _, runtime = with_orders()
    runtime.groups = [GroupInfo("billing", "stable", 1, 3)]
    return runtime


@pytest.mark.parametrize("board", BOARDS)
def test_what_a_board_asks_for_is_served_or_it_is_said_why_not(board: str, runtime: FakeRuntime) -> None:
    served = {name for name, _ in of_broker(runtime) | of_controller(runtime)}
    excused = {name for name in BOARDS[board] if name.startswith(tuple(NOT_SERVED))}
    assert set(BOARDS[board]) - served == excused


def test_nothing_is_excused_that_nobody_asks_for() -> None:
    asked = {name for names in BOARDS.values() for name in names}
    assert [start for start in NOT_SERVED if not any(name.startswith(start) for name in asked)] == []


def test_the_facts_are_the_same(runtime: FakeRuntime) -> None:
    found = of_broker(runtime) | of_controller(runtime)
    place = "partition=0,topic=orders"
    assert found["kafka_topic_partition_in_sync_replica", place] == 2
    assert found["kafka_topic_partition_leader", place] == 1
    assert ("kafka_topic_partition_leader", "partition=1,topic=orders") not in found, "its leader tells that"
    assert found["kafka_log_log_size", "partition=1,topic=orders"] == 10
    assert found["kafka_consumergroup_lag", f"consumergroup=billing,{place}"] == 9
    assert found["kafka_consumer_lag_millis", f"consumergroup=billing,{place}"] == 2500
    assert found["kafka_consumergroup_members", "consumergroup=billing"] == 3
    assert found["kafka_server_brokertopicmetrics_totalproducerequests_total", "topic=orders"] == 1
    assert found["kafka_server_socket_server_metrics_connection_count", "listener=http"] == 4
    assert found["kafka_server_replicamanager_leadercount", ""] == 2
    assert found["kafka_controller_kafkacontroller_offlinepartitionscount", ""] == 1
    assert found["kafka_topic_partitions", "topic=orders"] == 2
    assert found["kafka_brokers", ""] == 2
