"""Writing a recovered journal (R38): what is kept, what is refused, and that a controller starts
with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from minilog.controller.journal import FileJournal, InUse
from minilog.controller.recover import Recovery
from minilog.core.image import ClusterImage
from minilog.errors import DiskFull, InvalidRequest, RefusesToStart
from minilog.storage.disk import OsDisk
from minilog.wire.journal.metadata_copy import BrokerCopy
from tests.unit.core.controller.controller_bench import ControllerBench
from tests.unit.core.controller.journal.test_journal_recovery import copy_of, eventful


def written(bench: ControllerBench, path: Path, records: int | None = None) -> FileJournal:
    journal = FileJournal(str(path))
    journal.open()
    journal.append(bench.journal[:records])
    return journal


def image_in(path: Path) -> ClusterImage:
    journal = FileJournal(str(path))
    replayed = journal.open()
    journal.close()
    image = ClusterImage()
    image.load(replayed.snapshot_index, replayed.snapshot)
    for index, record in enumerate(replayed.tail, replayed.snapshot_index + 1):
        image.apply(index, record)
    return image


def recovered(copies: list[BrokerCopy], path: Path) -> str:
    with closing(Recovery(str(path), copies)) as recovery:
        recovery.check_needed(recovery.journal_here())
        return recovery.write()


def test_where_there_was_none_a_journal_begins(tmp_path: Path) -> None:
    bench = eventful()
    assert recovered([copy_of(bench, 1)], tmp_path / "ctl") == ""
    image = image_in(tmp_path / "ctl")
    assert image.topics.keys() == bench.core.image.topics.keys()
    assert image.metadata_offset > bench.core.metadata_offset


def test_an_older_journal_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    bench = eventful()
    written(bench, tmp_path / "ctl", 5).close()
    kept = recovered([copy_of(bench, 1)], tmp_path / "ctl")
    assert kept == f"{tmp_path}/ctl.replaced-1"
    assert image_in(Path(kept)).metadata_offset == 5
    assert image_in(tmp_path / "ctl").topics.keys() == bench.core.image.topics.keys()


def test_a_journal_that_cannot_be_read_is_kept_too(tmp_path: Path) -> None:
    bench = eventful()
    written(bench, tmp_path / "ctl").close()
    [path] = (tmp_path / "ctl").glob("journal-*.log")
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with closing(Recovery(str(tmp_path / "ctl"), [copy_of(bench, 1)])) as recovery:
        here = recovery.journal_here()
        assert isinstance(here, str)
        recovery.check_needed(here)
        kept = recovery.write()
    assert (Path(kept) / path.name).read_bytes() == bytes(data)


def test_a_journal_that_holds_all_is_not_replaced(tmp_path: Path) -> None:
    bench = eventful()
    written(bench, tmp_path / "ctl").close()
    with pytest.raises(InvalidRequest, match="nothing to recover"):
        recovered([copy_of(bench, 1), copy_of(bench, 2, 7)], tmp_path / "ctl")


def test_a_journal_in_use_is_left_alone(tmp_path: Path) -> None:
    bench = eventful()
    journal = written(bench, tmp_path / "ctl", 5)
    with pytest.raises(InUse):
        recovered([copy_of(bench, 1)], tmp_path / "ctl")
    journal.close()


def test_no_controller_begins_while_a_person_is_asked(tmp_path: Path) -> None:
    bench = eventful()
    written(bench, tmp_path / "ctl", 5).close()
    with closing(Recovery(str(tmp_path / "ctl"), [copy_of(bench, 1)])) as recovery:
        recovery.journal_here()
        restarted = FileJournal(str(tmp_path / "ctl"))
        with pytest.raises(InUse):
            restarted.open()
        restarted.close()
        kept = recovery.write()
    assert image_in(Path(kept)).metadata_offset == 5
    assert image_in(tmp_path / "ctl").metadata_offset > bench.core.metadata_offset


def test_a_journal_that_began_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    bench = eventful()
    with closing(Recovery(str(tmp_path / "ctl"), [copy_of(bench, 1)])) as recovery:
        assert recovery.journal_here() is None
        written(bench, tmp_path / "ctl", 5).close()
        with pytest.raises(RefusesToStart, match="has begun a journal"):
            recovery.write()
    assert image_in(tmp_path / "ctl").metadata_offset == 5


def test_without_room_for_the_new_one_the_journal_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = eventful()
    written(bench, tmp_path / "ctl", 5).close()

    def full(disk: OsDisk, handle: int, position: int, buffers: object) -> None:
        raise DiskFull("no room")

    with closing(Recovery(str(tmp_path / "ctl"), [copy_of(bench, 1)])) as recovery:
        recovery.journal_here()
        monkeypatch.setattr(OsDisk, "append", full)
        with pytest.raises(RefusesToStart):
            recovery.write()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["ctl"]
    assert image_in(tmp_path / "ctl").metadata_offset == 5
