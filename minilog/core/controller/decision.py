"""What the controller decides on one event: the records of its journal, and what is done when these
are durable."""

from __future__ import annotations

from typing import NamedTuple

from minilog.core.effects import Effect
from minilog.wire.metadata_records import MetadataRecord


class Decision(NamedTuple):
    records: list[MetadataRecord]
    effects: list[Effect]
