"""Lines from stdin or a file, as soon as they come, until the end or until somebody says stop.

A pipe or a terminal is waited for on the loop and read when it has something, so nothing stays
behind in a thread. A byte order mark at the very beginning is no part of the first line.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from typing import BinaryIO

from minilog.cli.output import CliError, ExitCode
from minilog.wire.json.json_records import BYTE_ORDER_MARK

LINE_BYTES_MAX = 64 * 1024 * 1024
READ_BYTES = 256 * 1024


async def chunks(lines: BinaryIO, stop: asyncio.Event) -> AsyncIterator[list[bytes]]:
    """Lines without their ends: a slow pipe is not waited for, a file comes by the hundreds. Raises
    CliError (usage) for a line that cannot be one."""
    handle, rest, count = lines.fileno(), b"", 0
    is_first = True
    while data := await _read(handle, stop):
        if is_first and len(rest + data) >= len(BYTE_ORDER_MARK):
            data, rest, is_first = (rest + data).removeprefix(BYTE_ORDER_MARK), b"", False
        *whole, rest = (rest + data).split(b"\n")
        yield [line.removesuffix(b"\r") for line in whole]
        count += len(whole)
        if len(rest) > LINE_BYTES_MAX:
            raise CliError(
                f"line {count + 1} has more than {LINE_BYTES_MAX} bytes; it cannot be one record", ExitCode.USAGE
            )
    if rest and not stop.is_set():
        yield [rest]


async def _read(handle: int, stop: asyncio.Event) -> bytes:
    """What is there by now, nothing at the end or once it is time to stop."""
    loop = asyncio.get_running_loop()
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return b"" if stop.is_set() else await loop.run_in_executor(None, os.read, handle, READ_BYTES)
    there = asyncio.Event()
    try:
        loop.add_reader(handle, there.set)
    except PermissionError:  # what cannot be waited for, such as /dev/null, is there
        return b"" if stop.is_set() else os.read(handle, READ_BYTES)
    waiting = [asyncio.ensure_future(event.wait()) for event in (there, stop)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(handle)
        for task in waiting:
            task.cancel()
    return b"" if stop.is_set() else os.read(handle, READ_BYTES)
