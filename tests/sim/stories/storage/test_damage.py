"""Stories of replicas that know they are damaged, or could not be opened: they neither lead nor
count."""

from __future__ import annotations

import struct

from minilog.wire.batch import peek
from minilog.wire.messages import Fetch, FetchPartition, FetchReply
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response

FIRST_SEGMENT = "/data/broker/t-0/00000000000000000000.log"


def cluster(assignment: list[int], brokers: int = 3) -> SimCluster:
    c = SimCluster(seed=1, brokers=brokers).start()
    c.create_topic("t", assignment=[assignment], min_isr=2)
    c.produce("t", 5)
    c.produce("t", 5)
    c.settle("t")
    return c


def damage(c: SimCluster, broker_id: int) -> None:
    """A bit has changed on that disk, and a reader finds it."""
    c.broker(broker_id).machine.disk.flip_bit(FIRST_SEGMENT, 70)
    answer = read(c, broker_id, any_replica=True)
    assert answer.partitions[0].problem is not None
    assert answer.partitions[0].problem.code == "CORRUPT_RANGE"
    assert c.log(broker_id, "t").is_damaged


def read(c: SimCluster, broker_id: int, *, any_replica: bool = False) -> FetchReply:
    answers: list[Response] = []
    request = Fetch([FetchPartition("t", 0, 0)], any_replica=any_replica)
    c.admin.ask(broker_id, request, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    assert isinstance(answers[0], FetchReply)
    return answers[0]


def test_a_replica_that_knows_it_is_damaged_is_not_elected() -> None:
    """R53, R20: it is first in line and as long as the other, and a part of it cannot be read."""
    c = cluster([2, 1, 3])
    damage(c, 1)
    c.broker(2).kill()
    c.until(lambda: c.leader("t") not in (2, -1))
    assert c.leader("t") == 3
    assert read(c, 3).partitions[0].problem is None


def test_a_damaged_follower_leaves_the_isr_and_is_not_let_in_again() -> None:
    """R53, R20: what it acknowledges is no copy to rely on."""
    c = cluster([1, 2, 3])
    damage(c, 2)
    c.until(lambda: c.isr("t") == [1, 3], within_ms=2000)
    for _ in range(20):
        c.produce("t")
        c.run(100)
        assert c.isr("t") == [1, 3]
    assert c.elr("t") == []


def test_a_damaged_leader_hands_over_to_a_whole_replica() -> None:
    """R53, R20: nobody has to restart it for that."""
    c = cluster([1, 2, 3])
    damage(c, 1)
    c.until(lambda: c.leader("t") in (2, 3), within_ms=2000)
    assert c.isr("t") == [2, 3]
    assert read(c, c.leader("t")).partitions[0].problem is None
    c.produce("t")


def test_a_damaged_leader_that_is_alone_serves_on_until_somebody_else_can() -> None:
    """R53, R20: the other one is away, and knows it all. What can be read here is better than
    nothing until it is back."""
    c = cluster([1, 2], brokers=2)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    damage(c, 1)
    c.run(2000)
    assert c.leader("t") == 1
    c.broker(2).start()
    c.until(lambda: c.leader("t") == 2)
    c.until(lambda: read(c, 2).partitions[0].problem is None)


def test_a_replica_that_could_not_be_opened_does_not_lead() -> None:
    """R53, R20: the disk was full when the topic was made. Whoever leads must hold something."""
    c = SimCluster(seed=1, brokers=3).start()
    c.broker(1).machine.disk.full = True
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.until(lambda: c.leader("t") in (2, 3) and c.isr("t") == [2, 3], within_ms=2000)
    c.produce("t", 3)
    c.broker(1).machine.disk.full = False
    c.settle("t")


def test_what_one_disk_has_lost_from_the_beginning_is_not_deleted_everywhere() -> None:
    """R61: no retention has let the oldest file go. If that replica led, all would follow its
    start."""
    c = SimCluster(seed=1, brokers=3, timeouts={"retention_check_ms": 50}).start()
    c.create_topic(
        "t", assignment=[[1, 2, 3]], min_isr=2, segment_bytes="1048576", retention_ms="3600000", segment_ms="5000"
    )
    c.produce("t", 5)
    c.run(10_000)
    c.produce("t", 5)
    c.until(lambda: all(len(c.log(b, "t").segments) == 2 for b in (1, 2, 3)))
    c.settle("t")
    c.broker(1).kill()
    c.until(lambda: c.leader("t") in (2, 3))
    c.broker(1).machine.disk.remove(FIRST_SEGMENT)
    c.broker(1).store.on_wipe()  # what is gone is no surprise to the witness
    c.broker(1).start()
    c.run(2000)
    assert "is damaged" in c.broker(1).refused
    c.broker(2).kill()
    c.run(5000)
    assert c.log(3, "t").start_offset == 0


def test_a_leader_that_cannot_give_a_batch_because_of_its_epoch_hands_over() -> None:
    """R53: 3 was away and lacks it. The checksum is right, only the log's own epochs tell; 2 has it
    whole."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 5)
    c.settle("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    position = c.log(1, "t").size_bytes
    c.produce("t", 5)
    c.until(lambda: c.log(2, "t").high_watermark == 10)
    struct.pack_into(">i", c.broker(1).machine.disk._file(FIRST_SEGMENT).content, position + 12, 0x100)
    c.broker(3).start()
    c.until(lambda: c.leader("t") == 2 and c.isr("t") == [2, 3], within_ms=30_000)


def sealed(leader: int) -> SimCluster:
    """What will be damaged lies in a sealed segment, and a checkpoint speaks for it: no start reads
    it."""
    c = SimCluster(seed=1, brokers=3, timeouts={"checkpoint_interval_ms": 200}).start()
    others = [broker_id for broker_id in (1, 2, 3) if broker_id != leader]
    c.create_topic("t", assignment=[[leader, *others]], min_isr=2, segment_bytes="4096")
    c.produce("t", 5)
    c.produce("t", 400)
    c.settle("t")
    c.run(1000)
    assert all(len(c.log(broker_id, "t").segments) == 2 for broker_id in (1, 2, 3))
    return c


def test_damage_that_was_found_is_not_forgotten_by_a_restart() -> None:
    """R53: it would be let in again, count for acks=all, and lead."""
    c = sealed(leader=1)
    damage(c, 2)
    c.until(lambda: c.isr("t") == [1, 3], within_ms=2000)
    for end in ("kill", "crash", "kill"):
        c.broker(2).kill() if end == "kill" else c.broker(2).crash()
        c.broker(2).start()
        c.run(2000)
        assert "the log of t-0 is damaged" in c.broker(2).refused
        assert c.isr("t") == [1, 3]


def test_damage_is_not_forgotten_by_a_clean_stop() -> None:
    """R53: whose checkpoint vouches for all that the log holds."""
    c = sealed(leader=1)
    damage(c, 2)
    c.until(lambda: c.isr("t") == [1, 3], within_ms=2000)
    c.broker(2).stop()
    c.until(lambda: not c.broker(2).running)
    c.broker(2).start()
    c.run(2000)
    assert "the log of t-0 is damaged" in c.broker(2).refused
    assert c.isr("t") == [1, 3]


def test_damage_that_was_mended_is_no_reason_to_refuse() -> None:
    """R53: what was noted is looked at, and not believed for ever."""
    c = sealed(leader=1)
    damage(c, 2)
    c.until(lambda: c.isr("t") == [1, 3], within_ms=2000)
    c.broker(2).kill()
    c.broker(2).machine.disk.flip_bit(FIRST_SEGMENT, 70)
    c.broker(2).start()
    c.until(lambda: c.isr("t") == [1, 2, 3], within_ms=30_000)


def diverging(segment_bytes: str) -> SimCluster:
    """1 is in the ELR, holds all 20 committed records, and behind them what nobody else has got."""
    c = SimCluster(seed=1, brokers=2, timeouts={"checkpoint_interval_ms": 200}).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=2, segment_bytes=segment_bytes)
    for _ in range(10):
        c.produce("t", 2)
    c.settle("t")
    c.broker(1).crash()  # now there is a state file
    c.broker(1).start()
    c.settle("t")
    c.broker(2).kill()
    c.until(lambda: c.leader("t") == 1)
    c.broker(2).start()
    c.settle("t")
    c.until(lambda: c.log(2, "t").high_watermark == 20)
    c.cut_off(1)
    c.produce("t", 3, acks=1, at=1)
    c.produce("t", 400, acks=1, at=1)
    c.until(lambda: c.leader("t") == 2)
    assert (c.isr("t"), c.elr("t")) == ([2], [1])
    c.run(1000)
    assert (len(c.log(1, "t").segments) == 2) == (segment_bytes == "4096")
    c.broker(1).kill()
    return c


def test_a_flipped_bit_in_the_state_of_an_eligible_replica_does_not_empty_its_log() -> None:
    """R94, R20: nothing was ever swept here, so a cut takes what is cut. Without any committed record
    it would be elected next."""
    c = diverging("1048576")
    c.broker(1).machine.disk.flip_bit("/data/broker/t-0/truncations", 40)
    c.network.heal()
    c.broker(1).start()
    c.until(lambda: c.replica(1, "t") is not None and c.log(1, "t").end_offset <= 20)
    assert c.log(1, "t").end_offset == 20
    c.broker(2).kill()
    c.until(lambda: c.leader("t") == 1)
    c.broker(2).start()
    c.settle("t")
    assert c.log(2, "t").end_offset == 20


def test_a_cut_that_meets_damage_in_the_last_committed_batch_is_refused() -> None:
    """R53: it would be a shorter log, and whole."""
    c = diverging("4096")
    content = c.broker(1).machine.disk._file(FIRST_SEGMENT).content
    position = 0
    while peek(bytes(content), position).base_offset < 18:
        position += peek(bytes(content), position).bytes_total
    content[position:] = b"\xaa" * (len(content) - position)  # one bad sector, in a sealed segment
    c.network.heal()
    c.broker(1).start()
    c.until(lambda: c.elr("t") == [])
    assert c.isr("t") == [2]
    assert c.log(1, "t").is_damaged
    assert c.log(1, "t").end_offset == 423
