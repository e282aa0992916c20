"""``minilog topic alter``: other settings for a topic that exists."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.moves.carrying_out import NoWaitOption, YesOption, move_by_plan
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.wire.json.json_answers import plain
from minilog.wire.json.lever_answers import TopicAltered

COLUMNS = [Column("key", "SETTING"), Column("before", "BEFORE"), Column("after", "AFTER")]


def alter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Topic.")],
    config: Annotated[
        list[str] | None, typer.Option("--config", help="key=value, for example retention.ms=86400000.")
    ] = None,
    delete_config: Annotated[
        list[str] | None, typer.Option("--delete-config", help="A setting that is to be as by default.")
    ] = None,
    replication_factor: Annotated[
        int, typer.Option("--replication-factor", "-r", min=0, help="So many replicas for each partition.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Change settings of a topic, all that are named or none. No broker needs a restart.

    With --replication-factor: replicas are added or taken away while all goes on.
    """
    changes: dict[str, str | None] = {**config_of(config or [])}
    for key in delete_config or []:
        if key in changes:
            raise CliError(f"{key} is named twice; set it or delete it, and once", ExitCode.USAGE)
        changes[key] = None
    if replication_factor and changes:
        raise CliError("change settings and --replication-factor one after the other", ExitCode.USAGE)
    if replication_factor:
        planned = Api(url).plan_moves({"topic": name, "replication_factor": replication_factor})
        for problem in planned.problems:
            note(f"stays: {problem}")
        return move_by_plan(Api(url), planned.moves, output, dry_run=dry_run, yes=yes, no_wait=no_wait)
    if not changes:
        raise CliError(
            "nothing to change: say --config key=value, --delete-config key, or --replication-factor", ExitCode.USAGE
        )
    altered = Api(url).configure_topic(name, changes, dry_run=dry_run)
    if output in (Format.json, Format.yaml):
        show_value(plain(altered), output)
    elif rows := _rows(altered):
        show_rows(rows, COLUMNS, output)
    _tell(altered)
    return ExitCode.FINE


def _rows(altered: TopicAltered) -> list[dict[str, Any]]:
    """What is other than before. None: as by default."""
    before, after = altered.before, altered.config
    keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    return [{"key": key, "before": before.get(key), "after": after.get(key)} for key in keys]


def _tell(altered: TopicAltered) -> None:
    if altered.under_min_isr:
        listed = ", ".join(map(str, altered.under_min_isr))
        note(f"too few replicas are in sync for min.insync.replicas, so acks=all is refused: partition {listed}")
    if not _rows(altered):
        note(f"topic {altered.topic} has these settings already")
    elif altered.dry_run:
        note("nothing was changed: this is what would be (--dry-run)")
    else:
        note(f"topic {altered.topic} has other settings, in effect now")


def config_of(pairs: list[str]) -> dict[str, str]:
    """``key=value`` options as a mapping. Raises CliError."""
    config: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CliError(f"--config {pair!r}: write key=value, for example min.insync.replicas=2", ExitCode.USAGE)
        if key in config:
            raise CliError(f"--config {key} is given twice; give it once", ExitCode.USAGE)
        config[key] = value
    return config
