"""Snapshots in the shared journal: pieces first, then one transaction that puts them in force.

The generation before it is kept, frames and pieces: a standby that is behind goes on from them, and
a snapshot that does not match its checksum is passed over. What is older goes in the same
transaction. Each step compares the term (R120), so who was deposed replaces nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec
from crc32c import crc32c

from minilog.core.controller.shared.fence import Fence
from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.transaction import Answer, Compare, Delete, Entry, Get, Put, Transaction
from minilog.errors import Deposed

PIECE_BYTES: Final = 512 * 1024


class Snapshot(msgspec.Struct, frozen=True):
    """It stands for all records up to ``index``. ``before`` is the generation before, which has
    none itself."""

    index: int
    pieces: int
    crc: int
    before: Snapshot | None = None

    @classmethod
    def decode(cls, value: bytes) -> Snapshot | None:
        try:
            return msgspec.json.decode(value, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class Snapshotting:
    """One snapshot on its way. ``steps`` in order; each is repeated until its answer is known."""

    def __init__(
        self, fence: Fence, index: int, data: bytes, former: Entry | None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self._fence, self._places = fence, fence.places
        self._former = former
        before = None if former is None else Snapshot.decode(former.value)
        if before is not None:
            before = msgspec.structs.replace(before, before=None)
        self._pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
        self._before = before
        self.snapshot = Snapshot(index, len(self._pieces), crc32c(data), before)

    def steps(self) -> list[Transaction]:
        held = Compare(self._places.term, self._fence.term_mod)
        look = (Get(self._places.term), Get(self._places.snap))
        made = [
            Transaction((held,), (Put(self._places.piece(self.snapshot.index, number), piece),), look)
            for number, piece in enumerate(self._pieces)
        ]
        mod = 0 if self._former is None else self._former.mod
        kept = 0 if self._before is None else self._before.index
        in_force = (
            Put(self._places.snap, msgspec.json.encode(self.snapshot)),
            Delete(self._places.frame(0), self._places.frame(kept + 1)),
            Delete(self._places.pieces(0), self._places.pieces(kept)),
        )
        return [*made, Transaction((held, Compare(self._places.snap, mod)), in_force, look)]

    def on_done(self, step: Transaction, answer: Answer) -> Entry | None:
        """What is in force after the last step, else None. Raises Deposed."""
        put = step.then[0]
        assert isinstance(put, Put)
        is_last = put.key == self._places.snap
        if answer.succeeded:
            return Entry(put.key, put.value, answer.revision) if is_last else None
        self._fence.check_term(answer.only(0))
        found = answer.only(1)
        if not is_last or found is None or found.value != put.value:
            raise Deposed(f"{self._places.snap} was written by somebody who does not hold the term")
        return found


def is_whole(snapshot: Snapshot, data: bytes) -> bool:
    return crc32c(data) == snapshot.crc


def generations(places: Places, snap: Entry | None) -> list[Snapshot]:
    """The newest first."""
    newest = None if snap is None else Snapshot.decode(snap.value)
    if newest is None:
        return []
    return [newest] if newest.before is None else [newest, newest.before]
