"""``minilog controller migrate``: the journal from the controller's disk to etcd, and back."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.settings.settings_options import ConfigOption, SetOption
from minilog.errors import Deposed, MinilogError, RefusesToStart, StorageFailed
from minilog.settings import load_controller


def migrate(
    to: Annotated[Literal["etcd", "file"], typer.Argument(help="Where the journal is to be.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> int:
    """Move the journal between data_dir and etcd (etcd_urls, etcd_prefix).

    Stop all controllers before. Brokers go on meanwhile. Then start controllers with the setting
    journal that says where it is now."""
    from minilog.controller.migrate import to_etcd, to_file

    settings = load_controller(config, os.environ, ["journal=etcd", *(set_ or ())]).settings
    below = f"etcd below {settings.etcd_prefix} ({settings.etcd_urls})"
    source, target = (settings.data_dir, below) if to == "etcd" else (below, settings.data_dir)
    if not yes:
        if not sys.stdin.isatty():
            raise CliError("nothing was moved; say --yes", ExitCode.USAGE)
        typer.confirm(f"Move the journal from {source} to {target}?", abort=True, err=True)
    try:
        if to == "etcd":
            image, kept = to_etcd(settings)
            note(f"the journal before is kept in {kept}, and no controller must be started with it")
        else:
            image = to_file(settings)
    except (MinilogError, RefusesToStart, StorageFailed, Deposed) as error:
        raise CliError(str(error)) from error
    print(
        f"cluster {image.cluster_id}: the journal is in {target}, up to record {image.metadata_offset}, with "
        f"{len(image.topics)} topics and {len(image.brokers)} brokers"
    )
    note(f'start {"every controller" if to == "etcd" else "the controller"} with journal = "{to}"')
    return ExitCode.FINE
