"""LocalState: what this broker knows, and the questions that every part of it asks.

Owns nothing that decides: settings, the store, the metadata, the replicas here, the standing with
the controller.

Invariants: the image only grows record by record (R29). Whether this broker may act as a leader is
answered here and nowhere else (R17, R30).
"""

from __future__ import annotations

from minilog.config import BrokerSettings
from minilog.core.broker.standing.ailment import Ailment
from minilog.core.broker.standing.broker_events import BrokerEvents
from minilog.core.broker.standing.registration import Registration
from minilog.core.image import ClusterImage
from minilog.core.ports import LogStore
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replicas
from minilog.core.stamps import Stamps
from minilog.wire.topic_partition import TopicPartition


class LocalState:
    def __init__(self, settings: BrokerSettings, store: LogStore, registration: Registration) -> None:
        self.settings = settings
        self.store = store
        self._fences_itself = settings.fences_itself
        self.registration = registration
        self.broker_id = settings.broker_id
        self.image = ClusterImage()
        self.replicas: Replicas = {}
        self.damaged: dict[TopicPartition, str] = {}
        """Topic ids of replicas whose log was found damaged while they were in use."""
        self.has_new = False
        """A log was opened since the metadata was last saved."""
        self.unopened: dict[TopicPartition, None] = {}
        """Replicas that are to be here by the metadata, and whose turn has not come yet."""
        self.unmoved: dict[tuple[str, str, int], bool] = {}
        """(topic, topic id, partition) of files that are in use no more and found no room to be
        moved away, and whether they were deleted."""
        self.successions: dict[TopicPartition, int] = {}
        """Since when a successor may lead what this broker leads, because it has asked for that."""
        self.ailment = Ailment(settings, store)
        self.events = BrokerEvents(settings.broker_id)
        self.stamps = Stamps()
        self.wall_ahead_ms = 0
        """How far the wall clock is ahead of the time of turns. The shell says so before each
        turn."""

    @property
    def broker_epoch(self) -> int:
        return self.registration.broker_epoch

    @property
    def ready(self) -> bool:
        """Registered, caught up with its own registration, unfenced, not leaving."""
        me = self.image.brokers.get(self.broker_id)
        return me is not None and me.epoch == self.broker_epoch and me.eligible and not self.registration.draining

    @property
    def admitted(self) -> bool:
        """The controller has unfenced this process, so it has acted on what the process said when
        it registered."""
        me = self.image.brokers.get(self.broker_id)
        return me is not None and me.epoch == self.broker_epoch == me.used_epoch

    @property
    def informed(self) -> bool:
        """Knows the metadata as of its own registration. Before that, not knowing a topic means
        nothing."""
        return 0 < self.broker_epoch <= self.image.metadata_offset

    @property
    def accepts_writes(self) -> bool:
        return not self.registration.draining and not self.ailment.holds_writes

    @property
    def session_timeout_ms(self) -> int:
        """A session with the controller lasts this long, by this broker's settings and the
        controller's word: the shorter one."""
        own_ms, told_ms = self.settings.session_timeout_ms, self.registration.session_timeout_ms
        return own_ms if told_ms is None else min(own_ms, told_ms)

    @property
    def session_timeout_ms_max(self) -> int:
        """The longer one: another broker, whose settings differ, may take none for lasting longer
        than the controller does."""
        return max(self.settings.session_timeout_ms, self.registration.session_timeout_ms or 0)

    def session_over_ms(self, now_ms: int) -> int:
        """For how long the session with the controller may have been over."""
        return self.registration.session_over_ms(now_ms, self.session_timeout_ms)

    def unsure_ms(self, now_ms: int) -> int:
        """For how long another broker may already lead what this one leads: the session may be
        over, or this broker has asked for it, leaving or leading with a damaged log, and has not
        heard what came of that."""
        return max(self.session_over_ms(now_ms), self.asked_away_ms(now_ms))

    def asked_away_ms(self, now_ms: int) -> int:
        """For how long a leadership of this broker may have ended because this broker has asked for
        that. An unfit replica that does not lead is told of with every heartbeat, and moves no
        leadership."""
        replicas = self.replicas
        succession_ms = self._succession_ms(now_ms)
        leads_damaged = any(p in replicas and isinstance(replicas[p].role, LeaderState) for p in self.damaged)
        asks = self.registration.draining or leads_damaged
        return max(succession_ms, self.registration.asked_away_ms(now_ms) if asks else 0)

    def _succession_ms(self, now_ms: int) -> int:
        """For how long a successor that this broker has asked for may lead already."""
        for partition in list(self.successions):
            replica = self.replicas.get(partition)
            role = None if replica is None else replica.role
            if not isinstance(role, LeaderState) or not role.asks_for_successor:
                del self.successions[partition]
        return max((now_ms - asked_ms for asked_ms in self.successions.values()), default=0)

    def wall_ms(self, now_ms: int) -> int:
        """The time of this turn as people know it, 1970 at the earliest: what is noted, and what
        ages are measured by."""
        return max(0, now_ms + self.wall_ahead_ms)

    def clock_skew_ms(self, now_ms: int) -> int | None:
        """How far the wall clock is ahead of the controller's, by its last answer and every step
        since; None while that is not known."""
        ahead_ms = self.registration.ahead_of_controller_ms
        return None if ahead_ms is None else ahead_ms + self.wall_ms(now_ms) - now_ms

    def sure_wall_ms(self, now_ms: int) -> int | None:
        """R40: the wall clock, None while it differs from the controller's by more than it may."""
        skew_ms = self.clock_skew_ms(now_ms)
        if skew_ms is not None and abs(skew_ms) > self.settings.clock_skew_max_ms:
            return None
        return self.wall_ms(now_ms)

    def is_isolated(self, now_ms: int) -> bool:
        """R30, when it is switched on: another broker may lead by now what this one led."""
        left_ms = self.registration.asked_away_ms(now_ms) if self.registration.draining else 0
        return self._fences_itself and max(self.session_over_ms(now_ms), left_ms) > 0

    def is_current(self, broker_id: int, broker_epoch: int) -> bool:
        """R17: registered with that very epoch, unfenced, not shutting down."""
        broker = self.image.brokers.get(broker_id)
        return broker is not None and broker.eligible and broker.epoch == broker_epoch
