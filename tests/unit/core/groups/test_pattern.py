"""Topic patterns against Python's re, on what both can do; and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.groups.pattern import PATTERN_CHARS_MAX, Pattern
from minilog.errors import InvalidRequest

atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[b-d]", r"\d", r"\.", "-", r"[\.-c]", r"[\-a]", r"[\d-]"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@given(patterns, st.lists(st.text(alphabet="abcd1.-", max_size=6), max_size=8))
@settings(max_examples=80, deadline=None)
def test_a_pattern_fits_what_re_says_it_fits(pattern: str, names: list[str]) -> None:
    ours, naive = Pattern(pattern), re.compile(pattern)
    for name in names:
        assert ours.fits(name) == (naive.fullmatch(name) is not None), name


def test_what_takes_re_for_ever_takes_a_moment() -> None:
    assert not Pattern("(a*)*(a|a)*b").fits("a" * 249)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "1 to 249"),
        ("a" * (PATTERN_CHARS_MAX + 1), "1 to 249"),
        ("(a", "not closed"),
        ("a)", "stands alone"),
        ("[a", "not closed"),
        ("*a", "nothing to stand on"),
        ("a**", "repeated"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "not supported"),
        ("a{3,1}", "ordered"),
        ("a{101}", "at most 100"),
        ("a{x}", "written"),
        ("[z-a]", "no range"),
        ("((a{100}){100}){100}", "too large"),
        ("(" * 30 + "a" + ")" * 30, "nested"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Pattern(pattern)


def test_the_ends_may_be_written_out() -> None:
    assert Pattern("^orders-.*$").fits("orders-1")
    assert not Pattern("^orders-.*$").fits("my-orders-1")
    assert Pattern("orders").fits("orders")
    assert not Pattern("orders").fits("orders-1")


@given(patterns, st.lists(st.text(alphabet="abcd1.-", max_size=6), max_size=8))
@settings(max_examples=40, deadline=None)
def test_what_a_pattern_remembers_changes_no_answer(pattern: str, names: list[str]) -> None:
    ours = Pattern(pattern)
    first = [ours.fits(name) for name in names]
    assert [ours.fits(name) for name in names] == first == [Pattern(pattern).fits(name) for name in names]


def test_what_a_pattern_may_cost_is_bounded_and_counted_over_all_names() -> None:
    pattern = Pattern("(.?.?.?.?){60}")
    with pytest.raises(InvalidRequest, match="steps"):
        [pattern.fits("a" * length) for length in range(249)]
    pattern.forget()
    assert pattern.fits("a")
    benign = Pattern("orders.*")
    assert all(benign.fits(f"orders-{number}") for number in range(10_000))
    assert benign.steps < 1000


def test_long_chains_of_states_are_no_deep_recursion() -> None:
    assert Pattern("(.{100}){9}").fits("a" * 900)
