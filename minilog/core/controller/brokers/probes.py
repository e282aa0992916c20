"""Probes: asking a broker's address whether the process that registered is still there.

Refused, or another process answers in its place: dead. No answer proves nothing; the session
timeout decides. At most one probe of a broker is under way. The session keeps when it was sent.
"""

from __future__ import annotations

from minilog.core.controller.brokers.broker_sessions import BrokerSession
from minilog.core.controller.told.failovers import FailoverKind
from minilog.core.effects import Effect, Send
from minilog.core.image import ClusterImage
from minilog.errors import BrokerUnavailable, MinilogError
from minilog.wire.messages import Message, Probe, ProbeReply
from minilog.wire.peer_messages import NoAnswer


class Probes:
    def __init__(self, image: ClusterImage, probe_after_ms: int) -> None:
        self._image, self._probe_after_ms = image, probe_after_ms

    def send(self, session: BrokerSession, now_ms: int) -> list[Effect]:
        if session.probe_ms is not None:
            return []
        session.probe_ms = now_ms
        broker = self._image.brokers[session.broker_id]
        return [Send(broker.broker_id, Probe(broker.broker_id, broker.incarnation))]

    def is_awaited(self, session: BrokerSession | None, request: Probe) -> bool:
        """The outcome is that of the probe under way, of the process that is registered now."""
        broker = self._image.brokers.get(request.broker_id)
        is_of_it = broker is not None and broker.incarnation == request.incarnation
        return is_of_it and session is not None and session.probe_ms is not None

    def judge(
        self, session: BrokerSession, request: Probe, response: Message | MinilogError, now_ms: int
    ) -> FailoverKind | None:
        """How the probe shows that the process is gone; None when it does not."""
        session.probe_ms = None
        reason = response.info.get("reason") if isinstance(response, BrokerUnavailable) else None
        # A dying process closes its sockets one by one: a reset means look again at the next tick.
        looks_again = reason in (NoAnswer.RESET, NoAnswer.UNREACHABLE)
        session.expected_ms = now_ms - self._probe_after_ms if looks_again else now_ms
        # Another broker at this address proves nothing about this one.
        if isinstance(response, ProbeReply) and response.broker_id == request.broker_id:
            return FailoverKind.REPLACED if response.incarnation != request.incarnation else None
        return FailoverKind.REFUSED if reason == NoAnswer.REFUSED else None
