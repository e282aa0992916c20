"""One consumer of a group as a process of its own: reads, and writes down what it was given and
what it read.

    python -m tests.process.load.group_member URL TOPIC GROUP FILE SESSION_TIMEOUT_MS

A line of FILE is one event: ``[seconds, event, group epoch, what]``; seconds are the machine's
monotonic clock, so that the notes of several processes can be laid side by side. SIGTERM ends it
properly.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import groupby

from minilog.errors import MinilogError
from minilog_client import AsyncClient, GroupConsumer


class Notes:
    """Each line is with the kernel when ``write`` returns: a process killed with -9 has written
    what it did."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, epoch: int, what: object) -> None:
        os.write(self._file, json.dumps([time.monotonic(), event, epoch, what]).encode() + b"\n")


async def run(url: str, topic: str, group: str, notes: Notes, session_timeout_ms: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def tell(event: str) -> Callable[[list[tuple[str, int]]], None]:
        return lambda keys: notes.write(event, consumer.member_epoch, [partition for _, partition in keys])

    async with AsyncClient(url) as client:
        consumer = client.consumer(
            topic, group=group, session_timeout_ms=session_timeout_ms, auto_commit_interval_ms=200,
            on_assigned=tell("assigned"), on_revoked=tell("revoked"), on_lost=tell("lost"),
        )  # fmt: skip
        notes.write("begin", 0, os.getpid())
        while not stop.is_set():
            try:
                await read(consumer, notes)
            except MinilogError as error:
                notes.write("error", consumer.member_epoch, repr(error))
        await finish(consumer, notes)
        notes.write("end", 0, None)


async def read(consumer: GroupConsumer, notes: Notes) -> None:
    records = await consumer.batch(max_records=50, max_wait_ms=200)
    for partition, run in groupby(records, key=lambda record: record.partition):
        notes.write("read", consumer.member_epoch, [partition, [record.offset for record in run]])


async def finish(consumer: GroupConsumer, notes: Notes) -> None:
    """What was read is done with; closing alone cannot know that."""
    try:
        await consumer.commit()
    except MinilogError as error:
        notes.write("error", consumer.member_epoch, repr(error))
    await consumer.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    url, topic, group, file, session_timeout_ms = sys.argv[1:]
    asyncio.run(run(url, topic, group, Notes(file), int(session_timeout_ms)))
