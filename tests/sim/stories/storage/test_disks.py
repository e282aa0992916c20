"""Stories of disks that are not what they were: older copies, empty ones, logs that somebody has
removed. Whoever comes back with such a disk counts for nothing it lacks."""

from __future__ import annotations

from typing import Any

import pytest

from minilog.errors import InvalidRequest
from minilog.storage import directories
from minilog.storage.directories import StoredPartition
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import (
    ElectLeader,
    ElectLeaderReply,
    Heartbeat,
    PositionsReply,
    Register,
    RegisterReply,
)
from tests.sim.cluster import SimCluster
from tests.sim.nodes.disk_store import DATA_DIR


def cluster(brokers: int = 3) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers).start()


def offline(c: SimCluster, topic: str = "t") -> bool:
    state = c.state(topic)
    return state.leader == NO_LEADER and not (state.isr or state.elr or state.last_known_elr)


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "killed"])
def test_an_older_copy_of_a_disk_is_not_taken_for_complete(stops: bool) -> None:
    """R36: broker 2 comes back with its disk as it was two registrations ago, before broker 1 does.
    Broker 1 has everything, and leads when it is back."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 3)
    c.broker(2).stop()
    c.until(lambda: not c.broker(2).running)
    copy = c.broker(2).machine.disk.copy()
    c.broker(2).start()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 5)
    for node in (c.broker(1), c.broker(2)):
        if stops:
            node.stop()
            c.run(2000)
        else:
            node.kill()
            c.run(500)
        assert not node.running
    c.broker(2).restore(copy)
    c.broker(2).start()
    c.run(5000)
    assert c.leader("t") == NO_LEADER
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [8, 8]


def test_a_copy_of_the_same_registration_is_not_taken_for_complete() -> None:
    """R36, R21: the copy was made while the broker ran, so it shows the epoch in use, and no clean
    marker."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 3)
    copy = c.broker(2).machine.disk.copy()
    c.produce("t", 5)
    c.broker(1).kill()
    c.broker(2).kill()
    c.run(3000)
    c.broker(2).restore(copy)
    c.broker(2).start()
    c.run(5000)
    assert c.leader("t") == NO_LEADER
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [8, 8]


def test_a_copy_that_comes_back_in_the_same_boot_is_not_taken_for_complete() -> None:
    """R36, R21: the machine has not restarted, and the page cache of the process before was kept.
    Not in these files."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 3)
    copy = c.broker(2).machine.disk.copy()
    c.produce("t", 5)
    c.broker(1).kill()
    c.broker(2).kill()
    c.run(3000)
    c.broker(2).restore(copy, same_boot=True)
    c.broker(2).start()
    c.run(5000)
    assert c.leader("t") == NO_LEADER
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [8, 8]


def test_a_registration_whose_epoch_was_never_noted_costs_nobody_its_place() -> None:
    """R36: the process dies before it hears its broker epoch. Nothing was written under that, and
    the only replica goes on."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    c.broker(1).kill()
    c.run(500)
    held = c.network.hold(RegisterReply)
    epoch = c.invariants.truth.brokers[1].epoch
    c.broker(1).start()
    c.until(lambda: c.invariants.truth.brokers[1].epoch > epoch)
    c.broker(1).kill()
    c.network.pass_all()
    assert held.messages
    c.run(500)
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    assert c.ends("t") == [3]


def test_a_late_registration_of_a_process_that_is_gone_costs_nobody_its_place() -> None:
    """R36: it tells of an epoch of long ago. The process behind it answers nothing, so what it told
    counts for nothing."""
    c = cluster(1)
    late = c.network.copy(Register)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    c.broker(1).kill()
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    c.network.pass_all()
    c.broker(1).kill()
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == NO_LEADER)
    late.release()
    c.run(1000)
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    assert c.ends("t") == [3]


def test_an_empty_disk_leads_nobody_and_the_partition_says_so() -> None:
    """R37: with min.insync.replicas=1 broker 1 alone is in the ISR when its disk is replaced. The
    others hold all but what it wrote alone. Nobody leads until a person decides."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 5)
    c.broker(2).kill()
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1])
    c.produce("t", 4)
    c.run(3000)
    c.broker(1).wipe()
    c.broker(1).start()
    c.run(3000)
    c.broker(2).start()
    c.broker(3).start()
    c.until(c.all_ready)
    c.run(3000)
    assert offline(c)
    answer = c.elect(dry_run=True)
    assert isinstance(answer, ElectLeaderReply)
    assert (answer.kind, answer.leader, answer.missing) == ("unclean", None, 4)
    assert [(x.broker_id, x.end_offset) for x in answer.candidates] == [(1, 0), (2, 5), (3, 5)]
    refused = c.elect()
    assert isinstance(refused, InvalidRequest)
    assert offline(c), "nothing was decided"
    elected = c.elect(unclean=True)
    assert isinstance(elected, ElectLeaderReply)
    assert elected.leader == 2
    c.settle("t")
    assert c.ends("t") == [5, 5, 5]
    [journalled] = c.invariants.truth.unclean_elections
    assert (journalled.leader, journalled.decided_by, journalled.missing) == (2, "operator", 4)
    assert c.invariants.figures["lost_uncleanly"] == 4
    c.produce("t", 2)
    c.settle("t")


@pytest.mark.parametrize("disks", [2, 3])
def test_what_several_lost_copies_held_is_counted(disks: int) -> None:
    """R37: the disks of both in-sync replicas are replaced at once, or those of all three."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 5)
    if disks == 2:
        c.broker(3).kill()
        c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 4)
    c.run(3000)
    for broker_id in range(1, disks + 1):
        c.broker(broker_id).wipe()
    c.run(3000)
    for broker_id in (1, 2, 3):
        c.broker(broker_id).start()
    c.until(c.all_ready)
    c.run(3000)
    assert offline(c)
    answer = c.elect(dry_run=True)
    assert isinstance(answer, ElectLeaderReply)
    assert answer.missing == (4 if disks == 2 else 9)
    c.elect(unclean=True)
    c.settle("t")
    assert c.invariants.figures["lost_uncleanly"] == answer.missing
    [journalled] = c.invariants.truth.unclean_elections
    assert journalled.missing == answer.missing


def test_a_topic_may_decide_beforehand_and_the_longest_log_leads() -> None:
    """R37: unclean.leader.election.enable. The replica that holds least is the first to be back in
    replica order."""
    c = SimCluster(seed=3, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, unclean_leader_election_enable="true")
    c.produce("t", 2)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1, 3])
    c.produce("t", 3)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1])
    c.produce("t", 1)
    c.broker(1).kill()
    c.broker(2).start()
    c.broker(3).start()
    c.until(lambda: c.leader("t") == 3)
    [journalled] = c.invariants.truth.unclean_elections
    assert (journalled.leader, journalled.decided_by) == (3, "topic")
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [5, 5, 5]


def without_its_last_copy(**config: Any) -> SimCluster:
    """Broker 1 was alone in the ISR, and has lost its disk. Broker 3 holds more than broker 2. What
    they tell of it is held back."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, **config)
    c.produce("t", 2)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1, 3])
    c.produce("t", 3)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1])
    c.produce("t", 1)
    c.broker(1).wipe()
    c.until(lambda: c.leader("t") == NO_LEADER)
    return c


def is_told_by_3(message: object) -> bool:
    return isinstance(message, PositionsReply) and message.broker_id == 3


def test_a_topic_that_has_decided_beforehand_hears_whoever_is_there() -> None:
    """R37: the replica that holds most answers late, long after the others."""
    c = without_its_last_copy(unclean_leader_election_enable="true")
    c.broker(3).start()
    held = c.network.hold(PositionsReply, when=is_told_by_3)
    c.until(lambda: bool(held.messages))
    c.broker(2).start()
    c.run(1000)
    assert c.leader("t") == NO_LEADER
    c.network.pass_all()
    c.until(lambda: c.leader("t") == 3)
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [5, 5, 5]


def test_a_topic_that_has_decided_beforehand_does_not_wait_for_ever() -> None:
    """R37: the replica that holds most is heard by the controller, and does not answer it."""
    c = without_its_last_copy(unclean_leader_election_enable="true")
    c.network.hold(PositionsReply, when=is_told_by_3)
    c.broker(3).start()
    c.run(500)
    c.broker(2).start()
    c.run(1000)
    assert c.leader("t") == NO_LEADER
    c.until(lambda: c.leader("t") == 2)


def test_a_person_decides_by_what_is_there_and_was_shown() -> None:
    """R37: while broker 3 does not answer nothing is decided, unless the person names the leader.
    When the longest log is another one than the person was shown, nothing is decided either."""
    c = without_its_last_copy()
    for broker_id in (1, 2, 3):
        c.broker(broker_id).start()
    c.until(c.all_ready)
    c.run(1000)
    c.network.hold(PositionsReply, when=is_told_by_3)
    refused = c.elect(unclean=True)
    assert isinstance(refused, InvalidRequest)
    assert "brokers [3] are there and have not told" in refused.detail
    c.network.pass_all()
    refused = c.elect(unclean=True, expected=2)
    assert isinstance(refused, InvalidRequest)
    assert "by now broker 3 has the longest log" in refused.detail
    assert offline(c)
    elected = c.elect(unclean=True, expected=3)
    assert isinstance(elected, ElectLeaderReply)
    c.settle("t")
    assert c.ends("t") == [5, 5, 5]


def test_the_last_copy_of_a_topic_with_one_replica_is_decided_about_too() -> None:
    """R37: replication factor 1, and an older copy of the disk. A person takes it."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    c.broker(1).stop()
    c.until(lambda: not c.broker(1).running)
    copy = c.broker(1).machine.disk.copy()
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    c.produce("t", 2)
    c.broker(1).restore(copy)
    c.broker(1).start()
    c.run(5000)
    assert offline(c)
    assert isinstance(c.elect(unclean=True, leader=1), ElectLeaderReply)
    c.until(lambda: c.leads(1, "t"))
    assert c.ends("t") == [3]
    assert c.invariants.figures["lost_uncleanly"] == 2


def test_a_log_that_somebody_removed_counts_for_nothing_and_its_neighbours_do() -> None:
    """R37: one directory of broker 1 is gone. It leads the other partition, and not this one."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.create_topic("u", assignment=[[1, 2]], min_isr=2)
    for topic in "tu":
        c.produce(topic, 4)
    c.run(2000)
    c.broker(1).kill()
    c.broker(2).kill()
    c.run(3000)
    c.broker(1).lose_log("t")
    c.broker(1).start()
    c.until(lambda: c.leads(1, "u"))
    c.run(2000)
    assert c.leader("t") == NO_LEADER
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [4, 4]


@pytest.mark.parametrize("what", ["log", "disk", "copy"])
def test_what_was_lost_is_not_forgotten_when_the_process_dies_before_it_counts(what: str) -> None:
    """R36, R37: broker 1 is registered, makes what it lacks anew, and dies before it is unfenced.
    The next process finds a directory, a log and an epoch that is the last one."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 2)
    copy = c.broker(1).machine.disk.copy()
    c.broker(1).kill()
    c.broker(1).start()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 4)
    c.run(2000)
    c.broker(1).kill()
    c.broker(2).kill()
    c.run(3000)
    match what:
        case "log":
            c.broker(1).lose_log("t")
        case "disk":
            c.broker(1).wipe()
        case "copy":
            c.broker(1).restore(copy)
    c.network.hold(Heartbeat, when=lambda message: isinstance(message, Heartbeat) and message.metadata_offset > 0)
    c.broker(1).start()
    c.until(lambda: c.replica(1, "t") is not None)
    c.broker(1).kill()
    c.network.pass_all()
    c.run(1000)
    c.broker(1).start()
    c.until(lambda: c.broker(1).core.ready)  # type: ignore[union-attr]
    c.run(3000)
    assert c.leader("t") == NO_LEADER
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [6, 6]


@pytest.mark.parametrize("proof", ["another replica", "the last leader"])
def test_a_copy_that_ends_before_what_is_committed_leads_nobody(proof: str) -> None:
    """R37, R22: broker 1 alone is in the ISR when its disk is replaced by a copy that was made in
    the same registration. Broker 2 is there and holds more: it leads. Or nobody else is there, and
    the controller was told how far broker 1 had reached: nobody leads until a person decides."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t", 3)
    copy = c.broker(1).machine.disk.copy()
    c.produce("t", 5)
    c.run(1000)
    c.cut_off(2)
    c.until(lambda: c.isr("t") == [1])
    if proof == "the last leader":
        c.run(1000)
    c.broker(1).restore(copy)
    c.until(lambda: c.leader("t") == NO_LEADER)
    c.network.heal()
    if proof == "another replica":
        c.until(lambda: c.invariants.truth.is_eligible(2))
    else:
        c.broker(2).kill()
    c.broker(1).start()
    if proof == "the last leader":
        c.run(5000)
        assert offline(c)
        c.broker(2).start()
        c.until(c.all_ready)
        assert isinstance(c.elect(unclean=True), ElectLeaderReply)
    c.settle("t")
    assert c.leader("t") == 2
    assert c.ends("t") == [8, 8]
    assert c.invariants.figures["lost_uncleanly"] == 0


@pytest.mark.parametrize("restarts", [False, True], ids=["", "the controller restarts"])
def test_a_copy_of_the_only_replica_is_found_out_by_what_was_told_of_it(restarts: bool) -> None:
    """R37: replication factor 1, and a copy of the same registration. Every controller is told how
    far the log had reached, so the loss is counted."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    copy = c.broker(1).machine.disk.copy()
    c.produce("t", 5)
    c.run(1000)
    if restarts:
        c.controller.kill()
        c.controller.start()
        c.run(1000)
    c.broker(1).restore(copy)
    c.broker(1).start()
    c.run(5000)
    assert offline(c)
    answer = c.elect(unclean=True)
    assert isinstance(answer, ElectLeaderReply)
    assert answer.missing == 5
    c.until(lambda: c.leads(1, "t"))
    c.produce("t", 2)
    c.run(500)
    c.broker(1).kill()
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    assert c.ends("t") == [5], "what was given up is missed no more"


@pytest.mark.parametrize("what", ["log", "copy"])
def test_what_was_lost_is_not_forgotten_however_many_processes_die_before_it_counts(what: str) -> None:
    """R36, R37: the first process notes its epoch, makes what it lacks anew, and dies before it is
    unfenced. The second one dies before it hears its epoch. The third one finds nothing missing."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 2)
    copy = c.broker(1).machine.disk.copy()
    c.broker(1).kill()
    c.broker(1).start()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 4)
    c.run(2000)
    c.broker(1).kill()
    c.broker(2).kill()
    c.run(3000)
    if what == "log":
        c.broker(1).lose_log("t")
    else:
        c.broker(1).restore(copy)
    c.network.hold(Heartbeat, when=lambda message: isinstance(message, Heartbeat) and message.metadata_offset > 0)
    c.broker(1).start()
    c.until(lambda: c.replica(1, "t") is not None)
    c.broker(1).kill()
    c.network.pass_all()
    c.run(1000)
    c.network.hold(RegisterReply)
    epoch = c.invariants.truth.brokers[1].epoch
    c.broker(1).start()
    c.until(lambda: c.invariants.truth.brokers[1].epoch > epoch)
    c.broker(1).kill()
    c.network.pass_all()
    c.run(1000)
    c.broker(1).start()
    c.until(lambda: c.broker(1).core.ready)  # type: ignore[union-attr]
    c.run(3000)
    assert c.leader("t") == NO_LEADER
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [6, 6]


def test_one_that_is_complete_is_waited_for_whatever_a_person_asks() -> None:
    """R37: nothing is given up while somebody who holds all can be elected."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 4)
    answer = c.elect(unclean=True)
    assert isinstance(answer, InvalidRequest)
    assert "has a leader" in answer.detail
    assert c.invariants.figures["unclean"] == 0


def test_what_was_deleted_meanwhile_goes_and_what_nobody_knows_is_kept() -> None:
    """R39: broker 1 is away when a topic is deleted, and hears of a snapshot without it. Somebody
    has put a directory of another cluster beside."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 4)
    c.run(2000)
    c.broker(1).kill()
    c.delete_topic("t")
    disk = c.broker(1).machine.disk
    directories.make(disk, DATA_DIR, StoredPartition("foreign", "f" * 32, 0), "")
    c.broker(1).start()
    c.until(c.all_ready)
    there = {name.rpartition("-")[0] for name in disk.list(DATA_DIR)}
    assert there.isdisjoint({"t", "foreign"})
    core = c.broker(1).core
    assert core is not None
    assert core.statistics(0).strays == 1
    assert disk.list(f"{DATA_DIR}/stray") == ["foreign-0.1"]


def test_what_was_put_aside_comes_back_when_its_topic_is_known_again() -> None:
    """R39: the brokers followed a journal that did not know the topic. The right one is back."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 4)
    c.run(2000)
    for node in c.brokers.values():
        node.kill()
        disk = node.machine.disk
        disk.mkdir(f"{DATA_DIR}/stray")
        disk.rename(f"{DATA_DIR}/t-0", f"{DATA_DIR}/stray/t-0.1")
    for node in c.brokers.values():
        node.start()
    c.settle("t")
    assert c.ends("t") == [4, 4]
    assert [node.machine.strays for node in c.brokers.values()] == [0, 0]


def test_a_topic_deleted_on_a_full_disk_goes_also_when_the_broker_restarts_first() -> None:
    """R39: the broker has seen it deleted, and found no room to move its files away."""
    c = cluster()
    c.create_topic("t", partitions=2, min_isr=2)
    c.produce("t", 5)
    c.run(2000)
    disk = c.broker(1).machine.disk
    disk.full = True
    c.delete_topic("t")
    c.run(1000)
    assert c.replica(1, "t") is None
    c.broker(1).kill()
    disk.full = False
    c.broker(1).start()
    c.until(c.all_ready)
    assert not [name for name in disk.list(DATA_DIR) if name.startswith("t-")]
    core = c.broker(1).core
    assert core is not None
    assert core.statistics(0).strays == 0


def test_two_people_who_decide_at_once_are_told_who_leads() -> None:
    """R37: each names another replica. One decision is journalled, and the other person hears that
    theirs was none."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 5)
    c.broker(2).kill()
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1])
    c.broker(1).wipe()
    for broker_id in (1, 2, 3):
        c.broker(broker_id).start()
    c.until(c.all_ready)
    c.run(1000)
    for leader in (2, 3):
        c.admin.request(ElectLeader("t", 0, unclean=True, leader=leader))
    answered = len(c.admin.answers)
    c.until(lambda: len(c.admin.answers) >= answered + 2)
    kinds = sorted(type(answer).__name__ for answer in c.admin.answers[-2:])
    assert kinds == ["ElectLeaderReply", "InvalidRequest"]
    [journalled] = c.invariants.truth.unclean_elections
    [reply] = [answer for answer in c.admin.answers[-2:] if isinstance(answer, ElectLeaderReply)]
    assert reply.leader == journalled.leader
    c.settle("t")
