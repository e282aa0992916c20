"""R53: whoever meets damage in a log's files, the log knows it from then on, and the next start
does too."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from minilog.errors import CorruptRange, DiskFull
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.log.producer_snapshots import SUFFIX
from minilog.storage.segment.damage import RANGES_NOTED_MAX, noted
from minilog.storage.segment.scan import BadBatch
from tests.sim.nodes.disk import File
from tests.unit.storage.batches import everything, grow_old, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk

BATCHES = 20
BAD = 1
"""Number of the segment that is damaged: a sealed one that begins with the damage."""


class BadSectorDisk(MemoryDisk):
    """Of one file nothing can be read."""

    unreadable: File | None = None

    def pread(self, handle: int, position: int, size: int) -> bytes:
        if self._opened(handle) is self.unreadable and size:
            raise CorruptRange(f"bytes from {position} on could not be read: Input/output error")
        return super().pread(handle, position, size)


def written(disk: MemoryDisk) -> tuple[PartitionLog, RecoveryPoint]:
    """A log of several segments, opened anew: nothing of them is in memory."""
    log = open_in(disk)
    for number in range(BATCHES):
        log.append([make(number, 1, size=600, timestamp=1000 + number)])
    log.flush()
    log.high_watermark = log.end_offset
    point = log.close()
    log = open_in(disk, point=point)
    assert len(log.segments) > 3
    return log, point


def at(log: PartitionLog) -> int:
    return log.segments[BAD].base_offset


def path(log: PartitionLog) -> str:
    return log.segments[BAD].path


def read(log: PartitionLog) -> None:
    log.read(at(log), 1, log.end_offset)


def look_up_by_time(log: PartitionLog) -> None:
    log.offset_at(1000 + at(log))


def restore_producers(log: PartitionLog) -> None:
    for name in log.place.disk.list("/d/t-0"):
        if name.endswith(SUFFIX):
            log.place.disk.remove(f"/d/t-0/{name}")
    log.restore_producers()


def recompute_epochs(log: PartitionLog) -> None:
    log.recompute_epochs()


def find_what_is_old(log: PartitionLog) -> None:
    """Without its time index the segment has to tell."""
    for segment in log.segments[:-1]:
        segment.remove_index()
    grow_old(log, 10**10)
    log.expired_end(10**15)


def find_how_old_it_is(log: PartitionLog) -> None:
    assert log.segments[BAD].first_timestamp == -1


def thread(log: PartitionLog) -> None:
    log.note_damage_at(at(log))


MEETINGS: list[Callable[[PartitionLog], None]] = [
    read, look_up_by_time, restore_producers, recompute_epochs, find_what_is_old, thread,
]  # fmt: skip


@pytest.mark.parametrize("meet", MEETINGS)
def test_whoever_meets_a_changed_bit_the_log_knows(meet: Callable[[PartitionLog], None]) -> None:
    disk = MemoryDisk()
    log, _ = written(disk)
    disk.flip_bit(path(log), 100)
    with suppress(CorruptRange, BadBatch):
        meet(log)
    assert log.bad_ranges == [(at(log), at(log) + 1)]


@pytest.mark.parametrize("meet", [*MEETINGS, find_how_old_it_is])
def test_whoever_meets_what_cannot_be_read_the_log_knows(meet: Callable[[PartitionLog], None]) -> None:
    disk = BadSectorDisk()
    log, _ = written(disk)
    disk.unreadable = disk.file(path(log))
    with suppress(CorruptRange, BadBatch):
        meet(log)
    assert log.bad_ranges == [(at(log), log.segments[BAD].end_offset)]


def test_a_tail_that_cannot_be_read_and_so_not_cut_is_known() -> None:
    disk = BadSectorDisk()
    log, _ = written(disk)
    disk.unreadable = disk.file(log.segments[-2].path)
    with pytest.raises(CorruptRange):
        log.truncate(at(log))
    assert log.end_offset == BATCHES
    assert log.is_damaged


@pytest.mark.parametrize("meet", [read, look_up_by_time, restore_producers, recompute_epochs, find_what_is_old])
def test_an_index_that_misleads_is_no_damage(meet: Callable[[PartitionLog], None]) -> None:
    disk = MemoryDisk()
    log, _ = written(disk)
    stem = path(log).removesuffix(".log")
    inside_the_last_batch = disk.size(path(log)) - 10
    entry = (1).to_bytes(4, "big") + inside_the_last_batch.to_bytes(4, "big")
    for suffix, content in ((".index", entry), (".timeindex", b"")):
        disk.create(stem + suffix)
        disk.file(stem + suffix).content[:] = content
    meet(log)
    assert not log.is_damaged
    assert len(everything(log)) == log.size_bytes


def damaged(disk: MemoryDisk) -> tuple[PartitionLog, RecoveryPoint, int]:
    log, _ = written(disk)
    disk.flip_bit(path(log), 100)
    with pytest.raises(CorruptRange):
        read(log)
    log.note_damage()
    return log, log.recovery_point(), at(log)


@pytest.mark.parametrize("power_cut", [False, True])
def test_the_next_start_knows_and_so_does_the_one_after(power_cut: bool) -> None:
    disk = MemoryDisk()
    _, point, bad = damaged(disk)
    for _ in range(3):
        if power_cut:
            disk.crash()
        again = open_in(disk, point=point, power_loss=power_cut)
        assert again.bad_ranges == [(bad, bad + 1)]


def test_a_clean_stop_forgets_nothing() -> None:
    disk = MemoryDisk()
    log, _, bad = damaged(disk)
    assert open_in(disk, point=log.close(), power_loss=False).bad_ranges == [(bad, bad + 1)]


def test_what_recovery_itself_has_found_is_known_when_a_later_point_vouches_for_it() -> None:
    disk = MemoryDisk()
    log, point = written(disk)
    disk.flip_bit(path(log), 100)
    found = open_in(disk)
    bad = at(log)
    assert found.bad_ranges == [(bad, bad + 1)]
    found.abandon()
    assert open_in(disk, point=point, power_loss=False).bad_ranges == [(bad, bad + 1)]


def test_an_epoch_that_no_checksum_covers_is_looked_at_too() -> None:
    disk = MemoryDisk()
    log, point = written(disk)
    disk.file(path(log)).content[15] = 0  # the batch is whole, but of epoch 0
    with pytest.raises(CorruptRange):
        read(log)
    log.note_damage()
    bad = at(log)
    assert open_in(disk, point=point, power_loss=False).bad_ranges == [(bad, bad + 1)]


def test_what_was_mended_is_forgotten_once_it_was_looked_at() -> None:
    disk = MemoryDisk()
    log, point, _ = damaged(disk)
    content = disk.file(path(log)).content
    content[:] = b"".join(make(n, 1, size=600, timestamp=1000 + n).tobytes() for n in _offsets(log, BAD))
    for _ in range(2):
        again = open_in(disk, point=point, power_loss=False)
        assert not again.is_damaged
        assert again.state.bad_ranges == ()
        assert len(everything(again)) == again.size_bytes
        again.abandon()


def _offsets(log: PartitionLog, number: int) -> range:
    return range(log.segments[number].base_offset, log.segments[number].end_offset)


def test_what_is_not_known_to_lie_anywhere_is_looked_for_everywhere() -> None:
    disk = MemoryDisk()
    log, point = written(disk)
    disk.flip_bit(path(log), 100)
    log.note_damage()
    assert not log.is_damaged, "no reader was there"
    bad = at(log)
    assert open_in(disk, point=point, power_loss=False).bad_ranges == [(bad, bad + 1)]


def test_what_was_cut_or_let_go_is_not_looked_at() -> None:
    disk = MemoryDisk()
    log, point, bad = damaged(disk)
    log.truncate(bad)
    assert log.state.bad_ranges == ()
    disk = MemoryDisk()
    log, point, bad = damaged(disk)
    log.advance_start(bad + 1)
    again = open_in(disk, point=point, power_loss=False)
    assert not again.is_damaged


def test_damage_is_not_forgotten_when_other_damage_is_found() -> None:
    """An epoch is no checksum's business, so a walk over the segment does not find it again."""
    disk = MemoryDisk()
    log, _ = written(disk)
    first, second = at(log), at(log) + 2
    disk.file(path(log)).content[15] = 0
    with pytest.raises(CorruptRange):
        log.read(first, 1, BATCHES)
    batch = make(first, 1, size=600, timestamp=1000)
    disk.flip_bit(path(log), 2 * batch.bytes_total + 100)
    with pytest.raises(CorruptRange):
        log.read(second, 1, BATCHES)
    assert log.bad_ranges == [(first, first + 1), (second, second + 1)]


def test_without_room_for_the_note_the_log_cannot_be_opened() -> None:
    disk = MemoryDisk()
    log, _ = written(disk)
    disk.flip_bit(path(log), 100)
    disk.full = True
    with pytest.raises(DiskFull):
        open_in(disk)
    disk.full = False
    assert open_in(disk).is_damaged


def test_the_places_that_are_noted_are_bounded() -> None:
    few = [(n, n + 1) for n in range(0, 2 * RANGES_NOTED_MAX, 2)]
    assert noted(reversed(few)) == tuple(few)
    assert noted([*few, (500, 600), (450, 455)]) == ((0, 600),)
    assert noted([(3, 5), (4, 9), (1, 2)]) == ((1, 2), (3, 9))


STORAGE = Path(__file__).parents[4] / "minilog" / "storage"
SEEN_BY = {
    "segment/segment.py": {
        "_is_true": "the index is rebuilt, and that walks over the segment",
        "first_timestamp": "find_how_old_it_is",
        "read": "read",
        "border": "test_a_cut_that_damage_hides_is_refused",
        "scan": "restore_producers, recompute_epochs",
        "offset_at": "look_up_by_time",
        "walk": "notes it",
    },
    "segment/reading.py": {"_verified": "what is good before it is served; the next reader begins there"},
    "segment/scan.py": {
        "pread": "BadBatch, to whoever reads",
        "_header": "called for a bad place that the caller notes, or for what is scanned next",
        "_at": "the same",
        "_end_by_checksum": "the same",
        "_is_place": "the same",
        "_search": "the same",
        "_headers": "the same",
        "_is_good": "the same",
    },
    "segment/checksums.py": {"of": "the same"},
    "segment/segment_index.py": {"load": "the index is rebuilt"},
    "log/cutting.py": {
        "border_at": "the segment is rebuilt, and that walks over it",
        "keep": "test_a_tail_that_cannot_be_read_and_so_not_cut_is_known",
    },
    "log/truncation.py": {"_restore_producers_after_cut": "scan has noted it, and the process ends"},
    "log/producer_snapshots.py": {"_read": "no part of the log: the batches are read instead"},
    "log/quarantine.py": {
        "save": "told to keep in cutting.py",
        "_holds": "a copy in quarantine is no part of the log",
        "_first_timestamp": "of a tail that is cut next, or that keep finds unreadable",
        "readable": "the same",
    },
    "compaction/cleaning_round.py": {
        "prepare": "told to the cleaner, which notes it on the loop",
        "clean": "the same",
    },
    "aside/lost_tails.py": {"_load": "a copy in quarantine is no part of the log"},
    "recovery/recovery.py": {
        "_restore_producers": "scan has noted it, and the start is refused",
        "_look_again": "read has noted it",
    },
    "recovery/torn_tail.py": {
        "_ends_inside_batch": "looks at damage that recovery has found",
        "_has_lost_sector": "the same",
    },
}
"""Who catches damage in the files of a log, and what makes it known: a test or a meeting above, or
the reason."""


def catchers() -> Iterator[tuple[str, str]]:
    for path in sorted(STORAGE.glob("*/*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and any(map(catches_damage, ast.walk(function))):
                yield str(path.relative_to(STORAGE)), function.name


def catches_damage(node: ast.AST) -> bool:
    caught: list[ast.AST] = []
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        caught = [node.type]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "suppress":
        caught = list(node.args)
    names = {name.id for tree in caught for name in ast.walk(tree) if isinstance(name, ast.Name)}
    return bool(names & {"BadBatch", "CorruptRange"})


def test_everybody_who_catches_damage_is_accounted_for() -> None:
    """Whoever adds a place says here how the log comes to know of what is met there."""
    assert set(catchers()) == {(path, name) for path, functions in SEEN_BY.items() for name in functions}


def test_what_a_start_finds_beside_a_damaged_state_and_a_lost_tail_the_next_one_looks_at() -> None:
    """The state is saved for what is lost, so it is whole again and nobody reads everything."""
    disk = MemoryDisk()
    log, _ = written(disk)
    log.truncate(log.end_offset - 1)
    log.append([make(log.end_offset, 1, size=600)])
    log.flush()
    log.high_watermark = log.end_offset
    damaged, active = path(log), log.segments[-1].path
    point = log.close()
    disk.flip_bit(damaged, 100)
    disk.file("/d/t-0/truncations").content[-5] ^= 1
    del disk.file(active).content[-100:]
    for start in range(3):
        log = open_in(disk, point=point)
        ranges = [bad for segment in log.segments for bad in segment.bad_ranges]
        assert ranges, f"forgotten at start {start}"
