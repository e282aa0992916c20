"""A log is opened again in the process in which it was closed, while the cleaner's thread still
removes what went from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minilog.storage import directories
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.producer_snapshots import ProducerStates
from minilog.storage.log.producers import ProducerTable
from minilog.storage.segment.segment_swap import settle
from tests.unit.storage.batches import fill, flush, open_in
from tests.unit.storage.memory_disk import MemoryDisk

DIRECTORY = "/d/t-0"


class FasterThread(MemoryDisk):
    """Somebody else removes files as soon as they have been listed for the last time."""

    goes: Callable[[str], bool] = staticmethod(lambda name: False)
    lists_left = 0

    def list(self, path: str) -> list[str]:
        names = super().list(path)
        self.lists_left -= 1
        if self.lists_left == 0:
            gone = [name for name in names if self.goes(name)]
            assert gone
            for name in gone:
                self.remove(f"{path}/{name}")
        return names

    def meanwhile(self, goes: Callable[[str], bool], *, at_list: int = 1) -> None:
        self.goes, self.lists_left = goes, at_list


def with_garbage() -> tuple[FasterThread, PartitionLog]:
    disk = FasterThread()
    log = open_in(disk)
    fill(log, 12, size=2000)
    flush(log)
    log.high_watermark = log.end_offset
    log.advance_start(10)
    assert len(log.garbage) > 2
    return disk, log


def test_what_retention_took_out_of_a_log_goes_while_the_log_is_opened() -> None:
    disk, log = with_garbage()
    log.close()
    disk.meanwhile(lambda name: name.endswith(".deleted"), at_list=2)
    again = open_in(disk)
    assert (again.start_offset, again.end_offset) == (10, 12)


@pytest.mark.parametrize("ending", [".cleaned", ".index"])
def test_a_cleaned_segment_that_is_not_wanted_any_more_goes_as_well(ending: str) -> None:
    disk, _ = with_garbage()
    disk.close(disk.create(f"{DIRECTORY}/{0:020d}-{9:020d}{ending}"))
    disk.meanwhile(lambda name: name.count("-") == 1, at_list=2)
    settle(disk, DIRECTORY)
    assert not [name for name in disk.list(DIRECTORY) if name.count("-") == 1]


def test_half_a_snapshot_of_producers_goes_as_well() -> None:
    disk, log = with_garbage()
    disk.close(disk.create(f"{DIRECTORY}/{5:020d}.producers.tmp"))
    disk.meanwhile(lambda name: name.endswith(".tmp"))
    states = ProducerStates(disk, DIRECTORY, 1000)
    states.open(log.end_offset)
    assert isinstance(states.table, ProducerTable)


def test_a_directory_that_is_being_removed_is_removed() -> None:
    disk, _ = with_garbage()
    disk.meanwhile(lambda name: name.endswith((".deleted", ".log")))
    directories.remove(disk, DIRECTORY)
    assert "t-0" not in disk.list("/d")
