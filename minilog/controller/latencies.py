"""Histograms of what the controller's runtime measures."""

from __future__ import annotations

from typing import Final

from prometheus_client import Histogram

from minilog.core.controller.told.failovers import PHASES
from minilog.server.latency import DISK_BUCKETS_S

FAILOVER_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def of_appends() -> Histogram:
    return Histogram(
        "minilog_journal_append_seconds",
        "Time to append to the journal and make it durable, thread hand-over included.",
        buckets=DISK_BUCKETS_S,
        registry=None,
    )


def of_failovers() -> Histogram:
    """Each phase is there from the beginning on."""
    made = Histogram(
        "minilog_failover_duration_seconds",
        "From the last sign of life of a broker to each phase of its failover.",
        ["phase"],
        buckets=FAILOVER_BUCKETS_S,
        registry=None,
    )
    for phase in PHASES:
        made.labels(phase)
    return made
