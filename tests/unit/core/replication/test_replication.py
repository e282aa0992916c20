"""A ReplicaFetcher and the FollowerSessions it talks to, back to back over a network that loses,
copies and reorders.

The leader's epoch does not change here. What may go wrong is the conversation. Checked after every
step, with a second version that only compares bytes:
* the follower never gives up anything that it shares with its leader (R1, R5: no late answer cuts a
  complete log);
* what the leader counts for the follower is there, durable, and the same (R4, R8);
* once the network heals, the follower becomes a copy and learns the high watermark.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilog.core.effects import Flush
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica_fetcher import RETRY_MS, ReplicaFetcher
from minilog.wire.messages import Problem, ReplicaFetch, ReplicaFetchReply
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import follower_of, leader_of, log_of, memory_log, partition_state, runs_of
from tests.unit.core.replication.leading_bench import WAIT_MS, Leading
from tests.unit.core.replication.test_follower import common

Runs = list[tuple[int, int]]
LEADER_EPOCH = 5
PARTITIONS = 2


@dataclass
class Wire:
    """One leader, one follower, and every message that is under way. A message sent once may arrive
    many times."""

    leading: Leading
    fetcher: ReplicaFetcher
    requests: list[ReplicaFetch] = field(default_factory=list)
    asked: dict[int, ReplicaFetch] = field(default_factory=dict)
    answers: list[tuple[ReplicaFetch, ReplicaFetchReply | Problem]] = field(default_factory=list)
    heard: set[int] = field(default_factory=set)
    shared: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    last_request: tuple[int, int] = (0, 0)

    def leader(self, partition: int) -> LeaderState:
        role = self.leading.replicas[self.key(partition)].role
        assert isinstance(role, LeaderState)
        return role

    def follower(self, partition: int) -> FollowerState:
        return self.fetcher.followers[self.key(partition)]

    def key(self, partition: int) -> TopicPartition:
        return list(self.leading.replicas)[partition]

    # --- what can happen --------------------------------------------------------------------------

    def append(self, number: int) -> None:
        self.leading.append(1 + number % 3, number % PARTITIONS)

    def flush_leader(self, number: int) -> None:
        self.leading.flush(number % PARTITIONS)

    def flush_follower(self, number: int) -> None:
        """A flush ends. It may have begun before the last append."""
        key = self.key(number % PARTITIONS)
        if key in self.fetcher.flushing:
            log = memory_log(self.fetcher.followers[key])
            log.sync(log.end_offset - (1 if number % 5 == 0 else 0))
            self.fetcher.on_flushed(key)

    def ask(self, _: int) -> None:
        request = self.fetcher.next_request(7, self.leading.now_ms)
        if request is not None:
            assert (request.session_id, request.sequence) > self.last_request, "ids only grow (R5)"
            self.last_request = (request.session_id, request.sequence)
            self.requests.append(request)

    def arrive(self, number: int, *, keep: bool = False) -> None:
        if self.requests:
            at = number % len(self.requests)
            request = self.requests[at] if keep else self.requests.pop(at)
            self.asked[self.leading.fetch(request)] = request
            self.collect()

    def arrive_twice(self, number: int) -> None:
        self.arrive(number, keep=True)

    def lose(self, number: int) -> None:
        if self.requests:
            self.requests.pop(number % len(self.requests))

    def collect(self) -> None:
        """Answers the leader has given since: they are under way now."""
        for request_id in self.asked.keys() & self.leading.replies.keys() - self.heard:
            self.heard.add(request_id)
            self.answers.append((self.asked[request_id], self.leading.replies[request_id]))

    def hear(self, number: int, *, keep: bool = False) -> None:
        self.collect()
        if not self.answers:
            return
        at = number % len(self.answers)
        request, reply = self.answers[at] if keep else self.answers.pop(at)
        if isinstance(reply, Problem):
            self.fetcher.on_failed(request, self.leading.now_ms)
        else:
            flushes = self.fetcher.on_reply(request, reply, self.leading.now_ms)
            assert all(isinstance(flush, Flush) for flush in flushes)

    def hear_twice(self, number: int) -> None:
        self.hear(number, keep=True)

    def give_up(self, _: int) -> None:
        """The transport's time limit: no answer to the request in flight."""
        if self.fetcher.inflight is not None:
            self.fetcher.on_failed(self.fetcher.inflight, self.leading.now_ms)

    def wait(self, number: int) -> None:
        self.leading.tick(self.leading.now_ms + 20 * (1 + number))
        self.collect()

    # --- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        for partition in range(PARTITIONS):
            mine, theirs = memory_log(self.follower(partition)), memory_log(self.leader(partition))
            shared = common(mine, theirs)
            assert shared >= self.shared[partition], "gave up what was right"
            self.shared[partition] = shared
            counted = self.leader(partition).followers[2].position
            assert counted is None or counted <= min(shared, mine.durable_end), "counted what is not there"
            assert self.follower(partition).high_watermark <= self.leader(partition).high_watermark

    def heal(self, *, checked: bool = True) -> None:
        """From here on every message arrives once, in order, and every flush ends."""
        self.requests.clear()
        self.answers.clear()
        self.give_up(0)
        for partition in range(PARTITIONS):
            self.flush_leader(partition)
        for _ in range(40):
            for key in list(self.fetcher.flushing):
                memory_log(self.fetcher.followers[key]).sync()
                self.fetcher.on_flushed(key)
            self.ask(0)
            while self.requests:
                self.arrive(0)
            self.leading.tick(self.leading.now_ms + max(WAIT_MS, RETRY_MS))
            self.collect()
            while self.answers:
                self.hear(0)
            if checked:
                self.check()


def wire(leader: Runs, follower: Runs, *, in_isr: bool = True) -> Wire:
    states = [
        partition_state(replicas=[1, 2], isr=[1, 2] if in_isr else [1], partition=p, leader_epoch=LEADER_EPOCH)
        for p in range(PARTITIONS)
    ]
    leading = Leading(*(leader_of(state, log_of(*leader)) for state in states))
    made = Wire(leading, ReplicaFetcher(2, 1, WAIT_MS, 200, 2000))
    for state in states:
        made.fetcher.add(follower_of(state, log_of(*follower)))
    return made


def assert_copied(made: Wire) -> None:
    for partition in range(PARTITIONS):
        leader, follower = made.leader(partition), made.follower(partition)
        assert runs_of(memory_log(follower)) == runs_of(memory_log(leader))
        assert memory_log(follower).content() == memory_log(leader).content()
        assert leader.followers[2].position == leader.log.end_offset
        assert leader.high_watermark == leader.log.end_offset
        assert follower.high_watermark == leader.high_watermark


STARTS: list[tuple[Runs, Runs]] = [
    ([], []),
    ([(1, 6)], []),
    ([(1, 4), (3, 2)], [(1, 3), (2, 4)]),
    ([(1, 2), (4, 3)], [(1, 2), (2, 2), (3, 2)]),
    ([(3, 3)], [(1, 4)]),
]


@pytest.mark.parametrize("in_isr", [True, False])
@pytest.mark.parametrize(("leader", "follower"), STARTS)
def test_a_follower_becomes_a_copy(leader: Runs, follower: Runs, in_isr: bool) -> None:
    made = wire(leader, follower, in_isr=in_isr)
    for number in range(4):
        made.append(number)
    made.heal()
    assert_copied(made)


def test_an_empty_follower_beyond_its_leaders_end_begins_anew() -> None:
    """It had begun anew where an earlier leader's log began. The leader of today has less (an
    unclean recovery)."""
    made = wire([(1, 5)], [])
    for partition in range(PARTITIONS):
        memory_log(made.follower(partition)).reset(100)
    made.heal(checked=False)
    assert_copied(made)


STEPS = [
    "append", "flush_leader", "flush_follower", "flush_follower", "ask", "ask", "ask", "arrive", "arrive", "arrive",
    "arrive_twice", "lose", "hear", "hear", "hear", "hear_twice", "give_up", "wait",
]  # fmt: skip


@given(
    start=st.sampled_from(STARTS),
    in_isr=st.booleans(),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), min_size=10, max_size=60),
)
@example(
    start=([], []),
    in_isr=False,
    steps=[("append", 0), ("ask", 0), ("arrive", 0), ("append", 1), ("hear", 0), ("flush_follower", 2), ("ask", 0)],
)
@settings(deadline=None, max_examples=40)
def test_whatever_the_network_does_nothing_right_is_lost_and_healing_copies_everything(
    start: tuple[Runs, Runs], in_isr: bool, steps: list[tuple[str, int]]
) -> None:
    made = wire(*start, in_isr=in_isr)
    for name, number in steps:
        getattr(made, name)(number)
        made.check()
    made.heal()
    assert_copied(made)


def test_an_idle_pair_exchanges_one_empty_request_per_wait() -> None:
    made = wire([(1, 3)], [(1, 3)])
    made.heal()
    before = len(made.heard)
    start_ms = made.leading.now_ms
    while made.leading.now_ms < start_ms + 10 * WAIT_MS:
        made.ask(0)
        for request in made.requests:
            assert request.partitions == []
        while made.requests:
            made.arrive(0)
        made.leading.tick(made.leading.now_ms + 20)
        made.hear(0)
    assert 9 <= len(made.heard) - before <= 10


def test_a_follower_of_an_idle_partition_knows_that_it_is_not_stale() -> None:
    """An answer that does not mention a partition says that nothing there has changed."""
    made = wire([(1, 3)], [(1, 3)])
    made.heal()
    for _ in range(1000):
        made.ask(0)
        while made.requests:
            made.arrive(0)
        made.leading.tick(made.leading.now_ms + 20)
        made.hear(0)
    lag_ms = made.follower(0).lag_ms(made.leading.now_ms)
    assert lag_ms is not None
    assert lag_ms <= 2 * WAIT_MS
