"""Conditional batches: records that are written where a partition ends at an expected offset, all
of them or none (R101). Pure.

Such a batch is numbered like all others, so a try whose answer was lost is recognized and not
mistaken for somebody else's. It travels alone. Refused at its first try it was provably never
written, and its number is free again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minilog.errors import EndOffsetMismatch, InvalidRequest, MinilogError, RecordTooLarge
from minilog.wire.http import INT64_MAX
from minilog_client.producer.partition_queue import ProducerBatch
from minilog_client.settings import ProducerSettings
from minilog_client.values import Row


def check_condition(expected_offset: int, record_count: int, settings: ProducerSettings) -> None:
    """Raises InvalidRequest."""
    is_offset = isinstance(expected_offset, int) and not isinstance(expected_offset, bool)
    if not is_offset or not 0 <= expected_offset <= INT64_MAX:
        raise InvalidRequest(f"expected_offset is {expected_offset!r}; allowed is an offset, 0 to {INT64_MAX}")
    if settings.acks == 0 or not settings.idempotent:
        raise InvalidRequest(
            f"append() with acks={settings.acks!r} and idempotent={settings.idempotent} could not say whether it was "
            "written; make a producer with acks of at least 1 and idempotent=True"
        )
    if not record_count:
        raise InvalidRequest("there is nothing to append; give at least one value")


def fill(batch: ProducerBatch, rows: Iterable[Row], timestamp: int, token: Any) -> None:
    """Put all of ``rows`` into the new ``batch``. Raises RecordTooLarge."""
    for value, key, headers, own_timestamp in rows:
        at = timestamp if own_timestamp is None else own_timestamp
        if not batch.builder.append(key, value, headers, at):
            raise RecordTooLarge(
                f"the records do not fit one batch of {batch.builder.batch_bytes_max} bytes, the topic's "
                "max.message.bytes; append fewer at a time"
            )
        batch.add_owner(1, token)


def is_never_written(error: MinilogError) -> bool:
    """Each try of the batch was refused because of its condition."""
    return isinstance(error, EndOffsetMismatch) and error.definite
