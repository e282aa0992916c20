"""A broker that stops leaves in order (R28, R52)."""

from __future__ import annotations

from minilog.core.broker.standing.registration import DRAIN_POLL_MS
from minilog.errors import (
    BrokerUnavailable,
    StaleBrokerEpoch,
)
from minilog.wire.journal.metadata_records import (
    BrokerShuttingDown,
)
from minilog.wire.messages import (
    Heartbeat,
)
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.broker.standing.standing_bench import asks_to_leave, heartbeat, leaving
from tests.unit.core.builders import partition_state


def test_a_broker_leaves_when_its_followers_hold_everything() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"a", acks=1)
    leaving(bench)
    assert not asks_to_leave(bench), "it waits for its followers"
    bench.flush()
    bench.acknowledge(2, 1)
    assert not asks_to_leave(bench)
    bench.acknowledge(3, 1)
    assert asks_to_leave(bench)
    assert heartbeat(bench).drained
    assert not bench.core.may_exit
    moved = partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3])
    bench.metadata(BrokerShuttingDown(1, bench.core.broker_epoch), moved)
    assert not bench.core.may_exit
    bench.metadata(may_exit=True)
    assert bench.core.may_exit
    bench.tick(1000)
    assert bench.to_controller is None


def test_it_does_not_wait_for_followers_longer_than_allowed() -> None:
    bench = leaving(BrokerBench.started(partition_state(), drain_timeout_ms=1000))
    bench.metadata()
    bench.tick(999)
    assert not asks_to_leave(bench)
    bench.tick(1)
    assert asks_to_leave(bench)
    assert not heartbeat(bench).drained


def test_while_it_drains_it_asks_for_news_without_waiting() -> None:
    """What becomes of its ISR proposals decides whether it is drained."""
    bench = leaving(BrokerBench.started(partition_state()))
    first = heartbeat(bench)
    assert (first.shutting_down, first.waits) == (False, False)
    bench.metadata()
    assert bench.to_controller is None
    bench.tick(DRAIN_POLL_MS)
    assert heartbeat(bench).sequence == first.sequence + 1


def test_one_that_is_given_a_leadership_while_it_leaves_drains_that_too() -> None:
    """The controller does not let it go before it has heard of that: it says nothing of shutting
    down yet."""
    bench = leaving(BrokerBench.started(partition_state(leader=2)))
    assert asks_to_leave(bench), "it leads nothing"
    bench.metadata(partition_state(leader=1, leader_epoch=6, partition_epoch=11))
    bench.tick(DRAIN_POLL_MS)
    assert not asks_to_leave(bench), "its followers have not been heard"
    for follower in (2, 3):
        bench.acknowledge(follower, 0)
    assert asks_to_leave(bench)


def test_a_broker_that_never_registered_may_leave_at_once() -> None:
    bench = BrokerBench()
    bench.perform(bench.core.begin_shutdown(0))
    assert bench.core.may_exit


def test_a_broker_that_the_controller_forgot_while_it_leaves_may_go() -> None:
    bench = leaving(BrokerBench.started())
    bench.answer(StaleBrokerEpoch("unknown", cluster_id="cluster"))
    assert bench.core.may_exit


def test_a_broker_leaves_without_a_controller_after_a_while() -> None:
    bench = leaving(BrokerBench.started())
    for _ in range(100):
        if isinstance(bench.to_controller, Heartbeat):
            bench.answer(BrokerUnavailable("gone"))
        bench.tick(100)
    assert bench.core.may_exit


def test_asking_to_leave_twice_is_asking_once() -> None:
    bench = leaving(BrokerBench.started())
    bench.perform(bench.core.begin_shutdown(bench.now_ms))
    assert heartbeat(bench).shutting_down


def test_a_follower_goes_on_following_while_it_leaves() -> None:
    bench = leaving(BrokerBench.started(partition_state(leader=2)))
    ((_, request),) = bench.fetches
    assert heartbeat(bench).shutting_down
    bench.respond(2, request, BrokerUnavailable("later"))
    bench.tick(1000)
    assert len(bench.fetches) == 2


def test_writes_are_refused_soon_when_a_stop_meets_no_controller() -> None:
    """Draining needs no controller: what is acknowledged until the end is on the followers, too."""
    bench = BrokerBench.started(partition_state())
    bench.perform(bench.core.begin_shutdown(bench.now_ms))
    assert bench.core.state.accepts_writes
    bench.tick(499)
    assert bench.core.state.accepts_writes
    bench.tick(1)
    assert not bench.core.state.accepts_writes
