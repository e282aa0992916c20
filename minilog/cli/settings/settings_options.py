"""The options by which a process is told its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from minilog.cli.output import note
from minilog.settings import service_links

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; `minilog config files DIR` writes examples.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value; wins over file and environment.")]


def note_service_links() -> None:
    """Say which variables of the environment look like settings and are none."""
    links = service_links(os.environ)
    if links:
        names = ", ".join(links[:3]) + (f" and {len(links) - 3} more" if len(links) > 3 else "")
        note(
            f"the environment has {names}: that is what Kubernetes tells of a service, and no setting of minilog; "
            "`enableServiceLinks: false` in the pod leaves it out"
        )
