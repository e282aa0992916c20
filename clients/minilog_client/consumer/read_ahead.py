"""Records that were read ahead for an application's thread, and how far that thread is with them.
Pure.

    records[:begin]  done with: the thread has asked for something after them
    records[begin:end]  handed out, and being worked on
    records[end:]  the consumer's still

Two threads meet here without a lock. The loop's thread fills and drops while the application's
waits. The application's thread moves ``begin`` and ``end`` while the loop's only reads them.
``begin`` moves first: so what the loop's thread sees in between is true as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from minilog_client.consumer.partition_fetch import Taken
from minilog_client.consumer.records import AnyRecord
from minilog_client.values import PartitionKey

T = TypeVar("T")


class Slice(NamedTuple):
    """``records[start:stop]`` are of one partition. ``taken`` is how far it came with them and with
    those that were dropped since."""

    start: int
    stop: int
    taken: Taken


class Reached(NamedTuple):
    """How far the application is in one slice: the next offset after what it was handed, and after
    what it is done with (None: nothing yet), each with the epoch of the record before."""

    taken: Taken
    handed: tuple[int, int]
    finished: tuple[int, int] | None


class ReadAhead:
    __slots__ = ("begin", "end", "records", "slices")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.records: Sequence[AnyRecord] = []
        self.slices: list[Slice] = []
        self.begin = self.end = 0

    def fill(self, records: Sequence[AnyRecord], taken: Sequence[Taken]) -> None:
        """``records`` belong to the consumer until the application's thread has moved ``end``."""
        self.clear()
        start = 0
        for each in taken:
            self.slices.append(Slice(start, start + each.record_count, each))
            start += each.record_count
        self.records = records

    # --- in the application's thread --------------------------------------------------------------

    def take(self, count_max: int, make: Callable[[Sequence[AnyRecord]], T]) -> T:
        """What ``make`` makes of the next records. Whoever asks for them is done with those before.

        Nothing that may raise comes after ``end`` was moved, no signal's handler either: a handler
        runs when a function begins or has been called, and not at a plain assignment."""
        begin = self.end
        records = self.records[begin : begin + count_max]
        end = begin + len(records)
        made = make(records)
        self.begin = begin
        self.end = end
        return made

    # --- in the loop's thread ---------------------------------------------------------------------

    @property
    def unread(self) -> Sequence[AnyRecord]:
        return self.records[self.end :]

    def first_unread(self) -> dict[PartitionKey, int]:
        """The first offset per partition that was not handed out."""
        first: dict[PartitionKey, int] = {}
        for record in self.unread:
            first.setdefault((record.topic, record.partition), record.offset)
        return first

    def finish(self) -> None:
        """The application is done with all that it was handed."""
        self.begin = self.end

    def reached(self) -> Iterator[Reached]:
        """Of each slice of which something was handed out."""
        begin, end = self.begin, self.end
        for part in self.slices:
            if end > part.start:
                finished = self._after(part, begin) if begin > part.start else None
                yield Reached(part.taken, self._after(part, end), finished)

    def _after(self, part: Slice, index: int) -> tuple[int, int]:
        """Where reading goes on after all of ``part`` that is before ``index``."""
        last = self.records[min(index, part.stop) - 1]
        if last.offset == part.taken.last_offset:
            return part.taken.offset, part.taken.leader_epoch
        return last.offset + 1, last.leader_epoch

    def drop_unread(self, key: PartitionKey) -> list[AnyRecord]:
        """Take the unread records of a partition out. What is done with was noted before."""
        end = self.end
        dropped = [record for record in self.unread if (record.topic, record.partition) == key]
        self._keep(lambda index, part: index < end or part.state_key != key)
        return dropped

    def leave(self, key: PartitionKey) -> None:
        """Take the records of a partition out, also those that are being worked on: these will not
        count as done with when more is asked for. What is done with was noted before."""
        self._keep(lambda _, part: part.state_key != key)

    def _keep(self, is_kept: Callable[[int, Taken], bool]) -> None:
        records: list[AnyRecord] = []
        slices: list[Slice] = []
        end = 0
        for start, stop, taken in self.slices:
            first = len(records)
            for index in range(max(start, self.begin), stop):
                if is_kept(index, taken):
                    records.append(self.records[index])
                    end += index < self.end
            if len(records) > first:
                slices.append(Slice(first, len(records), taken))
        self.records, self.slices, self.begin, self.end = records, slices, 0, end
