"""``minilog log strays``: logs that a broker has put aside because the cluster does not know their
topics (R39)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows

COLUMNS = [
    Column("name", "NAME"),
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("records", "RECORDS", right=True),
    Column("first_offset", "FIRST", right=True),
    Column("end_offset", "END", right=True),
    Column("bytes", "BYTES", right=True),
    Column("topic_id", "TOPIC ID", wide=True),
]


def strays(
    data_dir: Annotated[Path, typer.Argument(help="The data directory of a broker, running or not.")],
    drop: Annotated[
        list[str] | None, typer.Option("--drop", help="Remove this one for good, by NAME; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputOption = Format.table,
) -> int:
    """Logs of topics that the cluster does not know: what is in them, and how to get it back.

    Nothing removes them but --drop. Exit code 1 when there are some.
    """
    folder = data_dir / "stray"
    if not (data_dir / "meta.json").exists():
        raise CliError(f"{data_dir} is not the data directory of a broker: it has no meta.json", ExitCode.USAGE)
    here = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if drop:
        return _drop(here, drop, yes)
    rows = [_row(path) for path in here]
    show_rows(rows, COLUMNS, output, empty="no strays")
    if here and output in (Format.table, Format.wide):
        note("to have the records back, into a topic that exists, with keys, headers and timestamps:")
        note(f"  minilog log dump --records {here[0]} | minilog topic produce TOPIC --ndjson")
    return ExitCode.REFUSED if here else ExitCode.FINE


def _row(path: Path) -> dict[str, object]:
    from minilog.storage import inspect

    whose = inspect.whose(str(path))
    infos = [info for file in sorted(path.glob("*.log")) for info in inspect.dump(str(file)) if not info.problem]
    return {
        "name": path.name,
        "topic": whose.get("topic", "?"),
        "topic_id": whose.get("topic_id", "?"),
        "partition": whose.get("partition"),
        "records": sum(info.records for info in infos),
        "first_offset": infos[0].base_offset if infos else None,
        "end_offset": infos[-1].end_offset if infos else None,
        "bytes": sum(info.bytes for info in infos),
    }


def _drop(here: list[Path], names: list[str], yes: bool) -> int:
    known = {path.name: path for path in here}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CliError(f"there is no stray {unknown[0]!r}; there are: {', '.join(known) or 'none'}", ExitCode.USAGE)
    if not yes:
        if not sys.stdin.isatty():
            raise CliError(f"dropping {', '.join(names)} destroys their records; say --yes", ExitCode.USAGE)
        typer.confirm(f"Remove {', '.join(names)} and all their records?", abort=True, err=True)
    for name in names:
        shutil.rmtree(known[name])
        note(f"{name} removed")
    return ExitCode.FINE
