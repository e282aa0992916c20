"""What a dev cluster is, as its folder keeps it in ``dev.json``."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from minilog.cli.output import CliError

DEV_FILE = "dev.json"


class DevFile(msgspec.Struct):
    """``ports[i]`` is broker i+1's. ``overrides`` are ``--set`` pairs for the whole cluster.
    ``more_controllers[i]`` is controller i+2's. ``etcd_ports``: of the journal that several share,
    each member's first. ``secure``: with TLS, tokens and a security file."""

    ports: list[int]
    controller_port: int
    overrides: list[str] = []
    more_controllers: list[int] = []
    etcd_ports: list[int] = []
    secure: bool = False


def default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "minilog" / "dev"


def refuse_foreign(folder: Path) -> None:
    """Raises CliError where a new cluster would lie among what is somebody else's."""
    if folder.exists() and not folder.is_dir():
        raise CliError(f"{folder} is not a folder; name a folder with --data")
    try:
        inside = sorted(path.name for path in folder.iterdir())[:3] if folder.exists() else []
    except OSError as error:
        raise CliError(f"{folder} cannot be read ({error.strerror}); name another folder with --data") from None
    if set(inside) - {"run", "logs", "keys"}:
        raise CliError(
            f"{folder} is not the folder of a dev cluster: it has no {DEV_FILE} but holds {', '.join(inside)}; "
            "name an empty or new folder with --data"
        )
