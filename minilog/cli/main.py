"""The ``minilog`` command: noun, then verb. Exit codes: 0 fine, 1 refused, 2 wrong usage, 3 cannot
reach."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import Annotated

import typer

from minilog import __version__
from minilog.cli import access, serve
from minilog.cli.bench import bench
from minilog.cli.cluster import cluster, partition, receipt
from minilog.cli.cluster.loglevel import loglevel
from minilog.cli.demo import demo
from minilog.cli.dev import dev
from minilog.cli.files import log
from minilog.cli.group import group
from minilog.cli.lost import lost
from minilog.cli.moves import broker_moves
from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.settings import config
from minilog.cli.token import token
from minilog.cli.topic import topic
from minilog.errors import BrokerUnavailable, MinilogError, RefusesToStart, TimedOut
from minilog.settings import BadSettings

USAGE_ERROR = typer.BadParameter.__mro__[1]
"""UsageError; typer does not export it by name."""
INTERRUPTED = 128 + 2
"""Ctrl-C, as shells count it."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="minilog: a partitioned, replicated log broker that speaks HTTP.",
)
app.add_typer(dev.app, name="dev")
app.add_typer(topic.app, name="topic")
app.add_typer(partition.app, name="partition")
app.add_typer(group.app, name="group")
app.add_typer(cluster.app, name="cluster")
app.add_typer(lost.app, name="lost")
app.add_typer(receipt.app, name="receipt")
app.add_typer(log.app, name="log")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.add_typer(token.app, name="token")
app.add_typer(serve.broker_app, name="broker")
serve.broker_app.command("drain")(broker_moves.drain)
serve.broker_app.command("replace")(broker_moves.replace)
serve.broker_app.command("spread")(broker_moves.spread)
serve.broker_app.command("decommission")(broker_moves.decommission)
app.add_typer(serve.controller_app, name="controller")
app.command("loglevel")(loglevel)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"minilog {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    token_file: Annotated[
        str | None, typer.Option("--token-file", help="Holds your token, mode 0600; or MINILOG_TOKEN_FILE.")
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option("--ca-file", help="Who has signed the brokers' certificates; or MINILOG_CA_FILE.")
    ] = None,
) -> None:
    access.use(access.TOKEN_FILE, token_file)
    access.use(access.CA_FILE, ca_file)


@cache
def _command() -> Callable[..., object]:
    """All commands in the form that parses arguments: read from their signatures once, not for
    every run."""
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave the process with its exit code. Never shows a traceback."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code. Everything raised becomes one sentence on stderr."""
    _open_closed()
    try:
        outcome = _command()(arguments, prog_name="minilog", standalone_mode=False)
        sys.stdout.flush()
        if outcome == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return outcome if isinstance(outcome, int) else ExitCode.FINE
    except KeyboardInterrupt:
        note("minilog: interrupted")
        return INTERRUPTED
    except BaseException as error:
        if _is_broken_pipe(error):
            _write_no_more()
            return ExitCode.FINE
        if isinstance(error, OSError):
            _write_no_more()
        code, sentence = explain(error)
        if sentence:
            note(f"minilog: {sentence}")
        if os.environ.get("MINILOG_DEBUG"):
            traceback.print_exc()
        return code


def _open_closed() -> None:
    """A shell can close what every program has (``>&-``). What is opened next must not take its
    place, and what is written there must fail like any write that fails."""
    flags = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}  # reading 0 fails, writing 1 fails, 2 is for people
    for number, flag in flags.items():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flag)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def _is_broken_pipe(error: BaseException) -> bool:
    """The reader of our pipe has had enough: that is its right, and no fault of anybody. The
    command line's library makes an exit of some of these."""
    return isinstance(error, BrokenPipeError) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    )


def _write_no_more() -> None:
    """Else the interpreter tries once more when it ends, and complains."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, the sentence or nothing) for whatever ended a command."""
    match error:
        case CliError():
            return error.exit_code, error.sentence
        case SystemExit() | typer.Exit():
            code = error.code if isinstance(error, SystemExit) else error.exit_code
            return (code if isinstance(code, int) else ExitCode.FINE), ""
        case typer.Abort():
            return ExitCode.REFUSED, "given up"
        case BadSettings():
            return ExitCode.USAGE, str(error)
        case RefusesToStart():
            return ExitCode.REFUSED, str(error)
        case BrokerUnavailable() | TimedOut():
            return ExitCode.UNREACHABLE, error.detail
        case MinilogError():
            return ExitCode.REFUSED, error.detail
        case BaseExceptionGroup():
            return explain(error.exceptions[0])
        case OSError(errno=int(), strerror=str()):
            what = f"{error.filename} cannot be used" if error.filename else "writing to stdout or reading stdin failed"
            return ExitCode.REFUSED, f"{what}: {error.strerror}"
    if isinstance(error, USAGE_ERROR):
        return ExitCode.USAGE, _usage_sentence(error)
    return ExitCode.REFUSED, f"internal error: {type(error).__name__}: {error} (MINILOG_DEBUG=1 shows where)"


def _usage_sentence(error: BaseException) -> str:
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "minilog"
    return f"{message.rstrip('.')}; `{command} --help` shows what is allowed" if message else ""
