"""What is said of records that were not acknowledged: which error, how much it proves, what to do.
Pure.

``definite`` is the promise to keep: True only if the records are provably not in the log, whatever
was tried before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from minilog.errors import (
    ClientClosed,
    DuplicateSequence,
    MinilogError,
    OutOfOrderSequence,
    ProducerFenced,
    TimedOut,
    UnknownTopic,
)
from minilog_client.producer.partition_queue import PartitionQueue, ProducerBatch
from minilog_client.producer.sequences import NONE
from minilog_client.values import counted

_SHOWN_MAX: Final = 3


class Unsettled(NamedTuple):
    """Records of one partition (None: of a topic whose partitions are not known) that still have no
    fate, and what their last try, if there was any, ended with."""

    topic: str
    partition: int | None
    record_count: int
    last_error: MinilogError | None


def for_batch(error: MinilogError, queue: PartitionQueue, batch: ProducerBatch) -> MinilogError:
    """``error`` for the records of ``batch``: definite only if no try before left it open
    either."""
    definite = error.definite and not batch.maybe_written
    follows_gap = queue.sequences is not None and queue.sequences.is_spent
    said = _said(error, definite, follows_gap)
    own = type(error)(f"{queue.topic}-{queue.partition}: {said}", definite=definite)
    own.info.update(error.info, topic=queue.topic, partition=queue.partition)
    if queue.sequences is not None and batch.base_sequence != NONE:
        own.info.update(batch.number, record_count=batch.record_count)
    return own


def _said(error: MinilogError, definite: bool, follows_gap: bool) -> str:
    if isinstance(error, DuplicateSequence):
        return f"the record is in the log, but at which offset is not known any more ({error.detail})"
    if isinstance(error, OutOfOrderSequence):
        return f"{_gap(definite, follows_gap)} ({error.detail})"
    if isinstance(error, ProducerFenced):
        return f"another producer writes with a later epoch of this producer id; a new id is taken ({error.detail})"
    if isinstance(error, ClientClosed | TimedOut) and not definite:
        return f"{error.detail}; it may be written"
    return error.detail


def _gap(definite: bool, follows_gap: bool) -> str:
    if definite:
        missing = (
            "the log does not end with what was acknowledged before this record, so acknowledged records are missing"
        )
        return f"{missing}; it is not written"
    if follows_gap:
        return "records before it were given up and are not in the log; it is not there either, unless it comes late"
    return "records before it are missing in the log; whether it is written is not known"


def expired(batch: ProducerBatch, timeout_ms: int, obstacle: MinilogError | None) -> TimedOut:
    """Not acknowledged in time. ``obstacle`` is what kept a batch that was never sent from being
    sent."""
    if batch.last_error is not None:
        last = f"the last of {batch.tries} tries: {batch.last_error.detail}"
    elif obstacle is not None:
        last = f"never sent: {obstacle.detail}"
    else:
        last = "never sent"
    return TimedOut(f"not acknowledged within delivery_timeout_ms {timeout_ms} ({last})", definite=True)


def no_partitions(topic: str, timeout_ms: int, reason: MinilogError | None) -> TimedOut:
    """``reason``: why nobody told, as far as it is known."""
    because = f" ({reason.detail})" if reason is not None else ""
    return TimedOut(
        f"{topic}: no broker has told its partitions within delivery_timeout_ms {timeout_ms}{because}",
        definite=True,
        topic=topic,
    )


def remade(topic: str) -> UnknownTopic:
    return UnknownTopic(
        f"topic {topic} was deleted and created anew; the record was meant for the topic that is gone, and is not sent to "
        "the other one"
    )


def unsettled_of(queue: PartitionQueue, obstacle: MinilogError | None) -> Unsettled:
    count, last_error = 0, queue.attempts.last_error or obstacle
    for batch in queue.batches():
        count += batch.record_count
        last_error = last_error or batch.last_error
    return Unsettled(queue.topic, queue.partition, count, last_error)


def listed(unsettled: Iterable[Unsettled]) -> tuple[str, dict[str, object]]:
    """One sentence about records that are not settled, and the same in full for programs (an
    error's ``info``)."""
    entries = sorted(unsettled, key=lambda entry: -entry.record_count)
    total = sum(entry.record_count for entry in entries)
    more = f", and {counted(len(entries) - _SHOWN_MAX, 'more partition')}" if len(entries) > _SHOWN_MAX else ""
    shown = ", ".join(map(_shown, entries[:_SHOWN_MAX]))
    info = {
        "records_unsettled": total,
        "unsettled": [
            {
                "topic": entry.topic,
                "partition": entry.partition,
                "record_count": entry.record_count,
                "last_error": entry.last_error.detail if entry.last_error else None,
            }
            for entry in entries
        ],
    }
    return f"{counted(total, 'record', 'is', 'are')} not settled: {shown}{more}", info


def _shown(entry: Unsettled) -> str:
    place = entry.topic if entry.partition is None else f"{entry.topic}-{entry.partition}"
    if entry.last_error is not None:
        why = f"last error: {entry.last_error.detail}"
    else:
        why = "its partitions are not known yet" if entry.partition is None else "no error so far"
    return f"{entry.record_count} of {place} ({why})"
