"""What is counted where an answer is made: errors by code, and refused writes by partition."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from minilog.broker.metrics import request_counters
from minilog.broker.metrics.request_counters import RequestCounters
from minilog.errors import DiskFull, LeaderNotAvailable, Overloaded
from minilog.server.exposition import Exposition
from minilog.wire.messages import Problem, ProduceReply, ProduceResult
from tests.unit.broker.http.fake_runtime import FakeCluster
from tests.unit.broker.metrics.reading import Samples, samples_in, samples_of


class Counted:
    def __init__(self, partitions: int = 2) -> None:
        self.cluster = FakeCluster()
        self.cluster.create("orders", partitions)
        self.registry = CollectorRegistry()
        self.counters = RequestCounters(self.registry, lambda: self.cluster.image)

    def refuse(self, topic: str, partition: int) -> None:
        problem = Problem.of(DiskFull("no room"))
        self.counters.on_produce(1, 10, 0.1, ProduceReply([ProduceResult(topic, partition, problem)]))

    def told(self) -> Samples:
        page = Exposition()
        self.counters.write(page)
        return samples_of(page) | samples_in(generate_latest(self.registry).decode())


def test_errors_begin_at_0_so_that_the_first_is_an_increase() -> None:
    found = Counted().told()
    for kind in ("produce", "fetch", "replica_fetch"):
        assert found[f"minilog_{kind}_errors_total", f"code={LeaderNotAvailable.code}"] == 0


def test_refused_writes_are_told_by_partition() -> None:
    counted = Counted()
    counted.refuse("orders", 1)
    counted.counters.on_produce(1, 10, 0.1, Problem.of(Overloaded("later")))
    found = counted.told()
    assert found["minilog_partition_produce_errors_total", "code=DISK_FULL,partition=1,topic=orders"] == 1
    assert found["minilog_produce_errors_total", "code=DISK_FULL"] == 1
    assert found["minilog_produce_errors_total", "code=OVERLOADED"] == 1


def test_a_whole_request_that_came_to_no_partition_is_counted_once() -> None:
    counted = Counted()
    counted.counters.on_error("produce_partition", "LEADER_NOT_AVAILABLE", is_counted=False)
    counted.counters.on_error("produce_partition", "DISK_FULL", is_counted=True)
    counted.counters.on_error("list_topics", "OVERLOADED", is_counted=False)
    found = counted.told()
    assert found["minilog_produce_errors_total", "code=LEADER_NOT_AVAILABLE"] == 1
    assert found["minilog_produce_errors_total", "code=DISK_FULL"] == 0
    assert found["minilog_produce_errors_total", "code=OVERLOADED"] == 0


def test_names_that_clients_make_up_leave_nothing_behind() -> None:
    counted = Counted()
    for number in range(100):
        counted.refuse(f"made-up-{number}", 0)
    counted.refuse("orders", 77)
    assert list(counted.counters.by_topic) == ["orders"]
    assert not [label for name, label in counted.told() if name == "minilog_partition_produce_errors_total"]


def test_series_of_refused_partitions_are_bounded_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_counters, "REFUSALS_MAX", 2)
    counted = Counted(partitions=5)
    for partition in range(5):
        counted.refuse("orders", partition)
    found = counted.told()
    assert len([name for name, _ in found if name == "minilog_partition_produce_errors_total"]) == 2
    assert found["minilog_produce_errors_omitted_total", ""] == 3
    assert found["minilog_produce_errors_total", "code=DISK_FULL"] == 5


def test_nothing_is_kept_of_a_topic_that_is_gone() -> None:
    counted = Counted()
    counted.refuse("orders", 0)
    del counted.cluster.image.topics["orders"]
    counted.told()
    assert not counted.counters.by_topic
    assert not counted.counters._refusals
