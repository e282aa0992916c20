"""The controller and broker processes: who is in, who is out, how it finds out, and how one leaves
(R26, R27, R28)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from minilog.errors import BrokerUnavailable, MinilogError, RefusesToStart
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    PartitionChanged,
)
from minilog.wire.messages import (
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    HeartbeatReply,
    ProbeReply,
    Problem,
    RegisterReply,
    ReplicaName,
)
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import REFUSED, SILENT, TICK_MS, Broker, ControllerBench

TIMEOUT_MS = 2000


def code(bench: ControllerBench, request_id: int) -> str:
    reply = bench.replies[request_id]
    assert isinstance(reply, Problem), reply
    return reply.code


def fenced(bench: ControllerBench) -> set[int]:
    return {b.broker_id for b in bench.core.image.brokers.values() if b.fenced}


def failovers(bench: ControllerBench) -> DescribeClusterReply:
    reply = bench.ask(DescribeCluster())
    assert isinstance(reply, DescribeClusterReply)
    return reply


# --- registration (R26) ---------------------------------------------------------------------------


def test_a_brokers_epoch_is_the_journal_index_of_its_registration() -> None:
    bench = ControllerBench()
    for broker in bench.brokers.values():
        record = bench.journal[broker.epoch - 1]
        assert isinstance(record, BrokerRegistered)
        assert (record.broker_id, record.broker_epoch) == (broker.broker_id, broker.epoch)


def test_a_new_process_stays_fenced_until_it_knows_of_itself() -> None:
    bench = ControllerBench(brokers=())
    reply = bench.replies[bench.register(1, "p")]
    assert reply == RegisterReply("p", 3, bench.core.image.cluster_id, 1, bench.core.settings.session_timeout_ms)
    broker = Broker(1, "p")
    broker.epoch = 3
    bench.heartbeat(broker)
    assert fenced(bench) == {1}, "it has not applied its own registration yet"
    bench.hear(broker)
    bench.heartbeat(broker)
    assert fenced(bench) == set()


def test_asking_again_is_the_same_registration() -> None:
    bench = ControllerBench()
    offset = bench.core.metadata_offset
    broker = bench.brokers[1]
    reply = bench.replies[bench.register(1, broker.incarnation)]
    assert isinstance(reply, RegisterReply)
    assert reply.broker_epoch == broker.epoch
    assert bench.core.metadata_offset == offset


def test_a_second_process_with_the_id_of_a_live_one_is_refused() -> None:
    bench = ControllerBench()
    second = bench.register(1, "second")
    assert second not in bench.replies, "the live one is asked first"
    bench.answer_probe(1)
    assert code(bench, second) == "DUPLICATE_BROKER_ID"
    assert bench.core.image.brokers[1].incarnation == bench.brokers[1].incarnation


def test_a_process_that_gives_no_answer_may_be_alive() -> None:
    bench = ControllerBench()
    second = bench.register(1, "second")
    bench.answer_probe(1, SILENT)
    assert code(bench, second) == "DUPLICATE_BROKER_ID"


@pytest.mark.parametrize("answer", [REFUSED, ProbeReply(1, "second")], ids=["refused", "replaced"])
def test_a_process_that_is_gone_is_fenced_and_replaced_in_one_step(answer: ProbeReply | BrokerUnavailable) -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    second = bench.register(1, "second")
    bench.answer_probe(1, answer)
    reply = bench.replies[second]
    assert isinstance(reply, RegisterReply)
    step = bench.steps[-1]
    assert [type(record) for record in step] == [BrokerFenced, BrokerRegistered, PartitionChanged]
    assert isinstance(bench.journal[reply.broker_epoch - 1], BrokerRegistered)
    assert bench.core.image.brokers[1].incarnation == "second"
    assert 1 not in bench.state().isr


def test_of_two_that_wait_for_the_same_id_the_later_one_counts() -> None:
    bench = ControllerBench()
    second, third = bench.register(1, "second"), bench.register(1, "third")
    assert code(bench, second) == "DUPLICATE_BROKER_ID"
    bench.answer_probe(1, REFUSED)
    assert isinstance(bench.replies[third], RegisterReply)


def test_who_waits_for_an_id_is_answered_also_when_the_session_ends_first() -> None:
    """The old process hangs: the probe is still unanswered when its session times out."""
    bench = ControllerBench()
    bench.silence(1)
    bench.run(1000)
    second = bench.register(1, "second")
    bench.run(TIMEOUT_MS)
    assert fenced(bench) == {1}
    for probe in bench.probes(1):
        bench.respond(probe, SILENT)
    bench.run(TIMEOUT_MS)
    assert second in bench.replies


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"cluster_id": "another"}, "its data directory belongs to cluster another"),
        ({"directory_id": "of 2"}, "its data directory of 2 is that of broker 2, or a copy"),
    ],
)
def test_a_directory_of_another_cluster_or_another_broker_is_refused(claims: dict[str, Any], sentence: str) -> None:
    bench = ControllerBench(brokers=())
    bench.join(2, directory_id="of 2")
    reply = bench.replies[bench.register(1, "p", **claims)]
    assert isinstance(reply, Problem)
    assert reply.detail.startswith(sentence)
    assert list(bench.core.image.brokers) == [2]


@pytest.mark.parametrize(
    "claims",
    [
        {"controller_epoch": 2},
        {"term_id": "of another journal", "metadata_offset": 3},
        {"term_id": ..., "metadata_offset": 1000},
    ],
)
@pytest.mark.parametrize("is_registered", [False, True])
def test_who_has_applied_what_the_journal_does_not_hold_ends_the_controller(
    claims: dict[str, Any], is_registered: bool
) -> None:
    """R38. Of another cluster it is nobody's business."""
    bench = ControllerBench()
    image = bench.core.image
    claims = {name: image.term_id if value is ... else value for name, value in claims.items()}
    says = partial(bench.heartbeat, bench.brokers[1]) if is_registered else partial(bench.register, 4, "p")
    with pytest.raises(RefusesToStart, match="has applied metadata record"):
        says(cluster_id=image.cluster_id, **claims)
    elsewhere = bench.replies[bench.register(4, "p", cluster_id="another", **claims)]
    assert isinstance(elsewhere, Problem)


def test_what_has_been_applied_of_this_journal_and_of_former_terms_is_known() -> None:
    """R38: the end of a former term is where the next one begins."""
    bench = ControllerBench()
    former, end = bench.core.image.term_id, bench.core.metadata_offset
    bench.restart()
    bench.restart(snapshot_at=bench.core.metadata_offset)
    bench.beat()
    cluster_id = bench.core.image.cluster_id
    for broker_id, offset in ((4, 1), (5, end)):
        bench.join(broker_id, cluster_id=cluster_id, term_id=former, metadata_offset=offset)
    with pytest.raises(RefusesToStart):
        bench.register(6, "p", cluster_id=cluster_id, term_id=former, metadata_offset=end + 1)


# --- data directories (R36, R37) ------------------------------------------------------------------


def two_copies() -> ControllerBench:
    """Broker 1 and then broker 2 are lost, and with them the partition's leader: min ISR 2."""
    bench = ControllerBench(brokers=(3,))
    for broker_id in (1, 2):
        bench.join(broker_id, directory_id=f"of {broker_id}")
    bench.create([1, 2], min_isr=2)
    for broker_id in (1, 2):
        bench.kill(broker_id)
    assert (bench.state().leader, bench.state().elr) == (NO_LEADER, [1, 2])
    return bench


def leads_again(bench: ControllerBench, broker_id: int) -> bool:
    """It can be elected, and is."""
    bench.run(TICK_MS)
    if broker_id in bench.queries():
        bench.answer_positions(broker_id, 0, 7)
    return bench.state().leader == broker_id


LOST_ALL = {"directory_id": "new", "last_epoch": 0}


@pytest.mark.parametrize(
    ("claims", "complete"),
    [
        ({"last_epoch": ...}, True),
        ({"last_epoch": 1}, False),
        ({"last_epoch": 0}, False),
        (LOST_ALL, False),
        ({"directory_id": "", "last_epoch": -1}, False),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_complete_is_who_shows_the_directory_and_the_last_epoch_in_use(
    claims: dict[str, Any], complete: bool, clean: bool
) -> None:
    """R36. One that is not is no last known member either (R37)."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    claims = {"directory_id": "of 2"} | {name: used if value is ... else value for name, value in claims.items()}
    bench.join(2, clean=clean, **claims)
    assert bench.state().last_known_elr == ([2] if complete and not clean else [])
    assert leads_again(bench, 2) is (complete and clean)


def test_an_epoch_that_was_never_in_use_need_not_be_shown() -> None:
    """R36: a process is registered, and dies before it has noted its epoch."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    for _ in range(2):
        bench.register(2, directory_id="of 2", last_epoch=used)
        bench.run(3000)
        assert bench.core.image.brokers[2].used_epoch == used
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert leads_again(bench, 2)


def unused(bench: ControllerBench, **claims: Any) -> int:
    """A process of broker 2 registers and comes to nothing. Returns its epoch."""
    bench.register(2, directory_id="of 2", **claims)
    bench.run(3000)
    return bench.core.image.brokers[2].epoch


def test_an_epoch_that_this_journal_never_gave_makes_nobody_complete() -> None:
    """R36, R38: the journal was made anew without its last part. The log is compared with the
    others."""
    bench = two_copies()
    bench.join(2, directory_id="of 2", last_epoch=1000)
    assert bench.state().last_known_elr == [2]
    assert not leads_again(bench, 2)


@pytest.mark.parametrize("restarts", [False, True], ids=["", "the controller restarts between"])
@pytest.mark.parametrize("notes", [(True, False), (False, True), (True, True), (False, False), (True, False, False)])
def test_what_was_found_holds_however_many_registrations_come_to_nothing(
    notes: tuple[bool, ...], restarts: bool
) -> None:
    """R36: an older copy is registered again and again. Some of its processes note their epochs
    before they die."""
    bench = two_copies()
    shown = 1
    for is_noted in notes:
        epoch = unused(bench, last_epoch=shown)
        shown = epoch if is_noted else shown
        if restarts:
            bench.restart(snapshot_at=len(bench.journal))
            bench.beat()
    bench.join(2, directory_id="of 2", last_epoch=shown)
    assert bench.state().elr == [1]
    assert bench.state().last_known_elr == []


def test_what_was_found_of_a_copy_is_no_finding_about_the_directory_itself() -> None:
    """R36: somebody starts an older copy, sees the mistake, and puts the disk back that was in
    use. Each is known by the epoch that it shows."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    of_copy = unused(bench, last_epoch=1)
    unused(bench, last_epoch=used)
    unused(bench, last_epoch=of_copy)
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert leads_again(bench, 2)


def test_a_log_that_was_lost_stays_lost_when_something_is_in_its_place_at_the_next_start() -> None:
    """R37: whether the process that missed the log has noted its epoch or not."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    unused(bench, last_epoch=used, lost=[ReplicaName(TOPIC, bench.state().topic_id, 0)])
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert bench.state().elr == [1]


def test_what_is_lost_is_lost_alone() -> None:
    """R37: a partition whose directory is missing, named by topic id."""
    bench = two_copies()
    state = bench.state()
    other = ReplicaName(TOPIC, "another topic id", 0)
    bench.join(2, directory_id="of 2", last_epoch=bench.brokers[2].epoch, lost=[other])
    assert leads_again(bench, 2)
    bench.kill(2)
    bench.join(2, directory_id="of 2", last_epoch=bench.brokers[2].epoch, lost=[ReplicaName(TOPIC, state.topic_id, 0)])
    assert not leads_again(bench, 2)
    assert bench.state().elr == [1]


# --- heartbeats -----------------------------------------------------------------------------------


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


# --- losing brokers (R27) -------------------------------------------------------------------------


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


# --- the timeline of a failover -------------------------------------------------------------------


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
