"""Points: the recovery points of all logs of a broker, in one file: one for each would cost two
syncs for each of them.

Owns: ``recovery-points``. Without it every log is scanned from its start: slow, but safe.

Invariants:
* A point speaks for one topic id, and for what was written in one boot: in another one, what came
  after it may be lost.
* What the saved points say of a log is believed by the next start, also that there is such a log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.recovery.recovery import NOTHING_KNOWN


class Point(NamedTuple):
    """``boot_id`` is the machine's when the point was taken: in another boot, what came after it
    may be lost."""

    topic_id: str
    boot_id: str
    point: RecoveryPoint


class Points:
    """Points by the names of the partitions' directories."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.saved: dict[str, Point] = {}
        """What the file says."""
        self._disk, self._path = disk, path
        self._points: dict[str, Point] = {}

    def load(self) -> None:
        body = checkpoint.load_dispensable(self._disk, self._path)
        for name, (topic_id, boot_id, offset, high_watermark, generation, epochs) in body.get("logs", {}).items():
            ages = map(_pairs, body.get("ages", {}).get(name, ()))
            point = RecoveryPoint(offset, high_watermark, generation, _pairs(epochs), *ages)
            self.saved[name] = Point(topic_id, boot_id, point)
        self._points = dict(self.saved)

    def save(self) -> None:
        """Raises DiskFull: what was saved before stays good."""
        if self._points == self.saved:
            return
        points = sorted(self._points.items())
        logs = {name: (known.topic_id, known.boot_id, *known.point[:4]) for name, known in points}
        ages = {name: known.point[4:] for name, known in points if known.point.written}
        checkpoint.save(self._disk, self._path, {"logs": logs, "ages": ages})
        self.saved = dict(self._points)

    def note(self, name: str, known: Point) -> None:
        self._points[name] = known

    def forget(self, names: Collection[str]) -> None:
        for name in names:
            self._points.pop(name, None)

    def of(self, name: str, topic_id: str, made_in: str) -> Point:
        """What is known of the log of that topic id. Without a point, only the boot that its
        directory was ``made_in``."""
        known = self._points.get(name)
        if known is None or known.topic_id != topic_id:
            return Point(topic_id, made_in, NOTHING_KNOWN)
        return known

    def without(self, here: Collection[str]) -> list[str]:
        """Names that there are points of, and that are not ``here``."""
        return [name for name in self._points if name not in here]

    def held_records(self, name: str) -> bool:
        return self._points[name].point.offset > 0


def _pairs(entries: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((first, second) for first, second in entries)
