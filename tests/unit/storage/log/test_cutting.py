"""How records leave the end of a log: never without quarantine and count, never in a way that a
crash makes worse, and with everything that was known of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull
from minilog.storage.disk import Buffer
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.log.log_state import CUTS_KEPT, STATE_FILE
from minilog.storage.log.truncation import DIVERGED, OVERTAKEN
from minilog.wire.batch import Batch, filler, split, stamp
from minilog.wire.cleaned_batch import retain
from minilog.wire.records import Record, decode_batch
from tests.unit.storage.batches import SMALL, everything, fill, flush, make, open_in
from tests.unit.storage.memory_disk import Crash, MemoryDisk, Nothing
from tests.unit.wire.batches import encode_batch

LARGE = TopicSettings(segment_bytes=1 << 20)
FILE = "/d/t-0/00000000000000000000.log"
TAILS = "/d/quarantine/t-0"


def kept(disk: MemoryDisk) -> list[tuple[str, list[Batch]]]:
    """(reason, batches) of every tail in quarantine."""
    found = []
    for name in disk.list(TAILS) if "t-0" in disk.list("/d/quarantine") else ():
        if name.endswith(".json"):
            described = bytes(disk.file(f"{TAILS}/{name}").durable).decode()
            (reason,) = (reason for reason in (DIVERGED, OVERTAKEN) if f'"{reason}"' in described)
            data = bytes(disk.file(f"{TAILS}/{name.removesuffix('.json')}.log").durable)
            found.append((reason, split(data, 1 << 30, stored=True)))
    return found


def levels(log: PartitionLog) -> list[Batch]:
    """Four committed batches of two segments, and three of three that are not."""
    committed = [make(n, 1, size=1500, acks_level=3) for n in range(4)]
    tail = [make(4, 1, acks_level=2), make(5, 2, size=3000, acks_level=1), make(6, 2, size=3000, acks_level=3)]
    for batch in committed + tail:
        log.append([batch])
    log.high_watermark = 4
    assert len(log.segments) == 4
    return committed + tail


def test_what_the_leaders_start_has_overtaken_and_nobody_is_known_to_have_is_kept_and_counted() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    batches = levels(log)
    log.reset(100)
    assert (log.start_offset, log.end_offset, len(log.segments)) == (100, 100, 1)
    assert log.records_lost == [0, 1, 1, 1]
    assert kept(disk) == [(OVERTAKEN, split(b"".join(b.tobytes() for b in batches[4:]), 1 << 30, stored=True))]


def test_of_what_was_committed_nothing_is_lost_when_it_has_gone_at_the_leader_too() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    levels(log)
    log.high_watermark = 7
    log.reset(100)
    assert (log.records_lost, kept(disk)) == ([0, 0, 0, 0], [])


@pytest.mark.parametrize("start_offset", [7, 3, 0])
def test_a_log_that_diverges_nobody_knows_from_where_is_kept_whole(start_offset: int) -> None:
    """The leader's log begins where this one ends, or before, and does not go on from it."""
    disk = MemoryDisk()
    log = open_in(disk)
    batches = levels(log)
    log.reset(start_offset)
    assert (log.start_offset, log.end_offset) == (start_offset, start_offset)
    assert log.records_lost == [0, 1, 1, 5]
    assert kept(disk) == [(DIVERGED, split(b"".join(b.tobytes() for b in batches), 1 << 30, stored=True))]


def test_a_log_that_was_cleaned_by_what_is_cut_now_keeps_what_diverges_and_begins_anew() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    levels(log)
    log.note_sweep(4)
    log.truncate(2)
    assert (log.start_offset, log.end_offset, len(log.segments)) == (0, 0, 1)
    assert log.records_lost == [0, 1, 1, 3]
    ((reason, batches),) = kept(disk)
    assert (reason, [batch.base_offset for batch in batches]) == (DIVERGED, [2, 3, 4, 5, 6])


def test_the_times_of_what_is_lost_are_those_of_records() -> None:
    """Cleaning writes a delete horizon where a batch says when its first record was."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    (batch,) = split(encode_batch([Record(0, 1000, b"k"), Record(1, 1500, b"j", b"v")]), 1 << 20)
    log.append([retain(stamp(batch, 0, 0, 3), decode_batch(batch), 90_000_000)])
    log.truncate(0)
    described = bytes(disk.file(f"{TAILS}/0-0-2.json").durable)
    assert b'"first_timestamp":1000,"last_timestamp":1500' in described


def test_a_cut_at_a_start_within_a_batch_leaves_an_empty_log_that_begins_there() -> None:
    """A follower takes over its leader's start; cleaning may have joined what lies around it
    here."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    log.append([filler(make(0)._replace(last_offset_delta=9), 0), make(10, 1)])
    flush(log)
    log.high_watermark = 11
    log.advance_start(5)
    assert log.truncate(5) == 5
    assert (log.start_offset, log.end_offset, log.high_watermark) == (5, 5, 5)
    assert log.records_lost == [0, 0, 0, 1]
    fill(log, 2, epoch=2)
    flush(log)
    again = open_in(disk, LARGE)
    assert (again.start_offset, again.end_offset) == (5, 7)


def test_without_room_for_what_is_lost_nothing_is_dropped_and_a_second_attempt_counts_once() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    batches = levels(log)
    for operation in range(1, 12):
        disk.faults = dict.fromkeys(range(len(disk.operations) + operation, len(disk.operations) + 100), "full")
        with pytest.raises(DiskFull):
            log.reset(100)
        if log.records_lost != [0, 0, 0, 0]:
            break
        assert everything(log) == b"".join(batch.tobytes() for batch in batches)
    disk.faults = {}
    log.reset(100)
    assert log.records_lost == [0, 1, 1, 1]
    assert len(kept(disk)) == 1


def test_what_recovery_takes_away_is_counted_too() -> None:
    """A power cut lost a sector in the middle. What was written behind it was never durable, but
    may be all there is of it."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    first = make(0, size=600)
    log.append([first])
    flush(log)
    point = log.checkpoint()
    for batch in (make(1, size=600), make(2, size=600, acks_level=2), make(3, size=600, acks_level=3)):
        log.append([batch])
    file = disk.file(FILE)
    file.content[first.bytes_total : first.bytes_total + 600] = bytes(600)
    file.sync()
    again = open_in(disk, LARGE, point)
    assert (again.end_offset, again.records_lost) == (1, [0, 0, 1, 1])


# --- the high watermark goes with what it was said of ---------------------------------------------


@pytest.mark.parametrize("cuts", [1, 2, CUTS_KEPT + 3])
def test_a_checkpoint_speaks_for_nothing_that_was_cut_since(cuts: int) -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 100, epoch=1)
    flush(log)
    log.high_watermark = 100
    point = log.checkpoint()
    for number in range(cuts):
        log.truncate(60 - number)
        fill(log, 70, epoch=2 + number)
    flush(log)
    again = open_in(disk, LARGE, point, power_loss=False)
    assert (again.end_offset, again.epoch_entries) == (log.end_offset, log.epoch_entries)
    assert again.high_watermark == (61 - cuts if cuts <= CUTS_KEPT else 0)


def test_the_three_facts_of_a_recovery_point_are_cut_together() -> None:
    point = RecoveryPoint(80, 90, 3, ((1, 0), (2, 50), (4, 85)))
    assert point.cut_to(50) == RecoveryPoint(50, 50, 3, ((1, 0),))
    assert point.cut_to(100) == point


def test_committed_but_never_synced_is_not_said_of_what_came_in_its_place() -> None:
    """The power goes: what was committed in memory only is lost. The next leader writes other
    records there, and the process is killed before the next checkpoint."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 50, epoch=1)
    flush(log)
    fill(log, 50, epoch=1)
    log.high_watermark = 100  # flush.policy is never
    point = log.checkpoint()
    disk.crash()
    again = open_in(disk, LARGE, point)
    assert (again.end_offset, again.high_watermark) == (50, 50)
    fill(again, 70, epoch=2)
    third = open_in(disk, LARGE, point)
    assert (third.end_offset, third.high_watermark) == (120, 50)


@pytest.mark.parametrize("present", [True, False])
def test_with_a_damaged_note_of_the_cuts_no_high_watermark_is_believed(present: bool) -> None:
    """The note itself, or the one before it when the process was killed between the two renames of
    a new one."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 10, epoch=1)
    flush(log)
    log.high_watermark = 10
    point = log.checkpoint()
    log.truncate(5)
    fill(log, 10, epoch=2)
    flush(log)
    if not present:
        disk.rename(f"/d/t-0/{STATE_FILE}", f"/d/t-0/{STATE_FILE}.previous")
    disk.file(f"/d/t-0/{STATE_FILE}" + ("" if present else ".previous")).content[30] ^= 1
    assert open_in(disk, LARGE, point).high_watermark == 0


def test_a_note_of_the_cuts_that_is_older_than_the_checkpoint_is_not_all_of_them() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 12, epoch=1)
    log.truncate(10)
    log.high_watermark = 10
    point = log.checkpoint()
    log.truncate(5)
    fill(log, 10, epoch=2)
    flush(log)
    for name in (STATE_FILE, f"{STATE_FILE}.previous"):
        disk.remove(f"/d/t-0/{name}")
    again = open_in(disk, LARGE, point)
    assert (again.high_watermark, again.epoch_entries) == (0, [(1, 0), (2, 5)])


def test_the_epoch_before_the_start_is_not_said_of_another_start() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    for epoch in range(4):
        fill(log, 2, epoch=epoch, size=2000)
    flush(log)
    log.high_watermark = 8
    log.advance_start(4)
    assert log.start_epoch == 1
    log.reset(100)
    assert log.start_epoch == -1
    log.note_sweep(101)
    assert (log.state.start_offset, log.state.start_epoch, log.start_epoch) == (100, -1, -1)


def test_what_a_power_cut_has_left_is_durable_from_then_on() -> None:
    """It was synced by recovery. A bit that flips in it before the next checkpoint is damage, and
    no torn write."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 3)
    flush(log)
    point = log.checkpoint()
    fill(log, 3)
    flush(log)
    disk.crash()
    assert open_in(disk, LARGE, point).end_offset == 6
    disk.file(FILE).content[-1] ^= 1
    disk.file(FILE).durable[-1] ^= 1
    again = open_in(disk, LARGE, point)
    assert again.is_damaged, "the last record was durable and acknowledged: it must be fetched again"
    assert again.recovered.torn_bytes == 0


def test_damage_below_the_start_is_no_damage_of_the_log() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 6, epoch=1)
    flush(log)
    log.high_watermark = 4
    log.advance_start(3)
    at = sum(batch.bytes_total for batch in batches[:3]) - 2
    for content in (disk.file(FILE).content, disk.file(FILE).durable):
        content[at] ^= 1
    assert log.truncate(4) == 4
    assert not log.is_damaged
    assert log.epoch_entries == log.recompute_epochs() == [(1, 3)]


class SmallDisk(MemoryDisk):
    room_bytes = 1 << 40
    refused = ""
    """Names that end so find no room."""

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        if sum(len(buffer) for buffer in buffers) + self.used_bytes > self.room_bytes:
            raise DiskFull("no space left")
        super().append(handle, position, buffers)

    def create(self, path: str) -> int:
        if self.refused and path.endswith(self.refused):
            raise DiskFull("no space left")
        return super().create(path)

    @property
    def used_bytes(self) -> int:
        return sum(len(file.content) for file in self._files(self.root))


@pytest.mark.parametrize("refused", ["", ".json.tmp"])
def test_what_finds_no_room_in_quarantine_takes_none(refused: str) -> None:
    disk = SmallDisk()
    log = open_in(disk, TopicSettings(segment_bytes=1 << 30))
    for _ in range(3):
        fill(log, 1, size=1 << 20)
    flush(log)
    before, disk.refused = disk.used_bytes, refused
    if not refused:
        disk.room_bytes = before + (3 << 19)
    for _ in range(3):
        with pytest.raises(DiskFull):
            log.truncate(0)
        assert (disk.used_bytes, disk.list(TAILS)) == (before, [])
    disk.room_bytes, disk.refused = 1 << 40, ""
    assert log.truncate(0) == 0
    assert len(kept(disk)) == 1


def test_damage_that_a_cut_meets_is_noted() -> None:
    """Behind the last index entry all is read again, and the last record that stays is not what was
    written."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 4, epoch=1)
    flush(log)
    at = sum(batch.bytes_total for batch in batches[:3]) - 2
    for content in (disk.file(FILE).content, disk.file(FILE).durable):
        content[at] ^= 1
    log.high_watermark = 3
    assert log.truncate(3) == 3
    assert log.bad_ranges == [(2, 3)]


@pytest.mark.parametrize("field", [0, 16, 26, 70])
def test_a_cut_that_damage_hides_is_refused(field: int) -> None:
    """Where the last batch that stays is not what was written, nobody knows what else would go."""
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    batches = fill(log, 6, epoch=1)
    flush(log)
    at = sum(batch.bytes_total for batch in batches[:3])
    for content in (disk.file(FILE).content, disk.file(FILE).durable):
        content[at + field] ^= 2
        content[at + batches[3].bytes_total :] = b"\xaa" * len(content[at + batches[3].bytes_total :])
    with pytest.raises(CorruptRange):
        log.truncate(4)
    assert log.end_offset == 6
    assert log.bad_ranges == [(3, 6)]
    log.note_damage()
    assert open_in(disk, LARGE, log.recovery_point(), power_loss=False).is_damaged
    assert log.truncate(3) == 3, "all of the damage lies behind this cut"
    assert not log.is_damaged


# --- a power cut in between -----------------------------------------------------------------------


class AnyOrderDisk(MemoryDisk):
    """Removals become durable in any order, as a file system may do that does not journal them in
    sequence."""

    def crash(self, rng: random.Random | None = None) -> None:
        assert rng is not None
        removals = [change for change in self._changes if [node for _, _, node in change.parts] == [None]]
        self._changes = [change for change in removals if rng.random() < 0.5]
        self._commit(len(self._changes))
        super().crash(Nothing())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("step", ["truncate", "reset"])
def test_a_power_cut_among_the_removals_leaves_no_gap(step: str, seed: int) -> None:
    for at in range(1, 60):
        disk = AnyOrderDisk()
        log = open_in(disk)
        fill(log, 6, size=3000)
        flush(log)
        log.high_watermark = 6
        disk.faults[len(disk.operations) + at] = "crash"
        try:
            log.truncate(1) if step == "truncate" else log.reset(50)
        except Crash:
            disk.crash(random.Random(seed))
            again = open_in(disk)
            assert not again.is_damaged
            split(everything(again), 1 << 30, stored=True)
            assert len(again.recompute_epochs()) <= 1
        else:
            assert at > 10
            return
    raise AssertionError("the cut never ended")


def test_small_segments_are_what_these_tests_need() -> None:
    assert SMALL.segment_bytes < 6000


def test_with_a_damaged_note_of_the_cuts_nothing_counts_as_clean_or_as_committed_because_it_was_cleaned() -> None:
    disk = MemoryDisk()
    log = open_in(disk, LARGE)
    fill(log, 10, epoch=1)
    flush(log)
    log.high_watermark = 10
    log.note_sweep(8)
    log.note_cleaned(8, -1)
    log.truncate(9)
    log.truncate(8)
    fill(log, 5, epoch=2)
    flush(log)
    whole = open_in(disk, LARGE)
    assert (whole.state.cleaned_end, whole.high_watermark) == (8, 8)
    disk.file(f"/d/t-0/{STATE_FILE}").content[30] ^= 1
    again = open_in(disk, LARGE)
    assert (again.state.cleaned_end, again.state.swept_end, again.high_watermark) == (0, 0, 0)
