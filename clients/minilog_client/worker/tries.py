"""The tries of one record, and what is to become of it. Pure."""

from __future__ import annotations

import logging
from typing import Any, Final

from minilog.errors import InvalidRequest
from minilog.wire.codec.codec import Headers
from minilog_client.consumer.decoding import Decoding
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.serializers.serializer import serializer_of
from minilog_client.values import text_of
from minilog_client.worker.dead_letter import dead_letter_headers
from minilog_client.worker.retries import Retries

_log: Final = logging.getLogger("minilog_client")


class Tries:
    """``record`` is what the application handles. ``failure`` is why it could not, so far."""

    def __init__(self, raw: Record, decoding: Decoding, retries: Retries) -> None:
        self._raw = raw
        self._retries = retries
        self._attempts = 0
        found, unreadable = decoding.decode([raw])
        self.failure: BaseException | None = None
        if unreadable is not None:
            self.failure = unreadable.cause
            _log.warning(
                "%s-%d: the record at %d cannot be read: %r", raw.topic, raw.partition, raw.offset, self.failure
            )
        self.record: AnyRecord | None = found[0] if found else None
        self.is_due = self.record is not None
        """It is to be tried, for the first time or again."""

    def on_handled(self) -> None:
        self.is_due, self.failure = False, None

    def on_failed(self, error: BaseException) -> float:
        """After how many seconds it is tried again, if it is."""
        self._attempts += 1
        self.failure = error
        delay_s = self._retries.delay_s(self._attempts)
        self.is_due = delay_s is not None
        _log.warning(
            "%s-%d: handling the record at %d has failed (try %d of %d): %s: %s",
            self._raw.topic, self._raw.partition, self._raw.offset,
            self._attempts, self._retries.attempts_max, type(error).__name__, text_of(error),
        )  # fmt: skip
        return delay_s or 0.0

    @property
    def headers(self) -> Headers:
        """Of the dead letter."""
        assert self.failure is not None, "what was handled is no dead letter"
        return dead_letter_headers(self._raw, self.failure, self._attempts)


def decoding_for(read_as: Decoding | None, dead_letters: Any, value: Any, key: Any) -> Decoding:
    """How a worker reads what its consumer, which reads ``read_as``, hands out. Raises
    InvalidRequest, TypeError."""
    if read_as is not None:
        raise InvalidRequest(
            "the consumer reads values already, so a dead letter could not have the same bytes; give value and key "
            "to the worker instead"
        )
    if not isinstance(dead_letters, str) or not dead_letters:
        raise InvalidRequest(f"dead_letters is {dead_letters!r}; allowed is the name of a topic")
    return Decoding(serializer_of("value", value), serializer_of("key", key), "raise")
