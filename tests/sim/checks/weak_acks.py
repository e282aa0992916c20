"""Weak acks: what acks=1 and acks=N promise, and which losses are within it.

acks=all promises that a record is never lost (history.py). A weaker level promises less, and this
much is promised:
* **A record is lost only at an election that heard nobody who held it.** acks=N is answered when N
  members of the ISR hold the record, durably where the topic says so. An election asks members of
  the ISR (else of the ELR, else the last known ones) and takes the longest log, so it is enough
  that one holder answers. acks=1 is the same with one holder: the leader itself, as long as it is a
  candidate again when its successor is chosen. An answer is that of the process that gave it: what
  has been restarted since has not answered. Where nobody was asked, everybody alive who could have
  been counts.
* **A planned stop loses nothing.** A leader that says it has drained is alive and holds everything,
  so whoever is named in the same step, unasked, holds it too. One that is elected while it leaves
  hears of that first, and drains that too.

Allowed is the rest: every holder was dead, cut off, or silent when the next leader was chosen. A
record acknowledged by a leader that had been replaced already, and did not know, is in nobody's
promise: its election is over.

So each loss must be explained: the election is known at which it happened (``given_up``), or it is
a violation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tests.sim.nodes.world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.history import Entry, Mirror


class Witness(NamedTuple):
    """Somebody whose word a choice of leader rests on, with the log behind it, as far as it
    counts."""

    who: str
    mirror: Mirror
    end_offset: int


class WeakAcks:
    """Of one partition."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: dict[Entry, None] = {}
        """Acknowledged and not committed yet."""
        self.given_up: set[int] = set()
        """Base offsets of what was lost within the promise."""
        self.required: dict[int, list[tuple[Entry, str]]] = {}
        """By leader epoch: what its leader must hold, and on whose word."""

    def on_acked(self, entries: Iterable[Entry], committed_end: int, *, deposed: bool) -> None:
        for entry in entries:
            if deposed:
                self.given_up.add(entry.base_offset)
            elif entry.end_offset > committed_end:
                self.open[entry] = None

    def on_committed(self, end_offset: int) -> None:
        """From here on it is the committed log's business."""
        if self.open:
            self.open = {entry: None for entry in self.open if entry.end_offset > end_offset}

    def on_elected(self, leader_epoch: int, witnesses: Iterable[Witness]) -> None:
        """A leader is named for this epoch, on the word of these."""
        if self.open:
            found = {
                entry: witness.who
                for witness in witnesses
                for entry in self.open
                if entry.end_offset <= witness.end_offset and witness.mirror.at(entry.base_offset) == entry
            }
            self.required[leader_epoch] = list(found.items())

    def on_lead(self, who: str, leader_epoch: int, mirror: Mirror) -> None:
        for entry, witness in self.required.pop(leader_epoch, []):
            if entry.end_offset > mirror.start_offset and mirror.at(entry.base_offset) != entry:
                raise Violation(
                    "WeakAcksSurvive",
                    f"{self.name}: {who} leads epoch {leader_epoch} without {entry}, which {witness} held; "
                    f"it holds {mirror.entries[-3:]}",
                )
        for entry in list(self.open):
            if entry.leader_epoch < leader_epoch and mirror.at(entry.base_offset) != entry:
                del self.open[entry]
                self.given_up.add(entry.base_offset)
