"""``broker run``, ``controller run``, ``serve``: the processes themselves, in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from minilog.cli.output import CliError, note
from minilog.settings import assign, load_broker, load_controller

broker_app = typer.Typer(no_args_is_help=True, help="Run one broker process.")
controller_app = typer.Typer(no_args_is_help=True, help="Run one controller process.")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file; config/ holds examples.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value; wins over file and environment.")]
ParentOption = Annotated[bool, typer.Option("--exit-with-parent", hidden=True)]


@broker_app.command("run")
def broker_run(config: ConfigOption = None, set_: SetOption = None, exit_with_parent: ParentOption = False) -> int:
    """Run a broker until SIGTERM."""
    settings = load_broker(config, os.environ, set_ or ()).settings
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=0, timeout_s=settings.shutdown_timeout_ms / 1000 + 5)
    from minilog.broker.main import run_broker

    return run_broker(settings)


@controller_app.command("run")
def controller_run(config: ConfigOption = None, set_: SetOption = None, exit_with_parent: ParentOption = False) -> int:
    """Run a controller until SIGTERM."""
    settings = load_controller(config, os.environ, set_ or ()).settings
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=1.5, timeout_s=5)
    from minilog.controller.main import run_controller

    return run_controller(settings)


def serve(
    data: Annotated[Path, typer.Option("--data", help="Folder for everything this process keeps.")] = Path(
        "minilog-data"
    ),
    port: Annotated[
        int | None, typer.Option("--port", help="The broker's port, default 8082; 0: a free one.", min=0, max=65535)
    ] = None,
    controller_port: Annotated[
        int | None, typer.Option("--controller-port", help="Default 9093; 0: a free one.", min=0, max=65535)
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    exit_with_parent: ParentOption = False,
) -> int:
    """Run a controller and one broker in a single process (replication factor 1): for embedding, tests, small uses."""
    from minilog.cli.devcluster import free_ports

    dealt = assign(set_ or ())
    free = free_ports(2)
    own = {"data_dir": str(data / "controller"), "port": "9093", "default_replication_factor": "1"}
    flags = _port_flag(controller_port, free[0]) + dealt["controller"]
    controller = load_controller(config, os.environ, flags, own).settings
    own = {
        "broker_id": "1",
        "data_dir": str(data / "broker-1"),
        "port": "8082",
        "controller_url": f"http://127.0.0.1:{controller.port}",
    }
    flags = _port_flag(port, free[1]) + dealt["broker"]
    broker = load_broker(config, os.environ, flags, own).settings
    if broker.port == controller.port:
        raise CliError(f"broker and controller cannot share port {broker.port}; give --port and --controller-port", 2)
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=0, timeout_s=broker.shutdown_timeout_ms / 1000 + 5)
    note(f"minilog serves http://{broker.host}:{broker.port}, data in {data.resolve()}; Ctrl-C stops it")
    from minilog.broker.serve import run_both

    return run_both(broker, controller)


def _port_flag(port: int | None, free: int) -> list[str]:
    return [] if port is None else [f"port={port or free}"]


def stop_when_stdin_ends(delay_s: float, timeout_s: float) -> None:
    """The parent holds the other end of stdin; when it is gone, however it went, this process stops too.

    ``delay_s`` later, that is: a controller gives the brokers time to hand over first. Hard after ``timeout_s``."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(timeout_s)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
