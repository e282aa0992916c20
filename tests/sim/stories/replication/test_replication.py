"""Stories of replication: what a follower copies, cuts and acknowledges, and what is committed by
that."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.errors import MinilogError
from minilog.wire.messages import Message, OffsetsReply, PositionsReply, ReplicaFetch, ReplicaFetchReply
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Held


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def not_told(c: SimCluster, high_watermark: int) -> Held:
    """From now on no follower learns of a high watermark this high."""
    return c.network.hold(
        ReplicaFetchReply,
        when=lambda m: (
            isinstance(m, ReplicaFetchReply) and any(r.high_watermark >= high_watermark for r in m.partitions)
        ),
    )


def test_followers_that_were_not_told_of_a_commit_keep_it_when_everything_restarts() -> None:
    """R1: all replicas hold the record, none of the followers knows that it is committed, and one
    of them leads next."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    not_told(c, 2)
    acked = c.produce("t").receipt
    assert [c.log(b, "t").high_watermark for b in (1, 2, 3)] == [2, 1, 1]
    c.kill_all()
    c.network.pass_all()
    c.controller.start()
    c.broker(2).start()
    c.broker(3).start()
    c.until(lambda: c.leader("t") in (2, 3))
    c.broker(1).start()
    c.settle("t")
    assert acked is not None
    assert [c.log(b, "t").mirror.entries[1].crc for b in (1, 2, 3)] == [acked.crc] * 3


def test_two_leaders_in_a_row_leave_tails_that_are_cut_exactly() -> None:
    """R2: 1 has a tail of epoch 0, 2 one of epoch 1, and 3, which leads epoch 2, has neither."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    for old_leader in (1, 2):
        c.cut_off(old_leader)
        c.produce("t", 2, acks=1, at=old_leader)
        c.until(lambda old_leader=old_leader: c.leader("t") > old_leader)  # type: ignore[misc]
    kept = c.produce("t").receipt
    assert c.state("t").leader_epoch == 2
    c.network.heal()
    c.settle("t")
    assert kept is not None
    for broker_id in (1, 2, 3):
        assert [e.crc for e in c.log(broker_id, "t").mirror.entries][1:] == [kept.crc]
    assert [c.log(b, "t").records_lost[2] for b in (1, 2, 3)] == [2, 2, 0], "and each cut only what was its own"


def test_the_list_of_epochs_is_cut_with_the_log_and_found_again_by_a_restart() -> None:
    """R3: after a truncation and a restart the epoch lists of all replicas are what a scan of their
    logs finds."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    for old_leader in (1, 2):
        c.cut_off(old_leader)
        c.produce("t", 2, acks=1, at=old_leader)
        c.until(lambda old_leader=old_leader: c.leader("t") > old_leader)  # type: ignore[misc]
    c.produce("t")
    c.network.heal()
    c.settle("t")
    c.kill_all()
    c.start_all()
    c.settle("t")
    for broker_id in (1, 2, 3):
        assert c.log(broker_id, "t").epoch_entries == c.log(broker_id, "t").recompute_epochs() == [(0, 0), (2, 1)]


def test_a_fetch_of_an_epoch_that_is_over_counts_for_nothing() -> None:
    """R4: 3 said that it holds what 1 wrote, was made to cut it by 2, and then 1, which has it
    still, leads again."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=3)
    c.produce("t")
    c.network.cut(1, 2)
    said = c.network.hold(
        ReplicaFetch,
        when=lambda m: (
            isinstance(m, ReplicaFetch) and any((p.leader_epoch, p.fetch_offset) == (0, 3) for p in m.partitions)
        ),
    )
    c.produce("t", 2, acks=1)
    c.until(lambda: bool(said.messages))
    c.network.hold(PositionsReply, when=lambda m: isinstance(m, PositionsReply) and m.partitions[0].end_offset == 3)
    c.broker(1).pause()
    c.until(lambda: c.leader("t") == 2 and c.ends("t") == [3, 1, 1])
    c.network.pass_all()
    c.broker(2).pause()
    c.broker(3).pause()
    c.until(lambda: c.elr("t") == [1, 2, 3])
    c.broker(1).resume()
    c.until(lambda: c.leads(1, "t"))
    said.release()
    c.run(50)
    c.network.cut(1, 3)
    c.network.cuts -= {(1, 2), (2, 1)}
    c.broker(2).resume()
    c.broker(3).resume()
    c.run(1000)
    assert c.isr("t") == [1, 2]
    c.network.heal()
    c.settle("t")


def test_an_answer_that_was_spoilt_on_the_way_is_fetched_again() -> None:
    """R6: one answer lacks its first batch, another has a bit flipped. The follower writes
    neither."""

    def without_its_first_batch(message: Message) -> Message | None:
        if not isinstance(message, ReplicaFetchReply) or sum(len(r.batches) for r in message.partitions) < 100:
            return None
        (result,) = message.partitions
        size = len(result.batches) // 2
        return replace(message, partitions=[replace(result, batches=result.batches[size:])])

    def with_a_bit_flipped(message: Message) -> Message | None:
        if not isinstance(message, ReplicaFetchReply) or sum(len(r.batches) for r in message.partitions) < 100:
            return None
        (result,) = message.partitions
        data = bytearray(result.batches)
        data[-1] ^= 1
        return replace(message, partitions=[replace(result, batches=memoryview(data))])

    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    for spoilt in (without_its_first_batch, with_a_bit_flipped):
        c.network.cut(1, 2)
        c.produce("t", acks=1)
        c.produce("t", acks=1)
        c.network.spoil(spoilt)
        c.network.heal()
        c.settle("t")
    assert c.ends("t") == [4, 4]


def test_a_new_leader_does_not_name_an_end_that_it_does_not_know() -> None:
    """R7: what it holds was committed and acknowledged, but it was not told. So it says neither 1
    nor 2."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    not_told(c, 2)
    c.produce("t")
    c.broker(1).kill()
    c.network.pass_all()
    c.network.cut(2, 3)
    c.until(lambda: c.leads(2, "t"))
    answer = c.end_of("t")
    assert isinstance(answer, MinilogError)
    assert answer.code == "OFFSET_NOT_AVAILABLE"
    c.network.heal()
    c.until(lambda: c.log(2, "t").high_watermark == 2)
    answer = c.end_of("t")
    assert isinstance(answer, OffsetsReply)
    assert answer.partitions[0].offset == 2


def test_an_acknowledgement_waits_for_the_slowest_disk_of_the_isr() -> None:
    """R8, R9: the follower has the record at once, and says so only when it is durable there."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.broker(2).disk_delay_ms = (500, 500)
    write = c.produce("t", wait=False)
    c.until(lambda: c.ends("t") == [2, 2])
    c.run(200)
    assert write.outcome is None
    assert c.log(1, "t").high_watermark == 1
    assert c.ended(write).outcome == "ok"
    assert c.log(2, "t").durable_end == 2


def test_nothing_is_committed_while_the_isr_is_too_small() -> None:
    """R8: below min.insync.replicas the high watermark stands still, so whoever left is complete
    (KIP-966)."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.produce("t", 3, acks=1)
    c.run(500)
    assert c.log(1, "t").high_watermark == 1
    assert c.elr("t") == [2]
    c.broker(2).start()
    c.settle("t")
    assert c.log(1, "t").high_watermark == 4


def test_who_waits_is_not_answered_by_a_later_epoch_of_the_same_leader() -> None:
    """R10: while a write waits at 1, 2 leads and puts something else at its offset. Then 1 leads
    again."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    c.cut_off(1)
    c.producer.load.timeout_ms = 60_000
    waiting = c.produce("t", at=1, wait=False)
    c.until(lambda: c.leader("t") == 2)
    c.produce("t", 3)
    c.network.heal()
    c.settle("t")
    c.broker(2).kill()
    c.broker(3).kill()
    c.until(lambda: c.leads(1, "t"))
    c.produce("t", 3)
    assert waiting.outcome == "unknown"
    assert waiting.error is not None
    assert waiting.error.code == "LEADERSHIP_LOST"


def test_a_position_cannot_be_behind_what_was_fetched_before_it() -> None:
    """R5: copies of all fetches of a follower arrive once more, in any order, and take nothing
    back."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    copies = c.network.copy(ReplicaFetch)
    for _ in range(5):
        c.produce("t")
    c.network.pass_all()
    copies.release()
    write = c.produce("t")
    assert write.ended_ms - write.began_ms < 100
    c.settle("t")
