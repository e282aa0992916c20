"""The two clocks of a process while the system's time is set, forward and back, and while the
machine sleeps."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.core.stamps import HELD_MS_MAX
from minilog.server.clock import Clock
from minilog.server.exposition import Exposition
from minilog.server.process_facts import write_wall_clock

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000


class Machine:
    """The system's clocks. ``pass_`` lets time pass, ``set`` sets the wall clock, ``sleep``
    suspends the machine."""

    def __init__(self) -> None:
        self.monotonic_ms = 5000
        self.wall_ms = NOON_MS

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(time, "monotonic_ns", lambda: self.monotonic_ms * 1_000_000)
        patch.setattr(time, "time_ns", lambda: self.wall_ms * 1_000_000)

    def pass_(self, ms: int) -> None:
        self.monotonic_ms += ms
        self.wall_ms += ms

    def set(self, by_ms: int) -> None:
        self.wall_ms += by_ms

    sleep = set  # CLOCK_MONOTONIC stands still meanwhile


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    machine.patch(monkeypatch)
    return machine


def test_a_clock_that_is_set_right_after_the_start_is_followed_at_once(machine: Machine) -> None:
    machine.set(-2 * HOUR_MS)
    clock = Clock()
    assert clock.wall_ms() == clock.now_ms() == NOON_MS - 2 * HOUR_MS
    machine.pass_(100)
    machine.set(2 * HOUR_MS)
    assert clock.wall_ms() == NOON_MS + 100
    assert clock.now_ms() == NOON_MS - 2 * HOUR_MS + 100, "no deadline moves"
    assert clock.offset_ms == 2 * HOUR_MS


def test_a_machine_that_slept_has_lost_no_session_and_knows_the_time(machine: Machine) -> None:
    clock = Clock()
    machine.sleep(8 * HOUR_MS)
    assert clock.now_ms() == NOON_MS
    assert clock.wall_ms() == NOON_MS + 8 * HOUR_MS


def test_stamps_wait_for_a_clock_that_was_set_back_a_little_and_ages_do_not(machine: Machine) -> None:
    clock = Clock()
    before_ms = clock.stamp_ms()
    machine.set(-1500)
    stamps, walls = [], []
    for _ in range(20):
        stamps.append(clock.stamp_ms())
        walls.append(clock.wall_ms())
        machine.pass_(100)
    assert stamps[:15] == [before_ms] * 15, "it stands still"
    assert stamps[16:] == [before_ms + 100, before_ms + 200, before_ms + 300, before_ms + 400]
    assert walls == [before_ms - 1500 + 100 * n for n in range(20)]


def test_a_clock_that_was_far_ahead_is_followed_back(machine: Machine) -> None:
    machine.set(2 * HOUR_MS)
    clock = Clock()
    clock.stamp_ms()
    machine.set(-2 * HOUR_MS)
    assert clock.wall_ms() == clock.stamp_ms() == NOON_MS
    assert clock.now_ms() == NOON_MS + 2 * HOUR_MS


def test_a_clock_before_1970_reads_as_its_beginning(machine: Machine) -> None:
    machine.wall_ms = -5000
    clock = Clock()
    assert clock.wall_ms() == clock.stamp_ms() == 0
    machine.wall_ms = NOON_MS
    assert clock.wall_ms() == NOON_MS


def test_steps_are_told_and_counted_and_drift_is_not(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    for _ in range(100):
        machine.pass_(20)
        machine.set(1)  # 5 % fast
        clock.wall_ms()
    assert clock.steps == 0
    machine.set(HOUR_MS)
    clock.wall_ms()
    machine.set(-5000)
    clock.wall_ms()
    assert clock.steps == 2
    said = [record.getMessage() for record in caplog.records]
    assert ["forward by 3600.0 s" in line for line in said] == [True, False]
    assert "back by 5.0 s" in said[1]
    page = Exposition()
    write_wall_clock(page, clock.offset_ms, clock.steps)
    assert f"minilog_wall_clock_offset_seconds {HOUR_MS / 1000 + 0.1 - 5}\n" in page.text().decode()
    assert "minilog_wall_clock_steps_total 2\n" in page.text().decode()


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-3 * HELD_MS_MAX, 3 * HELD_MS_MAX)), max_size=30))
def test_whatever_happens_to_the_system_time(events: list[tuple[int, int]]) -> None:
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        machine.patch(patch)
        clock = Clock()
        turn_ms, stamp_ms = clock.now_ms(), clock.stamp_ms()
        for passed_ms, by_ms in events:
            machine.pass_(passed_ms)
            machine.set(by_ms)
            assert clock.now_ms() - turn_ms == passed_ms
            turn_ms = clock.now_ms()
            assert clock.wall_ms() == machine.wall_ms
            seen_ms = clock.stamp_ms()
            assert 0 <= seen_ms - machine.wall_ms <= HELD_MS_MAX, "never behind, never far ahead"
            assert seen_ms >= stamp_ms or seen_ms == machine.wall_ms < stamp_ms - HELD_MS_MAX
            stamp_ms = seen_ms
