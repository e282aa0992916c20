"""Files that may change while the process runs: each is read again when it has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence

Signs = tuple[tuple[int, int, int, int, int] | None, ...]


def signs_of(paths: Sequence[str]) -> Signs:
    """What changes when a file is written, replaced, or given other rights. None: it is not
    there."""
    return tuple(_sign(path) for path in paths)


def _sign(path: str) -> tuple[int, int, int, int, int] | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode
