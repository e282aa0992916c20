"""What the application was handed, and what of it is done with. Pure.

A record is done with when the application asks for the next one, or says so by committing. What was
handed out is noted here, with the offset and the epoch it had then: a partition moves on by itself
(a lost tail, batches without records), and may not be asked afterwards. Of a partition that is
iterated over only two records are kept, for each is a hot path."""

from __future__ import annotations

from collections.abc import Iterable

from minilog_client.consumer.fetch_plan import Taken
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.records import Record
from minilog_client.group.holdings import Held, Holdings, Mark


class Progress:
    __slots__ = ("_generation", "_handed", "_holdings", "iterated", "last", "previous")

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._handed: dict[Held, None] = {}
        self._generation = 0
        self.iterated: PartitionFetch | None = None
        """The partition whose records are handed out one by one."""
        self.last: Record | None = None
        self.previous: Record | None = None

    def on_batch(self, taken: Iterable[Taken]) -> None:
        for each in taken:
            held = self._held(each.state)
            if held is not None:
                held.hand_out(Mark(each.offset, each.leader_epoch), each.generation)
                self._handed[held] = None

    def on_first(self, state: PartitionFetch, record: Record) -> None:
        """Iteration goes on in ``state``. The caller sets ``previous`` and ``last`` for the records
        that follow."""
        self.iterated, self.last, self.previous = state, record, None
        self._generation = state.generation

    def note(self) -> None:
        """Note how far iteration is: the last record is being worked on, those before it are done
        with."""
        held = None if self.iterated is None else self._held(self.iterated)
        if held is None or self.last is None:
            return
        held.hand_out(Mark(self.last.offset + 1, self.last.leader_epoch), self._generation)
        self._handed[held] = None
        if self.previous is not None:
            held.finish_record(self.previous)

    def finish_all(self) -> None:
        """The application is done with all that it was handed."""
        self.note()
        for held in self._handed:
            held.finish_handed()

    def ask(self) -> None:
        """The application asks for more: the next records are another matter."""
        self.finish_all()
        self._handed.clear()
        self.iterated = self.last = self.previous = None

    def leave(self, held: Held) -> None:
        """Reading goes on elsewhere: what was handed out last does not count as done with when more
        is asked for."""
        self.note()
        held.handed = None
        if self.iterated is held.state:
            self.iterated = self.last = self.previous = None

    def _held(self, state: PartitionFetch) -> Held | None:
        """The grant under which ``state`` is read, if it is not over."""
        held = self._holdings.get((state.topic, state.partition))
        return held if held is not None and held.state is state else None
