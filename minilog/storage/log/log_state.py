"""What a log must remember and no batch says: its last cuts, where it starts, how far it is
cleaned, what damage took.

Owns: the file ``truncations`` (named after what it held first), replaced as a whole, so that the
parts always fit together. It is written only when one of them changes: at a truncation, when the
log start moves, after a round of cleaning, when recovery has found that something durable is gone,
when damage is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from minilog.storage import checkpoint
from minilog.storage.disk import Disk

STATE_FILE = "truncations"
CUTS_KEPT = 16


class LogState(NamedTuple):
    """``cuts``: (generation, end offset) of the last truncations, oldest first. ``generation``
    grows with each.

    Below ``cleaned_end`` no key has two values. ``horizon_ms``: when the last tombstone that
    cleaning has met may go. ``swept_end``: whatever cleaning has taken away here, it did because of
    a record below it, which was committed. ``doubt_end``: the same of what was taken away
    elsewhere, and nobody says that it is committed here. Noted of a log that was copied from a
    cleaned one, or that is being emptied. ``unsure_end``: of a log with holes whose state was
    damaged. It was swept for something below this, and what lies there may count: so it is neither
    cut below this nor does it begin anew for a cut (R94). ``start_epoch``:
    leader epoch of the last batch before ``start_offset``, -1 when it is not known.
    ``missing_end``: the log was durable up to here. While it ends before, damage has taken
    something that counts. Noted by recovery, of what it misses and of what it found after a power
    cut. ``next_start``, ``next_epoch``: the log is beginning anew there; -1 when it is not. Noted
    before the one rename that does it, so at every moment the name of the first segment tells which
    of the two starts is the log's. ``bad_ranges``: offsets that were found damaged, for the next
    start to look at (R53). It need not be all of them. ``is_start_noted``: every start of this log
    was noted. Logs of before that was so may begin elsewhere.
    """

    generation: int = 0
    cuts: tuple[tuple[int, int], ...] = ()
    start_offset: int = 0
    cleaned_end: int = 0
    horizon_ms: int = -1
    swept_end: int = 0
    doubt_end: int = 0
    missing_end: int = 0
    start_epoch: int = -1
    next_start: int = -1
    next_epoch: int = -1
    is_start_noted: bool = True
    unsure_end: int = 0
    bad_ranges: tuple[tuple[int, int], ...] = ()

    def after_cut(self, end_offset: int, start_offset: int) -> LogState:
        """A generation begins: the log was cut to ``end_offset`` and starts at ``start_offset``.

        What was swept below a record that goes stays in doubt until the log is empty: older values
        are missing till then."""
        generation = self.generation + 1
        swept_end = max(self.swept_end, self.unsure_end)
        cuts = (*self.cuts[1 - CUTS_KEPT :], (generation, end_offset))
        return self.starting_at(start_offset)._replace(
            generation=generation,
            cuts=cuts,
            cleaned_end=min(self.cleaned_end, end_offset),
            swept_end=min(self.swept_end, end_offset),
            doubt_end=self.doubt_end if swept_end <= end_offset else max(self.doubt_end, swept_end),
            unsure_end=min(self.unsure_end, end_offset),
            missing_end=0,
            bad_ranges=tuple(bad for bad in self.bad_ranges if bad[0] < end_offset),
        )

    def starting_at(self, start_offset: int, start_epoch: int = -1) -> LogState:
        """The log starts there, after a batch of that epoch: an epoch belongs to the one offset it
        was noted with."""
        if start_offset == self.start_offset:
            return self
        return self._replace(start_offset=start_offset, start_epoch=start_epoch)

    def in_doubt(self, generation: int, base_offset: int, end_offset: int, has_holes: bool) -> LogState:
        """What takes the place of a damaged state, of a log that was found to reach from
        ``base_offset`` to ``end_offset``. A log without holes was never swept. One with holes may
        have been swept since for whatever it holds.

        Nothing else of the state before is believed of its ends: the log may have been cut, emptied
        and written anew since. For the same reason no recovery point of before this generation
        counts, also when this state is saved first."""
        return self.starting_at(max(self.start_offset, base_offset))._replace(
            generation=generation,
            cuts=((generation, 0),),
            swept_end=0,
            doubt_end=0,
            unsure_end=end_offset if has_holes else 0,
            missing_end=end_offset,
        )

    def begun(self, base_offset: int, *, is_empty: bool = False) -> LogState:
        """Of a log whose first segment begins at ``base_offset``: nothing is under way any more.
        From an empty one nothing is missing."""
        state = self._replace(next_start=-1, next_epoch=-1)
        if is_empty:
            state = state._replace(doubt_end=0, unsure_end=0)
        if base_offset != self.next_start:
            return state
        return state._replace(start_offset=self.next_start, start_epoch=self.next_epoch)

    def save(self, disk: Disk, directory: str) -> None:
        """Durable on return. Raises DiskFull (the old state stays in force) or StorageFailed."""
        checkpoint.save(disk, f"{directory}/{STATE_FILE}", self._asdict())


class LoadedState(NamedTuple):
    """``damaged``: the present file is bad or gone, and ``state`` is the one before it or nothing
    known. The log may have been cut since, so nothing of it counts as clean. It may have been swept
    since as well (``in_doubt``).
    """

    state: LogState
    damaged: bool


def load_state(disk: Disk, directory: str, generation_min: int = 0) -> LoadedState:
    """A state of before ``generation_min``, which the log has reached, is damaged as well."""
    path = f"{directory}/{STATE_FILE}"
    body, damaged = checkpoint.load(disk, path)
    if body is None:  # killed between two renames, and what is left is bad
        damaged = damaged or checkpoint.read_file(disk, path + checkpoint.PREVIOUS) is not None
        body = {}
    is_start_noted = bool(body.pop("is_start_noted", not body))
    cuts, bad_ranges = _pairs(body.pop("cuts", ())), _pairs(body.pop("bad_ranges", ()))
    known: dict[str, Any] = {name: int(value) for name, value in body.items() if name in LogState._fields}
    state = LogState(cuts=cuts, bad_ranges=bad_ranges, is_start_noted=is_start_noted, **known)
    damaged = damaged or state.generation < generation_min
    return LoadedState(state._replace(cleaned_end=0) if damaged else state, damaged)


def _pairs(entries: Iterable[tuple[Any, Any]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(second)) for first, second in entries)
