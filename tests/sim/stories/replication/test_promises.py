"""Stories of what weaker levels promise, of planned stops, and of what readers are told of age."""

from __future__ import annotations

from minilog.wire.messages import AlterPartition, Fetch, FetchPartition, FetchReply, Message, ReplicaFetchReply
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def carries(message: Message, topic: str) -> bool:
    return isinstance(message, ReplicaFetchReply) and any(
        part.topic == topic and len(part.batches) for part in message.partitions
    )


def test_two_copies_are_two_copies() -> None:
    """R9: acks=2 waits for a second member of the ISR, and no longer."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.settle("t")
    held = c.network.hold(ReplicaFetchReply, when=lambda message: carries(message, "t"))
    one, two = c.produce("t", acks=1), c.produce("t", acks=2, wait=False)
    c.run(100)
    assert one.outcome == "ok"
    assert two.outcome is None
    c.network.pass_all()
    held.release()
    assert c.ended(two).outcome == "ok"


def test_a_copy_outside_the_isr_is_none() -> None:
    """R9: a replica that is still catching up is asked in no election, so its copy is not
    counted."""
    c = cluster(replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.network.hold(AlterPartition)
    c.broker(3).start()
    c.until(lambda: c.log(3, "t").end_offset == 1 if c.replica(3, "t") else False)
    held = c.network.hold(ReplicaFetchReply, when=lambda message: carries(message, "t"))
    write = c.produce("t", acks=2, wait=False)
    c.until(lambda: len(held.messages) >= 2)
    c.network.cut(1, 2)
    held.release()
    c.run(100)
    assert c.log(3, "t").end_offset == 2
    assert write.outcome is None


def test_a_planned_stop_hands_over_what_one_copy_was_promised_of() -> None:
    """R28: a record of acks=1 that no follower has yet is in the log of whoever leads next."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.settle("t")
    slow = c.network.hold(ReplicaFetchReply, when=lambda message: carries(message, "t"))
    write = c.produce("t", acks=1)
    c.broker(1).stop()
    c.run(50)
    c.network.pass_all()
    slow.release()
    c.until(lambda: not c.broker(1).running)
    c.broker(1).start()
    c.settle("t")
    assert write.outcome == "ok"
    assert c.ends("t") == [1, 1, 1]


def test_what_nobody_alive_holds_may_be_lost_at_acks_1_and_is_known_to_be() -> None:
    """R9: the only holder is dead when its successor is chosen. The loss is one that the checker
    can explain."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    c.network.hold(ReplicaFetchReply, when=lambda message: carries(message, "t"))
    c.produce("t", acks=1)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") not in (1, -1))
    c.network.pass_all()
    c.produce("t")
    c.broker(1).start()
    c.settle("t")
    weak = c.history.of("t", c.state("t").topic_id, 0).weak
    assert weak.given_up == {1}


def test_a_follower_shows_what_is_committed_and_no_more() -> None:
    """R7: a follower that holds more than is committed shows its readers none of that."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    c.run(300)
    c.network.cut(1, 3)
    c.produce("t", acks=2)
    answers: list[Response] = []
    c.admin.ask(2, Fetch([FetchPartition("t", 0, 0)], any_replica=True), answers.append, 1000)
    c.until(lambda: bool(answers))
    assert isinstance(answers[0], FetchReply)
    assert c.log(2, "t").end_offset == 2
    assert answers[0].partitions[0].high_watermark == 1


def test_a_follower_that_is_cut_off_grows_older_and_says_so() -> None:
    """R12: what it shows is what was committed when it last heard. A reader that wants it fresher
    is sent to the leader."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    c.run(300)
    c.network.cut(1, 3)
    c.produce("t", acks=2)
    c.run(400)
    answers: list[Response] = []
    for lag_max_ms in (-1, 100):
        fetch = Fetch([FetchPartition("t", 0, 0)], any_replica=True, max_lag_ms=lag_max_ms)
        c.admin.ask(3, fetch, answers.append, 1000)
    c.until(lambda: len(answers) == 2)
    anything, fresh = (answer.partitions[0] for answer in answers if isinstance(answer, FetchReply))
    assert anything.lag_ms >= 400
    assert fresh.problem is not None
    assert fresh.problem.code == "NOT_LEADER"


def test_an_election_hears_who_answers_however_long_the_journal_took() -> None:
    """R57, R9: the append that fences a leader takes longer than an election may. Its candidates
    are asked after that."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    c.network.cut(1, 2)
    write = c.ended(c.produce("t", acks=2, wait=False))
    assert write.outcome == "ok"
    assert (c.log(2, "t").end_offset, c.log(3, "t").end_offset) == (1, 2)
    c.controller.journal_delay_ms = (400, 400)
    c.broker(1).kill()
    c.network.heal()
    c.until(lambda: c.leader("t") in (2, 3) and c.leads(c.leader("t"), "t"))
    assert c.leader("t") == 3, "a holder answered within a few milliseconds"
