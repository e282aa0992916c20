"""Consumer fetches and offset queries through one broker: long polls, and the one end each of them
has (R12, R34)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.config import Limits
from minilog.core.broker.requests.fetch import PATIENCE_MS
from minilog.wire.journal.metadata_records import NO_LEADER, PartitionChanged, TopicCreated, TopicDeleted
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
    Fetch,
    FetchPartition,
    FetchReply,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    ReplicaFetch,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, TOPIC_ID, batch_at, partition_state
from tests.unit.core.memory_log import MemoryLog

ALONE = partition_state(replicas=[1])
FIRST = TopicPartition(TOPIC, 0)


def started(records: int = 2, *states: PartitionChanged, **options: object) -> BrokerBench:
    """A broker that leads its partitions alone, with ``records`` committed in the first."""
    bench = BrokerBench.started(*(states or (ALONE,)), **options)
    for _ in range(records):
        bench.produce(b"v")
    bench.flush()
    return bench


def codes(bench: BrokerBench, request_id: int) -> list[str | None]:
    return [None if r.problem is None else r.problem.code for r in bench.fetched(request_id)]


# --- long polls -----------------------------------------------------------------------------------


def test_what_is_committed_is_sent_at_once() -> None:
    bench = started()
    assert bench.shown(bench.fetch(0)) == [[0, 1]]


def test_without_a_wait_an_empty_answer_is_an_answer() -> None:
    bench = started()
    assert bench.shown(bench.fetch(2, wait_ms=0)) == [[]]


def test_a_long_poll_wakes_on_the_high_watermark_and_not_on_the_append() -> None:
    bench = started()
    waiting = bench.fetch(2)
    bench.produce(b"new")
    assert waiting not in bench.replies, "appended is not committed"
    bench.flush()
    assert bench.shown(waiting) == [[2]]
    assert bench.waiting_count == 0


def test_a_long_poll_waits_for_the_last_isr_member() -> None:
    bench = BrokerBench.started(partition_state())
    waiting = bench.fetch(0)
    bench.produce(b"a")
    bench.flush()
    bench.acknowledge(2, 1)
    assert waiting not in bench.replies
    bench.acknowledge(3, 1)
    assert bench.shown(waiting) == [[0]]


def test_a_long_poll_waits_for_as_many_bytes_as_it_asked_for() -> None:
    bench = started(0)
    bench.produce(b"x" * 100)
    bench.flush()
    waiting = bench.fetch(0, min_bytes=200)
    assert waiting not in bench.replies
    bench.produce(b"x" * 100)
    bench.flush()
    assert bench.shown(waiting) == [[0, 1]]


def test_who_waits_for_many_bytes_is_not_read_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = started(0)
    read_bytes, written, read = 0, 0, MemoryLog.read

    def counted(log: MemoryLog, offset: int, max_bytes: int, end_offset: int) -> bytes:
        nonlocal read_bytes
        data = read(log, offset, max_bytes, end_offset)
        read_bytes += len(data)
        return data

    monkeypatch.setattr(MemoryLog, "read", counted)
    room = 32 << 20
    waiting = bench.send(Fetch([FetchPartition(TOPIC, 0, 0, room)], 30_000, 200 * 16_000, room))
    while waiting not in bench.replies:
        bench.produce(bytes(16_000))
        bench.flush()
        bench.tick(50)
        written += 16_000
    assert read_bytes < 2.1 * written
    assert len(bench.shown(waiting)[0]) == written // 16_000


def test_who_waits_for_much_is_looked_at_now_and_then_and_for_the_rest_at_every_commit() -> None:
    bench = started(0)
    waiting = bench.send(Fetch([FetchPartition(TOPIC, 0, 0, 1 << 20)], 30_000, 90_000, 1 << 20))
    for _ in range(5):
        bench.produce(bytes(16_000))
        bench.flush()
    bench.tick(PATIENCE_MS)
    assert waiting not in bench.replies
    bench.produce(bytes(16_000))
    bench.flush()
    assert bench.shown(waiting) == [[0, 1, 2, 3, 4, 5]]


def test_an_answer_that_can_hold_no_more_does_not_wait() -> None:
    bench = started(0)
    full = bench.send(Fetch([FetchPartition(TOPIC, 0, 0, 64_000)], 30_000, 1 << 20, 64_000))
    for _ in range(4):
        assert full not in bench.replies
        bench.produce(bytes(16_000))
        bench.flush()
    assert bench.shown(full) == [[0, 1, 2]]


def test_at_its_deadline_a_long_poll_gets_what_there_is() -> None:
    bench = started(1)
    waiting = bench.fetch(0, min_bytes=1 << 20, wait_ms=500)
    bench.tick(499)
    assert waiting not in bench.replies
    bench.tick(1)
    assert bench.shown(waiting) == [[0]]
    assert bench.waiting_count == 0


def test_a_long_poll_on_many_partitions_wakes_on_any_of_them() -> None:
    bench = started(0, ALONE, partition_state(replicas=[1], partition=1))
    waiting = bench.fetch(0, partitions=(0, 1))
    bench.produce(b"v", partitions=(1,))
    bench.flush(1)
    assert bench.shown(waiting) == [[], [0]]
    bench.produce(b"v")
    bench.flush(0)
    assert bench.waiting_count == 0


def test_a_client_that_went_away_is_not_answered() -> None:
    bench = started(0)
    waiting = bench.fetch(0)
    bench.disconnect(waiting)
    assert bench.waiting_count == 0
    bench.produce(b"v")
    bench.flush()
    bench.tick(1000)
    assert waiting not in bench.replies


def test_one_partition_that_fails_is_told_at_once_beside_what_the_others_have() -> None:
    bench = started(2, ALONE, partition_state(partition=1, leader=2))
    sent = bench.fetch(2, partitions=(0, 1))
    assert codes(bench, sent) == [None, "NOT_LEADER"]


@pytest.mark.parametrize(("leader", "expected"), [(2, "NOT_LEADER"), (NO_LEADER, "LEADER_NOT_AVAILABLE")])
def test_a_long_poll_ends_when_the_leadership_does(leader: int, expected: str) -> None:
    bench = BrokerBench.started(partition_state())
    waiting = bench.fetch(0)
    bench.metadata(partition_state(leader=leader, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert codes(bench, waiting) == [expected]
    assert bench.waiting_count == 0


def test_a_long_poll_ends_when_the_topic_does() -> None:
    bench = started(0)
    waiting = bench.fetch(0)
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID))
    assert codes(bench, waiting) == ["UNKNOWN_TOPIC_OR_PARTITION"]
    assert bench.waiting_count == 0


# --- topics of one name ---------------------------------------------------------------------------


def remake(bench: BrokerBench, *partitions: int) -> None:
    """The topic is deleted and made again under its name, in one piece of news. It has as many
    epochs as before."""
    states = [replace(partition_state(replicas=[1], partition=p), topic_id="second") for p in partitions or (0,)]
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID), TopicCreated(TOPIC, "second", {}), *states)


@pytest.mark.parametrize("topic_id", ["", TOPIC_ID])
@pytest.mark.parametrize("any_replica", [False, True])
def test_a_long_poll_does_not_go_over_to_a_topic_made_anew(topic_id: str, any_replica: bool) -> None:
    """It is bound to the topic it was looked up for, whether or not it named it."""
    bench = started(3)
    waiting = bench.send(Fetch([FetchPartition(TOPIC, 0, 3, topic_id=topic_id)], 500, any_replica=any_replica))
    assert waiting not in bench.replies
    remake(bench)
    (result,) = bench.fetched(waiting)
    assert result.problem is not None
    assert (result.problem.code, result.problem.info) == ("INCONSISTENT_TOPIC_ID", {"topic_id": "second"})
    assert bench.waiting_count == 0


def test_a_long_poll_on_many_partitions_made_anew_ends_once() -> None:
    bench = started(0, ALONE, partition_state(replicas=[1], partition=1))
    waiting = bench.fetch(0, partitions=(0, 1, 1))
    remake(bench, 0, 1)
    assert codes(bench, waiting) == ["INCONSISTENT_TOPIC_ID"] * 3
    assert bench.waiting_count == 0


@pytest.mark.parametrize("topic_id", ["", "second"])
def test_a_long_poll_on_the_topic_made_anew_is_woken_by_its_records(topic_id: str) -> None:
    bench = started(3)
    remake(bench)
    waiting = bench.send(Fetch([FetchPartition(TOPIC, 0, 0, topic_id=topic_id)], 500))
    assert waiting not in bench.replies
    bench.produce(b"new")
    bench.flush()
    assert bench.shown(waiting) == [[0]]
    assert [r.topic_id for r in bench.fetched(waiting)] == ["second"]


@pytest.mark.parametrize("wait_ms", [0, 500])
def test_another_topic_than_the_one_there_is_is_refused_at_once(wait_ms: int) -> None:
    bench = started(3)
    entries = [FetchPartition(TOPIC, 0, 0, topic_id=topic_id) for topic_id in ("", TOPIC_ID, "another")]
    sent = bench.send(Fetch(entries, wait_ms))
    assert codes(bench, sent) == [None, None, "INCONSISTENT_TOPIC_ID"]
    assert "refresh metadata and look which" in bench.fetched(sent)[2].problem.detail  # type: ignore[union-attr]


def test_a_topic_that_lives_elsewhere_is_told_apart_too() -> None:
    bench = BrokerBench.started(partition_state(replicas=[2, 3], leader=2))
    entries = [FetchPartition(TOPIC, 0, 0, topic_id=topic_id) for topic_id in (TOPIC_ID, "another")]
    assert codes(bench, bench.send(Fetch(entries))) == ["NOT_LEADER", "INCONSISTENT_TOPIC_ID"]


def test_a_long_poll_at_a_follower_is_looked_at_again_when_its_role_changes() -> None:
    """Its leader is another one by now, and it is staler than the poll allows."""
    bench = following()
    waiting = bench.fetch(1, any_replica=True, max_lag_ms=100)
    bench.now_ms += 200
    bench.metadata(partition_state(leader=3, leader_epoch=6, partition_epoch=11, isr=[1, 3]))
    assert codes(bench, waiting) == ["NOT_LEADER"]
    assert bench.waiting_count == 0


def test_how_stale_a_follower_is_stays_known_when_its_leader_changes() -> None:
    bench = following()
    bench.now_ms += 200
    bench.metadata(partition_state(leader=3, leader_epoch=6, partition_epoch=11, isr=[1, 3]))
    sent = bench.fetch(0, wait_ms=0, any_replica=True, max_lag_ms=1000)
    assert codes(bench, sent) == [None]
    assert bench.fetched(sent)[0].lag_ms == 200


# --- bounds ---------------------------------------------------------------------------------------


def test_one_answer_is_bounded_over_all_its_partitions() -> None:
    states = [partition_state(replicas=[1], partition=p) for p in range(3)]
    bench = BrokerBench.started(*states)
    bench.produce(b"x" * 100, partitions=(0, 1, 2))
    for partition in range(3):
        bench.flush(partition)
    sent = bench.send(Fetch([FetchPartition(TOPIC, p, 0) for p in range(3)], max_bytes=1))
    assert bench.shown(sent) == [[0], [], []]


def test_the_brokers_own_bound_holds_whatever_is_asked() -> None:
    bench = started(3, limits=Limits(fetch_bytes_max=1))
    assert bench.shown(bench.fetch(0)) == [[0]]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Fetch([]), "a fetch names 1 to 2 partitions, this one 0"),
        (Fetch([FetchPartition(TOPIC, 0, 0)] * 3), "a fetch names 1 to 2 partitions, this one 3"),
        (Fetch([FetchPartition(TOPIC, 0, 0)], max_wait_ms=-1), "max_wait_ms=-1 is not allowed; use 0 to 60000"),
        (Fetch([FetchPartition(TOPIC, 0, 0)], max_wait_ms=60_001), "max_wait_ms=60001 is not allowed; use 0 to 60000"),
        (Fetch([FetchPartition(TOPIC, 0, 0)], max_bytes=0), "max_bytes must be at least 1 and offsets at least 0"),
        (Fetch([FetchPartition(TOPIC, 0, -1)]), "max_bytes must be at least 1 and offsets at least 0"),
        (Fetch([FetchPartition(TOPIC, 0, 0, 0)]), "max_bytes must be at least 1 and offsets at least 0"),
    ],
)
def test_what_is_not_allowed(request_: Fetch, sentence: str) -> None:
    bench = started(limits=Limits(partitions_max=2))
    problem = bench.refusal(bench.send(request_))
    assert problem.code == "INVALID_REQUEST"
    assert problem.detail.startswith(sentence)


def test_no_more_fetches_wait_than_allowed() -> None:
    bench = started(0, limits=Limits(parked_requests_max=1))
    waiting = bench.fetch(0)
    assert bench.refusal(bench.fetch(0)).code == "OVERLOADED"
    assert bench.shown(bench.fetch(0, wait_ms=0)) == [[]], "what does not wait is served"
    bench.disconnect(waiting)
    assert bench.fetch(0) not in bench.replies


# --- where to go instead --------------------------------------------------------------------------


@pytest.mark.parametrize("state", [partition_state(leader=2), partition_state(replicas=[2, 3], leader=2)])
def test_who_does_not_lead_says_who_does_and_where(state: PartitionChanged) -> None:
    bench = BrokerBench.started(state)
    (result,) = bench.fetched(bench.fetch(0))
    assert result.problem is not None
    assert result.problem.code == "NOT_LEADER"
    assert result.problem.info == {"leader": 2, "leader_url": "http://broker-2:8082", "leader_epoch": 5}


def test_a_topic_a_partition_and_a_leader_that_do_not_exist_are_told_apart() -> None:
    bench = started(0, partition_state(leader=NO_LEADER))
    entries = [FetchPartition("absent", 0, 0), FetchPartition(TOPIC, 4, 0), FetchPartition(TOPIC, 0, 0)]
    assert codes(bench, bench.send(Fetch(entries))) == [
        "UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_PARTITION", "LEADER_NOT_AVAILABLE"
    ]  # fmt: skip


def test_a_broker_that_knows_no_metadata_yet_does_not_claim_that_topics_are_unknown() -> None:
    bench = BrokerBench(ALONE)
    bench.tick()
    bench.register()
    assert codes(bench, bench.fetch(0)) == ["LEADER_NOT_AVAILABLE"]


# --- reading from a follower ----------------------------------------------------------------------


def following(records: int = 3) -> BrokerBench:
    """Broker 1 follows broker 2, whose first answer brings ``records`` and a high watermark of
    1."""
    bench = BrokerBench.started(partition_state(leader=2))
    replicate(bench, records, high_watermark=1)
    return bench


def replicate(bench: BrokerBench, records: int, *, high_watermark: int) -> None:
    node_id, request = bench.fetches.pop()
    assert node_id == 2
    offset = bench.log().end_offset
    batches = b"".join(batch_at(offset + i, 5, b"v").tobytes() for i in range(records))
    result = ReplicaFetchResult(TOPIC, TOPIC_ID, 0, 5, offset, high_watermark, 0, batches=memoryview(batches))
    bench.respond(node_id, request, ReplicaFetchReply(request.session_id, request.sequence, [result]))
    if records:
        bench.flush()


def test_a_follower_serves_who_asks_for_any_replica() -> None:
    bench = following()
    sent = bench.fetch(0, any_replica=True)
    assert bench.shown(sent) == [[0]]
    (result,) = bench.fetched(sent)
    assert (result.high_watermark, result.lag_ms) == (1, 0)


def test_a_long_poll_at_a_follower_wakes_when_it_learns_the_high_watermark() -> None:
    bench = following()
    waiting = bench.fetch(1, any_replica=True)
    replicate(bench, 2, high_watermark=1)
    assert waiting not in bench.replies
    replicate(bench, 0, high_watermark=4)
    assert bench.shown(waiting) == [[1, 2, 3]]


def test_a_follower_that_is_too_far_behind_sends_the_reader_to_the_leader() -> None:
    bench = following()
    bench.now_ms += 1000
    sent = bench.fetch(0, any_replica=True, max_lag_ms=999)
    (result,) = bench.fetched(sent)
    assert result.problem is not None
    assert result.problem.code == "NOT_LEADER"
    assert result.problem.info["leader_url"] == "http://broker-2:8082"
    assert "may be 1000 ms behind its leader, allowed are 999 ms" in result.problem.detail


def test_a_leader_that_was_not_heard_says_how_long_it_may_have_been_replaced() -> None:
    bench = started(1)
    bench.now_ms += bench.settings.session_timeout_ms + 300
    (result,) = bench.fetched(bench.fetch(0, any_replica=True))
    assert (result.problem, result.lag_ms) == (None, 300)
    assert codes(bench, bench.fetch(0, any_replica=True, max_lag_ms=300)) == [None]
    assert codes(bench, bench.fetch(0, any_replica=True, max_lag_ms=299)) == ["LEADER_NOT_AVAILABLE"]
    assert [r.lag_ms for r in bench.fetched(bench.fetch(0))] == [300], "who asks the leader alone has named no bound"


def test_a_follower_knows_how_unsure_its_leader_was() -> None:
    bench = following()
    node_id, request = bench.fetches.pop()
    bench.now_ms += 500
    told = ReplicaFetchResult(TOPIC, TOPIC_ID, 0, 5, 3, 3, 0)
    bench.respond(node_id, request, ReplicaFetchReply(request.session_id, request.sequence, [told], 500, 400))
    (result,) = bench.fetched(bench.fetch(0, any_replica=True))
    assert result.lag_ms == 400
    assert codes(bench, bench.fetch(0, any_replica=True, max_lag_ms=399)) == ["NOT_LEADER"]


# --- offsets --------------------------------------------------------------------------------------


def offset_of(bench: BrokerBench, at: int, partition: int = 0, topic_id: str = "") -> tuple[str | None, int | None]:
    reply = bench.replies[bench.send(Offsets([OffsetsPartition(TOPIC, partition, at, topic_id=topic_id)]))]
    assert isinstance(reply, OffsetsReply)
    (result,) = reply.partitions
    return (None if result.problem is None else result.problem.code), result.offset


def test_offsets_of_what_is_led_here() -> None:
    bench = started(3)
    assert offset_of(bench, EARLIEST) == (None, 0)
    assert offset_of(bench, LATEST) == (None, 3)
    assert offset_of(bench, 1000) == (None, 0)
    assert offset_of(bench, 5000) == (None, 3)
    assert offset_of(bench, LATEST, topic_id=TOPIC_ID) == (None, 3)
    assert offset_of(bench, LATEST, topic_id="another") == ("INCONSISTENT_TOPIC_ID", None)


@pytest.mark.parametrize(
    ("state", "at", "code"),
    [
        (ALONE, -3, "INVALID_REQUEST"),
        (partition_state(leader=2), LATEST, "NOT_LEADER"),
        (partition_state(replicas=[2], leader=2), LATEST, "NOT_LEADER"),
        (partition_state(leader=NO_LEADER), LATEST, "LEADER_NOT_AVAILABLE"),
        (partition_state(replicas=[1], partition=3), LATEST, "UNKNOWN_PARTITION"),
    ],
)
def test_offsets_that_cannot_be_told(state: PartitionChanged, at: int, code: str) -> None:
    assert offset_of(BrokerBench.started(state), at) == (code, None)


def test_a_new_leader_does_not_guess_the_end() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"a")
    bench.flush()
    lost = partition_state(leader=2, leader_epoch=6, partition_epoch=11)
    bench.metadata(lost, replace(lost, leader=1, leader_epoch=7, partition_epoch=12))
    assert offset_of(bench, LATEST) == ("OFFSET_NOT_AVAILABLE", None)
    (result,) = bench.fetched(bench.fetch(0, wait_ms=0))
    assert result.high_watermark is None
    for broker_id in (2, 3):
        bench.acknowledge(broker_id, 1)
    assert offset_of(bench, LATEST) == (None, 1)


# --- exactly one end each (R34) -------------------------------------------------------------------


@dataclass
class Readers:
    """Long polls while everything else happens. The bench itself refuses a second answer."""

    bench: BrokerBench = field(
        default_factory=lambda: BrokerBench.started(partition_state(), partition_state(partition=1))
    )
    states: list[PartitionChanged] = field(default_factory=lambda: [partition_state(), partition_state(partition=1)])
    waiting: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    def fetch(self, number: int) -> None:
        partitions = [(0,), (1,), (0, 1), (1, 1)][number % 4]
        self.waiting.append(
            self.bench.fetch(
                number // 2,
                partitions=partitions,
                min_bytes=1 + 100 * (number % 3),
                max_bytes=150 if number == 5 else 1 << 20,
                any_replica=number > 5,
            )
        )

    def check(self) -> None:
        """As if every poll were read anew after every step: none waits that could be answered."""
        fetches = self.bench.core.fetches
        for parked in fetches._parked.values():
            assert not fetches._collect(parked.request, self.bench.now_ms)[1]

    def leave(self, number: int) -> None:
        if self.waiting:
            request_id = self.waiting[number % len(self.waiting)]
            if request_id not in self.bench.replies:
                self.bench.disconnect(request_id)
                self.gone.add(request_id)

    def write(self, number: int) -> None:
        self.bench.produce(b"v", acks=0, partitions=(number % 2,))

    def commit(self, number: int) -> None:
        partition = number % 2
        if self.states[partition].leader == 1:
            self.bench.flush(partition)
            for broker_id in (2, 3):
                self.bench.acknowledge(broker_id, self.bench.log(partition).end_offset, partition)

    def wait(self, number: int) -> None:
        self.bench.tick(100 * number)

    def move(self, number: int) -> None:
        old = self.states[number % 2]
        changes = {"leader": 3 - old.leader if old.leader in (1, 2) else 1}
        state = replace(old, leader_epoch=old.leader_epoch + 1, partition_epoch=old.partition_epoch + 1, **changes)
        self.states[number % 2] = state
        self.bench.metadata(state)


MOVES = ["fetch", "fetch", "fetch", "leave", "write", "commit", "wait", "move"]


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 7)), max_size=30))
@settings(deadline=None, max_examples=50)
def test_every_fetch_ends_exactly_once_whatever_happens(steps: list[tuple[str, int]]) -> None:
    readers = Readers()
    for name, number in steps:
        getattr(readers, name)(number)
        readers.check()
    readers.bench.tick(500)
    for request_id in readers.waiting:
        if request_id in readers.gone:
            assert request_id not in readers.bench.replies
        else:
            assert isinstance(readers.bench.replies[request_id], FetchReply)
    assert int(readers.bench.core.statistics(0).parked_fetches) == 0
    assert readers.bench.polls_count == 0


def test_a_follower_asks_its_leader_and_nobody_else() -> None:
    bench = BrokerBench.started(partition_state(leader=2), partition_state(partition=1, leader=3))
    assert sorted((node_id, request.partitions[0].partition) for node_id, request in bench.fetches) == [(2, 0), (3, 1)]
    assert all(isinstance(request, ReplicaFetch) for _, request in bench.fetches)
