"""``minilog topic consume``: records of a topic to stdout, in kcat's format tokens or as NDJSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from minilog.cli.access import client_options
from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.times import WAYS, time_ms
from minilog.cli.topic.consume_as_member import Membership, consume_as_member, start_of_group
from minilog.cli.topic.record_format import compile_format
from minilog.cli.topic.record_printer import RecordPrinter, run_until_signal
from minilog.errors import CorruptBatch, UnknownTopic
from minilog.wire.json.json_records import PLAIN, NotRepresentable, raw_of

if TYPE_CHECKING:
    from minilog_client import Consumer, Record
    from minilog_client.values import PartitionKey

BATCH_RECORDS = 5_000
WAIT_MS = 500
DEFAULT_FORMAT = r"%v\n"
FORMAT_HELP = r"Tokens %t %p %o %T %k %K %v %s %S %h %% and \n \r \t \xHH."


class Tolerance(StrEnum):
    none = "none"
    all = "all"


ToleranceOption = Annotated[
    Tolerance,
    typer.Option(
        "--errors-tolerance", help="Records that cannot be decoded: none is an error that names them, all skips them."
    ),
]


class StepsOver:
    """Reads on behind records that cannot be decoded, says so each time, and remembers it."""

    def __init__(self) -> None:
        self.exit_code = ExitCode.FINE

    async def batch(self, consumer: Consumer, count_max: int) -> list[Record]:
        try:
            return await consumer.batch(count_max, WAIT_MS)
        except CorruptBatch as error:
            info = error.info
            if "end_offset" not in info:  # damaged on the way here
                raise
            note(f"{error.detail}. Reading goes on at {info['end_offset']}")
            self.exit_code = ExitCode.REFUSED
            consumer.seek(info["topic"], info["partition"], info["end_offset"])
            return []


@dataclass(frozen=True)
class Start:
    """Where to begin in every partition: ``word`` earliest or latest, else an offset, ``-n`` from
    the end, or a time."""

    word: str = ""
    offset: int | None = None
    last: int | None = None
    at_ms: int | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    """By partition, once ``last`` has been worked out. They win."""


@dataclass(frozen=True)
class Reading:
    """What to print of which partitions, and when to stop: ``ends`` None means never by itself."""

    topic: str
    partitions: list[int]
    start: Start
    show: Callable[[Record], bytes]
    count: int | None
    ends: dict[int, int] | None
    read_from: Literal["leader", "any"]
    tolerance: Tolerance


def consume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Topic.")],
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", min=0, help="Default: all.")] = None,
    offset: Annotated[
        str,
        typer.Option(
            "--offset", "-o", help="earliest, latest, an offset, -N (the last N), @TIME (ms, or 2026-01-31T12:00)."
        ),
    ] = "earliest",
    group: Annotated[
        str | None, typer.Option("--group", "-g", help="Read as a member of this group, and commit what was printed.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-c", min=1, help="Stop after so many records.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit", "-e", help="Stop at the end of what is there now.")] = False,
    format_: Annotated[str, typer.Option("--format", "-f", help=FORMAT_HELP)] = DEFAULT_FORMAT,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="One JSON object a record.")] = False,
    any_replica: Annotated[bool, typer.Option("--any-replica", help="Followers may answer too.")] = False,
    errors_tolerance: ToleranceOption = Tolerance.none,
    url: UrlOption = None,
) -> int:
    """Print records; follows the log until Ctrl-C, or until -e or -c says stop.

    With --group the members share the partitions. Each goes on where the group has committed.
    -o says where it begins if nothing is committed yet. Committed is what was written to stdout:
    take so many records with -c, not with head."""
    show = ndjson_line if ndjson else compile_format(format_)
    read_from: Literal["leader", "any"] = "any" if any_replica else "leader"
    begin = None if group is None else _start_of_group(offset, partition)
    start = parse_start(offset)
    api = Api(url)
    partitions = partitions_of(api, name, partition or [])
    ends = {part: api.end_offset(name, part) for part in partitions} if exit_at_end or start.last is not None else None
    if group is not None and begin is not None:
        consume_as_member(api.url, Membership(name, group, begin, show, count, ends, read_from, errors_tolerance.value))
        return ExitCode.FINE
    for part, end in (ends or {}).items():
        if start.offset is not None and start.offset > end:
            raise CliError(f"-o {start.offset} is beyond the end of {name}-{part}, which is {end}")
    if start.last is not None and ends is not None:
        start = replace(start, offsets=last_offsets(api, name, ends, start.last))
    reading = Reading(name, partitions, start, show, count, ends if exit_at_end else None, read_from, errors_tolerance)
    printer = RecordPrinter(show)
    steps = StepsOver()
    run_until_signal(_consume(api.url, reading, printer, steps), printer)
    return steps.exit_code


def _start_of_group(offset: str, partition: list[int] | None) -> str:
    if partition:
        raise CliError("-p and --group exclude each other: the group says who reads which partition", ExitCode.USAGE)
    return start_of_group(offset)


def partitions_of(api: Api, topic: str, wanted: list[int]) -> list[int]:
    topics = api.metadata([topic]).topics
    if not topics:
        raise UnknownTopic(f"there is no topic {topic!r}; `minilog topic list` shows all")
    known = sorted(part.partition for part in topics[0].partitions)
    for number in wanted:
        if number not in known:
            raise CliError(f"topic {topic} has no partition {number}; it has 0 to {known[-1]}", ExitCode.USAGE)
    return sorted(set(wanted)) or known


def parse_start(text: str) -> Start:
    """Raises CliError (usage)."""
    word = {"beginning": "earliest", "end": "latest"}.get(text, text)
    if word in ("earliest", "latest"):
        return Start(word)
    digits = text.lstrip("-@")
    if digits.isdecimal() and digits.isascii() and len(text) - len(digits) <= 1 and int(digits) < 2**63:
        number = int(digits)
        if text.startswith("-"):
            return Start(last=number)
        return Start(at_ms=number) if text.startswith("@") else Start(offset=number)
    if text.startswith("@") and (at_ms := time_ms(text[1:])) is not None:
        return Start(at_ms=at_ms)
    raise CliError(
        f"-o {text!r}: allowed are earliest, latest, an offset, -N for the last N records, and @ with a time: {WAYS}",
        ExitCode.USAGE,
    )


def ndjson_line(record: Record) -> bytes:
    """As in the HTTP API: the value as JSON when it is JSON, else in base64 under ``value_base64``,
    the key as text, else under ``key_base64``, values of headers in base64.

    ``topic produce --ndjson`` makes the same bytes of it. So JSON that a line cannot hold as it is
    goes into base64, too."""
    members: dict[str, Any] = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    members["timestamp"] = record.timestamp
    for name, data, form in (("key", record.key, PLAIN), ("value", record.value, "json")):
        field_name, value = _json_value(name, data, form)
        members[field_name] = value
    if record.headers:
        members["headers"] = [{"name": name, "value": value} for name, value in record.headers]
    return msgspec.json.encode(members) + b"\n"


def _json_value(name: str, data: bytes | None, form: str) -> tuple[str, Any]:
    if form == PLAIN or data is None or (data.strip() == data and not {10, 13} & set(data)):
        with suppress(NotRepresentable):
            return name, raw_of(data, form)
    return f"{name}_base64", data


def last_offsets(api: Api, topic: str, ends: Mapping[int, int], records: int) -> dict[int, int]:
    """Where the last so many records of each partition begin, as far as they are still there."""
    return {part: max(end - records, api.start_offset(topic, part)) for part, end in ends.items()}


async def _consume(url: str, reading: Reading, printer: RecordPrinter[Record], steps: StepsOver) -> None:
    from minilog_client import AsyncClient

    topic, start, left = reading.topic, reading.start, reading.count
    begin: str | int = start.word or (f"@{start.at_ms}" if start.at_ms is not None else start.offset or 0)
    assigned = [(topic, part) for part in reading.partitions]
    async with (
        AsyncClient(url, **client_options()) as client,
        client.consumer(
            assigned, start=begin, read_from=reading.read_from, errors_tolerance=reading.tolerance.value
        ) as consumer,
    ):
        for part, offset in start.offsets.items():
            consumer.seek(topic, part, offset)
        while left != 0 and not (reading.ends is not None and is_at_end(consumer.positions(), topic, reading.ends)):
            records = await steps.batch(consumer, min(BATCH_RECORDS, left or BATCH_RECORDS))
            records = records if reading.ends is None else until_end(records, reading.ends)
            printer.print(records)
            left = left - len(records) if left is not None else None


def is_at_end(positions: Mapping[PartitionKey, int | None], topic: str, ends: Mapping[int, int]) -> bool:
    return all((positions[topic, part] or 0) >= end for part, end in ends.items())


def until_end(records: list[Record], ends: Mapping[int, int]) -> list[Record]:
    """Without what was appended after the end was looked up."""
    return [record for record in records if record.offset < ends[record.partition]]
