"""One operating-system process as this machine's other commands can find it again.

A pid alone may have been recycled, so a pid file also holds the process's start time as the kernel
tells it, and every signal goes through ``signal_to``, which checks that the pid still means the
same process. On Linux it holds a pidfd while it checks, so that not even a race can hit a stranger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

import msgspec

State = Literal["running", "paused", "dead"]


class PidFile(msgspec.Struct, frozen=True):
    """``start_mark`` is opaque: equal for the same process, different for a later one with the same
    pid."""

    pid: int
    start_mark: str


class Stat(msgspec.Struct, frozen=True):
    state: str
    start_mark: str


def stat(pid: int) -> Stat | None:
    """The kernel's one-letter state and the start mark; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _stat_by_ps(pid)
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], fields[19])


def _stat_by_ps(pid: int) -> Stat | None:
    shown = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    letter, _, started = shown.stdout.strip().partition(" ")
    return Stat(letter[:1], started.strip()) if letter else None


def state(known: PidFile | None) -> State:
    """Zombies count as dead: they hold no port, no file and no lock any more."""
    if known is None:
        return "dead"
    now = stat(known.pid)
    if now is None or now.start_mark != known.start_mark or now.state in "ZX":
        return "dead"
    return "paused" if now.state in "Tt" else "running"


def signal_to(known: PidFile, signal_number: signal.Signals) -> bool:
    """False when that process is gone already. Nothing was signalled then."""
    try:
        handle = os.pidfd_open(known.pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return False
    try:
        if state(known) == "dead":
            return False
        if handle is not None:
            signal.pidfd_send_signal(handle, signal_number)
        else:
            os.kill(known.pid, signal_number)
    except ProcessLookupError:
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def wait_dead(known: PidFile, timeout_s: float) -> bool:
    """True once the process is gone."""
    deadline = time.monotonic() + timeout_s
    while state(known) != "dead":
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def cpu_seconds(pid: int) -> float | None:
    """User and system time so far; None where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_pid_file(path: Path) -> PidFile | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PidFile)
    except (OSError, msgspec.DecodeError):
        return None


def write_pid_file(path: Path, pid: int) -> PidFile:
    """Raises ProcessLookupError when the process is gone already."""
    seen = stat(pid)
    if seen is None:
        raise ProcessLookupError(pid)
    known = PidFile(pid, seen.start_mark)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(known))
    temporary.replace(path)
    return known
