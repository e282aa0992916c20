"""Where replicas go: never two on one broker, racks apart, load even."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.controller.placement import place, with_absent

racks_of = st.dictionaries(st.integers(1, 30), st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=8)


@given(st.data(), racks_of, st.integers(1, 40), st.integers(0, 50))
@settings(deadline=None, max_examples=80)
def test_placement_is_sound(data: st.DataObject, racks: dict[int, str], partitions: int, start: int) -> None:
    factor = data.draw(st.integers(1, len(racks)))
    placed = place(partitions, factor, racks, start)
    assert len(placed) == partitions
    for members in placed:
        assert len(members) == len(set(members)) == factor
        assert set(members) <= set(racks)
        assert len({racks[m] for m in members}) == min(factor, len(set(racks.values()))), "as many racks as possible"
    leaders = Counter(dict.fromkeys(racks, 0))
    leaders.update(members[0] for members in placed)
    assert max(leaders.values()) - min(leaders.values()) <= 1


@given(st.data(), st.integers(1, 8), st.integers(1, 6), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_full_rounds_without_racks_load_every_broker_alike(
    data: st.DataObject, brokers: int, rounds: int, start: int
) -> None:
    factor = data.draw(st.integers(1, brokers))
    placed = place(rounds * brokers, factor, dict.fromkeys(range(brokers), ""), start)
    load = Counter(member for members in placed for member in members)
    assert set(load.values()) == {rounds * factor}


def test_a_dead_brokers_load_goes_to_all_the_others() -> None:
    placed = place(12, 2, dict.fromkeys([1, 2, 3, 4], ""), 0)
    heirs = Counter(members[1] for members in placed if members[0] == 1)
    assert heirs == {2: 1, 3: 1, 4: 1}


def test_the_start_rotates_so_that_small_topics_spread() -> None:
    leaders = [place(1, 1, dict.fromkeys([1, 2, 3], ""), existing)[0][0] for existing in range(6)]
    assert leaders == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("absent", "count", "expected"),
    [
        ([], 0, [[1], [2], [1]]),
        ([8, 9], 0, [[1], [2], [1]]),
        ([8], 1, [[1, 8], [2, 8], [1, 8]]),
        ([8, 9], 1, [[1, 8], [2, 9], [1, 8]]),
        ([8, 9], 2, [[1, 8, 9], [2, 9, 8], [1, 8, 9]]),
        ([7, 8, 9], 2, [[1, 7, 8], [2, 8, 9], [1, 9, 7]]),
    ],
)
def test_those_that_are_away_come_last_and_go_round(absent: list[int], count: int, expected: list[list[int]]) -> None:
    assert with_absent([[1], [2], [1]], absent, count, dict.fromkeys([1, 2, *absent], "")) == expected


def test_those_that_are_away_stand_in_other_racks_where_there_are_any() -> None:
    racks = {1: "a", 7: "a", 8: "b", 9: "c"}
    assert with_absent([[1]], [7, 8, 9], 2, racks) == [[1, 8, 9]]
    assert with_absent([[1]], [7, 8, 9], 3, racks) == [[1, 8, 9, 7]]


def test_neighbours_stand_in_different_racks() -> None:
    assert place(4, 2, {1: "a", 2: "a", 3: "b", 4: "b"}, 0) == [[1, 3], [3, 2], [2, 4], [4, 1]]


def test_the_same_question_has_the_same_answer() -> None:
    racks = {5: "b", 3: "a", 9: "b", 1: "a"}
    again = dict(sorted(racks.items()))
    assert place(7, 3, racks, 2) == place(7, 3, again, 2)
