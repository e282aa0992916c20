"""Pages: fetched batches as the records a client asked for, and where it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from minilog.errors import InvalidRequest
from minilog.wire.batch import Batch, split
from minilog.wire.json_records import JsonRecordOut, NotRepresentable, headers_of, raw_of
from minilog.wire.records import Record, decode_batch

_BATCH_BYTES_MAX: Final = 2**31 - 1


class Page(msgspec.Struct):
    """``next_offset`` is where the next fetch begins; ``last_epoch`` the epoch of the record before it (-1: unknown)."""

    records: list[JsonRecordOut]
    next_offset: int
    last_epoch: int


def page_of(
    batches: memoryview,
    offset: int,
    last_epoch: int,
    max_records: int | None,
    value_format: str,
    key_format: str,
) -> Page:
    """The records from ``offset`` on, at most ``max_records``.

    A record that the format cannot show ends the page before it; as the first of a page it raises InvalidRequest,
    which names it and says what to do. Batches without records left (compaction) are stepped over."""
    page = Page([], offset, last_epoch)
    for batch in split(batches, _BATCH_BYTES_MAX, stored=True):
        for record in _records(batch, page.next_offset):
            if max_records is not None and len(page.records) >= max_records:
                return page
            try:
                page.records.append(_out(record, value_format, key_format))
            except NotRepresentable as error:
                if page.records:
                    return page
                raise InvalidRequest(
                    f"the record at offset {record.offset} is not {error} in its key or value; ask with "
                    f"format=base64 (or format=text), or go on at offset {record.offset + 1}",
                    offset=record.offset,
                ) from None
            page.next_offset, page.last_epoch = record.offset + 1, batch.leader_epoch
        page.next_offset, page.last_epoch = max(page.next_offset, batch.end_offset), batch.leader_epoch
    return page


def skip_batches(batches: memoryview, offset: int, last_epoch: int) -> Page:
    """The page that whole batches are: no records, only where they end."""
    page = Page([], offset, last_epoch)
    for batch in split(batches, _BATCH_BYTES_MAX, stored=True):
        page.next_offset, page.last_epoch = max(page.next_offset, batch.end_offset), batch.leader_epoch
    return page


def _records(batch: Batch, offset: int) -> Iterator[Record]:
    if batch.is_control:
        return iter(())
    return iter(decode_batch(batch, from_offset=offset))


def _out(record: Record, value_format: str, key_format: str) -> JsonRecordOut:
    return JsonRecordOut(
        record.offset,
        record.timestamp,
        raw_of(record.key, key_format),
        raw_of(record.value, value_format),
        headers_of(record.headers),
    )
