"""Unclean elections: a leader for a partition whose last complete copy is gone (R37).

Nobody alive is known to hold all that was committed, so the partition stays without a leader until
a person decides, or its topic's ``unclean.leader.election.enable`` has decided beforehand. Then all
replicas that can be reached are asked how far their logs reach, and the longest one leads, or the
one that the person names. What it lacks is lost, and the journal says so.

Owns the *inquiries*: which replicas were asked for whom, and what they told. Soft state: a person
asks again, a topic's setting is looked at in every tick.

Invariants
* Nothing is decided while somebody who is known to be complete can be elected.
* Nothing is decided by a part of what can be known: every replica that is there has told, however
  long its answer takes. A person can name the leader all the same. For a topic that has decided
  beforehand those who cannot be asked are given up after a while.
* A position counts as in election.py: for the leader epoch it was asked in, and
  for the process that was asked.

Source: KIP-966 (unclean recovery).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minilog.core.controller.elections.election import Asked, ElectionKind, Elections
from minilog.core.controller.elections.partition_change import held_end, longest, with_unclean_leader
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.effects import Effect, Reply, Send
from minilog.core.image import ClusterImage, PartitionState, check_topic_id
from minilog.errors import InvalidRequest, Overloaded, UnknownPartition, UnknownTopic
from minilog.wire.journal.metadata_records import NO_LEADER, ReplicaEnd, UncleanElection
from minilog.wire.messages import (
    ANY_REPLICA,
    Candidate,
    ElectLeader,
    ElectLeaderReply,
    Position,
    PositionQuery,
    Positions,
    PositionsReply,
    Problem,
)
from minilog.wire.topic_partition import TopicPartition

PATIENCE = 10
"""For so many election timeouts a topic that has decided beforehand asks replicas that are there
and do not answer."""


ASKED_MAX = 64
"""Persons that wait at a time. Whoever may describe the cluster may ask, every replica is asked
for each, and each answer looks at all."""


@dataclass(slots=True)
class Inquiry:
    """``asked``: whom, and who has neither told nor failed yet is in ``open``. ``request``: the
    person's, and its id; None when the topic has decided beforehand."""

    state: PartitionState
    began_ms: int
    request: tuple[int, ElectLeader] | None
    asked: dict[int, Asked] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    told: dict[int, Position] = field(default_factory=dict)

    @property
    def partition(self) -> TopicPartition:
        return TopicPartition(self.state.topic, self.state.partition)

    @property
    def is_dry(self) -> bool:
        return self.request is not None and self.request[1].dry_run


class UncleanElections:
    def __init__(self, image: ClusterImage, elections: Elections) -> None:
        self._image, self._elections = image, elections
        self._inquiries: list[Inquiry] = []
        self._since: dict[TopicPartition, int] = {}
        """When a topic that has decided beforehand first looked for a leader in vain."""

    # --- asking -----------------------------------------------------------------------------------

    def request(self, request_id: int, request: ElectLeader, now_ms: int) -> list[Effect]:
        """What a person asks for. Answered when the replicas have told. Raises UnknownTopic,
        UnknownPartition, InvalidRequest, Overloaded."""
        state = self._state(request)
        self._check(state, request)
        if state.leader != NO_LEADER:
            return [Reply(request_id, self._description(state, {}, state.leader))]
        if sum(inquiry.request is not None for inquiry in self._inquiries) >= ASKED_MAX:
            raise Overloaded(f"{ASKED_MAX} others have asked who could lead, and are not answered yet; retry later")
        return [*self._ask(self._open(state, now_ms, (request_id, request)))]

    def look(self, now_ms: int) -> list[Effect]:
        """Partitions whose topics have decided beforehand."""
        effects: list[Effect] = []
        leaderless = self._elections.leaderless
        self._since = {partition: at for partition, at in self._since.items() if partition in leaderless}
        busy = {inquiry.partition for inquiry in self._inquiries if inquiry.request is None}
        for partition in leaderless:
            topic = self._image.topics[partition.topic]
            if not topic.settings.unclean_leader_election_enable or partition in busy:
                continue
            state = topic.partitions[partition.partition]
            if self._elections.kind_of(state) is None and self._alive(state):
                effects += self._ask(self._open(state, now_ms, None))
        return effects

    def _state(self, request: ElectLeader) -> PartitionState:
        topic = self._image.topics.get(request.topic)
        if topic is None:
            raise UnknownTopic(f"there is no topic {request.topic!r}")
        check_topic_id(request.topic, request.topic_id, topic.topic_id)
        state = topic.partitions.get(request.partition)
        if state is None:
            raise UnknownPartition(
                f"topic {request.topic!r} has no partition {request.partition}, it has {len(topic.partitions)}"
            )
        return state

    def _check(self, state: PartitionState, request: ElectLeader) -> None:
        if request.dry_run:
            return
        name = f"{state.topic}-{state.partition}"
        if state.leader != NO_LEADER:
            raise InvalidRequest(f"{name} has a leader, broker {state.leader}: there is nothing to decide")
        if self._elections.kind_of(state) is not None:
            raise InvalidRequest(
                f"a broker that is known to hold all of {name} is there: it is elected at once, and nothing is lost"
            )
        if not request.unclean:
            raise InvalidRequest(
                f"no broker that is there is known to hold all of {name}{_waits_for(state)}: "
                "an election now may lose records, and is held when the request says unclean"
            )
        if request.leader != ANY_REPLICA and request.leader not in state.replicas:
            raise InvalidRequest(f"broker {request.leader} has no replica of {name}, these have: {state.replicas}")

    def _alive(self, state: PartitionState) -> list[int]:
        return [r for r in state.replicas if self._image.is_eligible(r)]

    def _open(self, state: PartitionState, now_ms: int, request: tuple[int, ElectLeader] | None) -> Inquiry:
        inquiry = Inquiry(state, now_ms, request)
        self._inquiries.append(inquiry)
        return inquiry

    def _ask(self, inquiry: Inquiry) -> list[Send]:
        state, sends = inquiry.state, []
        query = PositionQuery(state.topic, state.topic_id, state.partition, state.leader_epoch)
        for broker_id in self._alive(state):
            asked = Asked(self._image.brokers[broker_id].epoch, self._elections.next_sequence())
            inquiry.asked[broker_id] = asked
            inquiry.open.add(broker_id)
            request = Positions(broker_id, asked.broker_epoch, self._image.controller_epoch, asked.sequence, [query])
            sends.append(Send(broker_id, request))
        return sends

    # --- answers ----------------------------------------------------------------------------------

    def on_reply(self, broker_id: int, reply: PositionsReply) -> None:
        told_by = Asked(reply.broker_epoch, reply.sequence)
        for inquiry in self._inquiries:
            if reply.broker_id == broker_id and inquiry.asked.get(broker_id) == told_by:
                for answer in reply.partitions:
                    if _is_about(inquiry.state, answer):
                        inquiry.told[broker_id] = answer

    def on_ended(self, request: Positions) -> None:
        asked = Asked(request.broker_epoch, request.sequence)
        for inquiry in self._inquiries:
            if inquiry.asked.get(request.broker_id) == asked:
                inquiry.open.discard(request.broker_id)

    # --- deciding ---------------------------------------------------------------------------------

    def decide(self, draft: MetadataDraft, wall_ms: int, now_ms: int) -> list[Effect]:
        """Whatever can be answered or decided now."""
        effects: list[Effect] = []
        for inquiry in list(self._inquiries):
            state = self._image.partition(*inquiry.partition)
            if state != inquiry.state:
                effects += self._refuse(inquiry, "its state has changed meanwhile; look again")
            elif not inquiry.open or (inquiry.is_dry and now_ms - inquiry.began_ms >= self._elections.timeout_ms):
                effects += self._conclude(inquiry, draft, wall_ms, now_ms)
            else:
                continue
            self._inquiries.remove(inquiry)
        return effects

    def _refuse(self, inquiry: Inquiry, why: str) -> list[Effect]:
        error = InvalidRequest(f"nothing was decided about {inquiry.partition}: {why}")
        return [] if inquiry.request is None else [Reply(inquiry.request[0], Problem.of(error))]

    def _conclude(self, inquiry: Inquiry, draft: MetadataDraft, wall_ms: int, now_ms: int) -> list[Effect]:
        logs = {
            broker_id: position
            for broker_id, position in inquiry.told.items()
            if position.problem is None
            # Of another process by now, or one that is leaving, nothing is known.
            and self._is_still(broker_id, inquiry.asked[broker_id])
        }
        if inquiry.request is not None and inquiry.is_dry:
            return [Reply(inquiry.request[0], self._description(inquiry.state, inquiry.told, None))]
        wanted = ANY_REPLICA if inquiry.request is None else inquiry.request[1].leader
        silent = [r for r in self._alive(inquiry.state) if not self._has_told(inquiry, r)]
        if silent and wanted == ANY_REPLICA and not self._is_given_up(inquiry, now_ms):
            return self._refuse(
                inquiry,
                f"brokers {silent} are there and have not told how far their logs reach; ask again, or name the leader",
            )
        is_open = self._elections.kind_of(inquiry.state) is None and inquiry.state == self._in(draft, inquiry)
        if not is_open:
            return self._refuse(inquiry, "somebody who holds all of it has come back, or it was decided already")
        leader = self._winner(inquiry.state, logs, wanted)
        if leader is None:
            return self._refuse(inquiry, _nobody(wanted))
        expected = ANY_REPLICA if inquiry.request is None else inquiry.request[1].expected
        if expected not in (ANY_REPLICA, leader):
            return self._refuse(
                inquiry, f"by now broker {leader} has the longest log, and not broker {expected}; look again"
            )
        answer = self._description(inquiry.state, inquiry.told, leader, draft.next_index + 1)
        self._elect(inquiry, leader, logs, draft, wall_ms)
        return [] if inquiry.request is None else [Reply(inquiry.request[0], answer)]

    def _in(self, draft: MetadataDraft, inquiry: Inquiry) -> PartitionState | None:
        return draft.state_of(*inquiry.partition)

    def _is_still(self, broker_id: int, asked: Asked) -> bool:
        broker = self._image.brokers.get(broker_id)
        return broker is not None and broker.epoch == asked.broker_epoch and broker.eligible

    def _has_told(self, inquiry: Inquiry, broker_id: int) -> bool:
        return broker_id in inquiry.told and self._is_still(broker_id, inquiry.asked[broker_id])

    def _is_given_up(self, inquiry: Inquiry, now_ms: int) -> bool:
        """The topic has decided that it waits for nobody, but for who is there it does, for a
        while."""
        if inquiry.request is not None:
            return False
        return now_ms - self._since.setdefault(inquiry.partition, now_ms) >= PATIENCE * self._elections.timeout_ms

    def _winner(self, state: PartitionState, logs: dict[int, Position], leader: int) -> int | None:
        """The longest log, of those that were complete last where any of them is there."""
        if leader != ANY_REPLICA:
            return leader if leader in logs else None
        there = [r for r in state.replicas if r in logs]
        members = [r for r in there if r in state.last_known_elr] or there
        return longest(logs, members, [r for r in there if r not in members])

    def _elect(
        self,
        inquiry: Inquiry,
        leader: int,
        logs: dict[int, Position],
        draft: MetadataDraft,
        wall_ms: int,
    ) -> None:
        state = inquiry.state
        ends = {r: (logs[r].last_epoch, logs[r].end_offset) for r in state.replicas if r in logs}
        candidates = [ReplicaEnd(r, *end) for r, end in ends.items()]
        missing = self._missing(state, inquiry.told, logs[leader])
        self._since.pop(inquiry.partition, None)
        self._elections.lone_ends.on_unclean(state.topic_id, state.partition)
        draft.add(
            UncleanElection(
                state.topic,
                state.topic_id,
                state.partition,
                leader,
                state.leader_epoch,
                candidates,
                missing,
                "topic" if inquiry.request is None else "operator",
                wall_ms,
                "" if inquiry.request is None else inquiry.request[1].asked_by,
            )
        )
        draft.change(with_unclean_leader(state, leader))

    def _description(
        self, state: PartitionState, told: dict[int, Position], leader: int | None, metadata_offset: int = 0
    ) -> ElectLeaderReply:
        kind = self._elections.kind_of(state) if state.leader == NO_LEADER else None
        if kind is None and state.leader == NO_LEADER:
            kind = ElectionKind.UNCLEAN
        candidates = [self._candidate(state, r, told.get(r)) for r in state.replicas]
        logs = {r: position for r, position in told.items() if position.problem is None}
        taken = self._winner(state, logs, ANY_REPLICA) if kind is ElectionKind.UNCLEAN else None
        for candidate in candidates:
            candidate.is_next = candidate.broker_id == taken
            if candidate.broker_id in logs:
                candidate.missing = self._missing(state, told, logs[candidate.broker_id])
        best = max(logs.values(), key=lambda log: (log.last_epoch, log.end_offset), default=None)
        return ElectLeaderReply(
            state.topic,
            state.topic_id,
            state.partition,
            leader,
            state.leader_epoch,
            "" if kind is None else kind.value,
            candidates,
            self._missing(state, told, best if leader is None else logs.get(leader, best)),
            metadata_offset,
        )

    def _missing(self, state: PartitionState, told: dict[int, Position], log: Position | None) -> int:
        """At least so many committed records are not in ``log``, by what all of them tell. None: in
        no log at all."""
        last_epoch, end_offset = (-1, 0) if log is None else (log.last_epoch, log.end_offset)
        counts_from = self._elections.lone_ends.counts_from().get((state.topic_id, state.partition), -1)
        later = (one for one in told.values() if one.last_epoch >= max(counts_from, last_epoch))
        lacking = (one.high_watermark - (0 if log is None else held_end(log, one)) for one in later)
        by_leader = self._elections.lone_ends.missing(state, last_epoch, end_offset)
        return max(0, by_leader, max(lacking, default=0))

    def _candidate(self, state: PartitionState, broker_id: int, told: Position | None) -> Candidate:
        candidate = Candidate(broker_id, is_complete=broker_id in (*state.isr, *state.elr))
        if told is None:
            alive = self._image.is_eligible(broker_id)
            candidate.problem = "it did not answer" if alive else "its broker is not there"
        elif told.problem is not None:
            candidate.problem = told.problem.detail
        else:
            candidate.last_epoch, candidate.end_offset = told.last_epoch, told.end_offset
        return candidate


def _is_about(state: PartitionState, answer: Position) -> bool:
    named = answer.topic, answer.topic_id, answer.partition, answer.leader_epoch
    return named == (state.topic, state.topic_id, state.partition, state.leader_epoch)


def _waits_for(state: PartitionState) -> str:
    known = state.elr or state.last_known_elr
    return f" (brokers {known} may, when they are back)" if known else ""


def _nobody(leader: int) -> str:
    who = f"broker {leader} has" if leader != ANY_REPLICA else "none of its replicas has"
    return f"{who} told how far its log reaches"
