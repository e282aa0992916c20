"""Compaction and retention against a naive model: the list of everything that was written.

A record may be missing only because a later one of its key is there, or because it is a tombstone
that everybody had time to see. Crashes stop the disk at a random operation, with or without the
page cache.
"""

from __future__ import annotations

import random
from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minilog.storage.compaction.cleaning_round import survey
from minilog.storage.recovery.recovery import NOTHING_KNOWN
from tests.unit.storage.batches import open_in
from tests.unit.storage.compaction.keyed import COMPACTED, Seen, Stop, StoppingDisk, commit, keyed, read_from
from tests.unit.storage.compaction.rounds import clean_now

KEYS = [b"a", b"b", b"c", b"d" * 100, b""]
PRODUCERS = 2


class CleaningMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.disk = StoppingDisk()
        self.log = open_in(self.disk, COMPACTED)
        self.now = 10_000
        self.epoch = 0
        self.point = NOTHING_KNOWN
        self.written: list[Seen] = []
        self.ends: list[int] = []
        """Batch borders."""
        self.numbered: list[tuple[int, int, int]] = []
        """(base offset, producer id, next sequence) of every numbered batch."""
        self.tried: dict[int, int] = {}
        """Tombstone's offset to when cleaning first had it in reach."""
        self.cleaned: dict[int, int] = {}
        """The same, for rounds that were carried through since the log was opened: time before a
        crash need not be counted, for nobody watched whether its clock was right."""

    # ---- what happens to the log

    @rule(
        batches=st.lists(
            st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=4
        ),
        producer=st.integers(-1, PRODUCERS - 1),
        bump=st.booleans(),
    )
    def append(self, batches: list[list[tuple[bytes, bool]]], producer: int, bump: bool) -> None:
        self.epoch += bump
        for keys in batches:
            base = self.log.end_offset
            pairs = [(key, None if dead else b"%d" % (base + i)) for i, (key, dead) in enumerate(keys)]
            sequence = self._next_sequence(producer)
            keyed(self.log, pairs, self.epoch, self.now, (producer, 0, sequence) if producer >= 0 else (-1, -1, -1))
            self.written += [Seen(base + i, key, value) for i, (key, value) in enumerate(pairs)]
            self.ends.append(self.log.end_offset)
            if producer >= 0:
                self.numbered.append((base, producer, sequence + len(keys)))

    def _next_sequence(self, producer: int) -> int:
        return next((after for _, known, after in reversed(self.numbered) if known == producer), 0)

    @rule()
    def commit(self) -> None:
        commit(self.log)

    @rule()
    def checkpoint(self) -> None:
        self.point = self.log.checkpoint()

    @rule(ms=st.sampled_from([1, 400, 1001]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule()
    def roll(self) -> None:
        commit(self.log)
        self.log.maybe_roll(self.now + COMPACTED.segment_ms + 1)

    @rule(fraction=st.floats(0, 1))
    def truncate(self, fraction: float) -> None:
        """Above the high watermark, as followers do."""
        low, high = self.log.high_watermark, self.log.end_offset
        self.log.truncate(low + int(fraction * (high - low)))
        self._forget_from(self.log.end_offset)

    @rule(fraction=st.floats(0, 0.3))
    def advance_start(self, fraction: float) -> None:
        start, high = self.log.start_offset, min(self.log.high_watermark, self.log.durable_end)
        wanted = start + int(fraction * (high - start))
        target = max((end for end in self.ends if start <= end <= wanted), default=start)
        self.log.advance_start(target)
        self.written = [seen for seen in self.written if seen.offset >= target]

    @rule(map_bytes=st.sampled_from([1, 400, 1 << 20]))
    def clean(self, map_bytes: int) -> None:
        self._note_reach(self.tried)
        old = {offset for offset, since in self.cleaned.items() if self.now >= since + COMPACTED.delete_retention_ms}
        end_offset = survey(self.log, self.now).end_offset
        for _ in range(60):
            assert clean_now(self.log, self.now, map_bytes_max=map_bytes)
            if self.log.state.cleaned_end >= end_offset:
                break
        assert self.log.state.cleaned_end >= min(end_offset, self.log.high_watermark)
        self._note_reach(self.cleaned)
        survivors = [seen for seen in read_from(self.log, self.log.start_offset) if seen.offset < end_offset]
        assert len({seen.key for seen in survivors}) == len(survivors), "one value a key below the cleaned end"
        assert not old & {seen.offset for seen in survivors}, "tombstones go when their time is up"

    def _note_reach(self, since: dict[int, int]) -> None:
        end_offset = survey(self.log, self.now).end_offset
        for seen in self.written:
            if seen.value is None and seen.offset < end_offset:
                since.setdefault(seen.offset, self.now)

    @rule(
        at=st.integers(1, 25),
        how=st.sampled_from(["before", "after", "torn"]),
        power=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def crash_while_cleaning(self, at: int, how: str, power: bool, seed: int) -> None:
        self._note_reach(self.tried)
        self.disk.arm(at, how)
        with suppress(Stop):
            clean_now(self.log, self.now)
        self.disk.arm(0, how)
        self._reopen(power, seed)

    @rule(power=st.booleans(), seed=st.integers(0, 2**32))
    def crash(self, power: bool, seed: int) -> None:
        self._reopen(power, seed)

    def _reopen(self, power: bool, seed: int) -> None:
        durable_end, start, cleaned_end = self.log.durable_end, self.log.start_offset, self.log.state.cleaned_end
        end_offset, high_watermark = self.log.end_offset, self.log.high_watermark
        if power:
            self.disk.crash(random.Random(seed))
        else:
            self.disk.kill()
        self.log = open_in(self.disk, COMPACTED, self.point, power_loss=power)
        log = self.log
        assert log.start_offset == start
        assert (durable_end if power else end_offset) <= log.end_offset <= end_offset
        assert log.state.cleaned_end >= cleaned_end
        log.high_watermark = min(high_watermark, log.end_offset)
        self._forget_from(log.end_offset)
        self.cleaned.clear()
        self._check_sequences()

    def _forget_from(self, end_offset: int) -> None:
        self.written = [seen for seen in self.written if seen.offset < end_offset]
        self.ends = [end for end in self.ends if end <= end_offset]
        self.numbered = [batch for batch in self.numbered if batch[0] < end_offset]
        for since in (self.tried, self.cleaned):
            for offset in [offset for offset in since if offset >= end_offset]:
                del since[offset]

    def _check_sequences(self) -> None:
        """The last batch of every producer is found again, whatever has become of its records."""
        for producer in range(PRODUCERS):
            mine = [batch for batch in self.numbered if batch[1] == producer]
            if mine and mine[-1][0] >= self.log.start_offset:
                known = self.log.producers.table.get(producer)
                assert known is not None
                assert known.next_sequence == mine[-1][2]

    # ---- what must hold

    @invariant()
    def nothing_is_missing_without_a_reason(self) -> None:
        log = self.log
        survivors = read_from(log, log.start_offset)
        assert set(survivors) <= set(self.written)
        assert survivors == sorted(survivors)
        last = {seen.key: seen.offset for seen in self.written}
        for gone in set(self.written) - set(survivors):
            if last[gone.key] == gone.offset:
                assert gone.value is None
                assert self.now >= self.tried[gone.offset] + COMPACTED.delete_retention_ms

    @invariant()
    def the_log_is_sound(self) -> None:
        log = self.log
        assert not log.is_damaged
        assert log.epoch_entries == log.recompute_epochs()
        assert log.start_offset <= log.high_watermark <= log.end_offset
        assert log.end_offset == (self.ends[-1] if self.ends else 0)

    @rule(fraction=st.floats(0, 1), max_bytes=st.integers(0, 500))
    def read(self, fraction: float, max_bytes: int) -> None:
        """From any offset on, the next record that is left comes first, below the high watermark
        too."""
        log = self.log
        offset = log.start_offset + int(fraction * (log.end_offset - log.start_offset))
        survivors = read_from(log, log.start_offset)
        assert read_from(log, offset, max_bytes=max_bytes) == [seen for seen in survivors if seen.offset >= offset]
        limit = log.high_watermark
        if log.start_offset <= offset <= limit:
            shown = read_from(log, offset, limit, max_bytes)
            assert shown == [seen for seen in survivors if offset <= seen.offset < limit]


CleaningMachine.TestCase.settings = settings(
    max_examples=16, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_cleaning_model = CleaningMachine.TestCase


def test_a_producer_whose_uncommitted_batch_is_cut_is_still_known_by_its_last_committed_one() -> None:
    """The batch that a cleaning leaves as the producer's last must be one that no truncation can
    take."""
    machine = CleaningMachine()
    machine.begin()
    machine.append(batches=[[(b"a", False)], [(b"a", False)]], bump=False, producer=1)
    machine.append(batches=[[(b"a", False)], [(b"b" * 100, False)]], bump=False, producer=0)
    machine.commit()
    machine.append(batches=[[(b"a", False)]], bump=False, producer=1)
    machine.crash_while_cleaning(at=17, how="after", power=True, seed=2)
    machine.teardown()


def test_a_reader_at_the_start_of_a_log_that_begins_within_a_filler() -> None:
    machine = CleaningMachine()
    machine.begin()
    machine.append(batches=[[(b"a", False)], [(b"a", False)]], bump=False, producer=0)
    machine.append(batches=[[(b"a", False), (b"a", False)]], bump=False, producer=0)
    machine.roll()
    machine.advance_start(fraction=0.25)
    machine.clean(map_bytes=1)
    machine.teardown()


def test_time_before_a_crash_need_not_count_for_a_tombstone() -> None:
    """Retention may keep a tombstone longer than its time, never shorter (R40)."""
    machine = CleaningMachine()
    machine.begin()
    machine.append(batches=[[(b"a", False)]], bump=False, producer=-1)
    machine.append(batches=[[(b"a", False), (b"d" * 100, True)]], bump=False, producer=-1)
    machine.commit()
    machine.append(batches=[[(b"a", False)]], bump=False, producer=-1)
    machine.clean(map_bytes=1)
    machine.pass_time(ms=1001)
    machine.crash(power=False, seed=0)
    machine.clean(map_bytes=1)
    machine.teardown()
