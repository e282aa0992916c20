"""Who is heard from: expiry, overdue heartbeats, and the controller's own pauses, which prove
nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.controller.brokers.broker_sessions import STALL_MS, BrokerSessions, ParkedHeartbeat
from minilog.wire.messages import Heartbeat
from tests.unit.core.builders import TOPIC_ID, partition_state

TIMEOUT_MS = 2000
PROBE_AFTER_MS = 150


def ticked(sessions: BrokerSessions, now_ms: int) -> list[int]:
    sessions.on_tick(now_ms)
    return [session.broker_id for session in sessions.expired(now_ms)]


def run_until(sessions: BrokerSessions, start_ms: int, end_ms: int) -> list[int]:
    """Tick as the shell does. The brokers that expired on the way."""
    gone: list[int] = []
    for now_ms in range(start_ms, end_ms + 1, 20):
        gone += [broker_id for broker_id in ticked(sessions, now_ms) if broker_id not in gone]
    return gone


def park(sessions: BrokerSessions, broker_id: int, request_id: int) -> None:
    session = sessions.by_broker[broker_id]
    session.parked = ParkedHeartbeat(request_id, Heartbeat(broker_id, 1, "process", 1, 0, 1), 0)


def overdue(sessions: BrokerSessions, now_ms: int) -> list[int]:
    return [session.broker_id for session in sessions.overdue(now_ms, PROBE_AFTER_MS)]


def test_a_session_lasts_its_timeout_from_the_last_word() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    session = sessions.open(1, 7, 0)
    assert run_until(sessions, 0, 1980) == []
    sessions.heard(session, 1000)
    assert run_until(sessions, 2000, 2980) == []
    assert run_until(sessions, 3000, 3000) == [1]


def test_a_new_session_replaces_the_one_before() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    session = sessions.open(1, 9, 1000)
    assert sessions.by_broker == {1: session}
    assert (session.broker_epoch, session.sequence, session.parked) == (9, 0, None)
    sessions.close(1)
    sessions.close(1)
    assert sessions.by_broker == {}


def test_a_pause_of_the_controller_ends_nobody() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    assert run_until(sessions, 0, 100) == []
    assert ticked(sessions, 60_000) == []
    assert run_until(sessions, 60_020, 61_880) == [], "it gets what was left of its time before the pause"
    assert run_until(sessions, 61_900, 61_920) == [1]


def test_a_pause_right_after_the_start_ends_nobody() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    assert ticked(sessions, 60_000) == []


def test_who_is_heard_after_a_pause_gets_one_timeout_and_not_the_pause_on_top() -> None:
    """After a pause the shell reads what has arrived before it ticks, so heartbeats come before
    ``on_tick``."""
    sessions = BrokerSessions(TIMEOUT_MS)
    session = sessions.open(1, 7, 0)
    sessions.on_tick(0)
    sessions.heard(session, 60_000)
    assert run_until(sessions, 60_000, 60_000 + TIMEOUT_MS + 20) == [1]


def test_a_pause_makes_nobody_overdue() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    sessions.on_tick(0)
    sessions.on_tick(50_000)
    assert overdue(sessions, 50_000) == []


def test_slow_ticks_that_are_no_pause_move_nothing() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    gone = [ticked(sessions, now_ms) for now_ms in range(0, 2001, STALL_MS)]
    assert gone == [[]] * (len(gone) - 1) + [[1]]


@given(
    st.lists(st.sampled_from([10, 20, 50, STALL_MS, STALL_MS + 1, 900, 5000, 90_000]), max_size=40),
)
@settings(deadline=None, max_examples=60)
def test_only_time_the_controller_was_awake_counts_until_pauses_add_up_to_a_session(gaps_ms: list[int]) -> None:
    """Second version: a broker is gone when the time that counts adds up to its timeout: that of
    ticks on time, and all of it once earlier pauses have added up to a timeout too."""
    sessions = BrokerSessions(TIMEOUT_MS)
    now_ms = counted_ms = paused_ms = 0
    sessions.open(1, 7, now_ms)
    sessions.on_tick(now_ms)
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        if gap_ms > STALL_MS and paused_ms < TIMEOUT_MS:
            paused_ms += gap_ms
        else:
            counted_ms += gap_ms
        assert ticked(sessions, now_ms) == ([1] if counted_ms >= TIMEOUT_MS else [])


@pytest.mark.parametrize("gap_ms", [260, 600, 1500])
def test_a_controller_that_is_slow_all_the_time_fences_a_silent_broker_at_last(gap_ms: int) -> None:
    """Within two session timeouts and one gap, at the next tick; and not before it has had its own
    timeout."""
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    latest_ms = 2 * TIMEOUT_MS + gap_ms
    ends_ms = next(now_ms for now_ms in range(0, 100_000, gap_ms) if ticked(sessions, now_ms))
    assert 2 * TIMEOUT_MS <= ends_ms < latest_ms + gap_ms
    assert sessions.by_broker[1].deadline_ms <= latest_ms


@pytest.mark.parametrize("gap_ms", [260, 600, 1500])
def test_a_controller_that_is_slow_all_the_time_keeps_a_broker_it_hears(gap_ms: int) -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    session = sessions.open(1, 7, 0)
    for now_ms in range(0, 20 * TIMEOUT_MS, gap_ms):
        assert ticked(sessions, now_ms) == []
        sessions.heard(session, now_ms)


def test_to_be_heard_is_to_be_forgiven_anew() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    session = sessions.open(1, 7, 0)
    sessions.on_tick(0)
    assert ticked(sessions, 60_000) == [], "one pause of a minute"
    sessions.heard(session, 60_010)
    assert ticked(sessions, 120_000) == [], "another one"
    assert ticked(sessions, 180_000) == [1], "and one more, in which nobody was heard since the one before"


@pytest.mark.parametrize(
    ("broker_id", "topic_id", "partition", "is_fit"),
    [
        (1, TOPIC_ID, 0, False),
        (1, TOPIC_ID, 1, True),
        (1, "another", 0, True),
        (2, TOPIC_ID, 0, True),
        (3, TOPIC_ID, 0, True),
    ],
)
def test_a_replica_is_fit_unless_the_process_of_the_session_says_otherwise(
    broker_id: int, topic_id: str, partition: int, is_fit: bool
) -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0).unfit = frozenset({(TOPIC_ID, 0)})
    sessions.open(2, 8, 0)
    state = replace(partition_state(partition=partition), topic_id=topic_id)
    assert sessions.is_fit(broker_id, state) is is_fit
    sessions.open(1, 9, 0)
    assert sessions.is_fit(broker_id, state)


def test_a_late_heartbeat_makes_a_broker_overdue_until_it_is_probed() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    session = sessions.open(1, 7, 0)
    assert overdue(sessions, PROBE_AFTER_MS) == []
    assert overdue(sessions, PROBE_AFTER_MS + 1) == [1]
    session.probe_ms = PROBE_AFTER_MS + 1
    assert overdue(sessions, 1000) == []


def test_a_parked_heartbeat_is_never_overdue() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    park(sessions, 1, 50)
    assert overdue(sessions, 10_000) == []


def test_a_dropped_request_is_traced_to_its_broker() -> None:
    sessions = BrokerSessions(TIMEOUT_MS)
    sessions.open(1, 7, 0)
    session = sessions.open(2, 8, 0)
    park(sessions, 2, 50)
    assert sessions.parked_as(50) is session
    assert sessions.parked_as(51) is None
