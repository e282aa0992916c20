"""What every process tells of itself in the same words: which it is, its turns, its clock, its
connections and its peers."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping

import minilog
from minilog.server.exposition import Exposition, labels
from minilog.server.inbound.listener import Listener
from minilog.server.security.gate import Gate
from minilog.server.security.own_credentials import KINDS
from minilog.server.turn_watch import LONG_TURN_MS, TurnWatch


def write_build(page: Exposition, role: str, node: object, cluster_id: str) -> None:
    """Which cluster a process is of is told once, and not on each of its series: the label
    ``cluster`` of all of them is the scraper's to set, for it must be there when the process is
    dead."""
    about = labels(
        version=minilog.__version__,
        role=role,
        node=node,
        cluster_id=cluster_id,
        python=platform.python_version(),
    )
    page.gauge("minilog_build_info", "Always 1: which version and role this is, and of which cluster", [(about, 1)])


def write_turns(page: Exposition, lag_s: float, lag_max_s: float, watch: TurnWatch) -> None:
    page.gauge("minilog_event_loop_lag_seconds", "How late a tick was at worst in the last 15 to 30 seconds", lag_s)
    page.gauge("minilog_event_loop_lag_seconds_max", "How late a tick was at worst so far", lag_max_s)
    page.durations("minilog_turn_seconds", "How long turns took: nobody else is served meanwhile", watch.turns)
    page.durations("minilog_tick_late_seconds", "How late ticks were: what else held the event loop", watch.ticks)
    page.gauge("minilog_turn_seconds_max", "The longest turn so far", watch.longest_s)
    page.counter(
        "minilog_long_turns",
        f"Turns of more than {LONG_TURN_MS} ms, by what they were about",
        [(labels(event=event), count) for event, count in watch.long_turns.items()],
    )


def write_wall_clock(page: Exposition, offset_ms: int, steps: int) -> None:
    page.gauge(
        "minilog_wall_clock_offset_seconds",
        "How far the wall clock has gone ahead of the monotonic clock since the process began.",
        offset_ms / 1000,
    )
    page.counter("minilog_wall_clock_steps", "Jumps of the wall clock, forward or back.", steps)


def write_listener(page: Exposition, listener: Listener) -> None:
    admissions = listener.admissions
    page.gauge("minilog_http_connections", "Open connections", listener.open_connections)
    page.gauge("minilog_http_connections_max", "How many may be open at a time", admissions.connections_max)
    page.gauge(
        "minilog_http_connection_places",
        "Places that connections hold: busy and idle ones of clients, the cluster's own, on trial",
        [(labels(kind=kind), count) for kind, count in admissions.places.counts().items()],
    )
    page.counter("minilog_http_connections_refused", "Connections over the limit", admissions.refused)
    page.counter(
        "minilog_http_connections_displaced", "Idle connections closed to make room for others", admissions.displaced
    )


def write_access(page: Exposition, gate: Gate) -> None:
    page.counter(
        "minilog_access_refused",
        "Requests that were refused because of who asked, by reason",
        [(labels(reason=reason), count) for reason, count in gate.refusals.items()],
    )
    page.counter(
        "minilog_security_file_errors",
        "Reads of changed credentials that failed: what was in force stays",
        gate.file_errors,
    )
    page.gauge(
        "minilog_security_files_broken",
        "1 while the security file, the token or a certificate on disk cannot be used",
        int(gate.is_file_broken),
    )
    now_ms = time.time() * 1000
    held = {kind: gate.held.get(kind) for kind in KINDS}
    page.gauge(
        "minilog_credential_seconds_left",
        "How long the certificate, the authority and the token of this process hold; +Inf: without an end, or none",
        [(labels(kind=kind), math.inf if one is None else (one.ends_ms - now_ms) / 1000) for kind, one in held.items()],
    )
    page.gauge(
        "minilog_credential_lifetime_seconds",
        "From the beginning of a certificate to its end; +Inf where nobody knows",
        [
            (labels(kind=kind), math.inf if one is None or one.lifetime_ms is None else one.lifetime_ms / 1000)
            for kind, one in held.items()
        ],
    )


def write_peers(page: Exposition, failures: Mapping[str, int]) -> None:
    page.counter(
        "minilog_peer_failures",
        "Requests of the cluster itself to another process that got no usable answer, by purpose",
        [(labels(purpose=purpose), count) for purpose, count in failures.items()],
    )
