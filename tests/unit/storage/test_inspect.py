from __future__ import annotations

from pathlib import Path

import pytest

from minilog.errors import CorruptRange
from minilog.storage.disk import OsDisk
from minilog.storage.inspect import dump, verify
from minilog.storage.log.log import PartitionLog
from minilog.storage.recovery.recovery import open_log
from minilog.storage.store import Store
from minilog.wire.batch import split, stamp
from minilog.wire.cleaned_batch import retain
from minilog.wire.records import Record, decode_batch
from tests.unit.storage.batches import SMALL, fill, make, open_in, place
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.wire.batches import encode_batch


def stopped_log(root: Path) -> tuple[str, PartitionLog]:
    directory = f"{root}/t-0"
    log = open_log(place(OsDisk(), directory), SMALL)
    fill(log, 6, epoch=1, size=600)
    log.append([make(6, 3, records=5, size=600, acks_level=2, timestamp=77)])
    fill(log, 3, epoch=3, size=600)
    log.close()
    return directory, log


def test_dump_shows_every_batch(tmp_path: Path) -> None:
    directory, log = stopped_log(tmp_path)
    assert len(log.segments) == 3
    infos = [info for name in sorted(Path(directory).glob("*.log")) for info in dump(str(name))]
    assert [info.base_offset for info in infos] == [0, 1, 2, 3, 4, 5, 6, 11, 12, 13]
    batch = infos[6]
    assert (batch.end_offset, batch.leader_epoch, batch.records, batch.acks_level) == (11, 3, 5, 2)
    assert (batch.base_timestamp, batch.max_timestamp, batch.producer_id, batch.codec) == (77, 77, -1, 0)
    assert (batch.position, batch.path) == (0, f"{directory}/00000000000000000006.log")
    assert sum(info.bytes for info in infos) == log.size_bytes


def test_a_whole_directory_verifies(tmp_path: Path) -> None:
    directory, log = stopped_log(tmp_path)
    report = verify([directory])
    assert (report.is_good, report.files, report.batches, report.records) == (True, 3, 10, 14)
    assert report.bytes == log.size_bytes


def test_damage_is_shown_by_both_and_nothing_is_changed(tmp_path: Path) -> None:
    directory, _ = stopped_log(tmp_path)
    path = Path(f"{directory}/00000000000000000000.log")
    data = bytearray(path.read_bytes())
    data[2 * len(data) // 6 + 100] ^= 1
    path.write_bytes(data)
    infos = list(dump(str(path)))
    assert [(info.base_offset, bool(info.problem)) for info in infos] == [
        (0, False),
        (1, False),
        (2, True),
        (3, False),
        (4, False),
        (5, False),
    ]
    assert infos[2].bytes == infos[1].bytes
    assert "CRC" in infos[2].problem
    before = {p.name: p.read_bytes() for p in Path(directory).iterdir()}
    (problem,) = verify([directory]).problems
    assert (problem.path, problem.offset, problem.position) == (str(path), 2, infos[2].position)
    assert before == {p.name: p.read_bytes() for p in Path(directory).iterdir()}


def test_a_delete_horizon_is_shown_as_such_and_not_as_a_time(tmp_path: Path) -> None:
    (batch,) = split(encode_batch([Record(0, 77, b"k"), Record(1, 88, b"j", b"v")]), 1 << 20)
    path = tmp_path / "00000000000000000000.log"
    cleaned_batch = stamp(retain(batch, decode_batch(batch), 999_999), 0, 0, 0)
    path.write_bytes(cleaned_batch.tobytes() + stamp(batch, 2, 0, 0).tobytes())
    cleaned, other = dump(str(path))
    assert (cleaned.base_timestamp, cleaned.max_timestamp, cleaned.delete_horizon_ms) == (-1, 88, 999_999)
    assert (other.base_timestamp, other.max_timestamp, other.delete_horizon_ms) == (77, 88, -1)


def test_every_other_file_is_checked_too(tmp_path: Path) -> None:
    directory, _ = stopped_log(tmp_path)
    index = Path(f"{directory}/00000000000000000006.index")
    index.write_bytes((1).to_bytes(4, "big") + (5).to_bytes(4, "big"))
    Path(f"{directory}/00000000000000000000.index").write_bytes(b"odd")
    reasons = [problem.reason for problem in verify([directory]).problems]
    assert reasons == [
        "its entries do not rise, or lead beyond the log",
        "the entry for offset 7 leads to byte 5, where no such batch starts",
    ]
    Path(f"{directory}/00000000000000000012.log").write_bytes(make(12, 2).tobytes())
    assert any("ends in epoch 3" in problem.reason for problem in verify([directory]).problems)
    Path(f"{directory}/00000000000000000006.log").unlink()
    assert any("the segment before it ends at offset 6" in problem.reason for problem in verify([directory]).problems)


def test_a_torn_file_and_a_copied_tail_can_be_looked_at(tmp_path: Path) -> None:
    _, _ = stopped_log(tmp_path)
    copy = tmp_path / "3-7-9.log"
    copy.write_bytes(make(7).tobytes() + make(8).tobytes()[:-1])
    good, torn = dump(str(copy))
    assert (good.base_offset, good.problem) == (7, "")
    assert (torn.base_offset, torn.bytes) == (8, good.bytes - 1)
    assert "bytes" in torn.problem
    assert len(verify([str(copy)]).problems) == 1
    (tmp_path / "junk.log").write_bytes(b"not a log" * 20)
    (junk,) = dump(str(tmp_path / "junk.log"))
    assert (junk.bytes, junk.problem != "") == (180, True)
    (tmp_path / "empty.log").write_bytes(b"")
    assert list(dump(str(tmp_path / "empty.log"))) == []
    with pytest.raises(FileNotFoundError):
        list(dump(str(tmp_path / "none.log")))


def test_a_first_file_that_is_gone_is_shown(tmp_path: Path) -> None:
    store = Store(OsDisk(), str(tmp_path), 1, lambda: 0)
    store.start("boot-1")
    log = store.open("t", "a" * 32, 0, SMALL)
    fill(log, 4, size=3000)
    store.close_cleanly(1)
    assert verify([f"{tmp_path}/t-0"]).is_good
    Path(f"{tmp_path}/t-0/{0:020d}.log").unlink()
    (problem,) = verify([f"{tmp_path}/t-0"]).problems
    assert (problem.offset, problem.path) == (0, f"{tmp_path}/t-0/{1:020d}.log")
    assert "gone" in problem.reason


def started(disk: MemoryDisk) -> Store:
    store = Store(disk, "/d", 1, lambda: 0)
    store.start("boot-1")
    store.recover(lambda: None)
    return store


def closed(disk: MemoryDisk, count: int) -> PartitionLog:
    store = started(disk)
    log = store.open("t", "id", 0, SMALL)
    fill(log, count, epoch=2, size=600)
    store.close_cleanly(1)
    return log


def refused(disk: MemoryDisk) -> None:
    """A start that finds the damage."""
    disk.kill()
    assert started(disk).open("t", "id", 0, SMALL).is_damaged
    disk.kill()


def test_a_damaged_tail_is_shown_before_and_after_a_start_has_moved_it_away() -> None:
    disk = MemoryDisk()
    log = closed(disk, 3)
    assert verify(["/d/t-0"], disk).is_good
    disk.flip_bit(log.segments[-1].path, log.size_bytes - 10)
    (problem,) = verify(["/d/t-0"], disk).problems
    assert (problem.offset, "CRC" in problem.reason) == (2, True)
    for _ in range(2):
        refused(disk)
        (problem,) = verify(["/d/t-0"], disk).problems
        assert (problem.offset, problem.path) == (2, log.segments[-1].path)
        assert "reached to offset 3" in problem.reason


def test_a_tail_that_is_gone_is_shown() -> None:
    disk = MemoryDisk()
    log = closed(disk, 3)
    position = log.segments[-1].find(1).position
    del disk.file(log.segments[-1].path).content[position:]
    for _ in range(2):
        (problem,) = verify(["/d/t-0"], disk).problems
        assert (problem.offset, "reached to offset 3" in problem.reason) == (1, True)
        refused(disk)


def test_noted_damage_is_shown_also_where_the_batches_look_good() -> None:
    """Only the log's epochs tell of a changed epoch at its end."""
    disk = MemoryDisk()
    log = closed(disk, 9)
    disk.flip_bit(log.segments[-1].path, log.segments[-1].find(8).position + 15)
    log = started(disk).open("t", "id", 0, SMALL)
    with pytest.raises(CorruptRange):
        log.read(8, 1, 9)
    log.note_damage()
    (problem,) = verify(["/d/t-0"], disk).problems
    assert (problem.offset, "found damaged before" in problem.reason) == (8, True)
    refused(disk)
    assert len(verify(["/d/t-0"], disk).problems) == 1


def test_a_damaged_state_is_shown_and_a_cut_log_is_whole() -> None:
    disk = MemoryDisk()
    log = closed(disk, 9)
    store = started(disk)
    log = store.open("t", "id", 0, SMALL)
    log.truncate(7)
    assert verify(["/d/t-0"], disk).is_good
    store.close_cleanly(1)
    disk.flip_bit("/d/t-0/truncations", 40)
    (problem,) = verify(["/d/t-0"], disk).problems
    assert problem.path == "/d/t-0/truncations"


def test_what_lies_in_quarantine_is_verified_like_any_other_file() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 5)
    log.flush()
    log.truncate(2)
    (name,) = [name for name in disk.list("/d/quarantine/t-0") if name.endswith(".log")]
    for path in (f"/d/quarantine/t-0/{name}", "/d/quarantine/t-0"):
        report = verify([path], disk)
        assert (report.is_good, report.files, report.records) == (True, 1, 3)
    disk.flip_bit(f"/d/quarantine/t-0/{name}", 70)
    assert [problem.offset for problem in verify(["/d/quarantine/t-0"], disk).problems] == [2]


@pytest.mark.parametrize("name", ["copy-of-it.log", "00000000000000000000 (1).log", "²0000000000000000000.log"])
def test_a_file_beside_the_segments_is_verified_for_itself(name: str) -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    fill(log, 12, size=600)
    log.close()
    names = [found for found in disk.list("/d/t-0") if found.endswith(".log")]
    whole = verify(["/d/t-0"], disk)
    for content in (b"", bytes(disk.file(f"/d/t-0/{names[1]}").content)):
        disk.append(disk.create(f"/d/t-0/{name}"), 0, [content])
        report = verify(["/d/t-0"], disk)
        assert report.is_good
        assert (report.files, report.bytes) == (whole.files + 1, whole.bytes + len(content))
