"""The pytest plugin, used as an application's tests would use it."""

from __future__ import annotations

import contextlib
import time

import pytest

import minilog.testing
from minilog.errors import BrokerUnavailable, Forbidden, MinilogError, TimedOut, Unauthenticated
from minilog.testing import Clusters, MinilogBroker, MinilogCluster
from minilog_client import Client


def test_orders_survive_a_broker(minilog_cluster: MinilogCluster) -> None:
    minilog_cluster.create_topic("orders", partitions=3, config={"min.insync.replicas": "2"})
    client = minilog_cluster.client()
    client.producer().send("orders", b"paid", partition=0).result()
    leader = minilog_cluster.leader("orders")
    minilog_cluster.kill(leader)
    assert minilog_cluster.leader("orders") != leader
    with client.consumer("orders", start="earliest") as consumer:
        assert [record.value for record in consumer.batch(max_wait_ms=5000)] == [b"paid"]
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
    with minilog_broker.client().consumer("orders", start="earliest") as consumer:
        assert consumer.batch(max_wait_ms=5000)[0].value == b"paid"


def test_clusters_of_other_sizes_and_settings(minilog_clusters: Clusters) -> None:
    two = minilog_clusters(brokers=2, settings=["session_timeout_ms=1500"])
    assert two.broker_ids == [1, 2]
    assert len(two.create_topic("orders").partitions[0].replicas) == 2
    with pytest.raises(MinilogError):
        two.create_topic("orders", replication_factor=3)


def test_each_may_do_what_a_rule_allows(minilog_secured: MinilogCluster) -> None:
    minilog_secured.create_topic("orders")
    minilog_secured.add_principal("shop", allow=["write orders"])
    shop = minilog_secured.client("shop")
    assert shop.producer().send("orders", b"paid").result().offset == 0
    with shop.consumer("orders", start="earliest") as consumer, pytest.raises(Forbidden):
        consumer.batch(max_wait_ms=5000)
    minilog_secured.kill(minilog_secured.leader("orders"))
    with minilog_secured.client().consumer("orders", start="earliest") as consumer:
        assert [record.value for record in consumer.batch(max_wait_ms=5000)] == [b"paid"]
    with pytest.raises(Unauthenticated), Client(minilog_secured.url, ca_file=str(minilog_secured.ca_file)) as nobody:
        nobody.create_topic("stolen")


def test_a_controller_is_followed_by_another(minilog_clusters: Clusters) -> None:
    cluster = minilog_clusters(controllers=3, settings=["session_timeout_ms=2000"], secure=True)
    cluster.create_topic("orders")
    active = cluster.active_controller()
    cluster.kill(active)
    assert cluster.active_controller() != active
    cluster.create_topic("clicks")
    cluster.start(active)


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_etcd_a_test_is_left_out_and_fails_in_continuous_integration(
    minilog_clusters: Clusters, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(outcome, match="etcd, which is not installed here"):
        minilog_clusters(controllers=3)


def test_what_is_waited_for_in_vain_is_an_assertion_error(
    minilog_clusters: Clusters, minilog_broker: MinilogBroker
) -> None:
    cluster = minilog_clusters(brokers=1)
    cluster.deadline_ms, minilog_broker.deadline_s = 300, 0.3
    cluster.pause(1)
    with pytest.raises(AssertionError, match="1 did not stop"):
        cluster.stop(1)
    minilog_broker.pause()
    with pytest.raises(AssertionError, match="did not end"):
        minilog_broker.stop()
    cluster.deadline_ms = 20_000
    cluster.kill(1)
    (cluster._dev.folder / "broker-1" / "meta.json").write_bytes(b"{}")
    with pytest.raises(AssertionError, match="broker 1 stopped while starting"):
        cluster.start(1)


def test_a_cluster_is_gone_whatever_a_callback_of_the_test_does() -> None:
    class Failing(Client):
        def close(self, timeout_ms: int | None = None) -> None:
            super().close(timeout_ms)
            raise ValueError("a test's own callback fails")

    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(minilog.testing.cluster(1))
        cluster._clients.append(Failing(cluster.url))
        cluster.client()
        with pytest.raises(ValueError, match="own callback"):
            stack.close()
    assert not cluster._dev.alive()
    assert not cluster._dev.folder.exists()
