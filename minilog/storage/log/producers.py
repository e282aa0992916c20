"""What a log knows of the producers that number their batches: who wrote which sequences, and where
(KIP-98; R31, R32).

Owns: for each producer id its epoch and its last batches, and the judgement whether a batch is new,
was written before, or must not be written. Like the leader epochs (epochs.py) this is derived data:
every batch header holds what it takes, ``observe`` collects it at append, replication and recovery
alike, and a snapshot only spares the reading of what lies below it. Whoever has the log has the
state. A new leader needs nothing else.

Invariants:
* The state is a pure function of the batches from the log's start to its end (ProducerStateOfLog),
  and of one setting. Nothing here looks at a clock.
* ``observe`` rejects nothing: what is in the log is a fact. Only a leader asks ``find_written``,
  before it appends.
* Producers are kept in the order of their last batches, so the longest silent one is the first.

Age. A log has no clock but what its producers say, and each of them may be wrong, lie, or load
history: none must make the log forget the numbers of others, and with them the promise that a retry
writes nothing twice. So it takes many different producers to make it forget one. The last
PRODUCERS_KEPT are never forgotten. Of those before them the longest silent go when the middle one
of the times that the oldest WITNESSES wrote last and the middle one of the latest WITNESSES lie
further apart than the expiration time: what any few of them say changes neither. How far a
producer's own times lie in the past or the future never matters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from minilog.errors import DuplicateSequence, OutOfOrderSequence, ProducerFenced, partly_done
from minilog.wire.batch import Batch

WINDOW = 5
"""Batches remembered of each producer: as many as Kafka's clients have in flight, and ours in one
request."""
PRODUCERS_MAX = 10_000
"""Producers remembered by one log. One more makes it forget the longest silent one."""
WITNESSES = 512
PRODUCERS_KEPT = 2 * WITNESSES
FORGOTTEN_AT_ONCE = 128
"""Half as many have to come before it is looked again, so looking costs next to nothing for
each."""
SEQUENCE_MAX = 2**31 - 1
"""Sequences count records and begin at 0 again after this."""
_NEAR = 2**30
"""Of two sequences less than this apart, counted round the wrap, one is known to be the later."""


class WrittenBatch(NamedTuple):
    """One remembered batch: its sequences, both inclusive, and where it lies. ``end_offset`` is
    exclusive."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    end_offset: int
    leader_epoch: int
    crc: int
    timestamp: int


class Producer(NamedTuple):
    """``run``: records written in this epoch without a gap, up to the last."""

    epoch: int
    run: int
    batches: tuple[WrittenBatch, ...]
    """At most WINDOW, oldest first, never none."""

    @property
    def next_sequence(self) -> int:
        return (self.batches[-1].last_sequence + 1) & SEQUENCE_MAX

    def find_written(self, batch: Batch) -> WrittenBatch | None:
        """Where ``batch`` lies; None when it is the next one. Raises as
        ``ProducerTable.find_written`` does."""
        epoch, first = batch.producer_epoch, batch.base_sequence
        if epoch < self.epoch:
            raise ProducerFenced(
                f"producer {batch.producer_id} is in epoch {self.epoch} by now, the batch is of epoch {epoch}; "
                "nothing of it was written by this request",
                producer_epoch=self.epoch,
            )
        expected = self.next_sequence if epoch == self.epoch else 0
        if first == expected:
            return None
        if epoch == self.epoch:
            last = batch.last_sequence
            for written in reversed(self.batches):
                if written.first_sequence == first and written.last_sequence == last:
                    return written
            self._refuse_old(batch)
        raise _out_of_order(batch, expected)

    def _refuse_old(self, batch: Batch) -> None:
        """A batch from before the window was written, if this log has had the epoch without a gap
        since before it."""
        oldest = self.batches[0].first_sequence
        before = (oldest - batch.base_sequence) & SEQUENCE_MAX
        remembered = (self.next_sequence - oldest) & SEQUENCE_MAX
        if batch.last_offset_delta < before < _NEAR and before + remembered <= self.run:
            raise DuplicateSequence(
                f"producer {batch.producer_id}: sequences {batch.base_sequence} to {batch.last_sequence} were written "
                f"before, longer ago than the {WINDOW} batches whose offsets are remembered",
                expected=self.next_sequence,
                seen=batch.base_sequence,
            )


class Lasts(NamedTuple):
    """``offsets``: bases of last batches. ``unsure``: producers whose window shows none, so that
    all of theirs count."""

    offsets: frozenset[int]
    unsure: frozenset[int]

    def has(self, batch: Batch) -> bool:
        return batch.base_offset in self.offsets or batch.producer_id in self.unsure


class ProducerTable:
    """Everything known of producers up to ``end_offset``."""

    def __init__(self, expiration_ms: int, producers: Iterable[tuple[int, Producer]] = ()) -> None:
        """``producers`` in the order of their last batches."""
        self.expiration_ms = expiration_ms
        self._producers: OrderedDict[int, Producer] = OrderedDict(producers)

    def __len__(self) -> int:
        return len(self._producers)

    def get(self, producer_id: int) -> Producer | None:
        return self._producers.get(producer_id)

    def items(self) -> list[tuple[int, Producer]]:
        """All producers by id, the longest silent one first."""
        return list(self._producers.items())

    @property
    def end_offset(self) -> int:
        """The end of the last numbered batch; 0 when there is none. A cut at or above it changes
        nothing here."""
        if not self._producers:
            return 0
        return next(reversed(self._producers.values())).batches[-1].end_offset

    def last_batches(self, committed_end: int) -> Lasts:
        """Each producer's last batch below ``committed_end``: compaction keeps these, if need be
        without records, because their headers are what a rebuild finds the sequences in. What comes
        after may yet be cut."""
        found: set[int] = set()
        unsure: set[int] = set()
        for producer_id, producer in self._producers.items():
            committed = [batch.base_offset for batch in producer.batches if batch.base_offset < committed_end]
            if committed:
                found.add(committed[-1])
            else:
                unsure.add(producer_id)
        return Lasts(frozenset(found), frozenset(unsure))

    def observe(self, batch: Batch) -> None:
        """Take in a batch of the log. Those without a producer id mean nothing here."""
        base_offset, _, leader_epoch, crc, _, delta, _, latest, producer_id, epoch, first, _, _ = batch
        if producer_id < 0:
            return
        producers, count = self._producers, delta + 1
        last = (first + delta) & SEQUENCE_MAX
        written = WrittenBatch(first, last, base_offset, base_offset + count, leader_epoch, crc, latest)
        known = producers.get(producer_id)
        if known is not None and epoch == known.epoch and first == known.next_sequence:
            batches = (*known.batches[1 - WINDOW :], written)
            producers[producer_id] = Producer(epoch, known.run + count, batches)
        else:
            producers[producer_id] = Producer(epoch, count, (written,))
        producers.move_to_end(producer_id)
        if known is None:
            self._forget()

    def _forget(self) -> None:
        """Somebody new has come."""
        producers = self._producers
        count = len(producers)
        if count > PRODUCERS_MAX:
            producers.popitem(last=False)
        elif count >= PRODUCERS_KEPT + FORGOTTEN_AT_ONCE and count % (FORGOTTEN_AT_ONCE // 2) == 0:
            oldest, latest = _middle_time(producers.values()), _middle_time(reversed(producers.values()))
            if latest - oldest > self.expiration_ms:
                for _ in range(FORGOTTEN_AT_ONCE):
                    producers.popitem(last=False)

    def find_written(self, batches: Sequence[Batch]) -> list[WrittenBatch | None]:
        """R31: where each of these batches, which a leader is about to append in one go, lies
        already (None: it is new). An empty list says that all of them are new.

        Each is judged as if those before it were written. Of one producer the repeated ones come
        first: a request is appended whole, so of one that is sent again nothing or a head can have
        survived. Nothing known of a producer: any sequence will do. Raises ProducerFenced,
        OutOfOrderSequence (``expected``, ``seen``) or DuplicateSequence.
        """
        places: list[WrittenBatch | None] = []
        ahead: dict[int, Batch] = {}
        found = False
        for batch in batches:
            place = None
            if batch.producer_id >= 0:
                try:
                    place = self._judge(batch, ahead.get(batch.producer_id))
                except (ProducerFenced, OutOfOrderSequence) as error:
                    raise partly_done(error) if found else error from None
                if place is None:
                    ahead[batch.producer_id] = batch
                else:
                    found = True
            places.append(place)
        return places if found else []

    def _judge(self, batch: Batch, before: Batch | None) -> WrittenBatch | None:
        """``before``: the producer's batch ahead of this one in the same request, a new one."""
        if before is not None:
            _check_follows(batch, before)
            return None
        known = self._producers.get(batch.producer_id)
        return None if known is None else known.find_written(batch)


def _middle_time(producers: Iterable[Producer]) -> int:
    """The middle one of the times when the first of these wrote last, as they say."""
    return sorted(producer.batches[-1].timestamp for producer in islice(producers, WITNESSES))[WITNESSES // 2]


def _check_follows(batch: Batch, before: Batch) -> None:
    """``before`` is new and in the same request."""
    same = batch.producer_epoch == before.producer_epoch
    expected = (before.last_sequence + 1) & SEQUENCE_MAX if same else 0
    if batch.producer_epoch < before.producer_epoch or batch.base_sequence != expected:
        raise _out_of_order(batch, expected)


def _out_of_order(batch: Batch, expected: int) -> OutOfOrderSequence:
    return OutOfOrderSequence(
        f"producer {batch.producer_id}, epoch {batch.producer_epoch}: the batch begins with sequence "
        f"{batch.base_sequence}, expected is {expected}; nothing of it was written by this request",
        expected=expected,
        seen=batch.base_sequence,
    )
