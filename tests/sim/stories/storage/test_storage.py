"""Stories of what a broker's storage owes to those above it: nothing is lost unseen, nothing is
believed of records that are not there any more, and what one name, one clock or one count does
stays with whoever sent it."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from minilog.wire.batch import HEADER
from minilog.wire.messages import ACKS_ALL, Message, Produce, ProducePartition, ProduceReply
from minilog.wire.records import encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.older import older_brokers
from tests.sim.sweep.faulty_disk import FaultyDisk
from tests.sim.sweep.scenarios import SCENARIOS
from tests.sim.sweep.sweep import undisturbed
from tests.unit.storage.compaction import test_swept_logs
from tests.unit.storage.log import test_cutting
from tests.unit.storage.recovery import test_damaged_state, test_embedded_batches, test_lost_tail


def cluster(**timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=3, timeouts=timeouts).start()


def cut_off(c: SimCluster, broker_id: int) -> None:
    for other in {-1, 1, 2, 3} - {broker_id}:
        c.network.cut(broker_id, other)


def tails(c: SimCluster, broker_id: int) -> list[str]:
    disk = c.broker(broker_id).machine.disk
    directory = "/data/broker/quarantine"
    return [name for topic in disk.list(directory) for name in disk.list(f"{directory}/{topic}") if ".log" in name]


def sent(c: SimCluster, batches: bytes, at: int = 1) -> ProduceReply:
    answers: list[Message] = []
    entry = ProducePartition("t", 0, memoryview(batches))
    c.admin.ask(at, Produce(ACKS_ALL, 1000, [entry]), answers.append, 2000)
    c.until(lambda: bool(answers))
    (reply,) = answers
    assert isinstance(reply, ProduceReply)
    return reply


def test_a_log_that_began_anew_further_down_begins_there_when_it_starts_again() -> None:
    """R60: it began anew at an earlier offset than before, and a restart finds it there."""
    undisturbed(SCENARIOS["reset to an earlier start"])


def test_a_segment_file_that_was_uploaded_is_no_part_of_the_log() -> None:
    """R68: a record holds whole batches, and its own batch is torn by a power cut."""
    test_embedded_batches.test_a_torn_tail_is_torn_whatever_was_in_it(test_embedded_batches.FORGED, 2000, True)


def test_what_retention_let_go_is_not_lost_because_the_leader_had_to_begin_anew() -> None:
    """R60: it took over its own leader's start, and the epoch before that: who stands exactly there
    does not diverge."""
    c = cluster(retention_check_ms=50)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms="2000")
    c.produce("t", 3)
    c.settle("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1, 3])
    c.produce("t", 2)
    c.until(lambda: c.log(3, "t").high_watermark == 5)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1])
    c.until(lambda: c.log(1, "t").start_offset == 5)
    c.broker(2).start()
    c.until(lambda: c.isr("t") == [1, 2])
    assert c.log(2, "t").start_offset == 5
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == 2)
    c.broker(3).start()
    c.until(lambda: 3 in c.isr("t"))
    assert c.log(3, "t").records_lost == [0, 0, 0, 0]


def test_records_that_the_leaders_start_has_overtaken_are_kept_and_counted() -> None:
    """R65: acks=1 promised one copy of them, and it comes back when nobody can compare any more."""
    c = cluster(retention_check_ms=50)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms="2000")
    c.produce("t")
    c.settle("t")
    cut_off(c, 1)
    c.produce("t", 3, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 8)
    c.until(lambda: c.log(2, "t").start_offset == 9 and c.log(3, "t").start_offset == 9)
    c.network.heal()
    c.until(lambda: c.log(1, "t").start_offset == 9)
    assert c.log(1, "t").records_lost == [0, 0, 3, 0]
    assert tails(c, 1) == ["0-1-4.log"]


def test_a_log_that_diverges_where_the_leaders_begins_is_kept_and_counted() -> None:
    """R65: with nothing left to compare, all that the follower holds may be what only it held."""
    c = cluster(retention_check_ms=50)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms="1000")
    cut_off(c, 1)
    c.produce("t", 2, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 2)
    c.until(lambda: c.log(2, "t").start_offset == 2 and c.log(3, "t").start_offset == 2)
    c.network.heal()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    assert c.log(1, "t").records_lost == [0, 0, 2, 0]
    assert tails(c, 1) == ["0-0-2.log"]


def test_what_one_epoch_reaches_back_to_was_committed_and_is_not_counted_as_lost() -> None:
    """R65: its own high watermark is of its last checkpoint. The leader's log begins behind it,
    after the same epoch."""
    c = cluster(retention_check_ms=50)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms="1000")
    c.produce("t", 5)
    c.settle("t")
    c.until(lambda: c.log(3, "t").high_watermark == 5)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 5)
    c.until(lambda: c.log(1, "t").start_offset == 10)
    c.produce("t")
    c.broker(3).start()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    assert c.log(3, "t").start_offset >= 10
    assert (c.log(3, "t").records_lost, tails(c, 3)) == ([0, 0, 0, 0], [])


@pytest.mark.parametrize("name", ["a cut below the high watermark", "truncations one after the other"])
def test_a_high_watermark_goes_with_what_it_was_said_of(name: str) -> None:
    """R66: a checkpoint named it, then the log was cut below it and other records came in their
    place."""
    disk = undisturbed(SCENARIOS[name])
    assert isinstance(disk, FaultyDisk)


def a_cut_below_the_high_watermark() -> None:
    """R66: the first of these."""
    test_a_high_watermark_goes_with_what_it_was_said_of("a cut below the high watermark")


def a_tail_that_is_gone() -> None:
    """R66: a file has lost its end, other records come in its place, and a kill comes before the
    next checkpoint."""
    test_lost_tail.test_what_has_come_in_place_of_a_lost_tail_is_not_taken_for_it(power_loss=False)


def a_damaged_state_that_is_replaced_before_any_point_is() -> None:
    """R66: it said what was cut. The points are of before that, and there is no room for others."""
    test_damaged_state.test_no_point_of_before_a_lost_cut_counts_again_when_the_state_is_saved(is_short=True)


def power_cuts_among_removals() -> None:
    """R67: the power fails between two of them, and the file system has kept any of those it was
    not told to sync."""
    for seed in range(12):
        test_cutting.test_a_power_cut_among_the_removals_leaves_no_gap("truncate", seed)


def a_crash_while_a_swept_log_begins_anew() -> None:
    """R94: it is cut below what it was swept for, and a crash at any operation leaves the old log,
    a part of it, or nothing."""
    test_swept_logs.test_a_crash_while_a_log_begins_anew_does_not_hide_what_was_swept(
        checkpointed=False, power_loss=False
    )


def a_copy_of_a_swept_log_that_is_cut() -> None:
    """R94: the copy was never cleaned itself, and what it lacks went because of records that it
    loses now."""
    test_swept_logs.test_a_copy_of_a_cleaned_log_is_cut_like_the_cleaned_one(says_sweep=True)


def half_a_copy_of_a_swept_log() -> None:
    """R94: it loses nothing, but the leader of the next epoch lacks what it should have got yet."""
    test_swept_logs.test_half_a_copy_of_a_cleaned_log_is_none_when_another_epoch_begins(restarts=False)


def numbered(producer_id: int, sequence: int, timestamp: int) -> bytes:
    return encode_values([b"x"], timestamp, producer_id=producer_id, producer_epoch=0, base_sequence=sequence)


def test_a_client_with_a_wrong_clock_makes_nobodys_retry_a_second_record() -> None:
    """R73: the answer to 1 was lost. Before it asks again another one sends batches of the next
    century, and history."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2, message_timestamp_after_max_ms=str(2**53))
    mine = numbered(1, 0, c.world.now_ms)
    sent(c, mine)
    for first, time in ((0, 4_100_000_000_000), (3, 1_370_000_000_000), (6, 4_200_000_000_000)):
        sent(c, b"".join(numbered(2, first + n, time) for n in range(3)))
    (result,) = sent(c, mine).partitions
    assert (result.duplicate, result.base_offset) == (True, 0)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") in (2, 3))
    (result,) = sent(c, mine, c.leader("t")).partitions
    assert (result.duplicate, result.base_offset) == (True, 0), "the next leader's log says the same"
    assert c.log(c.leader("t"), "t").end_offset == 10


def claiming(count: int, size: int) -> bytes:
    tail = struct.pack(">Hiqqqhii", 1, count - 1, 1000, 1000, -1, -1, -1, count) + bytes(size)
    head = HEADER.pack(0, 49 + size, -1, 2, crc32c(tail), 1, count - 1, 1000, 1000, -1, -1, -1, count)
    return head + bytes(size)


def test_a_batch_that_claims_more_records_than_there_can_be_is_refused_and_nobody_ends() -> None:
    """R70: small batches with large counts, and nobody has looked inside. Those that may be are
    replicated, and read at each start."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    with older_brokers():
        for batches in (claiming(2**31 - 1, 100) * 3, claiming(2**31 - 1, 5000) * 5, claiming(2**20, 50) * 2100):
            (result,) = sent(c, batches).partitions
            assert result.problem is not None
            assert (result.problem.code, result.problem.definite) == ("CORRUPT_BATCH", True)
        (result,) = sent(c, claiming(2**20, 5000) * 230).partitions
        assert result.problem is None, "as many as a reader might find in it"
    c.produce("t")
    c.settle("t")
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
        c.broker(broker_id).start()
    c.settle("t")
    assert c.ends("t") == [230 * 2**20 + 1] * 3


def test_a_name_that_one_file_system_does_not_take_costs_one_replica_and_no_broker() -> None:
    """R72: the other replicas go on, and so does everything else on that broker."""
    c = cluster(replica_lag_max_ms=1000)
    c.broker(3).machine.disk.name_max = 100
    long = "l" * 120
    c.create_topic(long, assignment=[[1, 2, 3]], min_isr=2)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.until(lambda: c.isr(long) == [1, 2])
    c.produce(long)
    c.broker(3).kill()
    c.broker(3).start()
    c.produce("t")
    c.until(lambda: c.isr("t") == [1, 2, 3])
    assert c.broker(3).running


def test_the_longest_name_there_can_be_is_written_cut_deleted_and_made_again() -> None:
    """R72: with a suffix for everything that is done with a directory the longest name still
    fits."""
    c = cluster()
    long = "n" * 249
    for _ in range(2):
        c.create_topic(long, assignment=[[1, 2, 3]] * 12, min_isr=1)
        c.produce(long)
        c.settle(long)
        c.delete_topic(long)
        c.run(500)
    assert all(c.broker(broker_id).running for broker_id in (1, 2, 3))


def test_a_broker_with_a_full_disk_hands_over_what_it_leads_and_needs_no_restart() -> None:
    """R43: its followers hold everything, and have room. Nothing acknowledged is lost at acks=1
    either. When there is room it follows, and may lead again."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 3, acks=1)
    c.broker(1).machine.disk.full = True
    refused = c.produce("t", 3, acks=1, wait=False)
    c.until(lambda: c.leader("t") in (2, 3))
    c.ended(refused)
    c.produce("t", 3)
    health = c.controller.core.sessions.by_broker[1].conditions  # type: ignore[union-attr]
    assert [condition.kind for condition in health] == ["disk_full"]
    c.broker(1).machine.disk.full = False
    c.settle("t")
    c.until(lambda: not c.controller.core.sessions.by_broker[1].conditions, within_ms=30_000)  # type: ignore[union-attr]
    for broker_id in (2, 3):
        c.broker(broker_id).kill()
    c.broker(2).start()
    c.until(lambda: c.leader("t") in (1, 2))


def test_a_broker_whose_syncs_take_seconds_hands_over_what_it_leads() -> None:
    """R43: it lives, and everybody waits for its disk. Two others have faster ones."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t", 3)
    c.broker(1).disk_delay_ms = (5000, 5000)
    write = c.produce("t", acks=1, wait=False)
    c.until(lambda: c.leader("t") in (2, 3), within_ms=10_000)
    c.ended(write)
    c.produce("t", 3)


def test_a_full_broker_that_is_alone_goes_on_leading() -> None:
    """R43: what it holds can be read, and nobody else can lead."""
    c = SimCluster(seed=1, brokers=1).start()
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 3)
    c.broker(1).machine.disk.full = True
    c.produce("t", wait=False)
    c.run(5000)
    assert c.leads(1, "t")
    c.broker(1).machine.disk.full = False
    c.produce("t", 3)
