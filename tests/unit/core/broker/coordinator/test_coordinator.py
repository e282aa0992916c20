"""Coordinating on one broker: when groups may be answered for, what an answer waits for, and how it
ends."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.config import Limits
from minilog.core.broker.coordinator import coordinator
from minilog.core.effects import CONTROLLER_ID
from minilog.core.replication.leader import LeaderState
from minilog.errors import CoordinatorNotAvailable, DiskFull, MinilogError, NotEnoughReplicas, TimedOut
from minilog.wire.codec.murmur2 import partition_of
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.journal.metadata_records import NO_LEADER, PartitionChanged, TopicCreated
from minilog.wire.messages import (
    Message,
    Ok,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ReplicaFetch,
    ReplicaFetchPartition,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state, produced

ORDERS = partition_state(replicas=[2], leader=2)
GROUPS = TopicPartition(GROUPS_TOPIC, 0)
JOIN = GroupHeartbeat("g", "m", 0, [TOPIC])


def groups_state(**more: Any) -> PartitionChanged:
    return replace(partition_state(**more), topic=GROUPS_TOPIC, topic_id="id-of-groups")


def started(max_bytes: int = 2**20, session_timeout_ms: int = 2000, **more: Any) -> BrokerBench:
    """Broker 1, which leads the one partition of the groups' topic: alone, unless said
    otherwise."""
    bench = BrokerBench(ORDERS, session_timeout_ms=session_timeout_ms)
    bench.tick()
    bench.register()
    config = {"min.insync.replicas": "1", "cleanup.policy": "compact", "max.message.bytes": str(max_bytes)}
    bench.metadata(TopicCreated(GROUPS_TOPIC, "id-of-groups", config), groups_state(**{"replicas": [1], **more}))
    return bench


def flush(bench: BrokerBench) -> None:
    bench.core.replicas[GROUPS].log.sync()  # type: ignore[attr-defined]
    bench.perform(bench.core.on_flushed(GROUPS, bench.now_ms))


def code(reply: Message) -> str:
    assert isinstance(reply, Problem), reply
    return reply.code


def done(bench: BrokerBench, request: Message) -> Message:
    request_id = bench.send(request)
    flush(bench)
    return bench.replies[request_id]


def test_the_first_request_asks_the_controller_for_the_topic_and_not_every_one_does() -> None:
    bench = BrokerBench.started(ORDERS)
    assert code(bench.replies[bench.send(JOIN)]) == "COORDINATOR_NOT_AVAILABLE"
    bench.send(JOIN)
    assert [c.topic for c in bench.creates] == [GROUPS_TOPIC]
    bench.now_ms += coordinator.CREATE_AGAIN_MS
    bench.send(JOIN)
    assert len(bench.creates) == 2


def test_what_the_controller_says_against_making_the_topic_is_told_to_whoever_asks_next() -> None:
    bench = BrokerBench.started(ORDERS)
    assert "so far" not in told(bench)
    waits = NotEnoughReplicas("__groups is made when 3 brokers have registered (groups_brokers_min), so far 1 have")
    bench.core.on_response(CONTROLLER_ID, bench.creates[0], Problem.of(waits), bench.now_ms)
    assert "groups_brokers_min" in told(bench)
    bench.core.on_response(CONTROLLER_ID, bench.creates[0], Ok(), bench.now_ms)
    assert "groups_brokers_min" not in told(bench)


def told(bench: BrokerBench) -> str:
    reply = bench.replies[bench.send(JOIN)]
    assert isinstance(reply, Problem)
    return reply.detail


def beaten(reply: Message) -> GroupHeartbeat:
    """The heartbeat that follows the answer."""
    assert isinstance(reply, GroupHeartbeatReply), reply
    return GroupHeartbeat("g", "m", reply.member_epoch, [TOPIC], owned=reply.assignment)


@pytest.mark.parametrize("error", [NotEnoughReplicas("too few"), DiskFull("no room")])
def test_who_asks_all_the_time_while_nothing_can_be_written_is_a_member_afterwards(
    error: MinilogError, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = started()
    beat = beaten(done(bench, JOIN))
    role = bench.core.replicas[GROUPS].role

    def refuse(_: int) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(role, "check_acks", refuse)
        grown = partition_state(replicas=[2], leader=2, partition=1, leader_epoch=0, partition_epoch=0)
        bench.metadata(grown)  # so every heartbeat has something to write
        for _ in range(60):
            bench.tick(250)
            assert code(bench.replies[bench.send(beat)]) == error.code
    for _ in range(5):
        bench.tick(100)
    reply = done(bench, beat)
    assert isinstance(reply, GroupHeartbeatReply), "it was heard 500 ms before"
    assert len(reply.assignment[0].partitions) == 2


def test_who_asks_all_the_time_while_the_coordinator_is_not_sure_is_a_member_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = started()
    beat = beaten(done(bench, JOIN))
    with monkeypatch.context() as patched:
        patched.setattr(bench.core.coordinator.successors, "are_silent", lambda *_: False)
        for _ in range(60):
            bench.tick(250)
            with pytest.raises(CoordinatorNotAvailable):
                bench.core.coordinator.on_request(1, beat, bench.now_ms)
    bench.tick(250)
    flush(bench)
    assert isinstance(done(bench, beat), GroupHeartbeatReply)


def test_who_asks_all_the_time_while_too_many_wait_is_a_member_afterwards() -> None:
    """Others' requests are no silence of this one."""
    bench = started()
    beat = beaten(done(bench, JOIN))
    bench.core.state.settings = replace(bench.settings, limits=Limits(parked_requests_max=1), group_wait_ms=60_000)
    waiting = bench.send(GroupHeartbeat("other", "m", 0, [TOPIC]))
    for _ in range(60):
        bench.tick(250)
        assert code(bench.replies[bench.send(beat)]) == "OVERLOADED"
    flush(bench)
    assert waiting in bench.replies
    assert isinstance(done(bench, beat), GroupHeartbeatReply)


@pytest.mark.parametrize("member_epoch", [-1, 7])
def test_who_is_refused_for_another_reason_is_not_heard(member_epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late copy of an older life, or of none, keeps no member alive."""
    bench = started()
    beat = replace(beaten(done(bench, JOIN)), member_epoch=member_epoch)
    with monkeypatch.context() as patched:
        patched.setattr(bench.core.coordinator.successors, "are_silent", lambda *_: False)
        for _ in range(60):
            bench.tick(250)
            with pytest.raises(CoordinatorNotAvailable):
                bench.core.coordinator.on_request(1, beat, bench.now_ms)
    bench.tick(250)
    flush(bench)
    described = done(bench, DescribeGroup("g"))
    assert isinstance(described, DescribeGroupReply)
    assert described.group.members == 0


def test_an_answer_waits_until_what_it_says_is_durable_and_so_does_whatever_follows() -> None:
    bench = started()
    joined, read, left = bench.send(JOIN), bench.send(CommittedOffsets("g")), bench.send(LeaveGroup("g", "x"))
    wrong = bench.send(GroupHeartbeat("g", "nobody", 5, [TOPIC]))
    assert not bench.replies
    flush(bench)
    assert isinstance(bench.replies[joined], GroupHeartbeatReply)
    assert bench.replies[read] == CommittedOffsetsReply([])
    assert bench.replies[left] == Ok()
    assert code(bench.replies[wrong]) == "UNKNOWN_MEMBER"


def test_who_is_not_the_coordinator_says_who_is() -> None:
    bench = started(replicas=[2, 1], leader=2)
    reply = bench.replies[bench.send(JOIN)]
    assert code(reply) == "NOT_COORDINATOR"
    assert isinstance(reply, Problem)
    assert reply.info == {"coordinator": 2, "coordinator_url": "http://broker-2:8082"}


def test_without_a_leader_there_is_no_coordinator() -> None:
    bench = started(replicas=[2, 1], leader=NO_LEADER)
    assert code(bench.replies[bench.send(JOIN)]) == "COORDINATOR_NOT_AVAILABLE"


def test_leadership_that_ends_fails_writes_indefinitely_and_reads_definitely() -> None:
    bench = started(replicas=[1, 2])
    written, read = bench.send(JOIN), bench.send(CommittedOffsets("g"))
    bench.tick(200)
    bench.metadata(groups_state(replicas=[1, 2], leader=2, leader_epoch=6, partition_epoch=11))
    assert code(bench.replies[written]) == "LEADERSHIP_LOST"
    assert code(bench.replies[read]) == "COORDINATOR_NOT_AVAILABLE"
    assert [bench.replies[r].definite for r in (written, read)] == [False, True]  # type: ignore[attr-defined]
    assert not bench.core.coordinator.shards
    assert len(bench.core.coordinator.replies) == 0


def test_an_answer_does_not_wait_for_ever() -> None:
    bench = started()
    written, read = bench.send(JOIN), bench.send(CommittedOffsets("g"))
    bench.tick(bench.settings.group_wait_ms - 1)
    assert not bench.replies
    bench.tick(1)
    assert [code(bench.replies[r]) for r in (written, read)] == [TimedOut.code] * 2
    assert [bench.replies[r].definite for r in (written, read)] == [False, True]  # type: ignore[attr-defined]
    assert not bench.core.coordinator.shards[GROUPS].waiting
    flush(bench)
    assert isinstance(done(bench, ListGroups()), ListGroupsReply)


def test_a_new_coordinator_knows_what_the_log_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nobody until it has read all of it, a chunk per tick."""
    monkeypatch.setattr(coordinator, "LOAD_FIRST_BYTES", 1)
    monkeypatch.setattr(coordinator, "LOAD_BYTES", 1)
    bench = started()
    told = done(bench, JOIN)
    assert isinstance(told, GroupHeartbeatReply)
    commit = CommitOffsets("g", [OffsetCommit(TOPIC, 0, 7)], "m", told.member_epoch)
    assert done(bench, commit) == CommitOffsetsReply()
    bench.tick(200)
    bench.metadata(groups_state(replicas=[1], leader_epoch=6, partition_epoch=11))
    assert code(bench.replies[bench.send(JOIN)]) == "COORDINATOR_NOT_AVAILABLE"
    bench.tick(20)
    reply = done(bench, CommittedOffsets("g"))
    assert isinstance(reply, CommittedOffsetsReply)
    assert [(o.partition, o.offset) for o in reply.offsets] == [(0, 7)]
    again = done(bench, GroupHeartbeat("g", "m", told.member_epoch, [TOPIC], owned=told.assignment))
    assert again == told


def test_too_few_replicas_refuse_what_would_be_written_and_fence_nobody() -> None:
    bench = BrokerBench(ORDERS)
    bench.tick()
    bench.register()
    head = TopicCreated(GROUPS_TOPIC, "id-of-groups", {"min.insync.replicas": "2", "cleanup.policy": "compact"})
    bench.metadata(head, groups_state(replicas=[1, 2], isr=[1]))
    assert code(bench.replies[bench.send(JOIN)]) == "NOT_ENOUGH_REPLICAS"
    assert not bench.core.coordinator.shards[GROUPS].groups.groups


def test_silent_members_are_fenced_by_the_tick() -> None:
    bench = started()
    done(bench, JOIN)
    for _ in range(20):
        bench.tick(499)
    flush(bench)
    assert done(bench, DescribeGroup("g")).group.members == 1  # type: ignore[attr-defined]
    bench.tick(20)
    flush(bench)
    assert done(bench, DescribeGroup("g")).group.members == 0  # type: ignore[attr-defined]


def test_who_may_have_been_replaced_answers_nobody() -> None:
    """The controller has not been heard, and a member of the ISR does not fetch: it may lead by
    now."""
    bench = started(replicas=[1, 2])
    bench.core.replicas[GROUPS].role.state = replace(bench.core.replicas[GROUPS].role.state, isr=[1, 2])
    bench.now_ms += bench.settings.session_timeout_ms + 1
    reply = bench.replies[bench.send(ListGroups())]
    assert isinstance(reply, ListGroupsReply)
    assert (reply.partitions, [entry.code for entry in reply.missing]) == ([], ["COORDINATOR_NOT_AVAILABLE"])


def test_a_broker_whose_settings_differ_relies_on_the_shorter_session_and_waits_for_the_longer_one() -> None:
    """R82, R84: the controller says 2000 ms to all of them."""
    patient = started(session_timeout_ms=10_000, replicas=[1, 2], isr=[1, 2])
    followed(patient, 0)
    patient.tick(500)
    followed(patient, 1)
    role = patient.core.replicas[GROUPS].role
    assert isinstance(role, LeaderState)
    assert patient.core.coordinator.successors.are_silent(role, 2500)
    assert not patient.core.coordinator.successors.are_silent(role, 2501)
    hasty = started(session_timeout_ms=1000)
    done(hasty, JOIN)
    hasty.tick(200)
    hasty.metadata(groups_state(replicas=[1], leader_epoch=6, partition_epoch=11))
    (session,) = hasty.core.coordinator.shards[GROUPS].groups.groups["g"].sessions.values()
    assert session.deadline_ms == hasty.now_ms + JOIN.session_timeout_ms + 2000


def two_shards() -> BrokerBench:
    """Group g is in partition 1, e in 0. This broker leads both. What they wrote is not durable
    yet."""
    bench = started()
    bench.tick(200)
    bench.metadata(groups_state(replicas=[1], partition=1, leader_epoch=0, partition_epoch=0))
    for group in ("g", "e"):
        bench.send(GroupHeartbeat(group, "m", 0, [TOPIC]))
    assert [partition_of(group, 2) for group in (b"g", b"e")] == [1, 0]
    return bench


def listed(reply: Message) -> tuple[list[str], list[int], list[tuple[int, str]]]:
    assert isinstance(reply, ListGroupsReply), reply
    missing = [(entry.partition, entry.code) for entry in reply.missing]
    return [info.group for info in reply.groups], reply.partitions, missing


def test_a_list_of_groups_waits_for_all_partitions_and_lacks_what_is_not_confirmed() -> None:
    bench = two_shards()
    flush(bench)
    request_id = bench.send(ListGroups())
    assert request_id not in bench.replies
    bench.tick(bench.settings.group_wait_ms)
    assert listed(bench.replies[request_id]) == (["e"], [0], [(1, TimedOut.code)])
    assert len(bench.core.coordinator.replies) == 0


def test_a_list_of_groups_lacks_the_partition_whose_leadership_ends() -> None:
    bench = two_shards()
    request_id = bench.send(ListGroups())
    bench.tick(200)
    bench.metadata(groups_state(replicas=[1, 2], leader=2, partition=1, leader_epoch=1, partition_epoch=1))
    assert request_id not in bench.replies
    flush(bench)
    assert listed(bench.replies[request_id]) == (["e"], [0], [(1, "COORDINATOR_NOT_AVAILABLE")])


def test_a_list_of_groups_lacks_the_partition_that_cannot_be_read() -> None:
    bench = two_shards()
    bench.core.coordinator.shards[TopicPartition(GROUPS_TOPIC, 1)].damage = "it is damaged"
    flush(bench)
    assert listed(done(bench, ListGroups())) == (["e"], [0], [(1, "COORDINATOR_NOT_AVAILABLE")])


def test_a_lone_replica_needs_no_controller() -> None:
    bench = started()
    bench.now_ms += bench.settings.session_timeout_ms + 1
    assert isinstance(done(bench, JOIN), GroupHeartbeatReply)


def test_clients_do_not_write_to_internal_topics() -> None:
    bench = started()
    reply = bench.replies[bench.send(Produce(1, 1000, [ProducePartition(GROUPS_TOPIC, 0, memoryview(produced()))]))]
    assert isinstance(reply, ProduceReply)
    assert reply.partitions[0].problem is not None
    assert reply.partitions[0].problem.code == "INVALID_TOPIC"


def test_members_hear_of_partitions_that_come() -> None:
    bench = started()
    told = done(bench, JOIN)
    assert isinstance(told, GroupHeartbeatReply)
    bench.tick(200)
    bench.metadata(partition_state(replicas=[2], leader=2, partition=1, leader_epoch=0, partition_epoch=0))
    again = done(bench, GroupHeartbeat("g", "m", told.member_epoch, [TOPIC], owned=told.assignment))
    assert isinstance(again, GroupHeartbeatReply)
    assert again.assignment == [TopicPartitions(TOPIC, [0, 1], TOPIC_ID)]


def test_a_group_that_has_committed_more_than_one_batch_holds_can_be_deleted() -> None:
    bench = started(max_bytes=1024)
    bench.tick(200)
    for number in range(1, 60):
        bench.metadata(partition_state(replicas=[2], leader=2, partition=number, leader_epoch=0, partition_epoch=0))
    for first in range(0, 60, 5):
        offsets = [OffsetCommit(TOPIC, number, 7) for number in range(first, first + 5)]
        assert done(bench, CommitOffsets("g", offsets)) == CommitOffsetsReply()
    assert done(bench, DeleteGroup("g")) == DeleteGroupReply()
    bench.tick(200)
    bench.metadata(groups_state(replicas=[1], leader_epoch=6, partition_epoch=11))
    bench.tick(20)
    assert code(done(bench, DescribeGroup("g"))) == "UNKNOWN_GROUP"


def test_a_group_that_is_too_large_keeps_no_other_from_hearing_of_partitions() -> None:
    bench = started(max_bytes=1400)
    for group, instances in (("small", 1), ("large", 5), ("little", 1)):
        for number in range(instances):
            joined = done(bench, GroupHeartbeat(group, f"m{number}", 0, [TOPIC], client_id="x" * 200))
            assert isinstance(joined, GroupHeartbeatReply)
    for number in range(1, 90):
        bench.tick(20)
        bench.metadata(partition_state(replicas=[2], leader=2, partition=number, leader_epoch=0, partition_epoch=0))
    bench.tick(100)
    known = bench.core.coordinator.shards[GROUPS].groups.groups
    assert {name: known[name].group.topics[TOPIC].partitions for name in ("small", "little")} == {
        "small": 90,
        "little": 90,
    }
    assert known["large"].group.topics[TOPIC].partitions < 90


# --- what is read is as young as the question (R91) -----------------------------------------------


def followed(bench: BrokerBench, sequence: int) -> int:
    """Broker 2 fetches the groups' partition, all of it, in its one session."""
    log = bench.core.replicas[GROUPS].log
    entry = ReplicaFetchPartition(GROUPS_TOPIC, "id-of-groups", 0, 5, log.end_offset, log.last_epoch)
    return bench.send(ReplicaFetch(2, 4, 1, 1, sequence, 500, 2**20, [entry], []))


def in_sync() -> BrokerBench:
    """Brokers 1 and 2 hold group g. Nothing is on its way but a long poll of broker 2."""
    bench = started(replicas=[1, 2], isr=[1, 2])
    followed(bench, 0)
    bench.send(JOIN)
    flush(bench)
    followed(bench, 1)
    bench.tick(20)  # tells the high watermark
    bench.now_ms += 1
    followed(bench, 2)
    return bench


def test_a_read_calls_back_who_may_lead_instead_and_is_answered_when_that_one_is_back() -> None:
    bench = in_sync()
    poll = bench.next_request_id - 1
    read, described = bench.send(CommittedOffsets("g")), bench.send(DescribeGroup("g"))
    assert bench.replies[poll].partitions == []  # type: ignore[attr-defined]
    assert read not in bench.replies
    followed(bench, 3)
    assert bench.replies[read] == CommittedOffsetsReply([])
    followed(bench, 4)  # the first was called back before the second was asked
    assert isinstance(bench.replies[described], DescribeGroupReply)
    assert not bench.core.coordinator.replies._reading


def test_many_reads_call_back_once_per_round_trip() -> None:
    bench = in_sync()
    reads = [bench.send(CommittedOffsets("g")) for _ in range(100)]
    polls = [followed(bench, sequence) for sequence in (3, 4)]
    assert all(read in bench.replies for read in reads)
    assert [poll in bench.replies for poll in polls] == [True, False], "nobody waits any more: it is a long poll again"


def test_a_fetch_whose_answer_before_is_older_than_the_question_is_no_answer_to_it() -> None:
    """R91: it may have been sent before somebody else led."""
    bench = in_sync()
    bench.tick(500)  # the poll ends, and its answer is on its way
    read = bench.send(CommittedOffsets("g"))
    poll = followed(bench, 3)
    assert read not in bench.replies
    assert poll in bench.replies
    followed(bench, 4)
    assert read in bench.replies


def test_a_read_is_answered_when_the_controller_has_answered_what_was_asked_after_it() -> None:
    bench = in_sync()
    read = bench.send(CommittedOffsets("g"))
    bench.now_ms += 100
    bench.metadata()  # of a heartbeat that was sent before
    assert read not in bench.replies
    bench.now_ms += 100
    bench.metadata()
    assert bench.replies[read] == CommittedOffsetsReply([])


def test_a_read_that_waits_is_refused_when_the_coordinator_may_have_been_replaced() -> None:
    bench = in_sync()
    reads = [bench.send(CommittedOffsets("g")), bench.send(DescribeGroup("g"))]
    bench.tick(bench.settings.session_timeout_ms - bench.now_ms)
    assert not [read for read in reads if read in bench.replies]
    bench.tick(50)
    assert [code(bench.replies[read]) for read in reads] == [CoordinatorNotAvailable.code] * 2
    assert len(bench.core.coordinator.replies) == 0


def test_a_read_that_waits_is_refused_when_the_leadership_ends() -> None:
    bench = in_sync()
    read = bench.send(CommittedOffsets("g"))
    bench.metadata(groups_state(replicas=[1, 2], leader=2, leader_epoch=6, partition_epoch=11))
    assert code(bench.replies[read]) == CoordinatorNotAvailable.code
    assert len(bench.core.coordinator.replies) == 0


def test_a_read_does_not_wait_for_ever() -> None:
    bench = in_sync()
    bench.core.state.settings = replace(bench.settings, group_wait_ms=100)
    read = bench.send(CommittedOffsets("g"))
    bench.tick(100)
    reply = bench.replies[read]
    assert isinstance(reply, Problem)
    assert (reply.code, reply.definite) == (TimedOut.code, True)
    assert not bench.core.coordinator.shards[GROUPS].reads
