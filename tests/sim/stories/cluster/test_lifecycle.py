"""Stories of brokers that start, leave, are paused, replaced and run out of disk; and of those who
read from them."""

from __future__ import annotations

from itertools import pairwise

from minilog.wire.messages import ACKS_ALL, CreateTopic, HeartbeatReply, ReplicaFetchReply
from tests.sim.cluster import SimCluster
from tests.sim.nodes.clients import Load
from tests.sim.nodes.network import Weather


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def test_a_second_process_with_the_same_id_is_kept_out() -> None:
    """R26: a live registration blocks another one, until the process is dead."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    twin = c.twin(1)
    twin.start()
    c.run(5000)
    assert twin.core is not None
    assert not twin.core.ready
    assert "in use by a live process" in twin.core.registration.last_problem
    assert c.all_ready()
    assert c.state("t").leader_epoch == 0, "nobody noticed"
    c.broker(1).kill()
    c.until(lambda: twin.core is not None and twin.core.broker_epoch > 0, "the twin takes over when the first is dead")


def test_a_clean_stop_before_registration_hides_no_loss() -> None:
    """R21: a broker whose disk was replaced is stopped before it could register. Its next start is
    no clean one."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 5)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.network.cut(2, -1)
    c.broker(2).wipe()
    c.broker(2).start()
    c.run(100)
    c.broker(2).stop()
    c.until(lambda: not c.broker(2).running, within_ms=5000)
    c.network.heal()
    c.broker(2).start()
    c.until(lambda: c.broker(2).is_registered)
    assert c.elr("t") == []


def test_a_controlled_shutdown_loses_nothing_and_hardly_interrupts() -> None:
    """R28: not one write fails or is written twice, also of acks=1."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    producer = c.add_producer("steady", Load(interval_ms=5, acks=(1, ACKS_ALL), inflight_max=4))
    producer.partitions = [("t", 0)]
    producer.begin()
    c.run(1000)
    c.broker(1).stop()
    c.until(lambda: not c.broker(1).running)
    c.run(1000)
    producer.active = False
    c.broker(1).start()
    c.run(2000)
    c.settle("t")
    assert {write.outcome for write in producer.writes} == {"ok"}
    held = sum(len(write.values) for write in producer.writes)
    assert c.ends("t") == [held] * 3, "nothing lost, nothing twice"
    ends_ms = sorted(write.ended_ms for write in producer.writes)
    assert max(b - a for a, b in pairwise(ends_ms)) < 50, "somebody is served at any time"
    assert c.invariants.truth.brokers[1].eligible


def test_a_broker_leaves_when_the_others_know_who_leads_instead() -> None:
    """R28: 3 has not been told. Until it has, the old leader stays to answer it, and whoever asks 3
    for the way."""
    c = cluster(peer_timeout_ms=200)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.network.cut(-1, 3, both=False)
    c.broker(1).stop()
    c.until(lambda: c.leads(2, "t"))
    c.run(1000)
    assert c.broker(1).running
    c.network.heal()
    c.until(lambda: not c.broker(1).running, within_ms=1000)
    assert c.replica(3, "t").leader_epoch == c.state("t").leader_epoch  # type: ignore[union-attr]


def test_who_cannot_hand_over_everything_is_followed_by_an_election() -> None:
    """R28: the first in line lacks an acknowledged record. Without draining, nobody may be named
    unasked (R9)."""
    c = cluster(replica_lag_max_ms=20_000)
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.network.cut(1, 2)
    receipt = c.produce("t", acks=2).receipt
    c.broker(1).stop()
    c.until(lambda: c.leader("t") not in (1, -1))
    assert c.leader("t") == 3
    c.network.heal()
    c.until(lambda: not c.broker(1).running)
    c.broker(1).start()
    c.settle("t")
    assert receipt is not None
    assert c.log(2, "t").mirror.entries[1].crc == receipt.crc


def test_a_shutdown_while_the_controller_is_away_ends_nevertheless() -> None:
    """R28: without anybody to hand over to, patience ends."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.controller.kill()
    c.broker(1).stop()
    c.until(lambda: not c.broker(1).running, within_ms=5000)
    c.controller.start()
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t")


def test_a_paused_leader_is_replaced_and_comes_back_as_a_follower() -> None:
    """R27: it is fenced when its session ends, and the same process goes on as a follower when it
    is heard again."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    epoch = c.invariants.truth.brokers[1].epoch
    c.broker(1).pause()
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 3)
    c.broker(1).resume()
    c.settle("t")
    assert c.invariants.truth.brokers[1].epoch == epoch, "the same process needs no new registration"


def test_a_controller_that_was_paused_fences_nobody() -> None:
    """R27: it was the one that did not listen."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.controller.pause()
    c.run(10_000)
    c.produce("t")
    c.controller.resume()
    c.run(3000)
    assert c.state("t").leader_epoch == 0
    assert c.isr("t") == [1, 2, 3]


def test_the_data_path_goes_on_without_a_controller() -> None:
    """R30: self-fencing is off with a single controller, whose outage must not stop anybody."""
    c = cluster()
    c.create_topic("t", partitions=3, min_isr=2)
    c.controller.kill()
    for p in (0, 1, 2) * 5:
        c.produce("t", partition=p)
        c.run(500)
    c.controller.start()
    c.run(3000)
    assert [c.state("t", p).leader_epoch for p in range(3)] == [0, 0, 0]


def test_a_topic_deleted_and_made_again_begins_empty() -> None:
    c = cluster()
    c.create_topic("t", min_isr=2)
    c.produce("t", 5)
    c.broker(3).kill()
    c.delete_topic("t")
    c.create_topic("t", replicas=2, min_isr=1, assignment=[[1, 2, 3]])
    c.broker(3).start()
    c.settle("t")
    assert c.ends("t") == [0, 0, 0]
    c.produce("t")


def test_a_topic_deleted_on_a_full_disk_goes_when_there_is_room() -> None:
    """Moving its files away needs a little room, too. The broker lives on and tries again."""
    c = cluster()
    c.create_topic("t", partitions=2, min_isr=2)
    c.produce("t", 5)
    disk = c.broker(1).machine.disk
    disk.full = True
    c.delete_topic("t")
    c.run(1000)
    assert c.broker(1).life == 1
    assert c.replica(1, "t") is None
    disk.full = False
    c.until(lambda: not [name for name in disk.list("/data/broker") if name.startswith("t-")], within_ms=1500)
    c.create_topic("t", min_isr=2)
    c.produce("t")


def test_a_full_disk_stops_writes_and_nothing_else_and_heals_by_itself() -> None:
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    for node in c.brokers.values():
        node.machine.disk.full = True
    c.producer.load.attempts_max = 1
    write = c.ended(c.produce("t", wait=False))
    assert write.outcome == "failed"
    assert write.error is not None
    assert write.error.code == "DISK_FULL"
    c.controller.kill()
    c.controller.start()
    c.run(2000)
    c.create_topic("u", assignment=[[1, 2, 3]], min_isr=2)
    c.run(1000)
    for node in c.brokers.values():
        node.machine.disk.full = False
    c.until(lambda: c.isr("u") == [1, 2, 3], "all have room for the new topic")
    c.producer.load.attempts_max = 10
    c.produce("t")
    c.produce("u")
    assert [node.life for node in c.brokers.values()] == [1, 1, 1], "no process had to restart"


def test_a_broker_with_a_full_disk_obeys_a_new_controller() -> None:
    """R25: it can note the controller's epoch, so its leaderships are moved and it is given others,
    as any broker's."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3], [2, 1, 3]], min_isr=2)
    c.produce("t")
    c.produce("t", partition=1)
    disk = c.broker(1).machine.disk
    disk.full = True
    c.controller.kill()
    c.controller.start()
    c.broker(2).kill()
    c.until(lambda: c.leads(1, "t", 1), "what the dead broker led goes to the one with the full disk")
    assert c.broker(1).store.controller_epoch == c.invariants.truth.controller_epoch == 2
    c.broker(2).start()
    c.until(lambda: c.isr("t") == c.isr("t", 1) == [1, 2, 3], "all are in sync again")
    c.broker(1).stop()
    c.until(lambda: c.leader("t") != 1 != c.leader("t", 1), "both of its leaderships are moved")
    c.produce("t")
    c.produce("t", partition=1)
    disk.full = False
    c.until(lambda: not c.broker(1).running)
    c.broker(1).start()
    c.settle("t")
    c.settle("t", 1)


def test_a_broker_with_a_full_disk_that_was_fenced_comes_back() -> None:
    """R25: it closes its logs, registers with the new controller and opens them again, without room
    for a byte."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    node = c.broker(1)
    node.machine.disk.full = True
    node.pause()
    c.controller.kill()
    c.controller.start()
    c.until(lambda: c.leader("t") != 1, "it is fenced")
    node.resume()
    c.until(lambda: c.isr("t") == [1, 2, 3], "it is in sync again: nothing was written")
    assert node.life == 1
    c.produce("t", wait=False)
    c.until(lambda: 1 not in c.isr("t"), "it cannot follow")
    c.produce("t")
    node.machine.disk.full = False
    c.settle("t")


def test_a_failed_disk_stops_the_process_which_comes_back_and_catches_up() -> None:
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.broker(1).machine.disk.failure = "input/output error"
    c.produce("t", wait=False)
    c.until(lambda: not c.broker(1).running)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t")
    c.broker(1).start()
    c.settle("t")


def test_what_a_failed_sync_has_lost_is_fetched_again() -> None:
    """R69: the kernel may drop pages whose write-back failed: the unsynced tail is torn, without a
    reboot in between."""
    for seed in range(5):
        c = SimCluster(seed, brokers=2, timeouts={"checkpoint_interval_ms": 200}).start()
        c.create_topic("t", assignment=[[1, 2]], min_isr=1)
        c.produce("t")
        c.run(500)
        c.broker(1).disk_delay_ms = (400, 400)
        for _ in range(20):
            c.produce("t", 20, acks=0)
        c.run(100)
        c.broker(1).machine.reboots_on_failure = 0.0
        c.broker(1).machine.disk.failure = "input/output error"
        c.until(lambda c=c: not c.broker(1).running)  # type: ignore[misc]
        c.broker(1).disk_delay_ms = (1, 1)
        c.broker(1).start()
        c.settle("t")


def test_a_reader_at_a_leader_that_is_one_no_more_is_not_told_of_losses() -> None:
    """R23: it has read what the new leader wrote. The old one, cut off, cannot know that, and must
    not guess."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    c.produce("t", 3, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 2)
    reader = c.add_consumer("r")
    reader.names_epoch = False
    reader.assign("t", 0)
    reader.leaders["t", 0] = (c.leader("t"), -1)
    reader.begin()
    c.until(lambda: reader.cursors["t", 0].offset == 3)
    for _ in range(20):
        reader.leaders["t", 0] = (1, -1)
        c.run(100)
    assert reader.problems["UNKNOWN_LEADER_EPOCH"] > 0
    assert reader.problems["LOG_TRUNCATED"] == 0


def test_a_controller_that_is_always_slow_fences_who_is_silent() -> None:
    """R55, R27: each journal step takes longer than a pause is thought to be. What is forgiven for
    that has a bound."""
    c = cluster()
    c.create_topic("t", assignment=[[3, 1, 2]])
    c.controller.journal_delay_ms = (300, 300)
    c.broker(3).pause()
    for number in range(40):
        c.admin.request(CreateTopic(f"n{number}", assignment=[[1, 2]]))
        c.run(290)
        if c.invariants.truth.brokers[3].fenced:
            break
    c.until(lambda: c.leader("t") in (1, 2), within_ms=2000)
    c.broker(3).resume()
    c.controller.journal_delay_ms = (0, 2)
    c.settle("t")


def test_what_is_made_while_brokers_are_away_gets_its_copies_all_the_same() -> None:
    """R56: a factor nobody named is a promise, too: two brokers are restarted just when the first
    consumer comes."""
    c = cluster()
    for broker_id in (2, 3):
        c.broker(broker_id).kill()
    c.until(lambda: all(c.invariants.truth.brokers[b].fenced for b in (2, 3)))
    c.admin.request(CreateTopic("orders"))
    member = c.add_member("one")
    member.start()
    c.until(lambda: "__groups" in c.invariants.truth.topics and "orders" in c.invariants.truth.topics)
    for broker_id in (2, 3):
        c.broker(broker_id).start()
    c.until(c.all_ready)
    c.settle("orders")
    assert len(c.state("orders").replicas) == 3
    assert len(c.state("__groups").replicas) == 3
    assert c.invariants.truth.topics["__groups"].settings.min_insync_replicas == 2


def test_one_that_is_elected_while_it_leaves_hands_that_over_too() -> None:
    """R52, R28, R9: 2 is stopped, and elected before it has said so. The acks=2 record is on 2 and
    on the dead leader."""
    c = cluster(replica_lag_max_ms=20_000)
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    c.network.cut(1, 3)
    two = c.ended(c.produce("t", acks=2, wait=False))
    assert two.outcome == "ok"
    assert [c.log(b, "t").end_offset for b in (2, 3)] == [2, 1]
    news = c.network.hold(HeartbeatReply, when=lambda m: m.broker_epoch == c.invariants.truth.brokers[2].epoch)  # type: ignore[attr-defined]
    c.broker(1).kill()
    c.broker(2).stop()
    c.until(lambda: c.leader("t") == 2)
    c.network.pass_all()
    c.network.heal()
    news.release()
    c.until(lambda: not c.broker(2).running)
    assert c.leader("t") == 3
    assert c.log(3, "t").end_offset == 2
    for broker_id in (1, 2):
        c.broker(broker_id).start()
    c.settle("t")
    assert c.ends("t") == [2, 2, 2]


def test_a_leader_that_is_alone_in_the_isr_hands_over_when_its_heirs_hold_everything() -> None:
    """R51, R28, R20: the others fell out of the ISR and are eligible still. The acks=1 record is on
    the leader alone."""
    c = cluster(2, replica_lag_max_ms=300, drain_timeout_ms=5000)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.network.cut(1, 2)
    c.until(lambda: c.isr("t") == [1] and c.elr("t") == [2])
    c.produce("t", acks=1)
    c.broker(1).stop()
    c.run(500)
    assert c.broker(1).running
    c.network.heal()
    c.until(lambda: not c.broker(1).running)
    assert c.leader("t") == 2
    assert c.log(2, "t").end_offset == 2


def test_a_leader_that_leaves_gives_those_who_catch_up_the_time_it_has() -> None:
    """R28: nobody else is in sync, but one will be in a moment. Without waiting for it nobody could
    be written to."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]])
    c.produce("t")
    c.settle("t")
    c.broker(2).stop()
    c.until(lambda: not c.broker(2).running)
    c.produce("t", 5)
    c.run(5000)
    slow = c.network.hold(ReplicaFetchReply, when=lambda m: any(len(r.batches) for r in m.partitions))  # type: ignore[attr-defined]
    c.broker(2).start()
    c.until(lambda: bool(slow.messages) and c.all_ready())
    c.broker(1).stop()
    c.run(300)
    slow.release()
    c.network.pass_all()
    c.until(lambda: c.leader("t") == 2, "the other one leads", 5000)


def test_a_stop_while_the_controller_is_away_loses_nothing_at_acks_1() -> None:
    """R28: draining needs no controller. Only handing over does."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]])
    c.produce("t")
    c.settle("t")
    c.network.weather = Weather(delay_ms=30)
    c.controller.kill()
    c.run(500)
    c.broker(1).stop()
    writes = []
    while c.broker(1).running:
        c.producer.leaders["t", 0] = (1, 0)
        writes.append(c.producer.write("t", 0, 1, 1))
        c.run(2)
    c.controller.start()
    c.until(lambda: c.leader("t") == 2)
    c.broker(1).start()
    c.settle("t")
    receipts = [write.receipt for write in writes if write.outcome == "ok"]
    assert receipts
    held = {entry.crc for entry in c.log(2, "t").mirror.entries}
    assert not [receipt for receipt in receipts if receipt is not None and receipt.crc not in held]
