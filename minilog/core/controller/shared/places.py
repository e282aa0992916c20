"""Where the shared journal keeps what it has, below one prefix.

term                       who may write: number, holder, url. Never leased
end                        index of the last record that counts
j/<index, 20 digits>       one frame; the index is that of its first record
snap                       which snapshot is in force, and the one before it
s/<index>/<number>         pieces of snapshots
active                     url and epoch of who decides, leased: a hint, which nothing rests on
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minilog.core.controller.shared.transaction import Get

DIGITS: Final = 20


class Places(NamedTuple):
    """``prefix`` begins and ends with a slash."""

    prefix: str

    @property
    def behind(self) -> str:
        """Behind every key below the prefix."""
        return self.prefix[:-1] + "0"

    @property
    def term(self) -> str:
        return f"{self.prefix}term"

    @property
    def end(self) -> str:
        return f"{self.prefix}end"

    @property
    def snap(self) -> str:
        return f"{self.prefix}snap"

    @property
    def active(self) -> str:
        return f"{self.prefix}active"

    def frame(self, index: int) -> str:
        return f"{self.prefix}j/{index:0{DIGITS}}"

    @property
    def frames_end(self) -> str:
        """Behind every frame."""
        return f"{self.prefix}j0"

    def piece(self, index: int, number: int) -> str:
        return f"{self.pieces(index)}{number:04}"

    def pieces(self, index: int) -> str:
        """Before all pieces of the snapshot at ``index``, and behind those of earlier ones."""
        return f"{self.prefix}s/{index:0{DIGITS}}/"

    def index_of(self, key: str) -> int | None:
        """Of a frame's key; None for any other."""
        digits = key.removeprefix(f"{self.prefix}j/")
        return int(digits) if len(digits) == DIGITS and digits.isascii() and digits.isdigit() else None

    def strangers(self) -> tuple[Get, ...]:
        """What finds a key below the prefix that is none of these: one question for each gap."""
        known = [
            (self.active, f"{self.active}\0"),
            (self.end, f"{self.end}\0"),
            (f"{self.prefix}j/", self.frames_end),
            (f"{self.prefix}s/", f"{self.prefix}s0"),
            (self.snap, f"{self.snap}\0"),
            (self.term, f"{self.term}\0"),
        ]
        starts = [self.prefix, *(end for _, end in known)]
        ends = [*(begin for begin, _ in known), self.behind]
        return tuple(Get(start, end, 1, keys_only=True) for start, end in zip(starts, ends, strict=True))
