"""``minilog cluster``: the brokers, and whether everything is as it should be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.cluster.balance import balance_leaders
from minilog.cli.cluster.events import AT_ONCE, events
from minilog.cli.cluster.what_if import ok_to_stop, what_if
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.errors import MinilogError
from minilog.wire.journal.events import EventKind
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.json.json_answers import ClusterInfo, EventList, FailoverList, Finding, Health

app = typer.Typer(no_args_is_help=True, help="The brokers, and whether everything is as it should be.")

app.command("balance-leaders")(balance_leaders)
app.command("what-if")(what_if)
app.command("ok-to-stop")(ok_to_stop)

WATCH_S = 1.0
BROKER_COLUMNS = [
    Column("broker_id", "BROKER", right=True),
    Column("url", "URL"),
    Column("state", "STATE"),
    Column("leads", "LEADS", right=True),
    Column("replicas", "REPLICAS", right=True),
    Column("in_sync", "IN SYNC", right=True),
    Column("version", "VERSION"),
    Column("broker_epoch", "BROKER EPOCH", wide=True, right=True),
    Column("rack", "RACK", wide=True),
]
CONTROLLER_COLUMNS = [
    Column("url", "CONTROLLER"),
    Column("role", "ROLE"),
    Column("metadata_offset", "RECORD", right=True),
    Column("lag_records", "LAG", right=True),
    Column("heard_age_ms", "HEARD MS AGO", wide=True, right=True),
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
MOVE_COLUMNS = [
    Column("at", "AT (UTC)"),
    Column("url", "CONTROLLER"),
    Column("controller_epoch", "EPOCH", right=True),
    Column("from_url", "TOOK OVER FROM"),
    Column("absent_ms", "ABSENT (MS)", right=True),
    Column("why", "WHY"),
]
FAILOVER_COLUMNS = [
    Column("at", "AT (UTC)"),
    Column("broker_id", "BROKER", right=True),
    Column("kind", "KIND"),
    Column("partitions", "LED", right=True),
    Column("detected_after_ms", "DETECTED", right=True),
    Column("fenced_after_ms", "FENCED", wide=True, right=True),
    Column("elected_after_ms", "ELECTED", right=True),
    Column("served_after_ms", "SERVED", right=True),
    Column("first_write_after_ms", "WRITTEN", right=True),
    Column("published_after_ms", "PUBLISHED", wide=True, right=True),
    Column("restored_after_ms", "RESTORED", right=True),
    Column("cut", "CUT", right=True),
    Column("cut_by_acks", "CUT (ACKS 0 / 1 / MORE)", wide=True, right=True),
    Column("unwritten_ms", "UNWRITTEN AT MOST", wide=True),
    Column("broker_epoch", "BROKER EPOCH", wide=True, right=True),
]
PROBLEMS = ("offline", "under_min_isr", "under_replicated")
COUNTED = ("offline", "lost", "under_min_isr", "broker_not_running")
"""Findings that a summary counts instead of saying each."""


@app.command()
def status(url: UrlOption = None, output: OutputOption = Format.table) -> int:
    """Identity, brokers and how the partitions are spread over them.

    Exit code 1 when the controller does not answer: then all of it is as old as its last answer."""
    api = Api(url)
    metadata = api.metadata()
    seen = api.get("health", Health)
    findings = seen.findings
    active_offset = max((one.metadata_offset for one in seen.controllers), default=0)
    controllers = [
        {
            **msgspec.to_builtins(one),
            "heard_age_ms": one.heard_age_ms,
            "lag_records": active_offset - one.metadata_offset,
        }
        for one in seen.controllers
    ]
    unheard = [finding for finding in findings if finding.kind == "controller_unheard"]
    mixed = [finding for finding in findings if finding.kind == "mixed_versions"]
    parts = [part for topic in metadata.topics for part in topic.partitions]
    rows = [
        {
            "broker_id": broker.broker_id,
            "url": broker.url,
            "state": broker.state if not unheard else "unknown",
            "leads": sum(part.leader == broker.broker_id for part in parts),
            "replicas": sum(broker.broker_id in part.replicas for part in parts),
            "in_sync": sum(broker.broker_id in part.isr for part in parts),
            "broker_epoch": broker.broker_epoch,
            "rack": broker.rack,
            "version": broker.version,
        }
        for broker in sorted(metadata.brokers, key=lambda broker: broker.broker_id)
    ]
    about = {
        "cluster_id": metadata.cluster_id,
        "controller_epoch": metadata.controller_epoch,
        "metadata_offset": metadata.metadata_offset,
        "topics": len(metadata.topics),
        "partitions": len(parts),
        "controller_version": api.get("cluster", ClusterInfo).controller_version,
    }
    if output in (Format.json, Format.yaml):
        problems = [finding.sentence for finding in (*unheard, *mixed)]
        show_value({**about, "brokers": rows, "controllers": controllers, "problems": problems}, output)
        return ExitCode.REFUSED if unheard else ExitCode.FINE
    print("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.items()))
    print()
    show_rows(rows, BROKER_COLUMNS, output)
    if controllers:
        print()
        show_rows(controllers, CONTROLLER_COLUMNS, output)
    for finding in (*unheard, *mixed):
        note(f"{finding.sentence}; {finding.next_step}")
    return ExitCode.REFUSED if unheard else ExitCode.FINE


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
    """What is wrong, and what to do next. Exit code 0 when every partition has a leader and its min
    ISR and the controller answers, 1 when not, 3 when nobody answers."""
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
    """Losses of brokers as the controller saw them: ms from the last sign of life to each step.

    LED: so many partitions. SERVED: the new leaders could take writes. WRITTEN: one of them has
    acknowledged its first. RESTORED: the broker was in sync again everywhere. CUT: so
    many records were cut from its logs since; `minilog lost list` has them. "unknown": an earlier
    controller saw the beginning, and nobody the rest. Where there are several controllers, who took
    over from whom stands below."""
    found = Api(url).get("failovers", FailoverList)
    rows = [
        _failover(told, found.controller_epoch, for_people=output in (Format.table, Format.wide))
        for told in found.failovers
    ]
    show_rows(rows, FAILOVER_COLUMNS, output, empty="no broker was lost")
    if output in (Format.table, Format.wide):
        _show_moves(url)


def _show_moves(url: str | None) -> None:
    """Of the controller, where there are several. Others find them among the events."""
    found = Api(url).get("events", EventList, {"limit": str(AT_ONCE), "since_ms": "0"})
    moves = [noted.event for noted in found.events if noted.event.kind == EventKind.CONTROLLER_MOVED]
    if moves:
        print()
        show_rows([{**event.facts, "at": _time(event.at_ms)} for event in moves], MOVE_COLUMNS, Format.table)


def _failover(told: FailoverInfo, controller_epoch: int, *, for_people: bool) -> dict[str, object]:
    row: dict[str, object] = msgspec.to_builtins(told)
    row["at"] = _time(told.detected_ms)
    is_over = told.controller_epoch < controller_epoch
    for step in ("detected", "fenced", "elected", "served", "first_write", "published", "restored"):
        at_ms = getattr(told, f"{step}_ms")
        missing = None
        if for_people and at_ms is None:
            missing = "unknown" if is_over and step != "restored" else "not yet"
            missing = "-" if step == "first_write" and not told.partitions else missing
        row[f"{step}_after_ms"] = missing if at_ms is None else at_ms - told.last_heard_ms
        if for_people and at_ms is not None and not told.is_heard:
            row[f"{step}_after_ms"] = f">{at_ms - told.last_heard_ms}"
    unknown, acks_0, acks_1, many = told.records_cut
    row["cut"] = sum(told.records_cut)
    row["unwritten_ms"] = dict(told.first_writes) if told.is_heard else {}
    row["cut_by_acks"] = f"{acks_0 + unknown} / {acks_1} / {many}"
    return row


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


app.command()(events)


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
    others = [finding for finding in health.findings if finding.kind not in COUNTED]
    counts += [finding.sentence for finding in others if not finding.is_warning]
    if not counts:
        return "healthy"
    return ("healthy, but " if health.healthy else "unhealthy: ") + "; ".join(counts)


def _by_next_step(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """The first of those that want the same of the same broker, and how many more there are: a
    broker that is away is missed by a thousand partitions."""
    alike = Counter((finding.kind, finding.broker_id, finding.next_step) for finding in findings)
    firsts = {(finding.kind, finding.broker_id, finding.next_step): finding for finding in reversed(findings)}
    return [(firsts[key], count - 1) for key, count in alike.items()]


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
    for finding, more in _by_next_step(seen.findings):
        others = f" (and {more} more)" if more else ""
        print(f"* {finding.sentence}{others}\n  -> {finding.next_step}", flush=True)
    rows = [
        {"problem": problem.replace("_", "-"), **msgspec.to_builtins(row)}
        for problem in PROBLEMS
        for row in getattr(seen, problem)
    ]
    if rows:
        show_rows(rows, PROBLEM_COLUMNS, output)
