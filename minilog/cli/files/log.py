"""``minilog log``: look into segment files, offline, without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from minilog.cli.files.strays import strays
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.errors import CorruptBatch

if TYPE_CHECKING:
    from minilog.storage.inspect import BatchInfo

app = typer.Typer(no_args_is_help=True, help="Look into segment files, offline, without a cluster.")

app.command("strays")(strays)

PathsArgument = Annotated[list[Path], typer.Argument(help="Segment files (*.log) or partition folders.")]
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ACKS = ("unknown", "0", "1", "all")
COLUMNS = [
    Column("file", "FILE", wide=True),
    Column("position", "POSITION", right=True),
    Column("bytes", "BYTES", right=True),
    Column("base_offset", "BASE", right=True),
    Column("end_offset", "END", right=True),
    Column("leader_epoch", "EPOCH", right=True),
    Column("records", "RECORDS", right=True),
    Column("codec", "CODEC"),
    Column("acks", "ACKS"),
    Column("max_timestamp", "MAX TIMESTAMP", right=True),
    Column("crc", "CRC"),
    Column("problem", "PROBLEM"),
]
PROBLEM_COLUMNS = [
    Column("path", "FILE"),
    Column("position", "POSITION", right=True),
    Column("offset", "OFFSET", right=True),
    Column("reason", "PROBLEM"),
]


@app.command()
def dump(
    paths: PathsArgument,
    records: Annotated[bool, typer.Option("--records", help="The records too, as NDJSON.")] = False,
    output: OutputOption = Format.table,
) -> int:
    """Every batch: where it lies, its offsets, epoch, codec, acks level and CRC; and every damaged
    stretch."""
    from minilog.storage import inspect

    if records:
        return _dump_records(paths)
    rows = [batch_row(info) for path in segment_files(paths) for info in inspect.dump(str(path))]
    show_rows(rows, COLUMNS, output, empty="no batches")
    return ExitCode.REFUSED if any(row["problem"] for row in rows) else ExitCode.FINE


@app.command()
def verify(paths: PathsArgument, output: OutputOption = Format.table) -> int:
    """Check every CRC, that offsets have no gap and epochs never fall, and that indexes lead to
    batches."""
    from minilog.storage import inspect

    list(segment_files(paths))
    report = inspect.verify(str(path) for path in paths)
    if output in (Format.json, Format.yaml):
        show_value({"good": report.is_good, **msgspec.to_builtins(report)}, output)
    else:
        if report.problems:
            show_rows([msgspec.to_builtins(problem) for problem in report.problems], PROBLEM_COLUMNS, output)
        count = len(report.problems)
        verdict = "no problem" if report.is_good else f"{count} problem{'s' if count > 1 else ''}"
        note(
            f"{verdict} in {report.files} files: {report.bytes:,} bytes, {report.batches:,} batches, "
            f"{report.records:,} records"
        )
    return ExitCode.FINE if report.is_good else ExitCode.REFUSED


def _dump_records(paths: list[Path]) -> int:
    """Records of all whole batches; says on stderr what could not be read."""
    from minilog.cli.topic.consume import ndjson_line
    from minilog.storage import inspect
    from minilog.wire.batch import split
    from minilog_client.consumer.records import decode

    exit_code = ExitCode.FINE
    for path in segment_files(paths):
        topic, _, partition = path.resolve().parent.name.rpartition("-")
        number = int(partition) if partition.isdecimal() else 0
        with path.open("rb") as file:
            for info in inspect.dump(str(path)):
                if info.problem:
                    note(f"{path} at byte {info.position}: {info.problem}")
                    exit_code = ExitCode.REFUSED
                    continue
                file.seek(info.position)
                for batch in split(file.read(info.bytes), info.bytes, stored=True):
                    try:
                        records = decode(topic, number, batch, batch.base_offset)
                    except CorruptBatch as error:
                        span = f"offsets {batch.base_offset} to {batch.last_offset}"
                        note(f"{path} at byte {info.position}: {span} cannot be decoded: {error.detail}")
                        exit_code = ExitCode.REFUSED
                        continue
                    sys.stdout.buffer.writelines(map(ndjson_line, records))
    return exit_code


def batch_row(info: BatchInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"file": info.path, **msgspec.to_builtins(info)}
    del row["path"]
    codec, acks = row["codec"], row.pop("acks_level")
    row["codec"] = CODECS[codec] if codec < len(CODECS) else str(codec)
    row["acks"] = ACKS[acks]
    row["crc"] = f"{row['crc']:08x}"
    if row["problem"]:
        for name in ("end_offset", "leader_epoch", "records", "codec", "acks", "max_timestamp", "crc"):
            row[name] = None
    return row


def segment_files(paths: list[Path]) -> Iterator[Path]:
    """The segment files meant. Raises CliError when a path is neither one nor a folder with
    some."""
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.log"))
            if not inside:
                raise CliError(f"{path} holds no *.log file; name a partition's folder", ExitCode.USAGE)
            yield from inside
        elif not path.exists():
            raise CliError(f"{path} does not exist", ExitCode.USAGE)
        elif path.suffix != ".log":
            raise CliError(f"{path} is not a segment file; their names end in .log", ExitCode.USAGE)
        else:
            yield path
