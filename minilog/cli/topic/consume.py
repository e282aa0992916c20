"""``minilog topic consume``: records of a topic to stdout, in kcat's format tokens or as NDJSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, ExitCode
from minilog.cli.topic.consume_as_member import Membership, consume_as_member, start_of_group
from minilog.cli.topic.record_format import compile_format
from minilog.cli.topic.record_printer import RecordPrinter, run_until_signal
from minilog.errors import UnknownTopic

if TYPE_CHECKING:
    from minilog_client import Record
    from minilog_client.values import PartitionKey

BATCH_RECORDS = 5_000
WAIT_MS = 500
DEFAULT_FORMAT = r"%v\n"
FORMAT_HELP = r"Tokens %t %p %o %T %k %K %v %s %S %h %% and \n \r \t \xHH."


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


def consume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Topic.")],
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", min=0, help="Default: all.")] = None,
    offset: Annotated[
        str, typer.Option("--offset", "-o", help="earliest, latest, an offset, -N (the last N), @MS (a time).")
    ] = "earliest",
    group: Annotated[
        str | None, typer.Option("--group", "-g", help="Read as a member of this group, and commit what was printed.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-c", min=1, help="Stop after so many records.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit", "-e", help="Stop at the end of what is there now.")] = False,
    format_: Annotated[str, typer.Option("--format", "-f", help=FORMAT_HELP)] = DEFAULT_FORMAT,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="One JSON object a record.")] = False,
    any_replica: Annotated[bool, typer.Option("--any-replica", help="Followers may answer too.")] = False,
    url: UrlOption = None,
) -> None:
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
        consume_as_member(api.url, Membership(name, group, begin, show, count, ends, read_from))
        return
    for part, end in (ends or {}).items():
        if start.offset is not None and start.offset > end:
            raise CliError(f"-o {start.offset} is beyond the end of {name}-{part}, which is {end}")
    if start.last is not None and ends is not None:
        start = replace(start, offsets=last_offsets(api, name, ends, start.last))
    reading = Reading(name, partitions, start, show, count, ends if exit_at_end else None, read_from)
    printer = RecordPrinter(show)
    run_until_signal(_consume(api.url, reading, printer), printer)


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
    raise CliError(
        f"-o {text!r}: allowed are earliest, latest, an offset, -N for the last N records, @MS for a time",
        ExitCode.USAGE,
    )


def ndjson_line(record: Record) -> bytes:
    """Key and value as JSON when they are JSON, else as text, else in base64 under ``key_base64``,
    ``value_base64``.

    Values of headers are base64, as in the HTTP API."""
    members: dict[str, Any] = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    members["timestamp"] = record.timestamp
    for name in ("key", "value"):
        data = getattr(record, name)
        field_name, value = _json_value(name, data)
        members[field_name] = value
    if record.headers:
        members["headers"] = [{"name": name, "value": value} for name, value in record.headers]
    return msgspec.json.encode(members) + b"\n"


def _json_value(name: str, data: bytes | None) -> tuple[str, Any]:
    if data is None:
        return name, None
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    else:
        return name, msgspec.Raw(data)
    try:
        return name, data.decode()
    except UnicodeDecodeError:
        return f"{name}_base64", data


def last_offsets(api: Api, topic: str, ends: Mapping[int, int], records: int) -> dict[int, int]:
    """Where the last so many records of each partition begin, as far as they are still there."""
    return {part: max(end - records, api.start_offset(topic, part)) for part, end in ends.items()}


async def _consume(url: str, reading: Reading, printer: RecordPrinter[Record]) -> None:
    from minilog_client import AsyncClient

    topic, start, left = reading.topic, reading.start, reading.count
    begin: str | int = start.word or (f"@{start.at_ms}" if start.at_ms is not None else start.offset or 0)
    assigned = [(topic, part) for part in reading.partitions]
    async with (
        AsyncClient(url) as client,
        client.consumer(assigned, start=begin, read_from=reading.read_from) as consumer,
    ):
        for part, offset in start.offsets.items():
            consumer.seek(topic, part, offset)
        while left != 0 and not (reading.ends is not None and is_at_end(consumer.positions(), topic, reading.ends)):
            records = await consumer.batch(min(BATCH_RECORDS, left or BATCH_RECORDS), WAIT_MS)
            records = records if reading.ends is None else until_end(records, reading.ends)
            printer.print(records)
            left = left - len(records) if left is not None else None


def is_at_end(positions: Mapping[PartitionKey, int | None], topic: str, ends: Mapping[int, int]) -> bool:
    return all((positions[topic, part] or 0) >= end for part, end in ends.items())


def until_end(records: list[Record], ends: Mapping[int, int]) -> list[Record]:
    """Without what was appended after the end was looked up."""
    return [record for record in records if record.offset < ends[record.partition]]
