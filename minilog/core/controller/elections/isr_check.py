"""Alteration: the controller's judgement of a leader's ISR proposal. Pure; R16 and R17 in their
order.

The order matters to the leader: only IneligibleReplica proves that a proposal was not applied and
never will be (together with the request sequence, R15), so everything that could hide an earlier
success is checked before it.
"""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.controller.elections.election import IsFit
from minilog.core.controller.elections.leader_balance import is_successor
from minilog.core.controller.elections.partition_change import with_isr
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.image import ClusterImage, PartitionState, min_isr
from minilog.errors import (
    FencedLeaderEpoch,
    IneligibleReplica,
    InvalidRequest,
    InvalidUpdateVersion,
    MinilogError,
    NotController,
    UnknownTopic,
)
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import AlterPartition, IsrDecision, IsrProposal, Problem


def decide_proposals(
    image: ClusterImage, draft: MetadataDraft, request: AlterPartition, is_fit: IsFit
) -> list[IsrDecision]:
    """Each proposal is applied to ``draft``, or its answer says why not."""
    decisions = []
    for proposal in request.partitions:
        decision = IsrDecision(proposal.topic, proposal.topic_id, proposal.partition)
        try:
            state = check_proposal(image, draft, request.broker_id, proposal, is_fit)
        except MinilogError as error:
            decision.problem = Problem.of(error)
        else:
            minimum = min_isr(image.topics[state.topic], state)
            changed = with_isr(state, [m.broker_id for m in proposal.isr], minimum)
            if proposal.leader != NO_LEADER:
                changed = replace(changed, leader=proposal.leader, leader_epoch=state.leader_epoch + 1)
            draft.change(changed)
        decisions.append(decision)
    return decisions


def check_proposal(
    image: ClusterImage, draft: MetadataDraft, sender: int, proposal: IsrProposal, is_fit: IsFit
) -> PartitionState:
    """The partition's state if the proposal may be applied to it; raises the answer otherwise."""
    name = f"{proposal.topic}-{proposal.partition}"
    state = image.partition(proposal.topic, proposal.partition)
    if state is None or state.topic_id != proposal.topic_id:
        raise UnknownTopic(f"there is no partition {name} with topic id {proposal.topic_id}")
    if proposal.leader_epoch > state.leader_epoch or proposal.partition_epoch > state.partition_epoch:
        raise NotController(f"{name}: the proposal knows newer epochs than this controller")
    if proposal.leader_epoch < state.leader_epoch:
        raise FencedLeaderEpoch(f"{name}: leader epoch {proposal.leader_epoch} is over, it is {state.leader_epoch}")
    if state.leader != sender:
        raise InvalidRequest(f"{name} is led by {state.leader}, not by {sender}")
    if proposal.partition_epoch < state.partition_epoch:
        raise InvalidUpdateVersion(
            f"{name}: partition epoch {proposal.partition_epoch} is over, it is {state.partition_epoch}"
        )
    members = [m.broker_id for m in proposal.isr]
    if len(set(members)) != len(members) or sender not in members or not set(members) <= set(state.replicas):
        raise InvalidRequest(
            f"{name}: ISR {members} must be a subset of {state.replicas} that holds the leader {sender}"
        )
    _check_eligible(image, draft, state, proposal, is_fit)
    if proposal.leader != NO_LEADER and not (is_successor(state, proposal.leader) and proposal.leader in members):
        raise IneligibleReplica(f"{name}: broker {proposal.leader} is not to lead it, named is {state.successor}")
    return state


def _check_eligible(
    image: ClusterImage, draft: MetadataDraft, state: PartitionState, proposal: IsrProposal, is_fit: IsFit
) -> None:
    for member in proposal.isr:
        broker = image.brokers.get(member.broker_id)
        is_stayer = member.broker_id == state.leader  # it may know itself to be damaged, and lead while nobody else can
        fit = is_stayer or is_fit(member.broker_id, state)
        if broker is None or not draft.is_eligible(member.broker_id) or broker.epoch != member.broker_epoch or not fit:
            seen = "unknown" if broker is None else f"{broker.state} with epoch {broker.epoch}"
            seen = seen if fit else "damaged or not open there"
            raise IneligibleReplica(
                f"{state.topic}-{state.partition}: broker {member.broker_id} of epoch {member.broker_epoch} may not be in the ISR, it is {seen}"
            )
