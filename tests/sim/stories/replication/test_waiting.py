"""Stories of those who read and those who wait: what they are shown, when they are answered, and
that they are, once."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.errors import MinilogError
from minilog.wire.messages import (
    Fetch,
    FetchPartition,
    HeartbeatReply,
    OffsetsReply,
    RegisterReply,
    ReplicaFetch,
    ReplicaFetchReply,
)
from tests.sim.cluster import SimCluster


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def test_a_reader_sees_a_record_when_it_is_committed_and_not_when_it_is_written() -> None:
    """R12: the leader has it, and so has the one that asked for acks=1. No reader has it before the
    followers."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    reader = c.reader("t")
    c.until(lambda: reader.cursors["t", 0].offset == 1)
    c.network.cut(1, 2)
    c.produce("t", acks=1)
    c.run(1000)
    assert reader.cursors["t", 0].offset == 1
    c.network.heal()
    c.until(lambda: reader.cursors["t", 0].offset == 2)


def test_a_reader_is_told_what_it_has_read_and_exists_no_more() -> None:
    """R23: the only disk is replaced and the same offsets are written anew. Without the epoch it
    would just go on."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    c.produce("t", 5)
    reader = c.reader("t", survives_losses=True)
    c.until(lambda: reader.cursors["t", 0].offset == 5)
    reader.pause()
    c.broker(1).wipe()
    c.accept_loss("t")
    c.broker(1).start()
    c.until(c.all_ready)
    c.elect(unclean=True)
    c.until(lambda: c.leads(1, "t"))
    c.produce("t", 5)
    c.produce("t", 2)
    reader.resume()
    c.until(lambda: reader.cursors["t", 0].offset == 7)
    assert reader.losses == [(0, 5)]


def test_a_leader_that_may_have_been_replaced_takes_no_writes_and_shows_nothing() -> None:
    """R30: switched on; cut off from the controller, it stops before another one can have been
    elected."""
    c = cluster(self_fencing=True)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    c.cut_off(1)
    c.producer.load.attempts_max = 1
    while c.leader("t") == 1:
        c.run(100)
    write = c.ended(c.produce("t", acks=1, at=1, wait=False))
    assert write.outcome == "failed"
    assert write.error is not None
    assert write.error.code == "LEADER_NOT_AVAILABLE"
    answer = c.end_of("t", at=1)
    assert isinstance(answer, MinilogError)
    assert answer.code == "LEADER_NOT_AVAILABLE"
    reader = c.reader("t")
    reader.leaders["t", 0] = (1, -1)
    c.run(100)
    assert reader.problems["LEADER_NOT_AVAILABLE"] > 0
    assert c.log(1, "t").end_offset == 1


def test_the_time_a_broker_may_go_unheard_begins_when_it_asked() -> None:
    """R30: the answer to its registration took long. The controller counts from before that, and so
    must the broker."""
    c = cluster(2, self_fencing=True, peer_timeout_ms=5000)
    c.broker(2).kill()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    registered = c.network.hold(RegisterReply)
    c.network.hold(HeartbeatReply)
    c.broker(2).start()
    c.until(lambda: bool(registered.messages))
    c.run(1500)
    registered.release()
    c.run(100)
    core = c.broker(2).core
    assert core is not None
    assert core.broker_epoch > 0
    assert not core.state.is_isolated(c.broker(2).now_ms)
    c.run(500)
    assert core.state.is_isolated(c.broker(2).now_ms)
    c.network.pass_all()
    c.until(lambda: not core.state.is_isolated(c.broker(2).now_ms))


def _restart_controller(c: SimCluster, session_timeout_ms: int) -> None:
    """With another session. The brokers go on as they are."""
    c.controller.kill()
    c.configure({"session_timeout_ms": session_timeout_ms})
    c.controller.start()


def test_a_leader_hears_of_a_shorter_session_without_being_registered_again() -> None:
    """R96: the controller has started with a session of one second, the brokers with ten. A leader
    that is replaced takes no writes (R30), and says how old what it shows may be (R54)."""
    c = cluster(session_timeout_ms=10_000, self_fencing=True)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    _restart_controller(c, 1000)
    c.run(1000)
    c.cut_off(1)
    c.producer.load.attempts_max = 1
    assert c.until(lambda: c.leader("t") not in (1, -1)) < 3000
    write = c.ended(c.produce("t", acks=1, at=1, wait=False))
    assert write.outcome == "failed"
    core = c.broker(1).core
    assert core is not None
    assert core.state.unsure_ms(c.broker(1).now_ms) > 0


def test_no_leader_is_replaced_before_the_session_that_it_was_told_of_is_over() -> None:
    """R96: a leader is cut off before it has heard of the controller with the shorter session."""
    c = cluster(session_timeout_ms=10_000, self_fencing=True)
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t")
    c.cut_off(1)
    _restart_controller(c, 1000)
    core = c.broker(1).core
    assert core is not None
    while c.leader("t") == 1:
        c.run(100)
    assert core.state.is_isolated(c.broker(1).now_ms)


def test_a_long_poll_ends_when_there_is_something_to_read() -> None:
    """R34: it waits for the high watermark, and is answered the moment that moves."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    reader = c.reader("t", wait_ms=5000)
    c.run(100)
    for number in range(1, 6):
        c.produce("t")
        took_ms = c.until(lambda number=number: reader.cursors["t", 0].offset == number)  # type: ignore[misc]
        assert took_ms < 100


def test_whoever_waits_is_answered_once_and_not_later_than_agreed() -> None:
    """R34: two writes and a reader wait for what cannot come, each ends at its own time, and
    nothing is left behind."""
    c = cluster(2, replica_lag_max_ms=20_000)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.network.cut(1, 2)
    reader = c.reader("t", wait_ms=700)
    writes = []
    for timeout_ms in (300, 900):
        c.producer.load.timeout_ms = timeout_ms
        writes.append(c.produce("t", wait=False))
    took_ms = [c.ended(write).ended_ms - write.began_ms for write in writes]
    assert [300 <= took_ms[0] < 400, 900 <= took_ms[1] < 1000] == [True, True]
    assert [write.outcome for write in writes] == ["unknown", "unknown"]
    reader.active = False
    c.run(1000)
    assert c.broker(1).core is not None
    assert c.broker(1).core.statistics(0).parked_produces == 0  # type: ignore[union-attr]
    assert c.broker(1).core.statistics(0).parked_fetches == 0  # type: ignore[union-attr]
    c.network.heal()
    c.settle("t")


def test_a_client_that_goes_away_leaves_no_long_poll_behind() -> None:
    """R34: its connection closes after 700 ms, long before the minute is over that it wanted to
    wait."""
    c = cluster(1)
    c.create_topic("t", assignment=[[1]])
    core = c.broker(1).core
    assert core is not None
    c.admin.ask(1, Fetch([FetchPartition("t", 0, 0)], max_wait_ms=60_000), lambda answer: None, timeout_ms=200)
    c.run(500)
    assert core.statistics(0).parked_fetches == 1
    c.until(lambda: core.statistics(0).parked_fetches == 0, within_ms=500)


def test_more_may_not_wait_than_there_is_room_for() -> None:
    """R34: the third long poll is refused for certain and at once, and has its turn when others
    have ended."""
    c = cluster(1)
    settings = c.broker(1).settings
    c.broker(1).kill()
    c.broker(1).settings = replace(settings, limits=replace(settings.limits, parked_requests_max=2))
    c.broker(1).start()
    c.until(c.all_ready)
    c.create_topic("t", assignment=[[1]])
    readers = [c.reader("t", f"r{number}", wait_ms=5000) for number in range(3)]
    c.run(1000)
    assert [reader.problems["OVERLOADED"] > 0 for reader in readers] == [False, False, True]
    readers[0].active = False
    c.produce("t")
    c.until(lambda: readers[2].cursors["t", 0].offset == 1)


def test_an_answer_that_is_lost_costs_a_new_session_and_nothing_else() -> None:
    """R35: a session names only what changed. After a doubt the follower opens another, which names
    everything."""
    c = cluster(2, peer_timeout_ms=300)
    c.create_topic("t", partitions=3, replicas=2, min_isr=1, assignment=[[1, 2]] * 3)
    for partition in range(3):
        c.produce("t", partition=partition)
    c.run(1000)
    asked = c.network.copy(ReplicaFetch)
    lost = c.network.hold(ReplicaFetchReply)
    c.produce("t", acks=1)
    c.until(lambda: bool(lost.messages))
    c.network.pass_all()
    c.settle("t")
    opened = [m for m in asked.messages if isinstance(m, ReplicaFetch) and m.sequence == 0]
    assert opened == [], "a session is opened when the old one is in doubt, and not before"
    follower = c.broker(2).core
    assert follower is not None
    assert follower.replication.fetchers[1].session_id == 2


def test_late_copies_of_fetches_leave_the_session_alone() -> None:
    """R35: their sequence is not the next one. They are refused, and the long poll under way goes
    on."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    copies = c.network.copy(ReplicaFetch)
    for _ in range(3):
        c.produce("t")
    c.network.pass_all()
    c.produce("t")
    c.settle("t")
    follower = c.broker(2).core
    assert follower is not None
    session_id = follower.replication.fetchers[1].session_id
    copies.release()
    c.run(1000)
    assert follower.replication.fetchers[1].session_id == session_id


def test_a_follower_learns_of_the_last_commit_although_nothing_follows_it() -> None:
    """R35: a partition whose high watermark moved is in the next answer, so a reader of the
    follower is not left waiting."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    assert c.until(lambda: c.log(2, "t").high_watermark == 1) < 100
    answer = c.end_of("t")
    assert isinstance(answer, OffsetsReply)
    assert answer.partitions[0].offset == 1
