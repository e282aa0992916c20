"""ProcessMarks: what the processes of one data directory leave for the next one, so that it knows
whether writes may be missing.

Owns: ``running`` and ``clean-shutdown`` (what R21 needs), ``place``, and the mark of doubt in
memory.

Invariants:
* ``clean-shutdown`` is written after everything else on a clean stop and removed, durably, before
  any log is touched at the next start. A start may be clean as well when the machine has not
  restarted since the last process ran: the page cache kept what was written. ``running`` holds that
  process's boot id and whether it could itself vouch for what it found, so an unclean start stays
  unclean through quick restarts until the controller has been told.
* What the page cache kept is in the very files that were written. ``place`` is made once and never
  touched, and ``running`` says which file that is. A copy of the directory has another one (R36).
* A write or sync that failed withdraws ``running`` at once, before anybody hears of it. A disk that
  refuses even that leaves a mark elsewhere (``machine.volatile_dir``), with the boot in its name.
  The next start then takes this boot for another one: unclean, and of no log is more believed than
  what its recovery point says was durable.
"""

from __future__ import annotations

from contextlib import suppress

from crc32c import crc32c

from minilog import machine
from minilog.errors import StorageFailed
from minilog.storage import checkpoint
from minilog.storage.disk import Disk

RUNNING_FILE = "running"
PLACE_FILE = "place"
CLEAN_FILE = "clean-shutdown"


class ProcessMarks:
    def __init__(self, disk: Disk, data_dir: str) -> None:
        self.last_broker_epoch = -1
        """The broker epoch in the clean marker that was found; -1 without one."""
        self.is_same_boot = False
        """The machine has not restarted since the last process ran, and nothing that process wrote
        has failed."""
        self.says_clean = False
        """By these marks nothing that the last process wrote can be missing."""
        self.is_vouched = False
        """This process can answer for the data: its start was clean, or the controller knows that
        it was not."""
        self._disk = disk
        self._data_dir = data_dir
        self._running = f"{data_dir}/{RUNNING_FILE}"
        self._clean = f"{data_dir}/{CLEAN_FILE}"
        self._place = f"{data_dir}/{PLACE_FILE}"
        self._boot_id = ""
        self._start_number = 0

    def begin_in(self, boot_id: str) -> None:
        """In which boot this process runs: before it touches anything, or a failure would be noted
        of another one."""
        self._boot_id = boot_id

    def look(self) -> None:
        """Find out what the last process has left."""
        marker = checkpoint.load_dispensable(self._disk, self._clean)
        running = checkpoint.load_dispensable(self._disk, self._running)
        self.last_broker_epoch = int(marker.get("broker_epoch", -1))
        is_same = self._boot_id != "" and running.get("boot_id") == self._boot_id
        is_here = running.get("place") == self._identity()
        self.is_same_boot = is_same and is_here and not self._is_doubted()
        self.says_clean = bool(marker) or (self.is_same_boot and running.get("vouched") is True)
        self._start_number = int(running.get("start", 0)) + 1

    def run(self, *, is_clean: bool) -> None:
        """This process runs. With no room to note that, the marker is still there at the next
        start. Raises DiskFull."""
        self.is_vouched = is_clean
        self._save_running(is_clean)
        checkpoint.remove(self._disk, self._clean)

    def vouch(self) -> None:
        """The controller knows whether the start was clean."""
        self._save_running(vouched=True)
        self.is_vouched = True

    def end_cleanly(self, broker_epoch: int) -> None:
        """No marker while the controller has not been told of an unclean start: the next start is
        unclean still."""
        if self.is_vouched:
            checkpoint.save(self._disk, self._clean, {"broker_epoch": broker_epoch}, keep_previous=False)

    def _save_running(self, vouched: bool) -> None:
        place = self._identity()
        if place is None:
            checkpoint.write_synced(self._disk, self._place, b"a copy of this directory is not this directory\n")
            place = self._identity()
        body = {"boot_id": self._boot_id, "vouched": vouched, "start": self._start_number, "place": place}
        checkpoint.save(self._disk, self._running, body, keep_previous=False)

    def _identity(self) -> str | None:
        try:
            return self._disk.identity(self._place)
        except FileNotFoundError:
            return None

    def distrust(self) -> None:
        """After a failed write or sync: the next start must not rely on the page cache. Never
        raises."""
        with suppress(Exception):
            running = checkpoint.read_file(self._disk, self._running) or b""
            try:
                self._disk.remove(self._running)
            except StorageFailed:
                self._disk.mkdir(self._doubt_path(running))

    def _doubt_path(self, running: bytes) -> str:
        """Of the mark that this content of ``running`` is not to be trusted.

        A directory, because making one follows no link that somebody else has put in its place. It
        stays until the machine restarts, and means nothing any more when the next start has written
        another ``running``.
        """
        return (
            f"{machine.volatile_dir()}/minilog-{self._boot_id}-{crc32c(running, crc32c(self._data_dir.encode())):08x}"
        )

    def _is_doubted(self) -> bool:
        running = checkpoint.read_file(self._disk, self._running) or b""
        try:
            self._disk.list(self._doubt_path(running))
        except FileNotFoundError:
            return False
        except StorageFailed:
            pass  # somebody has put something else there
        return True
