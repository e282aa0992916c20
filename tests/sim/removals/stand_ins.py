"""Removals: what stands in for a rule of the design when it is taken away (ablation.py). Each is
the naive version that somebody in a hurry might have written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from minilog.core.broker.standing.controller_link import ControllerLink
from minilog.core.broker.standing.registration import Registration
from minilog.core.controller.brokers.broker_sessions import BrokerSession
from minilog.core.controller.brokers.fencing import Fencing
from minilog.core.controller.brokers.metadata_feed import MetadataFeed
from minilog.core.controller.controller import PRODUCER_IDS_BLOCK, ControllerCore
from minilog.core.controller.decision import Decision
from minilog.core.controller.elections import isr_check, partition_change
from minilog.core.controller.elections.election import IsFit
from minilog.core.controller.elections.partition_change import longest
from minilog.core.controller.event_queue import EventQueue
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.controller.told.failovers import FailoverKind
from minilog.core.effects import Effect, Reply
from minilog.core.image import BrokerState, ClusterImage, PartitionState
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_session import FollowerSession, ParkedReplicaFetch
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.isr import copies_end
from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.produce_waiters import Waiter
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from minilog.core.shares import Shares
from minilog.core.turns import Sender, Turns
from minilog.storage import meta
from minilog.storage.log.log import PartitionLog
from minilog.storage.store import Store
from minilog.wire.batch import Batch
from minilog.wire.journal.metadata_records import BrokerShuttingDown
from minilog.wire.messages import (
    ACKS_ALL,
    AllocateProducerIds,
    AllocateProducerIdsReply,
    Heartbeat,
    HeartbeatReply,
    IsrProposal,
    Message,
    Position,
    Register,
    ReplicaFetch,
    ReplicaFetchPartition,
    ReplicaFetchResult,
)
from tests.sim.nodes.controller_node import ControllerNode

# --- replication ----------------------------------------------------------------------------------

_follow = FollowerState.__init__


def cut_to_high_watermark(self: FollowerState, *arguments: Any) -> None:
    _follow(self, *arguments)
    self.log.truncate(self.log.high_watermark)


def never_diverging(
    self: LeaderState, broker_id: int, broker_epoch: int, fetch: ReplicaFetchPartition, now_ms: int
) -> None:
    self.check_epoch(fetch.leader_epoch)
    self.followers[broker_id].on_fetch(fetch.fetch_offset, broker_epoch, self.log.end_offset, now_ms)


_apply = ReplicaFetcher._apply


def apply_asleep(self: ReplicaFetcher, follower: FollowerState, result: ReplicaFetchResult, *when: int) -> None:
    self._asleep.pop(follower.partition, None)
    _apply(self, follower, result, *when)


def match_anything(self: ReplicaFetcher, request: ReplicaFetch) -> bool:
    return self.inflight is not None


def ack_when_written(self: LeaderState, acks: int) -> int:
    return self.log.end_offset


def ack_when_the_leader_holds(self: LeaderState, acks: int) -> int:
    return self.high_watermark if acks == ACKS_ALL else self.position


def ack_by_anybody(self: LeaderState, acks: int) -> int:
    """Every replica counts, as far as it was ever heard."""
    if acks == ACKS_ALL:
        return self.high_watermark
    return min(self.position, copies_end((self.position_of(r) for r in self.state.replicas), acks))


def learn_own_end(self: FollowerState, *arguments: Any) -> None:
    self.log.high_watermark = self.log.end_offset


def always_fresh(self: FollowerState, now_ms: int) -> int:
    return 0


def first_that_answers(logs: Mapping[int, Position], members: Sequence[int], others: Iterable[int]) -> int | None:
    return next((broker_id for broker_id in (*members, *others) if broker_id in logs), None)


def longest_of_all(logs: Mapping[int, Position], members: Sequence[int], others: Iterable[int]) -> int | None:
    """Whoever has the latest leader epoch, a member or not."""
    return longest(logs, [*members, *others], ())


_lead = LeaderState.__init__


def lead_and_inherit(self: LeaderState, *arguments: Any) -> None:
    """Whoever waited in an earlier epoch waits on."""
    _lead(self, *arguments)
    self.waiters = vars(self.log).pop("waiters", self.waiters)


def resign_and_bequeath(self: LeaderState) -> list[Outcome]:
    vars(self.log)["waiters"] = self.waiters
    return []


def complete_without_looking(self: LeaderState) -> list[Outcome]:
    outcomes = []
    for acks in self.waiters.levels():
        for waiter in self.waiters.complete_up_to(acks, self._reached(acks)):
            outcomes += [Outcome(waiter.pending, waiter.position, self._receipt(waiter))]
    return outcomes


def read_to_the_end(replica: Any, fetch: Any, max_bytes: int) -> memoryview:
    log = replica.log
    if not log.start_offset <= fetch.offset < log.end_offset:
        return memoryview(b"")
    return memoryview(log.read(fetch.offset, max_bytes, log.end_offset))


def join_when_heard(position: int | None, high_watermark: int, leader_start_offset: int) -> bool:
    return position is not None


# --- proposals ------------------------------------------------------------------------------------


def give_up_on_any_failure(self: Any, request: Any, now_ms: int) -> None:
    for role in self._leaders():
        role.proposal = None
    self._inflight = None


class _Forgetful(dict[int, tuple[int, int]]):
    def get(self, key: Any, default: Any = None) -> Any:
        return default


_controller = ControllerCore.__init__


def without_sequences(self: ControllerCore, *arguments: Any) -> None:
    _controller(self, *arguments)
    self._sequences = _Forgetful()


_check = isr_check.check_proposal


def without_cas(
    image: ClusterImage, draft: MetadataDraft, sender: int, proposal: IsrProposal, is_fit: IsFit
) -> PartitionState:
    state = image.partition(proposal.topic, proposal.partition)
    epoch = proposal.partition_epoch if state is None else state.partition_epoch
    return _check(image, draft, sender, replace(proposal, partition_epoch=epoch), is_fit)


# --- elections ------------------------------------------------------------------------------------


def anybody(state: PartitionState, is_eligible: Callable[[int], bool]) -> list[int]:
    return [r for r in state.replicas if is_eligible(r)]


def lead_anyway(state: PartitionState, winner: int, min_isr: int) -> PartitionState:
    if winner not in {*state.isr, *state.elr, *state.last_known_elr}:
        state = replace(state, isr=[winner], elr=[])
    return partition_change.with_leader(state, winner, min_isr)


def all_are_good(self: object, state: PartitionState, election: Any, known: Any) -> list[int]:
    return []


def whoever_is_back(state: PartitionState, is_eligible: Callable[[int], bool]) -> list[int]:
    if state.isr or state.elr:
        return []
    return [r for r in state.last_known_elr if is_eligible(r)]


_fence = partition_change.without_replica


def in_the_same_epoch(state: PartitionState, *arguments: Any) -> PartitionState:
    return replace(_fence(state, *arguments), leader_epoch=state.leader_epoch)


# --- the controller and its word ------------------------------------------------------------------


_carry_out = ControllerNode._carry_out


def effects_first(self: ControllerNode, decision: Decision) -> None:
    """Replay, tell everybody, and only then write the journal, unless the process dies before."""
    if not decision.records or self.core is None:
        _carry_out(self, decision)
        return
    core, first = self.core, self.core.metadata_offset + 1
    for index, record in enumerate(decision.records, first):
        core.replay(index, record)
    self._perform(decision)
    self._perform(core.on_committed(self.now_ms))
    if self.rng.random() < self.dies_in_commit:
        self._die_in_commit()
        return
    self.journal.append(decision.records)
    if self.invariants is not None:
        self.invariants.on_journalled(first, decision.records)


def take_over(self: ControllerCore, request_id: int, request: Register, known: BrokerState, now_ms: int) -> Decision:
    """The newest process gets the id."""
    draft = MetadataDraft(self.image)
    effects = self.fencing.fence(draft, self.sessions.by_broker[known.broker_id], FailoverKind.REPLACED, now_ms, now_ms)
    effects += self.registrations.register(request_id, request, draft, now_ms)
    return Decision(draft.records(), effects)


def register_again(self: ControllerCore, request_id: int, request: Register, now_ms: int) -> Decision:
    """Every registration is a new process."""
    known = self.image.brokers.get(request.broker_id)
    if known is not None and not known.fenced:
        return self._challenge(request_id, request, known, now_ms)
    draft = MetadataDraft(self.image)
    effects = self.registrations.register(request_id, request, draft, now_ms)
    return Decision(draft.records(), effects)


def nobody(*arguments: Any) -> Iterator[Any]:
    return iter(())


def leave_at_once(self: MetadataFeed, session: BrokerSession) -> bool:
    return session.shutdown_offset is not None


_shut_down = Fencing.shut_down


def shut_down_unasked(
    self: Fencing, draft: MetadataDraft, session: BrokerSession, *, drained: bool, now_ms: int
) -> None:
    _shut_down(self, draft, session, drained=True, now_ms=now_ms)


def keep_leading(self: Fencing, draft: MetadataDraft, session: BrokerSession, *, drained: bool, now_ms: int) -> None:
    """The process just ends, and its failover begins then."""
    draft.add(BrokerShuttingDown(session.broker_id, session.broker_epoch))


def obey_anybody(self: ControllerLink, controller_epoch: int) -> bool:
    if controller_epoch != self._state.store.controller_epoch:
        self._state.store.save_controller_epoch(controller_epoch)
    return True


def save_any_epoch(self: Store, epoch: int) -> None:
    meta.save_epoch(self._disk, self._path(meta.META_FILE), epoch)
    self._identity.controller_epoch = epoch


_ask = Registration.next_request


def ask_anybody(
    self: Registration, controller_epoch: int, image: ClusterImage, now_ms: int, **rest: Any
) -> Message | None:
    """Without saying whom it has obeyed before, and what it has applied."""
    request = _ask(self, 0, image, now_ms, **rest)
    if isinstance(request, Register | Heartbeat):
        self._inflight = request = replace(request, term_id="")
    return request


def take_any_news(self: ControllerLink, reply: HeartbeatReply, effects: list[Effect], now_ms: int) -> None:
    """Whatever comes is put behind what is known."""
    if reply.snapshot:
        self._state.image.load(reply.metadata_offset, reply.records)
    else:
        for record in reply.records:
            self._state.image.apply(self._state.image.metadata_offset + 1, record)
    effects += self._roles.apply(reply.records, now_ms, everything=reply.snapshot)
    self._advance_all()


# --- sessions -------------------------------------------------------------------------------------


def take_any_request(
    self: FollowerSessions, request_id: int, request: ReplicaFetch, deadline_ms: int, now_ms: int
) -> tuple[FollowerSession | None, list[Effect]]:
    session = self._by_broker.get(request.broker_id)
    effects: list[Effect] = []
    if session is None or request.sequence == 0:
        effects += self.close(request.broker_id)
        session = self._by_broker[request.broker_id] = FollowerSession(request)
    effects += self._unpark(session)
    session.take(request)
    session.parked = ParkedReplicaFetch(request_id, now_ms, deadline_ms)
    return session, effects


def ask_on(self: ReplicaFetcher, request: ReplicaFetch, now_ms: int, **named: Any) -> None:
    """A failed request is forgotten, and the session goes on as if it had been answered."""
    if self._matches(request):
        self.inflight = None
        self.retry_ms = now_ms + 50


# --- anything -------------------------------------------------------------------------------------


def nothing(*arguments: Any, **named: Any) -> None:
    return None


def no_effects(*arguments: Any) -> list[Any]:
    return []


def always(*arguments: Any) -> bool:
    return True


def never(*arguments: Any) -> bool:
    return False


def as_it_was(state: PartitionState, *arguments: Any) -> PartitionState:
    return state


def the_committed_isr(self: LeaderState) -> set[int]:
    return set(self.state.isr)


# --- idempotent producers -------------------------------------------------------------------------


def all_new(self: PartitionLog, batches: Sequence[Batch]) -> list[Any]:
    return []


def again_at_once(pending: Any, position: int, places: Any, acks: int) -> Waiter:
    """One that any high watermark has reached."""
    return Waiter(pending, position, places[0].base_offset, 0, 0, places[0].crc, acks, places[0].leader_epoch, True)


_truncate = PartitionLog.truncate


def cut_without_numbers(self: PartitionLog, end_offset: int) -> int:
    with patch.object(PartitionLog, "restore_producers", nothing):
        return _truncate(self, end_offset)


def allocate_unwritten(self: ControllerCore, request_id: int, request: AllocateProducerIds) -> Decision:
    first = self.image.next_producer_id
    return Decision([], [Reply(request_id, AllocateProducerIdsReply(first, first + PRODUCER_IDS_BLOCK))])


def the_longest_queue(turns: Turns[Any]) -> Any:
    """R45 taken away: whoever has most waiting is served."""
    sender = max(turns._queues, key=lambda known: len(turns._queues[known]))
    _, waiter = turns._queues[sender].popleft()
    if not turns._queues[sender]:
        del turns._queues[sender]
    return waiter


def in_one_line(queue: EventQueue[Any], event: Any, sender: Sender, now_ms: float) -> int:
    """R45 taken away: a client's request goes before whatever comes later."""
    return queue.put(event)


def while_there_is_room(shares: Shares, client: str, count: int = 1) -> bool:
    """R45 taken away: whoever comes first has all."""
    return shares.total + count <= shares.places_max
