"""What boards made for Kafka ask Prometheus for, by board, and why some of it is not served.

Strimzi: examples/metrics/grafana-dashboards at 8541da1e. kafka-observ-lib: grafana/jsonnet-libs,
kafka-observ-lib/dashboards_out at 6da2b4b8. Of names that a board asks for one after the other
(``a or b``), the first that is served is here.
"""

from __future__ import annotations

from typing import Final

_TOPICS = "kafka_server_brokertopicmetrics_"
_REPLICAS = "kafka_server_replicamanager_"
_CONTROLLER = "kafka_controller_kafkacontroller_"
_RAFT = "kafka_server_raftmetrics_"
BOARDS: Final[dict[str, tuple[str, ...]]] = {
    "strimzi-kafka": (
        "kafka_cluster_partition_atminisr",
        "kafka_cluster_partition_replicascount",
        "kafka_cluster_partition_underminisr",
        "kafka_controller_controllerstats_uncleanleaderelections_total",
        f"{_CONTROLLER}activecontrollercount",
        f"{_CONTROLLER}offlinepartitionscount",
        "kafka_log_log_size",
        "kafka_network_socketserver_networkprocessoravgidle_percent",
        *(
            f"{_TOPICS}{name}_total"
            for name in (
                "bytesin",
                "bytesout",
                "failedfetchrequests",
                "failedproducerequests",
                "messagesin",
                "totalfetchrequests",
                "totalproducerequests",
            )
        ),
        "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
        "kafka_server_kafkaserver_linux_disk_read_bytes",
        "kafka_server_kafkaserver_linux_disk_write_bytes",
        *(f"{_REPLICAS}{name}" for name in ("leadercount", "partitioncount", "underreplicatedpartitions")),
        "kafka_server_socket_server_metrics_connection_count",
        "process_open_fds",
        "jvm_gc_collection_seconds_count",
        "jvm_gc_collection_seconds_sum",
        "jvm_memory_used_bytes",
        "jvm_threads_current",
        "container_cpu_usage_seconds_total",
        "container_memory_usage_bytes",
        "kubelet_volume_stats_available_bytes",
    ),
    "strimzi-kraft": (
        *(f"{_RAFT}{name}" for name in ("current_epoch", "current_state", "high_watermark", "log_end_offset")),
        *(
            f"{_RAFT}{name}"
            for name in (
                "append_records_rate",
                "commit_latency_avg",
                "current_leader",
                "current_vote",
                "fetch_records_rate",
            )
        ),
        *(
            f"kafka_server_raftchannelmetrics_{name}_total"
            for name in ("incoming_byte", "outgoing_byte", "request", "response")
        ),
        "process_open_fds",
    ),
    "strimzi-kafka-exporter": (
        "kafka_broker_info",
        "kafka_cluster_partition_atminisr",
        "kafka_cluster_partition_underminisr",
        "kafka_consumergroup_current_offset",
        "kafka_consumergroup_lag",
        "kafka_topic_partition_current_offset",
        "kafka_topic_partition_in_sync_replica",
        "kafka_topic_partition_leader_is_preferred",
        "kafka_topic_partition_oldest_offset",
        "kafka_topic_partition_replicas",
        "kafka_topic_partition_under_replicated_partition",
        "kafka_topic_partitions",
    ),
    "kafka-observ-lib overview": (
        "kafka_cluster_partition_underminisr",
        "kafka_cluster_partition_underreplicated",
        "kafka_controller_controllerstats_uncleanleaderelections_total",
        f"{_CONTROLLER}activecontrollercount",
        f"{_CONTROLLER}offlinepartitionscount",
        f"{_CONTROLLER}preferredreplicaimbalancecount",
        *(
            f"kafka_network_requestmetrics_{name}"
            for name in (
                "localtimems",
                "remotetimems",
                "requestqueuetimems",
                "responsequeuetimems",
                "responsesendtimems",
            )
        ),
        f"{_TOPICS}bytesin_total",
        f"{_TOPICS}bytesout_total",
        f"{_TOPICS}messagesin_total",
        f"{_TOPICS}fetchmessageconversions_total",
        f"{_TOPICS}producemessageconversions_total",
        "kafka_server_kafkaserver_brokerstate",
        f"{_REPLICAS}isrexpands_total",
        f"{_REPLICAS}isrshrinks_total",
        f"{_REPLICAS}partitioncount",
        "kafka_server_sessionexpirelistener_zookeepersyncconnects_total",
        "kafka_server_zookeeperclientmetrics_zookeeperrequestlatencyms",
        "java_lang_operatingsystem_systemloadaverage",
        "jvm_memory_used_bytes",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ),
    "kafka-observ-lib topics": (
        "kafka_consumer_lag_millis",
        "kafka_consumergroup_current_offset",
        "kafka_consumergroup_lag",
        "kafka_log_log_logendoffset",
        "kafka_log_log_logstartoffset",
        "kafka_log_log_size",
        f"{_TOPICS}bytesin_total",
        f"{_TOPICS}bytesout_total",
        "kafka_topic_partition_current_offset",
    ),
}
NOT_SERVED: Final[dict[str, str]] = {
    "jvm_": "there is no Java machine; process_* has memory, threads and files",
    "java_": "there is no Java machine; process_* has memory, threads and files",
    "container_": "cAdvisor tells of containers",
    "kubelet_": "the kubelet tells of volumes; minilog_disk_free_bytes is the disk",
    "kafka_server_zookeeperclientmetrics_": "there is no ZooKeeper",
    "kafka_server_sessionexpirelistener_": "there is no ZooKeeper",
    "kafka_server_raftchannelmetrics_": "one controller has a journal of its own and no quorum to talk to",
    f"{_RAFT}append_records_rate": "no rates are served: rate(minilog_journal_index[1m])",
    f"{_RAFT}commit_latency_avg": "no averages are served: minilog_journal_append_seconds",
    f"{_RAFT}current_leader": "a controller has no number among brokers",
    f"{_RAFT}current_vote": "nobody votes",
    f"{_RAFT}fetch_records_rate": "nobody fetches the journal; minilog_broker_metadata_lag_records is who lags",
    "kafka_network_socketserver_networkprocessoravgidle_percent": "one loop has no pool of threads; minilog_turn_seconds",
    "kafka_server_kafkarequesthandlerpool_": "one loop has no pool of threads; minilog_turn_seconds",
    "kafka_network_requestmetrics_": "quantiles cannot be added up; minilog_produce_latency_seconds is a histogram",
    f"{_TOPICS}fetchmessageconversions_total": "batches are stored and sent as they came",
    f"{_TOPICS}producemessageconversions_total": "batches are stored and sent as they came",
}
"""Names, or how they begin."""
