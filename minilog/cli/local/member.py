"""One process of a dev cluster, as later commands find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilog.cli.local import process
from minilog.cli.local.keyring import Keyring
from minilog.cli.local.ports import HOST
from minilog.cli.request import Unanswered, send
from minilog.errors import MinilogError
from minilog.settings import Role

if TYPE_CHECKING:
    from minilog_client.credential import Credential

CONTROLLER_ID = 0


@dataclass(frozen=True)
class Member:
    """One process of the cluster. ``id`` is CONTROLLER_ID for the controller, and 2 and up for
    more of them. ``keyring`` None: nothing is secured."""

    role: Role
    id: int
    port: int
    data_dir: Path
    log_file: Path
    pid_file: Path
    keyring: Keyring | None = None

    @property
    def name(self) -> str:
        if self.role == "controller":
            return "controller" if self.id == CONTROLLER_ID else f"controller-{self.id}"
        return f"broker {self.id}"

    @property
    def names(self) -> tuple[str, ...]:
        """What people call it."""
        return (self.name, str(self.id)) if self.role == "broker" or self.id == CONTROLLER_ID else (self.name,)

    @property
    def url(self) -> str:
        return f"{'http' if self.keyring is None else 'https'}://{HOST}:{self.port}"

    @property
    def key_name(self) -> str:
        """Of its token and its certificate, and of the principal that it is."""
        return self.data_dir.name

    @property
    def key_role(self) -> str:
        return f"peer:{self.id}" if self.role == "broker" else "controller"

    def known(self) -> process.PidFile | None:
        return process.read_pid_file(self.pid_file)

    def state(self) -> process.State:
        return process.state(self.known())

    def pid(self) -> int | None:
        known = self.known()
        return known.pid if known is not None and process.state(known) != "dead" else None

    def ready(self) -> bool:
        return http_ok(f"{self.url}/readyz", credential=None if self.keyring is None else self.keyring.credential)


def http_ok(url: str, timeout_s: float = 1.0, credential: Credential | None = None) -> bool:
    try:
        send(url, "GET", timeout_s, credential=credential)
    except (MinilogError, Unanswered):
        return False
    return True
