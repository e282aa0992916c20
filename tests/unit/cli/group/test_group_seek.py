"""Where ``--to`` leads, as a table; and what cannot be said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.cli.group.seek import Bounds, Goal, Move, consequence, move, parse_goal, parse_partitions
from minilog.cli.output import CliError, ExitCode

LOG = Bounds(first=10, end=100, found=40)
BEFORE, BEYOND = "before the start", "beyond the end"


@pytest.mark.parametrize(
    ("to", "committed", "after", "note"),
    [
        ("earliest", 50, 10, ""),
        ("earliest", None, 10, ""),
        ("latest", 50, 100, ""),
        ("latest", None, 100, ""),
        ("@1700", 50, 40, ""),
        ("=60", 50, 60, ""),
        ("=60", None, 60, ""),
        ("=10", 50, 10, ""),
        ("=9", 50, 10, BEFORE),
        ("=100", 50, 100, ""),
        ("=101", 50, 100, BEYOND),
        ("+5", 50, 55, ""),
        ("-5", 50, 45, ""),
        ("+0", 50, 50, ""),
        ("+50", 50, 100, ""),
        ("+51", 50, 100, BEYOND),
        ("-40", 50, 10, ""),
        ("-41", 50, 10, BEFORE),
        ("+0", 3, 10, BEFORE),
        ("-0", 120, 100, BEYOND),
    ],
)
def test_where_a_group_goes_on(to: str, committed: int | None, after: int, note: str) -> None:
    found = move(parse_goal(to), "orders", 3, committed, LOG)
    assert (found.topic, found.partition, found.before, found.after) == ("orders", 3, committed, after)
    assert note in found.note
    assert bool(note) == bool(found.note)
    assert found.row()["moved"] == (None if committed is None else after - committed)


def test_a_shift_needs_something_to_start_from() -> None:
    with pytest.raises(CliError, match="orders-3 has no committed offset"):
        move(parse_goal("+1"), "orders", 3, None, LOG)


@given(
    to=st.sampled_from(["earliest", "latest", "@5"]) | st.from_regex(r"[+=-][0-9]{1,4}", fullmatch=True),
    committed=st.integers(0, 200),
    first=st.integers(0, 100),
    length=st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_nobody_is_sent_where_nothing_can_be_read(to: str, committed: int, first: int, length: int) -> None:
    found = move(parse_goal(to), "t", 0, committed, Bounds(first, first + length, first))
    assert first <= found.after <= first + length
    if not to.startswith(("+", "-")):
        assert move(parse_goal(to), "t", 0, found.after, Bounds(first, first + length, first)).after == found.after


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("@1700000000000", Goal("time", 1_700_000_000_000)),
        ("@0", Goal("time", 0)),
        ("@2026-01-31", Goal("time", 1_769_817_600_000)),
        ("@2026-01-31T00:00:00Z", Goal("time", 1_769_817_600_000)),
        ("@2026-01-31T01:00:00.5+01:00", Goal("time", 1_769_817_600_500)),
        ("@1969-01-01", Goal("time", 0)),
        ("=0", Goal("offset", 0)),
        ("-7", Goal("shift", -7)),
    ],
)
def test_goals(text: str, goal: Goal) -> None:
    assert parse_goal(text) == goal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("42", "write =42"), ("", "allowed are"), ("@", "is no time"), ("@yesterday", "is no time"), ("=", "allowed are"),
        ("=-1", "allowed are"), ("+1.5", "allowed are"), ("=9223372036854775808", "allowed are"), ("end", "allowed are"),
        ("@999999999999999999", "is no time"), ("=\u0663", "allowed are"),
    ],
)  # fmt: skip
def test_what_is_no_goal_is_refused(text: str, said: str) -> None:
    with pytest.raises(CliError, match=said) as caught:
        parse_goal(text)
    assert caught.value.exit_code == ExitCode.USAGE


def test_topics_and_partitions() -> None:
    assert parse_partitions([]) == {}
    assert parse_partitions(["a", "b:3,0-2"]) == {"a": None, "b": {0, 1, 2, 3}}
    assert parse_partitions(["a:1", "a:2"]) == {"a": {1, 2}}
    assert parse_partitions(["a:1", "a"]) == parse_partitions(["a", "a:1"]) == {"a": None}
    for bad in ("", ":1", "a:", "a:x", "a:1-", "a:-1", "a:1,,2", "a:0-999999999"):
        with pytest.raises(CliError):
            parse_partitions([bad])


def test_consequences_in_words() -> None:
    moves = [Move("t", 0, 10, 4, ""), Move("t", 1, 0, 2000, ""), Move("t", 2, None, 3, "")]
    assert (
        consequence(moves) == "6 records are read again, 2,000 records are skipped, 1 partition had nothing committed"
    )
    assert consequence(moves[1:2]) == "2,000 records are skipped"
    assert Goal("time", 1_769_817_600_000).in_words() == "to the first record at or after 2026-01-31T00:00:00.000+00:00"
    assert Goal("shift", -5).in_words() == "5 records back"
    assert Goal("latest").in_words() == "to the latest offset"
