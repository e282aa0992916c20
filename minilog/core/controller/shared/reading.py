"""Reading the shared journal: whole at a taking, and what is new for a standby.

Only what lies at or below ``end`` counts. Frames join without a gap. Both are read in one
transaction where they have to fit together, and otherwise the end is read first: the journal only
grows, and what a snapshot takes away is missed as a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from minilog.core.controller.shared.fence import Active, Term
from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.snapshots import Snapshot, generations, is_whole
from minilog.core.controller.shared.transaction import Answer, Entry, Get, Transaction
from minilog.errors import RefusesToStart

PAGE: Final = 64
"""Frames in one answer, each of at most half a mebibyte."""
Run = Callable[[Transaction], Answer]


class Stored(NamedTuple):
    """``frames``: (index of the first record, bytes). ``snapshot`` is b"" for none."""

    term: Entry | None
    end: Entry | None
    snap: Entry | None
    snapshot_index: int
    snapshot: bytes
    frames: Sequence[tuple[int, bytes]]
    end_index: int


class Gap(Exception):
    """Frames are missing: a snapshot has taken their place meanwhile, or somebody has removed
    them."""


class Look(NamedTuple):
    """What a standby sees at one moment. ``is_gap``: what follows its place is not there any
    more."""

    term: Entry | None
    end_index: int
    active: Active | None
    active_mod: int
    frames: Sequence[tuple[int, bytes]]
    is_gap: bool

    @property
    def holder(self) -> Term | None:
        return None if self.term is None else Term.decode(self.term.value)


def looking(places: Places, after: int) -> Transaction:
    frames = Get(places.frame(after + 1), places.frames_end, PAGE)
    return Transaction((), (Get(places.term), Get(places.end), Get(places.active), frames))


def look_of(places: Places, after: int, answer: Answer) -> Look:
    end_index = _index(answer.only(1))
    frames = [(index, value) for index, value in _indexed(places, answer.found[3]) if index <= end_index]
    is_gap = end_index > after and (not frames or frames[0][0] != after + 1)
    active = answer.only(2)
    mod = 0 if active is None else active.mod
    return Look(answer.only(0), end_index, active_of(active), mod, [] if is_gap else frames, is_gap)


def active_of(entry: Entry | None) -> Active | None:
    try:
        return None if entry is None else msgspec.json.decode(entry.value, type=Active)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read(places: Places, run: Run) -> Stored:
    """Everything that counts. Raises Gap, and RefusesToStart for what no controller has written."""
    answer = run(Transaction((), (Get(places.term), Get(places.end), Get(places.snap), *places.strangers())))
    for found in answer.found[3:]:
        if found:
            raise RefusesToStart(
                f"etcd holds the key {found[0].key!r} below {places.prefix}, which no controller has written: give each "
                "cluster a prefix of its own (etcd_prefix), or remove that key"
            )
    term, end, snap = answer.only(0), answer.only(1), answer.only(2)
    end_index = _index(end)
    snapshot_index, snapshot = _snapshot(places, run, snap)
    frames = _frames(places, run, snapshot_index, end_index)
    return Stored(term, end, snap, snapshot_index, snapshot, frames, end_index)


def _snapshot(places: Places, run: Run, snap: Entry | None) -> tuple[int, bytes]:
    for one in generations(places, snap):
        data = b"".join(_piece(places, run, one, number) for number in range(one.pieces))
        if is_whole(one, data):
            return one.index, data
    if snap is not None:
        raise RefusesToStart(
            f"the snapshot that {places.snap} names does not match its checksum, nor does the one before it: restore "
            "etcd from a copy, or make the journal anew from the brokers (minilog controller recover)"
        )
    return 0, b""


def _piece(places: Places, run: Run, snapshot: Snapshot, number: int) -> bytes:
    found = run(Transaction((), (Get(places.piece(snapshot.index, number)),))).only(0)
    return b"" if found is None else found.value


def _frames(places: Places, run: Run, after: int, end_index: int) -> list[tuple[int, bytes]]:
    frames: list[tuple[int, bytes]] = []
    start = after + 1
    while start <= end_index:
        page = run(Transaction((), (Get(places.frame(start), places.frame(end_index + 1), PAGE),))).found[0]
        if not page:
            break
        frames += _indexed(places, page)
        start = frames[-1][0] + 1
    if end_index > after and (not frames or frames[0][0] != after + 1):
        raise Gap(f"{places.prefix}j/ begins behind record {after + 1}")
    return frames


def _indexed(places: Places, entries: Sequence[Entry]) -> list[tuple[int, bytes]]:
    found = []
    for entry in entries:
        index = places.index_of(entry.key)
        if index is None:
            raise RefusesToStart(f"etcd holds the key {entry.key!r}, which no controller has written: remove it")
        found.append((index, entry.value))
    return found


def _index(end: Entry | None) -> int:
    if end is None:
        return 0
    if not end.value.isdigit():
        raise RefusesToStart(f"{end.key} in etcd holds {end.value[:40]!r}, which is no index of a record")
    return int(end.value)
