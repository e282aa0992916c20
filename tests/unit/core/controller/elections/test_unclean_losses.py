"""What an unclean election costs, as the person who decides is told, and as the journal says
(R37)."""

from __future__ import annotations

from minilog.core.controller.elections.unclean_election import ASKED_MAX
from minilog.wire.journal.metadata_records import UncleanElection
from minilog.wire.messages import ElectLeader, ElectLeaderReply, Position, Positions, PositionsReply, Problem
from tests.unit.core.controller.controller_bench import ControllerBench

PARTED = {2: (4, 12, 8, [(4, 12)]), 3: (5, 11, 9, [(5, 11), (4, 8)])}
"""Last epoch, end, what is known to be committed, and where epochs end. 2 reaches further, and
parts from 3 before what 3 knows to be committed."""


def waiting() -> ControllerBench:
    """The last complete copy is on 1, which is gone."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    for broker_id in (2, 3, 1):
        bench.kill(broker_id)
        bench.run(3000)
    bench.join(2)
    bench.join(3)
    return bench


def elect(bench: ControllerBench, **how: object) -> ElectLeaderReply:
    request_id = bench.handle(ElectLeader("orders", 0, **how))  # type: ignore[arg-type]
    for send in [s for s in bench.sends if isinstance(s.request, Positions)]:
        request = send.request
        assert isinstance(request, Positions)
        last_epoch, end, committed, ends = PARTED[send.node_id]
        [query] = request.partitions
        place = query.topic, query.topic_id, query.partition, query.leader_epoch
        told = Position(*place, last_epoch, end, high_watermark=committed, epoch_ends=ends)
        reply = PositionsReply(request.broker_id, request.broker_epoch, request.sequence, [told])
        bench.respond(send, reply)
    answer = bench.replies[request_id]
    assert isinstance(answer, ElectLeaderReply)
    return answer


def test_each_candidate_is_shown_with_what_it_does_not_hold() -> None:
    shown = elect(waiting(), dry_run=True)
    assert shown.missing == 0, "one of them holds all that is known to be committed"
    assert {one.broker_id: one.missing for one in shown.candidates} == {1: 0, 2: 1, 3: 0}
    assert [one.broker_id for one in shown.candidates if one.is_next] == [3]


def test_what_the_one_that_is_named_does_not_hold_is_counted_although_it_reaches_further() -> None:
    bench = waiting()
    assert elect(bench, unclean=True, leader=2).missing == 1
    [election] = [record for record in bench.journal if isinstance(record, UncleanElection)]
    assert (election.leader, election.missing) == (2, 1)


def test_those_who_ask_who_could_lead_are_as_many_as_a_turn_bears() -> None:
    bench = waiting()
    asked = [bench.handle(ElectLeader("orders", 0, dry_run=True)) for _ in range(ASKED_MAX + 1)]
    refused = bench.replies[asked[-1]]
    assert isinstance(refused, Problem)
    assert refused.code == "OVERLOADED"
    assert not set(asked[:-1]) & bench.replies.keys()
    bench.run(1000)
    assert set(asked) <= bench.replies.keys(), "a look ends, whoever answers"
    bench.handle(ElectLeader("orders", 0, dry_run=True))
