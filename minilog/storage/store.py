"""Store: one broker's data directory; satisfies ``core.ports.LogStore``.

Owns: ``lock``, the partition directories and ``trash/``, and with their modules ``stray/``
(stray.py), ``meta.json`` and the epochs (meta.py), ``metadata`` (metadata_copy.py),
``recovery-points`` (points.py), ``running`` and ``clean-shutdown`` (process_marks.py).

Invariants:
* One process at a time (the lock), and only the broker and cluster the directory belongs to
  (meta.py).
* A partition directory appears complete, by one rename, and disappears the same way: into
  ``trash/`` when its topic is known to be deleted, or a topic of that name with another id takes
  its place, and into ``stray/`` when nobody knows its topic (R39). From there it comes back when
  its topic is known again.
* No file or directory has a longer name than a partition's own directory, so whatever can be opened
  can be deleted; and a name that the file system refuses costs one replica, not the broker.
* What is in the trash says whose it is for as long as a saved recovery point speaks of it: else the
  next start would miss it.
* A start is clean only if nothing that the last process wrote can be missing (R21). A log that
  vanished is named as lost, until the controller has been told (R37): from then on nobody misses
  that log any more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull, NameRefused, RefusesToStart, StorageFailed
from minilog.storage import checkpoint, directories
from minilog.storage.aside import trash
from minilog.storage.aside.lost import find_lost, in_trash
from minilog.storage.aside.lost_tails import LostTails
from minilog.storage.aside.stray import Stray
from minilog.storage.directories import StoredPartition, directory_name
from minilog.storage.disk import Disk
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import LogPlace
from minilog.storage.log.quarantine import CutTail, Quarantine
from minilog.storage.meta import Identity
from minilog.storage.metadata_copy import METADATA_FILE, MetadataFile
from minilog.storage.points import Point, Points
from minilog.storage.process_marks import ProcessMarks
from minilog.storage.recovery.recovery import adopt, open_log
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import ReplicaName

POINTS_FILE = "recovery-points"
_logger = logging.getLogger("minilog.storage")


class Checked(NamedTuple):
    """How far ``recover`` is."""

    logs: int
    logs_total: int


class Store:
    def __init__(
        self,
        disk: Disk,
        data_dir: str,
        broker_id: int,
        now_ms: Callable[[], int],
        make_id: Callable[[], str] = lambda: os.urandom(16).hex(),
    ) -> None:
        """``now_ms`` is wall-clock time, for the reports in quarantine only. ``make_id``: ids for
        new directories, no two the same. Nothing is touched before ``start``."""
        self.data_dir = os.path.abspath(data_dir)
        self.was_clean = False
        self._disk = disk
        self._broker_id = broker_id
        self._trash = trash.Trash(disk, self._path("trash"))
        self._stray = Stray(disk, self._path("stray"))
        self._quarantine = Quarantine(disk, self._path("quarantine"), now_ms)
        self.tails = LostTails(disk, self.data_dir)
        self._lock: int | None = None
        self._identity = Identity(disk, self.data_dir, broker_id, make_id)
        self._metadata = MetadataFile(disk, self._path(METADATA_FILE))
        self._lost: list[ReplicaName] = []
        self._boot_id = ""
        self._marks = ProcessMarks(disk, self.data_dir)
        self.checked = Checked(0, 0)
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._recovered: dict[tuple[str, int], PartitionLog] = {}
        """Checked before their topics' settings were known. Each becomes one of ``_logs`` when it
        is opened."""
        self._topic_ids: dict[tuple[str, int], str] = {}
        """Topic id of every partition directory."""
        self._made_in: dict[str, str] = {}
        """By directory the boot it was made in: for as long as there is no recovery point of the
        log."""
        self._points = Points(disk, self._path(POINTS_FILE))
        self._made: set[str] = set()
        """Partition directories whose names no log has taken over yet, to be synced with its first
        flush."""
        self._unsynced: set[str] = set()
        """Partition directories that were made since the metadata was last saved."""
        self._refused: set[str] = set()
        """Partition directories that the file system does not take."""

    def _path(self, name: str) -> str:
        return f"{self.data_dir}/{name}"

    # ---- start and stop

    def start(self, boot_id: str) -> bool:
        """Lock and check the directory; True when nothing the last process wrote can be missing
        (R21).

        ``boot_id`` is the kernel's (``machine.boot_id``); "" when unknown. Raises
        RefusesToStart or DiskFull.
        """
        assert self._lock is None, "a store is started once"
        self._boot_id = boot_id
        self._marks.begin_in(boot_id)
        self._disk.on_failure = self.distrust
        try:
            for name in ("", "trash", "quarantine"):
                self._disk.mkdir(self._path(name))
            self._lock = self._take_lock()
        except StorageFailed as error:
            raise RefusesToStart(f"the data directory {self.data_dir} cannot be used: {error}") from error
        try:
            self._identity.load()
            self.tails.directory_id = self._identity.directory_id
            self._load_partitions()
            self._load_points()
            self._look_for_lost()
            self._stray.look()
            return self._judge_last_process()
        except BaseException as error:
            self._release()
            where = f"the data directory {self.data_dir} cannot be used"
            if isinstance(error, DiskFull):
                raise DiskFull(f"{where}: {error.detail}") from error
            if isinstance(error, CorruptRange):
                raise RefusesToStart(f"{where}: {error}; check the disk, and restore the file from a backup") from error
            if isinstance(error, StorageFailed | FileNotFoundError):
                raise RefusesToStart(
                    f"{where}: {error}; check the disk and the permissions, "
                    "or move away what is not minilog's and has the name of a partition or a file of its own"
                ) from error
            raise

    def _take_lock(self) -> int:
        handle = self._disk.lock(self._path("lock"))
        if handle is None:
            holder = (checkpoint.read_file(self._disk, self._path("lock")) or b"").decode(errors="replace").strip()
            process = f"process {holder}" if holder.isdigit() else "another process"
            raise RefusesToStart(
                f"{self.data_dir} is in use by {process}: stop it first, or give this broker a data_dir of its own"
            )
        return handle

    def _load_partitions(self) -> None:
        for stored, boot_id in directories.find(self._disk, self.data_dir):
            self._topic_ids[stored.topic, stored.partition] = stored.topic_id
            self._made_in[directory_name(stored.topic, stored.partition)] = boot_id

    def _load_points(self) -> None:
        self._points.load()
        moved, spoken_of = self._moved_away(), self._spoken_of()
        # Or what was deleted would be missed, and spoken of again.
        self._points.forget([name for name in self._points.without(self._directories()) if spoken_of[name] in moved])

    def _look_for_lost(self) -> None:
        self._metadata.load(self.cluster_id)
        here = set(self.partitions())
        self._lost = find_lost(self._metadata.saved, self._points, self._moved_away(), here, self._broker_id)

    def _moved_away(self) -> set[tuple[str, str | None]]:
        return self._trash.held() | self._stray.held()

    def _judge_last_process(self) -> bool:
        self._marks.look()
        self.was_clean = self._marks.says_clean
        if not self._marks.is_same_boot:
            self._forget_boot()
        self._marks.run(is_clean=self.was_clean)
        return self.was_clean

    @property
    def last_broker_epoch(self) -> int:
        """The broker epoch in the clean-shutdown marker found at start; -1 without one."""
        return self._marks.last_broker_epoch

    def _forget_boot(self) -> None:
        """Let no recovery point of this boot vouch for what was written after it; durable before
        ``running`` is."""
        for key, topic_id in self._topic_ids.items():
            name = directory_name(*key)
            known = self._point(name, topic_id)
            if known.boot_id == self._boot_id:
                self._points.note(name, known._replace(boot_id=""))
        self._points.save()

    def _point(self, name: str, topic_id: str) -> Point:
        return self._points.of(name, topic_id, self._made_in[name])

    def _directories(self) -> set[str]:
        return {directory_name(*key) for key in self._topic_ids}

    def registered(self) -> None:
        """The controller has accepted the registration and knows whether the start was clean.
        Raises DiskFull."""
        if self._lost:
            self._points.forget(self._points.without(self._directories()))
            self._points.save()
            self._lost = []
        if not self._marks.is_vouched:
            self._marks.vouch()

    def distrust(self) -> None:
        """After a failed write or sync: the next start must not rely on the page cache. Never
        raises."""
        self._marks.distrust()

    def recover(self, ask: Callable[[], None]) -> None:
        """Check every log there is, so that ``open`` finds it done. For a thread, between ``start``
        and the first ``open``.

        ``ask`` is called between logs and segments. What it raises ends the recovery, and the next
        start does it again. A log that cannot be opened is left to ``open``, whose caller can say
        what it means. Raises StorageFailed.
        """
        for at, (key, topic_id) in enumerate(list(self._topic_ids.items())):
            self.checked = Checked(at, len(self._topic_ids))
            ask()
            with suppress(CorruptRange, DiskFull):
                self._recovered[key] = self._open_log(directory_name(*key), topic_id, TopicSettings(), ask=ask)
        self.checked = Checked(len(self._topic_ids), len(self._topic_ids))
        with suppress(DiskFull):  # the next checkpoint says it, too
            self._vouch_for_recovered()

    def _vouch_for_recovered(self) -> None:
        """All of these logs is durable in this boot, so of what is written from here on no power
        cut explains damage."""
        for key, log in self._recovered.items():
            if not log.is_damaged:
                self._points.note(log.name, Point(self._topic_ids[key], self._boot_id, log.recovery_point()))
        self._points.save()

    def close_cleanly(self, broker_epoch: int) -> None:
        """Make everything durable, write the checkpoints, and last of all the marker. Then release
        the directory."""
        for topic, partition in list(self._logs):
            self.close(topic, partition)
        self._points.save()
        self._marks.end_cleanly(broker_epoch)
        self._release()

    def abandon(self) -> None:
        """Release the directory as it is, as a crash would."""
        for log in self._logs.values():
            log.abandon()
        self._logs.clear()
        self._release()

    def _release(self) -> None:
        for log in self._recovered.values():
            log.abandon()
        self._recovered.clear()
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    # ---- the broker's own state

    @property
    def cluster_id(self) -> str:
        return self._identity.cluster_id

    def bind_cluster(self, cluster_id: str) -> None:
        """Raises RefusesToStart when the directory belongs to another cluster."""
        self._identity.bind_cluster(cluster_id)

    @property
    def directory_id(self) -> str:
        return self._identity.directory_id

    @property
    def broker_epoch(self) -> int:
        return self._identity.broker_epoch

    def save_broker_epoch(self, epoch: int) -> None:
        self._identity.save_broker_epoch(epoch)

    @property
    def controller_epoch(self) -> int:
        return self._identity.controller_epoch

    def save_controller_epoch(self, epoch: int) -> None:
        self._identity.save_controller_epoch(epoch)

    @property
    def metadata(self) -> MetadataCopy:
        """What was applied here of the metadata, as it was last saved."""
        return self._metadata.saved

    def save_metadata(self, copy: MetadataCopy) -> None:
        """For a thread. Whatever directory the copy gives this broker is there after a power cut,
        too. Raises DiskFull: the old copy stays good."""
        names = list(self._unsynced)
        for name in names:
            with suppress(FileNotFoundError):  # deleted meanwhile
                self._disk.fsync_dir(self._path(name))
        self._disk.fsync_dir(self.data_dir)
        self._metadata.save(copy)
        self._unsynced.difference_update(names)

    @property
    def lost(self) -> list[ReplicaName]:
        return self._lost

    # ---- logs

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> PartitionLog:
        """As in ``LogStore``; opening an open log of the same topic id gives that log.

        Raises DiskFull, StorageFailed, NameRefused, or CorruptRange when the log cannot be made
        sense of.
        """
        assert self._lock is not None, "start the store first"
        name = directory_name(topic, partition)
        assert topic_id
        key = (topic, partition)
        if self._topic_ids.get(key) == topic_id and key in self._logs:
            return self._logs[key]
        if key in self._topic_ids and self._topic_ids[key] != topic_id:
            self._move(topic, partition, self._trash)
        if key not in self._topic_ids:
            self._points.forget([name])
            if name in self._points.saved:
                self._points.save()  # or what they say of a log that is gone would be believed of this one
            self._begin(name, StoredPartition(topic, topic_id, partition))
            self._topic_ids[key] = topic_id
            self._unsynced.add(name)
        log = self._recovered.pop(key, None)
        if log is None:
            unsynced = (self._path(name), self.data_dir) if name in self._made else ()
            log = self._open_log(name, topic_id, settings, unsynced=unsynced)
            self._made.discard(name)
        else:
            adopt(log, settings)
        self._logs[key] = log
        return log

    def _begin(self, name: str, stored: StoredPartition) -> None:
        """With the log that was put aside, if there is one: how much of that is durable nobody
        knows. Else with an empty one."""
        if self._stray.give_back(self._path(name), name, stored.topic_id):
            self._made_in[name] = ""
            self._stray.sync()
            self._disk.fsync_dir(self.data_dir)
        else:
            self._make(name, stored)
            self._made_in[name] = self._boot_id
            self._made.add(name)

    def _make(self, name: str, stored: StoredPartition) -> None:
        """Raises NameRefused, and tells the operator, but only once: it will be tried again and
        again."""
        try:
            directories.make(self._disk, self.data_dir, stored, self._boot_id)
        except NameRefused as refused:
            if name not in self._refused:
                self._refused.add(name)
                _logger.error("no replica of %s can be kept here, the others are not affected: %s", name, refused)
            raise

    def _open_log(
        self,
        name: str,
        topic_id: str,
        settings: TopicSettings,
        *,
        unsynced: tuple[str, ...] = (),
        ask: Callable[[], None] = lambda: None,
    ) -> PartitionLog:
        known = self._point(name, topic_id)
        power_loss = known.boot_id == "" or known.boot_id != self._boot_id
        place = LogPlace(self._disk, self._path(name), name, self._quarantine, unsynced, ask, topic_id)
        return open_log(place, settings, known.point, power_loss)

    def get(self, topic: str, partition: int) -> PartitionLog | None:
        """The open log; None when it is not open."""
        return self._logs.get((topic, partition))

    def logs(self) -> Iterator[tuple[StoredPartition, PartitionLog]]:
        """Every open log."""
        for (topic, partition), log in self._logs.items():
            yield StoredPartition(topic, self._topic_ids[topic, partition], partition), log

    def partitions(self) -> list[StoredPartition]:
        """Every partition that has a directory, open or not, sorted."""
        return sorted(StoredPartition(topic, topic_id, number) for (topic, number), topic_id in self._topic_ids.items())

    def close(self, topic: str, partition: int) -> None:
        """Make the log durable and release it. Nothing when it is not open."""
        log = self._logs.pop((topic, partition), None)
        if log is not None:
            self._points.note(log.name, Point(self._topic_ids[topic, partition], self._boot_id, log.close()))

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        if self._topic_ids.get((topic, partition)) == topic_id:
            self._move(topic, partition, self._trash)

    def put_aside(self, topic: str, topic_id: str, partition: int) -> None:
        if self._topic_ids.get((topic, partition)) == topic_id:
            self._move(topic, partition, self._stray)

    @property
    def lacks(self) -> int:
        """How often the disk had no room."""
        return self._disk.lacks

    def take_cuts(self) -> list[CutTail]:
        return self._quarantine.take()

    @property
    def records_lost(self) -> list[int]:
        return self._quarantine.records_lost

    @property
    def lost_kept(self) -> int:
        return self.tails.kept.unwritten

    @property
    def strays(self) -> int:
        return self._stray.count

    def _move(self, topic: str, partition: int, to: trash.Trash) -> None:
        """Raises DiskFull, and then the partition stays where it is, open if it was."""
        name = directory_name(topic, partition)
        to.take(self._path(name), name)
        for opened in (self._logs, self._recovered):
            log = opened.pop((topic, partition), None)
            if log is not None:
                log.abandon()
        del self._topic_ids[topic, partition]
        self._made.discard(name)
        self._points.forget([name])
        to.sync()
        self._disk.fsync_dir(self.data_dir)

    def purge_trash(self, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Remove for good what is in the trash; returns the bytes freed. ``is_stopped`` is asked
        between files. Of a log that the saved recovery points or the copy of the metadata speak of
        the name stays until these are saved again: there may be no room for that before the records
        have gone."""
        spoken_of = set(self._spoken_of().values())
        replicas = self._metadata.saved.replicas_of(self._broker_id)
        spoken_of.update(in_trash(StoredPartition(*replica)) for replica in replicas)
        return self._trash.purge(spoken_of, is_stopped)

    def _spoken_of(self) -> dict[str, tuple[str, str | None]]:
        """By directory what the trash would have of the log that the saved recovery points speak
        of: a later topic of that name is another one."""
        return {name: (trash.stem(name), known.topic_id) for name, known in self._points.saved.items()}

    # ---- checkpoints

    def checkpoint(self) -> None:
        """Note durable ends and high watermarks of all open logs, so that a restart scans little.

        Raises DiskFull: the old checkpoint stays good.
        """
        self._stray.look_again()
        for key, log in self._logs.items():
            self._points.note(log.name, Point(self._topic_ids[key], self._boot_id, log.checkpoint()))
        self._points.save()
