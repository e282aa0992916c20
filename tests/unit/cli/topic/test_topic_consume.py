"""Where reading begins and ends, and what cannot be asked for."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

from minilog.cli.api import Api
from minilog.cli.main import run
from minilog.cli.topic.consume import is_at_end, last_offsets, until_end
from minilog.cli.topic.consume_as_member import start_of_group


class Log:
    """A topic whose oldest records are gone: it starts at 40."""

    def start_offset(self, topic: str, partition: int) -> int:
        return 40


class Position(NamedTuple):
    partition: int
    offset: int


def positions(*offsets: int | None) -> dict[tuple[str, int], int | None]:
    return {("t", part): offset for part, offset in enumerate(offsets)}


@pytest.mark.parametrize(
    ("end", "records", "begin"), [(100, 10, 90), (100, 60, 40), (100, 99, 40), (45, 50, 40), (40, 0, 40)]
)
def test_the_last_records_that_are_still_there(end: int, records: int, begin: int) -> None:
    assert last_offsets(cast(Api, Log()), "t", {3: end}, records) == {3: begin}


def test_the_end_that_was_there_at_the_start() -> None:
    ends = {0: 5, 1: 0}
    assert is_at_end(positions(5, None), "t", ends)
    assert is_at_end(positions(9, 3), "t", ends)
    assert not is_at_end(positions(4, 0), "t", ends)
    assert not is_at_end(positions(None, 0), "t", ends)
    records: list[Any] = [Position(0, 4), Position(0, 5), Position(1, 0)]
    assert until_end(records, ends) == records[:1]


def test_where_a_group_begins() -> None:
    words = ["earliest", "beginning", "latest", "end", "@1700"]
    assert list(map(start_of_group, words)) == ["earliest", "earliest", "latest", "latest", "@1700"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consume", "x", "--group", "g", "-p", "1"], "exclude each other"),
        (["consume", "x", "--group", "g", "-o", "-5"], "group seek"),
        (["consume", "x", "--group", "g", "-o", "17"], "group seek"),
        (["consume", "x", "--group", "g", "-o", "@noon"], "allowed are"),
        (["tail", "x", "-n", "-1"], "--records"),
        (["tail", "x", "-f", "%q"], "not a token"),
        (["tail"], "NAME"),
    ],
)
def test_misuse_is_said_before_anything_is_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["topic", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
