"""Assignors against naive second versions: all assignments there are, looked through one by one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.assign import Assignment, Subscriber, TopicPart, assign


def members(count: int, topics: str = "a", current: Assignment | None = None) -> list[Subscriber]:
    names = [f"m{i:02}" for i in range(count)]
    return [Subscriber(n, n, frozenset(topics), frozenset((current or {}).get(n, ()))) for n in names]


def check_complete(subscribers: list[Subscriber], topics: dict[str, int], found: Assignment) -> None:
    """Every partition of a topic somebody subscribes to is given once, to a subscriber; everybody is named."""
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
