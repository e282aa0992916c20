"""``minilog cluster``: the brokers, and whether everything is as it should be."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.errors import MinilogError
from minilog.wire.json_answers import Health

app = typer.Typer(no_args_is_help=True, help="The brokers, and whether everything is as it should be.")

WATCH_S = 1.0
BROKER_COLUMNS = [
    Column("broker_id", "BROKER", right=True),
    Column("url", "URL"),
    Column("state", "STATE"),
    Column("leads", "LEADS", right=True),
    Column("replicas", "REPLICAS", right=True),
    Column("in_sync", "IN SYNC", right=True),
    Column("broker_epoch", "BROKER EPOCH", wide=True, right=True),
    Column("rack", "RACK", wide=True),
]
PROBLEM_COLUMNS = [
    Column("problem", "PROBLEM"),
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("leader", "LEADER", right=True),
    Column("replicas", "REPLICAS"),
    Column("isr", "ISR"),
    Column("min_isr", "MIN ISR", right=True),
]
FAILOVER_COLUMNS = [
    Column("at", "AT (UTC)"),
    Column("broker_id", "BROKER", right=True),
    Column("kind", "KIND"),
    Column("partitions", "PARTITIONS", right=True),
    Column("detected_after_ms", "DETECTED", right=True),
    Column("fenced_after_ms", "FENCED", right=True),
    Column("elected_after_ms", "ELECTED", right=True),
    Column("published_after_ms", "PUBLISHED", right=True),
    Column("broker_epoch", "BROKER EPOCH", wide=True, right=True),
]
PROBLEMS = ("offline", "under_min_isr", "under_replicated")


@app.command()
def status(url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """Identity, brokers and how the partitions are spread over them."""
    metadata = Api(url).metadata()
    parts = [part for topic in metadata.topics for part in topic.partitions]
    rows = [
        {
            "broker_id": broker.broker_id,
            "url": broker.url,
            "state": broker.state,
            "leads": sum(part.leader == broker.broker_id for part in parts),
            "replicas": sum(broker.broker_id in part.replicas for part in parts),
            "in_sync": sum(broker.broker_id in part.isr for part in parts),
            "broker_epoch": broker.broker_epoch,
            "rack": broker.rack,
        }
        for broker in sorted(metadata.brokers, key=lambda broker: broker.broker_id)
    ]
    about = {
        "cluster_id": metadata.cluster_id,
        "controller_epoch": metadata.controller_epoch,
        "metadata_offset": metadata.metadata_offset,
        "topics": len(metadata.topics),
        "partitions": len(parts),
    }
    if output in (Format.json, Format.yaml):
        show_value({**about, "brokers": rows}, output)
        return
    print("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.items()))
    print()
    show_rows(rows, BROKER_COLUMNS, output)


@app.command()
def health(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    exit_when_healthy: Annotated[
        bool, typer.Option("--exit-when-healthy", help="Wait until all is well: nothing offline, all in sync.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds --exit-when-healthy waits.", min=0)] = 60.0,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Exit code 0 when every partition has a leader and its min ISR, 1 when not, 3 when nobody
    answers."""
    api = Api(url)
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = _ask(api, patient=watch or exit_when_healthy)
        if exit_when_healthy:
            if seen is not None and sound(seen):
                _show(seen, output)
                return ExitCode.FINE
            if time.monotonic() >= deadline_s:
                raise CliError(f"not healthy after {timeout_s:.0f} s: {sentence(seen)}")
            time.sleep(0.1)
            continue
        if seen is not None:
            _show(seen, output)
        if not watch:
            return ExitCode.FINE if seen is not None and seen.healthy else ExitCode.REFUSED
        time.sleep(WATCH_S)


@app.command()
def failovers(url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """Losses of brokers as the controller saw them: ms from the last sign of life to each step."""
    rows = []
    for told in Api(url).failovers():
        row = msgspec.to_builtins(told)
        row["at"] = datetime.fromtimestamp(told.detected_ms / 1000, UTC).isoformat(timespec="milliseconds")
        for step in ("detected", "fenced", "elected", "published"):
            at_ms = getattr(told, f"{step}_ms")
            row[f"{step}_after_ms"] = None if at_ms is None else at_ms - told.last_heard_ms
        rows.append(row)
    show_rows(rows, FAILOVER_COLUMNS, output, empty="no broker was lost since the controller started")


def sound(health: Health) -> bool:
    """Healthy, and with nothing left to repair."""
    return health.healthy and not health.under_replicated and not health.brokers_not_running


def sentence(health: Health | None) -> str:
    if health is None:
        return "no broker answers"
    counts = []
    for problem in PROBLEMS:
        count = len(getattr(health, problem))
        if count:
            counts.append(f"{count} partition{'s' if count > 1 else ''} {problem.replace('_', '-')}")
    if health.brokers_not_running:
        counts.append("not running: broker " + ", ".join(map(str, health.brokers_not_running)))
    if not counts:
        return "healthy"
    return ("healthy, but " if health.healthy else "unhealthy: ") + "; ".join(counts)


def _ask(api: Api, patient: bool) -> Health | None:
    """None when nobody answers and the caller goes on asking."""
    try:
        return api.get("health", Health)
    except MinilogError as error:
        if not patient:
            raise
        note(error.detail)
        return None


def _show(seen: Health, output: Format) -> None:
    if output in (Format.json, Format.yaml):
        show_value(msgspec.to_builtins(seen), output)
        return
    print(sentence(seen), flush=True)
    rows = [
        {"problem": problem.replace("_", "-"), **msgspec.to_builtins(row)}
        for problem in PROBLEMS
        for row in getattr(seen, problem)
    ]
    if rows:
        show_rows(rows, PROBLEM_COLUMNS, output)
