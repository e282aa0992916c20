"""``broker run``, ``controller run``, ``serve``: the processes themselves, in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from minilog.cli.files.migrate import migrate
from minilog.cli.files.recover import recover
from minilog.cli.output import CliError, note
from minilog.cli.settings.settings_options import ConfigOption, SetOption, note_service_links
from minilog.config import BrokerSettings, ControllerSettings
from minilog.settings import (
    ADDRESSES_ANY,
    FOLDERS,
    Given,
    Loaded,
    Role,
    assign,
    load_both,
    load_broker,
    load_controller,
    parse_flags,
)

broker_app = typer.Typer(no_args_is_help=True, help="Run one broker process, and move what brokers hold.")
controller_app = typer.Typer(no_args_is_help=True, help="Run one controller process, or make or move its journal.")
controller_app.command("recover")(recover)
controller_app.command("migrate")(migrate)

DEFAULTS = {
    "data_dir": "minilog-data",
    "controller.port": "9093",
    "controller.default_replication_factor": "1",
    "broker.broker_id": "1",
    "broker.port": "8082",
}
"""Of ``serve``: weaker than anything that anybody says."""
ParentOption = Annotated[bool, typer.Option("--exit-with-parent", hidden=True)]


@broker_app.command("run")
def broker_run(config: ConfigOption = None, set_: SetOption = None, exit_with_parent: ParentOption = False) -> int:
    """Run a broker until SIGTERM."""
    note_service_links()
    settings = load_broker(config, os.environ, set_ or ()).settings
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=0, timeout_s=settings.shutdown_timeout_ms / 1000 + 5)
    from minilog.broker.main import run_broker

    return run_broker(settings)


@controller_app.command("run")
def controller_run(config: ConfigOption = None, set_: SetOption = None, exit_with_parent: ParentOption = False) -> int:
    """Run a controller until SIGTERM."""
    note_service_links()
    settings = load_controller(config, os.environ, set_ or ()).settings
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=1.5, timeout_s=5)
    from minilog.controller.main import run_controller

    return run_controller(settings)


def serve(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder for everything this process keeps, default minilog-data."),
    ] = None,
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
    """Run a controller and one broker in a single process (replication factor 1): for embedding,
    tests, small uses.

    A setting without broker. or controller. in front is meant for both, but for data_dir and port:
    they mean what --data and --port do.
    """
    from minilog.cli.local.ports import free_ports

    note_service_links()
    free = free_ports(2)
    dealt = assign(set_ or ())
    flags: dict[Role, dict[str, Given]] = {
        "controller": _flags("controller", data, controller_port, free[0], dealt),
        "broker": _flags("broker", data, port, free[1], dealt),
    }
    loaded = load_both(config, os.environ, flags, DEFAULTS)
    controller, broker = loaded[0].settings, loaded[1].settings
    if broker.port == controller.port:
        raise CliError(f"broker and controller cannot share port {broker.port}; give --port and --controller-port", 2)
    _refuse_foreign_controller(loaded[1], controller)
    if exit_with_parent:
        stop_when_stdin_ends(delay_s=0, timeout_s=broker.shutdown_timeout_ms / 1000 + 5)
    from minilog.standalone import run_both

    where = _where(broker, controller)
    return run_both(broker, controller, lambda url: note(f"minilog serves {url}, data in {where}; Ctrl-C stops it"))


def _refuse_foreign_controller(broker: Loaded[BrokerSettings], controller: ControllerSettings) -> None:
    """The broker asks the controller of this process, so another one that is named would be
    ignored."""
    url = broker.settings.controller_url
    if broker.settings.controller_urls or controller.journal != "file":
        raise CliError(
            "`minilog serve` runs one controller, which keeps its journal in its folder: leave controller_urls and journal "
            "out, or start each process alone with `minilog broker run` and `minilog controller run`",
            2,
        )
    parts = urlsplit(url)
    is_here = controller.host in ADDRESSES_ANY or parts.hostname in ("127.0.0.1", "localhost", "::1", controller.host)
    if not is_here or (parts.port or 80) != controller.port:
        raise CliError(
            f"{broker.origins['controller_url']}: controller_url = {url!r} is not the controller that `minilog serve` runs "
            f"itself, on port {controller.port}; leave it out, or start the broker alone with `minilog broker run`",
            2,
        )


def _flags(
    role: Role, data: Path | None, port: int | None, free: int, dealt: dict[Role, list[str]]
) -> dict[str, Given]:
    """What the command line says for one of the two. Raises BadSettings when it says something
    twice."""
    options = dealt[role] if port is None else [f"port={port or free}", *dealt[role]]
    flags = parse_flags(options)
    if data is not None:
        flags.setdefault("data_dir", Given(str(data / FOLDERS[role]), "--data", text=True))
    return flags


def _where(broker: BrokerSettings, controller: ControllerSettings) -> str:
    of_broker, of_controller = Path(broker.data_dir).resolve(), Path(controller.data_dir).resolve()
    if of_broker.parent == of_controller.parent:
        return str(of_broker.parent)
    return f"{of_broker} and {of_controller}"


def stop_when_stdin_ends(delay_s: float, timeout_s: float) -> None:
    """The parent holds the other end of stdin. When it is gone, however it went, this process stops
    too.

    ``delay_s`` later, that is: a controller gives the brokers time to hand over first. Hard after
    ``timeout_s``."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(timeout_s)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
