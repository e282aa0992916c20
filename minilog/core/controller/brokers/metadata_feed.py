"""Metadata feed: how what the journal says reaches every broker, and who waits until it has.

Owns the last journal records in memory, and the admin requests that are answered once every live
broker has applied what they changed. Heartbeats are long polls: each is answered with exactly the
records that its broker lacks.

Invariants: a reply joins on to what the heartbeat named, or is a snapshot that replaces it (R29). A
broker that shuts down may exit when the others know who leads instead (R28). All of it is soft
state: a new controller feeds from snapshots. Source: KIP-500 (brokers replay the metadata log),
KIP-631.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.config import ControllerSettings
from minilog.core.controller.brokers.broker_sessions import BrokerSession, BrokerSessions
from minilog.core.effects import Effect, Reply
from minilog.core.image import ClusterImage
from minilog.wire.journal.metadata_records import MetadataRecord
from minilog.wire.messages import Heartbeat, HeartbeatReply, Message

TAIL_MAX = 10_000
"""Records kept in memory for brokers that lag. One that lags further gets a snapshot."""


class _Waiting(NamedTuple):
    """An admin request answered once every live broker has applied ``metadata_offset``."""

    request_id: int
    reply: Message
    metadata_offset: int
    deadline_ms: int


class MetadataFeed:
    def __init__(self, settings: ControllerSettings, image: ClusterImage, sessions: BrokerSessions) -> None:
        self.settings, self.image, self.sessions = settings, image, sessions
        self._tail: list[MetadataRecord] = []
        self._waiting: list[_Waiting] = []

    def load(self) -> None:
        """The image was replaced by a snapshot: nobody can be fed record by record from before
        it."""
        self._tail = []

    def replay(self, record: MetadataRecord) -> None:
        self._tail.append(record)
        if len(self._tail) > 2 * TAIL_MAX:
            del self._tail[:TAIL_MAX]

    def known_everywhere(self) -> int:
        """What every live broker has applied."""
        return min(self.applied().values(), default=self.image.metadata_offset)

    def applied(self) -> dict[int, int]:
        """Up to which record each live broker has."""
        sessions, brokers = self.sessions.by_broker.values(), self.image.brokers
        return {s.broker_id: s.metadata_offset for s in sessions if not brokers[s.broker_id].fenced}

    def answer_heartbeats(self, now_ms: int) -> list[Effect]:
        """Answer every parked heartbeat that has news, may exit, or has waited its interval."""
        effects: list[Effect] = []
        for session in self.sessions.by_broker.values():
            parked = session.parked
            if parked is None:
                continue
            has_news = parked.heartbeat.metadata_offset < self.image.metadata_offset
            may_exit = self.may_exit(session)
            if has_news or may_exit or parked.deadline_ms <= now_ms:
                session.parked = None
                session.expected_ms = now_ms
                effects.append(Reply(parked.request_id, self._news(session, parked.heartbeat, may_exit=may_exit)))
        return effects

    def _news(self, session: BrokerSession, heartbeat: Heartbeat, *, may_exit: bool) -> HeartbeatReply:
        offset, end = heartbeat.metadata_offset, self.image.metadata_offset
        missing = end - offset
        heard, epoch = (heartbeat.broker_epoch, heartbeat.sequence), self.image.controller_epoch
        noted = self.image.noted.get(heartbeat.incarnation, 0)
        last = may_exit, self.settings.session_timeout_ms, session.clock_skew_ms, noted
        if offset == 0 or missing > len(self._tail) or missing < 0:
            return HeartbeatReply(*heard, epoch, 0, end, self.image.snapshot(), True, *last)  # type: ignore[arg-type]
        records = self._tail[len(self._tail) - missing :]
        return HeartbeatReply(*heard, epoch, offset, end, records, False, *last)  # type: ignore[arg-type]

    def may_exit(self, session: BrokerSession) -> bool:
        if session.shutdown_offset is None or self.image.metadata_offset < session.shutdown_offset:
            return False
        others = [
            s.metadata_offset
            for s in self.sessions.by_broker.values()
            if s is not session and not self.image.brokers[s.broker_id].fenced
        ]
        return all(offset >= session.shutdown_offset for offset in others)

    def answer_waiting(self, now_ms: int) -> list[Effect]:
        known = self.known_everywhere()
        ready = [w for w in self._waiting if known >= w.metadata_offset or w.deadline_ms <= now_ms]
        if ready:
            self._waiting = [w for w in self._waiting if w not in ready]
        return [Reply(w.request_id, w.reply) for w in ready]

    def wait(self, request_id: int, reply: Message, metadata_offset: int, now_ms: int) -> None:
        """Answer when every live broker knows, so that the next request of the same user cannot be
        too early."""
        deadline_ms = now_ms + self.settings.topic_create_wait_ms
        self._waiting.append(_Waiting(request_id, reply, metadata_offset, deadline_ms))
