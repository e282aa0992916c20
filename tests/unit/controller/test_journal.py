"""The journal on real files: what survives which damage, and what refuses to start."""

from __future__ import annotations

import errno
import os
import shlex
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilog.controller.frames import (
    FILE_HEADER_BYTES,
    JOURNAL,
    JOURNAL_UNMARKED,
    SECTOR_BYTES,
    SNAPSHOT,
    Damage,
    Form,
    file_header,
    frame,
    scan,
)
from minilog.controller.journal import FileJournal, Replayed
from minilog.errors import RefusesToStart, StorageFailed
from minilog.wire.journal.metadata_records import (
    BrokerFenced,
    ControllerStarted,
    MetadataRecord,
    ProducerIdsAllocated,
    TopicDeleted,
)


def record(number: int) -> MetadataRecord:
    return ProducerIdsAllocated(1, number)


def records(first: int, end: int) -> list[MetadataRecord]:
    return [record(number) for number in range(first, end)]


@contextmanager
def opened(path: Path) -> Iterator[tuple[FileJournal, Replayed]]:
    journal = FileJournal(str(path))
    try:
        yield journal, journal.open()
    finally:
        journal.close()


def everything(path: Path) -> list[MetadataRecord]:
    """All records as a restart sees them. A snapshot in these tests holds every record it stands
    for."""
    with opened(path) as (journal, replayed):
        assert journal.last_index == replayed.snapshot_index + len(replayed.tail)
        return [*replayed.snapshot, *replayed.tail]


def write(path: Path, *decisions: int) -> None:
    """Append decisions of so many records each."""
    with opened(path) as (journal, _):
        for count in decisions:
            first = journal.last_index + 1
            assert journal.append(records(first, first + count)) == first + count - 1


def only_journal(path: Path) -> Path:
    (found,) = path.glob("journal-*.log")
    return found


def test_an_empty_directory_becomes_an_empty_journal(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "dir") as (journal, replayed):
        assert replayed == Replayed(0, [], [])
        assert journal.last_index == 0


def test_what_was_appended_is_read_back_with_contiguous_indexes(tmp_path: Path) -> None:
    write(tmp_path, 1, 3, 2)
    write(tmp_path, 1)
    assert everything(tmp_path) == records(1, 8)


def test_records_keep_their_type(tmp_path: Path) -> None:
    with opened(tmp_path) as (journal, _):
        journal.append([ControllerStarted("c", 1), record(1)])
    assert everything(tmp_path) == [ControllerStarted("c", 1), record(1)]


def test_a_torn_last_write_loses_that_decision_as_a_whole_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, 2, 3)
    path = only_journal(tmp_path)
    whole = path.read_bytes()
    start_of_last = len(whole) - len(frame(JOURNAL, 3, records(3, 6)))
    for size in (*range(start_of_last + 1, len(whole) - 1, 17), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert everything(tmp_path) == records(1, 3)
        assert path.stat().st_size == start_of_last
        (kept,) = tmp_path.glob("torn-*.bin")
        assert kept.read_bytes() == whole[start_of_last:size]


def test_the_very_first_write_may_be_torn(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = only_journal(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert everything(tmp_path) == []
    assert path.stat().st_size == FILE_HEADER_BYTES
    write(tmp_path, 1)
    assert everything(tmp_path) == records(1, 2)


def test_a_changed_bit_in_the_last_decision_is_no_torn_write(tmp_path: Path) -> None:
    """Somebody may have been told of it: every bit of the frame, its length too."""
    write(tmp_path, 2, 1)
    path = only_journal(tmp_path)
    whole = path.read_bytes()
    start_of_last = len(whole) - len(frame(JOURNAL, 3, records(3, 4)))
    for bit in range(8 * start_of_last, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(RefusesToStart, match=f"damaged at byte {start_of_last}"):
            everything(tmp_path)
        assert path.read_bytes() == flipped


def test_a_sector_that_never_reached_the_disk_is_a_torn_write(tmp_path: Path) -> None:
    write(tmp_path, 2, 300)
    path = only_journal(tmp_path)
    whole = path.read_bytes()
    for first in range(512, len(whole), 512):
        path.write_bytes((whole[:first] + bytes(512) + whole[first + 512 :])[: len(whole)])
        assert everything(tmp_path) == records(1, 3)


FORMS = pytest.mark.parametrize("form", [JOURNAL, JOURNAL_UNMARKED], ids=["marked", "unmarked"])


def framed(form: Form, size: int, index: int) -> bytes:
    """A frame of one record with just that size."""
    name = "t" * (size - len(frame(form, index, [TopicDeleted("", "")])))
    while len(found := frame(form, index, [TopicDeleted(name, "")])) > size:
        name = name[1:]
    assert len(found) == size
    return found


def judged(form: Form, first: bytes, last: bytes, at: int, change: int) -> Damage:
    data = bytearray(file_header(form, 1) + first + last)
    assert scan(form, bytes(data), FILE_HEADER_BYTES, 1).damage is None
    data[at] ^= change
    damage = scan(form, bytes(data), FILE_HEADER_BYTES, 1).damage
    assert damage is not None
    return damage


@FORMS
@pytest.mark.parametrize("left", [*range(1, 20), 100])
def test_a_changed_bit_is_damage_wherever_in_a_sector_the_last_frame_begins(left: int, form: Form) -> None:
    """The first bytes of its length are zeros, also alone at a sector's end: no evidence of a write
    that was lost."""
    first = framed(form, SECTOR_BYTES - FILE_HEADER_BYTES - left, 1)
    last = frame(form, 2, [TopicDeleted("acknowledged", "0" * 32)])
    start = FILE_HEADER_BYTES + len(first)
    assert start % SECTOR_BYTES == SECTOR_BYTES - left
    for at in range(start, start + len(last)):
        for bit in range(8):
            assert not judged(form, first, last, at, 1 << bit).is_torn


@FORMS
@pytest.mark.parametrize("epoch", [0, 256, 2**16, 2**24, 2**32, 2**56])
@pytest.mark.parametrize("over", range(1, 12))
def test_nor_where_its_last_zeros_lie_alone_in_a_sector(epoch: int, over: int, form: Form) -> None:
    last = frame(form, 2, [BrokerFenced(broker_id=1, broker_epoch=epoch)])
    first = framed(form, 2 * SECTOR_BYTES + over - FILE_HEADER_BYTES - len(last), 1)
    whole = FILE_HEADER_BYTES + len(first) + len(last)
    assert whole % SECTOR_BYTES == over
    for at in range(whole - len(last), whole):
        for bit in range(8):
            assert not judged(form, first, last, at, 1 << bit).is_torn


def is_torn_without(first: bytes, last: bytes, start: int, end: int) -> bool:
    """Of a journal in which these bytes of the last append read as zeros: they lie in sectors that
    were lost."""
    data = bytearray(file_header(JOURNAL, 1) + first + last)
    data[start:end] = bytes(end - start)
    found = scan(JOURNAL, bytes(data), FILE_HEADER_BYTES, 1)
    return found.damage is not None and found.damage.is_torn and len(found.records) == 1


@pytest.mark.parametrize("left", [1, 2, 3, 4, 8, 100])
@pytest.mark.parametrize("size", [40, 400, 70_000])
def test_a_lost_sector_in_which_the_last_frame_begins_is_a_torn_write(left: int, size: int) -> None:
    first = framed(JOURNAL, SECTOR_BYTES - FILE_HEADER_BYTES - left, 1)
    last = frame(JOURNAL, 2, [TopicDeleted("t" * size, "")])
    assert is_torn_without(first, last, SECTOR_BYTES - left, SECTOR_BYTES)
    for kept in (len(last) // 2, len(last) - 1):  # and the file did not come to its length
        assert is_torn_without(first, last[:kept], SECTOR_BYTES - left, SECTOR_BYTES)


@pytest.mark.parametrize("over", [1, 2, 3, 8, 9, 100])
def test_a_lost_sector_in_which_the_last_frame_ends_is_a_torn_write(over: int) -> None:
    """Also one that would have held nothing but zeros of a number and the mark."""
    last = frame(JOURNAL, 2, [BrokerFenced(broker_id=1, broker_epoch=2**56)] * 12)
    first = framed(JOURNAL, 3 * SECTOR_BYTES + over - FILE_HEADER_BYTES - len(last), 1)
    whole = FILE_HEADER_BYTES + len(first) + len(last)
    assert is_torn_without(first, last, whole - over, whole)


def test_a_journal_of_before_is_read_and_continued_until_the_next_snapshot(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = only_journal(tmp_path)
    path.write_bytes(file_header(JOURNAL_UNMARKED, 1) + frame(JOURNAL_UNMARKED, 1, records(1, 3)))
    write(tmp_path, 1, 2)
    assert everything(tmp_path) == records(1, 6)
    assert scan(JOURNAL_UNMARKED, path.read_bytes(), FILE_HEADER_BYTES, 1) == (records(1, 6), path.stat().st_size, None)
    with opened(tmp_path) as (journal, _):
        journal.snapshot(5, records(1, 6))
        journal.append([record(6)])
    newest = max(tmp_path.glob("journal-*.log")).read_bytes()
    assert newest == file_header(JOURNAL, 6) + frame(JOURNAL, 6, [record(6)])
    assert everything(tmp_path) == records(1, 7)


def test_a_snapshot_is_written_as_before(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with opened(tmp_path) as (journal, _):
        journal.snapshot(2, records(1, 3))
    (path,) = tmp_path.glob("snapshot-*.bin")
    assert path.read_bytes() == file_header(SNAPSHOT, 2) + frame(SNAPSHOT, 2, records(1, 3))


def test_after_a_cut_the_journal_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 2, 3)
    path = only_journal(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"?" + bytes(500))
    write(tmp_path, 1)
    assert everything(tmp_path) == records(1, 4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_before_the_last_decision_refuses_to_start_and_changes_nothing(
    tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "journal"
    if not folder.exists():
        write(folder, 2, 1, 3)
    path = only_journal(folder)
    whole = path.read_bytes()
    last = len(whole) - len(frame(JOURNAL, 4, records(4, 7)))
    position = data.draw(st.integers(0, last - 1))
    damaged = bytearray(whole)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        with pytest.raises(RefusesToStart, match="is damaged at byte") as refusal:
            everything(folder)
        assert str(path) in str(refusal.value)
        assert "Options" in str(refusal.value)
        assert path.read_bytes() == damaged
    finally:
        path.write_bytes(whole)


def test_a_whole_frame_with_a_wrong_index_is_damage_even_at_the_end(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = only_journal(tmp_path)
    path.write_bytes(path.read_bytes() + frame(JOURNAL, 9, [record(9)]))
    with pytest.raises(RefusesToStart, match="holds record 9 where 3 is expected"):
        everything(tmp_path)


@pytest.mark.parametrize("payload", [b"\x91" * 100_000, b"\xa1\xff", b"\x91\x80", b"\xdd\xff\xff\xff\xff"])
def test_a_whole_frame_of_anything_else_is_damage(tmp_path: Path, payload: bytes) -> None:
    """Under a good checksum: another program's, or another version's."""
    write(tmp_path, 2)
    (path,) = tmp_path.glob("journal-*")
    head = struct.pack(">IQ", len(payload), 3)
    whole = struct.pack(">IIQ", len(payload), crc32c(payload, crc32c(head)), 3) + payload
    whole = JOURNAL.mark + whole + JOURNAL.mark
    path.write_bytes(path.read_bytes() + whole)
    with pytest.raises(RefusesToStart, match="the frame of record 3 holds no records of this version"):
        everything(tmp_path)


def test_a_snapshot_and_the_tail_give_what_the_whole_journal_gave(tmp_path: Path) -> None:
    write(tmp_path, 4)
    with opened(tmp_path) as (journal, _):
        journal.snapshot(4, records(1, 5))
        assert journal.tail_records == 0
        journal.append([record(5)])
        assert journal.tail_records == 1
    with opened(tmp_path) as (journal, replayed):
        assert replayed == Replayed(4, records(1, 5), [record(5)])
        journal.snapshot(5, records(1, 6))
        journal.append([record(6)])
        journal.snapshot(6, records(1, 7))
    assert everything(tmp_path) == records(1, 7)
    names = sorted(path.name for path in tmp_path.iterdir())
    journals = [f"journal-{first:020d}.log" for first in (6, 7)]
    assert names == [*journals, "lock", *(f"snapshot-{index:020d}.bin" for index in (5, 6))]


def test_a_damaged_snapshot_is_replaced_by_the_generation_before_it(tmp_path: Path) -> None:
    for last in (3, 5, 8):
        write(tmp_path, last - len(everything(tmp_path)))
        with opened(tmp_path) as (journal, _):
            journal.snapshot(last, records(1, last + 1))
    write(tmp_path, 2)
    newest = max(tmp_path.glob("snapshot-*.bin"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with opened(tmp_path) as (_, replayed):
        assert replayed == Replayed(5, records(1, 6), records(6, 11))


def test_a_missing_journal_refuses_to_start(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with opened(tmp_path) as (journal, _):
        journal.snapshot(3, records(1, 4))
    max(tmp_path.glob("journal-*.log")).unlink()
    with pytest.raises(RefusesToStart, match="metadata records from 4 on are missing"):
        everything(tmp_path)


def test_a_second_controller_refuses_to_start(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(RefusesToStart, match=rf"another controller \(process {os.getpid()}\) uses {tmp_path}"),
    ):
        FileJournal(str(tmp_path)).open()
    with opened(tmp_path) as (_, replayed):
        assert replayed.tail == []


def test_a_failed_sync_is_never_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as (journal, _):
        journal.append([record(1)])

        def fail(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageFailed, match="Input/output error"):
            journal.append([record(2)])
        monkeypatch.undo()
        with pytest.raises(AssertionError):
            journal.append([record(2)])


@pytest.mark.parametrize("room", range(3))
def test_a_full_disk_puts_a_snapshot_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """At its first write, at the journal that follows it, or at the rename that puts it in
    force."""
    with opened(tmp_path) as (journal, _):
        journal.append(records(1, 4))
        left = [room]

        def limit(name: str) -> None:
            real = getattr(os, name)

            def limited(*arguments: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*arguments)

            monkeypatch.setattr(os, name, limited)

        limit("pwritev")
        limit("rename")
        journal.snapshot(3, records(1, 4))
        monkeypatch.undo()
        assert not list(tmp_path.glob("snapshot-*"))
        journal.append([record(4)])
        journal.snapshot(4, records(1, 5))
        journal.append([record(5)])
    assert everything(tmp_path) == records(1, 6)


def test_an_unusable_directory_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(RefusesToStart, match="cannot use the journal in"):
        FileJournal(str(tmp_path / "file")).open()


def test_the_header_is_checked(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = only_journal(tmp_path)
    path.write_bytes(path.read_bytes()[: FILE_HEADER_BYTES - 1])
    with pytest.raises(RefusesToStart, match="the file header is not that of this journal"):
        everything(tmp_path)


def test_what_a_start_relies_on_is_written_anew(tmp_path: Path) -> None:
    """After a failed fsync the page cache may hold what the disk does not: reading it back is no
    proof."""
    write(tmp_path, 3)
    path = only_journal(tmp_path)
    before = path.stat().st_ino
    content = path.read_bytes()
    assert everything(tmp_path) == records(1, 4)
    assert path.stat().st_ino != before
    assert path.read_bytes() == content


def test_a_close_waits_for_the_append_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(str(tmp_path))
    journal.open()
    syncing, go_on = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(fd: int) -> None:
        syncing.set()
        assert go_on.wait(5)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    with ThreadPoolExecutor(2) as threads:
        append = threads.submit(journal.append, [record(1)])
        assert syncing.wait(5)
        close = threads.submit(journal.close)
        assert not close.done()
        go_on.set()
        assert append.result(5) == 1
        close.result(5)
    monkeypatch.undo()
    assert everything(tmp_path) == [record(1)]


def test_the_command_to_be_copied_survives_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "the controller's data"
    write(folder, 1, 2)
    path = only_journal(folder)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RefusesToStart) as refusal, opened(folder):
        pass
    _, run, command = str(refusal.value).partition("run: ")
    assert run
    assert shlex.split(command)[-1] == str(path)
