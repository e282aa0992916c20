"""Pages: fetched batches as the records a client asked for, and where it goes on.

The size of compressed batches says nothing about their records, so a page has bounds of its own: it
ends where its text becomes larger than was asked for, also in the middle of a batch, and decoding
ends there too. Records are made by a function of Python's that the compiled decoder calls, so that
a thread which makes a page lets the event loop in between.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn

import msgspec

from minilog.errors import CorruptBatch, InvalidRequest
from minilog.wire.batch import HEADER_BYTES, Batch, peek, split
from minilog.wire.codec import Headers
from minilog.wire.compression import NONE
from minilog.wire.json_records import JsonRecordOut, NotRepresentable, headers_of, raw_of
from minilog.wire.records import decode_with

_BATCH_BYTES_MAX: Final = 2**31 - 1
PAGE_BYTES_MIN: Final = 4 * 1024 * 1024
"""A page may be so large whatever max_bytes says: a batch that is read in many pages is
decompressed for each of them."""
_encoder = msgspec.json.Encoder()


class Page(msgspec.Struct):
    """``texts`` are the records as JSON, ``offsets`` beside them. ``next_offset`` is where the next
    fetch begins. ``last_epoch`` the epoch of the record before it (-1: unknown)."""

    next_offset: int
    last_epoch: int
    offsets: list[int] = []
    texts: list[bytes] = []


class Wanted(NamedTuple):
    """What a client asked for, and what it may get."""

    records_max: int | None
    value_format: str
    key_format: str
    page_bytes_max: int
    record_bytes_max: int
    """Key, value and headers of one record, unless its batch is as large as it is stored."""


def is_compressed(batches: memoryview) -> bool:
    """Whether any of the batches expands when it is read. Raises CorruptBatch."""
    position = 0
    while len(batches) - position >= HEADER_BYTES:
        header = peek(batches, position)
        if header.codec != NONE:
            return True
        position += header.bytes_total
    return False


def page_of(batches: memoryview, offset: int, last_epoch: int, wanted: Wanted) -> Page:
    """The records from ``offset`` on that ``wanted`` allows, at least one if there is any.

    A record that cannot be shown ends the page before it; as the first of a page it raises
    InvalidRequest, which names it and says what to do. Batches without records left (compaction)
    are stepped over."""
    filling = _Filling(Page(offset, last_epoch), wanted)
    try:
        for batch in split(batches, _BATCH_BYTES_MAX, stored=True):
            filling.add_batch(batch)
    except _Full:
        pass
    return filling.page


def skip_batches(batches: memoryview, offset: int, last_epoch: int) -> Page:
    """The page that whole batches are: no records, only where they end."""
    page = Page(offset, last_epoch)
    for batch in split(batches, _BATCH_BYTES_MAX, stored=True):
        page.next_offset, page.last_epoch = max(page.next_offset, batch.end_offset), batch.leader_epoch
    return page


class _Full(Exception):
    """The page holds all it may; decoding ends here."""


class _Filling:
    """A page in the making."""

    def __init__(self, page: Page, wanted: Wanted) -> None:
        self.page = page
        self._wanted = wanted
        self._epoch = -1
        self._record_bytes_max = 0
        self._room_bytes = wanted.page_bytes_max

    def add_batch(self, batch: Batch) -> None:
        """Raises _Full, InvalidRequest and CorruptBatch."""
        page, self._epoch = self.page, batch.leader_epoch
        self._record_bytes_max = max(self._wanted.record_bytes_max, batch.bytes_total)
        if not batch.is_control:
            try:
                decode_with(self._add, batch)
            except CorruptBatch as error:
                self._refuse_batch(batch, error)
        page.next_offset, page.last_epoch = max(page.next_offset, batch.end_offset), batch.leader_epoch

    def _add(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        page, wanted = self.page, self._wanted
        if offset < page.next_offset:
            return
        if wanted.records_max is not None and len(page.offsets) >= wanted.records_max:
            raise _Full
        text = self._text(offset, timestamp, key, value, headers)
        if page.offsets and len(text) > self._room_bytes:
            raise _Full
        self._room_bytes -= len(text)
        page.offsets.append(offset)
        page.texts.append(text)
        page.next_offset, page.last_epoch = offset + 1, self._epoch

    def _text(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
        wanted = self._wanted
        size = len(key or b"") + len(value or b"")
        if headers:
            size += sum(len(name) + len(content or b"") for name, content in headers)
        if size > self._record_bytes_max:
            self._refuse(
                offset,
                f"has {size} bytes, more than is shown as JSON (limits.fetch_bytes_max, {self._record_bytes_max}); "
                "ask for whole batches (Accept: application/vnd.minilog.batch)",
            )
        try:
            shown = raw_of(key, wanted.key_format), raw_of(value, wanted.value_format)
            return _encoder.encode(JsonRecordOut(offset, timestamp, *shown, headers_of(headers)))
        except NotRepresentable as error:
            self._refuse(offset, f"is not {error} in its key or value; ask with format=base64 (or format=text)")

    def _refuse_batch(self, batch: Batch, error: CorruptBatch) -> NoReturn:
        """What its producer sent cannot be decoded: a page that has begun ends there; else the
        client has to know."""
        if self.page.offsets:
            raise _Full
        raise CorruptBatch(
            f"the batch of offsets {batch.base_offset} to {batch.last_offset} cannot be decoded, as its producer sent it: "
            f"{error.detail}; ask for whole batches (Accept: application/vnd.minilog.batch), or go on at offset "
            f"{batch.end_offset}",
            offset=batch.base_offset,
            end_offset=batch.end_offset,
        ) from None

    def _refuse(self, offset: int, why: str) -> NoReturn:
        """A page that has begun ends before the record; else the client has to know."""
        if self.page.offsets:
            raise _Full
        raise InvalidRequest(f"the record at offset {offset} {why}, or go on at offset {offset + 1}", offset=offset)
