"""Cluster & ISR: is every partition led and fully replicated, and what changed lately?"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders.dashboard import Row

from grafana.panels import RATE, Limit, Query, choice, lines, number, page, rows

TOPIC = 'topic=~"$topic"'
RED, ORANGE = "red", "orange"


def build() -> Any:
    board = page(
        "minilog-cluster",
        "minilog: Cluster & ISR",
        "Brokers, leaders and in-sync replicas: what is missing now, and what failovers did.",
        [choice("topic", "Topic", "label_values(minilog_partition_leader, topic)")],
    )
    for panel in (
        *_now(),
        Row("In-sync replicas"),
        *_isr(),
        Row("Leadership"),
        *_leaders(),
        Row("Brokers"),
        *_brokers(),
    ):
        board = board.with_row(panel) if isinstance(panel, Row) else board.with_panel(panel)
    return board


def _known(metric: str, state: str = "") -> str:
    """As the active controller tells it; without one as the brokers have last heard."""
    of = f'{metric}{{state="{state}"}}' if state else metric
    return f"({of} and on (instance) (minilog_active_controller == 1)) or {of}"


def _worst(state: str) -> str:
    """Of all topics: the controller knows it also of partitions that nobody leads."""
    return f'sum(max by (state) (minilog_cluster_partitions{{state=~"{state}"}}))'


def _now() -> list[Any]:
    return [
        number("Brokers running", f"max({_known('minilog_brokers', 'running')})", "As the controller knows them."),
        number(
            "Active controllers",
            "sum(minilog_active_controller) or vector(0)",
            "Exactly one decides. Without one nothing can fail over; reading and writing go on.",
            limits=[Limit(0, RED), Limit(1, "green"), Limit(2, RED)],
        ),
        number(
            "Offline",
            f"{_worst('offline|lost')} or count(max by (topic, partition) (minilog_partition_offline{{{TOPIC}}}) == 1) or vector(0)",
            "Partitions without a leader: nobody can read or write them.",
            limits=[Limit(1, RED)],
        ),
        number(
            "Under min ISR",
            f"{_worst('under_min_isr')} or sum(minilog_partition_under_min_isr{{{TOPIC}}})",
            "Partitions whose ISR is smaller than min.insync.replicas: acks=all is refused.",
            limits=[Limit(1, RED)],
        ),
        number(
            "Under-replicated",
            f"{_worst('under_replicated')} or sum(minilog_partition_under_replicated{{{TOPIC}}})",
            "Partitions with replicas missing from the ISR: the next failure costs more than this one.",
            limits=[Limit(1, ORANGE)],
        ),
        number("Partitions", f"count(minilog_partition_isr_size{{{TOPIC}}})", "Partitions that are led."),
        number(
            "Elections in 1 h",
            "round(sum(increase(minilog_leader_elections_total[1h])))",
            "Leaders that took over, also after clean stops.",
        ),
        number(
            "Unclean elections in 24 h",
            'round(sum(increase(minilog_leader_elections_total{kind="unclean"}[24h])))',
            "Leaders taken from outside ISR and ELR: acknowledged records may be gone.",
            limits=[Limit(1, RED)],
        ),
    ]


def _isr() -> list[Any]:
    return [
        lines(
            "ISR size",
            [
                Query(f"min by (topic) (minilog_partition_isr_size{{{TOPIC}}})", "{{topic}} smallest"),
                Query(f"max by (topic) (minilog_partition_replicas{{{TOPIC}}})", "{{topic}} replicas"),
            ],
            "The smallest ISR of each topic beside its number of replicas.",
            steps=True,
        ),
        lines(
            "Partitions in trouble",
            [
                Query(f"sum(minilog_partition_under_replicated{{{TOPIC}}})", "under-replicated"),
                Query(f"sum(minilog_partition_under_min_isr{{{TOPIC}}})", "under min ISR"),
                Query(
                    f"count(max by (topic, partition) (minilog_partition_offline{{{TOPIC}}}) == 1) or vector(0)",
                    "offline",
                ),
            ],
            "Should be zero whenever all brokers are well.",
            steps=True,
        ),
        lines(
            "ISR shrinks and expands per minute",
            [
                Query(f"sum(rate(minilog_isr_shrinks_total{{{TOPIC}}}[{RATE}])) * 60", "shrinks"),
                Query(f"sum(rate(minilog_isr_expands_total{{{TOPIC}}}[{RATE}])) * 60", "expands"),
            ],
            "Each shrink wants its expand. Both again and again without failures: a follower that cannot keep up.",
        ),
        lines(
            "Replica lag, records",
            [
                Query(
                    f"max by (topic, partition, replica) (minilog_replica_lag_records{{{TOPIC}}}) > 0",
                    "{{topic}}-{{partition}} on {{replica}}",
                ),
                Query(f"max(minilog_replica_lag_records{{{TOPIC}}})", "largest"),
            ],
            "How far followers are behind their leaders.",
        ),
        lines(
            "Replica lag, seconds",
            [
                Query(
                    f"max by (replica) (minilog_replica_lag_seconds{{{TOPIC}}})",
                    "replica {{replica}}",
                )
            ],
            "For how long a follower has not held all of its leader's log; replica_lag_max_ms puts it out of the ISR.",
            unit="s",
        ),
        rows(
            "Under-replicated now",
            f"minilog_partition_isr_size{{{TOPIC}}} < minilog_partition_replicas{{{TOPIC}}}"
            f" or topk(5, minilog_partition_isr_size{{{TOPIC}}})",
            "Partitions with the size of their ISR, those that miss replicas first.",
        ),
    ]


def _leaders() -> list[Any]:
    return [
        lines(
            "Partitions led",
            [Query(f"count by (broker) (minilog_partition_isr_size{{{TOPIC}}})", "broker {{broker}}")],
            "Each leader exports its partitions; a failover moves them at once.",
            steps=True,
        ),
        lines(
            "Elections per minute",
            [Query(f"sum by (kind) (rate(minilog_leader_elections_total[{RATE}])) * 60", "{{kind}}")],
            "clean: from the ISR or ELR, nothing acknowledged is lost. recovery: all last known members came back first.",
        ),
    ]


def _brokers() -> list[Any]:
    return [
        lines(
            "Brokers by state",
            [
                Query(
                    "max by (state) ((minilog_brokers and on (instance) (minilog_active_controller == 1)) or on () minilog_brokers)",
                    "{{state}}",
                )
            ],
            "fenced: the controller has not heard of them in time, or they are about to start.",
            steps=True,
        ),
        lines(
            "Heartbeat age",
            [Query("max by (broker) (minilog_broker_heartbeat_age_seconds)", "broker {{broker}}")],
            "At session_timeout_ms a broker is fenced, unless its connection dropped before.",
            unit="s",
        ),
        lines(
            "Event loop lag",
            [Query("max by (instance) (minilog_event_loop_lag_seconds)", "{{instance}}")],
            "How late a process is at its own clock; near the heartbeat interval it endangers its session.",
            unit="s",
        ),
        lines(
            "Records in per second",
            [
                Query(
                    f"sum by (topic) (rate(minilog_partition_records_in_total{{{TOPIC}}}[{RATE}]))",
                    "{{topic}}",
                )
            ],
            "What producers have written.",
        ),
        lines(
            "Controllers",
            [
                Query("sum(minilog_active_controller) or vector(0)", "active"),
                Query("max(minilog_controller_standbys)", "standing by"),
                Query("max(minilog_controller_standby_lag_records)", "records behind"),
                Query("changes(max(minilog_controller_epoch)[1h:15s])", "moves in 1 h"),
            ],
            "One decides. Others, where there are several, replay what it writes, and take over when it is gone.",
            steps=True,
        ),
        lines(
            "Refused per minute",
            [Query(f"sum by (reason) (rate(minilog_access_refused_total[{RATE}])) * 60", "{{reason}}")],
            "Requests that were refused because of who asked. The logger minilog.audit says from where.",
        ),
    ]
