"""The test's side of the nursery: one for all tests of a process, made when it is first needed."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final

import msgspec

from tests.process.nursery.newborn import REQUEST_BYTES_MAX, Born, Ended, Wanted
from tests.process.rig import slow_syncs

BIRTH_S: Final = 60.0
ROOT: Final = Path(__file__).parents[3]
_Told = Born | Ended


class Child:
    """A process, with what of ``subprocess.Popen`` the cluster asks. ``stdin`` is a pipe: its end
    is the end of the test."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.returncode: int | None = None
        self._ended = threading.Event()

    def end(self, status: int) -> None:
        self.returncode = status
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode


class Nursery:
    def __init__(self) -> None:
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        preload = {} if slow_syncs.unavailable() else {"LD_PRELOAD": str(slow_syncs.library())}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.nursery.newborn", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | preload,
                pass_fds=[other.fileno()],
            )
        self._asking = threading.Lock()
        self._births: SimpleQueue[int] = SimpleQueue()
        self._children: dict[int, Child] = {}
        self._early: dict[int, int] = {}
        """Statuses of those that ended before anybody knew them."""
        self._knowing = threading.Lock()
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def bear(self, wanted: Wanted, log: IO[bytes]) -> Child:
        """Start ``minilog`` with ``wanted.arguments``, which writes to ``log``."""
        reading, writing = os.pipe()
        with self._asking:
            try:
                socket.send_fds(self._channel, [msgspec.json.encode(wanted)], [reading, log.fileno()])
                pid = self._births.get(timeout=BIRTH_S)
            except (Empty, OSError) as error:
                raise AssertionError(f"the nursery bears nothing; it ended with {self._process.poll()}") from error
            finally:
                os.close(reading)
        child = Child(pid, os.fdopen(writing, "wb"))
        with self._knowing:
            if pid in self._early:
                child.end(self._early.pop(pid))
            else:
                self._children[pid] = child
        return child

    def _listen(self) -> None:
        while data := self._channel.recv(REQUEST_BYTES_MAX):
            told: _Told = msgspec.json.decode(data, type=_Told)
            if isinstance(told, Born):
                self._births.put(told.pid)
                continue
            with self._knowing:
                child = self._children.pop(told.pid, None)
                if child is None:
                    self._early[told.pid] = told.status
                else:
                    child.end(told.status)


@functools.cache
def nursery() -> Nursery:
    return Nursery()
