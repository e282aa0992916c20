"""Heartbeats, probes, fencing and what is told of it (R27, R28)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.errors import BrokerUnavailable, MinilogError
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    PartitionChanged,
)
from minilog.wire.messages import (
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    HeartbeatReply,
    Problem,
    RegisterReply,
)
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.brokers.brokers_bench import TIMEOUT_MS, code, fenced
from tests.unit.core.controller.controller_bench import REFUSED, SILENT, TICK_MS, ControllerBench


def failovers(bench: ControllerBench) -> DescribeClusterReply:
    reply = bench.ask(DescribeCluster())
    assert isinstance(reply, DescribeClusterReply)
    return reply


def test_a_heartbeat_is_parked_until_there_is_news() -> None:
    bench = ControllerBench()
    waiting = bench.brokers[1].heartbeat_id
    assert waiting is not None
    bench.tick()
    assert waiting not in bench.replies
    bench.create([1, 2, 3])
    reply = bench.replies[waiting]
    assert isinstance(reply, HeartbeatReply)
    names = [type(record).__name__ for record in reply.records]
    assert names == ["TopicCreated", "PartitionChanged", "EventNoted"]


def test_a_heartbeat_without_news_is_answered_after_its_interval() -> None:
    bench = ControllerBench(heartbeat_interval_ms=200)
    waiting = bench.brokers[1].heartbeat_id
    assert waiting is not None
    for _ in range(9):
        bench.tick()
    assert waiting not in bench.replies
    bench.tick()
    reply = bench.replies[waiting]
    assert isinstance(reply, HeartbeatReply)
    assert (reply.records, reply.snapshot, reply.may_exit) == ([], False, False)


def test_a_heartbeat_is_held_no_longer_than_its_broker_waits() -> None:
    """Its interval may be another one than the controller's: it would give every heartbeat up."""
    bench = ControllerBench(heartbeat_interval_ms=5000)
    waiting = bench.heartbeat(bench.brokers[1], wait_ms=40)
    bench.tick()
    assert waiting not in bench.replies
    bench.tick()
    assert isinstance(bench.replies[waiting], HeartbeatReply)


def test_a_newer_heartbeat_replaces_the_one_that_is_parked() -> None:
    bench = ControllerBench()
    old = bench.brokers[1].heartbeat_id
    assert old is not None
    new = bench.heartbeat(bench.brokers[1])
    assert code(bench, old) == "INVALID_UPDATE_VERSION"
    assert new not in bench.replies


def test_a_late_copy_of_a_heartbeat_is_refused_and_keeps_nobody_alive() -> None:
    bench = ControllerBench()
    broker = bench.brokers[1]
    copy = bench.heartbeat(broker, sequence=1)
    assert code(bench, copy) == "INVALID_UPDATE_VERSION"
    bench.silence(1)
    for _ in range(TIMEOUT_MS // 100 + 1):
        bench.run(100)
        bench.heartbeat(broker, sequence=1)
    assert fenced(bench) == {1}


def test_the_heartbeat_of_an_earlier_process_is_refused() -> None:
    bench = ControllerBench()
    old = bench.brokers[1]
    bench.kill(1)
    bench.join(1)
    assert code(bench, bench.heartbeat(old)) == "STALE_BROKER_EPOCH"
    old.broker_id = 9
    assert code(bench, bench.heartbeat(old)) == "STALE_BROKER_EPOCH"


def test_the_heartbeat_of_a_process_of_another_journal_is_refused() -> None:
    """A broker epoch is a place in one journal: another cluster's broker 1 may have the same
    one."""
    bench = ControllerBench()
    broker = bench.brokers[1]
    offset = bench.core.metadata_offset
    assert (
        code(bench, bench.heartbeat(broker, incarnation="another process", shutting_down=True)) == "STALE_BROKER_EPOCH"
    )
    assert (bench.core.metadata_offset, bench.core.image.brokers[1].state) == (offset, "running")
    assert bench.core.sessions.by_broker[1].sequence == broker.sequence - 1
    bench.run(100)
    assert bench.core.sessions.by_broker[1].parked is not None, "the true one goes on"


def test_answers_say_whom_they_are_for() -> None:
    bench = ControllerBench()
    registered = bench.replies[bench.register(4, "p")]
    assert isinstance(registered, RegisterReply)
    assert registered.incarnation == "p"
    again = bench.replies[bench.register(4, "p")]
    assert again == registered
    broker = bench.brokers[1]
    sent = bench.heartbeat(broker)
    bench.run(1000)
    reply = bench.replies[sent]
    assert isinstance(reply, HeartbeatReply)
    assert reply.broker_epoch == broker.epoch


def test_a_controller_that_is_behind_a_broker_of_an_older_version_steps_back() -> None:
    """That one does not say which cluster it belongs to."""
    bench = ControllerBench()
    assert code(bench, bench.heartbeat(bench.brokers[1], controller_epoch=2)) == "NOT_CONTROLLER"


def test_a_broker_that_is_not_heard_is_fenced_after_the_session_timeout() -> None:
    bench = ControllerBench()
    bench.silence(2)
    bench.run(TIMEOUT_MS - TICK_MS)
    assert fenced(bench) == set()
    bench.run(2 * TICK_MS)
    assert fenced(bench) == {2}


def test_fencing_takes_it_out_of_everything_in_one_step() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 3, 1], [3, 2, 1])
    bench.silence(2)
    bench.run(TIMEOUT_MS + TICK_MS)
    step = next(s for s in bench.steps if isinstance(s[0], BrokerFenced))
    assert len(step) == 4
    assert [(s.leader, s.leader_epoch, s.isr) for s in step[1:] if isinstance(s, PartitionChanged)] == [
        (1, 0, [1, 3]),
        (NO_LEADER, 1, [3, 1]),
        (3, 0, [3, 1]),
    ]


@pytest.mark.parametrize(
    ("replicas", "expected"), [([2], (NO_LEADER, 1, [], [2])), ([2, 1], (1, 1, [1], []))], ids=["alone", "one left"]
)
def test_fencing_a_leader_that_leaves_one_candidate_or_none(replicas: list[int], expected: object) -> None:
    bench = ControllerBench()
    bench.create(replicas)
    bench.kill(2)
    state = bench.state()
    assert (state.leader, state.leader_epoch, state.isr, state.elr) == expected
    assert bench.queries() == {}, "nothing to compare, nobody is asked"


def test_a_heartbeat_of_the_same_process_brings_it_back() -> None:
    bench = ControllerBench()
    bench.silence(2)
    bench.run(TIMEOUT_MS + TICK_MS)
    epoch = bench.brokers[2].epoch
    bench.brokers[2].alive = True
    bench.brokers[2].heartbeat_id = None
    bench.beat()
    assert fenced(bench) == set()
    assert bench.core.image.brokers[2].epoch == epoch


def test_a_dropped_connection_leads_to_a_probe_and_a_refusal_to_fencing_at_once() -> None:
    bench = ControllerBench()
    bench.create([2, 1, 3])
    dropped = bench.brokers[2].heartbeat_id
    assert dropped is not None
    bench.silence(2)
    bench.disconnect(dropped)
    (probe,) = bench.probes(2)
    assert fenced(bench) == set()
    bench.respond(probe, REFUSED)
    assert fenced(bench) == {2}
    assert bench.state().leader == NO_LEADER


def test_a_dropped_connection_of_a_process_that_lives_means_nothing() -> None:
    bench = ControllerBench()
    dropped = bench.brokers[2].heartbeat_id
    assert dropped is not None
    bench.disconnect(dropped)
    bench.answer_probe(2)
    bench.brokers[2].heartbeat_id = None
    bench.beat()
    bench.run(2 * TIMEOUT_MS)
    assert fenced(bench) == set()
    assert dropped not in bench.replies


@pytest.mark.parametrize(
    "answer", [SILENT, BrokerUnavailable("?"), BrokerUnavailable("reset", reason="reset"), Problem("X", "?", False)]
)
def test_a_probe_without_an_answer_proves_nothing(answer: MinilogError | Problem) -> None:
    bench = ControllerBench()
    dropped = bench.brokers[2].heartbeat_id
    assert dropped is not None
    bench.disconnect(dropped)
    bench.answer_probe(2, answer)
    assert fenced(bench) == set()


def test_a_late_heartbeat_is_probed_once_at_a_time() -> None:
    bench = ControllerBench(probe_after_ms=150)
    bench.silence(2)
    bench.run(200 + 150)
    assert bench.probes(2) == []
    bench.run(2 * TICK_MS)
    assert len(bench.probes(2)) == 1
    bench.run(300)
    assert len(bench.probes(2)) == 1
    bench.answer_probe(2, SILENT)
    bench.run(150 + 2 * TICK_MS)
    assert len(bench.probes(2)) == 1
    assert fenced(bench) == set()


def test_a_probe_of_an_earlier_process_says_nothing_about_this_one() -> None:
    bench = ControllerBench()
    dropped = bench.brokers[2].heartbeat_id
    assert dropped is not None
    bench.disconnect(dropped)
    (probe,) = bench.probes(2)
    bench.silence(2)
    bench.run(TIMEOUT_MS)
    bench.run(TICK_MS)
    bench.join(2)
    dropped = bench.brokers[2].heartbeat_id
    assert dropped is not None
    bench.disconnect(dropped)
    bench.respond(probe, REFUSED)
    assert fenced(bench) == set(), "it is being probed itself, and that answer is still to come"
    bench.answer_probe(2)
    assert fenced(bench) == set()


def test_a_controller_that_was_paused_fences_nobody() -> None:
    bench = ControllerBench()
    bench.run(100)
    bench.now_ms += 60_000
    bench.tick()
    assert fenced(bench) == set()
    assert [s for s in bench.sends if s.node_id in bench.brokers] == [], "and suspects nobody"
    bench.beat()
    bench.run(TIMEOUT_MS)
    assert fenced(bench) == set()


def test_a_restarted_controller_gives_every_broker_a_full_session() -> None:
    bench = ControllerBench()
    bench.run(1900)
    for broker_id in (1, 2, 3):
        bench.silence(broker_id)
    bench.restart()
    bench.tick()
    bench.run(TIMEOUT_MS - 2 * TICK_MS)
    assert fenced(bench) == set()
    bench.run(2 * TICK_MS)
    assert fenced(bench) == {1, 2, 3}


def test_a_shorter_session_holds_when_the_broker_has_heard_of_it() -> None:
    bench = ControllerBench(session_timeout_ms=3 * TIMEOUT_MS)
    bench.silence(1)
    bench.settings = replace(bench.settings, session_timeout_ms=TIMEOUT_MS)
    bench.restart(snapshot_at=len(bench.journal))
    two = bench.brokers[2]
    bench.heartbeat(two, session_timeout_ms=3 * TIMEOUT_MS)
    bench.silence(2)
    bench.run(3 * TIMEOUT_MS - 2 * TICK_MS)
    assert fenced(bench) == set(), "broker 2 has asked, and has not heard the answer"
    assert bench.core.sessions.by_broker[3].deadline_ms <= bench.now_ms + TIMEOUT_MS
    bench.run(3 * TICK_MS)
    assert fenced(bench) == {1, 2}


def test_a_restart_that_takes_long_fences_nobody() -> None:
    bench = ControllerBench()
    bench.restart()
    bench.tick(3 * TIMEOUT_MS)
    assert fenced(bench) == set()


def test_no_heartbeat_stays_unanswered_when_its_broker_is_fenced() -> None:
    """The probe was under way when the heartbeat came in after all. Its answer still says that
    nobody listens."""
    bench = ControllerBench()
    broker = bench.brokers[2]
    assert broker.heartbeat_id is not None
    bench.disconnect(broker.heartbeat_id)
    waiting = bench.heartbeat(broker)
    bench.answer_probe(2, REFUSED)
    assert fenced(bench) == {2}
    bench.silence(2)
    bench.run(500)
    assert waiting in bench.replies


def test_a_failover_is_told_as_a_timeline() -> None:
    bench = ControllerBench()
    bench.create([2, 1, 3], [1, 2, 3])
    bench.run(1000)
    bench.kill(2)
    bench.tick()
    for broker_id in (1, 3):
        bench.answer_positions(broker_id)
    elected_ms = bench.now_ms
    bench.tick()
    bench.beat()
    (info,) = failovers(bench).failovers
    assert (info.broker_id, info.kind, info.partitions) == (2, "refused", 1)
    assert info.last_heard_ms <= info.detected_ms == info.fenced_ms == 1000
    assert (info.elected_ms, info.published_ms) == (elected_ms, elected_ms + TICK_MS)


def test_a_failover_ends_when_the_topic_it_waits_for_is_deleted() -> None:
    """A partition that is gone waits for no leader."""
    bench = ControllerBench()
    bench.create([1, 2, 3], [2, 1, 3])
    bench.kill(1)
    assert bench.state().leader == NO_LEADER
    assert failovers(bench).failovers[0].elected_ms is None
    bench.run(100)
    bench.handle(DeleteTopic(TOPIC))
    deleted_ms = bench.now_ms
    bench.run(100)
    (info,) = failovers(bench).failovers
    assert (info.broker_id, info.elected_ms) == (1, deleted_ms)
    assert info.published_ms is not None


def test_the_deletion_of_another_topic_ends_no_failover() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.handle(CreateTopic("another", 1, 3))
    bench.kill(1)
    bench.handle(DeleteTopic("another"))
    bench.run(100)
    assert failovers(bench).failovers[0].elected_ms is None
    for broker_id in (2, 3):
        bench.answer_positions(broker_id)
    assert failovers(bench).failovers[0].elected_ms == bench.now_ms


def test_a_clean_stop_is_told_as_a_timeline_too() -> None:
    bench = ControllerBench()
    bench.create([2, 1, 3], [1, 2, 3])
    bench.brokers[2].leaving = True
    bench.run(400)
    (info,) = failovers(bench).failovers
    assert (info.broker_id, info.kind, info.partitions) == (2, "shutdown", 1)
    assert info.elected_ms is not None
    assert info.published_ms is not None
    assert info.detected_ms <= info.elected_ms <= info.published_ms


@pytest.mark.parametrize("how", ["timeout", "shutdown"])
def test_a_failover_is_told_by_its_kind(how: str) -> None:
    bench = ControllerBench()
    if how == "shutdown":
        bench.brokers[2].leaving = True
        bench.run(400)
    bench.silence(2)
    bench.run(TIMEOUT_MS + 400)
    (info,) = failovers(bench).failovers
    assert info.kind == how
