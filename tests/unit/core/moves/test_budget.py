"""How much may be copied a second, and what waits when that is spent."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.config import MIB
from minilog.core.image import PartitionState
from minilog.core.moves.moving import begun
from minilog.core.replication.budget import Budget
from minilog.core.replication.replica_fetcher import ReplicaFetcher
from tests.unit.core.replication.fetcher_bench import answer, ask, follower, named, result, settle


def test_what_is_spent_too_early_is_waited_for() -> None:
    budget = Budget(1000)
    assert budget.spend(1000, 5000) == 5000
    assert budget.spend(500, 5000) == 5500
    assert budget.spend(500, 5500) == 6000
    assert budget.spend(1000, 60_000) == 60_000, "what was not used is kept for a second"
    assert budget.spend(1, 60_000) == 60_001


def test_without_a_bound_nothing_waits() -> None:
    assert Budget().spend(10**12, 7) == 7


def moving(state: PartitionState, *target: int) -> PartitionState:
    """Broker 2, who follows, was no replica before."""
    return begun(replace(state, replicas=[1, 3], isr=[1, 3]), list(target))


def test_what_moves_here_is_forgotten_while_it_waits_and_the_rest_goes_on() -> None:
    made = ReplicaFetcher(2, 1, 500, MIB, 2000, Budget(100))
    comes, stays = follower(0), follower(1)
    comes.state = moving(comes.state, 1, 2)
    made.add(comes)
    made.add(stays)
    request = ask(made)
    made.on_reply(request, answer(request, result(0, values=9), result(1, values=9)), 0)
    for partition in (comes.partition, stays.partition):
        settle(made, partition)
    request = ask(made)
    assert (list(named(request)), list(request.forgotten)) == ([1], [comes.partition])
    made.on_reply(request, answer(request), 0)
    later = made.next_request(7, 60_000)
    assert later is not None
    assert (list(named(later)), later.forgotten) == ([0], [])


def test_who_is_in_sync_waits_for_nothing() -> None:
    made = ReplicaFetcher(2, 1, 500, MIB, 2000, Budget(1))
    here = follower(0)
    here.state = replace(moving(here.state, 1, 2), isr=[1, 2, 3])
    made.add(here)
    request = ask(made)
    made.on_reply(request, answer(request, result(0, values=9)), 0)
    settle(made, here.partition)
    assert list(named(ask(made))) == [0]
