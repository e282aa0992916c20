"""``minilog receipt``: whether what was acknowledged is still there."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows
from minilog.wire.json.json_records import BYTE_ORDER_MARK, DECODE_ERRORS, reason
from minilog.wire.json.receipt_answers import (
    LOST,
    RECEIPTS_MAX,
    STATUSES,
    UNKNOWN,
    CheckedReceipt,
    CheckedReceipts,
    ReceiptToCheck,
)

app = typer.Typer(no_args_is_help=True, help="Whether what was acknowledged is still there.")

COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("offset", "OFFSET", right=True),
    Column("end_offset", "END", right=True, wide=True),
    Column("leader_epoch", "EPOCH", right=True),
    Column("status", "STATUS"),
    Column("sentence", "WHAT"),
]


@app.callback()
def receipts() -> None:
    pass


@app.command()
def check(
    topic: Annotated[str | None, typer.Option("--topic", "-t", show_default=False)] = None,
    partition: Annotated[int | None, typer.Option("--partition", "-p", min=0, show_default=False)] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0, show_default=False)] = None,
    leader_epoch: Annotated[int | None, typer.Option("--epoch", min=0, show_default=False)] = None,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """What became of acknowledged records: of one, by its place, or of the receipts on stdin, a
    JSON object a line, as the produce routes answer them.

    Exit code 1 when one is lost, 3 when nobody could say of one.
    """
    asked = _asked(topic, partition, offset, leader_epoch)
    api, told = Api(url), list[CheckedReceipt]()
    for first in range(0, len(asked), RECEIPTS_MAX):
        body = {"receipts": asked[first : first + RECEIPTS_MAX]}
        told += api.ask("check_receipts", CheckedReceipts, body).receipts
    show_rows([msgspec.to_builtins(one) for one in told], COLUMNS, output, empty="no receipts came")
    counts = Counter(one.status for one in told)
    if len(told) > 1:
        note(", ".join(f"{counts[status]:,} {status.replace('_', ' ')}" for status in STATUSES if counts[status]))
    if counts[LOST]:
        note("`minilog lost list` shows where lost records are kept")
        return ExitCode.REFUSED
    return ExitCode.UNREACHABLE if counts[UNKNOWN] else ExitCode.FINE


def _asked(
    topic: str | None, partition: int | None, offset: int | None, leader_epoch: int | None
) -> list[ReceiptToCheck]:
    """Raises CliError (usage)."""
    given = (topic, partition, offset, leader_epoch)
    if given == (None, None, None, None):
        lines = sys.stdin.buffer.read().removeprefix(BYTE_ORDER_MARK).split(b"\n")
        return [_parsed(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    if topic is None or partition is None or offset is None or leader_epoch is None:
        raise CliError(
            "a receipt is -t TOPIC -p PARTITION --offset N --epoch N; or give receipts on stdin", ExitCode.USAGE
        )
    return [ReceiptToCheck(topic, partition, offset, leader_epoch)]


def _parsed(line: bytes, number: int) -> ReceiptToCheck:
    try:
        return msgspec.json.decode(line, type=ReceiptToCheck)
    except DECODE_ERRORS as error:
        raise CliError(
            f'line {number} is no receipt ({reason(error)}); it is {{"topic", "partition", "offset", "leader_epoch"}}',
            ExitCode.USAGE,
        ) from None
