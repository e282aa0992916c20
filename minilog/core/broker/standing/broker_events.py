"""Events of a broker: what this process has seen, for its log and for the controller's journal.

Owns what was not yet told. Every event has a number of this process: the controller notes each
number once, and says how far it has come (wire/journal/events.py).

Invariants
* Nothing is decided by an event.
* What waits is bounded. When more happens than can be told, the oldest events of the least level
  go, and one event says how many did.
* A state that lasts (a full disk, a lost controller) is told when it begins and when it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from minilog.core.ports import CutTail
from minilog.wire.journal.events import ERROR, INFO, LEVELS, WARNING, Event, EventKind, Facts, SeenEvent
from minilog.wire.messages import Condition

UNTOLD_MAX: Final = 200
AT_ONCE_MAX: Final = 20
STRAYS_EVERY_MS: Final = 10_000


class BrokerEvents:
    def __init__(self, broker_id: int) -> None:
        self._broker_id = broker_id
        self._number = 0
        self._untold: deque[SeenEvent] = deque()
        self._unlogged: list[Event] = []
        self._dropped = 0
        self._conditions: dict[str, Condition] = {}
        self._lost_ms: int | None = None
        self._is_skewed = False
        self._strays = 0
        self._strays_ms = -STRAYS_EVERY_MS

    def add(self, event: Event) -> None:
        self._unlogged.append(event)
        self._number += 1
        self._untold.append(SeenEvent(self._number, event))
        if len(self._untold) > UNTOLD_MAX:
            self._untold.remove(min(self._untold, key=_level))
            self._dropped += 1

    def take_for_log(self) -> list[Event]:
        """What was not yet written to this process's log."""
        unlogged, self._unlogged = self._unlogged, []
        return unlogged

    def tell(self, at_ms: int) -> list[SeenEvent]:
        """For a heartbeat, and again until it is answered."""
        if self._dropped and len(self._untold) < UNTOLD_MAX:
            sentence = (
                f"broker {self._broker_id} has seen {self._dropped} more events than it could tell; its log has them"
            )
            dropped, self._dropped = self._dropped, 0
            self.add(Event(at_ms, EventKind.EVENTS_DROPPED, WARNING, sentence, self._broker_id, count=dropped))
        return [self._untold[i] for i in range(min(AT_ONCE_MAX, len(self._untold)))]

    def on_noted(self, number: int) -> None:
        while self._untold and self._untold[0].number <= number:
            self._untold.popleft()

    # --- what is seen -----------------------------------------------------------------------------

    def see_cuts(self, cuts: Iterable[CutTail], at_ms: int) -> None:
        """The first ones one by one, all others in one event: a broker may hold thousands."""
        cuts = list(cuts)
        for cut in cuts[:AT_ONCE_MAX]:
            self.add(self._cut(cut, at_ms))
        if cuts[AT_ONCE_MAX:]:
            self.add(self._more_cuts(cuts[AT_ONCE_MAX:], at_ms))

    def _cut(self, cut: CutTail, at_ms: int) -> Event:
        facts = _facts(cut.records_by_acks)
        topic, _, partition = cut.partition.rpartition("-")
        count = sum(cut.records_by_acks)
        sentence = (
            f"broker {self._broker_id} cut {_what(cut)} from the end of {cut.partition}{_where(cut)} ({cut.reason}): "
            f"{_by_acks(cut.records_by_acks)}; they are kept: `minilog lost list`"
        )
        facts |= {
            "base_offset": cut.base_offset,
            "end_offset": cut.end_offset,
            "last_epoch": cut.last_epoch,
            "reason": cut.reason,
        }
        level = _cut_level(cut.records_by_acks)
        return Event(
            at_ms, EventKind.RECORDS_CUT, level, sentence, self._broker_id, topic, int(partition), count, facts
        )

    def _more_cuts(self, cuts: list[CutTail], at_ms: int) -> Event:
        unknown, acks_0, acks_1, many = (sum(counts) for counts in zip(*(c.records_by_acks for c in cuts), strict=True))
        by_acks = unknown, acks_0, acks_1, many
        sentence = (
            f"broker {self._broker_id} cut {sum(by_acks)} records from the ends of {len(cuts)} more partitions: "
            f"{_by_acks(by_acks)}; they are kept: `minilog lost list`"
        )
        facts: Facts = {**_facts(by_acks), "partitions": len(cuts)}
        level, count = _cut_level(by_acks), sum(by_acks)
        return Event(at_ms, EventKind.RECORDS_CUT, level, sentence, self._broker_id, count=count, facts=facts)

    def see_damage(self, topic: str, partition: int, at_ms: int) -> None:
        sentence = (
            f"the log of {topic}-{partition} on broker {self._broker_id} is damaged: the replica neither leads "
            "nor counts while others can; `minilog log verify` shows where"
        )
        self.add(Event(at_ms, EventKind.REPLICA_DAMAGED, ERROR, sentence, self._broker_id, topic, partition))

    def see_conditions(self, conditions: Iterable[Condition], at_ms: int) -> None:
        """All there are now."""
        now = {condition.kind: condition for condition in conditions}
        for kind, condition in now.items():
            if kind not in self._conditions:
                level = WARNING if condition.is_warning else ERROR
                sentence = f"broker {self._broker_id}: {condition.sentence}"
                facts: Facts = {"condition": kind, "next_step": condition.next_step}
                self.add(Event(at_ms, EventKind.CONDITION_BEGAN, level, sentence, self._broker_id, facts=facts))
        for kind in self._conditions:
            if kind not in now:
                sentence = f"broker {self._broker_id}: {kind.replace('_', ' ')} is over"
                self.add(
                    Event(
                        at_ms,
                        EventKind.CONDITION_ENDED,
                        INFO,
                        sentence,
                        self._broker_id,
                        facts={"condition": kind},
                    )
                )
        self._conditions = now

    def see_strays(self, count: int, now_ms: int, at_ms: int) -> None:
        """``count``: logs that were moved aside, because the cluster does not know their topics.
        Many go at once: they are told of together."""
        if count == self._strays or now_ms - self._strays_ms < STRAYS_EVERY_MS:
            return
        moved, self._strays, self._strays_ms = count - self._strays, count, now_ms
        sentence = f"broker {self._broker_id} has {-moved} strays less, and {count} left"
        if moved > 0:
            sentence = (
                f"broker {self._broker_id} has put {moved} logs aside, because the cluster does not know their topics "
                f"({count} in all); nothing of them was deleted: `minilog log strays DATA_DIR`"
            )
        facts: Facts = {"strays": count}
        level = WARNING if moved > 0 else INFO
        self.add(Event(at_ms, EventKind.LOGS_STRAYED, level, sentence, self._broker_id, count=abs(moved), facts=facts))

    def see_controller(self, heard_ms_ago: int | None, session_timeout_ms: int, now_ms: int, at_ms: int) -> None:
        """``heard_ms_ago``: since its last answer, None before the first one. ``now_ms``: of the
        clock that nobody sets."""
        if heard_ms_ago is None:
            return
        is_lost = heard_ms_ago > session_timeout_ms
        if is_lost and self._lost_ms is None:
            self._lost_ms = now_ms - heard_ms_ago
            sentence = f"broker {self._broker_id} has not heard the controller for {heard_ms_ago} ms"
            self.add(Event(at_ms, EventKind.CONTROLLER_LOST, WARNING, sentence, self._broker_id))
        elif not is_lost and self._lost_ms is not None:
            away_ms, self._lost_ms = now_ms - self._lost_ms, None
            sentence = f"broker {self._broker_id} hears the controller again, after {away_ms} ms"
            facts: Facts = {"away_ms": away_ms}
            self.add(Event(at_ms, EventKind.CONTROLLER_FOUND, INFO, sentence, self._broker_id, facts=facts))

    def see_clock(self, skew_ms: int | None, skew_max_ms: int, at_ms: int) -> None:
        is_skewed = skew_ms is not None and abs(skew_ms) > skew_max_ms
        if is_skewed == self._is_skewed:
            return
        self._is_skewed = is_skewed
        sentence = f"the clock of broker {self._broker_id} agrees with the controller's again"
        if is_skewed:
            way = "ahead of" if (skew_ms or 0) > 0 else "behind"
            sentence = (
                f"the clock of broker {self._broker_id} is {abs(skew_ms or 0)} ms {way} the controller's, allowed are "
                f"{skew_max_ms} (clock_skew_max_ms): it deletes nothing because of its age"
            )
        level = WARNING if is_skewed else INFO
        facts: Facts = {} if skew_ms is None else {"skew_ms": skew_ms}
        self.add(Event(at_ms, EventKind.CLOCK_SKEW, level, sentence, self._broker_id, facts=facts))


def _level(seen: SeenEvent) -> int:
    return LEVELS.index(seen.event.level)


def _cut_level(by_acks: tuple[int, int, int, int]) -> str:
    _unknown, _acks_0, acks_1, many = by_acks
    return ERROR if acks_1 or many else WARNING


def _by_acks(by_acks: tuple[int, int, int, int]) -> str:
    unknown, acks_0, acks_1, many = by_acks
    return (
        f"{acks_1} were written with acks=1, {acks_0} with acks=0, {many} with more, which were not all there was "
        f"to wait for, {unknown} of unknown origin"
    )


def _facts(by_acks: tuple[int, int, int, int]) -> Facts:
    unknown, acks_0, acks_1, many = by_acks
    return {"acks_unknown": unknown, "acks_0": acks_0, "acks_1": acks_1, "acks_many": many}


def _what(cut: CutTail) -> str:
    """Nobody can say how many records there are in what cannot be read."""
    records = f"{sum(cut.records_by_acks)} records"
    return f"{records} and {cut.unreadable_bytes} bytes that cannot be read" if cut.unreadable_bytes else records


def _where(cut: CutTail) -> str:
    if cut.end_offset <= cut.base_offset:
        return f", from offset {cut.base_offset} on"
    epoch = f" of leader epoch {cut.last_epoch}" if cut.last_epoch >= 0 else ""
    return f", offsets {cut.base_offset} to {cut.end_offset - 1}{epoch}"
