"""``minilog topic consume --group``: prints as a member of a group, and commits what it has
printed.

At least once: a record is committed after it was written to stdout as a whole, once a second, when
its partition is given to another member, and at the end. A process that dies leaves the records
since the last commit to the others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from minilog.cli.access import client_options
from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.topic.record_printer import RecordPrinter, run_until_signal
from minilog.errors import CorruptBatch

if TYPE_CHECKING:
    from minilog_client import AsyncClient, GroupConsumer, Record

BATCH_RECORDS = 1_000
WAIT_MS = 500
LAST_COMMIT_MS = 3_000


@dataclass(frozen=True)
class Membership:
    """``start``: where partitions begin that the group has committed nothing of. ``ends`` None: go
    on for ever."""

    topic: str
    group: str
    start: str
    show: Callable[[Record], bytes]
    count: int | None
    ends: dict[int, int] | None
    read_from: Literal["leader", "any"]
    tolerance: Literal["none", "all"]


def start_of_group(offset: str) -> str:
    """``-o`` beside ``--group``; raises CliError (usage) for what depends on a single partition."""
    word = {"beginning": "earliest", "end": "latest"}.get(offset, offset)
    if word in ("earliest", "latest") or word.startswith("@"):
        return word
    raise CliError(
        f"-o {offset!r}: with --group it says where the group begins, earliest, latest or @MS; "
        "`minilog group seek` moves one that has begun",
        ExitCode.USAGE,
    )


def consume_as_member(url: str, membership: Membership) -> None:
    printer = RecordPrinter(membership.show)
    run_until_signal(_consume(url, membership, printer), printer)


async def _consume(url: str, membership: Membership, printer: RecordPrinter[Record]) -> None:
    from minilog_client import AsyncClient

    async with (
        AsyncClient(url, **client_options()) as client,
        client.consumer(
            membership.topic,
            group=membership.group,
            start=membership.start,
            read_from=membership.read_from,
            errors_tolerance=membership.tolerance,
            on_assigned=_teller("reads"),
            on_revoked=_teller("gives back"),
            on_lost=_teller("has lost"),
        ) as consumer,
    ):
        try:
            await _print(client, consumer, membership, printer)
        except asyncio.CancelledError:
            await consumer.commit(timeout_ms=LAST_COMMIT_MS)
            raise
        await consumer.commit()


async def _print(
    client: AsyncClient, consumer: GroupConsumer, membership: Membership, printer: RecordPrinter[Record]
) -> None:
    """Asking for more records, and committing, say that those before were printed: only after a
    whole print."""
    left = membership.count
    while left != 0 and not await _is_at_end(client, consumer, membership):
        try:
            records = await consumer.batch(min(BATCH_RECORDS, left or BATCH_RECORDS), WAIT_MS)
        except CorruptBatch as error:
            await consumer.commit()
            raise CliError(
                f"{error.detail}. What was printed before is committed. `--errors-tolerance all` skips them for this group"
            ) from None
        printer.print(records)
        left = left - len(records) if left is not None else None


async def _is_at_end(client: AsyncClient, consumer: GroupConsumer, membership: Membership) -> bool:
    """Everything that this member has, and is to have, was read to the end there was at the
    start."""
    if membership.ends is None:
        return False
    positions = consumer.positions()
    if any((position or 0) < membership.ends.get(part, 0) for (_, part), position in positions.items()):
        return False
    described = await client.describe_group(membership.group)
    mine = [member for member in described.members if member.member_id == consumer.member_id]
    target = {(entry.topic, number) for member in mine for entry in member.assignment for number in entry.partitions}
    return bool(mine) and target == set(positions)


def _teller(verb: str) -> Callable[[Sequence[tuple[str, int]]], None]:
    """For the person at the terminal: what this member reads from now on, or no more."""

    def tell(partitions: Sequence[tuple[str, int]]) -> None:
        if sys.stderr.isatty() and partitions:
            note(f"{verb} " + ", ".join(f"{topic}-{number}" for topic, number in sorted(partitions)))

    return tell
