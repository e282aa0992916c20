"""``minilog topic produce``: lines or NDJSON from stdin or a file, into a topic."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from asyncio import Future
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import msgspec
import typer

from minilog.cli.access import client_options
from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.topic.lines import chunks
from minilog.config import topic_settings
from minilog.errors import (
    BufferFull,
    InvalidConfig,
    InvalidRequest,
    MinilogError,
    RequestTooLarge,
    TimedOut,
    UnknownTopic,
)
from minilog.wire.json.json_records import DECODE_ERRORS, PLAIN, bytes_of, parse_line, reason

if TYPE_CHECKING:
    from minilog_client import AsyncClient, Producer, Receipt
    from minilog_client.options import ProducerOptions

UNANSWERED_MAX = 20_000
BUFFER_FULL_WAIT_S = 0.01
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

AcksOption = Annotated[str, typer.Option("--acks", help="all, 0, 1, or N copies.")]


@dataclass(frozen=True)
class Input:
    """One record to be sent, as a line says it."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


Parser = Callable[[bytes, int], Input | None]
"""What a line and its number mean; None for a blank line where that means nothing."""


@dataclass
class Outcome:
    """What became of the lines. Offsets by partition are [first, end). ``error`` is what ended the
    reading before the end of the input, or the first failure of a record."""

    acknowledged: int = 0
    failed: int = 0
    unsure: int = 0
    """Of the failed, those that may be written all the same."""
    lines_read: int = 0
    error: Exception | None = None
    stopped_by: int | None = None
    """The signal."""
    ranges: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    oldest_ms: int | None = None
    """Of the times that the lines give."""
    first_unwritten: int | None = None
    last_written: int = 0
    """Numbers of lines, from 1."""

    def note_time(self, timestamp_ms: int | None) -> None:
        if timestamp_ms is not None and (self.oldest_ms is None or timestamp_ms < self.oldest_ms):
            self.oldest_ms = timestamp_ms

    def note_unwritten(self, line: int) -> None:
        self.first_unwritten = line if self.first_unwritten is None else min(line, self.first_unwritten)

    def on_refused(self, line: int, error: CliError) -> None:
        """A line that means nothing: the last one that was read."""
        self.error = self.error or error
        self.note_unwritten(line)

    def on_read(self, error: Exception | None) -> None:
        """No more is read, because of ``error`` or not."""
        self.error = self.error or error
        if self.stopped_by is not None or (self.error is not None and self.first_unwritten is None):
            self.note_unwritten(self.lines_read + 1)

    def on_failed(self, line: int, error: BaseException | None) -> None:
        self.failed += 1
        self.unsure += not (isinstance(error, MinilogError) and error.definite)
        self.note_unwritten(line)
        if self.error is None and isinstance(error, MinilogError):
            self.error = error

    def on_done(self, line: int, future: Future[Receipt]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None or future.cancelled():
            self.on_failed(line, error)
            return
        self.acknowledged += 1
        self.last_written = max(self.last_written, line)
        receipt = future.result()
        if receipt.offset is not None:
            known = self.ranges[receipt.partition] or [receipt.offset, receipt.offset]
            self.ranges[receipt.partition] = [min(known[0], receipt.offset), max(known[1], receipt.offset + 1)]

    def where_to_go_on(self) -> str | None:
        """None when all of the input was written."""
        if self.first_unwritten is None:
            return None
        line = self.first_unwritten
        what = "not known to be written" if self.unsure else "not written"
        said = f"line {line} is the first that is {what}: `tail -n +{line}` of the input has it and what follows"
        if self.unsure:
            said += f"; {self.unsure:,} of the lines that failed may be written all the same"
        if self.last_written > line:
            said += f"; some of that, up to line {self.last_written}, is written already"
        return said


def produce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Topic.")],
    file: Annotated[Path | None, typer.Option("--file", "-l", help="Read this instead of stdin.")] = None,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help='Each line is {"value":, "key":, "headers":, "partition":, "timestamp":}.')
    ] = False,
    key_separator: Annotated[
        str | None, typer.Option("--key-separator", "-K", help="What divides key and value of a line.")
    ] = None,
    key_field: Annotated[
        str | None, typer.Option("--key-field", help="Lines are JSON; this member is the key.")
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", "-p", min=0)] = None,
    acks: AcksOption = "all",
    compression: Annotated[str, typer.Option("--compression", "-z")] = "none",
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds a record may take.")] = 30.0,
    url: UrlOption = None,
) -> int:
    """Write records: a line a record, or NDJSON objects. Says on stderr what was acknowledged
    where."""
    if sum((ndjson, key_separator is not None, key_field is not None)) > 1:
        raise CliError("--ndjson, --key-separator and --key-field exclude one another", ExitCode.USAGE)
    if key_separator == "":
        raise CliError("--key-separator is empty; give the characters between key and value", ExitCode.USAGE)
    parse = parse_ndjson if ndjson else line_parser(key_separator, key_field)
    options: ProducerOptions = {
        "acks": acks_value(acks),
        "compression": compression,  # type: ignore[typeddict-item]
        "delivery_timeout_ms": (timeout_ms := int(timeout_s * 1000)),
        "flush_timeout_ms": 2 * timeout_ms,  # so that each record has its time
    }
    api = Api(url)
    with _opened(file) as lines:
        topics = api.metadata([name]).topics
        if not topics:
            raise UnknownTopic(f"there is no topic {name!r}; `minilog topic create {shlex.quote(name)}` makes it")
        outcome = asyncio.run(account(partial(_client, api.url), name, lines, parse, partition, options))
    for number, (first, end) in sorted(outcome.ranges.items()):
        note(f"partition {number}: offsets {first} to {end - 1}")
    said = "sent (acks=0 tells no offsets)" if acks == "0" else "acknowledged"
    note(f"{outcome.acknowledged:,} records {said}" + (f", {outcome.failed:,} failed" if outcome.failed else ""))
    if (rest := outcome.where_to_go_on()) is not None:
        note(rest)
    if outcome.acknowledged and outcome.oldest_ms is not None:
        fate = fate_of_history(topics[0].config, outcome.oldest_ms, time.time_ns() // 1_000_000)
        if fate is not None:
            note(fate)
    if outcome.error is not None:
        raise outcome.error
    return ExitCode.FINE if outcome.stopped_by is None else 128 + outcome.stopped_by


def fate_of_history(config: dict[str, str], oldest_ms: int, now_ms: int) -> str | None:
    """What retention will do to records of that time (R40); None when nothing that would
    surprise."""
    try:
        settings = topic_settings(config)
    except InvalidConfig:  # of a newer version
        return None
    if not settings.is_deleted or settings.retention_ms < 0 or now_ms - oldest_ms <= settings.retention_ms:
        return None
    limit = f"retention.ms = {settings.retention_ms:,}"
    if settings.retention_by == "timestamp":
        return f"records older than {limit} go at the next look for what is old: this topic goes by their own times (retention.by)"
    return f"records older than {limit} stay for as long again from now; retention.ms = -1 keeps them for good"


def acks_value(text: str) -> Literal["all"] | int:
    if text == "all" or text.isdecimal():
        return "all" if text == "all" else int(text)
    raise CliError(f"--acks {text!r}: allowed are all, 0, 1, or how many copies", ExitCode.USAGE)


def line_parser(key_separator: str | None, key_field: str | None) -> Parser:
    def plain(line: bytes, number: int) -> Input:
        if key_separator is None:
            return Input(line)
        key, found, value = line.partition(key_separator.encode())
        if not found:
            raise CliError(
                f"line {number} has no {key_separator!r} between key and value: {shown(line)}", ExitCode.USAGE
            )
        return Input(value, key)

    def keyed(line: bytes, number: int) -> Input | None:
        if not line.strip():
            return None
        assert key_field is not None
        return Input(line, _member(line, number, key_field))

    return plain if key_field is None else keyed


def _member(line: bytes, number: int, name: str) -> bytes | None:
    """A member as a key, by the same rule as the keys of NDJSON. Raises CliError."""
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        line.decode()
    except DECODE_ERRORS as error:
        raise CliError(f"line {number} is no JSON object ({reason(error)}): {shown(line)}", ExitCode.USAGE) from None
    if name not in members:
        raise CliError(f"line {number} has no member {name!r}: {shown(line)}", ExitCode.USAGE)
    return bytes_of(f"line {number}", name, members[name], PLAIN)


def parse_ndjson(line: bytes, number: int) -> Input | None:
    """As POST .../records takes it, to the byte. None for a blank line."""
    if not line.strip():
        return None
    try:
        record = parse_line(f"line {number}", line, "json", PLAIN, time_ns() // 1_000_000)
    except (InvalidRequest, RequestTooLarge) as error:
        raise CliError(f"{error.detail}: {shown(line)}", ExitCode.USAGE) from None
    return Input(record.value, record.key, record.headers, record.partition, record.timestamp)


def shown(line: bytes) -> str:
    return ascii(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        lines = file.open("rb")
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE) from None
    with lines:
        yield lines


def _client(url: str) -> AsyncClient:
    from minilog_client import AsyncClient

    return AsyncClient(url, **client_options())


async def account(
    connect: Callable[[], AsyncClient],
    topic: str,
    lines: BinaryIO,
    parse: Parser,
    partition: int | None,
    options: ProducerOptions,
) -> Outcome:
    """What became of the lines, whatever ends it. Raises only what was met before the first one was
    read."""
    outcome, stop = Outcome(), asyncio.Event()
    with _stopping(outcome, stop):
        try:
            async with connect() as client, client.producer(**options) as producer:
                sending = _Sending(producer, topic, partition, parse, outcome)
                outcome.on_read(await _send_all(sending, lines, stop))
                try:
                    await producer.flush()
                except TimedOut as error:  # what is not settled is given up when the producer is closed
                    outcome.error = outcome.error or error
        except MinilogError as error:
            if not outcome.lines_read:
                raise
            outcome.error = outcome.error or error
        except asyncio.CancelledError:
            if outcome.stopped_by is None:
                raise
            outcome.on_read(None)
        await asyncio.sleep(0)  # what has just failed is told of
    return outcome


async def _send_all(sending: _Sending, lines: BinaryIO, stop: asyncio.Event) -> Exception | None:
    """Until the end of the input, the first failure, or the stop. Why no more can be read, or
    None."""
    outcome = sending.outcome
    try:
        async for some in chunks(lines, stop):
            for line in some:
                if stop.is_set() or not await sending.send(line):
                    return None
            if outcome.error is not None:
                return None
    except CliError as error:
        return error
    except OSError as error:
        return CliError(f"the input cannot be read behind line {outcome.lines_read}: {error.strerror}")
    return None


@dataclass
class _Sending:
    producer: Producer
    topic: str
    partition: int | None
    parse: Parser
    outcome: Outcome
    unanswered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UNANSWERED_MAX))

    async def send(self, line: bytes) -> bool:
        """False: it cannot be sent, and what comes behind it is not."""
        outcome = self.outcome
        outcome.lines_read += 1
        try:
            record = self.parse(line, outcome.lines_read)
        except CliError as error:
            outcome.on_refused(outcome.lines_read, error)
            return False
        if record is None:
            return True
        outcome.note_time(record.timestamp_ms)
        await self.unanswered.acquire()
        try:
            future = await _send(self.producer, self.topic, record, self.partition)
        except MinilogError as error:
            outcome.on_failed(outcome.lines_read, error)
            return False
        future.add_done_callback(partial(self._on_done, outcome.lines_read))
        return True

    def _on_done(self, line: int, future: Future[Receipt]) -> None:
        self.unanswered.release()
        self.outcome.on_done(line, future)


@contextmanager
def _stopping(outcome: Outcome, stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the reading: what was read is still delivered and accounted for. The
    second one ends everything."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def on_signal(number: int) -> None:
        if stop.is_set():
            task.cancel()
        outcome.stopped_by = number
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _send(producer: Producer, topic: str, record: Input, partition: int | None) -> Future[Receipt]:
    """Waits for room when the buffer is full. The delivery timeout empties it in the end."""
    while True:
        try:
            return producer.send_nowait(
                topic,
                record.value,
                record.key,
                record.headers,
                partition=record.partition if record.partition is not None else partition,
                timestamp_ms=record.timestamp_ms,
            )
        except BufferFull:
            await asyncio.sleep(BUFFER_FULL_WAIT_S)
