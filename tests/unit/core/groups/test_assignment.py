"""Assignors against naive second versions: all assignments there are, looked through one by one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.groups import evening
from minilog.core.groups.assignment import Assignment, Subscriber, TopicPart, assign


def members(count: int, topics: str = "a", current: Assignment | None = None) -> list[Subscriber]:
    names = [f"m{i:02}" for i in range(count)]
    return [Subscriber(n, n, frozenset(topics), frozenset((current or {}).get(n, ()))) for n in names]


def check_complete(subscribers: list[Subscriber], topics: dict[str, int], found: Assignment) -> None:
    """Every partition of a topic somebody subscribes to is given once, to a subscriber. Everybody
    is named."""
    given_out = sorted(part for parts in found.values() for part in parts)
    wanted = [(t, p) for t in sorted(topics) if any(t in s.topics for s in subscribers) for p in range(topics[t])]
    assert given_out == wanted
    assert all(part[0] in s.topics for s in subscribers for part in found[s.member_id])


def all_assignments(subscribers: list[Subscriber], topics: dict[str, int]) -> Iterator[Assignment]:
    parts = [(t, p) for t in sorted(topics) for p in range(topics[t])]
    choices = [[s.member_id for s in subscribers if part[0] in s.topics] for part in parts]
    chosen_parts = [(part, who) for part, who in zip(parts, choices, strict=True) if who]
    for owners in product(*(who for _, who in chosen_parts)):
        found: Assignment = {s.member_id: set() for s in subscribers}
        for (part, _), owner in zip(chosen_parts, owners, strict=True):
            found[owner].add(part)
        yield found


def unevenness(found: Assignment) -> int:
    return sum(len(parts) ** 2 for parts in found.values())


def moves(subscribers: list[Subscriber], found: Assignment) -> int:
    """How many that somebody had, and may keep, go to somebody else."""
    return sum(len({p for p in s.current if p[0] in s.topics} - found[s.member_id]) for s in subscribers)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Subscriber], dict[str, int]]:
    """Small ones: some members with any subscriptions, and what an earlier assignment gave them."""
    topics = {name: draw(st.integers(0, 3)) for name in draw(st.sampled_from(["a", "ab", "abc"]))}
    names = [f"m{i}" for i in range(draw(st.integers(1, 3)))]
    free = [(t, p) for t in topics for p in range(topics[t] + 1)]
    current: dict[str, set[TopicPart]] = {n: set() for n in names}
    for part in free:
        owner = draw(st.sampled_from([*names, ""]))
        if owner:
            current[owner].add(part)
    subscriptions = [frozenset(draw(st.sets(st.sampled_from("abcx"), min_size=1))) for _ in names]
    if draw(st.booleans()):
        subscriptions = [subscriptions[0]] * len(names)
    return [Subscriber(n, n, s, frozenset(current[n])) for n, s in zip(names, subscriptions, strict=True)], topics


@given(groups())
@settings(max_examples=40, deadline=None)
def test_sticky_is_as_even_as_can_be(case: tuple[list[Subscriber], dict[str, int]]) -> None:
    subscribers, topics = case
    found = assign("sticky", subscribers, topics)
    check_complete(subscribers, topics, found)
    assert unevenness(found) == min(map(unevenness, all_assignments(subscribers, topics)))


@given(groups())
@settings(max_examples=40, deadline=None)
def test_sticky_moves_the_least_when_all_subscribe_alike(case: tuple[list[Subscriber], dict[str, int]]) -> None:
    subscribers, topics = case
    alike = [Subscriber(s.member_id, s.rank, subscribers[0].topics, s.current) for s in subscribers]
    existing = {(t, p) for t in topics for p in range(topics[t])}
    alike = [Subscriber(s.member_id, s.rank, s.topics, s.current & existing) for s in alike]
    found = assign("sticky", alike, topics)
    even = unevenness(found)
    assert moves(alike, found) == min(moves(alike, a) for a in all_assignments(alike, topics) if unevenness(a) == even)


@given(groups(), st.sampled_from(["sticky", "range"]))
@settings(max_examples=30, deadline=None)
def test_the_same_input_in_any_order_gives_the_same_answer(
    case: tuple[list[Subscriber], dict[str, int]], assignor: str
) -> None:
    subscribers, topics = case
    found = assign(assignor, subscribers, topics)
    check_complete(subscribers, topics, found)
    assert assign(assignor, subscribers[::-1], dict(reversed(topics.items()))) == found


@given(groups())
@settings(max_examples=30, deadline=None)
def test_nothing_moves_when_nothing_has_changed(case: tuple[list[Subscriber], dict[str, int]]) -> None:
    subscribers, topics = case
    found = assign("sticky", subscribers, topics)
    again = [Subscriber(s.member_id, s.rank, s.topics, frozenset(found[s.member_id])) for s in subscribers]
    assert assign("sticky", again, topics) == found


@given(st.integers(1, 12), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_range_gives_runs_of_even_length(count: int, partitions: int) -> None:
    found = assign("range", members(count), {"a": partitions})
    naive = [p * count // partitions if partitions else 0 for p in range(partitions)]
    sizes = [len(found[f"m{i:02}"]) for i in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    assert sorted(map(naive.count, range(count)), reverse=True) == sizes
    for parts in found.values():
        numbers = sorted(p for _, p in parts)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


def test_a_member_more_takes_no_more_than_its_share() -> None:
    before = assign("sticky", members(4), {"a": 100})
    after = assign("sticky", members(5, current=before), {"a": 100})
    assert len(after["m04"]) == 20
    assert all(after[m] < before[m] for m in before)


def test_who_goes_leaves_everything_else_where_it_is() -> None:
    before = assign("sticky", members(5), {"a": 103})
    after = assign("sticky", members(4, current=before), {"a": 103})
    assert all(before[m] <= after[m] for m in after)


def test_a_chain_of_moves_evens_out_what_no_single_move_can() -> None:
    """The first may only give to the second, and only the second may give to the third."""
    subscribers = [
        Subscriber("m0", "m0", frozenset("a"), frozenset(("a", p) for p in range(3))),
        Subscriber("m1", "m1", frozenset("ab"), frozenset([("b", 0), ("b", 1)])),
        Subscriber("m2", "m2", frozenset("b"), frozenset([("b", 2)])),
    ]
    found = assign("sticky", subscribers, {"a": 3, "b": 3})
    assert sorted(map(len, found.values())) == [2, 2, 2]


def test_a_large_group_is_shared_out_evenly() -> None:
    rng = Random(1)
    subscribers = [
        Subscriber(f"m{i:03}", f"m{i:03}", frozenset(rng.choice(["ab", "bc", "abc"])), frozenset()) for i in range(60)
    ]
    topics = {"a": 100, "b": 100, "c": 100}
    found = assign("sticky", subscribers, topics)
    check_complete(subscribers, topics, found)
    sizes = [len(parts) for parts in found.values()]
    assert max(sizes) - min(sizes) <= 1


def improvable(subscribers: list[Subscriber], found: Assignment) -> bool:
    """Naive: somebody reaches, by partitions handed from member to member, one that has at least
    two less."""
    topics = {s.member_id: s.topics for s in subscribers}
    for start in found:
        seen, stack = {start}, [start]
        while stack:
            given = {topic for topic, _ in found[stack.pop()]}
            nearby = [m for m in found if m not in seen and given & topics[m]]
            seen.update(nearby)
            stack += nearby
        if any(len(found[m]) <= len(found[start]) - 2 for m in seen):
            return True
    return False


@pytest.mark.parametrize("seed", range(30))
def test_no_chain_of_moves_is_left_that_makes_it_more_even(seed: int) -> None:
    """Larger than all assignments could be looked through; twice, with what is owned kept as far as
    may be."""
    rng = Random(seed)
    topics = {name: rng.randint(0, 12) for name in "abcdefgh"[: rng.randint(2, 8)]}
    names = [f"m{i:02}" for i in range(rng.randint(2, 25))]
    found: Assignment = {}
    for _ in range(3):
        subscribers = [
            Subscriber(n, n, frozenset(rng.sample(sorted(topics), rng.choice([1, 1, 2]))), frozenset(found.get(n, ())))
            for n in names
        ]
        found = assign("sticky", subscribers, topics)
        check_complete(subscribers, topics, found)
        assert not improvable(subscribers, found)


def of_two_kinds(count: int, owned: Assignment, shift: int = 0) -> list[Subscriber]:
    """Every second one reads a, the others a and b: a rolling restart of a new version that reads b
    too."""
    names = [f"m{number:04}" for number in range(count)]
    return [
        Subscriber(n, n, frozenset("a" if (i + shift) % 2 else "ab"), frozenset(owned.get(n, ())))
        for i, n in enumerate(names)
    ]


def spent_ms(subscribers: list[Subscriber], topics: dict[str, int], assignor: str = "sticky") -> float:
    """A second of a turn is far more than it takes, and less than it took."""
    begun = perf_counter()
    check_complete(subscribers, topics, assign(assignor, subscribers, topics))
    return (perf_counter() - begun) * 1000


@pytest.mark.parametrize("members", [200, 500, 1000])
def test_members_of_two_kinds_are_shared_out_for_within_a_turn(members: int) -> None:
    topics = {"a": 1000, "b": 1000}
    owned = assign("sticky", of_two_kinds(members - 1, {}), topics)
    assert spent_ms(of_two_kinds(members, owned), topics) < 1000
    owned = assign("sticky", of_two_kinds(members, owned), topics)
    assert max(map(len, owned.values())) - min(map(len, owned.values())) <= 1
    assert spent_ms(of_two_kinds(members, owned, 1), topics) < 1000
    assert spent_ms(of_two_kinds(members // 2, owned), topics) < 1000


@pytest.mark.parametrize("assignor", ["sticky", "range"])
def test_many_topics_for_many_members_are_shared_out_within_a_turn(assignor: str) -> None:
    topics = {f"t{number:04}": 1 for number in range(5000)}
    everything = frozenset(topics)
    alike = [Subscriber(f"m{i}", f"m{i}", everything) for i in range(1000)]
    assert spent_ms(alike, topics, assignor) < 1000


def test_one_that_has_everything_gives_as_much_as_a_turn_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {"a": 500, "b": 500}
    everything = {"m0000": {(topic, p) for topic in topics for p in range(500)}}
    monkeypatch.setattr(evening, "WORK_MAX", 1000)
    found = assign("sticky", of_two_kinds(100, everything), topics)
    check_complete(of_two_kinds(100, {}), topics, found)
    assert 10 < len(found["m0000"]) < 1000
    for _ in range(100):
        found = assign("sticky", of_two_kinds(100, found), topics)
    assert {len(parts) for parts in found.values()} == {10}


def test_many_topics_of_two_kinds_are_shared_out_within_a_turn() -> None:
    """Patterns: every second member reads all topics, the others nearly all."""
    topics = {f"t{number:04}": 1 for number in range(5000)} | {"a": 1000}
    everything, some = frozenset(topics), frozenset(topics) - {"a"}
    owned: Assignment = {}
    for count in (1, 2, 3, 4, 100):
        subscribers = [
            Subscriber(f"m{i:03}", f"m{i:03}", some if i % 2 else everything, frozenset(owned.get(f"m{i:03}", ())))
            for i in range(count)
        ]
        assert spent_ms(subscribers, topics) < 1000
        owned = assign("sticky", subscribers, topics)
        assert max(map(len, owned.values())) - min(map(len, owned.values())) <= 1
