"""Copies of data directories, as backups and snapshots make them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.process.rig import faulty_disk


def take_copy(data_dir: Path, copy: Path) -> None:
    """Also of a running process: files may change and go while they are copied."""
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-a", str(data_dir), str(copy)], capture_output=True, check=False)


def restore(copy: Path, data_dir: Path) -> None:
    """In place of all that is there. The folder stays: a volume may be mounted there.

    What ``cp`` has written is synced, or a power cut in a later round would take it: nobody but
    ``cp`` would be to blame."""
    faulty_disk.wipe(data_dir)
    subprocess.run(["cp", "-a", f"{copy}/.", str(data_dir)], check=True, capture_output=True)
    subprocess.run(["sync", "-f", str(data_dir)], check=True, capture_output=True)
