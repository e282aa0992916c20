"""The link to the controller: what its answers, and its questions about positions, mean for this
broker.

Invariants: nothing of a controller is applied before its epoch is noted durably, and nothing of an
older one at all (R25); metadata joins on exactly (R29). An answer counts if it is for this process
and this request.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeGuard

from msgspec.structs import replace

from minilog.core.broker.roles import Roles
from minilog.core.broker.standing.controllers import Controllers
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.effects import Effect
from minilog.core.ports import ReplicaLog
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.log_start import end_epoch
from minilog.errors import BrokerUnavailable, DiskFull, MinilogError, NotController, RefusesToStart, StaleBrokerEpoch
from minilog.wire.journal.metadata_records import (
    BrokerRecord,
    MetadataRecord,
    PartitionChanged,
    ReplicaName,
    TopicDeleted,
)
from minilog.wire.messages import (
    HeartbeatReply,
    Message,
    Position,
    PositionQuery,
    Positions,
    PositionsReply,
    Problem,
    RegisterReply,
)
from minilog.wire.topic_partition import TopicPartition

EPOCHS_TOLD_MAX = 8
"""Of one log, in an election."""


class ControllerLink:
    def __init__(self, state: LocalState, turn: Turn, roles: Roles) -> None:
        self._state, self._turn, self._roles = state, turn, roles
        self.controllers = Controllers(state.settings.controllers)

    def on_answer(self, response: Message | MinilogError, effects: list[Effect], now_ms: int) -> None:
        match response:
            case RegisterReply() | HeartbeatReply() if not self._state.registration.is_answer(response):
                self._state.registration.on_failed("the answer is for another process or another request", now_ms)
            case RegisterReply() if self._may_use(response):
                self.controllers.on_answered()
                self._state.image.load(0, [])
                self._state.registration.on_registered(response)
            case HeartbeatReply() if self._obeys(response.controller_epoch):
                self.controllers.on_answered()
                self._on_metadata(response, effects, now_ms)
                me = self._state.image.brokers.get(self._state.broker_id)
                leaves = me is not None and me.epoch == self._state.broker_epoch and me.shutting_down
                self._state.registration.on_heartbeat(response, now_ms, is_shutting_down=leaves)
            case MinilogError() if not self._is_of_my_controller(response):
                self._state.registration.on_failed(
                    f"somebody else answers at the controller's address: {response.detail}", now_ms
                )
            case StaleBrokerEpoch():
                effects += self._roles.drop_all(now_ms)
                self._state.registration.on_stale(self._state.image, now_ms)
            case MinilogError() if (
                self._state.registration.is_first and not response.retriable and response.code != "INTERNAL"
            ):
                raise RefusesToStart(f"the controller refuses broker {self._state.broker_id}: {response.detail}")
            case MinilogError():
                pause_ms = self.controllers.on_failed(response)
                self._state.registration.on_failed(response.detail, now_ms, pause_ms)
            case _:
                pause_ms = self.controllers.on_failed(None)
                detail = f"unexpected answer {type(response).__name__}"
                self._state.registration.on_failed(detail, now_ms, pause_ms)

    def _is_of_my_controller(self, error: MinilogError) -> bool:
        """An error that would end something says which cluster it comes from. Whoever has the
        controller's address for a moment, or by mistake, does not end a broker that has a cluster.
        The first registration may be told anything."""
        is_grave = isinstance(error, StaleBrokerEpoch)
        return not is_grave or error.info.get("cluster_id") == self._state.store.cluster_id

    def _obeys(self, controller_epoch: int) -> bool:
        """R25: remember the highest controller epoch, durably, before acting on it. With a full
        disk it cannot yet."""
        if controller_epoch > self._state.store.controller_epoch:
            with suppress(DiskFull):
                self._state.store.save_controller_epoch(controller_epoch)
        return controller_epoch == self._state.store.controller_epoch

    def _belongs_to(self, cluster_id: str) -> bool:
        """Remember the cluster, durably. With a full disk it cannot yet."""
        with suppress(DiskFull):
            self._state.store.bind_cluster(cluster_id)
        return self._state.store.cluster_id == cluster_id

    def _may_use(self, reply: RegisterReply) -> bool:
        """A broker epoch is used when it is noted (R36): whatever is written under it, the
        directory can say so. With a full disk it cannot yet."""
        if not (self._obeys(reply.controller_epoch) and self._belongs_to(reply.cluster_id)):
            return False
        with suppress(DiskFull):
            self._state.store.save_broker_epoch(reply.broker_epoch)
        return self._state.store.broker_epoch == reply.broker_epoch

    def _on_metadata(self, reply: HeartbeatReply, effects: list[Effect], now_ms: int) -> None:
        """Apply in order, then react to the net change (R29)."""
        was_informed, left = self._state.informed, list[ReplicaName]()
        if reply.snapshot and reply.metadata_offset >= self._state.image.metadata_offset:
            self._state.image.load(reply.metadata_offset, reply.records)
        elif reply.base_offset == self._state.image.metadata_offset:
            for index, record in enumerate(reply.records, reply.base_offset + 1):
                if self._takes_replica(record):
                    left.append(ReplicaName(record.topic, record.topic_id, record.partition))
                self._state.image.apply(index, record)
        else:
            return
        if reply.snapshot and self._state.informed:
            effects += self._roles.sort_out(now_ms)
        for record in reply.records:
            if isinstance(record, TopicDeleted):
                effects += self._roles.delete_topic(record.topic, record.topic_id, now_ms)
        if self._state.informed and was_informed and not reply.snapshot:
            effects += self._roles.leave(left, now_ms)
        elif self._state.informed:
            effects += self._roles.sort_out_left(now_ms)
        effects += self._roles.apply(reply.records, now_ms, everything=reply.snapshot)
        if any(isinstance(record, BrokerRecord) for record in reply.records):
            self._advance_all()

    def _takes_replica(self, record: MetadataRecord) -> TypeGuard[PartitionChanged]:
        """This broker had a replica until now."""
        own = self._state.broker_id
        if not isinstance(record, PartitionChanged) or own in record.replicas:
            return False
        before = self._state.image.partition(record.topic, record.partition)
        return before is not None and before.topic_id == record.topic_id and own in before.replicas

    def _advance_all(self) -> None:
        """A broker came or went: leaders that waited for it to join need not any more, others may
        propose it."""
        for partition, replica in self._state.replicas.items():
            if isinstance(replica.role, LeaderState):
                self._turn.advance(partition)

    def on_positions(self, request: Positions, effects: list[Effect], now_ms: int) -> Message:
        if (request.broker_id, request.broker_epoch) != (self._state.broker_id, self._state.broker_epoch):
            raise StaleBrokerEpoch(
                f"the question is for broker {request.broker_id} in epoch {request.broker_epoch}, "
                f"this is broker {self._state.broker_id} in epoch {self._state.broker_epoch}"
            )
        if not self._obeys(request.controller_epoch):
            raise NotController(
                f"controller epoch {request.controller_epoch} is not the one this broker obeys, {self._state.store.controller_epoch}"
            )
        answers = [self._position(query, effects, now_ms) for query in request.partitions]
        return PositionsReply(self._state.broker_id, self._state.broker_epoch, request.sequence, answers)

    def _position(self, query: PositionQuery, effects: list[Effect], now_ms: int) -> Position:
        partition = TopicPartition(query.topic, query.partition)
        effects += self._roles.open_now(partition, now_ms)
        asked = query.topic, query.topic_id, query.partition, query.leader_epoch
        replica = self._state.replicas.get(partition)
        if replica is None or replica.topic_id != query.topic_id or replica.leader_epoch > query.leader_epoch:
            error = BrokerUnavailable(
                f"broker {self._state.broker_id} cannot answer for {partition} in epoch {query.leader_epoch}"
            )
            return Position(*asked, problem=Problem.of(error))
        effects += self._roles.fence(replica, query.leader_epoch, now_ms)
        if replica.is_damaged:
            error = BrokerUnavailable(
                f"broker {self._state.broker_id} has a damaged log of {partition} and must not lead it"
            )
            return Position(*asked, problem=Problem.of(error))
        log = replica.log
        position = Position(*asked, end_epoch(log), log.end_offset, high_watermark=log.high_watermark)
        return replace(position, start_offset=log.start_offset, epoch_ends=_epoch_ends(log))


def _epoch_ends(log: ReplicaLog) -> list[tuple[int, int]]:
    """(leader epoch, where it ends) of the last ones in the log, the last one first."""
    found: list[tuple[int, int]] = []
    epoch, end_offset = log.last_epoch, log.end_offset
    while end_offset > log.start_offset and len(found) < EPOCHS_TOLD_MAX:
        found.append((epoch, end_offset))
        epoch, end_offset = log.epoch_end(epoch - 1)
    return found
