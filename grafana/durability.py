"""Durability: what may be lost, what was lost, failovers, and how the disks are."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders.dashboard import Row

from grafana.panels import RATE, Limit, Query, choice, lines, number, page

TOPIC = 'topic=~"$topic"'
RED, ORANGE = "red", "orange"


def build() -> Any:
    board = page(
        "minilog-durability",
        "minilog: Durability",
        "Records that may be lost and that were, failovers, and the disks that hold the rest.",
        [choice("topic", "Topic", "label_values(minilog_partition_high_watermark, topic)")],
    )
    for panel in (*_now(), Row("Records"), *_records(), Row("Failovers"), *_failovers(), Row("Disks"), *_disks()):
        board = board.with_row(panel) if isinstance(panel, Row) else board.with_panel(panel)
    return board


def _now() -> list[Any]:
    return [
        number(
            "At risk",
            f"sum(minilog_records_at_risk{{{TOPIC}}})",
            "Acknowledged, and not yet on every in-sync replica: lost if their leader died now. The price of acks=1.",
            limits=[Limit(10_000, ORANGE)],
            span=6,
        ),
        number(
            "In quarantine",
            "sum(minilog_quarantine_records)",
            "Cut from the ends of logs, and not written again: minilog lost list.",
            limits=[Limit(1, RED)],
            span=6,
        ),
        number(
            "Gone for good in 24 h",
            "round(sum(increase(minilog_quarantine_dropped_records_total[24h])))",
            "What quarantine had no room for, or kept for too long.",
            limits=[Limit(1, RED)],
            span=6,
        ),
        number(
            "Damaged logs",
            "sum(minilog_damaged_replicas)",
            "Logs that cannot be read: they lead nothing, and others go on.",
            limits=[Limit(1, RED)],
            span=6,
        ),
    ]


def _records() -> list[Any]:
    return [
        lines(
            "At risk by acks",
            [Query(f"sum by (acks) (minilog_records_at_risk{{{TOPIC}}})", "acks={{acks}}")],
            "What would be lost if all leaders died now.",
        ),
        lines(
            "Cut from logs by acks",
            [Query("sum by (acks) (increase(minilog_records_lost_total[5m]))", "acks={{acks}}")],
            "In five minutes, by the acks they were written with. Those of more acks were not acknowledged.",
            steps=True,
        ),
    ]


def _failovers() -> list[Any]:
    mean = "increase(minilog_failover_duration_seconds_sum[1h]) / increase(minilog_failover_duration_seconds_count[1h])"
    return [
        lines(
            "Failovers by phase",
            [
                Query(
                    f"sum by (phase) ({mean}) >= 0 or 0 * sum by (phase) (minilog_failover_duration_seconds_count)",
                    "{{phase}}",
                )
            ],
            "Mean of an hour, from the last sign of life of the broker to each phase. 0: there was none.",
            unit="s",
        ),
        lines(
            "Failovers in an hour",
            [Query('round(sum(increase(minilog_failover_duration_seconds_count{phase="detect"}[1h])))', "failovers")],
            "Brokers that were lost, clean stops included.",
            steps=True,
        ),
    ]


def _disks() -> list[Any]:
    buckets = f"rate(minilog_flush_latency_seconds_bucket[{RATE}])"
    return [
        lines(
            "Syncs, nine of ten",
            [
                Query(
                    f"histogram_quantile(0.9, sum by (instance, le) ({buckets})) >= 0 "
                    "or 0 * minilog_flush_oldest_seconds",
                    "{{instance}}",
                )
            ],
            "Writes with acks=all wait for the slowest in-sync replica. 0: nothing was synced.",
            unit="s",
        ),
        lines(
            "Oldest sync",
            [Query("max by (instance) (max_over_time(minilog_flush_oldest_seconds[1m]))", "{{instance}}")],
            "Above 3 s the broker hands over what it leads.",
            unit="s",
        ),
        lines(
            "Disk free",
            [Query("min by (instance) (minilog_disk_free_bytes / minilog_disk_bytes)", "{{instance}}")],
            "A full disk refuses writes, and loses nothing.",
            unit="percentunit",
        ),
        lines(
            "Log bytes by topic",
            [Query(f"sum by (topic) (minilog_log_bytes{{{TOPIC}}})", "{{topic}}")],
            "Of all replicas.",
            unit="bytes",
        ),
    ]
