"""Stories of replicas that move to other brokers, whatever dies meanwhile."""

from __future__ import annotations

from minilog.wire.admin_messages import ConfigureTopic, MoveReplicas, MoveReplicasReply, RemoveBroker, ReplicaMove
from minilog.wire.messages import AddPartitions, AlterPartition, Heartbeat, HeartbeatReply, ReplicaFetch
from tests.sim.cluster import SimCluster
from tests.sim.nodes.disk_store import DATA_DIR

NEVER = {"leader_balance_steady_ms": 10_000_000}


def cluster(replicas: tuple[int, ...] = (1, 2, 3), min_isr: int = 2, brokers: int = 4, **timeouts: int) -> SimCluster:
    c = SimCluster(seed=1, brokers=brokers, timeouts=NEVER | {"replica_lag_max_ms": 1000} | timeouts).start()
    c.create_topic("t", assignment=[list(replicas)], min_isr=min_isr)
    c.produce("t", 3)
    c.settle("t")
    return c


def move(c: SimCluster, *replicas: int, **more: int) -> MoveReplicasReply:
    reply = c.change(MoveReplicas([ReplicaMove("t", 0, list(replicas), **more)]))  # type: ignore[arg-type]
    assert isinstance(reply, MoveReplicasReply), reply
    return reply


def refusal(c: SimCluster, *replicas: int, **more: int) -> tuple[str, str]:
    error = c.change(MoveReplicas([ReplicaMove("t", 0, list(replicas), **more)]))  # type: ignore[arg-type]
    return getattr(error, "code", ""), getattr(error, "detail", "")


def is_there(c: SimCluster, *replicas: int) -> bool:
    state = c.state("t")
    return not state.target and state.replicas == list(replicas)


def has_copy(c: SimCluster, broker_id: int, topic: str = "t") -> bool:
    return any(stored[0] == topic for stored in c.broker(broker_id).store.partitions())


def test_a_replica_moves_and_its_old_copy_goes_when_the_new_one_is_whole() -> None:
    """R113: no earlier, for until then it is one of three."""
    c = cluster()
    epoch = c.state("t").leader_epoch
    c.network.cut(1, 4)
    move(c, 1, 2, 4)
    assert (c.state("t").replicas, c.state("t").former, c.state("t").target) == ([1, 2, 4, 3], [1, 2, 3], [1, 2, 4])
    c.run(3000)
    c.produce("t")
    assert c.isr("t") == [1, 2, 3]
    assert has_copy(c, 3)
    c.network.heal()
    c.until(lambda: is_there(c, 1, 2, 4), "the move is complete")
    assert c.state("t").leader_epoch == epoch + 1
    c.settle("t")
    c.until(lambda: not has_copy(c, 3), "the old copy has gone")
    c.produce("t")
    c.settle("t")
    assert c.ends("t") == [5, 5, 5]


def test_a_step_that_would_leave_fewer_copies_waits() -> None:
    """R113: one of those who are to stay is away. Who is to go holds on in its place."""
    c = cluster()
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1, 3])
    move(c, 1, 2, 4)
    c.until(lambda: c.isr("t") == [1, 3, 4], "broker 4 is in sync")
    c.run(3000)
    assert c.isr("t") == [1, 3, 4]
    assert c.state("t").target == [1, 2, 4]
    assert has_copy(c, 3)
    c.broker(2).start()
    c.until(lambda: is_there(c, 1, 2, 4), "the move is complete")
    c.settle("t")


def test_a_leader_that_is_to_go_hands_over_and_loses_nothing() -> None:
    """R113: all three are replaced, and what the leader alone had acknowledged comes along."""
    c = cluster(brokers=6)
    move(c, 4, 5, 6)
    for _ in range(20):
        c.produce("t", acks=1)
        c.run(40)
    c.until(lambda: is_there(c, 4, 5, 6), "the move is complete")
    c.settle("t")
    assert c.ends("t") == [23, 23, 23]
    c.until(lambda: not any(has_copy(c, b) for b in (1, 2, 3)), "the old copies have gone")


def test_a_leader_that_cannot_hand_over_is_asked_again_later() -> None:
    """R113: nobody is named for ever, and the move comes to its end all the same."""
    c = cluster(brokers=6, replica_lag_max_ms=60_000)
    move(c, 4, 5, 6)
    c.until(lambda: c.isr("t") == [1, 2, 3, 4, 5, 6], "all are in sync")
    c.network.cut(1, 5)
    c.produce("t", acks=1)
    c.until(lambda: c.state("t").successor == 4, "a successor is named")
    c.until(lambda: c.state("t").successor == -1, "and no more")
    c.network.heal()
    c.until(lambda: is_there(c, 4, 5, 6), "the move is complete", 40_000)
    c.settle("t")


def test_a_cancelled_move_goes_back_and_the_added_copies_go() -> None:
    """R113: what is added leads by now, and hands back first."""
    c = cluster(brokers=6)
    c.network.cut(1, 6)
    c.network.cut(4, 6)
    move(c, 4, 5, 6)
    c.until(lambda: c.isr("t") == [1, 2, 3, 4, 5])
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
    c.until(lambda: c.leader("t") in (4, 5))
    c.produce("t")
    move(c)
    c.run(2000)
    assert c.leader("t") in (4, 5), "nobody else holds what is committed"
    assert refusal(c, 1, 2, 9)[0] == "REPLICAS_MOVING"
    c.network.heal()
    c.broker(1).start()
    c.until(lambda: c.isr("t")[:1] == [1])
    c.run(2000)
    assert c.leader("t") in (4, 5), "alone broker 1 is fewer than min.insync.replicas"
    c.broker(2).start()
    c.broker(3).start()
    c.until(lambda: is_there(c, 1, 2, 3), "it is back")
    c.settle("t")
    assert c.ends("t") == [4, 4, 4]
    c.until(lambda: not any(has_copy(c, b) for b in (4, 5, 6)), "the added copies have gone")
    assert move(c).metadata_offset == 0


def test_a_cancelled_move_waits_for_who_comes_back() -> None:
    """R113: three are complete. With min.insync.replicas=1 one of them would be enough, and then it
    would be the only one."""
    c = cluster(brokers=5, min_isr=1)
    c.network.cut(1, 5)
    move(c, 1, 4, 5)
    c.until(lambda: {*c.isr("t")} == {1, 2, 3, 4}, "broker 4 is in sync")
    c.network.cut(1, 2)
    c.network.cut(1, 3)
    c.until(lambda: {*c.isr("t")} == {1, 4})
    move(c)
    c.run(3000)
    assert {*c.isr("t")} == {1, 4}
    assert has_copy(c, 4)
    c.broker(3).kill()
    c.network.heal()
    c.until(lambda: is_there(c, 1, 2, 3), "who does not run is not waited for")
    assert c.isr("t") == [1, 2]
    c.broker(3).start()
    c.settle("t")
    c.until(lambda: not has_copy(c, 4))


def test_a_cancelled_move_whose_former_replicas_are_gone_goes_elsewhere() -> None:
    """R113: no cancel holds a partition for ever."""
    c = cluster(brokers=6)
    c.network.cut(4, 6)
    c.network.cut(1, 6)
    move(c, 4, 5, 6)
    c.until(lambda: {4, 5} <= {*c.isr("t")})
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
    c.until(lambda: c.leader("t") in (4, 5))
    move(c)
    c.run(3000)
    assert c.state("t").target == [1, 2, 3]
    assert refusal(c, 4, 9)[0] == "REPLICAS_MOVING"
    move(c, 4, 5)
    c.until(lambda: is_there(c, 4, 5), "it is where its complete replicas are")
    c.produce("t")
    c.settle("t")


def test_what_was_asked_for_twice_is_done_once_and_what_contradicts_is_refused() -> None:
    """R113: one sentence, and nothing is changed."""
    c = cluster()
    planned = c.state("t").partition_epoch
    c.network.cut(1, 4)
    assert move(c, 1, 2, 4, partition_epoch=planned).metadata_offset > 0
    assert move(c, 1, 2, 4, partition_epoch=planned).metadata_offset == 0
    before = c.state("t")
    code, detail = refusal(c, 1, 3, 4)
    assert (code, detail[:44]) == ("REPLICAS_MOVING", "t-0 is on its way to brokers [1, 2, 4] alrea")
    assert refusal(c, partition_epoch=planned)[0] == "REPLICAS_MOVING"
    c.network.heal()
    c.until(lambda: is_there(c, 1, 2, 4))
    assert refusal(c, 1, 2, 3, partition_epoch=before.partition_epoch)[0] == "REPLICAS_MOVING"
    assert refusal(c, 1, 1, 2)[0] == "INVALID_REPLICATION_FACTOR"
    assert refusal(c, 1, 2, 9)[0] == "INVALID_REPLICATION_FACTOR"
    assert refusal(c, 1)[0] == "INVALID_CONFIG"
    c.broker(3).kill()
    c.until(lambda: not c.invariants.truth.is_eligible(3))
    assert refusal(c, 1, 2, 3)[0] == "INVALID_REPLICATION_FACTOR"


def test_a_move_of_which_one_part_cannot_be_is_not_begun() -> None:
    """R113: all of a request or nothing."""
    c = cluster()
    error = c.change(MoveReplicas([ReplicaMove("t", 0, [1, 2, 4]), ReplicaMove("t", 1, [1, 2, 4])]))
    assert getattr(error, "code", "") == "UNKNOWN_PARTITION"
    assert is_there(c, 1, 2, 3)


def test_more_and_fewer_replicas() -> None:
    """R113: a factor is raised and lowered by the same way. Who leads goes on where nobody goes."""
    c = cluster((1,), min_isr=1)
    epoch = c.state("t").leader_epoch
    move(c, 1, 2, 3)
    c.until(lambda: is_there(c, 1, 2, 3))
    assert (c.isr("t"), c.state("t").leader_epoch) == ([1, 2, 3], epoch)
    answer = c.change(ConfigureTopic("t", {"min.insync.replicas": "2"}))
    assert not hasattr(answer, "code")
    assert refusal(c, 3)[0] == "INVALID_CONFIG"
    move(c, 3, 2)
    c.until(lambda: is_there(c, 3, 2))
    c.settle("t")
    assert c.leader("t") in (2, 3)
    c.until(lambda: not has_copy(c, 1))


def test_the_settings_and_partitions_of_a_topic_on_the_move() -> None:
    """R113: a minimum that the replicas cannot have before or after is refused, and new partitions
    get as many replicas as there will be."""
    c = cluster()
    c.network.cut(1, 4)
    move(c, 1, 4)
    error = c.change(ConfigureTopic("t", {"min.insync.replicas": "3"}))
    assert getattr(error, "code", "") == "INVALID_CONFIG"
    c.change(AddPartitions("t", 2))
    assert len(c.state("t", 1).replicas) == 2
    c.delete_topic("t")
    c.network.heal()
    c.until(lambda: not any(has_copy(c, b) for b in (1, 2, 3, 4)), "all copies have gone")


def test_a_move_outlives_the_controller_its_source_and_its_target() -> None:
    """R113: each is killed in the middle, and all of them."""
    c = cluster()
    c.network.cut(1, 4)
    move(c, 4, 2, 1)
    c.controller.kill()
    c.broker(4).kill()
    c.run(500)
    c.controller.start()
    c.broker(4).start()
    c.until(c.all_ready)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") in (2, 3))
    c.network.heal()
    c.broker(1).start()
    c.produce("t")
    c.kill_all()
    c.start_all()
    c.until(lambda: is_there(c, 4, 2, 1), "the move is complete")
    c.settle("t")
    assert c.ends("t") == [4, 4, 4]


def test_a_replica_that_was_taken_away_and_given_back_begins_with_nothing_said() -> None:
    """R114: broker 3 has not heard that it was a replica no more, when it is one again. What it says
    by the epoch of before counts for nothing: it is about to delete what it speaks of."""
    c = cluster(session_timeout_ms=20_000, peer_timeout_ms=20_000)
    epoch = c.state("t").leader_epoch
    parting = c.network.hold(AlterPartition)
    move(c, 1, 2)
    c.until(lambda: bool(parting.messages), "the leader asks for the ISR without broker 3")
    c.network.pass_all()
    told = c.network.hold(HeartbeatReply, when=lambda m: m.broker_epoch == c.invariants.truth.brokers[3].epoch)  # type: ignore[attr-defined]
    parting.release()
    c.until(lambda: is_there(c, 1, 2))
    c.admin.request(MoveReplicas([ReplicaMove("t", 0, [1, 2, 3])]))
    c.run(3000)
    c.network.pass_all()
    told.release()
    c.run(1000)
    c.until(lambda: is_there(c, 1, 2, 3), within_ms=40_000)
    c.settle("t")
    assert c.state("t").leader_epoch == epoch + 1


def test_what_was_acknowledged_because_of_who_goes_is_held_by_those_who_stay() -> None:
    """R115: acks=2 by the leader and broker 3. The ISR parts with 3 when broker 2 holds that, too,
    and from then on 3 does not count."""
    c = cluster(min_isr=1, replica_lag_max_ms=60_000)
    late = c.network.hold(ReplicaFetch, when=lambda m: m.broker_id == 2)  # type: ignore[attr-defined]
    c.produce("t", acks=2)
    move(c, 1, 2)
    c.run(1000)
    assert c.isr("t") == [1, 2, 3]
    assert has_copy(c, 3)
    write = c.produce("t", acks=2, wait=False)
    c.run(1000)
    assert write.outcome is None
    c.network.pass_all()
    late.release()
    c.until(lambda: is_there(c, 1, 2))
    assert c.ended(write).outcome in ("ok", "unknown")
    c.settle("t")


def test_a_broker_that_was_away_deletes_what_was_taken_from_it() -> None:
    """R116: its own copy of the metadata had the replica, and the journal has it no more."""
    c = cluster(snapshot_records=5)
    c.run(2000)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    move(c, 1, 2, 4)
    c.until(lambda: is_there(c, 1, 2, 4))
    c.broker(3).start()
    c.until(c.all_ready)
    c.until(lambda: not has_copy(c, 3), "the copy has gone")
    assert c.broker(3).store.strays == 0


def test_a_broker_that_knows_nothing_of_before_keeps_what_it_finds() -> None:
    """R116: that there is no replica here by the journal of today is no proof that what is here was
    taken away. It is kept, and comes back with the replica."""
    c = cluster(snapshot_records=5)
    c.run(2000)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.broker(3).machine.disk.remove(f"{DATA_DIR}/metadata")
    move(c, 1, 2, 4)
    c.until(lambda: is_there(c, 1, 2, 4))
    c.broker(3).start()
    c.until(c.all_ready)
    c.until(lambda: not has_copy(c, 3), "it is put aside")
    assert c.broker(3).store.strays == 1
    move(c, 1, 2, 3)
    c.until(lambda: is_there(c, 1, 2, 3))
    c.settle("t")
    assert c.broker(3).store.strays == 0


def test_a_broker_is_forgotten_when_it_holds_nothing_and_does_not_run() -> None:
    """R117: and whoever comes with its id later is a new broker, also with its old directory."""
    c = cluster()
    assert "has replicas of t-0" in getattr(c.change(RemoveBroker(3)), "detail", "")
    move(c, 1, 2, 4)
    c.until(lambda: is_there(c, 1, 2, 4))
    assert "runs at" in getattr(c.change(RemoveBroker(3)), "detail", "")
    c.broker(3).kill()
    c.until(lambda: c.invariants.truth.brokers[3].fenced)
    assert not hasattr(c.change(RemoveBroker(3)), "code")
    assert 3 not in c.invariants.truth.brokers
    assert "there is no broker 3" in getattr(c.change(RemoveBroker(3)), "detail", "")
    c.broker(3).start()
    c.until(c.all_ready)
    move(c, 1, 2, 3)
    c.until(lambda: is_there(c, 1, 2, 3))
    c.settle("t")


def test_what_moves_takes_no_more_than_its_budget() -> None:
    """R113: who is to come copies in its own time. Others are in sync meanwhile, and writes go on."""
    c = cluster(move_bytes_per_second=10_000, replica_fetch_bytes_max=16_384)
    for _ in range(40):
        c.produce("t", 100)
    c.settle("t", within_ms=60_000)
    size = c.log(1, "t").inner.size_bytes
    assert size > 50_000
    began_ms = c.world.now_ms
    move(c, 1, 2, 4)
    c.until(lambda: c.log(4, "t").end_offset > 0)
    for _ in range(5):
        c.produce("t")
    assert c.isr("t") == [1, 2, 3]
    c.until(lambda: is_there(c, 1, 2, 4), within_ms=60_000)
    assert c.world.now_ms - began_ms > 1000 * (size - 30_000) / 10_000
    c.settle("t")


def test_a_broker_that_is_about_to_join_is_not_forgotten() -> None:
    """R117: it has registered, and is fenced until it is heard. So it runs."""
    c = cluster()
    c.broker(4).kill()
    c.until(lambda: c.invariants.truth.brokers[4].fenced)
    before = c.invariants.truth.brokers[4].epoch
    c.network.hold(Heartbeat, when=lambda m: m.broker_id == 4)  # type: ignore[attr-defined]
    c.broker(4).start()
    c.until(lambda: c.invariants.truth.brokers[4].epoch > before, "it has registered")
    c.run(1000)
    assert "is starting" in getattr(c.change(RemoveBroker(4)), "detail", "")
    c.broker(4).kill()
    c.run(c.controller.settings.session_timeout_ms + 1000)
    assert not hasattr(c.change(RemoveBroker(4)), "code")
    c.run(c.controller.settings.session_timeout_ms + 1000)
    assert 4 not in c.invariants.truth.brokers
    c.produce("t")


def test_a_copy_by_which_a_broker_was_elected_is_not_deleted_by_an_older_record() -> None:
    """R116: broker 3 hears late that it was taken away, and has told meanwhile what it holds, because
    it is a replica again. It leads by that."""
    c = cluster(session_timeout_ms=20_000, peer_timeout_ms=20_000)
    parting = c.network.hold(AlterPartition)
    move(c, 1, 2)
    c.until(lambda: bool(parting.messages), "the leader asks for the ISR without broker 3")
    c.network.pass_all()
    told = c.network.hold(HeartbeatReply, when=lambda m: m.broker_epoch == c.invariants.truth.brokers[3].epoch)  # type: ignore[attr-defined]
    parting.release()
    c.until(lambda: is_there(c, 1, 2))
    c.until(lambda: bool(told.messages), "the answer that says so is on its way")
    c.admin.request(MoveReplicas([ReplicaMove("t", 0, [1, 2, 3])]))
    c.run(500)
    c.broker(1).kill()
    c.broker(2).kill()
    c.until(lambda: c.leader("t") == -1)
    c.elect(unclean=True)
    assert c.leader("t") == 3
    c.network.pass_all()
    told.release()
    c.run(2000)
    assert c.log(3, "t").end_offset == 3
    c.broker(1).start()
    c.broker(2).start()
    c.until(lambda: is_there(c, 1, 2, 3), within_ms=40_000)
    c.settle("t")
    assert c.ends("t") == [3, 3, 3]


def test_an_unclean_election_does_not_end_a_move_in_the_same_step() -> None:
    """R113: the epoch that the journal calls unclean is the one in which its leader leads."""
    c = cluster(min_isr=1, brokers=5)
    c.network.cut(1, 5)
    c.network.cut(4, 5)
    move(c, 4, 5)
    c.until(lambda: 4 in c.isr("t"), "broker 4 is in sync")
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
    c.until(lambda: c.isr("t") == [4])
    move(c)
    c.broker(4).kill()
    c.until(lambda: c.leader("t") == -1)
    c.broker(1).start()
    c.until(lambda: c.invariants.truth.is_eligible(1))
    c.elect(unclean=True)
    (unclean,) = c.invariants.truth.unclean_elections
    assert (c.leader("t"), c.state("t").leader_epoch) == (1, unclean.leader_epoch)
    c.until(lambda: is_there(c, 1, 2, 3), "it is back")
