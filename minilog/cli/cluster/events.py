"""``minilog cluster events``: what happened, from the oldest that is still kept to now."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows
from minilog.cli.times import WAYS, time_ms
from minilog.errors import MinilogError
from minilog.wire.journal.events import ERROR, INFO, LEVELS, WARNING
from minilog.wire.json.json_answers import EventList, NotedEvent

FOLLOW_S = 0.5
AT_ONCE = 1000
"""As many as brokers keep."""
COLUMNS = [
    Column("at", "AT (UTC)"),
    Column("level", "LEVEL"),
    Column("kind", "KIND", wide=True),
    Column("sentence", "WHAT"),
    Column("number", "NUMBER", wide=True, right=True),
]
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class EventLevel(StrEnum):
    info = INFO
    warning = WARNING
    error = ERROR


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen, until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", "-s", help="30s, 10m, 2h, 1d ago, or a time: 2026-01-31T12:00.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", help="The last so many, without --since.", min=1, max=AT_ONCE)
    ] = 100,
    level: Annotated[
        EventLevel, typer.Option("--level", "-l", help="This level and worse.", show_default=True)
    ] = EventLevel.info,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """What happened: brokers that came and went, leaders, in-sync replicas, records cut, disks,
    clocks.

    Any broker tells of it, also while the controller is away. With --follow JSON is one line an
    event."""
    api, since_ms = Api(url), 0 if since is None else _since_ms(since)
    found = api.get("events", EventList, {"limit": str(AT_ONCE), "since_ms": str(since_ms)})
    shown = _at_least(found.events, level)[-count if since is None else 0 :]
    if not follow:
        show_rows([_row(noted) for noted in shown], COLUMNS, output, empty=_nothing(level))
        return ExitCode.FINE
    for noted in shown:
        _print(noted, output)
    for noted in _follow(api, found.next):
        if _at_least([noted], level):
            _print(noted, output)
    return ExitCode.FINE


def _nothing(level: EventLevel) -> str:
    return "nothing happened" if level is EventLevel.info else f"nothing of level {level} or worse happened"


def _follow(api: Api, after: int) -> Iterator[NotedEvent]:
    """A broker that goes away is told of, and another one is asked, or the same again."""
    while True:
        try:
            found = api.get("events", EventList, {"after": str(after), "limit": str(AT_ONCE)})
        except MinilogError as error:
            note(error.detail)
            found = EventList([], after)
        after = found.next
        yield from found.events
        if not found.events:
            time.sleep(FOLLOW_S)


def _at_least(found: list[NotedEvent], level: EventLevel) -> list[NotedEvent]:
    least = LEVELS.index(level)
    return [noted for noted in found if noted.event.level not in LEVELS[:least]]


def _print(noted: NotedEvent, output: Format) -> None:
    if output in (Format.json, Format.yaml):
        print(json.dumps(msgspec.to_builtins(noted), ensure_ascii=False), flush=True)
    else:
        row = _row(noted)
        print(f"{row['at']}  {row['level']:7}  {row['sentence']}", flush=True)


def _row(noted: NotedEvent) -> dict[str, object]:
    at = datetime.fromtimestamp(noted.event.at_ms / 1000, UTC).replace(tzinfo=None)
    return {"number": noted.number, **msgspec.to_builtins(noted.event), "at": at.isoformat(timespec="milliseconds")}


def _since_ms(text: str) -> int:
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return max(0, int((time.time() - int(ago[1]) * UNITS_S[ago[2]]) * 1000))
    at_ms = time_ms(text)
    if at_ms is None:
        raise CliError(f"--since {text!r}: allowed are 30s, 10m, 2h, 1d, or a time: {WAYS}", ExitCode.USAGE)
    return at_ms
