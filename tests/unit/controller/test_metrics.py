"""What only a controller can tell: partitions in trouble, also those that no living broker hosts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minilog.controller import metrics
from minilog.controller.metrics import standing_of, write_standing
from minilog.core.image import ClusterImage
from minilog.server.exposition import Exposition
from minilog.wire.journal.metadata_records import DiskState
from minilog.wire.messages import BrokerHealth, DescribeClusterReply
from tests.unit.core.builders import image_of, partition_state, topic_records

Found = dict[tuple[str, ...], float]


def told(image: ClusterImage) -> Found:
    brokers = [BrokerHealth(b.broker_id, b.url, b.state, b.epoch, 1, 5) for b in image.brokers.values()]
    page = Exposition()
    write_standing(page, DescribeClusterReply("c", 1, 1, brokers, []), image, asyncio.run(standing_of(image)))
    return {
        (sample.name.removeprefix("minilog_"), *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page.text().decode())
        for sample in family.samples
    }


def test_a_partition_whose_replicas_are_all_down_is_told_by_name_and_counted() -> None:
    """No broker was left that told of it."""
    lone = partition_state(leader=-1, replicas=[3], isr=[3])
    found = told(image_of(*topic_records(lone, partition_state(partition=1, replicas=[1, 2], isr=[1]), min_isr=2)))
    assert found["cluster_partition_troubled", "0", "offline", lone.topic] == 1
    assert found["cluster_partition_troubled", "1", "under_min_isr", lone.topic] == 1
    assert found["cluster_partition_troubled", "1", "under_replicated", lone.topic] == 1
    assert found["cluster_partitions", "all"] == 2
    assert found["cluster_partitions", "offline"] == 1
    assert found["cluster_partitions_omitted",] == 0


def test_a_partition_that_no_complete_replica_is_left_of_is_told_apart() -> None:
    found = told(image_of(*topic_records(partition_state(leader=-1, isr=[]))))
    assert found["cluster_partitions", "lost"] == 1
    assert found["cluster_partitions", "offline"] == 0


def test_a_broker_with_another_disk_is_told_until_it_is_in_sync() -> None:
    image = image_of(*topic_records(partition_state(isr=[1, 2])))
    image.brokers[3] = replace(image.brokers[3], disk=DiskState.OTHER)
    assert told(image)["broker_disk_lost", "3"] == 1
    image = image_of(*topic_records(partition_state()))
    image.brokers[3] = replace(image.brokers[3], disk=DiskState.OTHER)
    assert told(image)["broker_disk_lost", "3"] == 0


def test_more_partitions_in_trouble_than_have_names_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "NAMED_MAX", 2)
    states = [partition_state(partition=number, leader=-1, isr=[]) for number in range(5)]
    found = told(image_of(*topic_records(*states)))
    assert found["cluster_partitions", "lost"] == 5
    assert len([key for key in found if key[0] == "cluster_partition_troubled" and key[2] == "lost"]) == 2
    assert found["cluster_partitions_omitted",] == 9, "three that are offline, and the same of two other states"


def test_leaders_that_are_not_spread_evenly_show() -> None:
    states = [partition_state(partition=number, leader=1) for number in range(3)]
    found = told(image_of(*topic_records(*states)))
    assert found["leader_skew",] == 3.0
    assert found["broker_leaders", "1"] == 3
    assert found["broker_replicas", "2"] == 3
    assert found["cluster_partitions", "not_preferred"] == 0


def test_a_large_image_is_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SLICE", 10)
    image = image_of(*topic_records(*[partition_state(partition=number) for number in range(100)]))
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        looking = asyncio.ensure_future(standing_of(image))
        while not looking.done():
            rounds += 1
            await asyncio.sleep(0)

    asyncio.run(work())
    assert rounds >= 10
