"""Pages: fetched batches as the records a client asked for, and where it goes on.

The size of compressed batches says nothing about their records, so a page has bounds of its own: it
ends where its text becomes larger than was asked for, also in the middle of a batch, and decoding
ends there too. Records are made by a function of Python's that the compiled decoder calls, so that
a thread which makes a page lets the event loop in between.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from minilog.errors import CorruptBatch, MinilogError, RecordTooLarge
from minilog.wire.batch import Batch, split
from minilog.wire.codec.codec import Headers
from minilog.wire.http import BATCH, problem_body
from minilog.wire.json.json_records import UnreadableRecords, record_text
from minilog.wire.records import decode_with

_BATCH_BYTES_MAX: Final = 2**31 - 1
PAGE_BYTES_MIN: Final = 4 * 1024 * 1024
"""A page may be so large whatever max_bytes says: a batch that is read in many pages is
decompressed for each of them."""
_encoder = msgspec.json.Encoder()


class Page(msgspec.Struct):
    """``texts`` are the records as JSON, ``offsets`` beside them: of a mark, the last one that it
    stands for. ``next_offset`` is where the next fetch begins. ``last_epoch`` the epoch of the
    record before it (-1: unknown)."""

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
    skips_unreadable: bool = False


def page_of(batches: memoryview, offset: int, last_epoch: int, wanted: Wanted) -> Page:
    """The records from ``offset`` on that ``wanted`` allows, at least one if there is any.

    What cannot be read has a mark in its place (R41): the range of its offsets and why. With
    ``wanted.skips_unreadable`` there is none, and the page goes on behind it all the same. Batches
    without records left (compaction) are stepped over."""
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
        """Raises _Full."""
        page, self._epoch = self.page, batch.leader_epoch
        self._record_bytes_max = max(self._wanted.record_bytes_max, batch.bytes_total)
        if not batch.is_control:
            try:
                decode_with(self._add, batch)
            except CorruptBatch as error:
                self._mark(max(page.next_offset, batch.base_offset), batch.end_offset, _undecodable(batch, error))
        page.next_offset, page.last_epoch = max(page.next_offset, batch.end_offset), batch.leader_epoch

    def _add(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        wanted = self._wanted
        if offset < self.page.next_offset:
            return
        size = len(key or b"") + len(value or b"")
        if headers:
            size += sum(len(name) + len(content or b"") for name, content in headers)
        if size > self._record_bytes_max:
            self._mark(offset, offset + 1, _too_large(offset, size, self._record_bytes_max))
            return
        text = record_text(offset, timestamp, key, value, headers, wanted.key_format, wanted.value_format)
        self._put(offset + 1, text)

    def _mark(self, offset: int, end_offset: int, error: MinilogError) -> None:
        """Nothing can be shown from ``offset`` up to ``end_offset``."""
        if offset >= end_offset:
            return
        if self._wanted.skips_unreadable:
            self.page.next_offset, self.page.last_epoch = end_offset, self._epoch
            return
        error.info.update(offset=offset, end_offset=end_offset)
        self._put(end_offset, _encoder.encode(UnreadableRecords(offset, end_offset, Raw(problem_body(error)))))

    def _put(self, end_offset: int, text: bytes) -> None:
        """Raises _Full when the page has no room for it, unless it is the first."""
        page, wanted = self.page, self._wanted
        if wanted.records_max is not None and len(page.offsets) >= wanted.records_max:
            raise _Full
        if page.offsets and len(text) > self._room_bytes:
            raise _Full
        self._room_bytes -= len(text)
        page.offsets.append(end_offset - 1)
        page.texts.append(text)
        page.next_offset, page.last_epoch = end_offset, self._epoch


def _undecodable(batch: Batch, error: CorruptBatch) -> CorruptBatch:
    return CorruptBatch(
        f"the batch of offsets {batch.base_offset} to {batch.last_offset} cannot be decoded, as its producer sent it: "
        f"{error.detail}; its bytes come with whole batches (Accept: {BATCH}), the next record is at offset "
        f"{batch.end_offset} or behind it"
    )


def _too_large(offset: int, size_bytes: int, bytes_max: int) -> RecordTooLarge:
    return RecordTooLarge(
        f"the record at offset {offset} has {size_bytes} bytes, more than is shown as JSON (limits.fetch_bytes_max, "
        f"{bytes_max}); its bytes come with whole batches (Accept: {BATCH}), the next record is at offset {offset + 1} "
        "or behind it"
    )
