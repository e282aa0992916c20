"""A record that cannot be handled, as it is put aside: the same bytes, and headers that say where
it comes from, how often it was tried, and why it failed. Pure."""

from __future__ import annotations

from typing import Final

from minilog.wire.codec.codec import Headers
from minilog_client.consumer.records import Record
from minilog_client.values import text_of

PREFIX: Final = "minilog-dead-letter-"
_CAUSE_CHARS_MAX: Final = 1000


def dead_letter_headers(record: Record, error: BaseException, attempts: int) -> Headers:
    """Those of the record, and ours in the place of any that it has from being put aside before."""
    said = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "attempts": attempts,
        "cause": f"{type(error).__name__}: {text_of(error)}"[:_CAUSE_CHARS_MAX],
    }
    own = [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]
    return (*own, *((PREFIX + name, str(value).encode(errors="replace")) for name, value in said.items()))
