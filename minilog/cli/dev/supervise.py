"""``dev up`` in the foreground: tells what happens to the processes and shows what they say of
importance."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from minilog.cli.local.cluster import LOG_PREFIX, DevCluster, Member

POLL_S = 0.2
SHOWN_LEVELS = frozenset({"WARNING", "ERROR", "CRITICAL"})


LOOK_BYTES_MAX = 1 << 20


class LogTail:
    """What was added to a log file since the last look, line by line.

    Of a line that is longer than a look it shows the beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0
        self._in_long_line = False

    def lines(self) -> Iterator[str]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            self.position = min(self.position, file.seek(0, os.SEEK_END))  # somebody may have emptied it
            file.seek(self.position)
            new = file.read(LOOK_BYTES_MAX)
        whole, newline, _ = new.rpartition(b"\n")
        if not newline and len(new) == LOOK_BYTES_MAX:
            whole = new
        self.position += len(whole) + len(newline)
        lines = whole.decode("utf-8", "replace").splitlines()
        yield from lines[1:] if self._in_long_line else lines
        if whole or newline:
            self._in_long_line = not newline


def supervise(cluster: DevCluster) -> None:
    """Returns on SIGINT, SIGTERM or SIGHUP. The caller stops the processes."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    tails = {member.name: LogTail(member.log_file) for member in cluster.members}
    states = {member.name: (member.state(), member.pid()) for member in cluster.members}
    try:
        while not stop.wait(POLL_S):
            statuses = dict(cluster.reap())
            for member in cluster.members:
                for line in tails[member.name].lines():
                    if is_important(line):
                        print(f"{member.name}: {line}", flush=True)
                now = (member.state(), member.pid())
                if now != states[member.name]:
                    states[member.name] = now
                    print(change_sentence(member, *now, statuses.get(member.name), cluster.data_words), flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_important(line: str) -> bool:
    """Warnings and worse, and whatever is not a log line at all (a crash speaks so)."""
    match = LOG_PREFIX.match(line)
    return match is None or match["level"] in SHOWN_LEVELS


def change_sentence(member: Member, state: str, pid: int | None, status: int | None, data: str = "") -> str:
    """``data``: the words that name the cluster's folder in a command."""
    if state == "dead":
        how = f" by signal {-status}" if status is not None and status < 0 else f" with exit code {status}"
        again = f"`minilog dev start {member.id if member.role == 'broker' else member.name}{data}`"
        return f"{member.name} ended{how if status is not None else ''}; {again} starts it again"
    return f"{member.name} is {state}, pid {pid}"
