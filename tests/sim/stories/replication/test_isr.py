"""Stories of the ISR: who is in it, what it promises, and proposals that go astray."""

from __future__ import annotations

from minilog.core.replication.leader import LeaderState
from minilog.wire.journal.metadata_records import PartitionChanged
from minilog.wire.messages import (
    AlterPartition,
    AlterPartitionReply,
    HeartbeatReply,
    Message,
    ReplicaFetchReply,
)
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Held


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def test_a_follower_that_is_cut_off_leaves_and_comes_back() -> None:
    """R19: for as long as it may lag everybody waits for it, and no longer."""
    c = cluster(replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.network.cut(1, 3)
    waited = c.produce("t", wait=False)
    c.until(lambda: c.isr("t") == [1, 2])
    assert c.ended(waited).outcome == "unknown", "it waited for 3 until the time was up, and committed without it after"
    c.produce("t", 5)
    c.network.heal()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    c.settle("t")
    assert c.ends("t") == [7, 7, 7]


def test_a_leader_that_stood_still_keeps_its_followers() -> None:
    """R19: alone, for less than its session, and together with everybody, as on a machine that
    sleeps. The followers hold all, and ask at once when it goes on."""
    c = cluster(session_timeout_ms=10_000, replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 3)
    c.run(1000)
    for nodes in ([c.broker(1)], [c.controller, *c.brokers.values()]):
        for node in nodes:
            node.pause()
        c.run(5000)
        for node in nodes:
            node.resume()
        c.run(3000)
    state, replica = c.state("t"), c.replica(1, "t")
    assert replica is not None
    assert (state.leader, state.leader_epoch, replica.isr_shrinks) == (1, 0, 0)


def test_too_few_replicas_refuse_before_the_append() -> None:
    """R11: the first check. The refusal is definite and nothing was written."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.run(50)
    c.producer.load.attempts_max = 1
    write = c.ended(c.produce("t", wait=False))
    assert write.outcome == "failed"
    assert write.error is not None
    assert write.error.code == "NOT_ENOUGH_REPLICAS"
    assert c.log(1, "t").end_offset == 1
    assert c.produce("t", acks=1).outcome == "ok"


def test_too_few_replicas_after_the_append_say_that_it_may_yet_commit() -> None:
    """R11: the second check. The ISR shrinks while the record waits, and the answer is
    indefinite."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.network.cut(1, 2)
    write = c.produce("t", wait=False)
    c.run(20)
    c.broker(2).kill()
    assert c.ended(write).outcome == "unknown"
    assert write.error is not None
    assert write.error.code == "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    c.network.heal()
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [2, 2], "and here it did"


def applied_and_not_told(**timeouts: int) -> tuple[SimCluster, Held]:
    """Broker 2 was added to the ISR, and its leader, broker 1, has not heard of it."""
    c = cluster(2, **timeouts)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.produce("t")

    def tells(message: Message) -> bool:
        records = message.records if isinstance(message, HeartbeatReply) else []
        is_news = any(isinstance(record, PartitionChanged) for record in records)
        return isinstance(message, AlterPartitionReply) or is_news

    c.broker(2).start()
    c.until(lambda: c.all_ready())
    answers = c.network.hold(HeartbeatReply, AlterPartitionReply, when=tells)
    c.until(lambda: c.isr("t") == [1, 2])
    return c, answers


def test_a_proposed_member_counts_before_the_answer_comes() -> None:
    """R13: the controller may have added 2 already and may elect it, so nothing is committed
    without it."""
    c, answers = applied_and_not_told(replica_lag_max_ms=400)
    c.network.cut(1, 2)
    write = c.produce("t", wait=False)
    c.run(900)
    assert write.outcome is None
    c.network.pass_all()
    answers.release()
    c.network.heal()
    c.settle("t")


def test_a_proposal_that_got_no_answer_is_not_given_up() -> None:
    """R14: the request timed out, which proves nothing. It was applied."""
    c, answers = applied_and_not_told(replica_lag_max_ms=400, peer_timeout_ms=300)
    c.network.cut(1, 2)
    c.run(500)
    write = c.produce("t", wait=False)
    c.run(300)
    assert write.outcome is None
    role = c.replica(1, "t").role  # type: ignore[union-attr]
    assert isinstance(role, LeaderState)
    assert role.proposal is not None
    c.network.pass_all()
    answers.release()
    c.network.heal()
    c.settle("t")


def test_a_follower_that_slept_joins_when_it_has_caught_up_and_not_when_it_is_back() -> None:
    """R18: it was in sync a moment ago and it is the same process. It lacks what was committed
    meanwhile."""
    c = cluster(session_timeout_ms=500)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    c.broker(3).pause()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 3)
    c.network.cut(1, 3)
    c.broker(3).resume()
    c.until(lambda: c.invariants.truth.brokers[3].eligible)
    c.run(1000)
    assert c.isr("t") == [1, 2]
    c.network.heal()
    c.settle("t")


def test_a_late_copy_of_a_refused_proposal_is_never_applied() -> None:
    """R15: two copies of one proposal. One is refused because its member is fenced, the other comes
    when it is not."""
    c = cluster(2, replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    late = c.network.hold(AlterPartition)
    c.broker(2).start()
    c.until(lambda: bool(late.messages))
    c.broker(2).pause()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    c.network.pass_all()
    leader = c.replica(1, "t")
    assert leader is not None
    c.until(lambda: getattr(leader.role, "proposal", None) is None, "the second copy is refused")
    c.network.cut(1, 2)
    c.broker(2).resume()
    c.until(lambda: not c.invariants.truth.brokers[2].fenced)
    c.run(1500)
    c.produce("t", 2)
    late.release()
    c.run(1000)
    assert c.isr("t") == [1]
    c.network.heal()
    c.settle("t")
    assert c.ends("t") == [2, 2]


def test_a_proposal_for_an_isr_of_yesterday_is_not_applied() -> None:
    """R16: while the leader asks to drop 3, the controller drops 2. Later 2 is fit again, and the
    request arrives."""
    c = cluster(replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    c.network.cut(1, 3)
    c.produce("t", wait=False)
    late = c.network.hold(AlterPartition)
    c.until(lambda: bool(late.messages))
    c.broker(2).pause()
    c.network.heal()
    c.until(lambda: c.isr("t") == [1, 3])
    c.network.cut(1, 2)
    c.network.pass_all()
    c.broker(2).resume()
    c.until(lambda: not c.invariants.truth.brokers[2].fenced)
    c.produce("t", 2)
    late.release()
    c.run(100)
    assert c.isr("t") == [1, 3]
    c.network.heal()
    c.settle("t")


def test_a_proposal_vouches_for_the_process_it_saw_and_for_no_other() -> None:
    """R17: (KIP-903) broker 2 is proposed, its disk is replaced, it fetches from 0 on, and the
    leader asks again."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t", 3)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    asked = c.network.hold(AlterPartition)
    c.broker(2).start()
    c.until(lambda: bool(asked.messages))
    c.broker(2).wipe()
    c.broker(2).disk_delay_ms = (5000, 5000)
    c.broker(2).start()
    c.until(lambda: c.all_ready() and c.ends("t") == [3, 3])
    c.network.pass_all()
    asked.release()
    c.run(3000)
    assert c.isr("t") == [1]
    c.settle("t")


def test_a_broker_that_is_leaving_joins_no_isr() -> None:
    """R17: it has caught up and may be asked for; but it said that it goes, and it is not to be
    relied upon."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    asked = c.network.hold(AlterPartition)
    c.broker(2).start()
    c.until(lambda: bool(asked.messages))
    c.network.cut(-1, 1, both=False)  # so that the controller waits for 1 to know, and 2 for the controller
    c.broker(2).stop()
    c.until(lambda: c.invariants.truth.brokers[2].shutting_down)
    c.network.pass_all()
    asked.release()
    c.run(300)
    assert c.broker(2).running
    assert c.isr("t") == [1]
    c.network.heal()
    c.until(lambda: not c.broker(2).running)


def test_a_copied_diverging_answer_cuts_nothing() -> None:
    """R5: broker 1 comes back with a tail of its own and is told where to cut. The same answer
    comes again later."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    c.produce("t", 2, acks=1)
    c.until(lambda: c.leader("t") in (2, 3))
    copies = c.network.copy(
        ReplicaFetchReply,
        when=lambda m: isinstance(m, ReplicaFetchReply) and any(r.diverging is not None for r in m.partitions),
    )
    c.network.heal()
    c.settle("t")
    assert copies.messages, "it was told"
    c.produce("t", 2)
    c.settle("t")
    ends = c.ends("t")
    copies.release()
    c.run(50)
    assert c.ends("t") == ends
    assert not c.log(1, "t").truncated


def test_a_follower_that_has_no_room_to_cut_its_tail_is_sent_nothing() -> None:
    """R2: the tail goes to quarantine before it is cut. On a full disk it stays, and nothing may be
    put behind it."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    c.produce("t", 2, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 2)
    c.broker(1).machine.disk.full = True
    c.network.heal()
    c.until(lambda: c.isr("t") == [2, 3] and not c.invariants.truth.brokers[1].fenced)
    for _ in range(10):
        c.produce("t", 2)
        c.run(100)
    assert c.log(1, "t").end_offset == 3
    c.broker(1).machine.disk.full = False
    for _ in range(10):
        c.produce("t", 2)
        c.run(20)
    c.settle("t")


def test_a_follower_that_dies_on_its_way_into_the_isr_holds_nobody_up() -> None:
    """R8: the high watermark waits for a follower that is about to join. When it is fenced there is
    nothing to wait for."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    for _ in range(20):
        c.produce("t")
    c.broker(2).disk_delay_ms = (100, 100)
    c.broker(2).start()
    c.until(lambda: c.invariants.truth.brokers[2].eligible)
    c.run(60)
    assert c.isr("t") == [1]
    c.broker(2).kill()
    write = c.produce("t")
    assert write.ended_ms - write.began_ms < 300


def test_two_copies_are_the_leader_and_another() -> None:
    """R9: acks=2 is not reached by two followers while the leader's own disk is slow."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.broker(1).disk_delay_ms = (500, 500)
    write = c.produce("t", acks=2, wait=False)
    c.until(lambda: c.log(2, "t").durable_end == 2 and c.log(3, "t").durable_end == 2)
    c.run(100)
    assert write.outcome is None
    c.ended(write)
    assert c.log(1, "t").durable_end == 2


def test_a_leader_with_a_flush_under_way_becomes_a_follower() -> None:
    """R8: its log grew after that flush began: the first fetch, which acknowledges, has to wait for
    one more."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]])
    c.produce("t")
    c.broker(1).disk_delay_ms = (4000, 4000)
    c.network.cut(1, -1)
    c.network.cut(1, 2)
    c.until(lambda: c.leader("t") == 2)
    for _ in range(2):
        c.produce("t", acks=1, at=1, wait=False)
        c.run(50)
    c.network.heal()
    c.until(lambda: c.log(1, "t").truncated is False and c.converged("t"), within_ms=30_000)
    assert c.ends("t") == [1, 1]
