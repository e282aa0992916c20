"""Stories of elections: who may lead, who does, and what survives it."""

from __future__ import annotations

import pytest

from minilog.wire.journal.events import ERROR, EventKind
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import HeartbeatReply, Positions, PositionsReply
from tests.sim.cluster import SimCluster


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def test_the_longest_log_wins_so_acks_1_survives_a_leader_kill() -> None:
    """R9: whoever is in the ISR may lead, and the one that holds most does."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.network.cut(1, 2)
    receipt = c.produce("t", acks=1).receipt
    c.until(lambda: c.ends("t") == [2, 1, 2], "broker 3 has it, broker 2 has not")
    c.broker(1).kill()
    c.until(lambda: c.leader("t") not in (1, -1))
    assert c.leader("t") == 3
    c.broker(1).start()
    c.network.heal()
    c.settle("t")
    assert receipt is not None
    assert c.log(2, "t").mirror.holding(1) == c.log(3, "t").mirror.holding(1)
    assert c.log(2, "t").mirror.entries[1].crc == receipt.crc


def test_two_copies_survive_a_leader_kill_as_one_of_them_answers() -> None:
    """R9: acks=2 with an ISR of three. The replica that lacks it is first in replica order, and
    still does not win."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.produce("t")
    c.network.cut(1, 2)
    receipt = c.produce("t", acks=2).receipt
    c.broker(1).kill()
    c.until(lambda: c.leader("t") not in (1, -1))
    c.network.heal()
    c.broker(1).start()
    c.settle("t")
    assert receipt is not None
    assert c.ends("t") == [2, 2, 2]
    assert [c.log(b, "t").mirror.entries[1].crc for b in (1, 2, 3)] == [receipt.crc] * 3


def test_an_old_leader_cuts_what_nobody_else_has() -> None:
    """R2: the tail that it wrote when it led no more goes, and what the new leader committed comes
    instead."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    lost = c.produce("t", 3, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    kept = c.produce("t", 2)
    c.network.heal()
    c.settle("t")
    assert lost.receipt is not None
    assert kept.receipt is not None
    assert [e.crc for e in c.log(1, "t").mirror.entries][1:] == [kept.receipt.crc]
    assert c.log(1, "t").records_lost[2] == 3, "counted under the promise they had: acks=1"


def test_the_last_replica_standing_is_not_the_only_candidate() -> None:
    """R20: two followers leave, the leader's machine dies. A former member that is complete leads,
    not the crashed one."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    acked = c.produce("t", 2)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1] and c.elr("t") == [2])
    c.produce("t", acks=1)
    c.broker(1).wipe()
    c.until(lambda: c.isr("t") == [])
    c.broker(1).start()
    c.until(lambda: c.elr("t") == [2], "an unclean broker leaves the ELR (R21)")
    c.broker(2).start()
    c.until(lambda: c.leader("t") == 2)
    c.broker(3).start()
    c.settle("t")
    assert acked.receipt is not None
    assert [e.crc for e in c.log(1, "t").mirror.entries][1:] == [acked.receipt.crc]


def test_nobody_leads_while_only_an_unclean_broker_is_alive() -> None:
    """R21: its disk may have lost what it promised to hold, so it waits for the other."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2]], min_isr=2, flush_policy="never")
    c.produce("t")
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.broker(1).crash()
    c.until(lambda: c.leader("t") == -1)
    c.broker(1).start()
    c.run(5000)
    assert c.leader("t") == -1
    c.broker(2).start()
    c.settle("t")
    assert c.ends("t") == [1, 1]


def test_when_nobody_is_known_to_be_complete_all_of_the_last_ones_are_asked() -> None:
    """R22: ISR and ELR are empty. Both came back unclean, and broker 2 dies again before it has
    told anything. Broker 1 must not lead before the other was asked."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    kept = c.produce("t", 5).receipt
    c.broker(2).crash()
    c.until(lambda: c.isr("t") == [1])
    c.broker(1).crash()
    c.until(lambda: c.elr("t") == [1, 2])
    c.broker(1).start()
    c.until(lambda: c.elr("t") == [2])
    c.network.hold(PositionsReply)
    c.broker(2).start()
    c.until(lambda: c.elr("t") == [])
    c.broker(2).crash()
    c.network.pass_all()
    c.run(5000)
    assert c.leader("t") == -1
    c.broker(2).start()
    c.settle("t")
    assert kept is not None
    assert [c.log(b, "t").mirror.entries[0].crc for b in (1, 2)] == [kept.crc] * 2
    assert c.invariants.figures["recoveries"] == 1


def test_what_a_power_cut_took_from_all_keeps_nobody_from_leading_later() -> None:
    """R22: the topic syncs nothing. The power fails everywhere but at the controller, which was told
    how much was committed. The recovery finds less. Later both replicas die, without any loss."""
    c = SimCluster(seed=3, brokers=2).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=2, flush_policy="never")
    c.run(1000)
    for _ in range(6):
        c.produce("t")
    c.run(1000)
    c.accept_loss("t")
    for node in c.brokers.values():
        node.crash()
    c.until(lambda: c.leader("t") == -1)
    for node in c.brokers.values():
        node.start()
    c.settle("t")
    assert c.ends("t") == [0, 0], "or there is nothing to be missed"
    lost = [e.event for e in c.invariants.truth.events if e.event.kind == EventKind.COMMITTED_LOST]
    assert [(event.topic, event.count, event.level) for event in lost] == [("t", 6, ERROR)]
    c.produce("t", 2)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.broker(1).kill()
    c.until(lambda: c.elr("t") == [1, 2])
    c.start_all()
    c.settle("t")
    assert c.ends("t") == [2, 2]


@pytest.mark.parametrize("restarts", [False, True], ids=["", "the controller restarts"])
@pytest.mark.parametrize("count", [1, 5])
def test_who_led_alone_for_a_while_holds_nothing_of_what_was_committed_without_it(count: int, restarts: bool) -> None:
    """R22: broker 1 leads epoch 0 with a tail that nobody else has. Broker 2 leads epoch 1 alone, and
    promises no copies. Broker 1 leads epoch 2, writes nothing, and commits its tail of epoch 0 with
    broker 3. Then the power fails. By its epoch the log of broker 2 is the latest, and it lacks what
    is committed."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.network.cut(1, 2)
    c.produce("t", 2, wait=False)
    c.until(lambda: c.log(1, "t").end_offset == 3)
    c.broker(1).kill()
    c.until(lambda: c.leads(2, "t"))
    c.produce("t", count, acks=1)
    c.broker(2).kill()
    c.until(lambda: c.leader("t") == NO_LEADER)
    c.network.heal()
    c.broker(1).start()
    c.until(lambda: c.leads(1, "t"))
    c.broker(3).start()
    c.until(lambda: c.log(1, "t").high_watermark == 3)
    c.run(1000)
    kept = list(c.log(1, "t").mirror.entries)
    c.broker(1).crash()
    c.broker(3).crash()
    c.until(lambda: c.isr("t") == [])
    if restarts:
        c.controller.kill()
    c.start_all()
    c.settle("t")
    assert c.log(2, "t").mirror.entries == kept
    assert [entry.leader_epoch for entry in kept] == [0, 0]
    assert c.log(2, "t").records_lost[2] == count, "it promised one copy, and says what was lost"


def test_everything_dies_and_comes_back_with_everything() -> None:
    """R69, R8: power fails everywhere at once. What was acknowledged was durable on all of the
    ISR."""
    c = cluster()
    c.create_topic("t", partitions=3, min_isr=2)
    writes = [c.produce("t", 3, partition=p) for p in (0, 1, 2, 0, 1, 2)]
    for node in c.brokers.values():
        node.crash()
    c.controller.kill()
    c.run(500)
    c.start_all()
    for p in range(3):
        c.settle("t", p)
    assert sum(sum(c.ends("t", p)) for p in range(3)) == 3 * sum(len(w.values) for w in writes)


def test_a_controller_restart_in_the_middle_of_an_election() -> None:
    """R24: the next controller finds the election in the journal and goes on with it."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    held = c.network.hold(Positions)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == -1 and bool(held.messages))
    epoch = c.state("t").leader_epoch
    c.controller.kill()
    c.run(1000)
    c.network.pass_all()
    c.controller.start()
    c.until(lambda: c.leader("t") in (2, 3))
    assert c.state("t").leader_epoch == epoch, "the epoch that was opened before the restart is used, not another one"
    held.release()  # requests of a controller epoch that is over
    c.produce("t")
    c.broker(1).start()
    c.settle("t")


def test_a_controller_that_dies_between_journal_and_telling_tells_after_its_restart() -> None:
    """R24: what is in the journal is decided, whether anybody was told or not. What is not was
    never said."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.controller.dies_in_commit = 1.0
    c.broker(1).kill()
    c.until(lambda: not c.controller.running)
    c.controller.dies_in_commit = 0.0
    c.controller.start()
    c.until(lambda: c.leader("t") in (2, 3) and c.leads(c.leader("t"), "t"))
    c.produce("t")


def test_a_late_answer_to_an_earlier_question_elects_nobody() -> None:
    """R5: positions count for the request they answer only, even within one leader epoch."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    late = c.network.hold(PositionsReply, when=lambda m: isinstance(m, PositionsReply))
    c.broker(1).kill()
    c.until(lambda: len(late.messages) >= 2)
    c.run(c.controller.settings.peer_timeout_ms + 700)
    asked = [m.sequence for m in late.messages if isinstance(m, PositionsReply)]
    assert max(asked) > 2, "asked again when the first requests were given up"
    c.network.pass_all()
    late.release()
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t")


def test_candidates_that_are_far_away_elect_a_leader() -> None:
    """Their answers take longer than an election waits. They are asked once, and count when they
    come."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    late = c.network.hold(PositionsReply, when=lambda m: isinstance(m, PositionsReply))
    c.broker(1).kill()
    c.until(lambda: len(late.messages) == 2)
    c.run(2 * c.controller.settings.election_timeout_ms)
    assert len(late.messages) == 2
    assert c.leader("t") == NO_LEADER
    late.release()
    c.until(lambda: c.leader("t") in (2, 3), within_ms=100)
    c.produce("t")


def test_a_write_after_a_failover_does_not_wait_for_a_long_poll_to_end() -> None:
    """R35: the survivors follow each other already. Their long polls must not keep them from naming
    the new partition."""
    waits = []
    for seed in range(6):
        c = SimCluster(seed, timeouts={"replica_fetch_wait_ms": 5000, "replica_lag_max_ms": 20_000}).start()
        c.create_topic("t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]], min_isr=2)
        for p in range(3):
            c.produce("t", partition=p)
        c.run(1000 + 37 * seed)
        c.broker(1).kill()
        c.until(lambda c=c: c.leader("t") in (2, 3))  # type: ignore[misc]
        c.run(20)
        write = c.produce("t")
        waits.append(write.ended_ms - write.began_ms)
    assert max(waits) < 200, waits


def test_a_broker_killed_and_restarted_at_once_does_not_wait_for_its_old_session() -> None:
    """R26: its address is asked, the process before it does not answer there any more, and so the
    id is free."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.broker(1).kill()
    c.broker(1).start()
    took_ms = c.until(lambda: c.all_ready(), within_ms=1000)
    assert took_ms < 1000
    c.settle("t")


def test_metadata_in_any_order_of_arrival_leaves_every_broker_with_the_same() -> None:
    """R29: late, doubled and overtaken news change nothing. Every broker ends with what the journal
    says."""
    c = cluster()
    c.network.weather.late, c.network.weather.late_ms = 0.5, 400
    c.network.weather.answer_twice = 0.5
    for number in range(5):
        c.create_topic(f"t{number}", partitions=2, min_isr=2)
    seen = c.network.copy(HeartbeatReply)
    c.run(3000)
    seen.release()
    c.run(3000)
    truth = sorted(map(repr, c.invariants.truth.snapshot()))
    for node in c.brokers.values():
        assert node.core is not None
        assert sorted(map(repr, node.core.image.snapshot())) == truth
