"""``meta.json``: whose data directory this is. ``controller-epoch``: the highest controller epoch
it has obeyed (R25).

Owns: both files and every reason why a directory must not be used. Each refusal is one sentence
that says what is wrong, what was seen and what to do. Nothing here is ever repaired by guessing.

The epoch has a file of fixed size (slots.py), because a broker with a full disk must obey a new
controller. In format 1 the epoch was a part of ``meta.json``. A start in such a directory makes the
file, and then says format 2, so that a version that knows no such file does not go by what
``meta.json`` said once.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from minilog.errors import RefusesToStart
from minilog.storage import checkpoint, slots
from minilog.storage.disk import Disk

FORMAT = 2
EPOCH_IN_META_FORMAT = 1
META_FILE = "meta.json"
EPOCH_FILE = "controller-epoch"
PARTITION_FILE = "partition.json"
"""In the directory of each partition: whose it is."""


class Meta(msgspec.Struct, kw_only=True):
    broker_id: int
    cluster_id: str = ""
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
    """Make the files of a new directory: ``meta.json`` last, because it says that the other one is
    there."""
    slots.create(disk, _epoch_path(path), 0)
    save(disk, path, meta)


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
