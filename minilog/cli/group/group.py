"""``minilog group``: who reads together, how far they are, and letting them go on elsewhere."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from minilog.cli.api import UrlOption
from minilog.cli.group.api import GroupApi, ask_each
from minilog.cli.group.seek import COLUMNS, Bounds, Goal, Move, consequence, move, parse_goal, parse_partitions
from minilog.cli.group.view import show_group, show_groups
from minilog.cli.output import CliError, ExitCode, Format, OutputOption, is_terminal, note, show_rows
from minilog.errors import BrokerUnavailable, GroupNotEmpty, TimedOut, UnknownGroup, UnknownTopic

if TYPE_CHECKING:
    from minilog_client.values import PartitionKey

app = typer.Typer(no_args_is_help=True, help="Consumer groups: who reads together, and how far they are.")

WATCH_S = 1.0
T = TypeVar("T")
CLEAR_SCREEN = "\x1b[H\x1b[2J"

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Group.")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_(watch: WatchOption = False, url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """All groups, with how far they are behind: in records, and by the age of the oldest one not
    committed.

    Where a part of the groups cannot be listed, the rest is. What is missing is said on stderr, and
    the exit code is 1."""
    api = GroupApi(url)
    if not _show(lambda: show_groups(api, output), watch, output):
        raise typer.Exit(ExitCode.REFUSED)


@app.command()
def describe(
    name: NameArgument, watch: WatchOption = False, url: UrlOption = None, output: OutputOption = Format.table
) -> None:
    """One group: its members with what they own, and its partitions with what is committed and the
    lag."""
    api = GroupApi(url)
    _show(lambda: show_group(api, name, output), watch, output)


@app.command()
def seek(
    name: NameArgument,
    to: Annotated[
        str, typer.Option("--to", help="earliest, latest, @MS or @DATE, +N, -N, =OFFSET.", show_default=False)
    ],
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="TOPIC or TOPIC:0,3-5. Default: all it has committed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")] = False,
    yes: YesOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> None:
    """Let a group without members go on elsewhere. What is beyond the log is moved to its start or
    end."""
    goal, wanted = parse_goal(to), parse_partitions(topic or [])
    if not (dry_run or yes or sys.stdin.isatty()):
        raise CliError(
            f"moving {name} makes it skip or repeat records; say --yes, or --dry-run to look", ExitCode.USAGE
        )
    api = GroupApi(url)
    epoch = _refuse_members(api, name, is_new_allowed=bool(wanted))
    moves = plan(api, name, goal, wanted)
    changed = [entry for entry in moves if entry.after != entry.before]
    columns = [column for column in COLUMNS if column.key != "note" or any(entry.note for entry in moves)]
    show_rows([entry.row() for entry in moves], columns, output)
    if not changed:
        note("nothing to change")
        return
    if dry_run:
        note(f"dry run, nothing is changed; without it, {consequence(changed)}")
        return
    if not yes:
        typer.confirm(f"Move group {name} {goal.in_words()}? {consequence(changed)}.", abort=True, err=True)
    api.commit(name, {(entry.topic, entry.partition): entry.after for entry in changed}, epoch)
    note(f"group {name} moved in {len(changed)} partition{'s' if len(changed) > 1 else ''}: {consequence(changed)}")


@app.command()
def delete(name: NameArgument, yes: YesOption = False, url: UrlOption = None) -> None:
    """Delete a group without members, and everything it has committed."""
    if not yes and not sys.stdin.isatty():
        raise CliError(f"deleting {name} forgets how far it has read; say --yes", ExitCode.USAGE)
    api = GroupApi(url)
    epoch = api.describe(name).group.group_epoch
    if not yes:
        typer.confirm(f"Delete group {name} and forget how far it has read?", abort=True, err=True)
    api.delete_group(name, epoch)
    note(f"group {name} deleted")


def plan(api: GroupApi, group: str, goal: Goal, wanted: Mapping[str, set[int] | None]) -> list[Move]:
    """The moves of all partitions meant, in order. Raises CliError, UnknownTopic."""
    committed = api.committed(group)
    keys = _partitions(api, wanted) if wanted else sorted(committed)
    if not keys:
        raise CliError(f"group {group} has committed nothing; name what it is to read with --topic")
    if goal.kind == "shift":  # refused before anybody is asked
        for key in keys:
            move(goal, *key, committed.get(key), Bounds(0, 0))
    bounds = ask_each(lambda key: _bounds(api, key, goal), keys)
    return [move(goal, *key, committed.get(key), bound) for key, bound in zip(keys, bounds, strict=True)]


def _bounds(api: GroupApi, key: PartitionKey, goal: Goal) -> Bounds:
    first, end = api.offset_at(key, "earliest"), api.offset_at(key, "latest")
    return Bounds(first, end, api.offset_at(key, goal.at) if goal.at else None)


def _partitions(api: GroupApi, wanted: Mapping[str, set[int] | None]) -> list[PartitionKey]:
    known = {info.topic: len(info.partitions) for info in api.metadata(sorted(wanted)).topics}
    keys: list[PartitionKey] = []
    for topic, chosen in sorted(wanted.items()):
        if topic not in known:
            raise UnknownTopic(f"there is no topic {topic!r}; `minilog topic list` shows all")
        beyond = sorted(number for number in chosen or () if number >= known[topic])
        if beyond:
            raise CliError(
                f"topic {topic} has no partition {beyond[0]}; it has 0 to {known[topic] - 1}", ExitCode.USAGE
            )
        keys += [(topic, number) for number in (range(known[topic]) if chosen is None else sorted(chosen))]
    return keys


def _refuse_members(api: GroupApi, group: str, is_new_allowed: bool) -> int:
    """The group's epoch, 0: there is none. Raises GroupNotEmpty; UnknownGroup unless the group may
    be made by this."""
    try:
        info = api.describe(group).group
    except UnknownGroup:
        if not is_new_allowed:
            raise
        note(f"there is no group {group!r} yet; this makes it")
        return 0
    members = info.members
    if members:
        who = "1 member; stop it" if members == 1 else f"{members} members; stop them"
        raise GroupNotEmpty(
            f"group {group} has {who} first, `minilog group describe {shlex.quote(group)}` shows who it is"
        )
    return info.group_epoch


def _show(show: Callable[[], T], watch: bool, output: Format) -> T:
    """Once, or again and again. While watching, a cluster that does not answer is waited for. What
    ``show`` said."""
    redraws = watch and is_terminal() and output in (Format.table, Format.wide)
    while True:
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text):
                shown = show()
            print(CLEAR_SCREEN * redraws + text.getvalue(), end="", flush=True)
        except (BrokerUnavailable, TimedOut) as error:
            if not watch:
                raise
            note(error.detail)
        if not watch:
            return shown
        time.sleep(WATCH_S)
