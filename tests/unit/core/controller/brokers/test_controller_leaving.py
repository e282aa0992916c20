"""How a broker leaves in order: everything is moved away before it may exit (R28)."""

from __future__ import annotations

import pytest

from minilog.wire.journal.metadata_records import NO_LEADER, BrokerShuttingDown, BrokerUnfenced, PartitionChanged
from minilog.wire.messages import CreateTopic, HeartbeatReply
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import TICK_MS, ControllerBench

TIMEOUT_MS = 2000


def fenced(bench: ControllerBench) -> set[int]:
    return {b.broker_id for b in bench.core.image.brokers.values() if b.fenced}


def leave(bench: ControllerBench, broker_id: int, **more: object) -> None:
    """Its next heartbeat says so. Nobody else does anything yet."""
    bench.brokers[broker_id].leaving = True
    bench.heartbeat(bench.brokers[broker_id], **more)


def test_leaving_moves_everything_away_in_one_step() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 1, 3])
    leave(bench, 1)
    step = bench.steps[-1]
    assert isinstance(step[0], BrokerShuttingDown)
    assert [(s.leader, s.leader_epoch, s.isr) for s in step[1:] if isinstance(s, PartitionChanged)] == [
        (2, 1, [2, 3]),
        (2, 0, [2, 3]),
    ]
    assert bench.core.image.brokers[1].state == "shutting_down"


def test_it_may_exit_only_when_the_others_have_applied_that() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    leaving, second, third = (bench.brokers[b] for b in (1, 2, 3))
    leave(bench, 1)

    def told() -> bool:
        bench.hear(leaving)
        bench.heartbeat(leaving)
        return leaving.may_exit

    assert not told()
    bench.hear(second)
    bench.heartbeat(second)
    assert not told()
    bench.hear(third)
    bench.heartbeat(third)
    assert leaving.heartbeat_id in bench.replies, "at once"
    bench.hear(leaving)
    assert leaving.may_exit


def test_fenced_brokers_are_not_waited_for() -> None:
    bench = ControllerBench()
    bench.silence(3)
    bench.run(TIMEOUT_MS + TICK_MS)
    bench.brokers[1].leaving = True
    bench.run(400)
    assert bench.brokers[1].may_exit


def test_the_last_broker_may_leave_too() -> None:
    bench = ControllerBench(brokers=(1,))
    bench.create([1])
    bench.brokers[1].leaving = True
    bench.run(400)
    assert bench.brokers[1].may_exit
    assert (bench.state().leader, bench.state().isr, bench.state().elr) == (NO_LEADER, [], [1])


def test_one_that_could_not_drain_is_followed_by_the_longest_log() -> None:
    """Not every ISR member holds what it acknowledged to fewer copies, so the candidates are asked
    (R9)."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.brokers[1].drained = False
    leave(bench, 1)
    assert bench.state().leader == NO_LEADER
    bench.answer_positions(2, 0, 9)
    bench.answer_positions(3, 0, 10)
    bench.run(400)
    assert (bench.state().leader, bench.state().isr) == (3, [2, 3])
    assert bench.brokers[1].may_exit


def changed_at(bench: ControllerBench, partition: int) -> int:
    """Journal index of the partition's last record."""
    return max(
        index
        for index, record in enumerate(bench.journal, 1)
        if isinstance(record, PartitionChanged) and (record.topic, record.partition) == (TOPIC, partition)
    )


def two_partitions() -> ControllerBench:
    """Both led by 1. The ISR of the first was changed after the second was."""
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 3, 2])
    bench.ask(bench.alter(1, bench.proposal([1, 2], 0)))
    bench.beat()
    bench.ask(bench.alter(1, bench.proposal([1, 2, 3], 0)))
    return bench


@pytest.mark.parametrize("behind", [1, 2, 3])
def test_drained_counts_only_when_every_leadership_and_its_isr_are_known(behind: int) -> None:
    """The broker hears first what it did not know. Nothing happens to it meanwhile. Then it says
    again that it is drained."""
    bench = two_partitions()
    end = len(bench.journal)
    changed = [index for index, record in enumerate(bench.journal, 1) if isinstance(record, PartitionChanged)]
    bench.brokers[1].leaving = True
    request_id = bench.heartbeat(bench.brokers[1], metadata_offset=changed[-behind] - 1)
    assert len(bench.journal) == end
    reply = bench.replies[request_id]
    assert isinstance(reply, HeartbeatReply)
    assert (reply.metadata_offset, reply.may_exit) == (end, False)
    bench.heartbeat(bench.brokers[1], metadata_offset=end)
    assert [bench.state(p).leader for p in (0, 1)] == [2, 3]
    assert not bench.queries(), "nobody has to be asked"


def test_who_could_not_drain_is_not_kept() -> None:
    bench = two_partitions()
    leave(bench, 1, metadata_offset=changed_at(bench, 1) - 1, drained=False)
    assert [bench.state(p).leader for p in (0, 1)] == [NO_LEADER, NO_LEADER]
    assert sorted(bench.queries()) == [2, 3]


def test_what_changed_elsewhere_is_no_reason_to_ask() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.handle(CreateTopic("another", 1, 3))
    assert changed_at(bench, 0) < len(bench.journal)
    leave(bench, 1, metadata_offset=changed_at(bench, 0))
    assert bench.state().leader == 2


@pytest.mark.parametrize("behind", [0, 1])
def test_after_a_restart_from_a_snapshot_what_lies_before_it_is_known_from_the_snapshot_on(behind: int) -> None:
    """When a partition last changed is not in a snapshot: a heartbeat that covers the snapshot
    covers that too."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.handle(CreateTopic("another", 1, 3))
    snapshot_at = len(bench.journal)
    assert changed_at(bench, 0) < snapshot_at
    bench.restart(snapshot_at=snapshot_at)
    leave(bench, 1, metadata_offset=snapshot_at - behind)
    assert bench.state().leader == (1 if behind else 2)


def test_one_that_leaves_is_not_asked_to_leave_again_by_each_heartbeat() -> None:
    bench = ControllerBench()
    leave(bench, 1)
    bench.silence(3)
    bench.run(1000)
    assert not bench.brokers[1].may_exit
    assert sum(isinstance(record, BrokerShuttingDown) for record in bench.journal) == 1


def test_leaving_goes_on_after_a_restart_of_the_controller() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    leave(bench, 1)
    bench.restart()
    bench.run(400)
    assert bench.brokers[1].may_exit
    assert bench.state().leader == 2


def test_one_that_has_left_comes_back_as_a_new_process() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.brokers[1].leaving = True
    bench.run(400)
    bench.kill(1)
    bench.run(400)
    assert fenced(bench) == {1}
    bench.join(1)
    assert bench.core.image.brokers[1].state == "running"
    assert sum(isinstance(r, BrokerUnfenced) and r.broker_id == 1 for r in bench.journal) == 2
