"""Replication as a broker sees it: it is followed, and it follows.

Owns one ``ReplicaFetcher`` per leader that is followed.

Invariants: a fetch for another broker, or of a process that is over, counts for nothing (R17, R88).
A damaged replica takes nothing more over from a leader (R53).
"""

from __future__ import annotations

from contextlib import suppress

from minilog.core.broker.requests.fetch import FetchRequests
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.effects import Effect
from minilog.core.replication.budget import Budget
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.isr_proposals import IsrProposals
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from minilog.errors import BrokerUnavailable, DiskFull, MinilogError, StaleBrokerEpoch
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import Message, ReplicaFetch, ReplicaFetchReply
from minilog.wire.topic_partition import TopicPartition

LAG_CHECK_MS = 500
LOOKS_MIN = 64
"""At so many replicas a tick looks at least."""
LOOKS_PER_CHECK = 16
"""Else all are looked at in so many ticks."""
STALL_MS = 250
"""A look this late means that the broker itself was not running."""


class Replication:
    def __init__(
        self,
        state: LocalState,
        turn: Turn,
        followers: FollowerSessions,
        proposals: IsrProposals,
        fetches: FetchRequests,
    ) -> None:
        self._state, self._turn, self._followers = state, turn, followers
        self._proposals, self._fetches = proposals, fetches
        self.fetchers: dict[int, ReplicaFetcher] = {}
        self._budget = Budget(state.settings.move_bytes_per_second)
        self._next_look_ms = 0
        self._unlooked: dict[TopicPartition, None] = {}

    def on_fetch(self, request_id: int, request: ReplicaFetch, now_ms: int) -> list[Effect]:
        if request.leader != self._state.broker_id:
            raise BrokerUnavailable(
                f"the request is for broker {request.leader}, this is broker {self._state.broker_id}"
            )
        known = self._state.image.brokers.get(request.broker_id)
        if known is not None and request.broker_epoch < known.epoch:
            raise StaleBrokerEpoch(
                f"broker {request.broker_id}: epoch {request.broker_epoch} is over, the current one is {known.epoch}"
            )
        deadline_ms = now_ms + min(request.max_wait_ms, self._state.settings.limits.wait_ms_max)
        session, effects = self._followers.on_request(request_id, request, deadline_ms, now_ms)
        if session is not None:
            for leader in self._followers.count(session, now_ms):
                self._turn.advance(leader.partition)
        return effects

    def count_positions_of_new_epoch(self, partition: TopicPartition, now_ms: int) -> None:
        """A role began: positions that arrived for its epoch before the metadata did count now."""
        self._followers.on_role_changed(partition)
        for broker_id in self._state.image.brokers:
            session = self._followers.of(broker_id)
            if session is not None:
                for leader in self._followers.count(session, now_ms, partition):
                    self._turn.advance(leader.partition)

    def on_fetched(
        self, node_id: int, request: ReplicaFetch, response: Message | MinilogError, effects: list[Effect], now_ms: int
    ) -> None:
        fetcher = self.fetchers.get(node_id)
        if fetcher is None:
            return
        if not isinstance(response, ReplicaFetchReply):
            was_lost = isinstance(response, MinilogError) and not response.definite
            fetcher.on_failed(request, now_ms, was_lost=was_lost)
            return
        effects += fetcher.on_reply(request, response, now_ms)
        effects += self._taken(fetcher, now_ms)

    def go_on(self, now_ms: int) -> list[Effect]:
        """R42: take over more of what the leaders have answered."""
        effects: list[Effect] = []
        for fetcher in self.fetchers.values():
            if fetcher.has_more:
                effects += fetcher.go_on(now_ms)
                effects += self._taken(fetcher, now_ms)
        return effects

    def _taken(self, fetcher: ReplicaFetcher, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for partition in fetcher.taken:
            replica = self._state.replicas.get(partition)
            if replica is None or not isinstance(replica.role, FollowerState):
                continue
            if replica.settings.flush_policy == "interval":
                effects += self._turn.appended(replica, now_ms)
            self._fetches.wake(partition)
        if fetcher.has_more:
            self._turn.leave(self.go_on)
        return effects

    def fetcher(self, leader: int) -> ReplicaFetcher:
        if leader not in self.fetchers:
            settings = self._state.settings
            self.fetchers[leader] = ReplicaFetcher(
                self._state.broker_id,
                leader,
                settings.replica_fetch_wait_ms,
                settings.replica_fetch_bytes_max,
                settings.peer_timeout_ms,
                self._budget,
            )
        return self.fetchers[leader]

    def check_lag(self, now_ms: int) -> None:
        """Now and then, all that there is here: in each tick some of it (R42)."""
        if now_ms >= self._next_look_ms:
            if now_ms - self._next_look_ms > STALL_MS:
                self._forgive(self._next_look_ms, now_ms)
            self._next_look_ms = now_ms + LAG_CHECK_MS
            self._unlooked.update(dict.fromkeys(self._state.replicas))
        for _ in range(max(LOOKS_MIN, len(self._state.replicas) // LOOKS_PER_CHECK)):
            if not self._unlooked:
                return
            partition = next(iter(self._unlooked))
            del self._unlooked[partition]
            replica = self._state.replicas.get(partition)
            if replica is not None:
                self._look(replica, now_ms)

    def _look(self, replica: Replica, now_ms: int) -> None:
        leader, partition = replica.role, replica.partition
        if replica.is_damaged:
            self.on_damaged(replica, now_ms)
        if isinstance(leader, LeaderState):
            for broker_id in leader.followers:
                leader.note_idle_follower(broker_id, self._followers.followed(broker_id, partition).sent_ms)
            if leader.propose(now_ms, self._state.settings.replica_lag_max_ms, shrink=True):
                self._proposals.add(partition)
            if leader.high_watermark < leader.log.end_offset:
                self._turn.advance(partition)  # it may have waited for a follower that lags by now

    def _forgive(self, stalled_ms: int, now_ms: int) -> None:
        """R19: this broker itself was not running, so it says nothing of others that it has not
        heard them."""
        for replica in self._state.replicas.values():
            if isinstance(replica.role, LeaderState):
                for progress in replica.role.followers.values():
                    progress.forgive(stalled_ms, now_ms, self._state.settings.replica_lag_max_ms)

    def on_damaged(self, replica: Replica, now_ms: int) -> None:
        """The log cannot be trusted: it takes nothing more over from a leader, so that it is not
        counted as in sync.

        The log notes it before the controller is told, so no restart has forgotten what was told.
        With no room for that the next tick tries again.
        """
        with suppress(DiskFull):
            replica.log.note_damage()
        if self._state.damaged.get(replica.partition) == replica.topic_id:
            return
        self._state.damaged[replica.partition] = replica.topic_id
        replica.looked_damaged = True
        self._state.events.see_damage(*replica.partition, self._state.wall_ms(now_ms))
        role = replica.role
        if isinstance(role, FollowerState) and role.leader != NO_LEADER:
            self.fetcher(role.leader).remove(replica.partition)
