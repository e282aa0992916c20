"""BrokerSessions: which broker processes are heard from, as the controller knows it right now.

Owns one BrokerSession per registered broker: when it was last heard, what metadata it has applied,
which of its replicas are unfit, its parked heartbeat, a probe under way. All of it is soft: a new
controller gives every broker a full session timeout.

Invariants
* At most one parked heartbeat and one probe per broker.
* No session ends while its broker goes by a longer one that it was told of earlier.
* A pause of the controller fences nobody: a gap between ticks moves every deadline by that gap.
* Forgiveness has a bound: once a session was forgiven a session timeout, further gaps count until
  the broker is heard. So a silent broker is fenced at last, also by a controller that is slow all
  the time.

Source: Kafka's BrokerHeartbeatManager. The probe is minilog's: a dropped connection plus a refused
probe proves the process dead long before its session ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minilog.core.controller.shared.sureness import SURE_MS
from minilog.core.image import PartitionState
from minilog.wire.messages import Condition, Heartbeat

STALL_MS = 250
"""A tick this late means the controller itself was not running."""


@dataclass(slots=True)
class ParkedHeartbeat:
    request_id: int
    heartbeat: Heartbeat
    deadline_ms: int


@dataclass(slots=True)
class BrokerSession:
    broker_id: int
    broker_epoch: int
    heard_ms: int
    deadline_ms: int
    expected_ms: int
    """When the next heartbeat was due, while none is parked."""
    is_heard: bool = True
    """This controller has heard it. Else ``heard_ms`` is when the controller started, and no age of
    anything (R46)."""
    forgiven_ms: int = 0
    """What the controller's own pauses have added to the deadline since the broker was last
    heard."""
    unfit: frozenset[tuple[str, int]] = frozenset()
    """(topic id, partition) of replicas that must neither lead nor count, by the word of this
    process."""
    clock_skew_ms: int | None = None
    """How far the wall clock of the broker is ahead of this controller's, by its last heartbeat;
    None where that does not say (R40)."""
    conditions: tuple[Condition, ...] = ()
    ails: bool = False
    metadata_offset: int = 0
    sequence: int = 0
    parked: ParkedHeartbeat | None = None
    probe_ms: int | None = None
    """When the probe under way was sent."""
    shutdown_offset: int | None = None
    """Metadata that the others must have applied before this broker may exit (R28)."""


class BrokerSessions:
    def __init__(self, session_timeout_ms: int, *, is_one_of_several: bool = False) -> None:
        """``is_one_of_several``: the controller before may go on answering for a moment after this
        one has begun (R124)."""
        self.session_timeout_ms = session_timeout_ms
        self._doubt_ms = SURE_MS if is_one_of_several else 0
        self.by_broker: dict[int, BrokerSession] = {}
        self._tick_ms: int | None = None
        self._closed: dict[int, BrokerSession] = {}

    def open(self, broker_id: int, broker_epoch: int, now_ms: int, told_ms: int = 0) -> BrokerSession:
        """A session of a process that had one before goes on with its sequence: late copies stay
        late copies."""
        session = BrokerSession(broker_id, broker_epoch, now_ms, now_ms, now_ms)
        self.heard(session, now_ms, told_ms)
        closed = self._closed.pop(broker_id, None)
        if closed is not None and closed.broker_epoch == broker_epoch:
            session.sequence = closed.sequence
        self.by_broker[broker_id] = session
        return session

    def expect(self, broker_id: int, broker_epoch: int, now_ms: int, told_ms: int) -> None:
        """An earlier controller has heard it. It gets the time of a whole session."""
        whole_ms = max(self.session_timeout_ms, told_ms)
        self.open(broker_id, broker_epoch, now_ms, whole_ms + self._doubt_ms).is_heard = False

    def close(self, broker_id: int) -> None:
        closed = self.by_broker.pop(broker_id, None)
        if closed is not None:
            self._closed[broker_id] = closed

    def heard(self, session: BrokerSession, now_ms: int, told_ms: int = 0) -> None:
        """``told_ms``: an earlier controller may have said that. The process goes by it until this
        one has answered."""
        session.heard_ms, session.is_heard = now_ms, True
        session.deadline_ms = now_ms + max(self.session_timeout_ms, told_ms)
        session.forgiven_ms = 0

    def is_fit(self, broker_id: int, state: PartitionState) -> bool:
        session = self.by_broker.get(broker_id)
        return session is None or (state.topic_id, state.partition) not in session.unfit

    def may_join(self, broker_id: int, state: PartitionState) -> bool:
        """Who ails joins no ISR: everybody would wait for it (R43)."""
        return self.is_fit(broker_id, state) and (broker_id in state.isr or not self.ails(broker_id))

    def ails(self, broker_id: int) -> bool:
        session = self.by_broker.get(broker_id)
        return session is not None and session.ails

    def on_tick(self, now_ms: int) -> None:
        """Must come before ``expired``: takes the controller's own stall out of every deadline.

        Of a stall, or of what passed before the first tick, only the part since a broker was last
        heard counts.
        """
        last_ms = self._tick_ms
        if last_ms is None or now_ms - last_ms > STALL_MS:
            for session in self.by_broker.values():
                self._forgive(session, now_ms - max(session.heard_ms, session.heard_ms if last_ms is None else last_ms))
                session.expected_ms = min(session.expected_ms, now_ms)
        self._tick_ms = now_ms

    def _forgive(self, session: BrokerSession, stall_ms: int) -> None:
        if session.forgiven_ms < self.session_timeout_ms:
            session.forgiven_ms += stall_ms
            session.deadline_ms += stall_ms
            session.expected_ms += stall_ms

    def expired(self, now_ms: int) -> Iterator[BrokerSession]:
        for session in list(self.by_broker.values()):
            if session.deadline_ms <= now_ms:
                yield session

    def overdue(self, now_ms: int, probe_after_ms: int) -> Iterator[BrokerSession]:
        """Brokers whose next heartbeat is late and that are not being probed."""
        for session in self.by_broker.values():
            late = session.parked is None and now_ms - session.expected_ms > probe_after_ms
            if late and session.probe_ms is None:
                yield session

    def parked_as(self, request_id: int) -> BrokerSession | None:
        for session in self.by_broker.values():
            if session.parked is not None and session.parked.request_id == request_id:
                return session
        return None
