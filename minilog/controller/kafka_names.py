"""The facts of a controller under the names of Kafka's JMX exporter and of kafka_exporter: what
there is one of in a cluster. The rest is the brokers' (``broker/metrics/kafka_series.py``)."""

from __future__ import annotations

from minilog.core.image import ClusterImage
from minilog.core.topic_names import is_internal
from minilog.server.exposition import Exposition, labels
from minilog.wire.messages import DescribeClusterReply

_CONTROLLER = "kafka_controller_kafkacontroller_"


def write_kafka_cluster(page: Exposition, cluster: DescribeClusterReply, image: ClusterImage) -> None:
    running = [broker for broker in cluster.brokers if broker.state == "running"]
    page.gauge("kafka_brokers", "Brokers that run", len(running))
    page.gauge(
        "kafka_broker_info",
        "1 for each broker that runs",
        [(labels(id=broker.broker_id, address=broker.url.partition("://")[2]), 1) for broker in running],
    )
    page.gauge(
        "kafka_topic_partitions",
        "Partitions of a topic",
        [
            (labels(topic=name), len(topic.partitions))
            for name, topic in sorted(image.topics.items())
            if not is_internal(name)
        ],
    )
    page.gauge(f"{_CONTROLLER}activebrokercount", "Brokers that run", len(running))
    page.gauge(f"{_CONTROLLER}fencedbrokercount", "Brokers that do not", len(cluster.brokers) - len(running))
    page.gauge(f"{_CONTROLLER}globaltopiccount", "Topics", len(image.topics))
    unclean = cluster.elections.get("unclean", 0)
    page.counter("kafka_controller_controllerstats_uncleanleaderelections", "Leaders that may lack records", unclean)


def write_kafka_counts(page: Exposition, counts: dict[str, int]) -> None:
    """``counts``: of partitions, by what is wrong with them."""
    page.gauge(f"{_CONTROLLER}globalpartitioncount", "Partitions", counts.get("all", 0))
    page.gauge(f"{_CONTROLLER}offlinepartitionscount", "Partitions without a leader", counts.get("offline", 0))
    page.gauge(
        f"{_CONTROLLER}preferredreplicaimbalancecount",
        "Partitions that another than the first of their replicas leads",
        counts.get("not_preferred", 0),
    )


def write_kafka_journal(page: Exposition, *, is_active: bool, epoch: int, journal_index: int) -> None:
    page.gauge(f"{_CONTROLLER}activecontrollercount", "1 where metadata is decided", int(is_active))
    raft = "kafka_server_raftmetrics_"
    page.gauge(f"{raft}current_epoch", "Term of this controller", epoch)
    page.gauge(
        f"{raft}current_state", "1 with the state as a label", [(labels(current_state="leader"), int(is_active))]
    )
    page.gauge(f"{raft}high_watermark", "Index of the last durable metadata record", journal_index)
    page.gauge(f"{raft}log_end_offset", "Index of the last durable metadata record", journal_index)
