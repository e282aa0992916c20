"""Roles: how metadata turns into leading and following on this broker.

Owns the transitions between LeaderState and FollowerState and the opening and closing of logs.

Invariants: a replica's role never goes back to an older leader epoch, also when an election's
position query arrived before the metadata did (R4). A role that ends fails its waiters (R10). Files
are deleted only when their topic is known to be deleted, or when the replica is known to have been
taken from this broker (R116), and never because nobody knows them (R39).
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.replicate import Replication
from minilog.core.broker.requests.fetch import FetchRequests
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.effects import Effect
from minilog.core.image import PartitionState, TopicImage
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptRange, DiskFull, NameRefused, RefusesToStart
from minilog.wire.journal.metadata_records import NO_LEADER, MetadataRecord, PartitionChanged, TopicConfigured
from minilog.wire.messages import ReplicaName
from minilog.wire.topic_partition import TopicPartition

FILES_MAX = 1
"""Logs made or moved away in one turn. Each takes a sync or two, which is long on a slow disk."""


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
        self._unmade: dict[TopicPartition, None] = {}
        """Replicas whose log could not be made because the disk is full, or does not take their
        names."""
        self._to_move: dict[tuple[str, str, int], None] = {}
        """Of ``unmoved``, what was not tried yet."""
        self._left = FILES_MAX
        """So many logs may still be made or moved away in this turn."""

    def apply(self, records: Iterable[MetadataRecord], now_ms: int, *, everything: bool) -> list[Effect]:
        """React to the net change of a run of records. ``everything`` after a snapshot."""
        touched = {TopicPartition(r.topic, r.partition): None for r in records if isinstance(r, PartitionChanged)}
        if everything:
            touched.update(dict.fromkeys(self._state.replicas))
        configured = {r.topic for r in records if isinstance(r, TopicConfigured)}
        touched.update(dict.fromkeys(p for p in self._state.replicas if p.topic in configured))
        self._coordinator.on_metadata()
        self._left = FILES_MAX
        effects: list[Effect] = []
        for partition in touched:
            effects += self._apply(partition, now_ms)
        self._leave_rest()
        return effects

    def go_on(self, now_ms: int) -> list[Effect]:
        """R42: the next few logs, those that go before those that come."""
        self._left = FILES_MAX
        effects: list[Effect] = []
        while self._left and self._to_move:
            files = next(iter(self._to_move))
            self._move_away(files, was_deleted=self._state.unmoved[files])
        while self._left and self._state.unopened:
            effects += self._apply(next(iter(self._state.unopened)), now_ms)
        self._leave_rest()
        return effects

    def open_now(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        """Somebody asks for it whose turn has not come yet."""
        if partition not in self._state.unopened:
            return []
        self._left += 1
        return self._apply(partition, now_ms)

    def _leave_rest(self) -> None:
        if self._to_move or self._state.unopened:
            self._turn.leave(self.go_on)

    def _apply(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        topic = self._state.image.topics.get(partition.topic)
        state = self._state.image.partition(*partition)
        replica = self._state.replicas.get(partition)
        self._state.unopened.pop(partition, None)
        if topic is None or state is None or self._state.broker_id not in state.replicas:
            return self._close(replica, now_ms) if replica and not self._was_asked_since(state, replica) else []
        if replica is not None and replica.topic_id != state.topic_id:
            effects = self._close(replica, now_ms)
            return effects + self._open(partition, topic, state, now_ms)
        if replica is None:
            return self._open(partition, topic, state, now_ms)
        if state.leader_epoch < replica.leader_epoch:
            return []
        return self._change(replica, topic, state, now_ms)

    def _open(self, partition: TopicPartition, topic: TopicImage, state: PartitionState, now_ms: int) -> list[Effect]:
        if not self._left or any(partition == files[::2] for files in self._to_move):
            self._state.unopened[partition] = None
            return []
        if any(partition == files[::2] for files in self._state.unmoved):
            self._unmade[partition] = None
            return []
        self._left -= 1
        try:
            log = self._state.store.open(partition.topic, state.topic_id, partition.partition, topic.settings)
        except (DiskFull, NameRefused):
            self._unmade[partition] = None
            return []
        except CorruptRange as error:
            raise _damaged(partition, state, error.detail) from error
        if log.is_damaged:
            raise _damaged(partition, state, "records that were durable cannot be read")
        if (
            log.last_epoch > state.leader_epoch
        ):  # no checksum covers it, and it would win every election and take no append
            raise _damaged(
                partition, state, f"it says leader epoch {log.last_epoch}, the controller {state.leader_epoch}"
            )
        role = FollowerState(state, state.leader_epoch, NO_LEADER, topic.settings, log)
        replica = Replica(partition, state.topic_id, topic.settings, log, role)
        self._state.replicas[partition] = replica
        self._state.has_new = True
        return self._change(replica, topic, state, now_ms)

    def open_again(self) -> None:
        """Now and then: there may be room by now, first of all to get rid of something."""
        self._left = FILES_MAX
        self._to_move.update(dict.fromkeys(self._state.unmoved))
        self._state.unopened.update(self._unmade)
        self._unmade = {}
        self._leave_rest()

    def unfit_replicas(self) -> list[ReplicaName]:
        """What the controller is told with every heartbeat: replicas here that must neither lead
        nor count."""
        unfit = dict(self._state.damaged)
        for partition in self._unmade:
            state = self._state.image.partition(*partition)
            if state is not None:
                unfit[partition] = state.topic_id
        return [ReplicaName(p.topic, topic_id, p.partition) for p, topic_id in unfit.items()]

    def _change(self, replica: Replica, topic: TopicImage, state: PartitionState, now_ms: int) -> list[Effect]:
        role = replica.role
        must_flush = topic.settings.flush_policy != replica.settings.flush_policy
        if replica.settings != topic.settings:
            replica.settings = topic.settings
            replica.log.configure(topic.settings)
        same, own = state.leader_epoch == role.leader_epoch, self._state.broker_id
        if state.leader == self._state.broker_id:
            replica.isr_shrinks += not set(state.isr) >= set(role.state.isr)
            replica.isr_expands += not set(state.isr) <= set(role.state.isr)
        if isinstance(role, LeaderState) and same and state.leader == self._state.broker_id:
            self._turn.add_outcomes(role.on_state_changed(state, topic.settings))
            self._turn.advance(replica.partition)
            return self._turn.appended(replica, now_ms) if must_flush else []
        if isinstance(role, FollowerState) and same and state.leader == role.leader != own and not must_flush:
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
        replica.role.is_eligible = self._state.image.is_eligible
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
        """Whether its logs are open or not."""
        effects: list[Effect] = []
        for files in self._state.store.partitions():
            if files[:2] == (topic, topic_id):
                effects += self._drop(files, now_ms, was_deleted=True)
        return effects

    def leave(self, left: Iterable[ReplicaName], now_ms: int) -> list[Effect]:
        """R116: records have taken these replicas from this broker. One that a later record gives
        back stays."""
        names, effects = set(left), list[Effect]()
        for files in self._state.store.partitions() if names else ():
            if ReplicaName(*files) in names and self._is_left(files):
                effects += self._drop(files, now_ms, was_deleted=True)
        return effects

    def sort_out_left(self, now_ms: int) -> list[Effect]:
        """R116: what was not told record by record. This broker's own copy of the metadata says
        that it had a replica, and its journal, as it is now, that it has none. What the copy does
        not know is put aside."""
        image, copy = self._state.image, self._state.store.metadata
        is_same = image.holds(copy.term_id, copy.metadata_offset)
        had = set(copy.replicas_of(self._state.broker_id)) if is_same else set()
        effects: list[Effect] = []
        for files in self._state.store.partitions():
            if self._is_left(files):
                effects += self._drop(files, now_ms, was_deleted=tuple(files) in had)
        return effects

    def _is_left(self, files: tuple[str, str, int]) -> bool:
        """The partition is known, and this broker is to have no replica of it."""
        topic, topic_id, number = files
        state = self._state.image.partition(topic, number)
        if state is None or state.topic_id != topic_id or self._state.broker_id in state.replicas:
            return False
        return not self._was_asked_since(state, self._state.replicas.get(TopicPartition(topic, number)))

    def _was_asked_since(self, state: PartitionState | None, replica: Replica | None) -> bool:
        """An election of a later epoch has asked what this replica holds, so it is one again. It
        may lead by what it has told."""
        if state is None or replica is None or replica.topic_id != state.topic_id:
            return False
        return replica.leader_epoch > state.leader_epoch

    def sort_out(self, now_ms: int) -> list[Effect]:
        """R39: a snapshot came, which does not tell what was deleted.

        This broker's own copy of the metadata does. What the copy knows, and its journal does not
        know any more, was deleted. Whatever else is not known is put aside."""
        image, copy = self._state.image, self._state.store.metadata
        known = {topic.topic_id for topic in image.topics.values()}
        knew = copy.topic_ids if image.holds(copy.term_id, copy.metadata_offset) else set()
        effects: list[Effect] = []
        for files in self._state.store.partitions():
            if files[1] not in known:
                effects += self._drop(files, now_ms, was_deleted=files[1] in knew)
        return effects

    def _drop(self, files: tuple[str, str, int], now_ms: int, *, was_deleted: bool) -> list[Effect]:
        topic, topic_id, number = files
        replica = self._state.replicas.get(TopicPartition(topic, number))
        effects: list[Effect] = []
        if replica is not None and replica.topic_id == topic_id:
            self._end(replica, now_ms)
        if self._left:
            self._move_away(files, was_deleted=was_deleted)
        else:
            self._state.unmoved[files] = was_deleted
            self._to_move[files] = None
        return effects

    def _move_away(self, files: tuple[str, str, int], *, was_deleted: bool) -> None:
        store = self._state.store
        self._left -= 1
        self._to_move.pop(files, None)
        self._state.unmoved.pop(files, None)
        try:
            (store.delete if was_deleted else store.put_aside)(*files)
        except DiskFull:
            self._state.unmoved[files] = was_deleted

    def drop_all(self, now_ms: int) -> list[Effect]:
        self._state.unopened.clear()
        effects: list[Effect] = []
        for replica in list(self._state.replicas.values()):
            effects += self._close(replica, now_ms)
        return effects

    def _close(self, replica: Replica, now_ms: int) -> list[Effect]:
        self._end(replica, now_ms)
        self._state.store.close(*replica.partition)
        return []

    def _end(self, replica: Replica, now_ms: int) -> None:
        """It is no replica here any more. Its files are what they are."""
        self._leave(replica)
        self._fetches.wake(replica.partition)
        del self._state.replicas[replica.partition]
        self._state.damaged.pop(replica.partition, None)
        self._replication.count_positions_of_new_epoch(replica.partition, now_ms)


def _damaged(partition: TopicPartition, state: PartitionState, detail: str) -> RefusesToStart:
    """A damaged replica must neither be elected nor acknowledge; stopping leaves the others to lead
    (no repair yet)."""
    advice = "Move its directory away to have it copied again from its leader"
    if len(state.replicas) == 1:
        advice = (
            "No other broker has a copy: restore its directory from a backup. Without one, save what "
            "`minilog log dump --records` reads of it and of its directory in quarantine, move it away, and let the "
            "partition begin anew with `minilog partition elect --unclean`"
        )
    return RefusesToStart(f"the log of {partition} is damaged: {detail}; `minilog log verify` shows where. {advice}")
