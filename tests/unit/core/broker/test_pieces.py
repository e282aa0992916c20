"""What is too much for one turn is done in several (R42), and others are served between them."""

from __future__ import annotations

from minilog.core.broker.replicate import LAG_CHECK_MS, LOOKS_MIN, LOOKS_PER_CHECK
from minilog.core.broker.requests.fetch import TURN_LOOKS
from minilog.core.broker.requests.produce import APPEND_WORK, TURN_WORK
from minilog.core.effects import Effect, GoOn, Reply
from minilog.core.replication.replica import Replica
from minilog.wire.messages import Fetch, FetchPartition, Produce, ProducePartition, ProduceReply
from minilog.wire.records import encode_values
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, partition_state

COUNT = 40
AT_ONCE = TURN_WORK // APPEND_WORK
WIDE, NARROW, TIMEOUT_MS = 91, 92, 1000


def alone() -> BrokerBench:
    return BrokerBench.started(*(partition_state(replicas=[1], partition=number) for number in range(COUNT)))


def produce(bench: BrokerBench, request_id: int, *partitions: int) -> list[Effect]:
    entries = [ProducePartition(TOPIC, number, memoryview(encode_values([b"v"], 1000))) for number in partitions]
    return bench.core.on_request(request_id, Produce(1, TIMEOUT_MS, entries), bench.now_ms)


def ends(bench: BrokerBench) -> list[int]:
    return [bench.log(number).end_offset for number in range(COUNT)]


def test_a_request_to_many_partitions_is_appended_in_several_turns() -> None:
    bench = alone()
    effects = produce(bench, WIDE, *range(COUNT))
    turns = [sum(ends(bench))]
    while GoOn() in effects:
        assert effects.count(GoOn()) == 1
        effects = bench.core.go_on(bench.now_ms)
        turns.append(sum(ends(bench)))
    assert ends(bench) == [1] * COUNT
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= AT_ONCE
    assert len(turns) > COUNT // AT_ONCE


def test_others_are_served_between_and_nobody_overtakes_in_a_partition() -> None:
    bench = alone()
    assert GoOn() in produce(bench, WIDE, *range(COUNT))
    effects = produce(bench, NARROW, 0, COUNT - 1)
    assert GoOn() not in effects, "one is under way"
    assert (bench.log(0).end_offset, bench.log(COUNT - 1).end_offset) == (2, 0), "it goes behind what waits there"
    while GoOn() in bench.core.go_on(bench.now_ms):
        pass
    assert ends(bench) == [2, *[1] * (COUNT - 2), 2]


def test_a_partition_whose_turn_has_not_come_in_time_was_certainly_not_written_to() -> None:
    bench = alone()
    produce(bench, WIDE, *range(COUNT))
    bench.now_ms += TIMEOUT_MS
    (answer,) = [effect.response for effect in bench.core.tick(bench.now_ms) if isinstance(effect, Reply)]
    assert isinstance(answer, ProduceReply)
    problems = [result.problem for result in answer.partitions if result.problem is not None]
    assert [problem.definite for problem in problems] == [False] * AT_ONCE + [True] * (COUNT - AT_ONCE)
    while GoOn() in bench.core.go_on(bench.now_ms):
        pass
    assert ends(bench) == [1] * AT_ONCE + [0] * (COUNT - AT_ONCE)


def test_those_who_wait_are_answered_in_several_turns() -> None:
    bench, count = alone(), 2 * TURN_LOOKS + 1
    for number in range(count):
        poll = Fetch([FetchPartition(TOPIC, 0, 0)], 10_000)
        assert bench.core.on_request(1000 + number, poll, bench.now_ms) == []
    produce(bench, NARROW, 0)
    bench.log(0).sync()
    effects = bench.core.on_flushed(TopicPartition(TOPIC, 0), bench.now_ms)
    turns = [answered(effects)]
    while GoOn() in effects:
        effects = bench.core.go_on(bench.now_ms)
        turns.append(answered(effects))
    assert turns == [TURN_LOOKS, TURN_LOOKS, 1]


def answered(effects: list[Effect]) -> int:
    """Polls."""
    return sum(isinstance(effect, Reply) and effect.request_id >= 1000 for effect in effects)


def test_all_replicas_are_looked_at_for_lag_but_not_in_one_tick() -> None:
    count = 4 * LOOKS_MIN
    bench = BrokerBench.started(*(partition_state(replicas=[1], partition=number) for number in range(count)))
    replication, looked = bench.core.replication, list[int]()
    look = replication._look

    def look_and_note(replica: Replica, now_ms: int) -> None:
        looked.append(replica.partition.partition)
        look(replica, now_ms)

    replication._look = look_and_note  # type: ignore[method-assign]
    began_ms = replication._next_look_ms
    for now_ms in range(began_ms, began_ms + LAG_CHECK_MS, 20):
        before = len(looked)
        bench.core.tick(now_ms)
        assert len(looked) - before <= max(LOOKS_MIN, count // LOOKS_PER_CHECK)
    assert sorted(looked) == list(range(count))


def test_a_partition_that_is_written_to_without_end_keeps_no_other_from_its_turn() -> None:
    bench = alone()
    assert GoOn() in produce(bench, WIDE, *range(COUNT))
    request_id = 1000
    for _ in range(2 * COUNT // AT_ONCE):
        for _ in range(2 * AT_ONCE):
            request_id += 1
            produce(bench, request_id, AT_ONCE)
        bench.core.go_on(bench.now_ms)
    assert min(ends(bench)) > 0, ends(bench)


def test_what_was_not_written_in_time_is_not_held_any_longer() -> None:
    bench = alone()
    bodies = [bytearray(encode_values([b"v"], 1000)) for _ in range(COUNT)]
    entries = [ProducePartition(TOPIC, number, memoryview(body)) for number, body in enumerate(bodies)]
    bench.core.on_request(WIDE, Produce(1, TIMEOUT_MS, entries), bench.now_ms)
    del entries
    bench.now_ms += TIMEOUT_MS
    bench.core.tick(bench.now_ms)
    for body in bodies[AT_ONCE:]:
        body.clear()  # raises BufferError while somebody holds it
