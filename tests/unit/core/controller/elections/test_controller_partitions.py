"""The controller and partitions: ISR changes (R14-R17), elections (R20-R22), and any life of a
whole cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilog.core.image import ClusterImage, PartitionState
from minilog.errors import BrokerUnavailable
from minilog.wire.journal.metadata_records import NO_LEADER, BrokerUnfenced, PartitionChanged
from minilog.wire.messages import AlterPartition, AlterPartitionReply, IsrMember, PositionQuery, ReplicaName
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import TICK_MS, ControllerBench, without_events

TIMEOUT_MS = 2000


def shape(state: PartitionState) -> tuple[int, list[int], list[int], list[int]]:
    return state.leader, state.isr, state.elr, state.last_known_elr


def decisions(bench: ControllerBench, request: AlterPartition) -> list[str | None]:
    reply = bench.ask(request)
    assert isinstance(reply, AlterPartitionReply), reply
    assert reply.sequence == request.sequence
    return [None if d.problem is None else d.problem.code for d in reply.partitions]


def shrink(bench: ControllerBench, isr: list[int], partition: int = 0) -> None:
    assert decisions(bench, bench.alter(bench.state(partition).leader, bench.proposal(isr, partition))) == [None]
    bench.beat()


# --- ISR changes ----------------------------------------------------------------------------------


def test_an_agreed_proposal_is_one_record_and_one_partition_epoch() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], min_isr=2)
    before = bench.state()
    shrink(bench, [1, 2])
    assert bench.state().isr == [1, 2]
    assert bench.state().partition_epoch == before.partition_epoch + 1
    assert bench.state().leader_epoch == before.leader_epoch
    shrink(bench, [1])
    assert shape(bench.state()) == (1, [1], [2], [])
    shrink(bench, [1, 3])
    assert shape(bench.state()) == (1, [1, 3], [], [])


def test_a_late_copy_of_a_request_is_never_applied() -> None:
    """R15: copy 1 is delayed; copy 2 is refused. The reason goes away; copy 1 arrives."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    shrink(bench, [1, 2])
    proposal = bench.proposal([1, 2, 3])
    copy_1, copy_2 = bench.alter(1, proposal), bench.alter(1, proposal)
    bench.kill(3)
    assert decisions(bench, copy_2) == ["INELIGIBLE_REPLICA"]
    bench.brokers[3].alive, bench.brokers[3].heartbeat_id = True, None
    bench.beat()
    assert not bench.core.image.brokers[3].fenced
    assert bench.state().partition_epoch == proposal.partition_epoch, "nothing else would stop it"
    assert bench.problem(copy_1) == "INVALID_UPDATE_VERSION"
    assert bench.problem(copy_2) == "INVALID_UPDATE_VERSION"
    assert bench.state().isr == [1, 2]


def test_a_request_to_an_earlier_controller_is_not_applied_by_the_next() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    request = bench.alter(1, bench.proposal([1, 2]))
    bench.restart()
    assert bench.problem(request) == "NOT_CONTROLLER"
    assert bench.state().isr == [1, 2, 3]


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_request_of_another_process_is_refused(difference: int) -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    request = bench.alter(1, bench.proposal([1, 2]), broker_epoch=bench.brokers[1].epoch + difference)
    assert bench.problem(request) == "STALE_BROKER_EPOCH"
    stranger = bench.alter(1, bench.proposal([1, 2]))
    stranger.broker_id = 9
    assert bench.problem(stranger) == "STALE_BROKER_EPOCH"


def test_a_request_of_a_process_of_another_cluster_is_refused_and_makes_no_request_of_ours_a_late_copy() -> None:
    """Its journal gave it the same broker epoch, and its controller's address is ours for a
    moment."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    mine = bench.alter(1, bench.proposal([1, 2]))
    foreign = bench.alter(1, bench.proposal([1]), incarnation="foreign", sequence=99)
    assert bench.problem(foreign) == "STALE_BROKER_EPOCH"
    assert decisions(bench, mine) == [None]


def test_a_new_process_begins_to_count_anew() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.brokers[1].alter_sequence = 50
    shrink(bench, [1, 2])
    bench.kill(1)
    bench.join(1)
    bench.kill(2)
    bench.run(TICK_MS)
    bench.answer_positions(1)
    assert decisions(bench, bench.alter(1)) == []


def test_a_controller_remembers_one_process_of_each_broker() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    for _ in range(5):
        bench.kill(3)
        bench.join(3)
        assert isinstance(bench.ask(bench.alter(3)), AlterPartitionReply)
    assert len(bench.core._sequences) == 1


def test_each_partition_is_decided_by_itself() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 1, 3], [1, 3, 2])
    stale = bench.proposal([1, 3], 2)
    shrink(bench, [1, 2], 2)
    request = bench.alter(1, bench.proposal([1, 3], 0), bench.proposal([2, 1], 1), stale)
    assert decisions(bench, request) == [None, "INVALID_REQUEST", "INVALID_UPDATE_VERSION"]
    assert [bench.state(p).isr for p in range(3)] == [[1, 3], [2, 1, 3], [1, 2]]


def test_a_replaced_disk_is_not_taken_for_the_one_that_caught_up() -> None:
    """KIP-903: "add 3" was sent for a process that is gone by the time it arrives."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    shrink(bench, [1, 2])
    delayed = bench.alter(1, bench.proposal([1, 2, 3]))
    bench.kill(3)
    bench.join(3, clean=False)
    assert delayed.partitions[0].partition_epoch == bench.state().partition_epoch
    assert decisions(bench, delayed) == ["INELIGIBLE_REPLICA"]
    assert bench.state().isr == [1, 2]


def test_the_answer_comes_with_what_was_journalled_before_it() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    request = bench.alter(1, bench.proposal([1, 2]))
    decision = bench.core.handle(999, request, bench.now_ms)
    assert [type(record) for record in without_events(decision.records)] == [PartitionChanged]
    assert bench.state().isr == [1, 2, 3], "deciding changes nothing"
    bench.carry_out(decision)
    assert bench.state().isr == [1, 2]


# --- elections ------------------------------------------------------------------------------------


def test_the_candidates_are_asked_in_the_epoch_the_winner_will_have() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 3, 2], [2, 1, 3])
    bench.kill(1)
    assert (bench.state().leader, bench.state().leader_epoch) == (NO_LEADER, 1)
    asked = bench.queries()
    topic_id = bench.state().topic_id
    assert sorted(asked) == [2, 3]
    assert asked[2].partitions == [PositionQuery(TOPIC, topic_id, p, 1) for p in (0, 1)], "one request for all of them"
    assert asked[2].controller_epoch == 1


def test_the_longest_log_leads_every_partition_it_is_the_longest_of() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 3, 2])
    bench.kill(1)
    bench.answer_positions(2, 0, 7)
    assert bench.state().leader == NO_LEADER
    steps = len(bench.steps)
    bench.answer_positions(3, 0, 9)
    assert [bench.state(p).leader for p in (0, 1)] == [3, 3]
    assert [bench.state(p).leader_epoch for p in (0, 1)] == [1, 1]
    assert len(bench.steps) == steps + 1, "all leaders in one journal step"


def test_equals_are_led_by_the_first_of_the_replicas() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 3, 2])
    bench.kill(1)
    bench.answer_positions(3, 0, 9)
    bench.answer_positions(2, 0, 9)
    assert [bench.state(p).leader for p in (0, 1)] == [2, 3]


def test_after_the_deadline_whoever_answered_leads() -> None:
    bench = ControllerBench(election_timeout_ms=300)
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.answer_positions(2, 0, 7)
    bench.run(300 - TICK_MS)
    assert bench.state().leader == NO_LEADER
    bench.run(TICK_MS)
    assert bench.state().leader == 2


def test_one_that_refuses_the_question_is_not_waited_for() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    for send in [s for s in bench.sends if s.node_id == 3]:
        bench.respond(send, BrokerUnavailable("broken off"))
    bench.answer_positions(2)
    assert bench.state().leader == 2


def test_an_election_goes_on_when_a_candidate_dies_in_it() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.answer_positions(3, 0, 99)
    bench.kill(3)
    assert bench.state().isr == [2]
    bench.answer_positions(2, 0, 7)
    bench.run(TICK_MS)
    assert shape(bench.state()) == (2, [2], [], [])


def test_an_election_is_held_again_by_a_restarted_controller() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.restart()
    bench.tick()
    assert bench.queries() == {}, "R38: whoever was alive is heard first"
    bench.run(2 * TICK_MS)
    assert sorted(bench.queries()) == [2, 3]
    assert {q.controller_epoch for q in bench.queries().values()} == {2}
    assert {q.partitions[0].leader_epoch for q in bench.queries().values()} == {1}
    bench.answer_positions(2, 0, 7)
    bench.answer_positions(3, 0, 8)
    assert bench.state().leader == 3


# --- the last ones standing (R20, R21) ------------------------------------------------------------


def last_standing() -> ControllerBench:
    """min ISR 2: 3 and then 2 are lost, then 1, the leader."""
    bench = ControllerBench()
    bench.create([1, 2, 3], min_isr=2)
    for broker_id in (3, 2, 1):
        bench.kill(broker_id)
    assert shape(bench.state()) == (NO_LEADER, [], [1, 2], [])
    return bench


def test_nobody_leads_while_nobody_complete_is_alive() -> None:
    bench = last_standing()
    bench.join(3)
    bench.run(1000)
    assert bench.queries() == {}
    assert bench.state().leader == NO_LEADER


def test_one_of_the_elr_that_comes_back_leads() -> None:
    bench = last_standing()
    bench.join(2)
    bench.answer_positions(2, 0, 7)
    assert shape(bench.state()) == (2, [2], [1], [])


def test_one_that_comes_back_unclean_is_not_taken_for_complete() -> None:
    bench = last_standing()
    bench.join(2, clean=False)
    assert shape(bench.state()) == (NO_LEADER, [], [1], [2])
    bench.run(1000)
    assert bench.state().leader == NO_LEADER
    step = next(s for s in reversed(bench.steps) if isinstance(s[0], BrokerUnfenced))
    assert [type(record) for record in step] == [BrokerUnfenced, PartitionChanged], "before it can be elected"


def test_when_all_came_back_unclean_the_longest_of_all_leads() -> None:
    bench = last_standing()
    bench.join(2, clean=False)
    bench.join(1, clean=False)
    assert shape(bench.state()) == (NO_LEADER, [], [], [1, 2])
    assert sorted(bench.queries()) == [1, 2]
    bench.answer_positions(2, 0, 9)
    bench.run(TICK_MS)
    assert bench.state().leader == NO_LEADER, "the other may be the only one that holds it all"
    bench.answer_positions(1, 0, 7)
    assert bench.state().leader == 2
    assert shape(bench.state())[1:] == ([2], [], [1])


def test_an_unclean_return_of_somebody_outside_the_elr_changes_no_partition() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(3)
    before = bench.state()
    bench.join(3, clean=False)
    assert bench.state() == before


@pytest.mark.parametrize("clean", [True, False])
def test_the_next_process_of_a_candidate_is_asked_anew(clean: bool) -> None:
    """R9: all three are in the ELR; 3 told of a long log, and its next process has another disk."""
    bench = ControllerBench()
    bench.create([1, 2, 3], min_isr=3)
    for broker_id in (3, 2, 1):
        bench.kill(broker_id)
    bench.join(2)
    bench.join(3)
    assert (shape(bench.state()), sorted(bench.queries())) == ((NO_LEADER, [], [1, 2, 3], []), [2, 3])
    (late,) = (send for send in bench.sends if send.node_id == 3)
    bench.answer_positions(3, 0, 99)
    bench.kill(3)
    bench.join(3, clean=clean)
    assert bench.state().leader == NO_LEADER
    (again,) = (send for send in bench.sends if send.node_id == 3) if clean else (late,)
    assert (again.request == late.request) is not clean
    bench.answer_positions(2, 0, 10)
    assert bench.state().leader == (NO_LEADER if clean else 2), "an unclean one is no candidate any more"
    bench.answer_positions(3, 0, 7)
    assert bench.state().leader == 2


# --- damaged replicas (R20) -----------------------------------------------------------------------


def unfit(bench: ControllerBench, *partitions: int) -> list[ReplicaName]:
    return [ReplicaName(TOPIC, bench.state(p).topic_id, p) for p in partitions]


def tell(bench: ControllerBench, broker_id: int, *partitions: int) -> None:
    bench.heartbeat(bench.brokers[broker_id], unfit=unfit(bench, *partitions))


def test_a_damaged_leader_resigns_in_one_step_and_the_others_are_asked() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 3, 2], min_isr=2)
    steps = len(bench.steps)
    tell(bench, 1, 0)
    assert len(bench.steps) == steps + 1
    assert shape(bench.state(0)) == (NO_LEADER, [2, 3], [], [])
    assert (bench.state(0).leader_epoch, bench.state(1).leader) == (1, 1), "its other partition is whole"
    assert sorted(bench.queries()) == [2, 3]
    bench.answer_positions(2, 0, 7)
    bench.answer_positions(3, 0, 9)
    assert bench.state(0).leader == 3


def test_a_damaged_leader_hands_over_at_once_where_one_other_is_in_sync() -> None:
    bench = ControllerBench()
    bench.create([1, 2])
    tell(bench, 1, 0)
    assert (shape(bench.state()), bench.state().leader_epoch) == ((2, [2], [], []), 1)


def test_a_damaged_leader_alone_serves_on_until_another_is_in_sync() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    shrink(bench, [1])
    tell(bench, 1, 0)
    assert shape(bench.state()) == (1, [1], [], [])
    shrink(bench, [1, 2])
    assert shape(bench.state()) == (1, [1, 2], [], []), "it may let others in"
    tell(bench, 1, 0)
    assert shape(bench.state()) == (2, [2], [], [])


def test_two_that_are_damaged_hand_nothing_over_to_each_other() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 1, 3])
    tell(bench, 2, 0)
    assert shape(bench.state(0)) == (1, [1, 3], [], [])
    shrink(bench, [1])
    tell(bench, 1, 0)
    assert bench.state(0).leader == 1
    bench.kill(3)
    tell(bench, 1, 0)
    assert shape(bench.state(0)) == (1, [1], [], []), "2 is alive, but no better"


def test_a_damaged_follower_leaves_and_is_not_let_in_again_before_it_is_whole() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], min_isr=2)
    tell(bench, 3, 0)
    assert shape(bench.state()) == (1, [1, 2], [], [])
    offset = bench.core.metadata_offset
    tell(bench, 3, 0)
    assert bench.core.metadata_offset == offset, "said again with every heartbeat"
    assert decisions(bench, bench.alter(1, bench.proposal([1, 2, 3]))) == ["INELIGIBLE_REPLICA"]
    tell(bench, 3)
    shrink(bench, [1, 2, 3])
    assert bench.state().isr == [1, 2, 3]


def test_a_damaged_replica_is_not_elected_while_it_is_said_to_be() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    tell(bench, 2, 0)
    bench.kill(1)
    assert shape(bench.state()) == (3, [3], [], [])


@pytest.mark.parametrize("what", [("another", 0), ("", 0), (None, 9)])
def test_what_is_said_of_another_topic_of_that_name_or_of_no_partition_changes_nothing(
    what: tuple[str | None, int],
) -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    topic_id = bench.state().topic_id if what[0] is None else what[0]
    offset = bench.core.metadata_offset
    bench.heartbeat(bench.brokers[1], unfit=[ReplicaName(TOPIC, topic_id, what[1]), ReplicaName("absent", "id", 0)])
    assert bench.core.metadata_offset == offset
    assert bench.state().leader == 1


def test_a_new_process_is_whole_until_it_says_otherwise() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    tell(bench, 3, 0)
    bench.kill(3)
    bench.join(3)
    shrink(bench, [1, 2, 3])
    assert bench.state().isr == [1, 2, 3]


# --- any life of a cluster ------------------------------------------------------------------------


@dataclass
class Life:
    """Three brokers, three partitions. The bench checks image, copies and single answers after
    every commit."""

    bench: ControllerBench = field(default_factory=ControllerBench)
    pending: list[AlterPartition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bench.create([1, 2, 3], [2, 3, 1], [3, 1, 2], min_isr=2)

    def kill(self, broker_id: int) -> None:
        if self.bench.brokers[broker_id].alive:
            self.bench.kill(broker_id)

    def silence(self, broker_id: int) -> None:
        self.bench.silence(broker_id)

    def start(self, broker_id: int) -> None:
        if self._may_start(broker_id):
            self.bench.join(broker_id)

    def start_unclean(self, broker_id: int) -> None:
        if self._may_start(broker_id):
            self.bench.join(broker_id, clean=False)

    def _may_start(self, broker_id: int) -> bool:
        """A new controller registers nobody before it has heard who was alive (R38)."""
        bench = self.bench
        return bench.core.journal_check.is_done and bench.core.image.brokers[broker_id].fenced

    def wake(self, broker_id: int) -> None:
        broker = self.bench.brokers[broker_id]
        broker.alive = True
        self.bench.beat()

    def leave(self, broker_id: int) -> None:
        self.bench.brokers[broker_id].leaving = True
        self.bench.run(400)

    def answer(self, broker_id: int) -> None:
        self.bench.answer_positions(broker_id, 0, broker_id)

    def fall_silent(self, broker_id: int) -> None:
        self.bench.run(TIMEOUT_MS)

    def wait(self, broker_id: int) -> None:
        self.bench.run(300)

    def propose(self, broker_id: int) -> None:
        for partition in range(3):
            state = self.bench.state(partition)
            if state.leader != NO_LEADER:
                isr = sorted({state.leader, broker_id, *state.isr} - ({broker_id} if broker_id in state.isr else set()))
                isr = [*isr, state.leader] if state.leader not in isr else isr
                self.pending.append(self.bench.alter(state.leader, self.bench.proposal(isr, partition)))

    def deliver(self, broker_id: int) -> None:
        if self.pending:
            self.bench.handle(self.pending[broker_id % len(self.pending)])

    def restart(self, broker_id: int) -> None:
        self.bench.restart()

    def pause(self, broker_id: int) -> None:
        """Fences nobody that was heard since the pause before. Who lives is heard after it."""
        bench = self.bench
        bench.tick()
        sessions = bench.core.sessions.by_broker.values()
        forgiven = {s.broker_id for s in sessions if s.forgiven_ms >= TIMEOUT_MS}
        assert not any(bench.brokers[b].alive and not bench.brokers[b].may_exit for b in forgiven)
        before = self.unfenced()
        bench.now_ms += 30_000
        bench.tick()
        assert before - self.unfenced() == before & forgiven
        self.ask_again()
        bench.beat()

    def ask_again(self) -> None:
        """A controller that has not heard everybody answers nobody (R38), and no broker waits for
        its answer for ever."""
        for broker in self.bench.brokers.values():
            if broker.alive and broker.heartbeat_id is not None and broker.heartbeat_id not in self.bench.replies:
                self.bench.disconnect(broker.heartbeat_id)
                broker.heartbeat_id = None

    def unfenced(self) -> set[int]:
        return {b.broker_id for b in self.bench.core.image.brokers.values() if not b.fenced}

    def check(self, before: list[PartitionState]) -> None:
        for partition, old in enumerate(before):
            new = self.bench.state(partition)
            assert new.leader_epoch >= old.leader_epoch
            if new.leader not in (old.leader, NO_LEADER):
                assert new.leader_epoch > old.leader_epoch or old.leader == NO_LEADER
            if new.leader == NO_LEADER and old.leader != NO_LEADER:
                assert new.leader_epoch > old.leader_epoch
        replayed = ClusterImage()
        for index, record in enumerate(self.bench.journal, 1):
            replayed.apply(index, record)
        assert replayed.snapshot() == self.bench.core.snapshot()

    def leaders_by_epoch(self) -> dict[tuple[int, int], set[int]]:
        found: dict[tuple[int, int], set[int]] = {}
        for record in self.bench.journal:
            if isinstance(record, PartitionChanged) and record.leader != NO_LEADER:
                found.setdefault((record.partition, record.leader_epoch), set()).add(record.leader)
        return found


MOVES = [
    "kill", "kill", "silence", "start", "start", "start_unclean", "wake", "leave", "answer", "answer", "answer",
    "fall_silent", "wait", "propose", "deliver", "deliver", "restart", "pause",
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(1, 3)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_any_life_keeps_the_metadata_sound(steps: list[tuple[str, int]]) -> None:
    life = Life()
    for name, broker_id in steps:
        before = [life.bench.state(p) for p in range(3)]
        getattr(life, name)(broker_id)
        life.check(before)
    assert all(len(leaders) == 1 for leaders in life.leaders_by_epoch().values()), "OneLeaderPerEpoch"
    members = [IsrMember(r, life.bench.brokers[r].epoch) for r in life.bench.state().isr]
    for member in members:
        assert life.bench.core.image.brokers[member.broker_id].epoch == member.broker_epoch


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(1, 3)), max_size=12))
@example([("silence", 2), ("restart", 1), ("kill", 1), ("pause", 1), ("pause", 1)])
@settings(max_examples=20, deadline=None)
def test_once_everybody_is_back_everything_has_a_leader(steps: list[tuple[str, int]]) -> None:
    life = Life()
    for name, broker_id in steps:
        getattr(life, name)(broker_id)
    bench = life.bench
    for broker in bench.brokers.values():
        broker.alive = False
    bench.run(TIMEOUT_MS + 500)
    for broker_id in (1, 2, 3):
        bench.join(broker_id)
    for _ in range(3):
        for broker_id in (1, 2, 3):
            bench.answer_positions(broker_id, 0, broker_id)
        bench.run(100)
    assert all(bench.state(p).leader != NO_LEADER for p in range(3))
