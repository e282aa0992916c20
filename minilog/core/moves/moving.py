"""A partition on the move: what its record says while its replicas are being changed.

While a move is in flight ``target`` names the replicas it leads to, ``former`` those it began with,
and ``replicas`` all of both. Brokers that are added catch up and join the ISR as any other. A move
that was cancelled leads back: its target is ``former``.

Invariants
* A move is complete when all of its target are in the ISR, its leader is one of them, and nobody
  else is in the ISR any more. So no complete copy goes before another one has taken its place, and
  the removed brokers count for nothing when they hear of it (R113).
* A cancelled one is over when all of the former replicas that run are in the ISR, and these are at
  least min.insync.replicas. Until then what is committed may need an added one. Where no added one
  is known to be complete, it is over at once.
* Nothing here changes an epoch. The draft that makes the record does (R114).

Source: KIP-455.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from minilog.core.image import PartitionState
from minilog.wire.journal.metadata_records import NO_LEADER

IsEligible = Callable[[int], bool]


def is_moving(state: PartitionState) -> bool:
    return bool(state.target)


def is_cancelled(state: PartitionState) -> bool:
    return is_moving(state) and state.target == state.former


def adding(state: PartitionState) -> list[int]:
    """Brokers that had no replica before, and are to have one."""
    return [r for r in state.target if r not in state.former]


def removing(state: PartitionState) -> list[int]:
    """Brokers that have a replica, and are to have none."""
    return [r for r in state.replicas if r not in state.target] if is_moving(state) else []


def settled_replicas(state: PartitionState) -> list[int]:
    """Where it is when nothing moves any more."""
    return state.target or state.replicas


def least_factor(state: PartitionState) -> int:
    """So many replicas it has at least, before a move, in it and after it."""
    return min(len(state.former), len(state.target)) if is_moving(state) else len(state.replicas)


def missing(state: PartitionState) -> list[int]:
    """Replicas that are not in sync and should be: those that are only to come are not missed."""
    coming = adding(state)
    return [r for r in state.replicas if r not in state.isr and r not in coming]


def begun(state: PartitionState, target: Sequence[int]) -> PartitionState:
    """The first step: who is added is a replica from now on."""
    assert not is_moving(state), f"{state!r} moves already"
    kept = [r for r in state.replicas if r not in target]
    return replace(state, replicas=[*target, *kept], former=state.replicas, target=list(target))


def cancelled(state: PartitionState) -> PartitionState:
    """It goes back to where it was."""
    assert is_moving(state), f"{state!r} does not move"
    return replace(state, target=state.former)


def redirected(state: PartitionState, target: Sequence[int]) -> PartitionState:
    """What goes back goes elsewhere among the replicas that it has: those of before may be gone for
    good."""
    assert is_cancelled(state), f"{state!r} does not go back"
    return replace(state, target=list(target))


def is_ready(state: PartitionState, minimum: int, is_eligible: IsEligible) -> bool:
    """Those who stay hold all, and are enough."""
    if not is_moving(state):
        return False
    if set(state.target) <= {*state.isr}:
        return True
    if set(state.target) != {*state.former}:
        return False
    if {*state.isr, *state.elr, *state.last_known_elr} <= {*state.target}:
        return True
    coming_back = [r for r in state.former if r not in state.isr and is_eligible(r)]
    return not coming_back and len(_staying(state)) >= minimum


def parting_isr(state: PartitionState, minimum: int, is_eligible: IsEligible) -> list[int] | None:
    """The ISR without those who are to go, when it may be asked for; None when not, or when they
    are out of it already."""
    staying = _staying(state)
    is_led = state.leader in state.target
    return staying if is_led and len(staying) < len(state.isr) and is_ready(state, minimum, is_eligible) else None


def must_hand_over(state: PartitionState, minimum: int, is_eligible: IsEligible) -> bool:
    """Its leader is to go, and somebody else may lead."""
    leads = state.leader != NO_LEADER and is_moving(state) and state.leader not in state.target
    return leads and is_ready(state, minimum, is_eligible)


def completed(state: PartitionState, minimum: int, is_eligible: IsEligible) -> PartitionState:
    """The last step, when it may be done; else the state as it is."""
    if not is_ready(state, minimum, is_eligible):
        return state
    if removing(state) and not (state.leader in state.target and {*state.isr} <= {*state.target}):
        return state
    elr, last_known = ([r for r in pool if r in state.target] for pool in (state.elr, state.last_known_elr))
    members = [r for r in state.target if r in state.isr]
    return replace(state, replicas=state.target, isr=members, elr=elr, last_known_elr=last_known, former=[], target=[])


def _staying(state: PartitionState) -> list[int]:
    return [r for r in state.isr if r in state.target]
