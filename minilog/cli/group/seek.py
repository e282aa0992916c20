"""Where a group is to go on: what ``--to`` and ``--topic`` mean, and the arithmetic. Pure.

Invariant: the new offset lies within what can be read, ``first <= after <= end``. Whoever asked for
more is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from minilog.cli.output import CliError, Column, ExitCode
from minilog.cli.times import WAYS, time_ms

COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("before", "COMMITTED", right=True),
    Column("after", "NEW", right=True),
    Column("moved", "MOVED", right=True),
    Column("note", "NOTE"),
]
OFFSET_MAX = 2**63 - 1
_NUMBER = re.compile(r"[+=-]([0-9]{1,19})")
_PARTITIONS = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?")
_ALLOWED = "allowed are earliest, latest, @MS or @2026-01-31T12:00:00Z for a time, +N, -N, and =N for an offset"


@dataclass(frozen=True)
class Goal:
    """``time``: ``value`` is in ms since the epoch. ``shift``: by so many records. ``offset``:
    exactly there."""

    kind: Literal["earliest", "latest", "time", "shift", "offset"]
    value: int = 0

    @property
    def at(self) -> str:
        """What is to be asked of each partition's leader besides its bounds; empty for nothing."""
        return str(self.value) if self.kind == "time" else ""

    def in_words(self) -> str:
        match self.kind:
            case "time":
                moment = datetime.fromtimestamp(self.value / 1000, UTC).isoformat(timespec="milliseconds")
                return f"to the first record at or after {moment}"
            case "shift":
                return f"{abs(self.value):,} records {'on' if self.value >= 0 else 'back'}"
            case "offset":
                return f"to offset {self.value}"
        return f"to the {self.kind} offset"


class Bounds(NamedTuple):
    """``first`` and ``end`` of what can be read. ``found`` is where ``Goal.at`` is, if it was
    asked."""

    first: int
    end: int
    found: int | None = None


class Move(NamedTuple):
    """One partition's committed offset (None: nothing) before and after. ``note``: why it is not
    what was asked for."""

    topic: str
    partition: int
    before: int | None
    after: int
    note: str

    def row(self) -> dict[str, Any]:
        moved = None if self.before is None else self.after - self.before
        return {**self._asdict(), "moved": moved}


def parse_goal(text: str) -> Goal:
    """Raises CliError (usage)."""
    if text == "earliest":
        return Goal("earliest")
    if text == "latest":
        return Goal("latest")
    if text.startswith("@"):
        return Goal("time", _time_ms(text[1:]))
    number = _NUMBER.fullmatch(text)
    if number is not None and int(number[1]) <= OFFSET_MAX:
        return Goal("offset", int(number[1])) if text.startswith("=") else Goal("shift", int(text))
    if text.isascii() and text.isdecimal():
        raise CliError(
            f"--to {text!r}: write ={text} for that offset, or +{text} for so many records on", ExitCode.USAGE
        )
    raise CliError(f"--to {text!r}: {_ALLOWED}", ExitCode.USAGE)


def _time_ms(text: str) -> int:
    at_ms = time_ms(text)
    if at_ms is None:
        raise CliError(f"--to '@{text}' is no time; write {WAYS}", ExitCode.USAGE)
    return at_ms


def parse_partitions(texts: Sequence[str]) -> dict[str, set[int] | None]:
    """``orders`` is the whole topic (None), ``orders:0,3-5`` some of its partitions. Raises
    CliError (usage)."""
    wanted: dict[str, set[int] | None] = {}
    for text in texts:
        topic, colon, numbers = text.partition(":")
        parts = numbers.split(",")
        if not topic or (colon and not all(map(_PARTITIONS.fullmatch, parts))):
            raise CliError(f"--topic {text!r}: write orders, or orders:0,3-5 for some partitions", ExitCode.USAGE)
        chosen = {number for part in parts for number in _span(part)} if colon else None
        before = wanted.get(topic, set())
        wanted[topic] = None if chosen is None or before is None else before | chosen
    return wanted


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    if int(last or first) - int(first) > 100_000:
        raise CliError(f"--topic: {part} are more partitions than any topic has", ExitCode.USAGE)
    return range(int(first), int(last or first) + 1)


def move(goal: Goal, topic: str, partition: int, before: int | None, bounds: Bounds) -> Move:
    """Raises CliError: a shift needs a committed offset to start from."""
    match goal.kind:
        case "earliest":
            asked = bounds.first
        case "latest":
            asked = bounds.end
        case "time":
            assert bounds.found is not None, "a time is asked of the leader"
            asked = bounds.found
        case "offset":
            asked = goal.value
        case "shift":
            if before is None:
                raise CliError(
                    f"{topic}-{partition} has no committed offset to move from; say --to =N, earliest, latest or @time"
                )
            asked = before + goal.value
    if asked < bounds.first:
        return Move(topic, partition, before, bounds.first, f"{asked} is before the start of the log")
    if asked > bounds.end:
        return Move(topic, partition, before, bounds.end, f"{asked} is beyond the end of the log")
    return Move(topic, partition, before, asked, "")


def consequence(moves: Sequence[Move]) -> str:
    """What the group will notice, in words."""
    steps = [entry.after - entry.before for entry in moves if entry.before is not None]
    again, skipped = -sum(step for step in steps if step < 0), sum(step for step in steps if step > 0)
    said = [f"{again:,} records are read again"] if again else []
    said += [f"{skipped:,} records are skipped"] if skipped else []
    new = sum(entry.before is None for entry in moves)
    said += [f"{new} partition{'s' if new > 1 else ''} had nothing committed"] if new else []
    return ", ".join(said)
