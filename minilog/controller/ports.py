"""What the controller's shell asks of its core: protocols only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from minilog.core.controller.told.own_events import OwnEvents
from minilog.core.effects import Effect
from minilog.core.image import ClusterImage
from minilog.server.outbound.peers import Response
from minilog.wire.journal.metadata_records import MetadataRecord
from minilog.wire.messages import Message


class Decision(Protocol):
    @property
    def records(self) -> Sequence[MetadataRecord]: ...

    @property
    def effects(self) -> Sequence[Effect]: ...


class Core(Protocol):
    """What the runtime asks of a ControllerCore."""

    wall_ahead_ms: int
    own_events: OwnEvents

    @property
    def image(self) -> ClusterImage: ...

    @property
    def metadata_offset(self) -> int: ...

    def load(self, metadata_offset: int, records: Iterable[MetadataRecord]) -> None: ...

    def replay(self, index: int, record: MetadataRecord) -> None: ...

    def start(self, now_ms: int) -> Decision: ...

    def handle(self, request_id: int, request: Message, now_ms: int) -> Decision: ...

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> Decision: ...

    def on_disconnect(self, request_id: int, now_ms: int) -> Decision: ...

    def tick(self, now_ms: int) -> Decision: ...

    def on_committed(self, now_ms: int) -> Decision: ...

    def snapshot(self) -> list[MetadataRecord]: ...
