"""``minilog loglevel``: what processes write to their logs, shown and set while they run."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec
import typer

from minilog.cli.api import SHORT_TIMEOUT_S, Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, show_rows
from minilog.cli.request import Unanswered, send
from minilog.errors import MinilogError
from minilog.wire.http import JSON
from minilog.wire.json.json_answers import ClusterInfo, LogLevelNow
from minilog.wire.routes import path_of

COLUMNS = [
    Column("process", "PROCESS"),
    Column("url", "URL"),
    Column("level", "LEVEL"),
    Column("configured", "AT ITS START"),
]


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Process(NamedTuple):
    name: str
    url: str


def loglevel(
    level: Annotated[Level | None, typer.Argument(help="The new level; without it the levels are shown.")] = None,
    broker: Annotated[
        list[int] | None, typer.Option("--broker", "-b", help="Of this broker. Repeatable.", min=0)
    ] = None,
    controller: Annotated[bool, typer.Option("--controller", help="Of the controller.")] = False,
    everybody: Annotated[bool, typer.Option("--all", help="Of every broker and the controller.")] = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """What processes write to their logs, shown or set while they run.

    A level that is set so is written to no file: at its next start a process begins with the
    log_level of its settings. Exit code 3 when a process does not answer."""
    if level is not None and not (broker or controller or everybody):
        raise CliError("say whose level: --broker N, --controller or --all", ExitCode.USAGE)
    known = list(_processes(Api(url).get("cluster", ClusterInfo)))
    chosen = [process for process in known if _is_meant(process, broker or [], controller=controller)]
    unknown = {f"broker {broker_id}" for broker_id in broker or []} - {process.name for process in known}
    if unknown:
        raise CliError(f"there is no {', '.join(sorted(unknown))} in this cluster; `minilog cluster status` lists them")
    rows = [_row(process, level) for process in (known if everybody or not (broker or controller) else chosen)]
    show_rows(rows, COLUMNS, output)
    return ExitCode.FINE if all(row["configured"] for row in rows) else ExitCode.UNREACHABLE


def _processes(about: ClusterInfo) -> Iterator[Process]:
    for broker in sorted(about.brokers, key=lambda broker: broker.broker_id):
        yield Process(f"broker {broker.broker_id}", broker.url)
    yield Process("controller", about.controller_url)


def _is_meant(process: Process, brokers: list[int], *, controller: bool) -> bool:
    return process.name in {f"broker {broker_id}" for broker_id in brokers} or (
        controller and process.name == "controller"
    )


def _row(process: Process, level: Level | None) -> dict[str, str]:
    """One that does not answer has a row that says why."""
    body = None if level is None else msgspec.json.encode({"level": level.value})
    headers = {"Accept": JSON} if body is None else {"Accept": JSON, "Content-Type": JSON}
    target = process.url.rstrip("/") + path_of("log_level")
    try:
        answer = send(target, "GET" if body is None else "PUT", SHORT_TIMEOUT_S, body, headers, JSON)
        now = msgspec.json.decode(answer, type=LogLevelNow)
    except Unanswered as failure:
        return {"level": f"no answer: {failure.reason}", "configured": ""} | _named(process)
    except MinilogError as error:
        return {"level": error.detail, "configured": ""} | _named(process)
    except msgspec.MsgspecError:
        return {"level": "an answer that is not understood", "configured": ""} | _named(process)
    return {"level": now.level, "configured": now.configured} | _named(process)


def _named(process: Process) -> dict[str, str]:
    return {"process": process.name, "url": process.url}
