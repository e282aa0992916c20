"""``minilog topic produce``: lines or NDJSON from stdin or a file, into a topic."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shlex
import sys
from asyncio import Future
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import msgspec
import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, ExitCode, note
from minilog.errors import BufferFull, MinilogError, UnknownTopic

if TYPE_CHECKING:
    from minilog_client import Producer, Receipt
    from minilog_client.options import ProducerOptions

LINE_BYTES_MAX = 64 * 1024 * 1024
READ_BYTES = 256 * 1024
UNANSWERED_MAX = 20_000
BUFFER_FULL_WAIT_S = 0.01

AcksOption = Annotated[str, typer.Option("--acks", help="all, 0, 1, or N copies.")]


@dataclass(frozen=True)
class Input:
    """One record to be sent, as a line says it."""

    value: bytes | None
    key: bytes | None = None
    headers: dict[str, bytes] | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass
class Outcome:
    """What became of the records. Offsets by partition are [first, end)."""

    acknowledged: int = 0
    failed: int = 0
    first_error: MinilogError | None = None
    ranges: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


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
    parse = parse_ndjson if ndjson else line_parser(key_separator, key_field)
    options: ProducerOptions = {
        "acks": acks_value(acks),
        "compression": compression,  # type: ignore[typeddict-item]
        "delivery_timeout_ms": int(timeout_s * 1000),
    }
    api = Api(url)
    with _opened(file) as lines:
        if not api.metadata([name]).topics:
            raise UnknownTopic(f"there is no topic {name!r}; `minilog topic create {shlex.quote(name)}` makes it")
        outcome = asyncio.run(_produce(api.url, name, lines, parse, partition, options))
    for number, (first, end) in sorted(outcome.ranges.items()):
        note(f"partition {number}: offsets {first} to {end - 1}")
    said = "sent (acks=0 tells no offsets)" if acks == "0" else "acknowledged"
    note(f"{outcome.acknowledged:,} records {said}" + (f", {outcome.failed:,} failed" if outcome.failed else ""))
    if outcome.first_error is not None:
        raise outcome.first_error
    return ExitCode.FINE


def acks_value(text: str) -> Literal["all"] | int:
    if text == "all" or text.isdecimal():
        return "all" if text == "all" else int(text)
    raise CliError(f"--acks {text!r}: allowed are all, 0, 1, or how many copies", ExitCode.USAGE)


def line_parser(key_separator: str | None, key_field: str | None) -> Callable[[bytes, int], Input]:
    def plain(line: bytes, number: int) -> Input:
        if key_separator is None:
            return Input(line)
        key, found, value = line.partition(key_separator.encode())
        if not found:
            raise CliError(
                f"line {number} has no {key_separator!r} between key and value: {shown(line)}", ExitCode.USAGE
            )
        return Input(value, key)

    def keyed(line: bytes, number: int) -> Input:
        members = _json(line, number)
        if not isinstance(members, dict) or key_field not in members:
            raise CliError(f"line {number} has no member {key_field!r}: {shown(line)}", ExitCode.USAGE)
        return Input(line, json_bytes(members[key_field]))

    return plain if key_field is None else keyed


def parse_ndjson(line: bytes, number: int) -> Input:
    """As POST .../records takes it: JSON values are stored as their text, headers are base64."""
    members = _json(line, number)
    if not isinstance(members, dict) or "value" not in members:
        raise CliError(f'line {number} must be an object with a "value": {shown(line)}', ExitCode.USAGE)
    unknown = set(members) - {"value", "key", "headers", "partition", "timestamp"}
    if unknown:
        raise CliError(
            f"line {number}: unknown member {min(unknown)!r}; allowed: value, key, headers, partition, timestamp",
            ExitCode.USAGE,
        )
    for name in ("partition", "timestamp"):
        number_given = members.get(name)
        if number_given is not None and (type(number_given) is not int or number_given < 0):
            raise CliError(f"line {number}: {name} is {number_given!r}; it must be a whole number", ExitCode.USAGE)
    return Input(
        value=json_bytes(members["value"]),
        key=json_bytes(members.get("key")),
        headers=_headers(members.get("headers"), number),
        partition=members.get("partition"),
        timestamp_ms=members.get("timestamp"),
    )


def json_bytes(value: Any) -> bytes | None:
    """null is no value at all, anything else its JSON text. So a text keeps its quotes, as in the
    HTTP API."""
    return None if value is None else msgspec.json.encode(value)


def shown(line: bytes) -> str:
    return ascii(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")


def _headers(given: Any, number: int) -> dict[str, bytes] | None:
    if given is None:
        return None
    try:
        return {one["name"]: base64.b64decode(one["value"], validate=True) for one in given}
    except (TypeError, KeyError, binascii.Error, ValueError):
        raise CliError(
            f'line {number}: headers must be [{{"name": text, "value": base64}}, ...]', ExitCode.USAGE
        ) from None


def _json(line: bytes, number: int) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CliError(f"line {number} is not JSON ({error}): {shown(line)}", ExitCode.USAGE) from None


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


async def _produce(
    url: str,
    topic: str,
    lines: BinaryIO,
    parse: Callable[[bytes, int], Input],
    partition: int | None,
    options: ProducerOptions,
) -> Outcome:
    from minilog_client import AsyncClient

    outcome = Outcome()
    unanswered = asyncio.Semaphore(UNANSWERED_MAX)

    def on_done(future: Future[Receipt]) -> None:
        unanswered.release()
        error = None if future.cancelled() else future.exception()
        if error is not None:
            outcome.failed += 1
            if outcome.first_error is None and isinstance(error, MinilogError):
                outcome.first_error = error
            return
        outcome.acknowledged += 1
        receipt = future.result()
        if receipt.offset is not None:
            known = outcome.ranges[receipt.partition] or [receipt.offset, receipt.offset]
            outcome.ranges[receipt.partition] = [min(known[0], receipt.offset), max(known[1], receipt.offset + 1)]

    async with AsyncClient(url) as client, client.producer(**options) as producer:
        number = 0
        async for some in _chunks(lines):
            for line in some:
                number += 1
                record = parse(line, number)
                await unanswered.acquire()
                future = await _send(producer, topic, record, partition)
                future.add_done_callback(on_done)
            if outcome.first_error is not None:
                break
        await producer.flush()
    return outcome


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


async def _chunks(lines: BinaryIO) -> AsyncIterator[list[bytes]]:
    """Lines without their ends, as soon as they come: a slow pipe is not waited for, a file comes
    by the hundreds."""
    loop = asyncio.get_running_loop()
    rest = b""
    while data := await loop.run_in_executor(None, os.read, lines.fileno(), READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise CliError(f"a line has more than {LINE_BYTES_MAX} bytes; it cannot be one record", ExitCode.USAGE)
        yield [line.removesuffix(b"\r") for line in whole]
    if rest:
        yield [rest]
