"""Allowance: what one produce request may bring and make a broker do, over all its partitions.

R41: ``inspect`` looks into every batch before any is appended: what is acknowledged can be read, by
every reader. It is a pure function of the request's bytes. So it may be carried out before the turn
that appends them, in a thread, and nothing it says can be out of date by then. What a topic demands
besides is asked of its answer within the turn (``Share.check``).

Owns the sums. Each batch is within its own bounds already (``wire/batch.split``). A request holds
many of them.

* Producers. Each new producer id may make a log forget another one, and with it that its retries
  were written (``storage/log/producers.py``). A client numbers its batches with one id, so a
  request with many of them is refused.
* What is expanded. The size of a compressed batch says nothing about the work to look into it: 6 KB
  can expand to 64 MiB, and those to millions of records. So this work has bounds, for all
  compressed batches of a request together. Whom only the partitions before it left too little is
  told to send it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.config import KIB
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptBatch, InvalidRecord, InvalidRequest, MinilogError, Overloaded, RecordTooLarge
from minilog.wire.batch import EXPANDED_BYTES_MAX, NO_PRODUCER_ID, Batch, check_size, split
from minilog.wire.codec.codec import COMPILED, OBJECTS_MAX
from minilog.wire.messages import Produce, ProducePartition
from minilog.wire.records import Inside, expand, look_inside

PRODUCERS_MAX: Final = 8
"""Different producer ids in one request."""
BATCHES_MAX: Final = 1000
"""Of one partition in one request: they are appended in one turn (R42). A client sends a few."""
REQUEST_EXPANDED_BYTES_MAX: Final = EXPANDED_BYTES_MAX
"""What the compressed batches of one request may expand to."""
REQUEST_OBJECTS_MAX: Final = 4 * OBJECTS_MAX
"""Records and headers in the compressed batches of one request."""
_BATCH_BYTES_MAX: Final = 2**31 - 1


TURN_BYTES_MAX: Final = 256 * KIB if COMPILED else 16 * KIB
"""What is looked into within a turn: some ms at worst, if it is all tiny records and headers."""
TURN_EXPANDED_BYTES_MAX: Final = 4 * TURN_BYTES_MAX
TURN_OBJECTS_MAX: Final = TURN_BYTES_MAX // 4


class Share(NamedTuple):
    """What one partition is sent, looked into: every reader can read it.

    ``keyless`` is the place of the first record without a key, of all the batches together."""

    batches: list[Batch]
    keyless: int | None

    def check(self, replica: Replica) -> None:
        """Whether it may come into this very topic; raises RecordTooLarge, InvalidRecord or
        InvalidRequest."""
        settings = replica.settings
        if not self.batches:
            raise InvalidRequest(f"no records for {replica.partition}: the batches field is empty")
        position = 0
        for batch in self.batches:
            check_size(batch.bytes_total, position, settings.max_message_bytes)
            position += batch.bytes_total
        if settings.is_compacted and self.keyless is not None:
            raise InvalidRecord(
                f"{replica.partition} is compacted (cleanup.policy={settings.cleanup_policy}), and record {self.keyless} of "
                "the batch has no key; give every record a key"
            )


class Inspected(NamedTuple):
    """A produce request that was looked into before its turn, and what was found of each
    partition."""

    request: Produce
    shares: Sequence[Share | MinilogError]


def inspect(request: Produce) -> Inspected:
    """Never raises: what cannot be taken is an error in the place of its partition. Takes time in
    proportion to the request's bytes, and up to a second for compressed ones."""
    allowance = Allowance(REQUEST_EXPANDED_BYTES_MAX, REQUEST_OBJECTS_MAX)
    return Inspected(request, [allowance.look(entry) for entry in request.partitions])


def inspect_briefly(request: Produce) -> Inspected | None:
    """The same, unless it takes longer than a turn may."""
    if sum(len(entry.batches) for entry in request.partitions) > TURN_BYTES_MAX:
        return None
    allowance = Allowance(TURN_EXPANDED_BYTES_MAX, TURN_OBJECTS_MAX)
    looked = Inspected(request, [allowance.look(entry) for entry in request.partitions])
    return None if allowance.was_exceeded else looked


class Allowance:
    """What one request has brought so far. Of compressed batches it may bring ``bytes_max`` and
    ``objects_max`` in all."""

    def __init__(self, bytes_max: int, objects_max: int) -> None:
        self.was_exceeded = False
        """By a batch that is too large after those before it, or that is damaged."""
        self._bytes_max, self._objects_max = bytes_max, objects_max
        self._producer_ids: set[int] = set()
        self._bytes = 0
        self._objects = 0

    def look(self, entry: ProducePartition) -> Share | MinilogError:
        """The batches of one partition, or why they are refused: InvalidRequest, CorruptBatch,
        RecordTooLarge, Overloaded."""
        try:
            batches = split(entry.batches, _BATCH_BYTES_MAX)
            if len(batches) > BATCHES_MAX:
                raise _too_many(len(batches))
            self._take_producers(batches)
            return Share(batches, self._look_inside(batches))
        except MinilogError as error:
            return error

    def _take_producers(self, batches: Sequence[Batch]) -> None:
        known = self._producer_ids
        for batch in batches:
            if batch.producer_id != NO_PRODUCER_ID:
                known.add(batch.producer_id)
        if len(known) > PRODUCERS_MAX:
            raise InvalidRequest(
                f"the batches of this request have {len(known)} different producer ids, allowed are {PRODUCERS_MAX}; "
                "a producer numbers its batches with one id, so send those of each producer in a request of their own"
            )

    def _look_inside(self, batches: Sequence[Batch]) -> int | None:
        is_first = not self._objects
        first, position, keyless = 0, 0, None
        for batch in batches:
            if batch.codec:
                found = self._look_expanded(batch, position, is_first)
            else:
                try:
                    found = look_inside(batch, bytes(batch.payload))
                except CorruptBatch as error:
                    raise _unreadable(error, position) from None
            if keyless is None and found.keyless is not None:
                keyless = first + found.keyless
            first, position = first + batch.record_count, position + batch.bytes_total
        return keyless

    def _look_expanded(self, batch: Batch, position: int, is_first: bool) -> Inside:
        is_alone = not self._objects
        try:
            payload = expand(batch, max(0, self._bytes_max - self._bytes))
            found = look_inside(batch, payload, min(OBJECTS_MAX, self._objects_max - self._objects))
        except CorruptBatch as error:
            # The work is done. So are others' like it behind it.
            self._bytes, self._objects, self.was_exceeded = self._bytes_max, self._objects_max, True
            if is_alone:
                raise _unreadable(error, position) from None
            raise _too_much(error, is_first) from None
        self._bytes += len(payload)
        self._objects += found.objects
        return found


def _too_many(count: int) -> InvalidRequest:
    return InvalidRequest(
        f"one partition is sent {count} batches, allowed in a request are {BATCHES_MAX}; nothing was written to it, "
        "put more records into each batch, or send fewer batches in a request"
    )


def _unreadable(error: CorruptBatch, position: int) -> CorruptBatch:
    return CorruptBatch(
        f"the records of the batch at byte {position} cannot be read: {error.detail}; nothing was written, encode it anew",
        position=position,
    )


def _too_much(error: CorruptBatch, is_first: bool) -> MinilogError:
    """``is_first``: all of it is the partition's own. Else it may be sent again, and with luck in
    other company."""
    bound = (
        f"the compressed batches of one request may expand to {REQUEST_EXPANDED_BYTES_MAX} bytes and hold "
        f"{REQUEST_OBJECTS_MAX} records and headers, together; after those before it one is too large, or it is damaged "
        f"({error.detail})"
    )
    if is_first:
        return RecordTooLarge(f"{bound}; nothing was written, send fewer batches in a request")
    return Overloaded(
        f"{bound}; nothing was written to this partition, send its batches again in a request of their own"
    )
