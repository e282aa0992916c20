"""The end of a process whose application has closed nothing: what was accepted is sent, in a
bounded time, and what could not be is said on stderr.

A loop that runs in a thread of its own can still send then. One that was the application's has
ended before, so of its records there is only something to say."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

from minilog_client.producer.sender import Sender

_senders: WeakSet[Sender] = WeakSet()
_flushers: dict[object, Callable[[], Callable[[], object]]] = {}


def _on_forked() -> None:
    """The records are those of the process that this was forked off."""
    _senders.clear()
    _flushers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_on_forked)


def watch(sender: Sender) -> None:
    """Say so if ``sender`` has records when the process ends."""
    _senders.add(sender)


def flush_by(owner: object, begin: Callable[[], Callable[[], object]]) -> None:
    """``begin`` begins to flush what ``owner`` has, and returns what waits for the end of that."""
    _flushers[owner] = begin


def forget(owner: object) -> None:
    _flushers.pop(owner, None)


def _at_exit() -> None:
    waits = []
    for begin in list(_flushers.values()):
        with suppress(Exception):  # what it could not flush is said below
            waits.append(begin())
    for wait in waits:
        with suppress(Exception):
            wait()
    for sender in list(_senders):
        sender.failures.tell()
        report(sender)


def report(sender: Sender) -> None:
    """Say what ``sender`` has not got rid of."""
    if not sender.closed and sender.accumulator.buffered_bytes:
        said, _ = sender.unsettled()
        print(f"minilog_client: the process ends, and no producer was flushed or closed: {said}", file=sys.stderr)


atexit.register(_at_exit)
