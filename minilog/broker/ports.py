"""What the HTTP face needs from the process around it: the runtime, as protocols, so that tests can
bring their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from minilog.config import BrokerSettings
from minilog.core.broker.statistics import BrokerStatistics
from minilog.core.image import ClusterImage
from minilog.wire.messages import Message

if TYPE_CHECKING:
    from minilog.broker.runtime import RuntimeStatistics


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

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        """The answer to one request. A Problem when it failed."""
        ...

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        """The answer of another broker or of the controller. A Problem when it failed there or on
        the way."""
        ...

    def statistics(self) -> RuntimeStatistics: ...
