"""``minilog controller recover``: a journal from the brokers, when the controller's own is lost or
older than the cluster."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minilog.cli.api import Api
from minilog.cli.output import CliError, Column, ExitCode, Format, note, show_rows
from minilog.cli.settings.settings_options import ConfigOption, SetOption
from minilog.errors import MinilogError, RefusesToStart
from minilog.settings import load_controller
from minilog.wire.journal.metadata_copy import BrokerCopy

if TYPE_CHECKING:
    from minilog.controller.recover import Recovery

COLUMNS = [
    Column("source", "FROM"),
    Column("broker_id", "BROKER", right=True),
    Column("record", "RECORD", right=True),
    Column("epoch", "CONTROLLER EPOCH", right=True),
    Column("topics", "TOPICS", right=True),
    Column("partitions", "PARTITIONS", right=True),
    Column("taken", "TAKEN"),
]


def recover(
    from_: Annotated[
        list[str],
        typer.Option(
            "--from", help="URL of a running broker, or the data directory of a stopped one. All brokers there are."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> int:
    """Make the controller's journal anew from what the brokers have applied.

    Name every broker that there is: one that is left out may know of more, and the controller stops
    when it comes. Stop the controller before.
    """
    from minilog.controller.recover import Recovery

    settings = load_controller(config, os.environ, set_ or ()).settings
    copies = {source: _copy_from(source) for source in from_}
    with closing(Recovery(settings.data_dir, list(copies.values()))) as recovery:
        return _recover(recovery, copies, yes=yes)


def _recover(recovery: Recovery, copies: dict[str, BrokerCopy], *, yes: bool) -> int:
    here = recovery.journal_here()
    recovery.check_needed(here)
    _show(copies, recovery.chosen.source)
    image = recovery.chosen.image
    print(
        f"cluster {image.cluster_id}: the journal in {recovery.data_dir} begins behind record {recovery.index}, "
        f"with {len(image.topics)} topics and {len(image.brokers)} brokers",
        flush=True,
    )
    if recovery.left_out:
        print(
            f"brokers {', '.join(map(str, recovery.left_out))} have obeyed a controller in a part of the journal that none of "
            "these copies has: what was decided there is lost. Name every broker there is, one of them may have it",
            flush=True,
        )
    if here is not None:
        end = (
            f"which ends at record {here.metadata_offset}"
            if not isinstance(here, str)
            else f"which cannot be read: {here}"
        )
        print(f"it takes the place of the journal that is there, {end}; that one is kept", flush=True)
    if not yes:
        if not sys.stdin.isatty():
            raise CliError("nothing was written; say --yes", ExitCode.USAGE)
        typer.confirm("Write it?", abort=True, err=True)
    kept = recovery.write()
    note(f"written{f'; the journal before is in {kept}' if kept else ''}. Start the controller")
    return ExitCode.FINE


def _copy_from(source: str) -> BrokerCopy:
    if "://" in source:
        note(f"asking {source}")
        try:
            return Api(source).get("metadata_copy", BrokerCopy)
        except MinilogError as error:
            raise CliError(
                f"{source}: {error.detail}. Leave it out if that broker is gone for good, or name its data directory",
                ExitCode.UNREACHABLE,
            ) from error
    from minilog.storage.inspect import broker_copy

    note(f"reading {source}")
    try:
        return broker_copy(str(Path(source).absolute()))
    except (RefusesToStart, MinilogError, OSError) as error:
        raise CliError(f"{source}: {error}") from error


def _show(copies: dict[str, BrokerCopy], taken: BrokerCopy) -> None:
    rows = []
    for source, copy in copies.items():
        kinds = [type(record).__name__ for record in copy.metadata.records]
        rows.append(
            {
                "source": source,
                "broker_id": copy.broker_id,
                "record": copy.metadata.metadata_offset,
                "epoch": copy.controller_epoch,
                "topics": kinds.count("TopicCreated"),
                "partitions": kinds.count("PartitionChanged"),
                "taken": "yes" if copy is taken else "",
            }
        )
    show_rows(rows, COLUMNS, Format.table)
