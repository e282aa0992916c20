"""What the controller decides on one event: the records of its journal, and what is done when these
are durable."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from minilog.core.effects import Effect
from minilog.wire.journal.metadata_records import MetadataRecord
from minilog.wire.messages import IsrLeaver

Leaving = Mapping[tuple[str, int, int], IsrLeaver]
"""By topic, partition and broker: how far behind those are who leave an ISR, where its leader has
said so."""
NOBODY: Leaving = MappingProxyType({})


class Decision(NamedTuple):
    """For people: ``asked_by``, from where it was asked for, and who ``leaving`` is."""

    records: list[MetadataRecord]
    effects: list[Effect]
    asked_by: str = ""
    leaving: Leaving = NOBODY
