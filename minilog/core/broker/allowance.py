"""Allowance: what one produce request may bring and make a broker do within its turn, over all its
partitions.

Owns the sums. Each batch is within its own bounds already (``wire/batch.split``). A request holds
many of them.

* Producers. Each new producer id may make a log forget another one, and with it that its retries
  were written (``storage/log/producers.py``). A client numbers its batches with one id, so a
  request with many of them is refused.
* What is looked into. Compaction goes by keys, so batches for compacted topics are decoded before
  they are appended. Their size says nothing about that work: 6 KB can expand to 64 MiB, and those
  to millions of objects. So the work has bounds, for all batches of a request together. Whom only
  the partitions before it left too little is told to send it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minilog.config import MIB
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptBatch, InvalidRecord, InvalidRequest, MinilogError, Overloaded, RecordTooLarge
from minilog.wire.batch import NO_PRODUCER_ID, Batch
from minilog.wire.codec import OBJECTS_MAX, Headers
from minilog.wire.records import decode_payload, expand

PRODUCERS_MAX: Final = 8
"""Different producer ids in one request."""


KEYED_BYTES_MAX: Final = 16 * MIB
"""What the compressed batches of one request to compacted topics may expand to. A topic's
max.message.bytes if that is more."""


class Allowance:
    """What one request has brought so far."""

    def __init__(self) -> None:
        self._producer_ids: set[int] = set()
        self._bytes = 0
        self._objects = 0

    def take(self, batches: Sequence[Batch], replica: Replica) -> None:
        """Raises InvalidRequest, and for a compacted topic InvalidRecord, CorruptBatch,
        RecordTooLarge or Overloaded."""
        self._take_producers(batches)
        if replica.settings.is_compacted:
            self._take_inside(batches, replica)

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

    def _take_inside(self, batches: Sequence[Batch], replica: Replica) -> None:
        bytes_max = max(KEYED_BYTES_MAX, replica.settings.max_message_bytes)
        is_first = not self._objects
        for batch in batches:
            is_alone = not self._objects
            try:
                self._look_into(batch, replica, bytes_max)
            except CorruptBatch as error:
                self._bytes, self._objects = (
                    bytes_max,
                    OBJECTS_MAX,
                )  # the work is done. So are others' like it behind it
                if is_alone:
                    raise
                raise _too_much(error, bytes_max, is_first) from None

    def _look_into(self, batch: Batch, replica: Replica, bytes_max: int) -> None:
        payload = expand(batch, max(0, bytes_max - self._bytes))
        self._bytes += len(payload) if batch.codec else 0
        look = _Look(replica)
        try:
            decode_payload(look.at, batch, payload, OBJECTS_MAX - self._objects)
        finally:
            self._objects += look.objects


def _too_much(error: CorruptBatch, bytes_max: int, is_first: bool) -> MinilogError:
    """``is_first``: all of it is the partition's own. Else it may be sent again, and with luck in
    other company."""
    bound = (
        f"the batches of one request to compacted topics may expand to {bytes_max} bytes and hold {OBJECTS_MAX} records and "
        f"headers, together; after those before it one is too large, or it is damaged ({error.detail})"
    )
    if is_first:
        return RecordTooLarge(f"{bound}; send it in a request of its own")
    return Overloaded(
        f"{bound}; nothing was written to this partition, send its batches again in a request of their own"
    )


class _Look:
    """Sees the records of one batch."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.objects = 0

    def at(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.objects += 1 + len(headers)
        if key is None:
            replica = self._replica
            raise InvalidRecord(
                f"{replica.partition} is compacted (cleanup.policy={replica.settings.cleanup_policy}), and record "
                f"{offset} of the batch has no key; give every record a key"
            )
