"""How a partition's record changes when replicas come, go or take the lead: pure functions on
PartitionState.

None of them touches ``partition_epoch``: one journal record is one step of it however many changes
were put together, so the draft that makes the record sets it (journal/metadata_draft.py).
Nothing here knows time or sessions.

Invariants: R20 (ISR and ELR disjoint; ELR empty while |ISR| >= min ISR; what leaves an ISR that
falls below min ISR stays eligible in the ELR, because the high watermark is frozen then), R21 (an
unclean broker leaves the ELR), R37 (one that has lost a replica is no last member either). A
leaderless state already carries the leader epoch its next leader will use: the epoch is taken
before positions are asked for, so that answering can fence everything older. Source: KIP-966.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from minilog.core.image import PartitionState
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import Position

IsEligible = Callable[[int], bool]
Move = Callable[[PartitionState, int, int, IsEligible], PartitionState]
"""What happens to a partition when (state, broker id, min ISR, eligible?) a broker goes."""


def with_isr(state: PartitionState, isr: Sequence[int], min_isr: int) -> PartitionState:
    """The effect of a new ISR on ISR, ELR and last known ELR (R20)."""
    members = [r for r in state.replicas if r in isr]
    if len(members) >= min_isr:
        return replace(state, isr=members, elr=[], last_known_elr=[])
    complete = {*state.isr, *state.elr}
    elr = [r for r in state.replicas if r in complete and r not in members]
    last_known = [r for r in state.last_known_elr if r not in members and r not in elr]
    return replace(state, isr=members, elr=elr, last_known_elr=last_known)


def without_replica(state: PartitionState, broker_id: int, min_isr: int, is_eligible: IsEligible) -> PartitionState:
    """A broker is fenced: it leaves the ISR. If it led, a new leader epoch begins with no leader
    yet.

    With exactly one live candidate there is nothing to compare, so that one leads at once.
    """
    if broker_id in state.isr:
        left = [r for r in state.isr if r != broker_id]
        resigned = replace(state, leader=NO_LEADER) if state.leader == broker_id else state
        changed = with_isr(resigned, left, min_isr)
    else:
        changed = state
    if state.leader != broker_id:
        return changed
    changed = replace(changed, leader_epoch=state.leader_epoch + 1)
    alive = candidates(changed, is_eligible)
    return with_leader(changed, alive[0], min_isr) if len(alive) == 1 else changed


def handed_over(state: PartitionState, broker_id: int, min_isr: int, is_eligible: IsEligible) -> PartitionState:
    """Controlled shutdown (R28): a drained leader's ISR members all hold everything, so the first
    one leads, unasked."""
    changed = without_replica(state, broker_id, min_isr, is_eligible)
    if state.leader != broker_id or changed.leader != NO_LEADER:
        return changed
    alive = [r for r in changed.isr if is_eligible(r)]
    return with_leader(changed, alive[0], min_isr) if alive else changed


def candidates(state: PartitionState, is_eligible: IsEligible) -> list[int]:
    """Who may be elected, in replica order: live ISR members, or else live ELR members (R20)."""
    alive = [r for r in state.replicas if r in state.isr and is_eligible(r)]
    return alive or [r for r in state.replicas if r in state.elr and is_eligible(r)]


def recovery_candidates(state: PartitionState, is_eligible: IsEligible) -> list[int]:
    """When nobody is known to be complete any more: the last ones who were, and only once *all* of
    them are back.

    Every committed record is on at least one of them unless min ISR of them lost their disks, which
    is the tolerance KIP-966 states; asking them all and taking the longest log is its "balanced"
    recovery.
    """
    if state.isr or state.elr or not all(is_eligible(r) for r in state.last_known_elr):
        return []
    return list(state.last_known_elr)


def with_leader(state: PartitionState, leader: int, min_isr: int) -> PartitionState:
    """``leader`` takes the epoch the leaderless state has opened. One that was not in the ISR
    enters it."""
    assert state.leader == NO_LEADER, f"{state!r} has a leader"
    may_lead = {*state.isr, *state.elr} or {*state.replicas}  # in a recovery whoever holds most
    assert leader in may_lead, f"{leader} may not lead {state!r}"
    if leader not in state.isr:
        state = with_isr(state, [*state.isr, leader], min_isr)
    return replace(state, leader=leader)


def with_unclean_leader(state: PartitionState, leader: int) -> PartitionState:
    """``leader`` takes the epoch the leaderless state has opened, and its log is what the partition
    holds: whoever was complete before is not so any more."""
    assert state.leader == NO_LEADER, f"{state!r} has a leader"
    assert leader in state.replicas
    return replace(state, leader=leader, isr=[leader], elr=[], last_known_elr=[])


def without_unfit(state: PartitionState, broker_id: int, min_isr: int, is_eligible: IsEligible) -> PartitionState:
    """A replica that its own broker knows to be damaged, or cannot open, neither leads nor counts
    as complete.

    ``is_eligible`` knows it as unfit. A leader stays while nobody else is known to be complete and
    alive: what it can read is served on. Everybody else goes from ISR and ELR at once, to the last
    known members: it comes back like any follower, or in a recovery when it can be asked again.
    """
    if state.leader == broker_id and not any(r != broker_id for r in candidates(state, is_eligible)):
        return state
    return without_unclean(without_replica(state, broker_id, min_isr, is_eligible), broker_id)


def without_unclean(state: PartitionState, broker_id: int) -> PartitionState:
    """R21: a process that may have lost writes is not known to be complete. It is remembered in
    last_known_elr."""
    if broker_id not in state.elr:
        return state
    elr = [r for r in state.elr if r != broker_id]
    last_known = [r for r in state.replicas if r == broker_id or r in state.last_known_elr]
    return replace(state, elr=elr, last_known_elr=last_known)


def without_lost(state: PartitionState, *brokers: int) -> PartitionState:
    """R37: brokers that are in no ISR have not the disk any more that their replica was on, or an
    older copy. They are not known to hold anything."""
    if not {*brokers} & {*state.elr, *state.last_known_elr}:
        return state
    return replace(
        state,
        elr=[r for r in state.elr if r not in brokers],
        last_known_elr=[r for r in state.last_known_elr if r not in brokers],
    )


def longest(logs: Mapping[int, Position], members: Sequence[int], others: Iterable[int]) -> int | None:
    """The one of ``members`` with the longest log, or one of the ``others`` that holds all of that
    log and more.

    ``members`` were complete once, and the others were not. A later leader epoch proves nothing of
    another's log: its leader may have been alone with what it wrote, and what was committed instead
    was written before. Only an end of the same epoch says what both hold."""
    ends = {broker_id: (log.last_epoch, log.end_offset) for broker_id, log in logs.items()}
    best = most_up_to_date(ends, members)
    if best is None:
        return None
    may_lead = [*members, *(other for other in others if other in logs and extends(logs[other], logs[best]))]
    return most_up_to_date(ends, may_lead)


def extends(log: Position, other: Position) -> bool:
    """``log`` surely holds all that ``other`` does, or has let it go by retention."""
    if other.end_offset <= log.start_offset:
        return True
    ends = dict(log.epoch_ends or [(log.last_epoch, log.end_offset)])
    return ends.get(other.last_epoch, -1) >= other.end_offset


def held_end(log: Position, other: Position) -> int:
    """Nothing of ``other`` from there on is in ``log``: it has gone on in epochs that ``log`` does
    not know. Where that is not told, ``log`` may hold as much as it reaches."""
    ends = other.epoch_ends or [(other.last_epoch, other.end_offset)]
    common = next((end for epoch, end in ends if epoch <= log.last_epoch), log.end_offset)
    return min(log.end_offset, common)


def most_up_to_date(positions: Mapping[int, tuple[int, int]], preference: Iterable[int]) -> int | None:
    """The candidate with the highest (last epoch, end offset); among equals the first in
    ``preference`` order."""
    best: int | None = None
    for broker_id in preference:
        if broker_id in positions and (best is None or positions[broker_id] > positions[best]):
            best = broker_id
    return best
