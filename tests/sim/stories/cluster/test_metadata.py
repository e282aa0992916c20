"""Stories of the controller and what brokers believe of it: terms, registrations, fencing, the
order of news."""

from __future__ import annotations

from copy import deepcopy

import pytest

from minilog.core.broker.standing.registration import Standing
from minilog.core.controller.journal import journal_recovery
from minilog.core.effects import CONTROLLER_ID
from minilog.core.health import Knowledge, health_of
from minilog.errors import MinilogError, NotController
from minilog.wire.journal.metadata_copy import BrokerCopy
from minilog.wire.journal.metadata_records import NO_LEADER, BrokerFenced, BrokerRegistered, PartitionChanged
from minilog.wire.json.json_answers import Health
from minilog.wire.messages import (
    CreateTopic,
    CreateTopicReply,
    DescribeCluster,
    DescribeClusterReply,
    ElectLeaderReply,
    Heartbeat,
    Register,
    RegisterReply,
)
from tests.sim.cluster import SimCluster
from tests.sim.nodes.controller_node import ControllerNode, SimJournal


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def impostor_of(c: SimCluster, journal: SimJournal) -> ControllerNode:
    """Somebody starts a controller with this journal in place of the one that is there."""
    c.controller.kill()
    impostor = ControllerNode(c.world, c.network)
    impostor.journal = journal
    c.network.add(impostor)
    impostor.start()
    return impostor


def bring_back(c: SimCluster) -> None:
    c.network.add(c.controller)
    c.controller.start()


def test_a_controller_with_a_journal_of_yesterday_is_obeyed_by_nobody() -> None:
    """R25, R38: somebody starts one from a backup. Brokers have obeyed a later term, and remember
    that on disk. The first one that speaks ends it."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    backup = deepcopy(c.controller.journal)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == 2)
    for _ in range(2):
        c.controller.kill()
        c.controller.start()
        c.run(3000)
    impostor = impostor_of(c, backup)
    c.broker(3).kill()
    c.broker(3).start()
    c.run(5000)
    assert not impostor.running
    assert "older copy" in impostor.refused
    assert c.leads(2, "t")
    bring_back(c)
    c.broker(1).start()
    c.settle("t")


@pytest.mark.parametrize("restarts", [0, 1, 2])
@pytest.mark.parametrize("alive", [True, False], ids=["brokers run", "brokers restart"])
def test_a_controller_that_is_behind_its_brokers_decides_nothing(restarts: int, alive: bool) -> None:
    """R38: the backup is of the last term, of the one before, or older. The term that it begins has
    an epoch that brokers have not seen, or have seen of another one. A topic that it does not know
    keeps its records."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    backup = deepcopy(c.controller.journal)
    for _ in range(restarts):
        c.controller.kill()
        c.controller.start()
        c.run(3000)
    c.create_topic("newer", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("newer", 3)
    c.run(2000)
    if not alive:
        for broker_id in (1, 2, 3):
            c.broker(broker_id).kill()
    impostor = impostor_of(c, backup)
    c.admin.request(CreateTopic("newer", 1, 3))
    if not alive:
        for broker_id in (1, 2, 3):
            c.broker(broker_id).start()
    c.run(5000)
    assert not impostor.running
    assert impostor.refused
    assert all(isinstance(answer, CreateTopicReply | MinilogError) for answer in c.admin.answers)
    bring_back(c)
    c.settle("newer")
    assert c.ends("newer") == [3, 3, 3]


def test_a_journal_that_has_grown_past_its_brokers_is_another_one_all_the_same() -> None:
    """R38: the backup was used for a while, without the brokers, and its indexes reach beyond
    theirs. Only its terms say that it is another journal."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    backup = deepcopy(c.controller.journal)
    c.create_topic("newer", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("newer", 3)
    c.run(2000)
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
    impostor = impostor_of(c, backup)
    for _ in range(20):
        impostor.kill()
        impostor.start()
        c.run(3000)
    for broker_id in (1, 2, 3):
        c.broker(broker_id).start()
    c.run(5000)
    assert not impostor.running
    bring_back(c)
    c.settle("newer")


def test_a_controller_that_has_just_started_calls_nobody_alive_whom_it_has_not_heard() -> None:
    """R46: a broker hangs since before the controller started. By the journal it runs, and its
    session has begun just now."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.settle("t")
    c.controller.kill()
    c.broker(2).pause()
    c.run(10_000)
    c.controller.start()
    c.run(500)
    answered = len(c.admin.answers)
    c.admin.request(DescribeCluster())
    c.until(lambda: len(c.admin.answers) > answered)
    told, core = c.admin.answers[-1], c.broker(1).core
    assert isinstance(told, DescribeClusterReply)
    assert core is not None
    found = health_of(core.image, Knowledge(1, told, "http://ctl", 0, "", 0, 60_000))
    assert not found.healthy
    assert [finding.broker_id for finding in found.findings if finding.kind == "broker_unknown"] == [2]


def test_a_registration_that_a_journal_lacks_shows_that_it_is_old() -> None:
    """R38: the backup was made a moment before the broker was registered last. That process noted
    its epoch, and died before it had applied anything."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    c.run(2000)
    c.broker(1).kill()
    c.until(lambda: c.invariants.truth.brokers[1].fenced)
    backup = deepcopy(c.controller.journal)
    c.controller.kill()
    c.controller.start()
    c.network.hold(Heartbeat)
    c.broker(1).start()
    c.until(lambda: c.broker(1).core.broker_epoch > 0)  # type: ignore[union-attr]
    c.broker(1).kill()
    c.network.pass_all()
    impostor = impostor_of(c, backup)
    c.broker(1).start()
    c.run(3000)
    assert not impostor.running
    assert "older copy" in impostor.refused
    bring_back(c)
    c.settle("t")


def make_journal_anew(c: SimCluster) -> None:
    """From what is in the data directories of all brokers. None of them runs."""
    copies = []
    for broker_id, node in c.brokers.items():
        store = node.machine
        copies.append(BrokerCopy(broker_id, store.broker_epoch, store.controller_epoch, store.metadata))
    index, records = journal_recovery.recovered(journal_recovery.choose(copies), copies, "anew")
    c.controller.journal = SimJournal()
    c.controller.journal.last_index = index
    c.controller.journal.snapshot(index, records)
    c.invariants.truth.load(index, records)
    c.invariants.journal[:] = records[:1] * index


def with_a_failover_that_no_copy_knows() -> SimCluster:
    """Broker 2 leads instead of broker 1, and 4 records are committed. Nobody runs any more when
    that could be saved."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 3)
    c.run(2000)
    c.create_topic("saved")
    c.run(100)
    c.broker(1).kill()
    c.until(lambda: c.leads(2, "t"))
    c.produce("t", 4)
    c.broker(3).kill()
    c.produce("t", 1, acks=1)
    c.kill_all()
    for node in c.brokers.values():
        assert node.machine.metadata.metadata_offset < c.invariants.truth.metadata_offset - 5
    return c


def test_a_journal_made_anew_gives_no_leader_epoch_again() -> None:
    """R38: the copies are a moment old, and broker 2 has led and written in an epoch that none of
    them knows. Broker 3 is elected: in another epoch, or what broker 2 wrote alone would be taken
    for what broker 3 writes at the same place."""
    c = with_a_failover_that_no_copy_knows()
    make_journal_anew(c)
    c.controller.start()
    for broker_id in (1, 3):
        c.broker(broker_id).start()
    c.run(3000)
    assert c.leader("t") == NO_LEADER
    assert isinstance(c.elect(unclean=True), ElectLeaderReply)
    c.until(lambda: c.isr("t") == [1, 3])
    c.produce("t", 1)
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [8, 8, 8]


def test_a_journal_made_anew_waits_for_all_who_may_hold_more() -> None:
    """R38, R22: by the copies broker 1 is in the ISR still. Alone it leads nobody."""
    c = with_a_failover_that_no_copy_knows()
    make_journal_anew(c)
    c.controller.start()
    c.broker(1).start()
    c.run(3000)
    assert c.leader("t") == NO_LEADER
    for broker_id in (2, 3):
        c.broker(broker_id).start()
    c.settle("t")
    assert c.ends("t") == [8, 8, 8]


def test_a_new_controller_decides_when_it_has_heard_who_was_alive() -> None:
    """R38: until then a topic waits, and a broker that is gone is not waited for longer than its
    session."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.controller.kill()
    c.broker(3).pause()
    c.controller.start()
    c.run(300)
    c.admin.request(CreateTopic("u", 1, 2))
    c.run(100)
    refused = c.admin.answers[-1]
    assert isinstance(refused, NotController)
    c.until(lambda: 3 not in c.isr("t"))
    c.create_topic("u", replicas=2)
    c.broker(3).resume()
    c.settle("t")


def test_a_registration_that_is_asked_for_twice_is_one() -> None:
    """R26: the answer is lost. The same process asks again and is given the epoch that it has
    already."""
    c = cluster(2)
    c.broker(2).kill()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    lost = c.network.hold(RegisterReply)
    c.broker(2).start()
    c.until(lambda: bool(lost.messages))
    c.network.pass_all()
    c.until(lambda: c.all_ready())
    registrations = [r for r in c.invariants.journal if isinstance(r, BrokerRegistered) and r.broker_id == 2]
    assert len(registrations) == 2, "one for each of its two processes"
    assert c.broker(2).core.broker_epoch == registrations[1].broker_epoch  # type: ignore[union-attr]


def test_a_late_copy_of_a_registration_disturbs_nobody() -> None:
    """R26: the incarnation in it is that of the live process, which stays what it is."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.broker(2).kill()
    copies = c.network.copy(Register)
    c.broker(2).start()
    c.settle("t")
    epochs = {b: c.invariants.truth.brokers[b].epoch for b in (1, 2)}
    copies.release()
    c.run(3000)
    assert {b: c.invariants.truth.brokers[b].epoch for b in (1, 2)} == epochs
    assert c.all_ready()
    assert c.isr("t") == [1, 2]


def test_fencing_is_one_step_of_the_journal() -> None:
    """R27: the broker leaves every ISR, and every partition it led gets its next epoch, in the
    decision that fences it."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3], [2, 3, 1], [1, 3, 2]], min_isr=2)
    c.broker(1).pause()
    c.until(lambda: c.invariants.truth.brokers[1].fenced)
    fenced = max(i for i, r in enumerate(c.invariants.journal) if isinstance(r, BrokerFenced))
    step = c.invariants.journal[fenced + 1 : fenced + 4]
    assert all(isinstance(r, PartitionChanged) and 1 not in r.isr for r in step)
    assert [(r.leader, r.leader_epoch) for r in step if isinstance(r, PartitionChanged)] == [(-1, 1), (2, 0), (-1, 1)]


def test_a_heartbeat_of_the_process_before_does_not_speak_for_this_one() -> None:
    """R27: an old process is told to register, never taken for alive. Its late heartbeats fence and
    unfence nobody."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    old = c.network.copy(Heartbeat, when=lambda m: isinstance(m, Heartbeat) and m.broker_id == 2)
    c.run(500)
    c.network.pass_all()
    c.broker(2).kill()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    old.release()
    c.run(500)
    assert c.invariants.truth.brokers[2].fenced
    c.broker(2).start()
    c.settle("t")


def test_a_process_whose_id_another_one_has_taken_drops_everything() -> None:
    """R27: it slept too long; STALE_BROKER_EPOCH ends all its roles before it asks to be registered
    again."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.broker(1).pause()
    twin = c.twin(1)
    twin.start()
    c.until(lambda: twin.core is not None and twin.core.broker_epoch > 0)
    c.network.hold(Register)
    c.broker(1).resume()
    c.run(100)
    core = c.broker(1).core
    assert core is not None
    assert core.registration.standing is Standing.REGISTERING
    assert core.replicas == {}
    assert c.leads(2, "t")


def test_news_from_before_a_restart_of_the_controller_and_after_it_join_exactly() -> None:
    """R29: brokers take up where they were, whichever controller tells them, and one that lacks too
    much gets all."""
    c = cluster(snapshot_records=5)
    for number in range(4):
        c.create_topic(f"t{number}", partitions=2, min_isr=2)
    c.network.cut(3, CONTROLLER_ID)
    c.create_topic("u", assignment=[[1, 2]])
    c.controller.kill()
    c.controller.start()
    c.delete_topic("t0")
    c.network.heal()
    truth = sorted(map(repr, c.invariants.truth.snapshot()))

    def same() -> bool:
        cores = [node.core for node in c.brokers.values()]
        return all(core is not None and sorted(map(repr, core.image.snapshot())) == truth for core in cores)

    c.run(1000)
    truth = sorted(map(repr, c.invariants.truth.snapshot()))
    c.until(same)


def test_nobody_calls_a_cluster_healthy_whose_controller_is_gone() -> None:
    """R46: controller and a broker die. By the metadata of the others all is well, and stays so."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.settle("t")

    def health(controller: DescribeClusterReply | None) -> Health:
        core = c.broker(1).core
        assert core is not None
        heard_ms_ago = core.controller_heard_ms_ago(c.broker(1).now_ms)
        return health_of(core.image, Knowledge(1, controller, "http://ctl", heard_ms_ago, "refused", 0, 60_000))

    c.admin.request(DescribeCluster())
    c.until(lambda: isinstance(c.admin.answers[-1], DescribeClusterReply))
    told = c.admin.answers[-1]
    assert isinstance(told, DescribeClusterReply)
    assert health(told).healthy
    c.controller.kill()
    c.broker(2).kill()
    c.run(20_000)
    found = health(None)
    assert not found.healthy
    assert found.controller_heard_ms_ago is not None
    assert found.controller_heard_ms_ago >= 18_000
    assert "broker_unknown" in [finding.kind for finding in found.findings]


def test_nobody_calls_a_cluster_healthy_by_metadata_of_before_a_loss() -> None:
    """R46: a broker is cut off from the controller for a moment. Meanwhile others die and come
    back, and the controller hears all of them."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=3)
    c.settle("t")
    c.run(1000)
    c.network.cut(1, CONTROLLER_ID)
    for broker_id in (2, 3):
        c.broker(broker_id).kill()
    c.until(lambda: c.isr("t") == [1])
    c.broker(2).start()
    c.broker(3).start()
    c.until(lambda: not any(broker.fenced for broker in c.invariants.truth.brokers.values()))
    assert c.isr("t") == [1], "nobody who is there says so to the leader"
    answered = len(c.admin.answers)
    c.admin.request(DescribeCluster())
    c.until(lambda: len(c.admin.answers) > answered)
    told, core = c.admin.answers[-1], c.broker(1).core
    assert isinstance(told, DescribeClusterReply)
    assert core is not None
    found = health_of(core.image, Knowledge(1, told, "http://ctl", 0, "", 0, 60_000))
    assert not found.under_min_isr, "as far as this broker knows"
    assert not found.healthy
    assert [finding.kind for finding in found.findings] == ["metadata_behind"]
