"""Damage in one segment: what it is, and how what is known of it is kept together.

Owns: the shape of what is known. A range goes from one offset to the one after the last that cannot
be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minilog.storage.segment.scan import BadBatch, Found

Range = tuple[int, int]
RANGES_NOTED_MAX = 64


class Damage(NamedTuple):
    """Bytes ``position`` to ``end_position``, from ``offset`` to ``end_offset``, are not what
    belongs there.

    ``end_offset`` is None when nothing good follows in the file.
    """

    position: int
    end_position: int
    offset: int
    end_offset: int | None
    reason: str

    @classmethod
    def of(cls, bad: BadBatch, resume: Found | None, size_bytes: int) -> Damage:
        """From the bad place up to the next good batch, if there is one before the file's end."""
        if resume is None:
            return cls(bad.position, size_bytes, bad.offset, None, bad.reason)
        return cls(bad.position, resume.position, bad.offset, resume.batch.base_offset, bad.reason)


class WrongEpoch(BadBatch):
    """A batch that is whole, and the log says another leader epoch of its offsets. The checksum
    does not cover it."""

    def __init__(self, position: int, offset: int, end_offset: int, found: int, known: int) -> None:
        super().__init__(position, offset, f"its leader epoch is {found}, the log's epochs say {known}")
        self.end_offset = end_offset


def merged(ranges: Iterable[Range]) -> list[Range]:
    """In order, each offset in one range only."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def noted(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """What is written down of them: where to look, in a bounded number of places."""
    known = merged(ranges)
    if len(known) > RANGES_NOTED_MAX:
        return ((known[0][0], max(end for _, end in known)),)
    return tuple(known)
