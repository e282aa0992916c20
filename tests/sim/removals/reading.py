"""What is looked into before it is taken, and marked when it cannot be read, taken back: the story
of each must notice."""

from __future__ import annotations

from typing import NoReturn

from minilog.broker.http.records.record_page import _Filling, _Full
from minilog.core.broker.requests import produce
from minilog.errors import MinilogError
from tests.sim.nodes.older import headers_alone
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.replication import test_reading


def _end(self: _Filling, offset: int, end_offset: int, error: MinilogError) -> NoReturn:
    """Nothing comes after what cannot be read."""
    raise _Full


READING_ABLATIONS = (
    Ablation(
        "R41",
        "batches are taken by their headers and checksums",
        ((produce, "inspect", headers_alone),),
        story=test_reading.test_a_batch_that_nobody_could_read_is_refused_and_nothing_of_it_is_written,
    ),
    Ablation(
        "R41",
        "what cannot be read ends the page before it",
        ((_Filling, "_mark", _end),),
        story=test_reading.test_what_was_taken_unread_stops_neither_replicas_nor_their_start_nor_readers,
    ),
)
