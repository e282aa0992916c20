"""``minilog cluster balance-leaders``: the first replica of each partition leads it again."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import Column, ExitCode, Format, OutputOption, note, show_rows
from minilog.wire.admin_messages import LeaderMove

WAIT_S = 10.0
POLL_S = 0.1
COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("leader", "LEADER", right=True),
    Column("to", "TO", right=True),
    Column("state", "STATE"),
]


def balance_leaders(
    topic: Annotated[list[str] | None, typer.Argument(help="Only these topics.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would move, and move nothing.")] = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Let the first replica of each partition lead it again, where it is in sync. Nothing is lost:
    a leader hands over when the others hold all that it has.

    Exit code 0 when all lead that should, 1 when some partition stays with another leader.
    """
    api = Api(url)
    moves = api.balance_leaders(topic or [], dry_run=dry_run).moves
    waiting = [move for move in moves if not move.problem]
    if not dry_run:
        waiting = _until_moved(api, waiting)
    states = {(move.topic, move.partition): "would move" if dry_run else "still with its leader" for move in waiting}
    rows = [_row(move, states.get((move.topic, move.partition), "moved")) for move in moves]
    show_rows(rows, COLUMNS, output, empty="every partition is led by its first replica")
    if dry_run:
        note("nothing was moved: this is what would be (--dry-run)")
        return ExitCode.FINE
    return ExitCode.REFUSED if waiting or any(move.problem for move in moves) else ExitCode.FINE


def _row(move: LeaderMove, state: str) -> dict[str, Any]:
    return {
        "topic": move.topic,
        "partition": move.partition,
        "leader": None if move.leader < 0 else move.leader,
        "to": move.to,
        "state": move.problem or state,
    }


def _until_moved(api: Api, moves: list[LeaderMove]) -> list[LeaderMove]:
    """What is led by another one still when the time is up."""
    deadline_s = time.monotonic() + WAIT_S
    while moves:
        topics = sorted({move.topic for move in moves})
        leaders = {
            (topic.topic, part.partition): part.leader
            for topic in api.metadata(topics if len(topics) == 1 else None).topics
            for part in topic.partitions
        }
        moves = [move for move in moves if leaders.get((move.topic, move.partition), move.to) != move.to]
        if time.monotonic() >= deadline_s:
            break
        time.sleep(POLL_S if moves else 0)
    return moves
