"""What a coordinator tells of its groups: who was put out and why, and what moved here from whom."""

from __future__ import annotations

from typing import Any

from minilog.core.broker.coordinator.group_events import NAMED_MAX, WHILE_MS
from minilog.core.broker.coordinator.group_shard import GroupShard
from minilog.wire.group_messages import GROUPS_TOPIC, GroupHeartbeat, GroupHeartbeatReply, LeaveGroup
from minilog.wire.journal.events import INFO, WARNING, Event, EventKind
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.broker.coordinator.test_coordinator import JOIN, done, flush, groups_state, started
from tests.unit.core.builders import TOPIC, partition_state


def told(bench: BrokerBench, kind: str) -> list[Event]:
    return [event for event in bench.core.take_events() if event.kind == kind]


def pass_by(bench: BrokerBench, for_ms: int) -> None:
    """Time in which the controller is heard, so that this broker is sure of its leaderships."""
    for _ in range(for_ms // 100):
        bench.tick(100)
        if bench.to_controller is not None:
            bench.metadata()
        flush(bench)


def test_a_member_that_is_silent_is_told_of_once_with_its_group_and_for_how_long() -> None:
    bench = started()
    member = done(bench, GroupHeartbeat("g", "m", 0, [TOPIC], client_id="worker"))
    assert isinstance(member, GroupHeartbeatReply)
    held = sum(len(found.partitions) for found in member.assignment)
    pass_by(bench, JOIN.session_timeout_ms + 1000)
    (event,) = told(bench, EventKind.MEMBER_EXPELLED)
    assert event.sentence.startswith("member m (worker) of group g was put out: it was not heard for ")
    silent_ms = event.facts["silent_ms"]
    assert isinstance(silent_ms, int)
    assert JOIN.session_timeout_ms <= silent_ms <= JOIN.session_timeout_ms + 500
    assert (event.facts["group"], event.facts["partitions"], event.level) == ("g", held, WARNING)


def test_a_member_that_keeps_what_it_is_to_give_back_is_told_of_when_it_is_heard_no_more() -> None:
    bench = started()
    greedy = GroupHeartbeat("g", "a", 0, [TOPIC], poll_timeout_ms=1000)
    bench.tick(200)
    bench.metadata(partition_state(replicas=[2], leader=2, partition=1, leader_epoch=0, partition_epoch=0))
    first = done(bench, greedy)
    assert isinstance(first, GroupHeartbeatReply)
    done(bench, GroupHeartbeat("g", "b", 0, [TOPIC]))
    again: Any = first
    for _ in range(40):
        pass_by(bench, 100)
        beat = GroupHeartbeat("g", "a", again.member_epoch, [TOPIC], owned=first.assignment, poll_timeout_ms=1000)
        again = bench.replies.get(bench.send(beat), again)
        flush(bench)
        again = again if isinstance(again, GroupHeartbeatReply) else first
    events = told(bench, EventKind.MEMBER_EXPELLED)
    assert [event.facts["member_id"] for event in events][:1] == ["a"]
    assert "is not heard any more before it joins anew: it has kept what it was told to give back" in events[0].sentence
    assert len([event for event in events if event.facts["member_id"] == "a"]) == 1


def test_who_leaves_in_order_is_no_event() -> None:
    bench = started()
    done(bench, JOIN)
    done(bench, LeaveGroup("g", "m"))
    pass_by(bench, 1000)
    assert told(bench, EventKind.MEMBER_EXPELLED) == []


def test_of_many_members_a_few_are_named_and_the_others_counted() -> None:
    bench = started()
    groups = NAMED_MAX + 25
    for number in range(groups):
        done(bench, GroupHeartbeat(f"g{number}", "m", 0, [TOPIC]))
    pass_by(bench, JOIN.session_timeout_ms + 1000)
    assert len(told(bench, EventKind.MEMBER_EXPELLED)) == NAMED_MAX
    pass_by(bench, WHILE_MS + 100)
    (more,) = told(bench, EventKind.MEMBER_EXPELLED)
    assert (more.count, more.sentence) == (25, "25 more members were put out of groups that broker 1 coordinates")


def test_a_partition_that_moves_here_is_told_of_with_whom_it_comes_from_and_its_epoch() -> None:
    bench = started(replicas=[2, 1], leader=2)
    bench.tick(200)
    assert told(bench, EventKind.COORDINATOR_MOVED) == []
    bench.metadata(groups_state(replicas=[1, 2], leader=1, leader_epoch=6, partition_epoch=11))
    bench.tick(20)
    (event,) = told(bench, EventKind.COORDINATOR_MOVED)
    assert event.sentence.startswith(
        "broker 1 coordinates the 0 groups of __groups-0 in leader epoch 6, in place of broker 2"
    )
    assert (event.facts["from"], event.topic, event.partition, event.level) == (2, GROUPS_TOPIC, 0, INFO)


def test_partitions_that_come_from_one_broker_are_one_event() -> None:
    bench = started(replicas=[2, 1], leader=2)
    bench.tick(200)
    more = [groups_state(replicas=[2, 1], leader=2, partition=n, leader_epoch=0, partition_epoch=0) for n in (1, 2)]
    bench.metadata(*more)
    bench.tick(200)
    moved = [(0, 6, 11), (1, 1, 1), (2, 1, 1)]
    bench.metadata(
        *(groups_state(replicas=[1, 2], partition=n, leader_epoch=e, partition_epoch=p) for n, e, p in moved)
    )
    bench.tick(20)
    (event,) = told(bench, EventKind.COORDINATOR_MOVED)
    assert (event.count, event.partition, event.facts["from"]) == (3, None, 2)


def test_whom_this_broker_has_not_seen_lead_it_does_not_name() -> None:
    bench = started()
    bench.tick(20)
    (event,) = told(bench, EventKind.COORDINATOR_MOVED)
    assert "in place of whom this broker has not seen" in event.sentence
    assert "from" not in event.facts
    assert event.partition == 0


def test_the_first_leadership_there_ever_was_is_no_move() -> None:
    bench = started(leader_epoch=0)
    bench.tick(20)
    assert told(bench, EventKind.COORDINATOR_MOVED) == []


def test_groups_that_cannot_be_read_are_told_of(monkeypatch: Any) -> None:
    def damaged(self: GroupShard, max_bytes: int) -> bool:
        self.damage = "a batch does not match its checksum"
        return False

    monkeypatch.setattr(GroupShard, "load", damaged)
    bench = started()
    bench.tick(20)
    (event,) = told(bench, EventKind.GROUPS_UNREADABLE)
    assert event.sentence == "broker 1 cannot read the groups in __groups-0: a batch does not match its checksum"
