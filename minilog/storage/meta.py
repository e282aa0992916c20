"""``meta.json``: whose data directory this is, and which. ``controller-epoch``: the highest
controller epoch it has obeyed (R25). ``broker-epoch``: the last broker epoch it was used under
(R36).

Owns: these files and every reason why a directory must not be used. Each refusal is one sentence
that says what is wrong, what was seen and what to do. Nothing here is ever repaired by guessing. A
broker epoch that cannot be read is no such reason: the directory is used as one that nobody knows
to be complete.

The epochs have files of fixed size (slots.py), because a broker with a full disk must obey a new
controller, and register again. In format 1 the epoch was a part of ``meta.json``. A start in such a
directory makes the file, and then says format 2, so that a version that knows no such file does not
go by what ``meta.json`` said once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from minilog.errors import RefusesToStart
from minilog.storage import checkpoint, slots
from minilog.storage.directories import any_directory
from minilog.storage.disk import Disk

FORMAT = 2
EPOCH_IN_META_FORMAT = 1
META_FILE = "meta.json"
EPOCH_FILE = "controller-epoch"
BROKER_EPOCH_FILE = "broker-epoch"
NO_EPOCH = 0
"""Of a directory that no broker was ever registered with."""

_logger = logging.getLogger("minilog.storage")


class Meta(msgspec.Struct, kw_only=True):
    broker_id: int
    cluster_id: str = ""
    directory_id: str = ""
    """Made with the directory, never changed, and "" in one that an older version has made."""
    format: int = FORMAT


class _Format1(Meta, kw_only=True):
    controller_epoch: int = 0


def load(disk: Disk, path: str, broker_id: int) -> Meta | None:
    """The meta file at ``path``, for this broker; None when there is none yet. Raises
    RefusesToStart, and DiskFull when there is no room to bring an older format up to date."""
    body, damaged = checkpoint.load(disk, path)
    if damaged:
        raise RefusesToStart(
            f"{path} is damaged (its checksum does not match): restore it from a backup, or check "
            f"{path}{checkpoint.PREVIOUS} and copy it over, or start with an empty data directory"
        )
    if body is None:
        if checkpoint.read_file(disk, path + checkpoint.PREVIOUS) is not None:
            raise RefusesToStart(
                f"{path} is missing and {path}{checkpoint.PREVIOUS} is damaged: restore it from a backup"
            )
        return None
    if body.get("format") not in (EPOCH_IN_META_FORMAT, FORMAT):
        raise RefusesToStart(
            f"{path} says data format {body.get('format')!r}, this version of minilog reads format {FORMAT}: "
            "start the version that wrote it"
        )
    try:
        meta = msgspec.convert(body, _Format1 if body["format"] == EPOCH_IN_META_FORMAT else Meta)
    except msgspec.ValidationError as error:
        raise RefusesToStart(f"{path} cannot be read ({error}): restore it from a backup") from None
    if meta.broker_id != broker_id:
        raise RefusesToStart(
            f"{path} belongs to broker {meta.broker_id}, this is broker {broker_id}: "
            "correct broker_id or data_dir in the configuration"
        )
    return _upgraded(disk, path, meta) if isinstance(meta, _Format1) else meta


def _upgraded(disk: Disk, path: str, old: _Format1) -> Meta:
    """An epoch file may be there: of an upgrade that was interrupted, or ``meta.json`` is a copy
    from before."""
    epoch_path = _epoch_path(path)
    noted = 0
    with suppress(FileNotFoundError):
        noted = slots.load(disk, epoch_path) or 0
    slots.create(disk, epoch_path, max(noted, old.controller_epoch))
    meta = Meta(broker_id=old.broker_id, cluster_id=old.cluster_id)
    save(disk, path, meta)
    return meta


def _epoch_path(path: str) -> str:
    return f"{os.path.dirname(path)}/{EPOCH_FILE}"


def begin(disk: Disk, path: str, meta: Meta) -> None:
    """Make the files of a new directory: ``meta.json`` last, because it says that the others are
    there."""
    slots.create(disk, _epoch_path(path), 0)
    identify(disk, path, meta)


def identify(disk: Disk, path: str, meta: Meta) -> None:
    """``meta`` names the directory from now on: no broker epoch is known of it under that id.

    Raises DiskFull."""
    assert meta.directory_id
    slots.create(disk, _broker_epoch_path(path), NO_EPOCH)
    save(disk, path, meta)


def load_broker_epoch(disk: Disk, path: str) -> int:
    """The last broker epoch noted beside the meta file at ``path``. NO_EPOCH when that cannot be
    read: then nobody takes the directory for complete."""
    epoch_path = _broker_epoch_path(path)
    epoch = None
    with suppress(FileNotFoundError):
        epoch = slots.load(disk, epoch_path)
    if epoch is None:
        _logger.error(
            "%s cannot be read: the replicas here count as incomplete until they have caught up with their leaders",
            epoch_path,
        )
        slots.create(disk, epoch_path, NO_EPOCH)
        return NO_EPOCH
    return epoch


def save_broker_epoch(disk: Disk, path: str, epoch: int) -> None:
    """As ``save_epoch``."""
    slots.save(disk, _broker_epoch_path(path), epoch)


def _broker_epoch_path(path: str) -> str:
    return f"{os.path.dirname(path)}/{BROKER_EPOCH_FILE}"


def load_epoch(disk: Disk, path: str) -> int:
    """The controller epoch beside the meta file at ``path``. Raises RefusesToStart."""
    epoch_path = _epoch_path(path)
    try:
        epoch = slots.load(disk, epoch_path)
        wrong = "is damaged (neither copy in it is whole)"
    except FileNotFoundError:
        epoch, wrong = None, "is missing"
    if epoch is None:
        raise RefusesToStart(
            f"{epoch_path} {wrong}, so it is not known which controller this broker has obeyed: "
            "restore it from a backup, or start with an empty data directory"
        )
    return epoch


def save_epoch(disk: Disk, path: str, epoch: int) -> None:
    """Durable on return, also when the disk is full. Raises StorageFailed, or DiskFull as
    ``slots.save`` does."""
    slots.save(disk, _epoch_path(path), epoch)


def save(disk: Disk, path: str, meta: Meta) -> None:
    checkpoint.save(disk, path, msgspec.to_builtins(meta))


def check_cluster(meta: Meta, cluster_id: str, path: str) -> None:
    """Raises RefusesToStart when the directory is bound to another cluster."""
    if meta.cluster_id not in ("", cluster_id):
        raise RefusesToStart(
            f"{path} belongs to cluster {meta.cluster_id!r}, the controller leads cluster {cluster_id!r}: "
            "correct controller_url or data_dir in the configuration"
        )


def peek_epochs(disk: Disk, path: str) -> tuple[int, int]:
    """(broker epoch, controller epoch) noted beside the meta file at ``path``, nothing changed; 0
    for what is not there."""
    epochs = []
    for epoch_path in (_broker_epoch_path(path), _epoch_path(path)):
        try:
            epochs.append(slots.peek(disk, epoch_path) or 0)
        except FileNotFoundError:
            epochs.append(0)
    return epochs[0], epochs[1]


class Identity:
    """What one directory says of itself. Every attribute is durable, or was never anything but its
    default."""

    def __init__(self, disk: Disk, data_dir: str, broker_id: int, make_id: Callable[[], str]) -> None:
        self.controller_epoch = 0
        """The highest one that was obeyed here (R25)."""
        self.broker_epoch = NO_EPOCH
        """The last one that was noted here (R36)."""
        self._disk, self._data_dir, self._path = disk, data_dir, f"{data_dir}/{META_FILE}"
        self._make_id = make_id
        self._meta = Meta(broker_id=broker_id)

    @property
    def cluster_id(self) -> str:
        """ "" before the first registration."""
        return self._meta.cluster_id

    @property
    def directory_id(self) -> str:
        return self._meta.directory_id

    def load(self) -> None:
        """Read the files, or make those of a new directory. Raises RefusesToStart, DiskFull."""
        found = load(self._disk, self._path, self._meta.broker_id)
        if found is None:
            self._begin()
        else:
            self._meta = found
            self.controller_epoch = load_epoch(self._disk, self._path)
            if not found.directory_id:
                self._meta = replace(found, directory_id=self._make_id())
                identify(self._disk, self._path, self._meta)
            self.broker_epoch = load_broker_epoch(self._disk, self._path)

    def _begin(self) -> None:
        name = any_directory(self._disk, self._data_dir)
        if name is not None:
            raise RefusesToStart(
                f"{self._path} is missing although {self._data_dir} holds partitions ({name}, ...): "
                "restore it from a backup, or start with an empty data directory"
            )
        self._meta = replace(self._meta, directory_id=self._make_id())
        begin(self._disk, self._path, self._meta)
        self._disk.fsync_dir(os.path.dirname(self._data_dir))

    def bind_cluster(self, cluster_id: str) -> None:
        """What is not saved is not remembered either: on a full disk the caller comes again. Raises
        RefusesToStart when the directory belongs to another cluster, DiskFull."""
        assert cluster_id
        check_cluster(self._meta, cluster_id, self._data_dir)
        if self._meta.cluster_id != cluster_id:
            changed = replace(self._meta, cluster_id=cluster_id)
            save(self._disk, self._path, changed)
            self._meta = changed

    def save_controller_epoch(self, epoch: int) -> None:
        """Works on a full disk, too: what a broker cannot note it must not obey."""
        assert epoch >= self.controller_epoch, "a controller epoch never goes back (R25)"
        if epoch != self.controller_epoch:
            save_epoch(self._disk, self._path, epoch)
            self.controller_epoch = epoch

    def save_broker_epoch(self, epoch: int) -> None:
        """Works on a full disk, too: a broker epoch that is not noted is not used."""
        if epoch != self.broker_epoch:
            save_broker_epoch(self._disk, self._path, epoch)
            self.broker_epoch = epoch
