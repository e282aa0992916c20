"""What a broker tells of its own process, and of the cluster as it knows it."""

from __future__ import annotations

from typing import Any, Final

from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import BrokerStatistics
from minilog.server.exposition import Exposition, labels
from minilog.server.process_facts import write_listener, write_turns, write_wall_clock
from minilog.storage.compaction.rewrite import CleaningFigures

ACKS_CUT: Final = ("unknown", "0", "1", "many")
STATES: Final = ("running", "fenced", "shutting_down", "unknown")
_CLEANING: Final = (
    ("rounds", "Rounds of compaction begun"),
    ("bytes_read", "Bytes read by compaction"),
    ("bytes_written", "Bytes written by compaction"),
    ("records_removed", "Records that compaction has taken away"),
    ("tombstones_removed", "Tombstones whose time was up"),
    ("segments_replaced", "Segments replaced by cleaned ones"),
    ("seconds", "Time that rounds of compaction took, pauses included"),
)


def write_cluster(page: Exposition, runtime: Runtime) -> None:
    image = runtime.image
    heard_ms_ago = runtime.core.controller_heard_ms_ago(runtime.clock.now_ms())
    is_known = heard_ms_ago is not None and heard_ms_ago <= runtime.settings.session_timeout_ms
    states = [broker.state if is_known else "unknown" for broker in image.brokers.values()]
    page.gauge(
        "minilog_brokers",
        "Brokers by state, as this process knows them; unknown while the controller does not answer",
        [(labels(state=state), states.count(state)) for state in STATES],
    )
    if heard_ms_ago is not None:
        page.gauge(
            "minilog_controller_heard_age_seconds",
            "Time since the controller last answered this broker: as old is what it says of the cluster",
            heard_ms_ago / 1000,
        )
    page.gauge("minilog_metadata_offset", "Journal index this broker has applied", image.metadata_offset)
    page.gauge("minilog_broker_ready", "1 when registered and caught up", int(runtime.ready))


def write_process(page: Exposition, runtime: Runtime, listener: Any) -> None:
    now = runtime.statistics()
    page.gauge(
        "minilog_parked_requests",
        "Requests that wait for an answer, by kind",
        [(labels(kind=kind), count) for kind, count in now.waiting.items()],
    )
    page.gauge("minilog_requests_waiting_for_turn", "Requests that wait for their turn", now.turns_awaited)
    page.counter("minilog_requests_shed", "Requests refused because older ones had no turn yet", now.turns_refused)
    write_turns(page, now.loop_lag_seconds, now.loop_lag_seconds_max, now.turn_watch)
    page.gauge("minilog_flushes_in_flight", "Syncs of logs that are under way", now.flush.in_flight)
    page.gauge(
        "minilog_flush_oldest_seconds",
        "How long the oldest sync under way has taken so far",
        now.flush_oldest_ms / 1000,
    )
    write_wall_clock(page, runtime.clock.offset_ms, runtime.clock.steps)
    _write_cleaning(page, now.cleaning)
    if listener is not None:
        write_listener(page, listener)


def _write_cleaning(page: Exposition, figures: CleaningFigures) -> None:
    for name, doc in _CLEANING:
        page.counter(f"minilog_compaction_{name}", doc, getattr(figures, name))
    page.gauge("minilog_compaction_map_bytes_max", "Memory of the largest map of keys so far", figures.map_bytes_max)


def write_standing(page: Exposition, runtime: Runtime, statistics: BrokerStatistics) -> None:
    """What the core knows beside its partitions."""
    page.counter(
        "minilog_records_lost",
        "Records cut from the ends of logs since the start, by the acks they were written with; quarantine has them",
        [(labels(acks=acks), count) for acks, count in zip(ACKS_CUT, statistics.records_lost, strict=True)],
    )
    kept, dropped = runtime.tails.kept, runtime.tails.records_dropped
    page.gauge("minilog_quarantine_bytes", "Bytes of what was cut from logs and is kept", kept.bytes)
    page.gauge(
        "minilog_quarantine_records",
        "Records that were cut from logs, are kept, and were not written again",
        kept.unwritten,
    )
    page.counter(
        "minilog_quarantine_dropped_records",
        "Records that went from quarantine unwritten, because of its bounds",
        [(labels(cause=cause), count) for cause, count in dropped.items()],
    )
    page.gauge(
        "minilog_stray_replicas", "Logs of topics that the cluster does not know, kept in stray/", statistics.strays
    )
    page.gauge("minilog_damaged_replicas", "Logs here that were found damaged: they lead nothing", statistics.damaged)
    if statistics.clock_skew_ms is not None:
        page.gauge(
            "minilog_clock_skew_seconds",
            "How far the wall clock is ahead of the controller's: beyond clock_skew_max_ms nothing goes by its age",
            statistics.clock_skew_ms / 1000,
        )
    _write_following(page, statistics)


def _write_following(page: Exposition, statistics: BrokerStatistics) -> None:
    partitions = page.gauge("minilog_following_partitions", "Partitions copied from a leader")
    fetched = page.counter("minilog_following_bytes", "Bytes of record batches copied from a leader")
    age = page.gauge("minilog_following_age_seconds", "How old the last answer of a leader that is copied from is")
    for leader, following in sorted(statistics.following.items()):
        of = labels(broker=statistics.broker_id, leader=leader)
        partitions.add(of, following.partitions)
        fetched.add(of, following.fetched_bytes)
        if following.partitions and following.age_ms is not None:
            age.add(of, following.age_ms / 1000)
