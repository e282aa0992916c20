"""What the application was handed, and what of it is done with. Pure.

A record is done with when the application asks for the next one, or says so by committing, and by
nothing else. This is the one place that decides it, for both faces of the client: the synchronous
one brings what it has read ahead (``read_ahead``), and how far its thread is with that. What was
handed out is noted here, with the offset and the epoch it had then: a partition moves on by itself
(a lost tail, batches without records), and may not be asked afterwards. Of a partition that is
iterated over only two records are kept, for each is a hot path."""

from __future__ import annotations

from collections.abc import Iterable

from minilog_client.consumer.partition_fetch import PartitionFetch, Taken
from minilog_client.consumer.read_ahead import ReadAhead
from minilog_client.consumer.records import AnyRecord
from minilog_client.group.holdings import Held, Holdings, Mark


class Progress:
    __slots__ = ("_generation", "_handed", "_holdings", "iterated", "last", "previous", "read_ahead")

    def __init__(self, holdings: Holdings) -> None:
        self.read_ahead: ReadAhead | None = None
        """What was handed out for a thread that takes it from there by itself."""
        self._holdings = holdings
        self._handed: dict[Held, None] = {}
        self._generation = 0
        self.iterated: PartitionFetch | None = None
        """The partition whose records are handed out one by one."""
        self.last: AnyRecord | None = None
        self.previous: AnyRecord | None = None

    def on_batch(self, taken: Iterable[Taken]) -> None:
        for each in () if self.read_ahead is not None else taken:
            held = self._held(each.state)
            if held is not None:
                held.hand_out(Mark(each.offset, each.leader_epoch), each.generation)
                self._handed[held] = None

    def on_first(self, state: PartitionFetch, record: AnyRecord) -> None:
        """Iteration goes on in ``state``. The caller sets ``previous`` and ``last`` for the records
        that follow."""
        self.iterated, self.last, self.previous = state, record, None
        self._generation = state.generation

    def note(self) -> None:
        """Note how far the application is: the last record is being worked on, those before it are
        done with."""
        if self.read_ahead is not None:
            self._note_reached(self.read_ahead)
        if self._is_asking:
            for held in self._holdings.values():
                held.follow()
        iterated = None if self.iterated is None else self._held(self.iterated)
        if iterated is None or self.last is None:
            return
        iterated.hand_out(Mark(self.last.offset + 1, self.last.leader_epoch), self._generation)
        self._handed[iterated] = None
        if self.previous is not None:
            iterated.finish_record(self.previous)

    @property
    def _is_asking(self) -> bool:
        """The application waits for records and works on none."""
        reads_ahead = self.read_ahead is not None and bool(self.read_ahead.records)
        return self.iterated is None and not self._handed and not reads_ahead

    def _note_reached(self, read_ahead: ReadAhead) -> None:
        for taken, handed, finished in read_ahead.reached():
            held = self._held(taken.state)
            if held is not None:
                held.hand_out(Mark(*handed), taken.generation)
                if finished is not None:
                    held.finish(Mark(*finished))

    def finish_all(self) -> None:
        """The application is done with all that it was handed."""
        if self.read_ahead is not None:
            self.read_ahead.finish()
        self.note()
        for held in self._handed:
            held.finish_handed()

    def ask(self) -> None:
        """The application asks for more: the next records are another matter."""
        self.finish_all()
        if self.read_ahead is not None:
            self.read_ahead.clear()
        self._handed.clear()
        self.iterated = self.last = self.previous = None

    def leave(self, held: Held) -> None:
        """Reading goes on elsewhere: what was handed out last does not count as done with when more
        is asked for."""
        self.note()
        held.handed = None
        if self.read_ahead is not None:
            self.read_ahead.leave((held.state.topic, held.state.partition))
        if self.iterated is held.state:
            self.iterated = self.last = self.previous = None

    def _held(self, state: PartitionFetch) -> Held | None:
        """The grant under which ``state`` is read, if it is not over."""
        held = self._holdings.get((state.topic, state.partition))
        return held if held is not None and held.state is state else None
