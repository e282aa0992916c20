"""Stories of answers that come late: the topic, the process or the ISR they are about is another
one by now."""

from __future__ import annotations

from unittest.mock import patch

from minilog.errors import MinilogError
from minilog.storage.store import Store
from minilog.wire.messages import (
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    Fetch,
    FetchPartition,
    FetchReply,
    Heartbeat,
    Message,
    Ok,
    PositionsReply,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ReplicaFetchReply,
)
from minilog.wire.records import encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def has_data(message: Message) -> bool:
    return isinstance(message, ReplicaFetchReply) and any(len(r.batches) for r in message.partitions)


def ask(c: SimCluster, broker_id: int, request: Message) -> Response:
    answers: list[Response] = []
    c.admin.ask(broker_id, request, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    return answers[0]


def test_an_answer_about_a_deleted_topic_is_not_for_the_one_that_has_its_name() -> None:
    """R47, R5: same name, same epoch, same offset: only the topic id tells them apart."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]])
    c.settle("t")
    held = c.network.hold(ReplicaFetchReply, when=has_data)
    c.produce("t", acks=1)
    c.until(lambda: bool(held.messages))
    c.network.pass_all()
    c.delete_topic("t")
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    write = c.produce("t", wait=False)
    c.run(20)
    held.release()
    c.ended(write)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == 2)
    assert write.receipt is not None
    assert [entry.crc for entry in c.log(2, "t").mirror.entries] == [write.receipt.crc]


def test_a_position_counts_as_long_as_the_process_that_told_it() -> None:
    """R48, R9, R22: 1 tells, loses its disk and comes back with nothing. What it told is no reason
    to elect it. The brokers are of a version that does not say which disk they have (R36)."""
    with patch.object(Store, "directory_id", ""):
        _position_of_a_process()


def _position_of_a_process() -> None:
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t", 5)
    c.settle("t")
    told: list[int] = []

    def is_second(message: Message) -> bool:
        if isinstance(message, PositionsReply) and message.partitions:
            told.append(message.partitions[0].end_offset)
        return len(told) == 2

    for broker_id in (1, 2):
        c.broker(broker_id).crash()
    held = c.network.hold(PositionsReply, when=is_second)
    for broker_id in (1, 2):
        c.broker(broker_id).start()
    c.until(lambda: bool(held.messages))
    epoch = c.invariants.truth.brokers[1].epoch
    c.broker(1).wipe()
    c.broker(1).start()
    c.until(lambda: c.all_ready() and c.invariants.truth.brokers[1].epoch > epoch)
    held.release()
    c.network.pass_all()
    c.until(lambda: c.leader("t") > 0)
    c.settle("t")
    assert c.ends("t") == [5, 5]


def test_who_was_let_in_a_moment_ago_is_not_named_unasked() -> None:
    """R51, R28, R13: 3 has just joined and lags. The leader that leaves has not heard of that, and
    1 and 2 hold all."""
    c = cluster(replica_lag_max_ms=20_000)
    c.create_topic("t", assignment=[[1, 3, 2]])
    c.produce("t")
    c.settle("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    alter = c.network.hold(AlterPartition)
    c.broker(3).start()
    c.until(lambda: any(3 in [m.broker_id for m in p.isr] for a in alter.messages for p in a.partitions))  # type: ignore[attr-defined]
    c.network.cut(1, 3)
    slow = c.network.hold(ReplicaFetchReply, when=has_data)
    c.produce("t", acks=1)
    two = c.produce("t", acks=2, wait=False)
    c.run(5)
    c.broker(1).stop()
    c.until(lambda: c.broker(1).core.registration.standing.value == "draining")  # type: ignore[union-attr]
    alter.release()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    slow.release()
    c.network.pass_all()
    c.until(lambda: c.leader("t") not in (1, -1))
    c.network.heal()
    c.until(lambda: not c.broker(1).running)
    c.broker(1).start()
    c.settle("t")
    assert two.outcome == "ok"
    assert c.ends("t") == [3, 3, 3]


def test_two_copies_are_two_members_of_whatever_isr_the_controller_goes_by() -> None:
    """R50, R9, R13: 3 holds the record and is about to be taken out: it does not count, for no
    election will ask it."""
    c = cluster(replica_lag_max_ms=1000)
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.settle("t")
    alter = c.network.hold(AlterPartition)
    c.network.cut(1, 3)
    c.until(lambda: any(3 not in [m.broker_id for m in p.isr] for a in alter.messages for p in a.partitions))  # type: ignore[attr-defined]
    c.network.heal()
    c.run(1500)
    c.network.cut(1, 2)
    write = c.produce("t", acks=2, wait=False)
    c.until(lambda: c.log(3, "t").end_offset == 2)
    c.run(100)
    assert write.outcome != "ok", "3 holds it, and may be out of the ISR by now"
    alter.release()
    c.until(lambda: c.isr("t") == [1, 2])
    c.network.pass_all()
    c.network.heal()
    c.settle("t")


def test_whoever_names_a_topic_id_means_no_other_topic() -> None:
    """R49: writes, reads and deletions that were meant for a topic do nothing to the one that has
    its name now."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    old_id = c.invariants.truth.topics["t"].topic_id
    c.produce("t", 5)
    c.delete_topic("t")
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 2)
    produced = ask(c, 1, Produce(1, 1000, [ProducePartition("t", 0, memoryview(encode_values([b"x"], 0)), old_id)]))
    assert isinstance(produced, ProduceReply)
    assert produced.partitions[0].problem is not None
    assert produced.partitions[0].problem.code == "INCONSISTENT_TOPIC_ID"
    fetched = ask(c, 1, Fetch([FetchPartition("t", 0, 0, topic_id=old_id)]))
    assert isinstance(fetched, FetchReply)
    assert fetched.partitions[0].problem is not None
    assert fetched.partitions[0].problem.code == "INCONSISTENT_TOPIC_ID"
    deleted = ask(c, -1, DeleteTopic("t", old_id))
    assert isinstance(deleted, Problem | MinilogError)
    assert c.ends("t") == [2]
    assert isinstance(ask(c, -1, DeleteTopic("t", c.invariants.truth.topics["t"].topic_id)), Ok)


def test_a_broker_that_gives_the_address_of_another_one_takes_no_followers_from_it() -> None:
    """R88, R35: what broker 3 asks broker 2 for reaches broker 1, in sessions that are ahead of its
    sessions there."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 3]], min_isr=2)
    c.create_topic("u", assignment=[[2, 3]])
    for topic in ("t", "u"):
        c.settle(topic)
    core = c.broker(3).core
    assert core is not None
    core.replication.fetchers[2].session_id += 300
    c.network.processes[2] = c.broker(1)
    c.run(200)
    for _ in range(20):
        began_ms = c.world.now_ms
        c.produce("t")
        assert c.world.now_ms - began_ms < 50
        c.run(100)


def test_a_reader_that_waits_for_a_topic_does_not_go_over_to_its_successor() -> None:
    """R49: it waits for the first record of one topic, and the first record of another is none of
    its business."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    answers: list[Response] = []
    c.admin.ask(1, Fetch([FetchPartition("t", 0, 0)], max_wait_ms=20_000), answers.append, 30_000)
    c.run(100)
    asks = c.network.hold(Heartbeat)  # both changes reach the broker in one answer
    c.until(lambda: bool(asks.messages))
    old_id = c.invariants.truth.topics["t"].topic_id
    c.admin.request(DeleteTopic("t", old_id))
    c.until(lambda: "t" not in c.invariants.truth.topics)
    c.admin.request(CreateTopic("t", assignment=[[1]]))
    c.until(lambda: "t" in c.invariants.truth.topics)
    assert not answers
    c.network.pass_all()
    asks.release()
    c.until(lambda: c.leads(1, "t") and c.replica(1, "t").topic_id != old_id)  # type: ignore[union-attr]
    c.produce("t", 7)
    c.until(lambda: bool(answers))
    answer = answers[0]
    assert isinstance(answer, FetchReply)
    assert answer.partitions[0].problem is not None
    assert answer.partitions[0].problem.code == "INCONSISTENT_TOPIC_ID"
