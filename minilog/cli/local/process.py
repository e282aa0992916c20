"""One operating-system process as this machine's other commands can find it again.

A pid alone may have been recycled, so a pid file also holds the process's start time as the kernel
tells it, and every signal goes through ``signal_to``, which checks that the pid still means the
same process. Where the kernel lets it, it holds the process while it checks, so that not even
a race can hit a stranger.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import msgspec

from minilog import machine

State = Literal["running", "paused", "dead"]


class Child(Protocol):
    """A process that this one has started, as ``subprocess.Popen`` has it."""

    pid: int
    stdin: IO[bytes] | None
    returncode: int | Any

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class PidFile(msgspec.Struct, frozen=True):
    """``start_mark`` is opaque: equal for the same process, different for a later one with the same
    pid."""

    pid: int
    start_mark: str


def state(known: PidFile | None) -> State:
    """Zombies count as dead: they hold no port, no file and no lock any more."""
    if known is None:
        return "dead"
    now = machine.process_stat(known.pid)
    if now is None or now.start_mark != known.start_mark or now.state in "ZX":
        return "dead"
    return "paused" if now.state in "Tt" else "running"


def signal_to(known: PidFile, signal_number: signal.Signals) -> bool:
    """False when that process is gone already. Nothing was signalled then."""
    try:
        handle = machine.ProcessHandle(known.pid)
    except ProcessLookupError:
        return False
    try:
        if state(known) == "dead":
            return False
        handle.signal(signal_number)
    except ProcessLookupError:
        return False
    finally:
        handle.close()
    return True


def wait_dead(known: PidFile, timeout_s: float) -> bool:
    """True once the process is gone."""
    deadline = time.monotonic() + timeout_s
    while state(known) != "dead":
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def read_pid_file(path: Path) -> PidFile | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PidFile)
    except (OSError, msgspec.DecodeError):
        return None


def write_pid_file(path: Path, pid: int) -> PidFile:
    """Raises ProcessLookupError when the process is gone already."""
    seen = machine.process_stat(pid)
    if seen is None:
        raise ProcessLookupError(pid)
    known = PidFile(pid, seen.start_mark)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(known))
    temporary.replace(path)
    return known
