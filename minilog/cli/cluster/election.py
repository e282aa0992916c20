"""``minilog partition elect``: let a partition go on that has lost its last complete copy.

The candidates and the loss are shown first. Nothing is decided without ``--unclean``, and without a
yes.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.wire.json.json_answers import ElectionInfo
from minilog.wire.messages import Candidate

COLUMNS = [
    Column("broker_id", "BROKER", right=True),
    Column("end_offset", "END", right=True),
    Column("last_epoch", "LAST EPOCH", right=True),
    Column("lacks", "LACKS", right=True),
    Column("problem", "PROBLEM"),
]


def elect(
    topic: Annotated[str, typer.Argument(help="The topic.", show_default=False)],
    partition: Annotated[int, typer.Argument(help="The partition.", min=0, show_default=False)],
    unclean: Annotated[
        bool, typer.Option("--unclean", help="Elect a replica that is not known to hold all: what it lacks is lost.")
    ] = False,
    leader: Annotated[
        int | None, typer.Option("--leader", help="This broker, and not the longest log.", min=0, show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Who could lead a partition that has no leader, and what would be lost; with --unclean,
    decide.

    Exit code 0 when the partition has a leader, 1 when not.
    """
    if leader is not None and not unclean:
        raise CliError(
            "--leader chooses who leads with a loss: say --unclean as well, or leave both out", ExitCode.USAGE
        )
    api = Api(url)
    found = api.election(topic, partition)
    if not unclean or found.kind != "unclean":
        _show(found, output)
        if unclean and found.leader is None:
            note("nothing was decided: nothing need be lost here")
        return ExitCode.FINE if found.leader is not None else ExitCode.REFUSED
    chosen = _chosen(found, leader)
    if not yes:
        _ask(found, chosen)
    elected = api.elect_leader(topic, partition, leader, chosen.broker_id)
    _show(elected, output)
    return ExitCode.FINE


def _ask(found: ElectionInfo, chosen: Candidate) -> None:
    name = f"{found.topic}-{found.partition}"
    if not sys.stdin.isatty():
        _show(found, Format.table)
        raise CliError(f"an unclean election of {name} gives records up; say --yes", ExitCode.USAGE)
    _show(found, Format.table)
    typer.confirm(f"Let broker {chosen.broker_id} lead {name}? {_loss(found, chosen)}", abort=True, err=True)


def _chosen(found: ElectionInfo, leader: int | None) -> Candidate:
    """Whom the controller will take, by what was told a moment ago."""
    told = [candidate for candidate in found.candidates if candidate.end_offset is not None]
    if leader is not None:
        told = [candidate for candidate in told if candidate.broker_id == leader]
    if not told:
        who = "no replica" if leader is None else f"broker {leader}"
        _show(found, Format.table)
        raise CliError(f"{who} has told how far its log reaches, so nobody can be elected; start the broker first")
    return max(told, key=lambda candidate: (candidate.is_next, candidate.last_epoch, candidate.end_offset))


def _loss(found: ElectionInfo, chosen: Candidate) -> str:
    assert chosen.end_offset is not None
    lacks = _lacks(found, chosen, chosen.end_offset)
    parts = ["What was on the lost copies alone is lost for good"]
    if found.missing:
        parts[0] += f": {found.missing} committed records, or more"
    if lacks:
        parts.append(f"{lacks} records that another candidate holds go to its quarantine")
    return "; ".join(parts) + "."


def _longest(found: ElectionInfo) -> int:
    return max((c.end_offset for c in found.candidates if c.end_offset is not None), default=0)


def _show(found: ElectionInfo, output: Format) -> None:
    if output in (Format.json, Format.yaml):
        show_value(found, output)
        return
    print(sentence(found), flush=True)
    if found.leader is None or found.kind:
        rows = [_row(candidate, found) for candidate in found.candidates]
        show_rows(rows, COLUMNS, output)


def _lacks(found: ElectionInfo, candidate: Candidate, end_offset: int) -> int:
    """Of what another candidate holds. One that reaches as far may hold other records."""
    on_none = found.missing if found.leader is None else 0
    return max(_longest(found) - end_offset, candidate.missing - on_none)


def _row(candidate: Candidate, found: ElectionInfo) -> dict[str, object]:
    end_offset = candidate.end_offset
    return {
        "broker_id": candidate.broker_id,
        "end_offset": end_offset,
        "last_epoch": candidate.last_epoch,
        "lacks": None if end_offset is None else _lacks(found, candidate, end_offset),
        "problem": candidate.problem or ("complete" if candidate.is_complete else ""),
    }


def sentence(found: ElectionInfo) -> str:
    name = f"{found.topic}-{found.partition}"
    match found:
        case ElectionInfo(leader=int(), kind=""):
            return f"{name} is led by broker {found.leader} in epoch {found.leader_epoch}; there is nothing to decide"
        case ElectionInfo(leader=int()):
            return f"broker {found.leader} leads {name} in epoch {found.leader_epoch}, by an {found.kind} election"
        case ElectionInfo(kind="unclean"):
            loss = f"; at least {found.missing} committed records are on none of them" if found.missing else ""
            return (
                f"{name} has no leader, and nobody who is there is known to hold all of it{loss}. "
                "To go on with what there is: --unclean"
            )
        case _:
            return f"{name} has no leader yet; the one that is known to hold all of it will be elected ({found.kind})"
