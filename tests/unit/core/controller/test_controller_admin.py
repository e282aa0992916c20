"""The controller and its journal: topics, snapshots, restarts, and what it tells about the
cluster."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.core.controller.brokers import metadata_feed
from minilog.core.controller.controller import PRODUCER_IDS_BLOCK, ControllerCore
from minilog.errors import InvalidRequest
from minilog.wire.journal.metadata_records import (
    ControllerStarted,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicDeleted,
)
from minilog.wire.messages import (
    AddPartitions,
    AllocateProducerIds,
    AllocateProducerIdsReply,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    HeartbeatReply,
    Metadata,
    MetadataReply,
    Ok,
    Probe,
    Problem,
    Register,
)
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import TICK_MS, ControllerBench, without_events


def beat(bench: ControllerBench, broker_id: int) -> None:
    """One broker takes its news and says so."""
    broker = bench.brokers[broker_id]
    bench.hear(broker)
    bench.heartbeat(broker)


# --- topics ---------------------------------------------------------------------------------------


def test_creating_a_topic_is_answered_when_every_live_broker_knows_it() -> None:
    bench = ControllerBench()
    sent = bench.handle(CreateTopic(TOPIC, 2, 3))
    for broker_id in (1, 2):
        beat(bench, broker_id)
        assert sent not in bench.replies
    beat(bench, 3)
    reply = bench.replies[sent]
    assert isinstance(reply, CreateTopicReply)
    last = max(index for index, record in enumerate(bench.journal, 1) if isinstance(record, PartitionChanged))
    assert reply.metadata_offset == last
    assert [p.partition for p in reply.topic.partitions] == [0, 1]


def test_a_broker_that_is_slow_to_learn_delays_the_answer_only_so_long() -> None:
    bench = ControllerBench(topic_create_wait_ms=1000)
    bench.silence(3)
    sent = bench.handle(CreateTopic(TOPIC, 1, 1))
    bench.run(1000 - TICK_MS)
    assert sent not in bench.replies
    bench.run(TICK_MS)
    assert isinstance(bench.replies[sent], CreateTopicReply)


def test_a_broker_that_is_fenced_meanwhile_delays_it_no_more() -> None:
    bench = ControllerBench(topic_create_wait_ms=60_000)
    sent = bench.handle(CreateTopic(TOPIC, 1, 1))
    bench.silence(3)
    bench.run(1000)
    assert sent not in bench.replies
    bench.run(1100)
    assert isinstance(bench.replies[sent], CreateTopicReply)


def test_deleting_a_topic_is_answered_when_every_live_broker_knows_it() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    sent = bench.handle(DeleteTopic(TOPIC))
    assert [type(record) for record in bench.steps[-1]] == [TopicDeleted]
    assert sent not in bench.replies
    bench.beat()
    assert bench.replies[sent] == Ok(bench.core.metadata_offset - 1)
    assert bench.core.image.topics == {}


def test_what_is_refused_is_answered_at_once_and_journals_nothing() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    offset = bench.core.metadata_offset
    assert bench.problem(CreateTopic(TOPIC)) == "TOPIC_EXISTS"
    assert bench.problem(DeleteTopic("absent")) == "UNKNOWN_TOPIC_OR_PARTITION"
    assert bench.core.metadata_offset == offset


def test_a_late_deletion_does_not_meet_the_topic_that_was_made_anew() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    first = bench.state().topic_id
    bench.handle(DeleteTopic(TOPIC, first))
    bench.beat()
    bench.create([1, 2, 3])
    offset = bench.core.metadata_offset
    assert bench.problem(DeleteTopic(TOPIC, first)) == "UNKNOWN_TOPIC_OR_PARTITION"
    assert bench.problem(AddPartitions(TOPIC, 3, first)) == "UNKNOWN_TOPIC_OR_PARTITION"
    assert bench.core.metadata_offset == offset
    bench.handle(AddPartitions(TOPIC, 3, bench.state().topic_id))
    assert len(bench.core.image.topics[TOPIC].partitions) == 3


def test_a_topic_that_is_deleted_in_an_election_is_gone() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.handle(DeleteTopic(TOPIC))
    bench.answer_positions(2)
    bench.answer_positions(3)
    bench.run(1000)
    assert bench.core.image.topics == {}
    bench.create([2, 3])
    assert bench.state().leader == 2


# --- producer ids ---------------------------------------------------------------------------------


def allocate(bench: ControllerBench, broker_id: int = 1) -> AllocateProducerIds:
    broker = bench.brokers[broker_id]
    return AllocateProducerIds(broker_id, broker.epoch, broker.incarnation)


def test_producer_ids_are_handed_out_in_blocks_and_never_twice_even_after_a_restart() -> None:
    bench = ControllerBench()
    blocks = []
    for _ in range(2):
        reply = bench.ask(allocate(bench))
        assert isinstance(reply, AllocateProducerIdsReply)
        blocks.append((reply.first, reply.end))
        bench.restart()
        bench.beat()
    assert blocks == [(0, PRODUCER_IDS_BLOCK), (PRODUCER_IDS_BLOCK, 2 * PRODUCER_IDS_BLOCK)]
    assert sum(isinstance(record, ProducerIdsAllocated) for record in bench.journal) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"broker_epoch": 1},
        {"broker_epoch": 5},
        {"incarnation": "another process"},
        {"incarnation": ""},
        {"broker_id": 9},
    ],
)
def test_another_process_gets_no_producer_ids(more: dict[str, Any]) -> None:
    bench = ControllerBench()
    offset = bench.core.metadata_offset
    assert bench.problem(replace(allocate(bench), **more)) == "STALE_BROKER_EPOCH"
    assert bench.core.metadata_offset == offset
    reply = bench.ask(allocate(bench))
    assert isinstance(reply, AllocateProducerIdsReply)
    assert reply.first == 0


def test_a_process_that_was_replaced_gets_no_producer_ids() -> None:
    bench = ControllerBench()
    old = allocate(bench)
    bench.kill(1)
    bench.join(1)
    assert bench.problem(old) == "STALE_BROKER_EPOCH"
    assert isinstance(bench.ask(allocate(bench)), AllocateProducerIdsReply)


# --- views ----------------------------------------------------------------------------------------


def test_it_tells_what_it_knows() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    reply = bench.ask(Metadata())
    assert isinstance(reply, MetadataReply)
    assert [b.broker_id for b in reply.brokers] == [1, 2, 3]
    assert [t.topic for t in reply.topics] == [TOPIC]
    bench.run(100)
    bench.silence(2)
    bench.run(500)
    health = bench.ask(DescribeCluster())
    assert isinstance(health, DescribeClusterReply)
    assert [(b.broker_id, b.state) for b in health.brokers] == [(1, "running"), (2, "running"), (3, "running")]
    assert health.brokers[1].heartbeat_age_ms > health.brokers[0].heartbeat_age_ms
    assert {b.metadata_offset for b in health.brokers} == {bench.core.metadata_offset}


def test_who_was_heard_by_an_earlier_controller_has_no_age() -> None:
    """R46: a heartbeat's age is that of a heartbeat, and not of this controller."""
    bench = ControllerBench()
    bench.silence(2)
    bench.restart()
    bench.beat()
    bench.run(500)
    health = bench.ask(DescribeCluster())
    assert isinstance(health, DescribeClusterReply)
    ages = {b.broker_id: b.heartbeat_age_ms for b in health.brokers}
    assert ages[2] == -1
    assert 0 <= ages[1] <= 500


def test_another_disk_does_not_speak_for_the_process_that_was_alive() -> None:
    """R38: that one may be alive still, and have applied what this journal does not hold."""
    bench = ControllerBench()
    bench.silence(2)
    bench.restart()
    bench.beat()
    bench.run(100)
    answer = bench.ask(Register(2, "with an empty disk", "", "http://b2", "", True, 0, directory_id="another"))
    assert isinstance(answer, Problem)
    assert "it waits for 2" in answer.detail
    assert (
        bench.problem(AllocateProducerIds(1, bench.brokers[1].epoch, bench.brokers[1].incarnation)) == "NOT_CONTROLLER"
    )


def test_what_is_a_brokers_is_refused() -> None:
    reply = ControllerBench().ask(Probe(1, "x"))
    assert isinstance(reply, Problem)
    assert "the controller does not answer Probe" in reply.detail


# --- restarts and snapshots -----------------------------------------------------------------------


def eventful() -> ControllerBench:
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 3, 1], min_isr=2)
    bench.kill(3)
    bench.join(3)
    bench.brokers[2].leaving = True
    bench.run(400)
    bench.ask(allocate(bench))
    return bench


def test_a_snapshot_and_the_tail_give_the_same_image_as_the_whole_journal() -> None:
    bench = eventful()
    core = ControllerCore(bench.settings, bench.core.rng)
    middle = len(bench.journal) // 2
    half = ControllerCore(bench.settings, bench.core.rng)
    for index, record in enumerate(bench.journal[:middle], 1):
        half.replay(index, record)
    core.load(middle, half.snapshot())
    for index, record in enumerate(bench.journal[middle:], middle + 1):
        core.replay(index, record)
    assert core.metadata_offset == bench.core.metadata_offset
    assert core.snapshot() == bench.core.snapshot()
    assert core.elections.leaderless == bench.core.elections.leaderless


def test_a_snapshot_remembers_who_has_no_leader() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    core = ControllerCore(bench.settings, bench.core.rng)
    core.load(bench.core.metadata_offset, bench.core.snapshot())
    assert core.elections.leaderless == bench.core.elections.leaderless != {}


def test_every_start_is_a_new_term_of_the_same_cluster() -> None:
    bench = eventful()
    cluster_id = bench.core.image.cluster_id
    before = bench.core.snapshot()
    bench.restart()
    assert bench.core.image.controller_epoch == 2
    assert bench.core.image.cluster_id == cluster_id
    (started,) = bench.steps[-1]
    assert isinstance(started, ControllerStarted)
    assert (started.controller_epoch, started.first_index) == (2, len(bench.journal) - 1)
    assert without_events(bench.core.snapshot()) == [before[0], started, *without_events(before[1:])]
    first = before[0]
    assert isinstance(first, ControllerStarted)
    assert first.term_id != started.term_id


def test_a_controller_of_another_cluster_does_not_start() -> None:
    bench = ControllerBench()
    other = ControllerBench(brokers=(), cluster_id="mine").core
    assert other.image.cluster_id == "mine"
    core = ControllerCore(other.settings, bench.core.rng)
    core.load(bench.core.metadata_offset, bench.core.snapshot())
    with pytest.raises(InvalidRequest, match="cluster_id=mine is set, but this journal belongs to cluster"):
        core.start(0)


def test_brokers_go_on_after_a_restart_without_hearing_everything_again() -> None:
    bench = eventful()
    bench.restart()
    bench.run(3000)
    assert all(b.image.controller_epoch == 2 for b in bench.brokers.values() if b.alive and not b.may_exit)


# --- who is told what (R29) -----------------------------------------------------------------------


def news(bench: ControllerBench, broker_id: int, offset: int) -> HeartbeatReply:
    reply = bench.replies[bench.heartbeat(bench.brokers[broker_id], metadata_offset=offset)]
    assert isinstance(reply, HeartbeatReply)
    return reply


def test_one_that_lags_gets_what_it_lacks() -> None:
    bench = eventful()
    end = bench.core.metadata_offset
    found = news(bench, 1, end - 3)
    assert (found.base_offset, found.metadata_offset, found.snapshot) == (end - 3, end, False)
    assert found.records == bench.journal[end - 3 :]


@pytest.mark.parametrize("ahead", [False, True])
def test_one_that_knows_nothing_or_more_than_there_is_gets_everything(ahead: bool) -> None:
    bench = eventful()
    end = bench.core.metadata_offset
    if ahead:
        broker = bench.brokers[1]
        waiting = bench.heartbeat(broker, metadata_offset=end + 5)
        bench.create([1])
        reply = bench.replies.get(waiting)
        assert reply is None or isinstance(reply, HeartbeatReply)
        bench.run(200)
        reply = bench.replies[waiting]
        assert isinstance(reply, HeartbeatReply)
        found = reply
    else:
        found = news(bench, 1, 0)
    assert found.snapshot
    assert found.metadata_offset == bench.core.metadata_offset
    assert found.records == bench.core.snapshot()


def test_one_that_lags_further_than_is_kept_gets_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_feed, "TAIL_MAX", 4)
    bench = eventful()
    end = bench.core.metadata_offset
    assert news(bench, 1, 1).snapshot
    assert news(bench, 1, end - 4).records == bench.journal[end - 4 :]
