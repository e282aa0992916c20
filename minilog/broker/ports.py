"""What the HTTP face needs from the process around it: the runtime, as protocols, so that tests can
bring their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from minilog.broker.runtime_statistics import RuntimeStatistics
from minilog.config import BrokerSettings
from minilog.core.broker.statistics import BrokerStatistics, PartitionStatistics
from minilog.core.image import ClusterImage
from minilog.storage.aside.lost_tails import LostTails
from minilog.wire.journal.metadata_copy import BrokerCopy
from minilog.wire.messages import Message
from minilog.wire.topic_partition import TopicPartition


class Clock(Protocol):
    def now_ms(self) -> int: ...

    def wall_ms(self) -> int: ...

    def stamp_ms(self) -> int: ...

    @property
    def offset_ms(self) -> int: ...

    @property
    def steps(self) -> int: ...


class Core(Protocol):
    """What the HTTP face asks of a BrokerCore without an event."""

    @property
    def informed(self) -> bool: ...

    def statistics(self, now_ms: int) -> BrokerStatistics: ...

    def hosted(self) -> list[TopicPartition]: ...

    def replica_statistics(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]: ...

    def controller_heard_ms_ago(self, now_ms: int) -> int | None: ...


class Trip(Protocol):
    """Satisfied by server/process.Failure."""

    def trip(self, error: BaseException) -> None:
        """The process stops because of this."""
        ...


class Runtime(Protocol):
    """Satisfied by runtime.Runtime."""

    @property
    def core(self) -> Core: ...

    @property
    def settings(self) -> BrokerSettings: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def image(self) -> ClusterImage: ...

    @property
    def ready(self) -> bool: ...

    @property
    def metadata_changed(self) -> asyncio.Event:
        """Set, and another one from then on, when this broker has learnt more of the journal."""
        ...

    @property
    def controller_url(self) -> str: ...

    @property
    def tails(self) -> LostTails: ...

    @property
    def failure(self) -> Trip: ...

    def metadata_copy(self) -> BrokerCopy: ...

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        """The answer to one request. A Problem when it failed."""
        ...

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        """The answer of another broker or of the controller. A Problem when it failed there or on
        the way."""
        ...

    def statistics(self) -> RuntimeStatistics: ...
