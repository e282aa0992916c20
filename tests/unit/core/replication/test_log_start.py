"""The log start: published by the leader, known to the ISR, and only then acted on."""

from __future__ import annotations

import pytest

from minilog.core.replication.log_start import follow_start
from minilog.errors import CorruptRange
from minilog.wire.messages import Produce, ProducePartition, ReplicaFetchReply
from minilog.wire.records import encode_values
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.broker.test_produce import LED, code, only
from tests.unit.core.builders import TOPIC, fetched, follower_of, leader_of, log_of, memory_log, partition_state

CHECK_MS = 100


def led() -> BrokerBench:
    """A leader of three, six records committed everywhere, followers with parked fetches."""
    bench = BrokerBench.started(LED, retention_check_ms=CHECK_MS)
    for _ in range(6):
        bench.produce(b"a")
    bench.flush()
    for broker_id in (2, 3):
        bench.acknowledge(broker_id, 6)
    assert bench.log().high_watermark == 6
    return bench


def test_a_leader_deletes_only_after_every_isr_member_has_been_told_and_come_back() -> None:
    leader = leader_of(partition_state(), log_of((5, 6), high_watermark=6))
    log = memory_log(leader)
    log.expired = 4
    assert leader.log_start.plan(0, leader.high_watermark)
    assert not leader.log_start.plan(0, leader.high_watermark), "nothing new to say"
    fetched(leader, 2, 6)
    fetched(leader, 3, 6)
    leader.advance(0, 4000)
    assert log.start_offset == 0, "nobody has been told"
    leader.log_start.on_answer(2)
    leader.log_start.on_answer(3)
    leader.advance(0, 4000)
    assert log.start_offset == 0, "an answer on its way proves nothing"
    fetched(leader, 2, 6)
    leader.advance(0, 4000)
    assert log.start_offset == 0
    fetched(leader, 3, 6)
    leader.advance(0, 4000)
    assert log.start_offset == 4


def test_who_is_out_of_the_isr_is_not_waited_for() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 6), high_watermark=6))
    log = memory_log(leader)
    log.expired = 4
    leader.log_start.plan(0, 6)
    leader.log_start.on_answer(2)
    fetched(leader, 2, 6)
    leader.advance(0, 4000)
    assert log.start_offset == 4


def test_nothing_above_the_high_watermark_goes() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 6), high_watermark=3))
    leader.log_start.published = 0
    assert leader.log_start.plan(0, 3) is False
    memory_log(leader).expired = 6
    assert leader.log_start.plan(0, 3)
    assert leader.log_start.published == 3


@pytest.mark.parametrize(("high_watermark", "durable_end", "start"), [(6, 6, 4), (3, 6, 3), (6, 2, 2)])
def test_a_follower_takes_over_what_it_may(high_watermark: int, durable_end: int, start: int) -> None:
    follower = follower_of(partition_state(), log_of((5, 6), high_watermark=0), flush_policy="interval")
    log = memory_log(follower)
    log.sync(durable_end)
    log.high_watermark = high_watermark
    follow_start(log, 4)
    assert log.start_offset == start
    follow_start(log, 1)
    assert log.start_offset == start, "a log's start never goes back"


def test_through_a_broker_the_start_is_published_and_followed_by_deleting() -> None:
    bench = led()
    bench.log().expired = 5
    bench.tick(CHECK_MS)
    for broker_id in (2, 3):
        bench.acknowledge(broker_id, 6)
    bench.tick(20)
    told = [reply for reply in bench.replies.values() if isinstance(reply, ReplicaFetchReply)][-2:]
    assert [[result.log_start_offset for result in reply.partitions] for reply in told] == [[5], [5]]
    assert bench.log().start_offset == 0
    bench.acknowledge(2, 6, same_session=True)
    assert bench.log().start_offset == 0
    bench.acknowledge(3, 6, same_session=True)
    assert bench.log().start_offset == 5
    problem = bench.fetched(bench.fetch(4))[0].problem
    assert problem is not None
    assert problem.code == "OFFSET_OUT_OF_RANGE"


def test_a_broker_that_no_longer_leads_deletes_nothing() -> None:
    bench = led()
    bench.log().expired = 5
    bench.core.roles.fence(bench.core.replicas[TopicPartition(TOPIC, 0)], 9, bench.now_ms)
    bench.tick(CHECK_MS)
    assert bench.log().start_offset == 0


def test_a_compacted_topic_takes_no_record_without_a_key() -> None:
    bench = BrokerBench.started(partition_state(replicas=[1]), config={"cleanup.policy": "compact"})
    refused = only(bench, bench.produce(b"a"))
    assert code(refused) == "INVALID_RECORD"
    assert bench.log().end_offset == 0
    keyed = encode_values([b"v", b"w"], 1000, keys=[b"k", b""])
    sent = bench.send(Produce(-1, 1000, [ProducePartition(TOPIC, 0, memoryview(keyed))]))
    bench.flush()
    assert code(only(bench, sent)) is None
    half = encode_values([b"v", b"w"], 1000, keys=[b"k", None])
    sent = bench.send(Produce(-1, 1000, [ProducePartition(TOPIC, 0, memoryview(half))]))
    assert code(only(bench, sent)) == "INVALID_RECORD"


def test_a_log_that_cannot_be_looked_at_is_reported_and_the_broker_goes_on() -> None:
    bench = led()
    log = bench.log()

    def unreadable(wall_ms: int | None) -> int:
        raise CorruptRange("unreadable")

    log.expired_end = unreadable  # type: ignore[method-assign]
    for _ in range(3):
        bench.tick(2 * CHECK_MS)
    assert [unfit.topic for unfit in bench.core.roles.unfit_replicas()] == [TOPIC]
    bench.metadata(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert bench.fetches == [], "it follows nobody, whoever leads"
