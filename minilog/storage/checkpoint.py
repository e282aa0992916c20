"""Small files replaced atomically: metadata, recovery points, leader epochs, markers.

Owns: the envelope ``{"crc32c":"xxxxxxxx","body":...}`` (plain JSON, readable and checkable by hand)
and the order of operations that makes a replacement atomic: write a temporary file, sync it, rename
the present generation to ``.previous``, rename the new one into place, sync the directory.

Invariant: at every moment, also after a power cut, either the present or the previous generation is
whole. A damaged present generation is told apart from a missing one, because for some files it
means "refuse to start". Why two: a file that was damaged later is no reason to lose what it said
before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from crc32c import crc32c

from minilog.errors import CorruptRange
from minilog.storage.disk import Disk

PREVIOUS = ".previous"
TEMPORARY = ".tmp"
_PREFIX = b'{"crc32c":"%08x","body":'
_PREFIX_BYTES = len(_PREFIX % 0)
_SUFFIX = b"}\n"


class Loaded(NamedTuple):
    """``body`` is None when no whole generation exists. ``damaged`` says that the present one is
    there but bad."""

    body: dict[str, Any] | None
    damaged: bool


def save(disk: Disk, path: str, body: dict[str, Any] | msgspec.Struct, *, keep_previous: bool = True) -> None:
    """Replace the file at ``path`` durably. Raises DiskFull (the old file stays in force) or
    StorageFailed."""
    write_synced(disk, path + TEMPORARY, encode(body))
    if keep_previous:
        with suppress(FileNotFoundError):
            disk.rename(path, path + PREVIOUS)
    disk.rename(path + TEMPORARY, path)
    disk.fsync_dir(os.path.dirname(path))


def load(disk: Disk, path: str) -> Loaded:
    """The newest whole generation of the file at ``path``. Raises CorruptRange when that cannot be
    read."""
    data = read_file(disk, path)
    body = None if data is None else decode(data)
    if body is not None:
        return Loaded(body, damaged=False)
    previous = read_file(disk, path + PREVIOUS)
    return Loaded(None if previous is None else decode(previous), damaged=data is not None)


def remove(disk: Disk, path: str) -> None:
    """Remove the file durably, if it exists."""
    for name in (path, path + PREVIOUS):
        with suppress(FileNotFoundError):
            disk.remove(name)
    disk.fsync_dir(os.path.dirname(path))


def encode(body: dict[str, Any] | msgspec.Struct) -> bytes:
    payload = msgspec.json.encode(body)
    return _PREFIX % crc32c(payload) + payload + _SUFFIX


def decode(data: bytes) -> dict[str, Any] | None:
    """The body of an envelope; None when it is not whole."""
    payload = data[_PREFIX_BYTES : -len(_SUFFIX)]
    if not data.endswith(_SUFFIX) or data[:_PREFIX_BYTES] != _PREFIX % crc32c(payload):
        return None
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def write_synced(disk: Disk, path: str, data: bytes) -> None:
    """Create the file with this content and sync the content. The directory is the caller's to
    sync."""
    handle = disk.create(path)
    try:
        disk.append(handle, 0, [data])
        disk.fdatasync(handle)
    finally:
        disk.close(handle)


def load_dispensable(disk: Disk, path: str) -> dict[str, Any]:
    """The body of a file that one can do without: empty when nothing whole can be read."""
    for name in (path, path + PREVIOUS):
        with suppress(CorruptRange):
            data = read_file(disk, name)
            body = None if data is None else decode(data)
            if body is not None:
                return body
    return {}


def read_file(disk: Disk, path: str) -> bytes | None:
    """The whole content; None when there is no such file. Raises CorruptRange when it cannot be
    read."""
    try:
        handle = disk.open(path)
    except FileNotFoundError:
        return None
    try:
        return disk.pread(handle, 0, disk.size(path))
    except CorruptRange as error:
        raise CorruptRange(f"{path} cannot be read: {error.detail}") from error
    finally:
        disk.close(handle)
