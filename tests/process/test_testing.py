"""The pytest plugin, used as an application's tests would use it."""

from __future__ import annotations

import time

import pytest

from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.testing import Clusters, MinilogBroker, MinilogCluster


def test_orders_survive_a_broker(minilog_cluster: MinilogCluster) -> None:
    minilog_cluster.create_topic("orders", partitions=3, config={"min.insync.replicas": "2"})
    client = minilog_cluster.client()
    client.producer().send("orders", b"paid", partition=0).result()
    leader = minilog_cluster.leader("orders")
    minilog_cluster.kill(leader)
    assert minilog_cluster.leader("orders") != leader
    assert [record.value for record in client.consumer("orders", start="earliest").batch(max_wait_ms=5000)] == [b"paid"]
    minilog_cluster.start(leader)
    minilog_cluster.wait_in_sync("orders")
    assert minilog_cluster.isr("orders") == minilog_cluster.broker_ids
    minilog_cluster.restart(leader)
    minilog_cluster.kill(leader)
    with pytest.raises(AssertionError, match="does not run"):
        minilog_cluster.resume(leader)


def test_a_paused_broker_does_not_answer_until_it_goes_on(minilog_broker: MinilogBroker) -> None:
    minilog_broker.create_topic("orders")
    producer = minilog_broker.client().producer(acks=1)
    producer.send("orders", b"one").result()
    minilog_broker.pause()
    waiting = producer.send("orders", b"two")
    time.sleep(0.2)
    assert not waiting.done()
    minilog_broker.resume()
    waiting.result(timeout=10)


def test_one_process_keeps_its_data_over_a_kill(minilog_broker: MinilogBroker) -> None:
    minilog_broker.create_topic("orders")
    minilog_broker.client().producer().send("orders", b"paid").result()
    minilog_broker.kill()
    with pytest.raises((BrokerUnavailable, TimedOut)):
        minilog_broker.client(request_timeout_ms=300).producer(delivery_timeout_ms=500).send("orders", b"x").result()
    minilog_broker.start()
    records = minilog_broker.client().consumer("orders", start="earliest").batch(max_wait_ms=5000)
    assert records[0].value == b"paid"


def test_clusters_of_other_sizes_and_settings(minilog_clusters: Clusters) -> None:
    two = minilog_clusters(brokers=2, settings=["session_timeout_ms=1500"])
    assert two.broker_ids == [1, 2]
    assert len(two.create_topic("orders").partitions[0].replicas) == 2
    with pytest.raises(MinilogError):
        two.create_topic("orders", replication_factor=3)
