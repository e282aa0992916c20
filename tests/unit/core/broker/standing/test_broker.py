"""One broker and its controller: registration, heartbeats, metadata and roles."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.core.effects import CONTROLLER_ID
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import (
    BrokerUnavailable,
    InvalidRequest,
    MinilogError,
    NotController,
    RefusesToStart,
    StaleBrokerEpoch,
)
from minilog.errors import InvalidRequest as InvalidRequestError
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import (
    AnyMetadataRecord,
    BrokerFenced,
    BrokerRegistered,
    BrokerShuttingDown,
    BrokerUnfenced,
    ControllerStarted,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import (
    DescribeCluster,
    Heartbeat,
    HeartbeatReply,
    Metadata,
    MetadataReply,
    Probe,
    ProbeReply,
    Problem,
    Register,
    RegisterReply,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BROKER_EPOCHS, BrokerBench
from tests.unit.core.broker.standing.standing_bench import FIRST, asks_to_leave, heartbeat, leaving, positions
from tests.unit.core.builders import TOPIC, TOPIC_ID, extend, partition_state


def news(
    asked: Heartbeat,
    base_offset: int,
    metadata_offset: int,
    *records: AnyMetadataRecord,
    controller_epoch: int = 1,
    snapshot: bool = False,
) -> HeartbeatReply:
    heard = asked.broker_epoch, asked.sequence
    return HeartbeatReply(*heard, controller_epoch, base_offset, metadata_offset, list(records), snapshot)


def test_a_broker_begins_by_registering() -> None:
    bench = BrokerBench(rack="r1")
    bench.tick()
    assert bench.to_controller == Register(1, "process", "", "http://broker-1:8082", "r1", True, 0, "directory", 0)
    assert not bench.core.ready


def test_registered_it_asks_for_everything_and_is_ready_when_it_knows_it() -> None:
    bench = BrokerBench(partition_state())
    bench.tick()
    bench.register()
    assert (heartbeat(bench).broker_epoch, heartbeat(bench).metadata_offset) == (2, 0)
    assert not bench.core.ready
    bench.metadata()
    assert bench.core.ready
    assert heartbeat(bench).metadata_offset == len(bench.journal)
    assert (bench.store.cluster_id, bench.store.controller_epoch) == ("cluster", 1)


def test_a_fenced_broker_is_not_ready() -> None:
    bench = BrokerBench.started()
    bench.metadata(BrokerFenced(1, 2))
    assert not bench.core.ready
    bench.metadata(BrokerUnfenced(1, 2))
    assert bench.core.ready


@pytest.mark.parametrize("error", [BrokerUnavailable("refused"), NotController("not me"), Problem("ODD", "?", False)])
def test_a_registration_that_failed_is_tried_again(error: MinilogError | Problem) -> None:
    bench = BrokerBench()
    bench.tick()
    bench.answer(error)
    bench.tick(199)
    assert bench.to_controller is None
    bench.tick(1)
    assert isinstance(bench.to_controller, Register)


def test_a_controller_that_refuses_for_good_stops_the_start() -> None:
    bench = BrokerBench()
    bench.tick()
    with pytest.raises(RefusesToStart, match="refuses broker 1: wrong cluster"):
        bench.answer(InvalidRequestError("wrong cluster"))


def test_heartbeats_follow_each_other_under_growing_numbers() -> None:
    bench = BrokerBench.started()
    first = heartbeat(bench).sequence
    bench.metadata()
    assert heartbeat(bench).sequence == first + 1
    bench.answer(BrokerUnavailable("lost"))
    bench.tick(99)
    assert bench.to_controller is None
    bench.tick(1)
    assert heartbeat(bench).sequence == first + 2


def test_a_late_copy_of_a_heartbeats_answer_changes_nothing() -> None:
    bench = BrokerBench.started(partition_state())
    old = heartbeat(bench)
    bench.metadata()
    offset = bench.core.image.metadata_offset
    bench.respond(CONTROLLER_ID, old, news(old, 0, 99, ControllerStarted("cluster", 9), snapshot=True))
    assert bench.core.image.metadata_offset == offset
    assert heartbeat(bench).sequence == old.sequence + 1


@pytest.mark.parametrize("incarnation", ["another process", ""])
def test_the_registration_of_another_process_is_not_taken(incarnation: str) -> None:
    """Two processes were started with one broker id. The answers of both come from the same
    controller."""
    bench = BrokerBench()
    bench.tick()
    bench.answer(RegisterReply(incarnation, 2, "cluster", 1, 2000))
    assert (bench.core.broker_epoch, bench.store.cluster_id, bench.store.controller_epoch) == (-1, "", 0)
    assert "another process" in bench.core.statistics(0).last_problem
    bench.tick(200)
    assert isinstance(bench.to_controller, Register)
    bench.register()
    assert bench.core.broker_epoch == 2


@pytest.mark.parametrize("more", [{"broker_epoch": 1}, {"broker_epoch": 3}, {"sequence": 0}, {"sequence": 99}])
def test_the_answer_to_another_heartbeat_is_not_taken(more: dict[str, int]) -> None:
    bench = BrokerBench.started(partition_state())
    offset, asked = bench.core.image.metadata_offset, heartbeat(bench)
    deletes = news(asked, offset, offset + 1, TopicDeleted(TOPIC, TOPIC_ID), controller_epoch=9)
    bench.now_ms += 500
    bench.answer(replace(deletes, **more))
    assert bench.core.image.metadata_offset == offset
    assert bench.store.controller_epoch == 1
    assert FIRST in bench.core.replicas
    assert bench.core.registration.heard_ms == 0, "it proves nothing about this broker's session"
    bench.tick(100)
    assert heartbeat(bench).sequence == asked.sequence + 1


def test_an_answer_of_the_other_kind_is_not_taken() -> None:
    bench = BrokerBench.started(partition_state())
    bench.answer(RegisterReply("process", 99, "cluster", 1, 2000))
    assert bench.core.broker_epoch == 2
    again = BrokerBench()
    again.tick()
    again.answer(HeartbeatReply(-1, 0, 1, 0, 1, [ControllerStarted("cluster", 1)], True))
    assert (again.core.broker_epoch, again.core.image.metadata_offset) == (-1, 0)


def test_every_heartbeat_says_which_process_it_is_of() -> None:
    bench = BrokerBench.started()
    assert (heartbeat(bench).broker_epoch, heartbeat(bench).incarnation) == (2, "process")


def test_who_forgot_this_process_makes_it_drop_everything_and_register_again() -> None:
    bench = BrokerBench.started(partition_state())
    sent = bench.produce(b"a")
    bench.answer(StaleBrokerEpoch("unknown", cluster_id="cluster"))
    (result,) = bench.produced(sent)
    assert result.problem is not None
    assert (result.problem.code, result.problem.definite) == ("LEADERSHIP_LOST", False)
    assert bench.core.replicas == {}
    assert TopicPartition(TOPIC, 0) in bench.store.logs, "the data stays"
    bench.tick(200)
    assert isinstance(bench.to_controller, Register)


def test_a_second_registration_takes_the_metadata_from_the_start() -> None:
    bench = BrokerBench.started(partition_state())
    bench.answer(StaleBrokerEpoch("unknown", cluster_id="cluster"))
    bench.tick(200)
    bench.write(BrokerFenced(1, 2), BrokerRegistered(1, len(bench.journal) + 2, "process", "http://broker-1:8082"))
    bench.register(len(bench.journal))
    assert heartbeat(bench).metadata_offset == 0
    bench.metadata(BrokerUnfenced(1, len(bench.journal)))
    assert bench.core.ready
    assert isinstance(bench.core.replicas[FIRST].role, LeaderState | FollowerState)


def test_a_newer_controller_is_obeyed_and_remembered_first() -> None:
    bench = BrokerBench.started(partition_state())
    bench.metadata(ControllerStarted("cluster", 4))
    assert bench.store.controller_epoch == 4
    assert heartbeat(bench).controller_epoch == 4


def test_an_older_controller_is_not_believed() -> None:
    bench = BrokerBench.started(partition_state())
    bench.metadata(ControllerStarted("cluster", 4))
    offset = bench.core.image.metadata_offset
    asked = heartbeat(bench)
    bench.answer(news(asked, offset, offset + 1, TopicDeleted(TOPIC, TOPIC_ID), controller_epoch=3))
    assert bench.core.image.metadata_offset == offset
    assert FIRST in bench.core.replicas


def test_an_older_controllers_registration_is_not_taken() -> None:
    bench = BrokerBench()
    bench.store.controller_epoch = 7
    bench.tick()
    bench.answer(RegisterReply("process", 2, "cluster", 6, 2000))
    assert bench.core.broker_epoch == -1
    assert bench.store.controller_epoch == 7


def test_an_older_controller_gets_no_positions() -> None:
    bench = BrokerBench.started(partition_state())
    bench.metadata(ControllerStarted("cluster", 4))
    sent = bench.send(positions(bench, 6, controller_epoch=3))
    assert bench.refusal(sent).code == NotController.code
    assert isinstance(bench.core.replicas[FIRST].role, LeaderState), "and ends no role"


@pytest.mark.parametrize("base_offset", [-1, 1])
def test_metadata_that_does_not_join_on_is_not_taken(base_offset: int) -> None:
    bench = BrokerBench.started(partition_state())
    offset = bench.core.image.metadata_offset
    asked = heartbeat(bench)
    bench.answer(news(asked, offset + base_offset, offset + base_offset + 1, BrokerFenced(3, 6)))
    assert bench.core.image.metadata_offset == offset
    assert not bench.core.image.brokers[3].fenced


def test_an_older_snapshot_is_not_taken() -> None:
    bench = BrokerBench.started(partition_state())
    offset = bench.core.image.metadata_offset
    asked = heartbeat(bench)
    bench.answer(news(asked, 0, offset - 1, ControllerStarted("cluster", 1), snapshot=True))
    assert bench.core.image.metadata_offset == offset
    assert FIRST in bench.core.replicas


def test_only_the_net_change_counts() -> None:
    bench = BrokerBench.started(partition_state())
    sent = bench.produce(b"a", acks=1)
    away = partition_state(leader=2, leader_epoch=6, partition_epoch=11)
    bench.metadata(away, replace(away, leader=3, leader_epoch=7, partition_epoch=12))
    assert [(node, request.partitions[0].leader_epoch) for node, request in bench.fetches] == []
    assert sent in bench.replies
    bench.flush()
    assert [(node, request.partitions[0].leader_epoch) for node, request in bench.fetches] == [(3, 7)]


def test_a_deleted_topic_is_deleted() -> None:
    bench = BrokerBench.started(partition_state())
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID))
    assert bench.core.replicas == {}
    assert bench.store.logs == {}


@pytest.mark.parametrize(
    ("copied", "was_deleted"),
    [
        ({}, True),
        ({"term_id": "another"}, False),
        ({"metadata_offset": 1000}, False),
        ({"records": []}, False),
    ],
    ids=["known before", "in another journal", "further on in the journal", "not known before"],
)
def test_a_topic_that_is_missing_from_a_snapshot_is_deleted_if_the_journal_once_had_it(
    copied: dict[str, Any], was_deleted: bool
) -> None:
    """R39. Everything else is kept."""
    bench = BrokerBench(partition_state())
    bench.write(ControllerStarted("cluster", 2, "term", len(bench.journal) + 1))
    bench.tick()
    bench.register()
    bench.metadata()
    bench.produce(b"v", acks=0)
    records: Any = bench.controller.snapshot()
    bench.store.metadata = replace(MetadataCopy("cluster", 2, "term", len(bench.journal), records), **copied)
    bench.write(TopicDeleted(TOPIC, TOPIC_ID))
    bench.metadata(snapshot=True)
    assert (bench.core.replicas, bench.store.logs) == ({}, {})
    assert [log.end_offset for log in bench.store.aside.values()] == ([] if was_deleted else [1])
    assert bench.core.statistics(0).strays == len(bench.store.aside)


@pytest.mark.parametrize("is_known", [True, False])
def test_files_that_find_no_room_to_be_moved_away_are_tried_again(is_known: bool) -> None:
    """Meanwhile the copy of the metadata stays as it is: it tells the next process what was
    deleted. Another topic of that name waits for its place."""
    bench = BrokerBench.started(partition_state())
    bench.tick(2000)
    bench.saved()
    bench.store.is_full = True
    again = replace(partition_state(partition_epoch=0, leader_epoch=0), topic_id="second")
    if is_known:
        bench.metadata(TopicDeleted(TOPIC, TOPIC_ID), TopicCreated(TOPIC, "second", {}), again)
    else:
        bench.write(TopicDeleted(TOPIC, TOPIC_ID), TopicCreated(TOPIC, "second", {}), again)
        bench.metadata(snapshot=True)
    for _ in range(3):
        bench.tick(2000)
    assert bench.core.replicas == {}
    assert bench.store.topic_ids == {FIRST: TOPIC_ID}
    assert not bench.saves
    bench.store.is_full = False
    bench.tick(500)
    assert bench.store.topic_ids == {FIRST: "second"}
    assert bench.store.strays == (0 if is_known else 1)
    bench.tick(2000)
    assert [copy.metadata_offset for copy in bench.saves] == [len(bench.journal)]


def test_a_topic_is_deleted_although_its_log_could_not_be_opened() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"v", acks=0)
    again = BrokerBench(partition_state(), store=bench.store)
    again.store.opens = False
    again.tick()
    again.register()
    again.metadata()
    assert again.core.replicas == {}
    again.metadata(TopicDeleted(TOPIC, TOPIC_ID))
    assert again.store.logs == {}


def test_a_topic_made_anew_under_its_name_begins_with_an_empty_log() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"a", acks=0)
    again = replace(partition_state(partition_epoch=0, leader_epoch=0), topic_id="second")
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID), TopicCreated(TOPIC, "second", {}), again)
    assert bench.log().end_offset == 0
    assert bench.core.replicas[FIRST].topic_id == "second"
    assert bench.leader().leader_epoch == 0


def test_a_replica_that_finds_no_room_is_tried_again() -> None:
    bench = BrokerBench(partition_state())
    bench.store.is_full = True
    bench.tick()
    bench.register()
    bench.metadata()
    assert bench.core.replicas == {}
    bench.store.is_full = False
    bench.tick(500)
    assert bench.leader().leader_epoch == 5


@pytest.mark.parametrize(
    ("replicas", "advice"), [([1, 2], "copied again from its leader"), ([1], "No other broker has a copy")]
)
def test_a_damaged_log_stops_the_broker_instead_of_being_led(replicas: list[int], advice: str) -> None:
    """The only copy cannot be copied again from anybody."""
    bench = BrokerBench.started(partition_state(replicas=replicas, isr=replicas))
    bench.answer(StaleBrokerEpoch("unknown", cluster_id="cluster"))
    bench.log().is_damaged = True
    bench.tick(200)
    bench.register()
    with pytest.raises(RefusesToStart, match=f"the log of orders-0 is damaged.*{advice}"):
        bench.metadata()


def test_a_log_of_a_later_epoch_than_there_has_been_stops_the_broker_instead_of_winning_the_election() -> None:
    """A bit of the last batch's epoch has changed: the broker would be elected, and end at each
    append."""
    bench = BrokerBench.started(partition_state())
    bench.answer(StaleBrokerEpoch("unknown", cluster_id="cluster"))
    extend(bench.log(), 65536, 1)
    bench.tick(200)
    bench.register()
    with pytest.raises(RefusesToStart, match="the log of orders-0 is damaged"):
        bench.metadata()


def test_it_answers_probes_with_its_own_name() -> None:
    bench = BrokerBench.started()
    sent = bench.send(Probe(1, "somebody"))
    assert bench.replies[sent] == ProbeReply(1, "process")


def test_what_is_the_controllers_is_refused() -> None:
    bench = BrokerBench.started()
    problem = bench.refusal(bench.send(DescribeCluster()))
    assert problem.code == "INVALID_REQUEST"
    assert "a broker does not answer DescribeCluster" in problem.detail


def test_metadata_for_clients() -> None:
    bench = BrokerBench.started(partition_state())
    reply = bench.replies[bench.send(Metadata([TOPIC, "absent"]))]
    assert isinstance(reply, MetadataReply)
    assert [t.topic for t in reply.topics] == [TOPIC]
    assert [(b.broker_id, b.state) for b in reply.brokers] == [(1, "running"), (2, "running"), (3, "running")]
    everything = bench.replies[bench.send(Metadata())]
    assert isinstance(everything, MetadataReply)
    assert everything.topics == reply.topics


def test_statistics_are_plain_numbers() -> None:
    bench = BrokerBench.started(partition_state(isr=[1, 2]), partition_state(partition=1, leader=2), min_isr=3)
    extend(bench.log(), 5, 3)
    bench.acknowledge(2, 1)
    found = bench.core.statistics(bench.now_ms + 30)
    assert (found.broker_id, found.ready, found.standing) == (1, True, "active")
    led, followed = bench.core.replica_statistics(bench.core.hosted(), bench.now_ms + 30)
    assert (led.is_leader, led.isr_size, led.under_replicated, led.under_min_isr) == (True, 2, True, True)
    assert (led.log_end_offset, led.replica_lag) == (3, {2: (2, 30), 3: (None, 30)})
    assert (followed.is_leader, followed.leader, followed.replica_lag) == (False, 2, {})
    assert BROKER_EPOCHS[1] == bench.core.broker_epoch


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("a broker does not answer Heartbeat; send it to the controller"),
        InvalidRequest("its data directory belongs to cluster other"),
        StaleBrokerEpoch("not registered"),
        StaleBrokerEpoch("not registered", cluster_id="other"),
    ],
    ids=lambda error: error.detail,
)
def test_who_has_the_controllers_address_for_a_moment_ends_no_broker(error: MinilogError) -> None:
    bench = BrokerBench.started(partition_state())
    bench.answer(error)
    assert bench.core.broker_epoch == 2
    assert (TOPIC, 0) in bench.core.replicas
    assert error.detail in bench.core.statistics(0).last_problem
    bench.tick(1000)
    bench.metadata()
    assert bench.core.ready


def test_one_that_may_have_been_replaced_at_its_own_wish_is_not_sure() -> None:
    """It has asked to leave and has not heard what came of that: others may lead since then."""
    bench = leaving(BrokerBench.started(partition_state(leader=2)))
    assert asks_to_leave(bench)
    asked_ms = bench.now_ms
    bench.tick(300)
    assert bench.core.state.unsure_ms(bench.now_ms) == bench.now_ms - asked_ms
    assert bench.core.state.session_over_ms(bench.now_ms) == 0
    bench.metadata(BrokerShuttingDown(1, bench.core.broker_epoch))
    bench.metadata()
    assert bench.core.state.unsure_ms(bench.now_ms) <= bench.now_ms - asked_ms - 300


def test_a_session_is_as_long_as_the_controller_says_if_that_is_shorter() -> None:
    bench = BrokerBench.started(partition_state(), session_timeout_ms=60_000)
    bench.now_ms += 3000
    assert bench.core.state.session_over_ms(bench.now_ms) > 0
