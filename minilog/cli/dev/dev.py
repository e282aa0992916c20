"""``minilog dev``: a cluster of real processes on this machine, to develop against and to break on
purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from minilog.cli.dev.supervise import supervise
from minilog.cli.local import process
from minilog.cli.local.cluster import READY_TIMEOUT_S, DevCluster, Member, default_folder
from minilog.cli.local.keyring import export_line
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows

app = typer.Typer(
    no_args_is_help=True,
    help="A cluster of real processes on this machine, to develop against and to break on purpose.",
)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="The cluster's folder; default: one in your state directory.")
]
NamesArgument = Annotated[
    list[str], typer.Argument(help="Broker ids, controller (controller-2, ...), or all.", metavar="N...")
]

COLUMNS = [
    Column("role", "ROLE"),
    Column("id", "ID", right=True),
    Column("url", "URL"),
    Column("pid", "PID", right=True),
    Column("state", "STATE"),
    Column("data_dir", "DATA", wide=True),
    Column("log", "LOG", wide=True),
]


@app.command()
def up(
    brokers: Annotated[int | None, typer.Option("-n", "--brokers", min=1, max=32, help="How many; default 3.")] = None,
    data: DataOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="First broker's port, default 8082; 0: free ones.")
    ] = None,
    controller_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default 9093; 0: a free one.")] = None,
    controllers: Annotated[
        int | None, typer.Option(min=1, max=9, help="How many; default 1. More than one share a journal in etcd.")
    ] = None,
    secure: Annotated[
        bool | None,
        typer.Option("--secure/--no-secure", help="With TLS, tokens and a security file, made in DATA/keys."),
    ] = None,
    topics: Annotated[str, typer.Option(help="Topics to create: orders:6,clicks (name:partitions:replicas).")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value for any setting.")] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1.0, help="Seconds for every process to be ready.")
    ] = READY_TIMEOUT_S,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running in the background.")] = False,
) -> None:
    """Start a controller and brokers. In the foreground until Ctrl-C, or in the background with
    --detach."""
    folder = data or default_folder()
    wanted = topic_specs(topics)
    if brokers is None:
        known = (folder / "dev.json").exists()
        brokers = len(DevCluster.open(folder).spec.ports) if known else 3
    cluster = _prepare(folder, brokers, port, controller_port, set_ or [], controllers, secure)
    with cluster.locked():
        _refuse_running(cluster)
        process.write_pid_file(cluster.supervisor_file, os.getpid())
        try:
            cluster.start_all(exit_with_parent=not detach, timeout_s=timeout_s)
            _create_topics(cluster, wanted)
            show_rows(status_rows(cluster), COLUMNS, Format.table)
            if cluster.keyring is not None:
                note(f"every command is the administrator's with: {export_line(cluster.environment)}")
        except BaseException:
            cluster.stop_all()
            cluster.supervisor_file.unlink(missing_ok=True)
            raise
    if detach:
        cluster.supervisor_file.unlink(missing_ok=True)
        note(f"logs in {cluster.folder / 'logs'}; {cluster.command('down')} stops it")
        return
    note(f"logs in {cluster.folder / 'logs'}; Ctrl-C stops it")
    try:
        supervise(cluster)
    finally:
        _report_stop(cluster, cluster.members)
        cluster.supervisor_file.unlink(missing_ok=True)


@app.command()
def down(data: DataOption = None) -> None:
    """Stop every process cleanly (SIGTERM), and `dev up` itself, wait, and say how each ended."""
    _stop_everything(DevCluster.open(data or default_folder()))


@app.command()
def stop(
    names: Annotated[
        list[str] | None, typer.Argument(help="Broker ids or controller; default: all, as down.", metavar="[N...]")
    ] = None,
    data: DataOption = None,
) -> None:
    """Stop processes cleanly (SIGTERM), wait, and say how each ended.

    Any terminal will do: what `dev up` started is found by its pid and its start time."""
    cluster = DevCluster.open(data or default_folder())
    if not names or names == ["all"]:
        _stop_everything(cluster)
        return
    with cluster.locked():
        members = _members(cluster, names)
        for member in members:
            if member.state() == "dead":
                raise _not_running(cluster, member)
        _report_stop(cluster, members)


@app.command()
def status(data: DataOption = None, output: OutputOption = Format.table) -> None:
    """Every process: role, id, url, pid, state (running, paused, dead) and data folder."""
    cluster = DevCluster.open(data or default_folder())
    show_rows(status_rows(cluster), COLUMNS, output)


@app.command()
def env(data: DataOption = None) -> None:
    """The line that makes every command one about this cluster: eval "$(minilog dev env)"."""
    print(export_line(DevCluster.open(data or default_folder()).environment))


@app.command()
def kill(names: NamesArgument, data: DataOption = None) -> None:
    """SIGKILL: the process is gone at once, as in a crash."""
    _signal(names, data, signal.SIGKILL, "killed")


@app.command()
def pause(names: NamesArgument, data: DataOption = None) -> None:
    """SIGSTOP: the process stands still and answers nobody."""
    _signal(names, data, signal.SIGSTOP, "paused")


@app.command()
def resume(names: NamesArgument, data: DataOption = None) -> None:
    """SIGCONT: a paused process goes on."""
    _signal(names, data, signal.SIGCONT, "resumed")


@app.command()
def start(
    names: NamesArgument,
    data: DataOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves.")] = True,
) -> None:
    """Start a dead process again on its old data."""
    cluster = DevCluster.open(data or default_folder())
    with cluster.locked():
        started = []
        for member in _members(cluster, names):
            state = member.state()
            if names == ["all"] and state != "dead":
                continue
            if state != "dead":
                raise CliError(f"{member.name} is {state} (pid {member.pid()}); {cluster.command('status')} shows all")
            note(f"{member.name} started, pid {cluster.start(member)}")
            started.append(member)
    if wait and cluster.controller.state() == "running":
        cluster.wait_ready(started)


def status_rows(cluster: DevCluster) -> list[dict[str, Any]]:
    return [
        {
            "role": member.role,
            "id": member.id,
            "url": member.url,
            "pid": member.pid(),
            "state": member.state(),
            "data_dir": str(member.data_dir),
            "log": str(member.log_file),
        }
        for member in cluster.members
    ] + [
        {
            "role": "etcd",
            "id": None,
            "url": etcd.url,
            "pid": known.pid if (known := etcd.known()) is not None and etcd.state() != "dead" else None,
            "state": etcd.state(),
            "data_dir": str(etcd.data_dir),
            "log": str(etcd.log_file),
        }
        for etcd in cluster.etcd
    ]


def topic_specs(text: str) -> list[tuple[str, int, int | None]]:
    """``orders:6,clicks:3:1`` as (name, partitions, replication factor or None). Raises
    CliError."""
    specs: list[tuple[str, int, int | None]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, *numbers = part.split(":")
        if not name or len(numbers) > 2 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise CliError(
                f"--topics {part!r}: write name, name:partitions or name:partitions:replicas", ExitCode.USAGE
            )
        specs.append((name, int(numbers[0]) if numbers else 1, int(numbers[1]) if len(numbers) == 2 else None))
    return specs


def _prepare(
    folder: Path,
    brokers: int,
    port: int | None,
    controller_port: int | None,
    set_: list[str],
    controllers: int | None,
    secure: bool | None,
) -> DevCluster:
    if (folder / "dev.json").exists():
        _refuse_running(DevCluster.open(folder))
    return DevCluster.create(folder, brokers, port, controller_port, set_, controllers, secure=secure)


def _refuse_running(cluster: DevCluster) -> None:
    alive = cluster.alive()
    supervisor = process.read_pid_file(cluster.supervisor_file)
    if supervisor is not None and supervisor.pid != os.getpid() and process.state(supervisor) != "dead":
        alive = alive or cluster.members
    if alive:
        raise CliError(
            f"a dev cluster is already running in {cluster.folder} ({alive[0].name}, pid {alive[0].pid() or '-'}): "
            f"{cluster.command('status')} shows it, {cluster.command('down')} stops it, --data DIR starts another beside it"
        )


def _create_topics(cluster: DevCluster, wanted: list[tuple[str, int, int | None]]) -> None:
    from minilog.cli.api import Api
    from minilog.errors import TopicExists

    api = Api(cluster.url, credential=cluster.credential)
    for name, partitions, replicas in wanted:
        factor = replicas or min(3, len(cluster.spec.ports))
        try:
            api.create_topic(name, partitions, factor, {})
            note(f"topic {name}: {partitions} partitions, replication factor {factor}")
        except TopicExists:
            note(f"topic {name} is there already")


def _stop_everything(cluster: DevCluster) -> None:
    with cluster.locked():
        stopped = _report_stop(cluster, cluster.members)
        supervisor = process.read_pid_file(cluster.supervisor_file)
        if supervisor is not None and process.signal_to(supervisor, signal.SIGTERM):
            process.wait_dead(supervisor, 5.0)
    if not stopped:
        note(f"nothing was running in {cluster.folder}")


def _report_stop(cluster: DevCluster, members: list[Member]) -> bool:
    """True when anything had to be stopped."""
    report = cluster.stop(members)
    for member, outcome, seconds in report:
        note(f"{member.name} {outcome} after {seconds:.1f} s")
    return bool(report)


def _signal(names: list[str], data: Path | None, signal_number: signal.Signals, done: str) -> None:
    cluster = DevCluster.open(data or default_folder())
    members = _members(cluster, names)
    if names == ["all"]:
        members = [member for member in members if member.state() != "dead"]
    for member in members:
        known = member.known()
        if known is None or not process.signal_to(known, signal_number):
            raise _not_running(cluster, member)
        note(f"{member.name} {done} (pid {known.pid})")
    for known in _settling(members):
        _wait_for_signal(known, signal_number)


def _not_running(cluster: DevCluster, member: Member) -> CliError:
    again = cluster.command(f"start {member.id if member.role == 'broker' else member.name}")
    return CliError(f"{member.name} is not running; {again} starts it")


def _settling(members: list[Member]) -> Iterator[process.PidFile]:
    for member in members:
        known = member.known()
        if known is not None:
            yield known


def _wait_for_signal(known: process.PidFile, signal_number: signal.Signals) -> None:
    """Signals work in their own time; come back when the state can be seen."""
    wanted = {signal.SIGKILL: "dead", signal.SIGSTOP: "paused", signal.SIGCONT: "running"}[signal_number]
    deadline = time.monotonic() + 2.0
    while process.state(known) not in (wanted, "dead") and time.monotonic() < deadline:
        time.sleep(0.005)


def _members(cluster: DevCluster, names: list[str]) -> list[Member]:
    return cluster.members if names == ["all"] else [cluster.member(name) for name in names]
