"""``minilog cluster events``: what is asked for is found behind whatever else has happened."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import pytest

from minilog.cli.main import run
from minilog.wire.journal.events import ERROR, INFO, Event
from minilog.wire.json.json_answers import EventList, NotedEvent

KEPT = 300


def event(number: int, level: str) -> NotedEvent:
    return NotedEvent(number, Event(1_700_000_000_000 + number, "isr-changed", level, f"event {number}"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[NotedEvent]:
    """What brokers keep: one error and then much else. As brokers do, the last ``limit`` are
    answered, and behind ``after`` the first. The second question for more ends the command."""
    events = [event(number, ERROR if number == 1 else INFO) for number in range(1, KEPT + 1)]
    asked = count()

    def get(self: object, route: str, cls: type, query: Mapping[str, str]) -> EventList:
        limit = int(query["limit"])
        if "after" not in query:
            return EventList(events[-limit:], KEPT)
        if next(asked):
            raise KeyboardInterrupt
        return EventList([event(KEPT + 1, ERROR)], KEPT + 1)

    monkeypatch.setattr("minilog.cli.api.Api.get", get)
    return events


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    run(["cluster", "events", "-u", "http://127.0.0.1:1", *arguments])
    return [line for line in capsys.readouterr().out.splitlines() if "event " in line]


def test_the_last_ones_of_a_level_are_found_behind_all_others(
    kept: list[NotedEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line.split()[-1] for line in lines(capsys, "--level", "error")] == ["1"]
    assert len(lines(capsys)) == 100
    assert len(lines(capsys, "-n", "7")) == 7


def test_all_since_a_time_are_shown_also_when_it_goes_on(
    kept: list[NotedEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(lines(capsys, "--since", "2023-01-01", "--follow")) == KEPT + 1


def test_when_it_goes_on_the_last_ones_of_the_level_come_first(
    kept: list[NotedEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line.split()[-1] for line in lines(capsys, "-f", "-l", "error")] == ["1", str(KEPT + 1)]
