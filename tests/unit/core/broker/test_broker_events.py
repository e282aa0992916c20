"""What a broker has seen: told until it is noted, bounded, a state when it begins and ends."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from minilog.core.broker.standing.broker_events import AT_ONCE_MAX, STRAYS_EVERY_MS, UNTOLD_MAX, BrokerEvents
from minilog.wire.journal.events import ERROR, INFO, WARNING, Event, EventKind
from minilog.wire.messages import Condition


class Cut(NamedTuple):
    partition: str = "a-b-3"
    reason: str = "diverged from the leader"
    base_offset: int = 10
    end_offset: int = 17
    last_epoch: int = 4
    records_by_acks: tuple[int, int, int, int] = (1, 2, 3, 1)
    unreadable_bytes: int = 0


def sentences(events: BrokerEvents) -> list[str]:
    return [seen.event.sentence for seen in events.tell(0)]


def happen(events: BrokerEvents, count: int) -> None:
    for number in range(count):
        events.add(Event(0, "k", INFO, f"event {number}"))


def test_it_is_told_until_it_is_noted() -> None:
    events = BrokerEvents(1)
    happen(events, 3)
    assert sentences(events) == sentences(events) == ["event 0", "event 1", "event 2"]
    events.on_noted(2)
    assert sentences(events) == ["event 2"]
    events.on_noted(1)
    assert sentences(events) == ["event 2"], "a late answer"


def test_a_heartbeat_tells_a_few_and_what_does_not_fit_is_counted() -> None:
    events = BrokerEvents(1)
    happen(events, UNTOLD_MAX + 5)
    told = events.tell(7)
    assert len(told) == AT_ONCE_MAX
    while events.tell(7)[-1].event.kind != EventKind.EVENTS_DROPPED:
        events.on_noted(events.tell(7)[-1].number)
    dropped = events.tell(7)[-1].event
    assert dropped.count >= 5
    assert len(events.take_for_log()) == UNTOLD_MAX + 6, "the log has them all"
    assert events.take_for_log() == []


def test_a_cut_says_where_and_what_was_promised_of_it() -> None:
    events = BrokerEvents(2)
    events.see_cuts([Cut()], 99)
    ((_, event),) = [(seen.number, seen.event) for seen in events.tell(0)]
    assert (event.topic, event.partition, event.count, event.level) == ("a-b", 3, 7, ERROR)
    assert (event.facts["acks_1"], event.facts["base_offset"], event.facts["end_offset"]) == (3, 10, 17)
    assert "offsets 10 to 16" in event.sentence
    events = BrokerEvents(2)
    events.see_cuts([Cut(records_by_acks=(0, 2, 0, 0))], 99)
    assert events.tell(0)[0].event.level == WARNING


def test_a_cut_of_what_cannot_be_read_is_not_told_as_nothing() -> None:
    """Nobody can count the records in it, nor say where it ends."""
    events = BrokerEvents(2)
    events.see_cuts(
        [Cut(base_offset=10, end_offset=10, last_epoch=-1, records_by_acks=(0, 0, 0, 0), unreadable_bytes=3189)], 99
    )
    (sentence,) = sentences(events)
    assert "cut 0 records and 3189 bytes that cannot be read from the end of a-b-3, from offset 10 on (" in sentence


def test_a_state_is_told_when_it_begins_and_when_it_ends() -> None:
    events = BrokerEvents(2)
    full = Condition("disk_full", "its disk has no room", "make room")
    for _ in range(3):
        events.see_conditions([full], 1)
    events.see_conditions([], 2)
    assert sentences(events) == ["broker 2: its disk has no room", "broker 2: disk full is over"]


def test_a_controller_that_is_lost_and_found() -> None:
    events = BrokerEvents(2)
    events.see_controller(None, 2000, 0, 0)
    events.see_controller(100, 2000, 1000, 1000)
    assert sentences(events) == []
    events.see_controller(2500, 2000, 10_000, 10_000)
    events.see_controller(9000, 2000, 16_500, 16_500)
    events.see_controller(20, 2000, 17_500, 17_500)
    assert sentences(events) == [
        "broker 2 has not heard the controller for 2500 ms",
        "broker 2 hears the controller again, after 10000 ms",
    ]


def test_a_clock_that_is_off() -> None:
    events = BrokerEvents(2)
    for skew_ms in (None, 10, 5000, 6000, None, 0):
        events.see_clock(skew_ms, 1000, 0)
    first, second = sentences(events)
    assert "5000 ms ahead of" in first
    assert "agrees" in second


def test_how_long_a_controller_was_away_is_no_matter_of_the_wall_clock() -> None:
    events = BrokerEvents(2)
    events.see_controller(2500, 2000, now_ms=10_000, at_ms=7_200_000)
    events.see_controller(20, 2000, now_ms=17_500, at_ms=3_600_000)
    assert sentences(events)[1] == "broker 2 hears the controller again, after 10000 ms"


def test_a_flood_drops_what_matters_least() -> None:
    events = BrokerEvents(1)
    events.see_damage("t", 0, 0)
    events.see_cuts([Cut()], 0)
    happen(events, 2 * UNTOLD_MAX)
    assert [seen.event.level for seen in events.tell(0)][:3] == [ERROR, ERROR, INFO]
    numbers = [seen.number for seen in events.tell(0)]
    assert numbers == sorted(numbers)
    errors = BrokerEvents(1)
    for partition in range(UNTOLD_MAX + 1):
        errors.see_damage("t", partition, 0)
    happen(errors, 1)
    assert {seen.event.level for seen in errors.tell(0)} == {ERROR}


def test_a_thousand_cuts_at_once_are_all_counted_in_a_few_events() -> None:
    events = BrokerEvents(2)
    events.see_cuts([Cut(f"t-{partition}") for partition in range(1000)], 99)
    told = events.take_for_log()
    assert len(told) <= AT_ONCE_MAX + 1
    assert sum(event.count for event in told) == 7000
    for name, each in (("acks_unknown", 1), ("acks_0", 2), ("acks_1", 3), ("acks_many", 1)):
        assert sum(count for event in told if isinstance(count := event.facts[name], int)) == 1000 * each
    assert (told[-1].topic, told[-1].level) == (None, ERROR)
    assert "980 more partitions" in told[-1].sentence
    assert len(msgspec.msgpack.encode(told[-1])) < 8 * 1024


def test_logs_that_were_put_aside_are_told_of_together() -> None:
    events = BrokerEvents(2)
    events.see_strays(0, 0, 0)
    for now_ms, count in ((20, 4), (40, 8), (60, 9), (20 + STRAYS_EVERY_MS, 9), (20 + 2 * STRAYS_EVERY_MS, 7)):
        events.see_strays(count, now_ms, now_ms)
    told = [seen.event for seen in events.tell(0)]
    assert [(event.count, event.facts["strays"], event.level) for event in told] == [
        (4, 4, WARNING),
        (5, 9, WARNING),
        (2, 7, INFO),
    ]
    assert "nothing of them was deleted" in told[0].sentence
