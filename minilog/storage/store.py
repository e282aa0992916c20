"""Store: one broker's data directory; satisfies ``core.ports.LogStore``.

Owns: ``lock``, ``meta.json`` and ``controller-epoch`` (meta.py), ``recovery-points`` (of all logs), ``running`` and ``clean-shutdown`` (what R21 needs),
the partition directories and ``trash/``.

Invariants:
* One process at a time (the lock), and only the broker and cluster the directory belongs to (meta.py).
* A partition directory appears complete, by one rename, and disappears the same way, into ``trash/``: only for a delete
  record of its topic id, or because a topic of that name with another id has taken its place.
* No file or directory has a longer name than a partition's own directory, so whatever can be opened can be deleted; and a
  name that the file system refuses costs one replica, not the broker.
* What is in the trash says whose it is for as long as a saved recovery point speaks of it: else the next start would miss it.
* ``clean-shutdown`` is written after everything else on a clean stop and removed, durably, before any log is touched at
  the next start. ``start`` may say clean as well when the machine has not restarted since the last process ran: the page
  cache kept what was written. ``running`` holds that process's boot id and whether it could itself vouch for what it
  found, so an unclean start stays unclean through quick restarts until the controller has been told.
* A write or sync that failed withdraws ``running`` at once, before anybody hears of it. A disk that refuses even that
  leaves a mark in memory (``/dev/shm``, which lasts as long as the boot). The next start then takes this boot for
  another one: unclean, and of no log is more believed than what its recovery point says was durable.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull, NameRefused, RefusesToStart, StorageFailed
from minilog.storage import checkpoint, meta, trash
from minilog.storage.disk import Disk
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import LogPlace, RecoveryPoint
from minilog.storage.log.quarantine import Quarantine
from minilog.storage.meta import PARTITION_FILE
from minilog.storage.recovery.recovery import NOTHING_KNOWN, adopt, open_log

POINTS_FILE = "recovery-points"
RUNNING_FILE = "running"
CLEAN_FILE = "clean-shutdown"
_NEW_SUFFIX = ".new"
_NEW_DIRECTORY = "partition.new"
"""One is made at a time. No partition has this name: theirs end in a number."""
_VOLATILE_DIR = "/dev/shm"
_logger = logging.getLogger("minilog.storage")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_DIRECTORY = re.compile(r"([A-Za-z0-9._-]{1,249})-(0|[1-9][0-9]{0,9})")


class StoredPartition(NamedTuple):
    topic: str
    topic_id: str
    partition: int


class _Point(NamedTuple):
    """``boot_id`` is the machine's when the point was taken: in another boot, what came after it may be lost."""

    topic_id: str
    boot_id: str
    point: RecoveryPoint


class Checked(NamedTuple):
    """How far ``recover`` is."""

    logs: int
    logs_total: int


class Store:
    def __init__(self, disk: Disk, data_dir: str, broker_id: int, now_ms: Callable[[], int]) -> None:
        """``now_ms`` is wall-clock time, for the reports in quarantine only. Nothing is touched before ``start``."""
        self.data_dir = os.path.abspath(data_dir)
        self.was_clean = False
        self.last_broker_epoch = -1
        """The broker epoch in the clean-shutdown marker found at start; -1 without one."""
        self._disk = disk
        self._broker_id = broker_id
        self._trash = trash.Trash(disk, self._path("trash"))
        self._quarantine = Quarantine(disk, self._path("quarantine"), now_ms)
        self._lock: int | None = None
        self._meta = meta.Meta(broker_id=broker_id)
        self._controller_epoch = 0
        self._boot_id = ""
        self._start_number = 0
        self._vouched = False
        """This process can answer for the data: its start was clean, or the controller knows that it was not."""
        self.checked = Checked(0, 0)
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._recovered: dict[tuple[str, int], PartitionLog] = {}
        """Checked before their topics' settings were known; each becomes one of ``_logs`` when it is opened."""
        self._topic_ids: dict[tuple[str, int], str] = {}
        """Topic id of every partition directory."""
        self._made_in: dict[str, str] = {}
        """By directory the boot it was made in: for as long as there is no recovery point of the log."""
        self._points: dict[str, _Point] = {}
        self._saved_points: dict[str, _Point] = {}
        self._refused: set[str] = set()
        """Partition directories that the file system does not take."""

    def _path(self, name: str) -> str:
        return f"{self.data_dir}/{name}"

    # ---- start and stop

    def start(self, boot_id: str) -> bool:
        """Lock and check the directory; True when nothing the last process wrote can be missing (R21).

        ``boot_id`` is the kernel's (/proc/sys/kernel/random/boot_id); "" when unknown. Raises RefusesToStart.
        """
        assert self._lock is None, "a store is started once"
        self._boot_id = boot_id
        self._disk.on_failure = self.distrust
        try:
            for name in ("", "trash", "quarantine"):
                self._disk.mkdir(self._path(name))
            self._lock = self._take_lock()
        except StorageFailed as error:
            raise RefusesToStart(f"the data directory {self.data_dir} cannot be used: {error}") from error
        try:
            self._load_meta()
            self._load_partitions()
            self._load_points()
            return self._judge_last_process()
        except BaseException:
            self._release()
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

    def _load_meta(self) -> None:
        path = self._path(meta.META_FILE)
        found = meta.load(self._disk, path, self._broker_id)
        if found is not None:
            self._meta = found
            self._controller_epoch = meta.load_epoch(self._disk, path)
            return
        partitions = [name for name in self._disk.list(self.data_dir) if _DIRECTORY.fullmatch(name)]
        if partitions:
            raise RefusesToStart(
                f"{path} is missing although {self.data_dir} holds partitions ({partitions[0]}, ...): "
                "restore it from a backup, or start with an empty data directory"
            )
        meta.begin(self._disk, path, self._meta)
        self._disk.fsync_dir(os.path.dirname(self.data_dir))

    def _load_partitions(self) -> None:
        for name in self._disk.list(self.data_dir):
            if name.endswith(_NEW_SUFFIX):
                self._remove_directory(self._path(name))
                continue
            match = _DIRECTORY.fullmatch(name)
            if match is None:
                continue
            if not self._disk.list(self._path(name)):  # a power cut left the name only: nothing in it was ever durable
                self._remove_directory(self._path(name))
                continue
            path = f"{self._path(name)}/{PARTITION_FILE}"
            body = checkpoint.load(self._disk, path).body
            if body is None or body.get("topic") != match[1] or body.get("partition") != int(match[2]):
                raise RefusesToStart(
                    f"{path} is missing or damaged, so it is not known which topic the log beside it belongs to: "
                    f"restore it from a backup, or move the directory {name} away to have it copied from its leader"
                )
            self._topic_ids[match[1], int(match[2])] = str(body["topic_id"])
            self._made_in[name] = str(body.get("boot_id", ""))

    def _load_points(self) -> None:
        """Without whole recovery points every log is scanned from its start: slow, but safe."""
        body = checkpoint.load_dispensable(self._disk, self._path(POINTS_FILE))
        for name, (topic_id, boot_id, offset, high_watermark, generation, epochs) in body.get("logs", {}).items():
            point = RecoveryPoint(offset, high_watermark, generation, tuple((epoch, start) for epoch, start in epochs))
            self._saved_points[name] = _Point(topic_id, boot_id, point)
        deleted, here = self._trash.stems(), self._directories()
        for name, known in self._saved_points.items():
            was_deleted = name not in here and trash.stem(name) in deleted
            if not was_deleted:  # or it would be missed, and spoken of again
                self._points[name] = known

    def _judge_last_process(self) -> bool:
        marker = checkpoint.load_dispensable(self._disk, self._path(CLEAN_FILE))
        running = checkpoint.load_dispensable(self._disk, self._path(RUNNING_FILE))
        same_boot = self._boot_id != "" and running.get("boot_id") == self._boot_id and not self._is_doubted()
        self.last_broker_epoch = int(marker.get("broker_epoch", -1))
        self.was_clean = bool(marker) or (same_boot and running.get("vouched") is True)
        self.was_clean = self.was_clean and not self._gone()
        self._vouched = self.was_clean
        if not same_boot:
            self._forget_boot()
        self._start_number = int(running.get("start", 0)) + 1
        self._save_running(self.was_clean)  # with no room for that, the marker is still there at the next start
        checkpoint.remove(self._disk, self._path(CLEAN_FILE))
        return self.was_clean

    def _forget_boot(self) -> None:
        """Let no recovery point of this boot vouch for what was written after it; durable before ``running`` is."""
        for key, topic_id in self._topic_ids.items():
            name = _directory_name(*key)
            known = self._point(name, topic_id)
            if known.boot_id == self._boot_id:
                self._points[name] = known._replace(boot_id="")
        self._save_points()

    def _point(self, name: str, topic_id: str) -> _Point:
        known = self._points.get(name)
        if known is None or known.topic_id != topic_id:
            return _Point(topic_id, self._made_in[name], NOTHING_KNOWN)
        return known

    def _gone(self) -> list[str]:
        """Logs that held records at the last checkpoint and have no directory now, neither here nor in the trash."""
        here = self._directories()
        return [name for name, known in self._points.items() if known.point.offset > 0 and name not in here]

    def _directories(self) -> set[str]:
        return {_directory_name(*key) for key in self._topic_ids}

    def _save_running(self, vouched: bool) -> None:
        body = {"boot_id": self._boot_id, "vouched": vouched, "start": self._start_number}
        checkpoint.save(self._disk, self._path(RUNNING_FILE), body, keep_previous=False)

    def registered(self) -> None:
        """The controller has accepted the registration and knows whether the start was clean."""
        if not self._vouched:
            self._save_running(vouched=True)
            self._vouched = True

    def distrust(self) -> None:
        """After a failed write or sync: the next start must not rely on the page cache. Never raises."""
        path = self._path(RUNNING_FILE)
        with suppress(Exception):
            running = checkpoint.read_file(self._disk, path) or b""
            try:
                self._disk.remove(path)
            except StorageFailed:
                self._disk.mkdir(self._doubt_path(running))

    def _doubt_path(self, running: bytes) -> str:
        """Of the mark that this content of ``running`` is not to be trusted.

        A directory, because making one follows no link that somebody else has put in its place. It stays until the
        machine restarts, and means nothing any more when the next start has written another ``running``.
        """
        return f"{_VOLATILE_DIR}/minilog-{self._boot_id}-{crc32c(running, crc32c(self.data_dir.encode())):08x}"

    def _is_doubted(self) -> bool:
        running = checkpoint.read_file(self._disk, self._path(RUNNING_FILE)) or b""
        try:
            self._disk.list(self._doubt_path(running))
        except FileNotFoundError:
            return False
        except StorageFailed:
            pass  # somebody has put something else there
        return True

    def recover(self, ask: Callable[[], None]) -> None:
        """Check every log there is, so that ``open`` finds it done. For a thread, between ``start`` and the first ``open``.

        ``ask`` is called between logs and segments; what it raises ends the recovery, and the next start does it again.
        A log that cannot be opened is left to ``open``, whose caller can say what it means. Raises StorageFailed.
        """
        for at, (key, topic_id) in enumerate(list(self._topic_ids.items())):
            self.checked = Checked(at, len(self._topic_ids))
            ask()
            with suppress(CorruptRange, DiskFull):
                self._recovered[key] = self._open_log(_directory_name(*key), topic_id, TopicSettings(), ask=ask)
        self.checked = Checked(len(self._topic_ids), len(self._topic_ids))
        with suppress(DiskFull):  # the next checkpoint says it, too
            self._vouch_for_recovered()

    def _vouch_for_recovered(self) -> None:
        """All of these logs is durable in this boot, so of what is written from here on no power cut explains damage."""
        for key, log in self._recovered.items():
            if not log.is_damaged:
                self._points[log.name] = _Point(self._topic_ids[key], self._boot_id, log.recovery_point())
        self._save_points()

    def close_cleanly(self, broker_epoch: int) -> None:
        """Make everything durable, write the checkpoints, and last of all the marker; then release the directory.

        No marker while the controller has not been told of an unclean start: the next start is unclean still.
        """
        for topic, partition in list(self._logs):
            self.close(topic, partition)
        self._save_points()
        if self._vouched:
            marker = {"broker_epoch": broker_epoch}
            checkpoint.save(self._disk, self._path(CLEAN_FILE), marker, keep_previous=False)
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
        return self._meta.cluster_id

    def bind_cluster(self, cluster_id: str) -> None:
        """Raises RefusesToStart when the directory belongs to another cluster."""
        assert cluster_id
        meta.check_cluster(self._meta, cluster_id, self.data_dir)
        if self._meta.cluster_id != cluster_id:
            changed = msgspec.structs.replace(self._meta, cluster_id=cluster_id)
            meta.save(self._disk, self._path(meta.META_FILE), changed)
            self._meta = changed  # what is not saved is not remembered either: on a full disk the caller comes again

    @property
    def controller_epoch(self) -> int:
        return self._controller_epoch

    def save_controller_epoch(self, epoch: int) -> None:
        """Works on a full disk, too: what a broker cannot note it must not obey."""
        assert epoch >= self._controller_epoch, "a controller epoch never goes back (R25)"
        if epoch != self._controller_epoch:
            meta.save_epoch(self._disk, self._path(meta.META_FILE), epoch)
            self._controller_epoch = epoch

    # ---- logs

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> PartitionLog:
        """As in ``LogStore``; opening an open log of the same topic id gives that log.

        Raises DiskFull, StorageFailed, NameRefused, or CorruptRange when the log cannot be made sense of.
        """
        assert self._lock is not None, "start the store first"
        name = _directory_name(topic, partition)
        assert topic_id
        key = (topic, partition)
        if self._topic_ids.get(key) == topic_id and key in self._logs:
            return self._logs[key]
        if key in self._topic_ids and self._topic_ids[key] != topic_id:
            self._move_to_trash(topic, partition)
        unsynced: tuple[str, ...] = ()
        if key not in self._topic_ids:
            self._points.pop(name, None)  # of a directory that was moved away: it says nothing about this new log
            self._make(name, StoredPartition(topic, topic_id, partition))
            self._topic_ids[key] = topic_id
            self._made_in[name] = self._boot_id
            unsynced = (self._path(name), self.data_dir)
        log = self._recovered.pop(key, None)
        if log is None:
            log = self._open_log(name, topic_id, settings, unsynced=unsynced)
        else:
            adopt(log, settings)
        self._logs[key] = log
        return log

    def _make(self, name: str, stored: StoredPartition) -> None:
        """Raises NameRefused, and tells the operator, but only once: it will be tried again and again."""
        try:
            self._make_directory(name, stored)
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
        place = LogPlace(self._disk, self._path(name), name, self._quarantine, unsynced, ask)
        return open_log(place, settings, known.point, power_loss)

    def _make_directory(self, name: str, stored: StoredPartition) -> None:
        """Make the directory complete under another name, so that it never exists by halves.

        Only the content is synced: the directory becomes durable with the first records in it.
        """
        path = self._path(_NEW_DIRECTORY)
        self._remove_directory(path)
        self._disk.mkdir(path)
        body = stored._asdict() | {"boot_id": self._boot_id}
        checkpoint.write_synced(self._disk, f"{path}/{PARTITION_FILE}", checkpoint.encode(body))
        self._disk.rename(path, self._path(name))

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
        """Make the log durable and release it; nothing when it is not open."""
        log = self._logs.pop((topic, partition), None)
        if log is not None:
            self._points[log.name] = _Point(self._topic_ids[topic, partition], self._boot_id, log.close())

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        if self._topic_ids.get((topic, partition)) == topic_id:
            self._move_to_trash(topic, partition)

    def _move_to_trash(self, topic: str, partition: int) -> None:
        """Raises DiskFull, and then the partition stays where it is, open if it was."""
        name = _directory_name(topic, partition)
        self._trash.take(self._path(name), name)
        for opened in (self._logs, self._recovered):
            log = opened.pop((topic, partition), None)
            if log is not None:
                log.abandon()
        del self._topic_ids[topic, partition]
        self._points.pop(name, None)
        self._trash.sync()
        self._disk.fsync_dir(self.data_dir)

    def purge_trash(self, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Remove for good what is in the trash; returns the bytes freed. ``is_stopped`` is asked between files. Of a log
        that the saved recovery points speak of the name stays until the next checkpoint: there may be no room for that one
        before the records have gone."""
        spoken_of = {(trash.stem(name), known.topic_id) for name, known in self._saved_points.items()}
        return self._trash.purge(spoken_of, is_stopped)

    def _remove_directory(self, path: str) -> None:
        """Remove a directory of files, if it exists."""
        try:
            names = self._disk.list(path)
        except FileNotFoundError:
            return
        for name in names:
            self._disk.remove(f"{path}/{name}")
        self._disk.remove(path)

    # ---- checkpoints

    def checkpoint(self) -> None:
        """Note durable ends and high watermarks of all open logs, so that a restart scans little.

        Raises DiskFull: the old checkpoint stays good.
        """
        for key, log in self._logs.items():
            self._points[log.name] = _Point(self._topic_ids[key], self._boot_id, log.checkpoint())
        self._save_points()

    def _save_points(self) -> None:
        if self._points == self._saved_points:
            return
        logs = {name: (known.topic_id, known.boot_id, *known.point) for name, known in sorted(self._points.items())}
        checkpoint.save(self._disk, self._path(POINTS_FILE), {"logs": logs})
        self._saved_points = dict(self._points)


def _directory_name(topic: str, partition: int) -> str:
    assert _TOPIC.fullmatch(topic), f"{topic!r} is no topic name"
    assert topic not in (".", "..")
    assert 0 <= partition < 2**31
    return f"{topic}-{partition}"
