"""How busy the machine was meanwhile, from /proc/stat: figures of two cores mean little without it;
and priority."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIELDS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class CpuTimes:
    """Of all cores, in ticks since the machine started."""

    ticks: tuple[int, ...]

    @classmethod
    def now(cls) -> CpuTimes:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return cls(tuple(map(int, first[1 : 1 + len(FIELDS)])))

    def shares(self, until: CpuTimes | None = None) -> dict[str, float]:
        """What each kind had of all the time since then; waiting for a disk counts as idle."""
        passed = [after - before for before, after in zip(self.ticks, (until or CpuTimes.now()).ticks, strict=True)]
        total = max(1, sum(passed))
        shares = {name: round(ticks / total, 4) for name, ticks in zip(FIELDS, passed, strict=True)}
        return {**shares, "idle": round(shares["idle"] + shares["iowait"], 4)}


def share_priority(session: int) -> None:
    """Give a session that this process leads or has started its own priority, when that is a raised
    one.

    Kernels that group processes by session (autogroup) weigh the groups: there niceness alone
    counts for nothing."""
    niceness = os.nice(0)
    if niceness < 0:
        with contextlib.suppress(OSError):
            Path(f"/proc/{session}/autogroup").write_text(str(niceness))
