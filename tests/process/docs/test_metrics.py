"""The page of metrics says what a real cluster serves: each name, its type, its labels, and who tells
it. And Kafka's names are served, too."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.process.docs.metrics_table import served, use, written
from tests.process.rig.cluster import ProcessCluster, process_cluster


def test_the_page_of_metrics_is_what_a_cluster_serves(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        asyncio.run(use(cluster.url))
        found, page = served(cluster), written()
        kafka = kafka_names(cluster)
    assert sorted(found.keys() ^ page.keys()) == []
    for name, family in found.items():
        row = page[name]
        assert (name, family.kind, family.roles) == (name, row.kind, row.roles)
        assert family.labels in (frozenset(), row.labels), name
        assert family.doc.rstrip(".") == row.doc, name
    assert {"kafka_consumergroup_lag", "kafka_topic_partition_current_offset", "kafka_brokers"} <= kafka


def kafka_names(cluster: ProcessCluster) -> set[str]:
    names = set()
    for member in cluster.dev.members:
        with urllib.request.urlopen(f"{member.url}/metrics/kafka", timeout=5) as answer:
            text = answer.read().decode()
        names |= {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    return names
