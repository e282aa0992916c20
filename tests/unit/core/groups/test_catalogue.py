"""The catalogue against naive looks at all names; and what hostile patterns may cost."""

from __future__ import annotations

import re
from contextlib import suppress
from random import Random
from time import perf_counter

import pytest

from minilog.core.groups import catalogue as module
from minilog.core.groups.catalogue import Catalogue
from minilog.core.groups.pattern import Pattern
from minilog.errors import InvalidRequest
from tests.unit.core.groups.group_bench import Bench, parts

HOSTILE = ("(.*.*.*.*.*.*.*.*){60}", "(.?.?.?.?){70}", "(.*x){100}.*y", ".*[a-z].{90}", "((x?){100}){10}")
COSTLY = "(.?.?.?.?){70}"
TURN_MS = 1000
"""Far more than a look takes, far less than it took: a machine that is busy with other things may
be slow."""


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_holds_up_a_turn(pattern: str) -> None:
    bench = Bench(**{f"orders-{number:04d}-{'x' * 28}": 1 for number in range(2000)})
    begun = perf_counter()
    with suppress(InvalidRequest):
        bench.beat("a", pattern=pattern)
    assert (perf_counter() - begun) * 1000 < TURN_MS


def test_names_are_looked_at_once_for_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    fits = Pattern.fits

    def watched(pattern: Pattern, name: str) -> bool:
        looked.append(name)
        return fits(pattern, name)

    monkeypatch.setattr(Pattern, "fits", watched)
    catalogue = Catalogue()
    names = [f"orders.{number}" for number in range(10_000)]
    catalogue.on_topics(names)
    assert len(catalogue.fitting("orders.*")) == len(looked) == 10_000
    catalogue.fitting("orders.*")
    catalogue.on_topics([*names[1:], "orders.new", "other"])
    assert catalogue.fitting("orders.*") == sorted([*names[1:], "orders.new"])
    assert looked[10_000:] == ["orders.new", "other"]


@pytest.mark.parametrize("seed", range(5))
def test_what_fits_is_what_a_look_at_all_names_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics come, go and come again; patterns are forgotten and asked for again."""
    monkeypatch.setattr(module, "LOOKS_MAX", 3)
    monkeypatch.setattr(module, "NEWS_MIN", 5)
    rng = Random(seed)
    catalogue, names = Catalogue(), set[str]()
    for _ in range(300):
        names ^= {"".join(rng.choices("abc", k=rng.randint(1, 3))) for _ in range(rng.randint(0, 2))}
        catalogue.on_topics(names)
        for pattern in rng.sample(["a.*", "b", "[ab]*", ".*c", "(ab|c)+"], 2):
            assert catalogue.fitting(pattern) == sorted(n for n in names if re.fullmatch(pattern, n))


def test_a_pattern_that_takes_too_many_steps_is_refused_and_fits_nothing() -> None:
    catalogue = Catalogue()
    catalogue.on_topics(["a" * 249])
    with pytest.raises(InvalidRequest, match="steps"):
        catalogue.check(COSTLY)
    assert catalogue.fitting(COSTLY) == []
    catalogue.on_topics(["a"])
    with pytest.raises(InvalidRequest, match="steps"):
        catalogue.check(COSTLY)


def test_a_pattern_that_was_cheap_costs_its_member_the_membership_and_nobody_else() -> None:
    """Nothing can be refused when a topic is made: the group goes on, and who uses the pattern is
    told."""
    bench = Bench(a=1)
    one = bench.beat("one", pattern=COSTLY)
    two = bench.beat("two", topics=["a"])
    bench.topics(**{"x" * 249: 1})
    bench.tick(500)
    with pytest.raises(InvalidRequest, match="steps"):
        bench.beat("one", one.member_epoch, parts(one), pattern=COSTLY)
    for _ in range(3):
        bench.tick(5000)
        two = bench.beat("two", two.member_epoch, parts(two), topics=["a"])
    assert parts(two) == {("a", 0)}


def test_a_group_uses_a_bounded_number_of_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.core.groups.checks.PATTERNS_MAX", 2)
    bench = Bench()
    told = bench.beat("a", pattern="t")
    bench.beat("b", pattern="t.*")
    for instance_id in ("", "c"):
        with pytest.raises(InvalidRequest, match="different patterns"):
            bench.beat("c", instance_id=instance_id, pattern="t+")
    bench.beat("c", pattern="t")
    bench.beat("d", topics=["t"])
    with pytest.raises(InvalidRequest, match="different patterns"):
        bench.beat("a", told.member_epoch, pattern="t+")
    assert bench.beat("a", told.member_epoch, pattern="t.*").member_epoch
