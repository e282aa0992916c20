"""Two replicas that compact on their own, one following the other, through clean and unclean
failovers.

Real logs, real LeaderState and FollowerState, no network. In the end both must say the same of
every key.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minilog.config import TopicSettings
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.storage.log.log import PartitionLog
from minilog.wire.messages import ReplicaFetchResult
from tests.unit.core.builders import partition_state
from tests.unit.storage.batches import open_in
from tests.unit.storage.compaction.keyed import Seen, StoppingDisk, keyed, read_from
from tests.unit.storage.compaction.rounds import clean_now

SETTINGS = TopicSettings(segment_bytes=400, cleanup_policy="compact", delete_retention_ms=10**9, max_message_bytes=4096)
KEYS = [b"a", b"b", b"c"]
NOW_MS = 10_000
NOTHING = memoryview(b"")


class ReplicationMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.disks = [StoppingDisk(), StoppingDisk()]
        self.logs = [open_in(disk, SETTINGS) for disk in self.disks]
        self.epoch = 0
        self.histories: list[list[Seen]] = [[], []]
        """Of each replica what was written to it, or came to it from a leader."""
        self.elect(0)

    def elect(self, leader: int) -> None:
        self.epoch += 1
        self.leader = leader
        state = partition_state(replicas=[0, 1], leader=leader, leader_epoch=self.epoch)
        self.leading = LeaderState(leader, 1, state, SETTINGS, self.logs[leader], lambda *_: True, NOW_MS)
        self.following = FollowerState(state, self.epoch, leader, SETTINGS, self.logs[1 - leader])

    @property
    def source(self) -> PartitionLog:
        return self.logs[self.leader]

    @property
    def copy(self) -> PartitionLog:
        return self.logs[1 - self.leader]

    @property
    def written(self) -> list[Seen]:
        return self.histories[self.leader]

    # ---- what happens

    @rule(
        batches=st.lists(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=3), max_size=6)
    )
    def append(self, batches: list[list[tuple[bytes, bool]]]) -> None:
        for keys in batches:
            base = self.source.end_offset
            pairs = [(key, None if dead else b"%d@%d" % (base + i, self.epoch)) for i, (key, dead) in enumerate(keys)]
            keyed(self.source, pairs, self.epoch, 1000)
            self.histories[self.leader] += [Seen(base + i, key, value) for i, (key, value) in enumerate(pairs)]
        self.source.flush()

    @rule(max_bytes=st.integers(1, 1000))
    def fetch(self, max_bytes: int) -> None:
        entry = self.following.next_fetch()
        diverging = self.leading.on_fetch(1 - self.leader, 1, entry, NOW_MS)
        data = NOTHING
        if diverging is None:
            data = memoryview(self.source.read(entry.fetch_offset, max_bytes, self.source.end_offset))
        result = ReplicaFetchResult(
            entry.topic,
            entry.topic_id,
            entry.partition,
            self.epoch,
            entry.fetch_offset,
            self.source.high_watermark,
            self.source.start_offset,
            batches=data,
            diverging=diverging,
        )
        before, history = self.copy.end_offset, self.histories[1 - self.leader]
        self.following.on_fetched(result, NOW_MS)
        self.copy.flush()
        history += read_from(self.source, before, self.copy.end_offset) if self.copy.end_offset > before else []
        self.histories[1 - self.leader] = [seen for seen in history if seen.offset < self.copy.end_offset]

    @rule(alone=st.booleans())
    def commit(self, alone: bool) -> None:
        """``alone``: the follower is out of the ISR."""
        ends = [self.source.end_offset] if alone else [log.end_offset for log in self.logs]
        self.source.high_watermark = max(self.source.high_watermark, min(ends))

    @rule(which=st.integers(0, 1))
    def clean(self, which: int) -> None:
        self.logs[which].maybe_roll(NOW_MS + SETTINGS.segment_ms)
        assert clean_now(self.logs[which], NOW_MS)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        log = self.logs[which]
        high_watermark = log.high_watermark
        self.logs[which] = open_in(self.disks[which], SETTINGS, log.close())
        assert self.logs[which].high_watermark == high_watermark
        self.elect(self.leader)

    @rule()
    def fail_over(self) -> None:
        """To the other one. When it lacks what was committed, what it lacks is lost (an unclean
        election)."""
        self.elect(1 - self.leader)

    # ---- what must hold

    @invariant()
    def the_leader_says_what_was_written(self) -> None:
        survivors = read_from(self.source, self.source.start_offset)
        assert set(survivors) <= set(self.written)
        assert latest(survivors) == latest(self.written)

    @rule()
    def catch_up(self) -> None:
        for _ in range(200):
            done = self.copy.end_offset
            self.fetch(600)
            if self.copy.end_offset == done == self.source.end_offset:
                break
        assert self.copy.end_offset == self.source.end_offset
        assert latest(read_from(self.copy, self.copy.start_offset)) == latest(self.written)
        assert self.copy.epoch_entries == self.copy.recompute_epochs()
        assert self.copy.epoch_entries == self.source.epoch_entries

    def teardown(self) -> None:
        self.catch_up()


def latest(records: list[Seen]) -> dict[bytes | None, Seen]:
    return {seen.key: seen for seen in records}


ReplicationMachine.TestCase.settings = settings(
    max_examples=16, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_compacted_replication = ReplicationMachine.TestCase
