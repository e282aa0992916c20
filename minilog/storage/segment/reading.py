"""Reading a segment: from an offset to whole, verified batches.

Owns: the way from an index entry to a batch, and the decision which bytes a reader is given.

Invariants:
* No byte is returned that is not part of a whole batch with the right checksum, place and leader
  epoch.
* What an index says is checked against the batches it leads to. BadBatch says that one of the two
  is wrong.
* What is good before a bad batch is served. The bad one is told to whoever begins there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from minilog.errors import CorruptBatch
from minilog.storage.segment.damage import WrongEpoch
from minilog.storage.segment.scan import BadBatch, LogBytes, check_place, pread, step
from minilog.storage.segment.sparse_index import INTERVAL_BYTES, OffsetIndex
from minilog.wire.batch import HEADER_BYTES, Batch, peek

_STEP_BYTES = 2 * INTERVAL_BYTES
_unpack_epoch_and_delta = struct.Struct(">12xi7xi").unpack_from

EpochSpan = Callable[[int], tuple[int, int | None]]
"""Of an offset the leader epoch that the log says it has, and where the next one starts
(EpochCache.span_at)."""


class Place(NamedTuple):
    """A batch with this base offset begins at this position."""

    offset: int
    position: int


class Batches(NamedTuple):
    """``data`` are whole batches, and ``next_place`` is where they end."""

    data: bytes
    next_place: Place


def find(log: LogBytes, offsets: OffsetIndex, offset: int) -> Place:
    """The batch that holds ``offset``. Raises BadBatch when the headers on the way are not what
    belongs there."""
    expected, position = offsets.floor(offset)
    start, data = position, b""
    while expected != offset:
        if len(data) - (position - start) < HEADER_BYTES:
            start, data = position, pread(log, position, _STEP_BYTES, expected)
        header = _stepped(data, position - start, position, expected)
        if header.end_offset > offset:
            break
        expected, position = header.end_offset, position + header.bytes_total
    return Place(expected, position)


def read(
    log: LogBytes, offsets: OffsetIndex, place: Place, max_bytes: int, end_offset: int, epoch_span: EpochSpan
) -> Batches:
    """Whole batches from ``place`` on that end at ``end_offset`` at most, one at least. Raises
    BadBatch."""
    offset, position = place
    stop = _stop(log, offsets, position, max_bytes, end_offset)
    data = pread(log, position, stop - position, offset)
    size, next_offset = _verified(data, place, max_bytes, end_offset, epoch_span)
    if size == 0:
        data = pread(log, position, _first_bytes(log, data, place), offset)
        size, next_offset = _verified(data, place, len(data), end_offset, epoch_span)
    return Batches(data if size == len(data) else data[:size], Place(next_offset, position + size))


def _stepped(data: bytes, at: int, position: int, expected: int) -> Batch:
    """The header at ``data[at]``, good enough to step on."""
    try:
        header = peek(data, at)
    except CorruptBatch as error:
        raise BadBatch(position, expected, error.detail) from error
    fault = check_place(header, expected, -1)
    if fault is None and header.last_offset_delta < 0:
        fault = f"its last offset delta is {header.last_offset_delta}"
    if fault is not None:
        raise BadBatch(position, expected, fault)
    return header


def _stop(log: LogBytes, offsets: OffsetIndex, position: int, max_bytes: int, end_offset: int) -> int:
    """Up to where to read: a batch border whenever the index knows one that fits."""
    stop = offsets.ceiling(end_offset) or log.size
    if stop - position > max_bytes:
        border = offsets.border(position + max_bytes)
        stop = border if border > position else min(stop, position + max(max_bytes, _STEP_BYTES))
    return stop


def _first_bytes(log: LogBytes, data: bytes, place: Place) -> int:
    """Size of the batch at the start of ``data``, which is larger than what was asked for."""
    header = _stepped(data, 0, place.position, place.offset)
    left = log.size - place.position
    if header.bytes_total > left:
        reason = f"its length field claims {header.bytes_total} bytes, {left} are left"
        raise BadBatch(place.position, place.offset, reason)
    return header.bytes_total


def _verified(data: bytes, place: Place, max_bytes: int, end_offset: int, epoch_span: EpochSpan) -> tuple[int, int]:
    """(bytes, next offset) of the whole good batches at the start of ``data`` that keep within the
    bounds.

    Raises BadBatch for the first batch only.
    """
    offset, position = place
    view = memoryview(data)
    size, length = 0, min(len(data), max_bytes)
    epoch, epoch_end = epoch_span(offset)
    while True:
        try:
            bytes_total = step(view, size, length, offset, -1, position + size)
        except BadBatch:
            if size:
                break
            raise
        if bytes_total == 0:
            break
        leader_epoch, delta = _unpack_epoch_and_delta(view, size)
        next_offset = offset + delta + 1
        if next_offset > end_offset:
            break
        if epoch_end is not None and offset >= epoch_end:
            epoch, epoch_end = epoch_span(offset)
        if leader_epoch != epoch:
            if size:
                break
            raise WrongEpoch(position, offset, next_offset, leader_epoch, epoch)
        size += bytes_total
        offset = next_offset
    return size, offset
