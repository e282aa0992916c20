"""What was cut is found, told with all that is known of it, and goes only when it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilog.errors import UnknownRoute
from minilog.storage.aside.lost_tails import LostTail, LostTails, Replay
from minilog.storage.disk import OsDisk
from minilog.storage.log.quarantine import Piece, Quarantine
from minilog.storage.recovery.recovery import NOTHING_KNOWN, open_log
from minilog.storage.segment.scan import LogBytes
from tests.unit.storage.batches import NOW_MS, SMALL, fill, flush, make, open_in, place
from tests.unit.storage.memory_disk import MemoryDisk

NAME = "t-0:0-4-10"


def cut_log(records: int = 10, keep: int = 4) -> tuple[MemoryDisk, LostTails]:
    disk = MemoryDisk()
    log = open_in(disk, SMALL)
    fill(log, records)
    flush(log)
    log.truncate(keep)
    return disk, LostTails(disk, "/d")


def test_a_cut_tail_is_found_by_name() -> None:
    _, tails = cut_log()
    (tail,) = tails.all()
    assert (tail.name, tail.partition, tail.cut.records, tail.replay) == (NAME, ("t", 0), 6, None)
    assert tail == tails.get(NAME)
    assert [batch.base_offset for _, batch in tails.batches(NAME)] == [4, 5, 6, 7, 8, 9]


def test_reading_on_begins_where_the_last_reader_ended_and_anywhere_else() -> None:
    _, tails = cut_log()
    for offset in (4, 6, 7, 5, 9, 10, 0):
        assert [batch.base_offset for batch in tails.batches_from(NAME, offset)] == list(range(max(offset, 4), 10))


def test_what_was_noted_of_a_replay_is_there_after_a_crash() -> None:
    disk, tails = cut_log()
    replay = Replay(NOW_MS, [(0, 4, 10)], "t", "id", 0, 7, 6, sequence=2)
    tails.note_replay(NAME, replay)
    disk.crash()
    assert LostTails(disk, "/d").get(NAME).replay == replay


def test_the_note_of_an_earlier_tail_of_that_name_says_nothing() -> None:
    _, tails = cut_log()
    tails.note_replay(NAME, Replay(NOW_MS - 1, [(0, 4, 10)], "t", "id", 0, 7, 10, finished_at_ms=5))
    assert tails.get(NAME).replay is None


def test_a_damaged_note_is_not_taken_for_none() -> None:
    disk, tails = cut_log()
    tails.note_replay(NAME, Replay(NOW_MS, [(0, 4, 10)], "t", "id", 0, 7, 6))
    disk.file("/d/quarantine/t-0/0-4-10.replay.json").content[3] ^= 1
    assert not tails.get(NAME).is_sure
    assert [tail.name for tail in tails.all()] == [NAME]


def test_what_is_removed_is_gone_also_after_a_crash() -> None:
    disk, tails = cut_log()
    tails.note_replay(NAME, Replay(NOW_MS, [(0, 4, 10)], "t", "id", 0, 7, 6))
    assert tails.remove(NAME).records == 6
    disk.crash()
    assert LostTails(disk, "/d").all() == []
    assert disk.list("/d/quarantine/t-0") == []
    with pytest.raises(UnknownRoute):
        tails.get(NAME)


@pytest.mark.parametrize("name", ["t-0:0-4-11", "t-1:0-4-10", "../t-0:0-4-10", "t-0", "t-0:0-4-10.replay", ""])
def test_other_names_are_unknown(name: str) -> None:
    _, tails = cut_log()
    with pytest.raises(UnknownRoute):
        tails.get(name)
    with pytest.raises(UnknownRoute):
        tails.remove(name)


def test_half_a_copy_and_foreign_files_are_no_tails() -> None:
    disk, tails = cut_log()
    for path in ("/d/quarantine/t-0/0-1-2.log", "/d/quarantine/t-0/notes.json", "/d/quarantine/t-0/9-9-10.json"):
        disk.close(disk.create(path))
    assert [tail.name for tail in tails.all()] == [NAME]


def test_damage_in_the_middle_of_a_tail_is_stepped_over() -> None:
    disk, tails = cut_log()
    data = disk.file("/d/quarantine/t-0/0-4-10.log").content
    data[len(data) // 2] ^= 1
    seen = [batch.base_offset for _, batch in tails.batches(NAME)]
    assert len(seen) == 5
    assert seen[0] == 4
    assert seen[-1] == 9


def prepared() -> tuple[MemoryDisk, LostTails]:
    """Three tails: cut one after the other, the second one was written again."""
    disk = MemoryDisk()
    log = open_in(disk, SMALL)
    tails = LostTails(disk, "/d")
    for number in range(3):
        log.place.quarantine._now_ms = lambda at=NOW_MS + number: at  # type: ignore[misc]
        fill(log, 5, number)
        flush(log)
        log.truncate(0)
    _, second, _ = tails.all()
    replay = Replay(second.cut.cut_at_ms, [(1, 0, 5)], "t", "id", 0, 7, 5, records=5, finished_at_ms=NOW_MS + 9)
    tails.note_replay(second.name, replay)
    return disk, tails


def test_what_was_written_again_goes_before_what_was_not_and_the_newest_stays() -> None:
    _, tails = prepared()
    size = tails.all()[0].cut.bytes
    assert tails.prune(3 * size, 0) == []
    assert (tails.kept.tails, tails.kept.bytes, tails.kept.unwritten) == (3, 3 * size, 10)
    assert [tail.cut.first_epoch for tail in tails.prune(2 * size, 0)] == [1]
    assert tails.records_dropped == {"size": 0, "age": 0}, "nothing that was not written again"
    assert [tail.cut.first_epoch for tail in tails.prune(0, 0)] == [0]
    assert tails.records_dropped == {"size": 5, "age": 0}
    assert [tail.cut.first_epoch for tail in tails.all()] == [2]
    assert tails.prune(-1, NOW_MS + 2) == []
    assert [tail.cut.first_epoch for tail in tails.prune(-1, NOW_MS + 3)] == [2]
    assert tails.records_dropped == {"size": 5, "age": 5}
    assert tails.kept.unwritten == 0


def test_where_a_reader_had_ended_is_no_more_once_the_tail_is_another() -> None:
    disk = MemoryDisk()
    log = open_in(disk, SMALL)
    tails = LostTails(disk, "/d")
    for sizes in ([1] * 6, [3, 3]):
        fill(log, sum(sizes))
        flush(log)
        log.truncate(0)
        (tail,) = tails.all()
        for offset in range(6):
            seen = [batch.base_offset for batch in tails.batches_from(tail.name, offset)]
            assert seen == list(range(offset, 6)), sizes
        tails.remove(tail.name)


def test_a_place_that_was_damaged_since_is_stepped_over() -> None:
    disk, tails = cut_log()
    found = list(tails.batches(NAME))
    position, batch = found[2]
    disk.file("/d/quarantine/t-0/0-4-10.log").content[position + 3] ^= 1
    seen = [batch.base_offset for _, batch in tails.batches(NAME, position, batch.base_offset)]
    assert seen == [7, 8, 9]
    assert [batch.base_offset for batch in tails.batches_from(NAME, 6)] == [7, 8, 9]


def test_no_bound_takes_what_a_request_works_on() -> None:
    _, tails = prepared()
    first, second, third = tails.all()
    assert tails.take_in_hand(first.name)
    assert not tails.take_in_hand(first.name)
    assert [tail.name for tail in tails.prune(0, NOW_MS + 1)] == [second.name]
    assert [tail.name for tail in tails.all()] == [first.name, third.name]
    assert tails.kept.tails == 2
    tails.let_go(first.name)
    assert [tail.name for tail in tails.prune(0, NOW_MS + 1)] == [first.name]


def test_what_somebody_removes_meanwhile_stops_no_pruning() -> None:
    disk, tails = prepared()

    class RemovedByOthers(LostTails):
        def all(self) -> list[LostTail]:
            found = super().all()
            tails.remove(found[0].name)
            return found

    pruning = RemovedByOthers(disk, "/d")
    assert [tail.cut.first_epoch for tail in pruning.prune(-1, NOW_MS + 2)] == [1]
    assert pruning.records_dropped == {"size": 0, "age": 0}


def test_of_what_goes_only_what_nobody_wrote_counts_as_dropped() -> None:
    _, tails = prepared()
    first, _, third = tails.all()
    tails.note_replay(first.name, Replay(first.cut.cut_at_ms, [(0, 0, 3)], "t", "id", 0, 7, 2, records=2))
    tails.note_replay(
        third.name, Replay(third.cut.cut_at_ms, [(2, 0, 5)], "t", "id", 0, 7, 5, records=1, skipped=4, finished_at_ms=9)
    )
    assert [tail.unwritten for tail in tails.prune(-1, NOW_MS + 9)] == [1, 0, 4]
    assert tails.records_dropped == {"size": 0, "age": 5}


def test_the_same_bytes_of_a_later_topic_are_another_tail() -> None:
    disk = MemoryDisk()
    disk.mkdir("/d/quarantine")
    quarantine = Quarantine(disk, "/d/quarantine", lambda: NOW_MS)
    data = b"".join(make(i, 0).tobytes() for i in range(3))
    handle = disk.create("/d/log")
    disk.append(handle, 0, [data])
    pieces = [Piece(LogBytes(disk, handle, len(data)), 0, 0)]
    for topic_id in ("old", "new", "new"):
        quarantine.save("t-0", "a test", 3, pieces, topic_id)
    tails = LostTails(disk, "/d")
    assert sorted((tail.name, tail.cut.topic_id) for tail in tails.all()) == [
        ("t-0:0-0-3", "old"),
        ("t-0:0-0-3-2", "new"),
    ]
    assert sum(quarantine.records_lost) == 6
    disk.file("/d/quarantine/t-0/0-0-3.json").content[20] ^= 1
    quarantine.save("t-0", "a test", 3, pieces, "old")
    assert sorted((tail.name, tail.cut.topic_id) for tail in tails.all()) == [
        ("t-0:0-0-3-2", "new"),
        ("t-0:0-0-3-3", "old"),
    ]


def test_a_tail_that_was_put_in_the_folder_of_another_partition_is_none() -> None:
    disk, tails = cut_log()
    disk.mkdir("/d/quarantine/t-1")
    for suffix in (".json", ".log"):
        disk.rename(f"/d/quarantine/t-0/0-4-10{suffix}", f"/d/quarantine/t-1/0-4-10{suffix}")
    assert tails.all() == []


def test_what_people_put_there_stops_nobody(tmp_path: Path) -> None:
    """On a real file system: files where folders should be, folders where files should be, and
    bytes that are gone."""
    disk = OsDisk()
    log = open_log(place(disk, str(tmp_path / "t-0")), SMALL, NOTHING_KNOWN, True)
    fill(log, 10)
    flush(log)
    log.truncate(4)
    quarantine = tmp_path / "quarantine"
    (quarantine / "notes.txt").write_text("hello")
    (quarantine / "t-1").write_text("hello")
    (quarantine / "t-0" / "9-9-10.json").mkdir()
    (quarantine / "t-0" / f"{NAME.partition(':')[2]}.replay.json").mkdir()
    tails = LostTails(disk, str(tmp_path))
    assert [(tail.name, tail.is_sure) for tail in tails.all()] == [(NAME, False)]
    assert tails.prune(-1, 0) == []
    (quarantine / "t-0" / "0-4-10.log").unlink()
    with pytest.raises(UnknownRoute, match="is not there"):
        list(tails.batches(NAME))
