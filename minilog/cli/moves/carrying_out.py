"""What all commands that move replicas do: show the plan, ask, begin it, and say how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from minilog.cli.api import Api
from minilog.cli.output import CliError, Column, ExitCode, Format, is_terminal, note, show_rows
from minilog.errors import MinilogError
from minilog.wire.admin_messages import MovedReplicas
from minilog.wire.json.lever_answers import Moving

POLL_S = 0.5
TELL_S = 5.0
NAMED_MAX = 20
"""Topics that a question names. Else it is about all that are no internal ones."""
PLAN = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("before", "REPLICAS"),
    Column("after", "AFTER"),
    Column("copies", "TO COPY TO"),
]
UNDER_WAY = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("before", "FROM"),
    Column("after", "TO"),
    Column("isr", "ISR"),
    Column("lacks", "RECORDS TO COPY", right=True),
    Column("state", "STATE"),
]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would move, and move nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Begin, and do not wait for the end.")]


def move_by_plan(
    api: Api, moves: Sequence[MovedReplicas], output: Format, *, dry_run: bool, yes: bool, no_wait: bool
) -> int:
    """All of what was planned. A partition that has changed since then ends it before anything was
    begun."""
    show_rows([_planned(move) for move in moves], PLAN, output, empty="nothing has to move")
    if dry_run:
        note("nothing was moved: this is what would be (--dry-run)")
    if dry_run or not moves:
        return ExitCode.FINE
    if not yes:
        _ask(moves)
    api.move_replicas(
        [
            {
                "topic": move.topic,
                "topic_id": move.topic_id,
                "partition": move.partition,
                "replicas": move.replicas,
                "partition_epoch": move.partition_epoch,
            }
            for move in moves
        ],
        dry_run=False,
    )
    return begun(api, {(move.topic, move.partition): move.replicas for move in moves}, no_wait=no_wait)


def begun(api: Api, wanted: dict[tuple[str, int], list[int]], *, no_wait: bool) -> int:
    """Wait for the end of these moves, unless nobody wants that. ``wanted``: where they lead."""
    if no_wait:
        note("begun; see `minilog partition moves`")
        return ExitCode.FINE
    try:
        _watch(api, set(wanted))
    except KeyboardInterrupt:
        note("the moves go on; see `minilog partition moves`, and take them back with `--cancel TOPIC PARTITION`")
        return ExitCode.REFUSED
    elsewhere = _elsewhere(api, wanted)
    for name in elsewhere:
        note(f"{name} is not where it was to be: somebody has taken its move back, or has moved it since")
    if not elsewhere:
        note("all is where it was to be")
    return ExitCode.REFUSED if elsewhere else ExitCode.FINE


def _elsewhere(api: Api, wanted: dict[tuple[str, int], list[int]]) -> list[str]:
    """Partitions that are there, with other replicas."""
    topics: list[str] | None = sorted({topic for topic, _ in wanted})
    if topics is not None and len(topics) > NAMED_MAX:
        topics = None
    found = {
        (topic.topic, part.partition): part.replicas
        for topic in api.metadata(topics).topics
        for part in topic.partitions
    }
    return [f"{name[0]}-{name[1]}" for name, replicas in wanted.items() if found.get(name, replicas) != replicas]


def _ask(moves: Sequence[MovedReplicas]) -> None:
    copies = sum(len(move.adding) for move in moves)
    if not is_terminal():
        raise CliError("nothing was moved; say --yes, or --dry-run to look", ExitCode.USAGE)
    typer.confirm(f"Move {len(moves)} partitions, with {copies} copies to make?", abort=True, err=True)


def _planned(move: MovedReplicas) -> dict[str, Any]:
    return {
        "topic": move.topic,
        "partition": move.partition,
        "before": move.before,
        "after": move.replicas,
        "copies": move.adding,
    }


def _watch(api: Api, names: set[tuple[str, int]]) -> None:
    """A broker that does not answer for a moment ends nothing: the moves are not its business."""
    pace, told_s = Pace(), time.monotonic()
    while True:
        left = None
        try:
            left = [move for move in api.list_moves().moves if (move.topic, move.partition) in names]
        except MinilogError as error:
            if time.monotonic() - told_s >= TELL_S:
                told_s = time.monotonic()
                note(f"how far the moves are is not known: {error.detail}")
        if left is not None:
            if not left:
                return
            pace.see(left, time.monotonic())
            if time.monotonic() - told_s >= TELL_S:
                told_s = time.monotonic()
                note(f"{len(left)} of {len(names)} partitions on the move{pace.in_words()}")
        time.sleep(POLL_S)


class Pace:
    """How fast what has to be copied becomes less, over the last looks."""

    LOOKS = 40

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def see(self, moves: Sequence[Moving], at_s: float) -> None:
        self._seen = [*self._seen[1 - self.LOOKS :], (at_s, to_copy(moves))]

    def left_s(self) -> float | None:
        """None while nothing can be said."""
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        copied = first - last
        return last * (last_s - first_s) / copied if copied > 0 else None

    def in_words(self) -> str:
        left = self._seen[-1][1] if self._seen else 0
        if not left:
            return ""
        seconds = self.left_s()
        when = "" if seconds is None else f", about {round(seconds)} s at the pace of now"
        return f", {left:,} records to copy{when}"


def to_copy(moves: Sequence[Moving]) -> int:
    return sum(replica.records or 0 for move in moves for replica in move.adding)


def row_of(move: Moving) -> dict[str, Any]:
    unknown = any(replica.records is None for replica in move.adding)
    waits = [replica.broker_id for replica in move.adding if not replica.in_sync]
    state = "goes back" if move.cancelled else f"broker {', '.join(map(str, waits))} catches up" if waits else "parts"
    return {
        "topic": move.topic,
        "partition": move.partition,
        "before": move.before,
        "after": move.replicas,
        "isr": move.isr,
        "lacks": None if unknown else to_copy([move]),
        "state": state,
    }
