"""JournalWitness: what a scenario of the disk sweep does to the controller's journal, and what must
be in it."""

from __future__ import annotations

from minilog.controller.journal import FileJournal
from minilog.errors import RefusesToStart, StorageFailed
from minilog.wire.journal.metadata_records import MetadataRecord, ProducerIdsAllocated
from tests.sim.sweep.faulty_disk import FaultyDisk
from tests.sim.sweep.log_model import check

JOURNAL_DIR = "/data/controller"


class JournalWitness:
    """A decision is a list of records. ``decided`` holds those of all that were acknowledged, in
    order."""

    def __init__(self, disk: FaultyDisk) -> None:
        self.disk = disk
        disk.mkdir("/data")
        disk.fsync_dir("/")
        self.journal = FileJournal(JOURNAL_DIR, disk)
        self.decided: list[MetadataRecord] = []
        self._under_way: list[MetadataRecord] = []

    def start(self) -> None:
        self.journal = FileJournal(JOURNAL_DIR, self.disk)
        try:
            replayed = self.journal.open()
        except RefusesToStart:
            if not self.disk.full:
                raise
            self.journal.close()
            self.disk.full = False
            self.journal = FileJournal(JOURNAL_DIR, self.disk)
            replayed = self.journal.open()
        self.disk.full = False
        found = [*replayed.snapshot, *replayed.tail]
        check(
            found in (self.decided, self.decided + self._under_way),
            f"{len(found)} records were found, {len(self.decided)} acknowledged, {len(self._under_way)} under way",
        )
        check(self.journal.last_index == len(found), f"the last index is {self.journal.last_index} of {len(found)}")
        self.decided, self._under_way = found, []

    def append(self, count: int) -> None:
        first = len(self.decided) + 1
        self._under_way = [ProducerIdsAllocated(1, number) for number in range(first, first + count)]
        try:
            last = self.journal.append(self._under_way)
        except StorageFailed:
            if not self.disk.full:
                raise
            self.kill()  # a controller does not go on without a journal. It does when there is room
            self.disk.full = False
            self.start()
            self.append(count)
            return
        check(last == first + count - 1, "an index has a gap")
        self.decided = self.decided + self._under_way
        self._under_way = []

    def snapshot(self) -> None:
        """A full disk puts it off. The journal goes on."""
        self.journal.snapshot(len(self.decided), self.decided)
        self.disk.full = False

    def stop(self) -> None:
        self.journal.close()
        self.disk.kill()

    def end(self, how: str) -> None:
        if how == "crash":
            self.disk.crash(self.disk.rng)
        elif how == "kill":
            self.disk.kill()
        else:
            self.disk.lose_pages(self.disk.rng)

    def kill(self) -> None:
        self.end("kill")

    def crash(self) -> None:
        self.end("crash")

    def go_on(self) -> None:
        self.append(2)
        self.snapshot()
        self.append(1)
        self.crash()
        self.start()
