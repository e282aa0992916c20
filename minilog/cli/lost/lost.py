"""``minilog lost``: what brokers have cut from the ends of their logs, and how to get it back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.lost.search import Found, copies, find, read_batches, whose
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows, show_value
from minilog.cli.progress import progress_bar
from minilog.errors import CorruptBatch, RetriableError
from minilog.wire.json.json_answers import LostTailInfo

if TYPE_CHECKING:
    from minilog.wire.batch import Batch

app = typer.Typer(
    no_args_is_help=True, help="Records that brokers have cut from the ends of their logs: list, export, write again."
)

TailArgument = Annotated[str, typer.Argument(help="The name, as in `minilog lost list`.", show_default=False)]
BrokerOption = Annotated[
    int | None, typer.Option("--broker", "-b", help="The copy of this broker alone.", min=0, show_default=False)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
COLUMNS = [
    Column("tail", "TAIL"),
    Column("broker_id", "BROKER", right=True),
    Column("records", "RECORDS", right=True),
    Column("acks_1", "ACKS=1", right=True),
    Column("acks_many", "ACKS>1", right=True),
    Column("cut_at", "CUT AT (UTC)"),
    Column("written", "WRITTEN AGAIN"),
    Column("from", "FROM (UTC)", wide=True),
    Column("to", "TO (UTC)", wide=True),
    Column("topic_id", "TOPIC ID", wide=True),
    Column("reason", "WHY", wide=True),
]
ASK_AGAIN_S = 0.5
PATIENCE_S = 30.0
"""For as long a replay is asked again that met an outage: it writes nothing twice."""


@app.command("list")
def list_(
    topic: Annotated[str | None, typer.Option("--topic", "-t", help="Of this topic alone.", show_default=False)] = None,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """What every broker keeps.

    Exit code 1 when there is something that was not written again, 3 when a broker could not be
    asked.
    """
    found = find(url)
    tails = [tail for tail in found.tails if topic in (None, tail.topic)]
    if output in (Format.json, Format.yaml):
        show_value([msgspec.to_builtins(tail) for tail in tails], output)
    else:
        show_rows([_row(tail) for tail in tails], COLUMNS, output, empty="no lost records are kept")
    if any(not _is_done(tail) for tail in tails) and output is Format.table:
        note("`minilog lost replay TAIL` writes records again, `minilog lost export TAIL` prints them")
    if found.unasked:
        return ExitCode.UNREACHABLE
    return ExitCode.FINE if all(map(_is_done, tails)) else ExitCode.REFUSED


@app.command()
def show(
    tail: TailArgument, broker: BrokerOption = None, url: UrlOption = None, output: OutputOption = Format.table
) -> int:
    """All that is known of one tail, and of each copy of it."""
    shown = [msgspec.to_builtins(copy) for copy in copies(find(url), tail, broker)]
    if output in (Format.json, Format.yaml):
        show_value(shown, output)
        return ExitCode.FINE
    for number, copy in enumerate(shown):
        if number:
            print()
        show_value(_readable(copy), output)
    return ExitCode.FINE


@app.command()
def export(tail: TailArgument, broker: BrokerOption = None, url: UrlOption = None) -> int:
    """Print the records as NDJSON, with keys, headers and times: `minilog topic produce --ndjson`
    reads that.

    Exit code 1 when some cannot be read.
    """
    from minilog.cli.topic.consume import ndjson_line
    from minilog_client.consumer.records import decode

    found = find(url)
    copy = copies(found, tail, broker)[0]
    exit_code, printed = ExitCode.FINE, 0
    for batch in _batches(found.urls[copy.broker_id], copy):
        try:
            records = decode(copy.topic, copy.partition, batch, batch.base_offset)
        except CorruptBatch as error:
            note(f"offsets {batch.base_offset} to {batch.last_offset} cannot be decoded: {error.detail}")
            exit_code = ExitCode.REFUSED
            continue
        sys.stdout.buffer.writelines(map(ndjson_line, records))
        printed += len(records)
    if printed < copy.records:
        note(
            f"{copy.records - printed} of {copy.records} records cannot be read: broker {copy.broker_id} keeps a damaged copy"
        )
        exit_code = ExitCode.REFUSED
    if copy.unreadable_bytes:
        note(
            f"{copy.unreadable_bytes} bytes of it are no records that can be read; they are in the quarantine of broker {copy.broker_id}"
        )
        exit_code = ExitCode.REFUSED
    return exit_code


def _batches(url: str, copy: LostTailInfo) -> Iterator[Batch]:
    from minilog.wire.batch import split

    offset = copy.base_offset
    while data := read_batches(url, copy, offset):
        for batch in split(data, 2**31 - 1, stored=True):
            yield batch
            offset = batch.end_offset


@app.command()
def replay(
    tail: TailArgument,
    into: Annotated[
        str, typer.Option("--into", help="Another topic; else the one they were in.", show_default=False)
    ] = "",
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", help="Another partition.", min=0, show_default=False)
    ] = None,
    overwrites: Annotated[
        bool,
        typer.Option(
            "--overwrites", help="Also into a compacted topic, or one that was made anew under the same name."
        ),
    ] = False,
    yes: YesOption = False,
    broker: BrokerOption = None,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Write the records again, behind what is there now, each once: safe to repeat, and to go on
    with.

    Three headers say where each was: minilog-lost-partition, minilog-lost-offset,
    minilog-lost-leader-epoch. Of several copies one is written.
    """
    found = find(url)
    copy = copies(found, tail, broker)[0]
    target = f"{into or copy.topic}-{copy.partition if partition is None else partition}"
    _ask(
        f"Write {copy.records} records of {copy.topic}-{copy.partition} again, into {target}? Consumers will read them.",
        yes=yes or copy.replay is not None,
    )
    body: dict[str, Any] = {"overwrites": overwrites} | ({"into": into} if into else {})
    if partition is not None:
        body["partition"] = partition
    done = _replay(Api(found.urls[copy.broker_id]), copy, body)
    assert done.replay is not None
    if output in (Format.json, Format.yaml):
        show_value(msgspec.to_builtins(done), output)
    else:
        print(outcome(done, find(url)))
    return ExitCode.FINE


def _replay(api: Api, copy: LostTailInfo, body: dict[str, Any]) -> LostTailInfo:
    failing_since_s: float | None = None
    with progress_bar("written", copy.records, "records") as advance:
        while True:
            try:
                told = api.ask("replay_lost", LostTailInfo, body=body, tail=copy.tail)
            except RetriableError as error:
                now_s = time.monotonic()
                failing_since_s = failing_since_s or now_s
                if now_s - failing_since_s > PATIENCE_S:
                    raise CliError(
                        f"{error.detail}; the same command goes on later, and writes nothing twice",
                        ExitCode.UNREACHABLE,
                    ) from None
                time.sleep(ASK_AGAIN_S)
                continue
            failing_since_s = None
            assert told.replay is not None
            advance(told.replay.written)
            if told.replay.finished:
                return told


def outcome(done: LostTailInfo, found: Found) -> str:
    made = done.replay
    assert made is not None
    sentence = f"{made.written} records of {done.tail} are in {made.into}-{made.partition} again"
    if made.first_offset is not None and made.end_offset is not None:
        sentence += f", between offsets {made.first_offset} and {made.end_offset - 1}"
    elsewhere = done.records - made.claimed
    if elsewhere > 0:
        sentence += f"; {elsewhere} were left to other copies, {whose(found, done)}"
    if made.skipped:
        sentence += f"; {made.skipped} cannot be read or have no room in a batch of that topic: `minilog lost export` has what can be read"
    return sentence


@app.command()
def discard(tail: TailArgument, yes: YesOption = False, broker: BrokerOption = None, url: UrlOption = None) -> int:
    """Remove the records for good, every copy of them."""
    found = find(url)
    fitting = copies(found, tail, broker)
    where = ", ".join(str(copy.broker_id) for copy in fitting)
    again = "" if all(map(_is_done, fitting)) else " They were not written again."
    _ask(f"Remove {fitting[0].records} lost records, {tail}, from broker {where} for good?{again}", yes=yes)
    for copy in fitting:
        Api(found.urls[copy.broker_id]).change("discard_lost", tail=tail)
        note(f"{tail} removed from broker {copy.broker_id}")
    return ExitCode.FINE


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"{question} Say --yes", ExitCode.USAGE)
    typer.confirm(question, abort=True, err=True)


def _is_done(tail: LostTailInfo) -> bool:
    return tail.replay is not None and tail.replay.finished and not tail.left_open


def _row(tail: LostTailInfo) -> dict[str, object]:
    made = tail.replay
    written = tail.note or "no"
    if made is not None:
        written = f"{made.written} into {made.into}-{made.partition}" + ("" if made.finished else ", unfinished")
        written += f", {tail.left_open} left to others" if tail.left_open else ""
    return {
        **msgspec.to_builtins(tail),
        "acks_1": tail.records_by_acks.get("1", 0),
        "acks_many": tail.records_by_acks.get("many", 0),
        "cut_at": _time(tail.cut_at_ms),
        "from": _time(tail.first_timestamp),
        "to": _time(tail.last_timestamp),
        "written": written,
    }


def _readable(copy: dict[str, Any]) -> dict[str, Any]:
    for name in ("cut_at_ms", "first_timestamp", "last_timestamp"):
        copy[name] = _time(copy[name])
    return {name.removesuffix("_ms"): value for name, value in copy.items() if value != ""}


def _time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
