"""The two sparse indexes of a segment: offset to file position, and timestamp to offset.

Owns: arrays in memory and their file form (Kafka's: big-endian, offsets relative to the segment's
base; 8 bytes an entry for ``.index``, 12 for ``.timeindex``).

Invariants:
* Offset index: entry (offset, position) says that a batch with that base offset starts there. Both
  columns strictly increase. The implicit first entry is (base offset, 0).
* Time index: entry (timestamp, offset) says that no record at or below ``offset`` is later than
  ``timestamp``. Both columns strictly increase.
* An offset that 32 bits cannot tell from the base has no entry in the offset index, and a time
  index with one has no file form (``fits_file``). Logs from before the spans of segments were
  bounded hold such offsets.

Both are derived from the log file. A file that breaks an invariant is dropped and rebuilt by a
scan. A wrong entry that keeps them is found by the reader, who checks the batch an entry leads to,
and is then rebuilt as well.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice
from operator import lt

INTERVAL_BYTES = 4096
"""An index entry is made for the first batch that starts this far after the last entry."""
_TIME_ENTRY = struct.Struct(">qI")
ENTRY_BYTES = 8
TIME_ENTRY_BYTES = _TIME_ENTRY.size
_RELATIVE_MAX = 2**32 - 1


class OffsetIndex:
    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._deltas = array("I")
        self._positions = array("I")

    def __len__(self) -> int:
        return len(self._deltas)

    @property
    def last_position(self) -> int:
        return self._positions[-1] if self._positions else 0

    @property
    def last_offset(self) -> int:
        return self.base_offset + (self._deltas[-1] if self._deltas else 0)

    @property
    def entries(self) -> list[tuple[int, int]]:
        return [
            (self.base_offset + delta, position) for delta, position in zip(self._deltas, self._positions, strict=True)
        ]

    def add(self, offset: int, position: int) -> None:
        delta = offset - self.base_offset
        assert delta > (self._deltas[-1] if self._deltas else 0)
        assert position > self.last_position
        if delta > _RELATIVE_MAX:
            return
        self._deltas.append(delta)
        self._positions.append(position)

    def floor(self, offset: int) -> tuple[int, int]:
        """(base offset, position) of the last indexed batch that starts at or before ``offset``."""
        at = bisect_right(self._deltas, offset - self.base_offset) - 1
        return (self.base_offset + self._deltas[at], self._positions[at]) if at >= 0 else (self.base_offset, 0)

    def ceiling(self, offset: int) -> int | None:
        """Position of the first indexed batch that starts at or after ``offset``."""
        at = bisect_left(self._deltas, offset - self.base_offset)
        return self._positions[at] if at < len(self._deltas) else None

    def border(self, position: int) -> int:
        """The last indexed batch border at or before ``position``."""
        at = bisect_right(self._positions, position) - 1
        return self._positions[at] if at >= 0 else 0

    def truncate(self, position: int) -> None:
        """Drop the entries at or beyond ``position``."""
        keep = bisect_left(self._positions, position)
        del self._deltas[keep:]
        del self._positions[keep:]

    def encode(self, first: int = 0) -> bytes:
        """The entries from number ``first`` on, in file form."""
        columns = array("I", bytes(ENTRY_BYTES * (len(self) - first)))
        columns[0::2] = self._deltas[first:]
        columns[1::2] = self._positions[first:]
        return _big_endian(columns).tobytes()

    @classmethod
    def decode(cls, data: bytes, base_offset: int, size_bytes: int) -> OffsetIndex | None:
        """The index of a log file of ``size_bytes``; None when the data cannot be one."""
        if len(data) % ENTRY_BYTES:
            return None
        columns = _big_endian(array("I", data))
        index = cls(base_offset)
        index._deltas, index._positions = columns[0::2], columns[1::2]
        if not (_rises(0, index._deltas) and _rises(0, index._positions)):
            return None
        return index if index.last_position < max(size_bytes, 1) else None


class TimeIndex:
    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.timestamps = array("q")
        self.offsets = array("q")

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def last(self) -> tuple[int, int]:
        """(latest timestamp, its offset); (-1, base offset) without entries."""
        return (self.timestamps[-1], self.offsets[-1]) if self.offsets else (-1, self.base_offset)

    @property
    def fits_file(self) -> bool:
        return self.last[1] - self.base_offset <= _RELATIVE_MAX

    def maybe_add(self, timestamp: int, offset: int) -> None:
        """Note that ``timestamp`` is the latest up to ``offset``. Nothing when that is known
        already."""
        if not self.offsets or (timestamp > self.timestamps[-1] and offset > self.offsets[-1]):
            self.timestamps.append(timestamp)
            self.offsets.append(offset)

    def before(self, timestamp: int) -> tuple[int, int]:
        """The last entry of an earlier time, up to whose offset no record is as late as
        ``timestamp``; as ``last`` without."""
        at = bisect_left(self.timestamps, timestamp) - 1
        return (self.timestamps[at], self.offsets[at]) if at >= 0 else (-1, self.base_offset)

    def truncate(self, end_offset: int) -> None:
        """Drop the entries at or beyond ``end_offset``."""
        keep = bisect_left(self.offsets, end_offset)
        del self.timestamps[keep:]
        del self.offsets[keep:]

    def encode(self, first: int = 0) -> bytes:
        assert self.fits_file
        base = self.base_offset
        pack = _TIME_ENTRY.pack
        return b"".join(
            pack(timestamp, offset - base)
            for timestamp, offset in zip(self.timestamps[first:], self.offsets[first:], strict=True)
        )

    @classmethod
    def decode(cls, data: bytes, base_offset: int) -> TimeIndex | None:
        if len(data) % _TIME_ENTRY.size:
            return None
        index = cls(base_offset)
        entries = list(_TIME_ENTRY.iter_unpack(data))
        index.timestamps.extend(timestamp for timestamp, _ in entries)
        index.offsets.extend(base_offset + offset for _, offset in entries)
        return index if _rises(-1, index.timestamps) and _rises(base_offset - 1, index.offsets) else None


def _rises(floor: int, column: array[int]) -> bool:
    """Every entry above the one before it, the first above ``floor``."""
    return not column or (column[0] > floor and all(map(lt, column, islice(column, 1, None))))


def _big_endian(column: array[int]) -> array[int]:
    if sys.byteorder == "little":
        column.byteswap()
    return column
