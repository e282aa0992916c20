"""What ends a process, or keeps one from starting. Never sent to a client."""

from __future__ import annotations


class StorageFailed(Exception):
    """The disk failed (EIO, a failed fsync): the process must stop."""


class NameRefused(StorageFailed):
    """The file system takes no file of that name: nothing was done, and the disk is as good as
    before: whoever can do without the file goes on."""


class RefusesToStart(Exception):
    """A start that would be unsafe or senseless. The operator reads its message."""


class Deposed(Exception):
    """Another process does what this one did: it ends, and changes nothing any more."""
