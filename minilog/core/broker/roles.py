"""Roles: how metadata turns into leading and following on this broker.

Owns the transitions between LeaderState and FollowerState and the opening and closing of logs.

Invariants: a replica's role never goes back to an older leader epoch, also when an election's
position query arrived before the metadata did (R4). A role that ends fails its waiters (R10). Files
go only when a TopicDeleted record names their topic id, never because a partition is missing from
metadata (storage: no deletion by absence).
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.fetch import FetchRequests
from minilog.core.broker.replicate import Replication
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.effects import Effect
from minilog.core.image import PartitionState, TopicImage
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptRange, DiskFull, NameRefused, RefusesToStart
from minilog.wire.messages import UnfitReplica
from minilog.wire.metadata_records import NO_LEADER, MetadataRecord, PartitionChanged
from minilog.wire.topic_partition import TopicPartition


class Roles:
    def __init__(
        self,
        state: LocalState,
        turn: Turn,
        fetches: FetchRequests,
        coordinator: Coordinator,
        replication: Replication,
    ) -> None:
        self._state, self._turn, self._fetches = state, turn, fetches
        self._coordinator, self._replication = coordinator, replication
        self._unopened: dict[TopicPartition, None] = {}
        """Replicas whose log could not be made because the disk is full, or does not take their
        names."""
        self._undeleted: dict[TopicPartition, str] = {}
        """Topic ids of closed replicas whose files could not be moved away because the disk is
        full."""

    def apply(self, records: Iterable[MetadataRecord], now_ms: int, *, everything: bool) -> list[Effect]:
        """React to the net change of a run of records. ``everything`` after a snapshot."""
        touched = {TopicPartition(r.topic, r.partition): None for r in records if isinstance(r, PartitionChanged)}
        if everything:
            touched.update(dict.fromkeys(self._state.replicas))
        self._coordinator.on_metadata()
        effects: list[Effect] = []
        for partition in touched:
            effects += self._apply(partition, now_ms)
        return effects

    def _apply(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        topic = self._state.image.topics.get(partition.topic)
        state = self._state.image.partition(*partition)
        replica = self._state.replicas.get(partition)
        if topic is None or state is None or self._state.broker_id not in state.replicas:
            return self._close(replica, now_ms) if replica else []
        if replica is not None and replica.topic_id != state.topic_id:
            effects = self._close(replica, now_ms)
            return effects + self._open(partition, topic, state, now_ms)
        if replica is None:
            return self._open(partition, topic, state, now_ms)
        if state.leader_epoch < replica.leader_epoch:
            return []
        return self._change(replica, topic, state, now_ms)

    def _open(self, partition: TopicPartition, topic: TopicImage, state: PartitionState, now_ms: int) -> list[Effect]:
        try:
            log = self._state.store.open(partition.topic, state.topic_id, partition.partition, topic.settings)
        except (DiskFull, NameRefused):
            self._unopened[partition] = None
            return []
        except CorruptRange as error:
            raise _damaged(partition, error.detail) from error
        if log.is_damaged:
            raise _damaged(partition, "records that were durable cannot be read")
        if (
            log.last_epoch > state.leader_epoch
        ):  # no checksum covers it, and it would win every election and take no append
            raise _damaged(partition, f"it says leader epoch {log.last_epoch}, the controller {state.leader_epoch}")
        role = FollowerState(state, state.leader_epoch, NO_LEADER, topic.settings, log)
        replica = Replica(partition, state.topic_id, topic.settings, log, role)
        self._state.replicas[partition] = replica
        return self._change(replica, topic, state, now_ms)

    def open_again(self, now_ms: int) -> list[Effect]:
        """Now and then: there may be room by now, first of all to get rid of something."""
        effects: list[Effect] = []
        undeleted, self._undeleted = self._undeleted, {}
        for partition, topic_id in undeleted.items():
            self._delete(partition, topic_id)
        unopened, self._unopened = self._unopened, {}
        for partition in unopened:
            effects += self._apply(partition, now_ms)
        return effects

    def unfit_replicas(self) -> list[UnfitReplica]:
        """What the controller is told with every heartbeat: replicas here that must neither lead
        nor count."""
        unfit = dict(self._state.damaged)
        for partition in self._unopened:
            state = self._state.image.partition(*partition)
            if state is not None:
                unfit[partition] = state.topic_id
        return [UnfitReplica(p.topic, topic_id, p.partition) for p, topic_id in unfit.items()]

    def _change(self, replica: Replica, topic: TopicImage, state: PartitionState, now_ms: int) -> list[Effect]:
        role = replica.role
        if replica.settings != topic.settings:
            replica.settings = topic.settings
            replica.log.configure(topic.settings)
        same = state.leader_epoch == role.leader_epoch
        if state.leader == self._state.broker_id:
            replica.isr_shrinks += not set(state.isr) >= set(role.state.isr)
            replica.isr_expands += not set(state.isr) <= set(role.state.isr)
        if isinstance(role, LeaderState) and same and state.leader == self._state.broker_id:
            self._turn.add_outcomes(role.on_state_changed(state, topic.settings))
            self._turn.advance(replica.partition)
            return []
        if isinstance(role, FollowerState) and same and state.leader == role.leader != self._state.broker_id:
            role.state, role.settings = state, topic.settings
            return []
        if state.leader == self._state.broker_id:
            return self._lead(replica, topic, state, now_ms)
        return self._follow(replica, topic, state, state.leader_epoch, state.leader, now_ms)

    def _lead(self, replica: Replica, topic: TopicImage, state: PartitionState, now_ms: int) -> list[Effect]:
        seen_ms = self._seen_ms(replica, now_ms)
        self._leave(replica)
        replica.role = LeaderState(
            self._state.broker_id,
            self._state.broker_epoch,
            state,
            topic.settings,
            replica.log,
            self._state.is_current,
            now_ms,
        )
        replica.role.seen_ms = seen_ms
        replica.role.lacks_max_ms = 2 * self._state.settings.retention_check_ms
        self._replication.count_positions_of_new_epoch(replica.partition, now_ms)
        self._coordinator.on_lead(replica, now_ms)
        self._turn.advance(replica.partition)
        self._fetches.wake(replica.partition)
        return self._turn.appended(replica, now_ms)

    def _follow(
        self, replica: Replica, topic: TopicImage, state: PartitionState, epoch: int, leader: int, now_ms: int
    ) -> list[Effect]:
        seen_ms = self._seen_ms(replica, now_ms)
        self._leave(replica)
        role = FollowerState(state, epoch, leader, topic.settings, replica.log)
        role.caught_up_ms = seen_ms
        replica.role = role
        self._replication.count_positions_of_new_epoch(replica.partition, now_ms)
        self._fetches.wake(replica.partition)
        if leader == NO_LEADER or replica.is_damaged:
            return []
        flush = self._replication.fetcher(leader).add(role)
        return [flush] if flush is not None else []

    def _seen_ms(self, replica: Replica, now_ms: int) -> int | None:
        """As of when this replica last showed everything that was committed: true in any later
        role, for no cut takes that."""
        role = replica.role
        if isinstance(role, LeaderState):
            return now_ms - self._state.unsure_ms(now_ms) if role.high_watermark_known else role.seen_ms
        lag_ms = role.lag_ms(now_ms)
        return None if lag_ms is None else now_ms - lag_ms

    def _leave(self, replica: Replica) -> None:
        """End the role of the moment: its waiters fail, its fetching stops."""
        role = replica.role
        if isinstance(role, LeaderState):
            self._turn.add_outcomes(role.resign())
            self._coordinator.on_leave(replica.partition)
        elif role.leader != NO_LEADER:
            self._replication.fetcher(role.leader).remove(replica.partition)

    def fence(self, replica: Replica, leader_epoch: int, now_ms: int) -> list[Effect]:
        """An election asks for positions in ``leader_epoch``: whatever this broker did in older
        epochs ends now."""
        if replica.leader_epoch >= leader_epoch:
            return []
        topic = self._state.image.topics.get(replica.partition.topic)
        if topic is None:
            return []
        return self._follow(replica, topic, replica.role.state, leader_epoch, NO_LEADER, now_ms)

    def delete_topic(self, topic: str, topic_id: str, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for partition, replica in list(self._state.replicas.items()):
            if partition.topic == topic and replica.topic_id == topic_id:
                effects += self._close(replica, now_ms)
                self._delete(partition, topic_id)
        return effects

    def _delete(self, partition: TopicPartition, topic_id: str) -> None:
        try:
            self._state.store.delete(partition.topic, topic_id, partition.partition)
        except DiskFull:
            self._undeleted[partition] = topic_id

    def drop_all(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for replica in list(self._state.replicas.values()):
            effects += self._close(replica, now_ms)
        return effects

    def _close(self, replica: Replica, now_ms: int) -> list[Effect]:
        self._leave(replica)
        self._fetches.wake(replica.partition)
        del self._state.replicas[replica.partition]
        self._state.damaged.pop(replica.partition, None)
        self._replication.count_positions_of_new_epoch(replica.partition, now_ms)
        self._state.store.close(*replica.partition)
        return []


def _damaged(partition: TopicPartition, detail: str) -> RefusesToStart:
    """A damaged replica must neither be elected nor acknowledge; stopping leaves the others to lead
    (no repair yet)."""
    return RefusesToStart(
        f"the log of {partition} is damaged: {detail}; `minilog log verify` shows where. "
        "Move its directory away to have it copied again from its leader"
    )
