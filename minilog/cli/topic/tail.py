"""``minilog topic tail``: the last records of every partition in the order of their times, and then
what comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from minilog.cli.access import client_options
from minilog.cli.api import Api, UrlOption
from minilog.cli.topic.consume import (
    BATCH_RECORDS,
    DEFAULT_FORMAT,
    FORMAT_HELP,
    StepsOver,
    Tolerance,
    ToleranceOption,
    is_at_end,
    last_offsets,
    ndjson_line,
    partitions_of,
    until_end,
)
from minilog.cli.topic.record_format import compile_format
from minilog.cli.topic.record_printer import RecordPrinter, run_until_signal

if TYPE_CHECKING:
    from minilog_client import Record

RECORDS_MAX = 100_000


def tail(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Topic.")],
    records: Annotated[
        int, typer.Option("--records", "-n", min=0, max=RECORDS_MAX, help="The last N of each partition.")
    ] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on with new records until Ctrl-C.")] = True,
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", min=0, help="Default: all.")] = None,
    format_: Annotated[str, typer.Option("--format", "-f", help=FORMAT_HELP)] = DEFAULT_FORMAT,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="One JSON object a record.")] = False,
    any_replica: Annotated[bool, typer.Option("--any-replica", help="Followers may answer too.")] = False,
    errors_tolerance: ToleranceOption = Tolerance.none,
    url: UrlOption = None,
) -> int:
    """The last records of a topic, oldest first, and then those that are written, until Ctrl-C."""
    printer = RecordPrinter(ndjson_line if ndjson else compile_format(format_))
    api = Api(url)
    parts = partitions_of(api, name, partition or [])
    ends = {part: api.end_offset(name, part) for part in parts}
    starts = last_offsets(api, name, ends, records)
    steps = StepsOver()
    how = _How("any" if any_replica else "leader", follow, errors_tolerance)
    run_until_signal(_tail(api.url, name, starts, ends, how, printer, steps), printer)
    return steps.exit_code


class _How(NamedTuple):
    read_from: Literal["leader", "any"]
    follow: bool
    tolerance: Tolerance


async def _tail(
    url: str,
    topic: str,
    starts: dict[int, int],
    ends: dict[int, int],
    how: _How,
    printer: RecordPrinter[Record],
    steps: StepsOver,
) -> None:
    from minilog_client import AsyncClient

    assigned = [(topic, part) for part in starts]
    async with (
        AsyncClient(url, **client_options()) as client,
        client.consumer(
            assigned, start="latest", read_from=how.read_from, errors_tolerance=how.tolerance.value
        ) as consumer,
    ):
        for part, offset in starts.items():
            consumer.seek(topic, part, offset)
        there: list[Record] = []
        since: list[Record] = []
        while not is_at_end(consumer.positions(), topic, ends):
            records = await steps.batch(consumer, BATCH_RECORDS)
            printer.check_reader()
            old = until_end(records, ends)
            there += old
            since += [record for record in records if record.offset >= ends[record.partition]]
        printer.print(sorted(there, key=lambda record: (record.timestamp, record.partition, record.offset)))
        if not how.follow:
            return
        printer.print(since)
        while True:
            printer.print(await steps.batch(consumer, BATCH_RECORDS))
