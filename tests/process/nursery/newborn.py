"""Imports minilog once, and forks off one process for every request that comes through the channel.

A newborn is what ``python -m minilog ARGUMENTS`` would be: a session, files, environment and folder
of its own, the default actions for signals, and the exit status of the interpreter. It can be put
into a namespace of the network, and be shown another machine's boot id, before it begins."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
from typing import Final

import msgspec

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 0x80000
_BOOT_ID: Final = b"/proc/sys/kernel/random/boot_id"
REQUEST_BYTES_MAX: Final = 256 * 1024


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """``namespace``, ``boot_id`` and ``sync_delay`` are files, or "". ``descriptors_max`` 0: as
    many as the nursery."""

    arguments: list[str]
    variables: dict[str, str]
    folder: str
    namespace: str = ""
    boot_id: str = ""
    sync_delay: str = ""
    descriptors_max: int = 0


class Born(msgspec.Struct, frozen=True, tag=True):
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """``status`` as ``subprocess`` tells it: the negative number of a signal that ended it."""

    pid: int
    status: int


class Nurse:
    """The loop of the process that forks."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._bell, ringer = socket.socketpair()
        self._bell.setblocking(False)
        ringer.setblocking(False)
        self._ringer = ringer
        signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> Wanted | None:
        """Returns what is wanted of a newborn in the newborn, and None in this process when nobody
        asks any more."""
        while True:
            ready, _, _ = select.select([self._channel, self._bell], [], [])
            if self._bell in ready:
                self._bell.recv(4096)
                self._reap()
            if self._channel in ready:
                data, files, _, _ = socket.recv_fds(self._channel, REQUEST_BYTES_MAX, 2)
                if not data:
                    return None
                wanted = msgspec.json.decode(data, type=Wanted)
                pid = os.fork()
                if pid == 0:
                    self._leave(files)
                    return wanted
                self._tell(Born(pid))
                for file in files:
                    os.close(file)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._tell(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, what: Born | Ended) -> None:
        self._channel.send(msgspec.json.encode(what))

    def _leave(self, files: list[int]) -> None:
        """In the newborn: a session, and files, of its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for own in (self._channel, self._bell, self._ringer):
            own.close()
        os.setsid()
        input_, log = files
        for number, file in enumerate((input_, log, log)):
            os.dup2(file, number)
        for file in files:
            os.close(file)


def settle(wanted: Wanted) -> None:
    """Everything of the newborn's surroundings but its files."""
    os.environ.clear()
    os.environ.update(wanted.variables)
    libc = ctypes.CDLL(None, use_errno=True)
    if wanted.namespace:
        handle = os.open(wanted.namespace, os.O_RDONLY)
        _checked(libc.setns(handle, _CLONE_NEWNET), wanted.namespace)
        os.close(handle)
    if wanted.boot_id:
        _checked(libc.unshare(_CLONE_NEWNS), "unshare")
        _checked(libc.mount(None, b"/", None, _MS_SLAVE | _MS_REC, None), "/")
        _checked(libc.mount(os.fsencode(wanted.boot_id), _BOOT_ID, None, _MS_BIND, None), wanted.boot_id)
    if wanted.sync_delay:
        _checked(libc.delay_syncs_as_told_by(os.fsencode(wanted.sync_delay)), wanted.sync_delay)
    if wanted.descriptors_max:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted.descriptors_max, wanted.descriptors_max))
    os.chdir(wanted.folder)
    sys.argv[:] = ["minilog", *wanted.arguments]


def _checked(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    for module in ("broker.main", "controller.main", "cli.serve"):
        importlib.import_module(f"minilog.{module}")
    from minilog.cli.main import main

    gc.collect()
    gc.freeze()
    asked = Nurse(socket.socket(fileno=int(sys.argv[1]))).serve()
    if asked is not None:
        settle(asked)
        main()
