"""What a figure was measured on, and beside what: without it nobody can repeat or judge it."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import minilog
from minilog import machine
from minilog.wire.codec import codec

SYNCS: Final = 21
SYNC_BYTES: Final = 1024
GIT_S: Final = 2.0


def surroundings() -> dict[str, Any]:
    """Of this machine and this minilog. The disk is that of temporary folders, where the cluster of
    a benchmark lies."""
    load = os.getloadavg()[0]
    return {
        "version": minilog.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "codec": "compiled" if codec.COMPILED else "pure Python",
        "cores": os.cpu_count(),
        "fsync_ms": round(sync_ms(Path(tempfile.gettempdir())), 2),
        "load_before": round(load, 1),
    }


def header(found: dict[str, Any]) -> str:
    """One line above a table."""
    commit = f" ({found['commit']})" if found["commit"] else ""
    return (
        f"minilog {found['version']}{commit}, Python {found['python']}, {found['codec']} codec, {found['cores']} cores, "
        f"fsync {found['fsync_ms']} ms, load {found['load_before']} before"
    )


def sync_ms(folder: Path) -> float:
    """The median time that the disk takes to keep a kilobyte."""
    taken_ms = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNC_BYTES))
            file.flush()
            began_s = time.monotonic()
            machine.sync_content(file.fileno())
            taken_ms.append((time.monotonic() - began_s) * 1000)
    return sorted(taken_ms)[SYNCS // 2]


def _commit() -> str | None:
    """Of a checkout. None where minilog was installed."""
    root = Path(minilog.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
