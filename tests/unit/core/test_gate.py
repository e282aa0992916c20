"""The gate: a slice of each round is for clients, senders take turns, and who would wait too long
hears it at once."""

from __future__ import annotations

from minilog.core.gate import RELEASED_MAX, SLICE_MS, Gate, Passage

A, B = ("a", "fetch"), ("b", "fetch")


def late(gate: Gate[str], sender: tuple[str, str], waiters: str, now_ms: float) -> list[Passage]:
    return [gate.arrive(waiter, sender, now_ms) for waiter in waiters]


def test_whoever_comes_within_the_slice_goes_on() -> None:
    gate: Gate[str] = Gate(1000)
    gate.begin(0)
    assert late(gate, A, "123", SLICE_MS - 1) == [Passage.GO] * 3
    assert late(gate, A, "4", SLICE_MS) == [Passage.WAIT]


def test_nobody_overtakes_who_waits() -> None:
    gate: Gate[str] = Gate(1000)
    gate.begin(0)
    late(gate, A, "1", SLICE_MS)
    assert late(gate, A, "2", 0) == [Passage.WAIT]


def test_senders_take_turns_however_much_one_of_them_sends() -> None:
    gate: Gate[str] = Gate(10**6)
    gate.begin(0)
    late(gate, A, "123456", SLICE_MS)
    late(gate, B, "xy", SLICE_MS)
    gone: list[str] = []
    now_ms = SLICE_MS
    while gate:
        now_ms += 2 * SLICE_MS  # each takes more than there is time for
        gone += gate.begin(now_ms)
    assert "".join(gone) == "1x2y3456"


def test_newer_ones_of_who_waits_too_long_are_refused_and_no_other() -> None:
    gate: Gate[str] = Gate(1000)
    gate.begin(0)
    late(gate, A, "1", SLICE_MS)
    assert late(gate, A, "2", SLICE_MS + 1000) == [Passage.WAIT]
    assert late(gate, A, "3", SLICE_MS + 1001) == [Passage.REFUSED]
    assert late(gate, B, "4", SLICE_MS + 1001) == [Passage.WAIT]


def test_a_round_lets_as_many_go_on_as_it_has_time_for() -> None:
    gate: Gate[str] = Gate(10**6)
    gate.begin(0)
    late(gate, A, "1" * 10_000, SLICE_MS)
    now_ms = SLICE_MS
    counts: list[int] = []
    for _ in range(100):
        now_ms += counts[-1] if counts else 0  # one ms each
        counts.append(len(gate.begin(now_ms)))
    assert max(counts[50:]) <= 2 * SLICE_MS
    assert min(counts[50:]) >= SLICE_MS / 2
    assert max(counts) <= RELEASED_MAX
