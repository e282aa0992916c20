"""History: what really happened to each partition, known to nobody but the checker.

For each partition (by topic id): every batch ever appended, under its (leader epoch, base offset),
with its predecessor. Who led which epoch; and the *committed log*: what lay below any leader's high
watermark at any time.

The checks are incremental, so each costs a few look-ups per append or commit:
* LogMatching: a batch of one (epoch, base offset) is the same everywhere and has the same
  predecessor everywhere. By induction two logs that share a batch agree on everything before it.
* AckedBatchesSurvive, ConsistentRead: the committed log only grows and never changes;
  acknowledgements and reads are compared with it, and so is every leader's log when it begins to
  lead or commits.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, StorageFailed
from minilog.wire.batch import Batch, split
from tests.sim.checks.freshness import Commits
from tests.sim.checks.log_starts import LogStarts
from tests.sim.checks.records import Records, are_remembered
from tests.sim.checks.weak_acks import WeakAcks
from tests.sim.nodes.world import Violation
from tests.unit.storage.log.producer_model import Model, Numbered, of_table

UNBOUNDED = 2**31 - 1


class Entry(NamedTuple):
    """A batch as the checker remembers it."""

    base_offset: int
    end_offset: int
    leader_epoch: int
    crc: int

    @classmethod
    def of(cls, batch: Batch) -> Entry:
        return cls(batch.base_offset, batch.end_offset, batch.leader_epoch, batch.crc)


class Mirror:
    """The naive second copy of one replica's log."""

    def __init__(self, start_offset: int = 0) -> None:
        self.start_offset = start_offset
        self.entries: list[Entry] = []
        self.bases: list[int] = []
        self.numbered: list[Numbered] = []
        """The batches with a producer id."""

    @property
    def end_offset(self) -> int:
        return self.entries[-1].end_offset if self.entries else self.start_offset

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.bases.append(entry.base_offset)

    def cut(self, end_offset: int) -> None:
        keep = bisect_left(self.bases, end_offset)
        del self.entries[keep:], self.bases[keep:]
        while self.numbered and self.numbered[-1].base_offset >= end_offset:
            self.numbered.pop()

    def forget(self, start_offset: int) -> None:
        """The log begins here now, which is a border."""
        drop = bisect_left(self.bases, start_offset)
        del self.entries[:drop], self.bases[:drop]
        self.numbered = [batch for batch in self.numbered if batch.base_offset >= start_offset]
        self.start_offset = start_offset

    def since(self, start_offset: int) -> list[Entry]:
        return self.entries[bisect_left(self.bases, start_offset) :]

    def at(self, base_offset: int) -> Entry | None:
        index = bisect_left(self.bases, base_offset)
        found = index < len(self.bases) and self.bases[index] == base_offset
        return self.entries[index] if found else None

    def ending_at(self, end_offset: int) -> Entry | None:
        index = bisect_left(self.bases, end_offset) - 1
        found = index >= 0 and self.entries[index].end_offset == end_offset
        return self.entries[index] if found else None

    def between(self, start_offset: int, end_offset: int) -> list[Entry]:
        return self.entries[bisect_left(self.bases, start_offset) : bisect_left(self.bases, end_offset)]

    def holding(self, offset: int) -> Entry | None:
        index = bisect_right(self.bases, offset) - 1
        found = index >= 0 and offset < self.entries[index].end_offset
        return self.entries[index] if found else None


class PartitionHistory:
    def __init__(self, name: str) -> None:
        self.name = name
        self.committed = Mirror()
        self.commits = Commits()
        self.commit_epochs: list[int] = []
        """Of each committed batch the leader epoch it was committed in, which is not the one it was
        written in."""
        self.leaders: dict[int, int] = {}
        """Broker by leader epoch."""
        self.shown: dict[int, int] = {}
        """Highest high watermark shown to clients, by leader epoch."""
        self.deleted = False
        self.receipts: set[tuple[int, int]] = set()
        """(base offset, CRC) of everything that was acknowledged, at whatever level."""
        self.starts = LogStarts(name)
        self.weak = WeakAcks(name)
        self.records: Records | None = None
        """Of a topic that loses some."""
        self._seen: dict[tuple[int, int], tuple[Entry, Entry | None]] = {}

    def fail(self, name: str, detail: str) -> None:
        raise Violation(name, f"{self.name}: {detail}")

    def accept_loss(self, end_offset: int) -> None:
        """A scenario destroys more than is promised to survive: from here on nothing at or above
        this end is expected."""
        self.committed.cut(end_offset)
        del self.commit_epochs[len(self.committed.entries) :]
        self.shown.clear()

    def on_unclean(self, mirror: Mirror) -> int:
        """Somebody has decided that this log is what the partition holds. Returns how many of the
        committed records are lost."""
        kept = 0
        for entry in self.committed.entries:
            if entry.base_offset >= mirror.start_offset and mirror.at(entry.base_offset) != entry:
                break
            kept = entry.end_offset
        lost = self.committed.end_offset - kept
        if lost:
            self.accept_loss(kept)
        return lost

    def before_start(self, who: str, start_offset: int) -> Entry | None:
        """What lay before the first batch of a log that begins here. All that ever goes was
        committed."""
        before = self.committed.ending_at(start_offset)
        if before is None and start_offset > 0:
            self.fail("LogStartCommitted", f"{who} begins at {start_offset}, where nothing committed ends")
        return before

    def on_append(self, who: str, entry: Entry, before: Entry | None) -> None:
        first = self._seen.setdefault((entry.leader_epoch, entry.base_offset), (entry, before))
        if first != (entry, before):
            self.fail("LogMatching", f"{who} holds {entry} after {before}, elsewhere it is {first[0]} after {first[1]}")

    def on_lead(self, who: str, broker_id: int, leader_epoch: int, mirror: Mirror) -> None:
        if self.leaders.setdefault(leader_epoch, broker_id) != broker_id:
            self.fail("OneLeaderPerEpoch", f"{who} leads epoch {leader_epoch}, and so did {self.leaders[leader_epoch]}")
        # One that learns of its leadership late may have a successor already, and need not hold
        # what that has committed.
        self.weak.on_lead(who, leader_epoch, mirror)
        before = bisect_left(self.commit_epochs, leader_epoch)
        if before:
            self._check_holds("AckedBatchesSurvive", f"{who}, leader of epoch {leader_epoch},", mirror, before - 1)

    def check_complete(self, name: str, who: str, mirror: Mirror) -> None:
        """``mirror`` holds everything that was ever committed."""
        if self.committed.entries:
            self._check_holds(name, who, mirror, -1)

    def _check_holds(self, name: str, who: str, mirror: Mirror, index: int) -> None:
        """``mirror`` holds this committed batch, and so, by LogMatching, all before it down to its
        start."""
        entry = self.committed.entries[index]
        if entry.end_offset > mirror.start_offset and mirror.at(entry.base_offset) != entry:
            self.fail(name, f"{who} lacks committed {entry}, it holds {mirror.entries[-3:]}")

    def on_commit(self, who: str, leader_epoch: int, mirror: Mirror, high_watermark: int) -> bool:
        """A leader's high watermark is now here; True when the committed log grew."""
        known = self.committed.end_offset
        if high_watermark < known:
            entry = mirror.ending_at(high_watermark)
            if high_watermark > mirror.start_offset and entry != self.committed.ending_at(high_watermark):
                self.fail("AckedBatchesSurvive", f"{who} commits up to {entry}, others had committed something else")
            return False
        self.check_complete("AckedBatchesSurvive", f"{who} at high watermark {high_watermark}", mirror)
        for entry in mirror.between(known, high_watermark):
            self.committed.append(entry)
            self.commit_epochs.append(max([leader_epoch, *self.commit_epochs[-1:]]))
        if self.committed.end_offset != high_watermark:
            self.fail("AckedBatchesSurvive", f"{who}: high watermark {high_watermark} is on no batch border")
        self.weak.on_committed(high_watermark)
        return high_watermark > known

    def committed_records(self) -> list[tuple[int, bytes]]:
        """(offset, value) of everything ever committed, also of what has gone since."""
        assert self.records is not None
        originals = self.records.originals
        entries = self.committed.entries
        return [(r.offset, r.value or b"") for e in entries for r in originals[e.leader_epoch, e.base_offset]]

    def on_acked(self, who: str, base_offset: int, end_offset: int, leader_epoch: int, crc: int) -> None:
        entry = self.committed.at(base_offset)
        if entry is None or (entry.leader_epoch, entry.crc) != (leader_epoch, crc):
            self.fail(
                "AckedBatchesSurvive", f"{who} acknowledged {base_offset} of epoch {leader_epoch}, committed is {entry}"
            )
        if end_offset > self.committed.end_offset:
            self.fail("AckedBatchesSurvive", f"{who} acknowledged up to {end_offset}, beyond what is committed")

    def on_shown(self, who: str, leader_epoch: int, high_watermark: int) -> None:
        for epoch, shown in self.shown.items():
            if epoch <= leader_epoch and shown > high_watermark:
                self.fail(
                    "HighWatermarkMonotonic",
                    f"{who} of epoch {leader_epoch} shows {high_watermark}, {shown} was shown in epoch {epoch}",
                )
        self.shown[leader_epoch] = high_watermark

    def on_read(self, who: str, data: bytes | memoryview) -> None:
        for batch in split(data, UNBOUNDED, stored=True):
            entry = Entry.of(batch)
            if self.committed.at(entry.base_offset) != entry:
                self.fail(
                    "ConsistentRead", f"{who} shows {entry}, committed is {self.committed.holding(entry.base_offset)}"
                )


class History:
    """Everything, by topic id and partition."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], PartitionHistory] = {}
        self.checks = 0
        self.check_deletion: Callable[[int, str, str, int], None] = lambda *_: None
        """A broker deletes its copy of (topic, topic id, partition)."""

    def of(self, topic: str, topic_id: str, partition: int) -> PartitionHistory:
        key = (topic_id, partition)
        if key not in self.partitions:
            self.partitions[key] = PartitionHistory(f"{topic}-{partition}")
        return self.partitions[key]


class Left(NamedTuple):
    """What a process left behind. ``starts``: where the log may begin; below ``durable_end``
    nothing may be missing."""

    mirror: Mirror
    starts: tuple[int, ...]
    durable_end: int


class WatchedLog:
    """A replica's log with the checker looking on; satisfies ReplicaLog by passing everything
    through."""

    def __init__(self, inner: Any, who: str, history: PartitionHistory, left: Left | None) -> None:
        self.inner = inner
        self.who = who
        self.history = history
        self.mirror = Mirror(inner.start_offset)
        self.truncated = False
        self.start_moved = False
        """What went from the beginning is still in the mirror, until the turn is over and it has
        been looked at."""
        self.start_in_doubt: int | None = None
        """A new start that the disk failed to take: both may be found when it is read again."""
        self.expects_nothing = False
        """The disk failed while everything was being thrown away."""
        self._load(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _load(self, left: Left | None) -> None:
        """The log says that it is whole or that it is not before the checker has read it, and goes
        on saying so."""
        known = [(segment, segment.bad_ranges) for segment in self.inner.segments]
        try:
            self._read_all()
        except CorruptRange:
            for segment, bad_ranges in known:
                segment.bad_ranges = bad_ranges
            if left is None:
                raise
            self.mirror = left.mirror  # what was there stands in for what cannot be read
            self.mirror.forget(self.inner.start_offset)
            self.mirror.cut(self.inner.end_offset)
            return
        self._check_epochs()
        self.check_producers()
        if left is not None:
            self._check_survival(left)

    def _read_all(self) -> None:
        data = self.inner.read(self.inner.start_offset, UNBOUNDED, self.inner.end_offset)
        while len(data):
            for batch in split(data, UNBOUNDED, stored=True):
                self._observe(batch)
            data = self.inner.read(self.mirror.end_offset, UNBOUNDED, self.inner.end_offset)
        if self.mirror.end_offset != self.inner.end_offset:
            raise Violation(
                "OffsetsContiguous", f"{self.who}: read to {self.mirror.end_offset} of {self.inner.end_offset}"
            )

    def _check_survival(self, left: Left) -> None:
        mirror, before = self.mirror, left.mirror
        if mirror.start_offset not in left.starts:
            raise Violation("DurableSurvives", f"{self.who} reopened from {mirror.start_offset}, not {left.starts}")
        before.forget(mirror.start_offset)
        if mirror.end_offset < left.durable_end or mirror.entries != before.entries[: len(mirror.entries)]:
            raise Violation(
                "DurableSurvives",
                f"{self.who} reopened with {mirror.entries[-3:]}, durable was {left.durable_end} of {before.entries[-3:]}",
            )

    def _observe(self, batch: Batch) -> None:
        entry, mirror = Entry.of(batch), self.mirror
        if entry.base_offset != mirror.end_offset:
            raise Violation("OffsetsContiguous", f"{self.who}: {entry} after {mirror.end_offset}")
        last = mirror.entries[-1] if mirror.entries else self.history.before_start(self.who, entry.base_offset)
        if last is not None and last.leader_epoch > entry.leader_epoch:
            raise Violation("EpochMonotonic", f"{self.who}: {entry} after {last}")
        self.history.on_append(self.who, entry, last)
        if self.history.records is not None:
            self.history.records.observe(batch)
        mirror.append(entry)
        if batch.producer_id >= 0:
            mirror.numbered.append(Numbered.of(batch))

    def check_producers(self) -> None:
        """R32: what the log knows of its producers is a function of its batches.

        Of a log whose beginning has gone, or that was cleaned, what is left must at least say the
        same of each last one.
        """
        table = self.inner.producers.table
        model = Model(self.mirror.numbered, table.expiration_ms)
        truth, known = model.known(), of_table(table)
        if self.inner.start_offset > 0 or self.inner.settings.is_compacted:
            lasts = {producer_id: batches[-1][:4] for producer_id, *_, batches in known}
            wrong = any(lasts.get(producer_id) != batches[-1][:4] for producer_id, *_, batches in truth)
        else:
            wrong = known != truth
        if wrong:
            raise Violation("ProducerStateOfLog", f"{self.who} knows {known}, its batches say {truth}")

    @property
    def high_watermark(self) -> int:
        return int(self.inner.high_watermark)

    @high_watermark.setter
    def high_watermark(self, value: int) -> None:
        assert value <= self.mirror.end_offset
        self.inner.high_watermark = value

    def append(self, batches: Sequence[Batch]) -> None:
        self.inner.append(batches)
        for batch in batches:
            self._observe(batch)
        self._check_end()

    def truncate(self, end_offset: int) -> int:
        end = int(self.inner.truncate(end_offset))
        assert end <= max(end_offset, self.inner.start_offset)
        self.mirror.cut(end)
        self.truncated = True
        self._check_end()
        self._check_epochs()
        self.check_producers()
        return end

    def reset(self, start_offset: int, start_epoch: int = -1) -> None:
        try:
            self.inner.reset(start_offset, start_epoch)
        except StorageFailed:
            self.expects_nothing = True
            raise
        self.mirror = Mirror(start_offset)
        self.truncated = self.start_moved = True
        self._check_end()
        self._check_epochs()
        self.check_producers()

    def advance_start(self, offset: int) -> None:
        try:
            self.inner.advance_start(offset)
        except StorageFailed:
            self.start_in_doubt = offset
            raise
        if self.inner.start_offset != offset:
            raise Violation("LogStartMonotonic", f"{self.who} starts at {self.inner.start_offset}, asked for {offset}")
        self.start_moved = True

    def settle_start(self) -> None:
        """What went from the beginning is accounted for."""
        self.start_moved = False
        self.mirror.forget(self.inner.start_offset)
        self._check_epochs()

    def left(self, durable_end: int) -> Left:
        """The process ends, or gives the log away: what must be there when it is opened again."""
        starts = (self.mirror.start_offset, self.inner.start_offset) if self.start_moved else (self.inner.start_offset,)
        doubt = () if self.start_in_doubt is None else (self.start_in_doubt,)
        return Left(self.mirror, (*starts, *doubt), durable_end)

    def _check_epochs(self) -> None:
        """R3: the epoch list of the log is what a scan of it would find."""
        starts: dict[int, int] = {}
        for entry in self.mirror.entries:
            starts.setdefault(entry.leader_epoch, entry.base_offset)
        if self.inner.epoch_entries != list(starts.items()):
            raise Violation(
                "EpochCacheMatchesLog", f"{self.who}: {self.inner.epoch_entries}, the log has {list(starts.items())}"
            )

    def _check_end(self) -> None:
        if self.inner.end_offset != self.mirror.end_offset:
            raise Violation(
                "OffsetsContiguous", f"{self.who}: ends at {self.inner.end_offset}, not {self.mirror.end_offset}"
            )


class WatchedStore:
    """A broker's store; satisfies LogStore. ``start`` and the ends of a process belong to the
    simulated machine."""

    def __init__(self, inner: Any, who: str, history: History) -> None:
        self.inner = inner
        self.who = who
        self.history = history
        self.logs: dict[tuple[str, int], WatchedLog] = {}
        self._topic_ids: dict[tuple[str, int], str] = {}
        self._left: dict[tuple[str, str, int], Left] = {}
        self._durable: dict[tuple[str, str, int], int] = {}
        """Of the logs in ``_left`` that no process has read again yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> WatchedLog:
        log = self.inner.open(topic, topic_id, partition, settings)
        history = self.history.of(topic, topic_id, partition)
        if history.records is None and are_remembered(settings):
            history.records = Records()
        left = self._left.pop((topic, topic_id, partition), None)
        self._durable.pop((topic, topic_id, partition), None)
        watched = WatchedLog(log, f"{self.who} {topic}-{partition}", history, left)
        self.logs[topic, partition] = watched
        self._topic_ids[topic, partition] = topic_id
        return watched

    def open_log(self, topic: str, partition: int, topic_id: str) -> WatchedLog | None:
        """The log that is open now, if it belongs to that topic id."""
        log = self.logs.get((topic, partition))
        return log if self._topic_ids.get((topic, partition)) == topic_id else None

    def get(self, topic: str, partition: int) -> WatchedLog | None:
        return self.logs.get((topic, partition))

    def close(self, topic: str, partition: int) -> None:
        log = self.logs.pop((topic, partition))
        self.inner.close(topic, partition)
        self._left[topic, self._topic_ids[topic, partition], partition] = log.left(log.mirror.end_offset)

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        self._left.pop((topic, topic_id, partition), None)
        self._durable.pop((topic, topic_id, partition), None)
        self.history.check_deletion(self.inner.broker_id, topic, topic_id, partition)
        self.inner.delete(topic, topic_id, partition)
        self._drop(topic, topic_id, partition)

    def _drop(self, topic: str, topic_id: str, partition: int) -> None:
        if self._topic_ids.get((topic, partition)) == topic_id:
            self.logs.pop((topic, partition), None)

    def put_aside(self, topic: str, topic_id: str, partition: int) -> None:
        self._left.pop((topic, topic_id, partition), None)
        self._durable.pop((topic, topic_id, partition), None)
        self.inner.put_aside(topic, topic_id, partition)
        self._drop(topic, topic_id, partition)

    def on_kill(self) -> None:
        """The process died: everything written must be there again, unless the machine dies before
        it is read."""
        for (topic, partition), log in self.logs.items():
            key = (topic, self._topic_ids[topic, partition], partition)
            if log.expects_nothing:
                continue
            self._left[key] = log.left(log.mirror.end_offset)
            self._durable[key] = int(log.inner.durable_end)
        self.logs = {}

    def on_wipe(self) -> None:
        """The disk is empty: nothing is expected of it."""
        self._left.clear()
        self._durable.clear()

    def on_wipe_of(self, topic: str, partition: int) -> None:
        """Nothing is expected of this log."""
        for known in (self._left, self._durable):
            for key in [key for key in known if (key[0], key[2]) == (topic, partition)]:
                del known[key]

    def on_crash(self) -> None:
        """The machine died: everything durable must be there again, and nothing that was not
        written."""
        self.on_kill()
        for key, durable_end in self._durable.items():
            self._left[key] = self._left[key]._replace(durable_end=durable_end)
