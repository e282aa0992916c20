"""The arithmetic of commitment, each function against a second version that is too plain to be
wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.controller.elections.partition_change import most_up_to_date
from minilog.core.replication.isr import committed_end, copies_end, is_lagging, may_join

positions = st.lists(st.none() | st.integers(0, 6), max_size=5)


def holders(known: list[int | None], offset: int) -> int:
    """How many replicas hold the record at ``offset``."""
    return sum(1 for end in known if end is not None and offset < end)


@given(positions)
@settings(deadline=None, max_examples=60)
def test_committed_end_is_the_longest_prefix_that_every_replica_holds(known: list[int | None]) -> None:
    end = committed_end(known)
    if not known or None in known:
        assert end is None
        return
    assert end is not None
    assert all(holders(known, offset) == len(known) for offset in range(end))
    assert holders(known, end) < len(known)


@given(positions, st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_copies_end_is_the_longest_prefix_that_enough_replicas_hold(known: list[int | None], copies: int) -> None:
    end = copies_end(known, copies)
    assert all(holders(known, offset) >= copies for offset in range(end))
    assert holders(known, end) < copies


@given(positions.filter(bool))
@settings(deadline=None, max_examples=60)
def test_all_copies_is_what_is_committed(known: list[int | None]) -> None:
    assert copies_end(known, len(known)) == (committed_end(known) or 0)


@pytest.mark.parametrize(
    ("position", "high_watermark", "leader_start_offset", "may"),
    [
        (None, 0, 0, False),
        (10, 10, 10, True),
        (11, 10, 10, True),
        (9, 10, 5, False),  # lacks something committed
        (10, 8, 12, False),  # lacks something its leader started with: perhaps committed, the leader cannot know (R7)
        (0, 0, 0, True),
    ],
)
def test_who_may_join_the_isr(position: int | None, high_watermark: int, leader_start_offset: int, may: bool) -> None:
    assert may_join(position, high_watermark, leader_start_offset) is may


@pytest.mark.parametrize(("caught_up_ms", "lagging"), [(1000, True), (6000, False), (5999, True), (10_500, False)])
def test_lagging_is_longer_than_the_limit_behind(caught_up_ms: int, lagging: bool) -> None:
    assert is_lagging(caught_up_ms, now_ms=10_000, replica_lag_max_ms=4000) is lagging


@pytest.mark.parametrize(
    ("found", "preference", "winner"),
    [
        ({}, [1, 2, 3], None),
        ({1: (4, 10)}, [], None),
        ({1: (4, 10), 2: (5, 3)}, [1, 2], 2),  # a newer epoch beats a longer log
        ({1: (4, 10), 2: (4, 12)}, [1, 2], 2),
        ({1: (4, 10), 2: (4, 10)}, [2, 1], 2),  # equals: the order of the replicas
        ({1: (4, 10), 2: (4, 10)}, [1, 2], 1),
        ({1: (-1, 0), 2: (-1, 0)}, [1, 2], 1),
        ({9: (9, 9), 1: (1, 1)}, [1, 2], 1),  # who is no candidate cannot win
    ],
)
def test_the_most_up_to_date_wins(found: dict[int, tuple[int, int]], preference: list[int], winner: int | None) -> None:
    assert most_up_to_date(found, preference) == winner


@given(
    st.dictionaries(st.integers(1, 5), st.tuples(st.integers(-1, 3), st.integers(0, 3))),
    st.permutations([1, 2, 3, 4, 5]),
)
@settings(deadline=None, max_examples=60)
def test_nobody_is_more_up_to_date_than_the_winner(found: dict[int, tuple[int, int]], preference: list[int]) -> None:
    winner = most_up_to_date(found, preference)
    if winner is None:
        assert not found
        return
    assert max(found.values()) == found[winner]
    equals = [r for r in preference if found.get(r) == found[winner]]
    assert winner == equals[0]
