"""Where a log can be cut, what lies behind a cut (the arithmetic of ``PartitionLog``'s one way to
lose records), and where batches that go in together come apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minilog.errors import CorruptRange
from minilog.storage.log.log_place import LogPlace
from minilog.storage.log.quarantine import Piece
from minilog.storage.segment.scan import BadBatch
from minilog.storage.segment.segment import SEGMENT_SPAN_MAX, Segment
from minilog.wire.batch import Batch


class Border(NamedTuple):
    """A batch ends, or damage begins, at this offset and position of this segment."""

    segment: Segment
    offset: int
    position: int


def border_at(segment: Segment, offset: int) -> Border:
    """The last border at or before ``offset``, which lies in ``segment``, that can be cut at."""
    try:
        return _border(segment, offset)
    except BadBatch:
        segment.rebuild()
    try:
        return _border(segment, offset)
    except BadBatch as bad:
        return Border(segment, bad.offset, bad.position)


def _border(segment: Segment, offset: int) -> Border:
    known = segment.bad_range_at(offset)
    return Border(segment, *segment.find(known[0] if known else offset))


def tail(border: Border, segments: Sequence[Segment]) -> list[Piece]:
    """Everything behind the border in a log of these segments; empty when that is no byte."""
    pieces = [Piece(border.segment.log_bytes(), border.position, border.offset)]
    later = segments[segments.index(border.segment) + 1 :]
    pieces.extend(Piece(segment.log_bytes(), 0, segment.base_offset) for segment in later)
    return pieces if any(piece.log.size > piece.position for piece in pieces) else []


def keep(place: LogPlace, reason: str, lost_from: Border, segments: Sequence[Segment]) -> tuple[int, int, int, int]:
    """Copy what is about to be lost; returns its records by acks level. What cannot be copied is
    damaged (R53)."""
    pieces, end_offset = tail(lost_from, segments), segments[-1].end_offset
    if not pieces:
        return 0, 0, 0, 0
    try:
        return place.quarantine.save(place.name, reason, end_offset, pieces, place.topic_id).records_by_acks
    except CorruptRange:
        lost_from.segment.note_range(lost_from.offset, end_offset)
        raise


def runs(batches: Sequence[Batch]) -> Iterator[Sequence[Batch]]:
    """``batches`` in pieces that each fit into one empty segment."""
    first = 0
    for index, batch in enumerate(batches):
        if batch.end_offset - batches[first].base_offset > SEGMENT_SPAN_MAX:
            yield batches[first:index]
            first = index
    yield batches[first:]
