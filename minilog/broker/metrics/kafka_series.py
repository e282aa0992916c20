"""The facts of a broker under the names of Kafka's JMX exporter and of kafka_exporter, so that
boards made for them show minilog.

A fact that minilog does not have gets no name here: a board's empty panel says more than a number
that was made up. Facts about a partition come from its leader, those about a group from its
coordinator, those about the cluster from the controller (``controller/kafka_names.py``).

Sources: the rules of Strimzi's examples/metrics/kafka-metrics.yaml, danielqsj/kafka_exporter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from minilog import machine
from minilog.broker.metrics.group_series import GroupSeries
from minilog.broker.metrics.partition_series import SLICE
from minilog.broker.metrics.request_counters import RequestCounters, TopicCounts
from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import BrokerStatistics, PartitionStatistics
from minilog.server.exposition import Exposition, Family, escaped, labels
from minilog.wire.group_messages import GroupInfo

RUNNING, STARTING = 3, 1
"""Kafka's states of a broker."""
Value = Callable[[PartitionStatistics], int]
_OF_ALL: Final[tuple[tuple[str, str, Value], ...]] = (
    ("kafka_log_log_size", "Bytes of the log on disk", lambda each: each.log_bytes),
    ("kafka_log_log_logstartoffset", "First offset of this replica", lambda each: each.log_start_offset),
    ("kafka_log_log_logendoffset", "Offset the next record will get", lambda each: each.log_end_offset),
)
_OF_LEADERS: Final[tuple[tuple[str, str, Value], ...]] = (
    ("kafka_topic_partition_current_offset", "Committed end of the log", lambda each: each.high_watermark),
    ("kafka_topic_partition_oldest_offset", "First offset that is still there", lambda each: each.log_start_offset),
    ("kafka_topic_partition_leader", "Broker that leads", lambda each: each.leader),
    ("kafka_topic_partition_replicas", "Assigned replicas", lambda each: each.replicas),
    ("kafka_topic_partition_in_sync_replica", "In-sync replicas", lambda each: each.isr_size),
    (
        "kafka_topic_partition_leader_is_preferred",
        "1 when the first of the replicas leads",
        lambda each: int(each.is_preferred),
    ),
    (
        "kafka_topic_partition_under_replicated_partition",
        "1 when replicas are missing from the ISR",
        lambda each: int(each.under_replicated),
    ),
    (
        "kafka_cluster_partition_underreplicated",
        "1 when replicas are missing from the ISR",
        lambda each: int(each.under_replicated),
    ),
    (
        "kafka_cluster_partition_underminisr",
        "1 when the ISR is smaller than min.insync.replicas",
        lambda each: int(each.under_min_isr),
    ),
    (
        "kafka_cluster_partition_atminisr",
        "1 when the ISR is exactly min.insync.replicas",
        lambda each: int(each.at_min_isr),
    ),
    ("kafka_cluster_partition_replicascount", "Assigned replicas", lambda each: each.replicas),
    ("kafka_cluster_partition_insyncreplicascount", "In-sync replicas", lambda each: each.isr_size),
)
_BY_TOPIC: Final[tuple[tuple[str, str, Callable[[TopicCounts], int]], ...]] = (
    ("bytesout", "Bytes that consumers have got", lambda counts: counts.bytes_out),
    ("totalproducerequests", "Writes asked for, by partition", lambda counts: counts.produces),
    ("failedproducerequests", "Of these, refused", lambda counts: counts.produces_refused),
    ("totalfetchrequests", "Reads asked for, by partition", lambda counts: counts.fetches),
    ("failedfetchrequests", "Of these, refused", lambda counts: counts.fetches_refused),
)


def write_broker(page: Exposition, runtime: Runtime, statistics: BrokerStatistics, listener: Any) -> None:
    page.gauge("kafka_server_kafkaserver_brokerstate", "3: runs", RUNNING if runtime.ready else STARTING)
    fetched = sum(following.fetched_bytes for following in statistics.following.values())
    page.counter("kafka_server_brokertopicmetrics_replicationbytesin", "Bytes copied from leaders", fetched)
    if listener is not None:
        of = labels(listener="http")
        page.gauge(
            "kafka_server_socket_server_metrics_connection_count",
            "Open connections",
            [(of, listener.open_connections)],
        )
    moved = machine.disk_bytes()
    if moved is not None:
        page.gauge("kafka_server_kafkaserver_linux_disk_read_bytes", "Read from disks by this process", moved[0])
        page.gauge("kafka_server_kafkaserver_linux_disk_write_bytes", "Written to disks by this process", moved[1])


async def write_partitions(
    page: Exposition, replicas: Sequence[PartitionStatistics], shown: Sequence[PartitionStatistics]
) -> None:
    """``shown`` have series of their own."""
    _write_sums(page, replicas)
    of_all = [(page.gauge(name, doc), value) for name, doc, value in _OF_ALL]
    of_leaders = [(page.gauge(name, doc), value) for name, doc, value in _OF_LEADERS]
    for start in range(0, len(shown), SLICE):
        for each in shown[start : start + SLICE]:
            of = f'{{partition="{each.partition}",topic="{each.topic}"}}'
            for family, value in (*of_all, *(of_leaders if each.is_leader else ())):
                family.add(of, value(each))
        await asyncio.sleep(0)


def _write_sums(page: Exposition, replicas: Sequence[PartitionStatistics]) -> None:
    name = "kafka_server_replicamanager_"
    led = [each for each in replicas if each.is_leader]
    page.gauge(f"{name}partitioncount", "Replicas on this broker", len(replicas))
    page.gauge(f"{name}leadercount", "Partitions that this broker leads", len(led))
    page.gauge(
        f"{name}underreplicatedpartitions", "Of these, without all replicas", sum(e.under_replicated for e in led)
    )
    page.gauge(f"{name}underminisrpartitioncount", "Of these, refusing acks=all", sum(e.under_min_isr for e in led))
    page.gauge(f"{name}atminisrpartitioncount", "Of these, at min.insync.replicas", sum(e.at_min_isr for e in led))
    page.counter(f"{name}isrshrinks", "Times an ISR lost members", sum(each.isr_shrinks for each in replicas))
    page.counter(f"{name}isrexpands", "Times an ISR got members", sum(each.isr_expands for each in replicas))


def write_topics(page: Exposition, counters: RequestCounters, replicas: Sequence[PartitionStatistics]) -> None:
    name = "kafka_server_brokertopicmetrics_"
    records: Counter[str] = Counter()
    volume: Counter[str] = Counter()
    for each in replicas:
        records[each.topic] += each.records_in
        volume[each.topic] += each.bytes_in
    page.counter(f"{name}messagesin", "Records that producers have written", _samples(records))
    page.counter(f"{name}bytesin", "Bytes that producers have written", _samples(volume))
    for field, doc, value in _BY_TOPIC:
        none = TopicCounts()
        counted = {topic: value(counters.by_topic.get(topic, none)) for topic in records}
        page.counter(name + field, doc, _samples(counted))


def _samples(by_topic: dict[str, int]) -> list[tuple[str, int]]:
    return [(labels(topic=topic), count) for topic, count in sorted(by_topic.items())]


async def write_groups(page: Exposition, series: GroupSeries, groups: Sequence[GroupInfo], most: int) -> None:
    families = _GroupFamilies(page)
    room = most
    for number, info in enumerate(groups):
        if number < most:
            families.add_group(info)
        known = series.of(info.group)
        if known is not None and len(known.lags) <= room:
            room -= len(known.lags)
            for each in known.lags:
                if each.lag.committed is not None:
                    families.add(info.group, each.lag.topic, each.lag.partition, each.lag.committed)
                if each.lag.lag is not None and each.lag.lag_seconds is not None:
                    families.add_lag(info.group, each.lag.topic, each.lag.partition, each.lag.lag, each.lag.lag_seconds)
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)


class _GroupFamilies:
    def __init__(self, page: Exposition) -> None:
        def gauge(name: str, doc: str) -> Family:
            return page.gauge(name, doc)

        self._members = gauge("kafka_consumergroup_members", "Live members")
        self._offset = gauge("kafka_consumergroup_current_offset", "Next record the group will read")
        self._lag = gauge("kafka_consumergroup_lag", "Records that are not committed")
        self._same = gauge("kafka_consumergroup_uncommitted_offsets", "Records that are not committed")
        self._millis = gauge("kafka_consumer_lag_millis", "Age of the first record that is not committed, in ms")

    def add_group(self, info: GroupInfo) -> None:
        self._members.add(f'{{consumergroup="{escaped(info.group)}"}}', info.members)

    def add(self, group: str, topic: str, partition: int, committed: int) -> None:
        self._offset.add(_place(group, topic, partition), committed)

    def add_lag(self, group: str, topic: str, partition: int, lag: int, lag_seconds: float) -> None:
        place = _place(group, topic, partition)
        self._lag.add(place, lag)
        self._same.add(place, lag)
        self._millis.add(place, round(lag_seconds * 1000))


def _place(group: str, topic: str, partition: int) -> str:
    return f'{{consumergroup="{escaped(group)}",partition="{partition}",topic="{topic}"}}'
