"""Stories of wall clocks that are set: what is written down follows them, and no time limit
does."""

from __future__ import annotations

from typing import Any

from minilog.errors import InvalidTimestamp
from minilog.wire.batch import Batch
from tests.sim.checks.log_starts import batches_of
from tests.sim.cluster import SimCluster
from tests.sim.stories.cluster.test_groups import coordinator, grouped, settled

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def set_all(c: SimCluster, ahead_ms: int) -> None:
    for node in (c.controller, *c.brokers.values()):
        node.set_wall_clock(ahead_ms)


def stored(c: SimCluster, broker_id: int) -> list[Batch]:
    return list(batches_of(c.log(broker_id, "t").inner, 0))


def test_a_wall_clock_that_is_set_ends_no_session_and_no_wait() -> None:
    """R74: sessions of brokers and members, and writes that wait, while all clocks are set by
    hours."""
    c, members = grouped("one", "two")
    c.create_topic("s", assignment=[[1, 2, 3]], min_isr=2)
    epochs = {node.node_id: node.core.broker_epoch for node in c.brokers.values() if node.core}
    held = [(set(m.held), m.epoch) for m in members]
    for ahead_ms in (HOUR_MS, 0, -HOUR_MS, 1000 * HOUR_MS):
        set_all(c, ahead_ms)
        write = c.produce("s", 3)
        c.run(3000)
        assert write.outcome == "ok"
    assert {n.node_id: n.core.broker_epoch for n in c.brokers.values() if n.core} == epochs, "nobody was fenced"
    assert c.state("s").leader_epoch == 0
    assert c.isr("s") == [1, 2, 3]
    assert settled(c, members)
    assert [(set(m.held), m.epoch) for m in members] == held


def test_records_are_stamped_by_the_wall_clock_of_their_leader() -> None:
    """R75: the clock is two hours ahead, and so are the stamps."""
    c = SimCluster(seed=1).start()
    c.create_topic("t", assignment=[[1, 2, 3]], message_timestamp_type="LogAppendTime")
    for ahead_ms in (0, 2 * HOUR_MS):
        c.broker(1).set_wall_clock(ahead_ms)
        c.produce("t")
        assert abs(stored(c, 1)[-1].max_timestamp - c.broker(1).wall_ms) < 1000


def test_stamps_do_not_go_back_when_the_wall_clock_does_unless_it_was_far_wrong() -> None:
    """R76: set back by an hour they wait for it; set back by ten they follow it."""
    c = SimCluster(seed=1).start()
    c.create_topic("t", assignment=[[1, 2, 3]], message_timestamp_type="LogAppendTime")
    for ahead_ms in (HOUR_MS, HOUR_MS // 2, 0):
        c.broker(1).set_wall_clock(ahead_ms)
        c.produce("t")
    stamps = [batch.max_timestamp for batch in stored(c, 1)]
    assert stamps == [stamps[0]] * 3
    c.broker(1).set_wall_clock(10 * HOUR_MS)
    c.produce("t")
    c.broker(1).set_wall_clock(0)
    c.produce("t")
    assert abs(stored(c, 1)[-1].max_timestamp - c.broker(1).wall_ms) < 1000


def retaining(retention_ms: int, **config: Any) -> SimCluster:
    c = SimCluster(seed=1, timeouts={"retention_check_ms": 50}).start()
    c.create_topic("t", assignment=[[1, 2, 3]], retention_ms=str(retention_ms), **config)
    return c


def starts(c: SimCluster) -> list[int]:
    return [c.log(n, "t").start_offset for n in (1, 2, 3)]


def test_records_go_when_they_are_old_by_the_wall_clock() -> None:
    """R75: they were written long ago, and are not old by clocks that are half an hour behind. The
    clocks are set right."""
    c = retaining(5000)
    set_all(c, -HOUR_MS // 2)
    c.produce("t", 5)
    c.run(10_000)
    assert starts(c) == [0, 0, 0]
    set_all(c, 0)
    c.until(lambda: starts(c) == [5, 5, 5])


def test_no_step_of_a_clock_makes_records_old() -> None:
    """R40: all clocks go forward by a month, and everybody restarts. What was written a moment ago
    stays, for the time that the topic asks for."""
    c = retaining(20_000)
    c.produce("t", 5)
    c.settle("t")
    set_all(c, 720 * HOUR_MS)
    c.run(2000)
    c.controller.kill()
    c.controller.start()
    for node in c.brokers.values():
        c.run(2000)
        node.kill()
        c.run(200)
        node.start()
    c.until(c.all_ready)
    assert starts(c) == [0, 0, 0]
    c.until(lambda: starts(c) == [5, 5, 5], within_ms=40_000)


def test_history_stays_as_long_as_what_is_new() -> None:
    """R40: records of ten years ago are loaded today."""
    c = retaining(20_000)
    c.producer.set_wall_clock(-10 * 8760 * HOUR_MS)
    c.produce("t", 5)
    c.settle("t")
    c.run(10_000)
    assert starts(c) == [0, 0, 0]
    c.until(lambda: starts(c) == [5, 5, 5], within_ms=30_000)


def test_history_goes_at_once_where_the_topic_asks_for_it() -> None:
    """R40: as in Kafka."""
    c = retaining(20_000, retention_by="timestamp")
    c.producer.set_wall_clock(-10 * 8760 * HOUR_MS)
    c.produce("t", 5)
    c.until(lambda: starts(c) == [5, 5, 5], within_ms=2000)


def test_a_time_in_the_next_century_keeps_nothing() -> None:
    """R40: a broker with a wrong clock has stamped records so, or an older version took them. They
    go when they have been there for long enough, and so does what follows."""
    c = retaining(5000, message_timestamp_type="LogAppendTime")
    set_all(c, 80 * 8760 * HOUR_MS)
    c.produce("t", 5)
    assert stored(c, 1)[-1].max_timestamp > c.world.now_ms + 79 * 8760 * HOUR_MS
    set_all(c, 0)
    c.until(lambda: starts(c) == [5, 5, 5], within_ms=20_000)


def test_a_time_that_cannot_be_is_refused() -> None:
    """R40: by default what lies more than an hour ahead. A leader whose own clock is behind refuses
    nobody whose clock is right."""
    c = retaining(5000, message_timestamp_before_max_ms=str(5 * MINUTE_MS))
    for ahead_ms in (2 * HOUR_MS, -10 * MINUTE_MS):
        c.producer.set_wall_clock(ahead_ms)
        refused = c.ended(c.produce("t", 1, wait=False))
        assert isinstance(refused.error, InvalidTimestamp), refused
    assert c.log(1, "t").end_offset == 0, "it is definite"
    c.producer.set_wall_clock(0)
    for ahead_ms in (-10 * MINUTE_MS, 72 * HOUR_MS):
        c.broker(1).set_wall_clock(ahead_ms)
        c.run(1000)
        c.produce("t", 1)


def test_a_broker_whose_clock_is_not_the_controllers_deletes_nothing_because_of_its_age() -> None:
    """R40: neither when the clock is ahead nor when it is behind. It goes on when the clock is set
    right."""
    c = retaining(2000)
    c.produce("t", 5)
    c.settle("t")
    for ahead_ms in (2 * MINUTE_MS, -2 * MINUTE_MS):
        c.broker(1).set_wall_clock(ahead_ms)
        c.run(10_000)
        core = c.broker(1).core
        assert core is not None
        skew_ms = core.statistics(c.broker(1).now_ms).clock_skew_ms
        assert skew_ms is not None
        assert abs(skew_ms - ahead_ms) < 100
        assert starts(c) == [0, 0, 0]
    c.broker(1).set_wall_clock(0)
    c.until(lambda: starts(c) == [5, 5, 5], within_ms=1000)


def test_a_copy_is_as_old_as_what_it_was_copied_from() -> None:
    """R40: broker 3 has a new disk and copies everything today. Later it leads."""
    c = retaining(30_000)
    c.produce("t", 5)
    c.settle("t")
    c.run(20_000)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.broker(3).wipe()
    c.broker(3).start()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    for broker_id in (1, 2):
        c.broker(broker_id).kill()
    c.until(lambda: c.leads(3, "t"))
    c.until(lambda: c.log(3, "t").start_offset == 5, within_ms=20_000)


def test_no_jump_of_a_clock_makes_offsets_of_a_group_old() -> None:
    """R89: the clock is a week behind when the group becomes empty, and is then set right."""
    c, (one,) = grouped("one")
    core = c.broker(coordinator(c)).core
    assert core is not None
    week_ms = core.settings.group_offsets_retention_ms
    (shard,) = [s for s in core.coordinator.shards.values() if "g" in s.groups.groups]
    set_all(c, -week_ms)  # as a machine that has no clock of its own, until the time is known
    one.leave()
    c.until(lambda: not shard.groups.groups["g"].group.members)
    set_all(c, 0)
    c.run(70_000)
    set_all(c, 2 * week_ms)
    c.run(70_000)
    assert "g" in shard.groups.groups


def test_a_failover_is_told_in_the_time_it_began_in() -> None:
    """R75: a step between two of its moments makes none of its durations wrong."""
    c = SimCluster(seed=1).start()
    c.create_topic("t", assignment=[[1, 2, 3]])
    c.settle("t")
    c.controller.set_wall_clock(HOUR_MS)
    c.run(200)
    c.broker(1).kill()
    core = c.controller.core
    assert core is not None
    c.until(lambda: bool(core.image.failovers))
    c.controller.set_wall_clock(-HOUR_MS)
    c.until(lambda: core.image.failovers[0].published_ms is not None)
    told = core.image.failovers[0]
    assert told.elected_ms is not None
    assert told.published_ms is not None
    moments = [told.last_heard_ms, told.detected_ms, told.fenced_ms, told.elected_ms, told.published_ms]
    assert moments == sorted(moments)
    assert moments[-1] - moments[0] < 5000
    assert abs(told.fenced_ms - (c.controller.now_ms + HOUR_MS)) < 5000
