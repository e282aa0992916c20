"""Stories of producers that number their batches (R31-R33): what is sent twice is written once,
wherever it is sent."""

from __future__ import annotations

from collections import Counter

from minilog.wire.messages import ACKS_ALL, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.records import Record, encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.clients import Load, Write
from tests.sim.nodes.network import Response
from tests.sim.nodes.numbered import NumberedProducer
from tests.unit.wire.batches import decode_all


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def producer(c: SimCluster, name: str = "n", attempts_max: int = 100) -> NumberedProducer:
    made = c.add_numbered_producer(name, Load(timeout_ms=300, attempts_max=attempts_max))
    made.ask_for_id()
    c.until(lambda: made.producer_id >= 0)
    return made


def send(c: SimCluster, n: NumberedProducer, count: int = 1, *, acks: int = ACKS_ALL, wait: bool = True) -> Write:
    state = c.state("t")
    if state.leader >= 0:
        n.leaders["t", 0] = (state.leader, state.leader_epoch)
    write = n.write("t", 0, acks, count)
    if wait:
        assert c.ended(write).outcome == "ok", write.error
    return write


def values(c: SimCluster, broker_id: int = 1) -> list[bytes]:
    log, found = c.log(broker_id, "t"), list[Record]()
    while not found or found[-1].offset + 1 < log.end_offset:
        offset = found[-1].offset + 1 if found else log.start_offset
        found += decode_all(log.read(offset, 2**20, log.end_offset))
    return [record.value or b"" for record in found]


def send_unheard(c: SimCluster, n: NumberedProducer, count: int = 1) -> Write:
    """Written and committed, but the answer is lost."""
    answers = c.network.hold(ProduceReply)
    write = send(c, n, count, wait=False)
    c.until(lambda: bool(answers.messages))
    return write


def test_a_write_whose_answer_was_lost_is_answered_again_and_not_written_again() -> None:
    """R31: the second answer names the offset of the first write."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c)
    answers = c.network.hold(ProduceReply)
    write = send(c, n, 3, wait=False)
    c.until(lambda: len(answers.messages) >= 2)
    c.network.pass_all()
    assert c.ended(write).outcome == "ok"
    assert write.receipt is not None
    assert write.receipt.duplicate
    assert write.receipt.base_offset == 0
    c.settle("t")
    assert c.ends("t") == [3, 3, 3]


def test_the_next_leader_recognizes_what_the_last_one_had_written() -> None:
    """R32: it never saw the request, only the replicated batch."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c)
    send(c, n)
    write = send_unheard(c, n, 2)
    c.broker(1).kill()
    c.network.pass_all()
    assert c.ended(write).outcome == "ok"
    assert write.receipt is not None
    assert (write.receipt.duplicate, write.receipt.base_offset, write.receipt.leader_epoch) == (True, 1, 0)
    send(c, n)
    c.broker(1).start()
    c.settle("t")
    assert values(c) == [b"n.%d" % i for i in range(4)]


def test_a_repeated_write_is_not_acknowledged_before_it_is_committed() -> None:
    """R31: the new leader holds it, its follower does not yet; saying "written" now could be a
    lie."""
    c = cluster(replica_lag_max_ms=10_000)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c)
    c.network.cut(1, 3)
    write = send(c, n, wait=False)
    c.until(lambda: c.log(2, "t").end_offset == 1)
    c.network.cut(2, 3)
    c.broker(1).kill()
    c.until(lambda: c.leads(2, "t") and c.isr("t") == [2, 3])
    c.until(lambda: n.problems["REQUEST_TIMED_OUT"] >= 2)
    assert write.outcome is None
    c.network.heal()
    assert c.ended(write).outcome == "ok"
    assert c.log(3, "t").end_offset == 1


def test_a_late_copy_of_an_earlier_request_is_not_written() -> None:
    """R31: whatever comes late has been written long ago, among the last five batches or before
    them."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c)
    copies = c.network.copy(Produce)
    for count in (1, 2, 1, 3, 1, 1, 1, 2):
        send(c, n, count)
    c.network.pass_all()
    copies.release()
    c.run(500)
    c.settle("t")
    assert values(c) == [b"n.%d" % i for i in range(12)]


def test_what_was_given_up_cannot_be_written_after_what_followed_it() -> None:
    """R33: the next write begins an epoch, and in it the old one's requests are fenced, however
    late they come."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c, attempts_max=1)
    held = c.network.hold(Produce)
    lost = send(c, n, wait=False)
    assert c.ended(lost).outcome == "unknown"
    c.network.pass_all()
    send(c, n)
    held.release()
    c.run(500)
    c.settle("t")
    assert n.epochs_begun == 1
    assert values(c) == [b"n.1"]


def test_what_follows_a_write_that_was_given_up_is_not_taken_for_it() -> None:
    """R33: under the same epoch and number it would be acknowledged as a copy of the other, and be
    lost."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c, attempts_max=1)
    written = send_unheard(c, n)
    assert c.ended(written).outcome == "unknown"
    c.network.pass_all()
    send(c, n)
    c.settle("t")
    assert values(c) == [b"n.0", b"n.1"]


def test_numbers_of_a_tail_that_was_cut_are_forgotten_with_it() -> None:
    """R32: 1 wrote what nobody else has. It comes back, is cut, and leads again: the number is
    free, and used once."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    n = producer(c)
    send(c, n)
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    write = send(c, n, 2, wait=False)
    c.until(lambda: c.log(1, "t").end_offset == 3)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 5)
    assert c.ended(write).outcome == "ok"
    c.network.heal()
    c.settle("t")
    for broker_id in (2, 3):
        c.broker(broker_id).stop()
        c.until(lambda b=broker_id: not c.broker(b).running)  # type: ignore[misc]
        c.broker(broker_id).start()
        c.until(c.all_ready)
    send(c, n, 2)
    c.settle("t")
    assert [v for v in values(c) if v.startswith(b"n.")] == [b"n.%d" % i for i in range(5)]


def test_numbers_survive_kills_and_power_cuts_of_everything() -> None:
    """R32: rebuilt from snapshot and log."""
    c = cluster(checkpoint_interval_ms=200)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2, segment_bytes="4096")
    n = producer(c)
    for end in ("kill", "crash", "kill", "crash"):
        for _ in range(30):
            send(c, n, 3)
        write = send_unheard(c, n)
        for node in c.brokers.values():
            node.kill() if end == "kill" else node.crash()
        c.network.pass_all()
        c.start_all()
        assert c.ended(write).outcome == "ok"
    c.settle("t")
    assert values(c) == [b"n.%d" % i for i in range(4 * 91)]
    assert n.duplicates >= 4


def test_no_id_is_ever_given_away_twice() -> None:
    """R33: over restarts of brokers and controller, however ids were left over."""
    c = cluster()
    ids: Counter[int] = Counter()
    for number in range(8):
        n = producer(c, f"n{number}")
        ids[n.producer_id] += 1
        c.broker(1 + number % 3).kill()
        if number % 2:
            c.controller.kill()
        c.start_all()
        c.until(c.all_ready)
    assert set(ids.values()) == {1}
    assert len(ids) == 8


def test_a_new_client_begins_without_a_controller() -> None:
    """Brokers have ids to give away from their registration on."""
    c = cluster()
    c.controller.kill()
    n = c.add_numbered_producer("n")
    n.ask_for_id()
    c.until(lambda: n.producer_id >= 0)


def test_a_new_client_of_brokers_without_ids_is_told_to_come_back() -> None:
    c = cluster(peer_timeout_ms=200)
    c.controller.kill()
    for broker in c.brokers.values():
        broker.kill()
        broker.start()
    n = c.add_numbered_producer("n")
    n.ask_for_id()
    c.until(lambda: n.problems["LEADER_NOT_AVAILABLE"] > 0)
    c.controller.start()
    c.until(lambda: n.producer_id >= 0)


def append(c: SimCluster, n: NumberedProducer, expected_offset: int, value: bytes, sequence: int) -> ProduceResult:
    batch = encode_values([value], c.world.now_ms, producer_id=n.producer_id, producer_epoch=0, base_sequence=sequence)
    entry = ProducePartition("t", 0, memoryview(batch), expected_offset=expected_offset)
    answers: list[Response] = []
    n.ask(c.state("t").leader, Produce(ACKS_ALL, 1000, [entry]), answers.append, 1000)
    c.until(lambda: bool(answers))
    assert isinstance(answers[0], ProduceReply)
    return answers[0].partitions[0]


def test_of_two_that_expect_the_same_end_one_writes() -> None:
    """R101: also when its answer is lost, and another broker leads by the time it asks again."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    first, second = producer(c, "first"), producer(c, "second")
    answers = c.network.hold(ProduceReply)
    batch = encode_values([b"a"], 0, producer_id=first.producer_id, producer_epoch=0, base_sequence=0)
    entry = ProducePartition("t", 0, memoryview(batch), expected_offset=0)
    first.ask(1, Produce(ACKS_ALL, 1000, [entry]), lambda answer: None, 1000)
    c.until(lambda: bool(answers.messages))
    c.brokers[1].kill()
    c.until(lambda: c.state("t").leader > 1)
    c.network.pass_all()
    lost = append(c, second, 0, b"b", 0)
    assert lost.problem is not None
    assert (lost.problem.code, lost.problem.info["end_offset"], lost.problem.definite) == (
        "END_OFFSET_MISMATCH",
        1,
        True,
    )
    won = append(c, first, 0, b"a", 0)
    assert (won.problem, won.base_offset, won.duplicate) == (None, 0, True)
    assert append(c, second, 1, b"b", 0).base_offset == 1
    assert values(c, c.state("t").leader) == [b"a", b"b"]
