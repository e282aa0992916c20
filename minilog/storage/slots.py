"""A number that only grows, in a file of fixed size: it can be noted while the disk is full.

Owns: the file's two slots, each of them the envelope of checkpoint.py, filled up with spaces to a
page. The file is made whole, so all its blocks are allocated. From then on it is written in place
and needs no new ones.

Invariants: the slot that is worse off is written first, and synced before the other one is touched,
so a torn write leaves a whole slot that holds at least what was noted before. Both slots are
written each time, so what was noted survives the loss of either. ``load`` finishes what an
interrupted ``save`` began: a slot that a failed sync has left in memory only may show a number the
disk does not hold.
"""

from __future__ import annotations

import os

from minilog.errors import CorruptRange
from minilog.storage import checkpoint
from minilog.storage.disk import Disk

SLOT_BYTES = 4096
SLOTS = 2
_NUMBER = "number"
_BAD = -1


def create(disk: Disk, path: str, number: int) -> None:
    """Make the file, or replace it, durably. Raises DiskFull (an old file stays in force) or
    StorageFailed."""
    checkpoint.write_synced(disk, path + checkpoint.TEMPORARY, _slot(number) * SLOTS)
    disk.rename(path + checkpoint.TEMPORARY, path)
    disk.fsync_dir(os.path.dirname(path))


def load(disk: Disk, path: str) -> int | None:
    """The number; None when neither slot can be read, whatever the reason. Raises
    FileNotFoundError, StorageFailed."""
    handle = disk.open(path)
    try:
        slots = _read(disk, handle)
    finally:
        disk.close(handle)
    if max(slots) == _BAD:
        return None
    if disk.size(path) < SLOT_BYTES * SLOTS:  # its end is gone
        create(disk, path, max(slots))
    elif min(slots) < max(slots):
        save(disk, path, max(slots))
    return max(slots)


def peek(disk: Disk, path: str) -> int | None:
    """As ``load``, and changes nothing."""
    handle = disk.open(path)
    try:
        number = max(_read(disk, handle))
    finally:
        disk.close(handle)
    return None if number == _BAD else number


def save(disk: Disk, path: str, number: int) -> None:
    """Note ``number``, durably. Raises StorageFailed; DiskFull only where a file system writes
    elsewhere than asked (copy on write), and then what was noted before is still there."""
    handle = disk.open(path)
    try:
        slots = _read(disk, handle)
        for at in sorted(range(SLOTS), key=slots.__getitem__):
            disk.overwrite(handle, at * SLOT_BYTES, _slot(number))
            disk.fdatasync(handle)
    finally:
        disk.close(handle)


def _slot(number: int) -> bytes:
    return checkpoint.encode({_NUMBER: number}).rstrip().ljust(SLOT_BYTES - 1) + b"\n"


def _read(disk: Disk, handle: int) -> list[int]:
    return [_read_slot(disk, handle, at * SLOT_BYTES) for at in range(SLOTS)]


def _read_slot(disk: Disk, handle: int, position: int) -> int:
    try:
        data = disk.pread(handle, position, SLOT_BYTES)
    except CorruptRange:
        return _BAD
    body = checkpoint.decode(data.rstrip() + b"\n")
    number = None if body is None or len(data) < SLOT_BYTES else body.get(_NUMBER)
    return number if isinstance(number, int) and number >= 0 else _BAD
