"""Which leader epoch wrote which offsets: the list of (epoch, start offset) of one log (KIP-101,
KIP-279; R1-R3).

Owns: the list in memory. It is derived data: every batch header holds its epoch, ``observe``
collects them at append and at recovery, and the copy in the store's checkpoint only spares the scan
of what lies below it.

Invariants (R3): epochs and start offsets both strictly increase. Every entry covers at least one
record, so an empty log has an empty list. The list equals the one recomputed from the log.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from minilog.wire.batch import Batch


class EpochCache:
    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for epoch, start_offset in entries:
            self.observe(epoch, start_offset)

    @property
    def last_epoch(self) -> int:
        """-1 when the log is empty."""
        return self._epochs[-1] if self._epochs else -1

    @property
    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self._epochs, self._starts, strict=True))

    def observe(self, epoch: int, base_offset: int) -> bool:
        """Note a batch of ``epoch`` at ``base_offset``; True when it begins a new epoch."""
        if self._epochs and epoch == self._epochs[-1]:
            return False
        assert epoch > self.last_epoch, f"epoch {epoch} after {self.last_epoch} (R6)"
        assert not self._starts or base_offset > self._starts[-1]
        self._epochs.append(epoch)
        self._starts.append(base_offset)
        return True

    def epoch_at(self, offset: int) -> int:
        """The epoch that covers ``offset``; -1 when it lies before the first entry."""
        at = bisect_right(self._starts, offset) - 1
        return self._epochs[at] if at >= 0 else -1

    def span_at(self, offset: int) -> tuple[int, int | None]:
        """(the epoch that covers ``offset``, where the next one starts: None for the last)."""
        at = bisect_right(self._starts, offset)
        return self._epochs[at - 1] if at > 0 else -1, self._starts[at] if at < len(self._starts) else None

    def end_of(self, epoch: int, end_offset: int) -> tuple[int, int]:
        """R2: (largest epoch <= ``epoch``, where it ends), for a log that ends at
        ``end_offset``."""
        if not self._epochs:
            return epoch, end_offset
        at = bisect_right(self._epochs, epoch) - 1
        if at < 0:
            return epoch, self._starts[0]
        end = self._starts[at + 1] if at + 1 < len(self._starts) else end_offset
        return self._epochs[at], end

    def truncate_end(self, end_offset: int) -> None:
        """Forget what starts at or after ``end_offset``."""
        keep = bisect_left(self._starts, end_offset)
        del self._epochs[keep:]
        del self._starts[keep:]

    def truncate_start(self, start_offset: int, end_offset: int) -> None:
        """Forget what ends at or before ``start_offset``, the log's new start. ``end_offset`` is
        the log's end."""
        if start_offset >= end_offset:
            self._epochs.clear()
            self._starts.clear()
            return
        drop = max(bisect_right(self._starts, start_offset) - 1, 0)
        del self._epochs[:drop]
        del self._starts[:drop]
        if self._starts:
            self._starts[0] = max(self._starts[0], start_offset)


def recompute(batches: Iterable[Batch]) -> list[tuple[int, int]]:
    """The entries that a log of these batches must have, by the plainest possible code."""
    entries: list[tuple[int, int]] = []
    for batch in batches:
        if not entries or entries[-1][0] != batch.leader_epoch:
            entries.append((batch.leader_epoch, batch.base_offset))
    return entries
