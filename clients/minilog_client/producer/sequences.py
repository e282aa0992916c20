"""The numbers that make a retry harmless: producer id, epoch and sequence of one partition's
batches. Pure.

A leader accepts a batch of a producer only if its sequence is the next one, and answers a repeated
one with the offset of the first (R31). So a batch keeps its number over all tries, and a number is
never used for other records.

When a numbered batch is given up, nobody knows what the leader expects next: the *epoch* is counted
up and sequences begin at 0 again. In the new epoch nothing of the old one can be written any more,
however late it arrives.

Invariants:
* A new epoch begins only when no batch that may be written is left under the old one: each of them
  is first sent again, alone, under its old number, until its fate is known or its time is up. A
  batch that gets a new number is therefore provably not in the log, and no zombie of it is on its
  way.
* At most ``REMEMBERED_BATCHES`` batches of a partition travel in one request: a leader remembers so
  many, so each can still be recognized when the answer to all of them was lost.
* Numbers stay with batches, partitions do not share them: ids are per producer, epochs and
  sequences per partition.

Why an epoch per partition and not one for the whole producer: a leader judges sequences by
(producer id, partition) and knows of no other partition, so counting up one of them proves nothing
about the others and need not disturb them. One epoch for all has to wait until nothing is in flight
anywhere, and otherwise gives batches that may be written a second identity, which is how other
clients came to write records twice or out of order.

Source: KIP-98 (sequences), KIP-360 (the client counts up its epoch by itself, and asks for a new id
at the end of epochs); KAFKA-14034 and librdkafka issue 4953 (what goes wrong when the bump comes
too early or reaches partitions that have nothing to do with it).
"""

from __future__ import annotations

from typing import Final

from minilog.errors import MinilogError

REMEMBERED_BATCHES: Final = 5
EPOCH_MAX: Final = 2**15 - 1
SEQUENCE_MAX: Final = 2**31 - 1
NONE: Final = -1


class ProducerIdentity:
    """The id new numbers are drawn under; shared by all partitions of one producer."""

    __slots__ = ("last_error", "producer_id")

    def __init__(self) -> None:
        self.producer_id = NONE
        """NONE: a broker is to be asked for one."""
        self.last_error: MinilogError | None = None
        """Why there is none yet."""

    @property
    def is_wanted(self) -> bool:
        return self.producer_id == NONE

    def assign(self, producer_id: int) -> None:
        assert producer_id >= 0, "a broker gives ids from 0 on"
        self.producer_id, self.last_error = producer_id, None

    def retire(self, producer_id: int) -> None:
        """``producer_id`` cannot be used any more. If it is the present one, another is wanted."""
        if self.producer_id == producer_id:
            self.producer_id = NONE


class Sequences:
    """What the next batch of one partition is numbered with."""

    __slots__ = ("_identity", "is_restart", "is_spent", "next_sequence", "producer_epoch", "producer_id")

    def __init__(self, identity: ProducerIdentity) -> None:
        self._identity = identity
        self.producer_id = NONE
        self.producer_epoch = NONE
        self.next_sequence = 0
        self.is_spent = True
        """A new epoch has to begin before the next batch gets a number."""
        self.is_restart = False
        """The next number is the first after records were given up."""

    def draw(self, record_count: int) -> int:
        """The base sequence of the next batch."""
        assert not self.is_spent, "renew() comes before draw()"
        assert record_count > 0, "a batch has records"
        self.is_restart = False
        base_sequence = self.next_sequence
        self.next_sequence = (base_sequence + record_count) & SEQUENCE_MAX
        return base_sequence

    def take_back(self, base_sequence: int) -> None:
        """The batch that was numbered last was refused, and no try of it was ever written: its
        number is free."""
        self.next_sequence = base_sequence

    def give_up(self) -> None:
        """A numbered batch was not acknowledged and never will be."""
        self.is_spent = True

    def discard(self) -> None:
        """Somebody else writes with a higher epoch of this id: leave it to them."""
        self._identity.retire(self.producer_id)
        self.producer_id = NONE
        self.is_spent = True

    def renew(self) -> bool:
        """Begin the next epoch. False: that takes a producer id which is not known yet."""
        is_first = self.producer_epoch == NONE
        if self.producer_id != NONE and self.producer_epoch < EPOCH_MAX:
            self.producer_epoch += 1
        else:
            if self.producer_id != NONE:
                self._identity.retire(self.producer_id)
            if self._identity.is_wanted:
                return False
            self.producer_id, self.producer_epoch = self._identity.producer_id, 0
        self.next_sequence = 0
        self.is_spent, self.is_restart = False, not is_first
        return True
