"""``minilog partition move`` and ``partition moves``: other replicas for one partition, and what is
under way."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.moves.carrying_out import (
    UNDER_WAY,
    DryRunOption,
    NoWaitOption,
    YesOption,
    begun,
    move_by_plan,
    row_of,
)
from minilog.cli.output import CliError, ExitCode, Format, OutputOption, note, show_rows


def move(
    topic: Annotated[str, typer.Argument(help="Topic.")],
    partition: Annotated[int, typer.Argument(help="Partition.")],
    to: Annotated[str, typer.Option("--to", help="The brokers, as 1,2,3: who is preferred to lead first.")],
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Let a partition have its replicas on these brokers. No complete copy goes before another one
    has taken its place."""
    api = Api(url)
    asked = {"topic": topic, "partition": partition, "replicas": brokers_of(to)}
    planned = api.move_replicas([asked], dry_run=True).moves
    moves = [one for one in planned if one.before != one.replicas]
    return move_by_plan(api, moves, output, dry_run=dry_run, yes=yes, no_wait=no_wait)


def moves(
    cancel: Annotated[
        tuple[str, int] | None,
        typer.Option("--cancel", metavar="TOPIC PARTITION", help="Let this one go back to where it was."),
    ] = None,
    cancel_all: Annotated[bool, typer.Option("--cancel-all", help="Let all of them go back.")] = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """What is on the move, and how far it is. With --cancel or --cancel-all it goes back, and
    nothing is lost."""
    api = Api(url)
    under_way = api.list_moves().moves
    if cancel is None and not cancel_all:
        show_rows([row_of(one) for one in under_way], UNDER_WAY, output, empty="nothing is on the move")
        return ExitCode.FINE
    former = {(one.topic, one.partition): one.before for one in under_way}
    if cancel is not None:
        former = {name: replicas for name, replicas in former.items() if name == tuple(cancel)}
    if not former:
        note("nothing is on the move" if cancel is None else f"{cancel[0]}-{cancel[1]} is not on the move")
        return ExitCode.FINE
    api.move_replicas([_back(name) for name in former], dry_run=False)
    return begun(api, former, no_wait=no_wait)


def _back(name: tuple[str, int]) -> dict[str, Any]:
    return {"topic": name[0], "partition": name[1], "replicas": None}


def brokers_of(text: str) -> list[int]:
    """``1,2,3`` as broker ids. Raises CliError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise CliError(f"{text!r} does not name brokers; write their ids as 1,2,3", ExitCode.USAGE) from None
