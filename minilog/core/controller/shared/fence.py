"""The fence: a *term* is taken by compare-and-put, and every write compares it (R120, R121).

Owns what a holder knows: the mod of its term, and where the journal ends. A term taken later makes
every comparison fail, so who was deposed writes nothing, however late its requests arrive. The
lease of ``active`` fences nobody: clocks and pauses decide when it ends, and no write compares it.

*Append*: compare term and end. Then put the frame and the new end. A decision too large for one
request has several frames, of which the last one alone moves the end: what lies behind the end
counts for nothing. So a decision is there as a whole or not at all.

*No answer*: the very same transaction again, until one of three things is known (R123). It
succeeded; or it failed and what it writes is there under the same term, so an earlier attempt was
carried out; or it failed otherwise, and the holder is deposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.transaction import Answer, Compare, Delete, Entry, Get, Put, Transaction
from minilog.errors import Deposed


class Term(msgspec.Struct, frozen=True):
    """``number`` grows by one with each taking. ``nonce`` is of one taking, like no other."""

    number: int
    holder: str
    url: str
    nonce: str

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> Term | None:
        """None when it is none of ours."""
        try:
            return msgspec.json.decode(value, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class Active(msgspec.Struct, frozen=True):
    """Who decides, for people and for standbys. ``epoch`` is the controller epoch."""

    url: str
    epoch: int
    nonce: str


class Part(NamedTuple):
    """One frame on its way. ``end``: what it moves the end to; None where more of the same
    decision follow."""

    first: int
    frame: bytes
    end: int | None


def parts(first: int, frames: Sequence[tuple[int, bytes]]) -> list[Part]:
    """``frames``: (number of records, bytes) of one decision whose first record has index
    ``first``."""
    made, index = [], first
    for at, (count, data) in enumerate(frames, 1):
        made.append(Part(index, data, index + count - 1 if at == len(frames) else None))
        index += count
    return made


def taking(places: Places, seen: Entry | None, term: Term) -> Transaction:
    """Only the term that was seen is replaced: who looked too early deposes nobody (R121)."""
    return Transaction(
        (Compare(places.term, 0 if seen is None else seen.mod),),
        (Put(places.term, term.encode()),),
        (Get(places.term),),
    )


def taken(answer: Answer, term: Term) -> int | None:
    """The mod of the term, None when another was faster."""
    if answer.succeeded:
        return answer.revision
    found = answer.only(0)
    return found.mod if found is not None and found.value == term.encode() else None


class Fence:
    def __init__(self, places: Places, term_mod: int, end: Entry | None) -> None:
        self.places = places
        self.term_mod = term_mod
        self._end_mod = 0 if end is None else end.mod

    def appending(self, part: Part) -> Transaction:
        put = Put(self.places.frame(part.first), part.frame)
        moves = () if part.end is None else (Put(self.places.end, b"%d" % part.end),)
        return self._fenced((put, *moves), Get(put.key))

    def clearing(self, behind: int) -> Transaction:
        """What a holder before left behind the end, of a decision that did not come to its end."""
        return self._fenced((Delete(self.places.frame(behind + 1), self.places.frames_end),))

    def on_appended(self, part: Part, answer: Answer) -> None:
        """Raises Deposed."""
        if answer.succeeded:
            self._end_mod = self._end_mod if part.end is None else answer.revision
            return
        term, end, frame = answer.only(0), answer.only(1), answer.only(2)
        self.check_term(term)
        is_there = frame is not None and frame.value == part.frame
        if part.end is None or end is None or not is_there or end.value != b"%d" % part.end:
            raise Deposed(
                f"the journal's end at {self.places.end} was moved by somebody who does not hold the term: "
                "nothing but controllers of this cluster may write below that prefix"
            )
        self._end_mod = end.mod

    def on_cleared(self, answer: Answer) -> None:
        """Raises Deposed. To clear again does no harm, so an earlier attempt needs no look."""
        if not answer.succeeded:
            self.check_term(answer.only(0))
            raise Deposed(f"{self.places.end} was moved by somebody who does not hold the term")

    def check_term(self, term: Entry | None) -> None:
        """Raises Deposed."""
        if term is None or term.mod != self.term_mod:
            known = None if term is None else Term.decode(term.value)
            who = "nobody" if known is None else f"the controller at {known.url}"
            raise Deposed(f"the term at {self.places.term} is held by {who} now")

    def saying_active(self, active: Active) -> Transaction:
        """The hint, from who holds the term only."""
        put = Put(self.places.active, msgspec.json.encode(active), is_leased=True)
        return Transaction((Compare(self.places.term, self.term_mod),), (put,), (Get(self.places.term),))

    def leaving(self) -> Transaction:
        """A planned stop: standbys need not wait for the lease."""
        held = (Compare(self.places.term, self.term_mod),)
        return Transaction(held, (Delete(self.places.active),), ())

    def _fenced(self, then: tuple[Put | Delete, ...], *look: Get) -> Transaction:
        compares = Compare(self.places.term, self.term_mod), Compare(self.places.end, self._end_mod)
        return Transaction(compares, then, (Get(self.places.term), Get(self.places.end), *look))
