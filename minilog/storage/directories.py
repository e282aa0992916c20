"""The directories of partitions: their names, what there is, and how one is made.

Owns: ``partition.json`` in each, which says whose the log beside it is and in which boot it was
made.

Invariants: a directory appears complete, by one rename. No file or directory in it has a longer
name than it has itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from minilog.errors import CorruptRange, RefusesToStart
from minilog.storage import checkpoint
from minilog.storage.disk import Disk

PARTITION_FILE = "partition.json"
"""In the directory of each partition: whose it is."""
_NEW_DIRECTORY = "partition.new"
"""One is made at a time. No partition has this name: theirs end in a number."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_DIRECTORY = re.compile(r"([A-Za-z0-9._-]{1,249})-(0|[1-9][0-9]{0,9})")
_UNFINISHED = re.compile(rf"(partition|{_DIRECTORY.pattern})\.new")
"""Older versions made each under a name of its own."""


class StoredPartition(NamedTuple):
    topic: str
    topic_id: str
    partition: int


def directory_name(topic: str, partition: int) -> str:
    assert _TOPIC.fullmatch(topic), f"{topic!r} is no topic name"
    assert topic not in (".", "..")
    assert 0 <= partition < 2**31
    return f"{topic}-{partition}"


def any_directory(disk: Disk, data_dir: str) -> str | None:
    """The name of one partition's directory; None when there is none."""
    return next((name for name in disk.list(data_dir) if _DIRECTORY.fullmatch(name)), None)


def find(disk: Disk, data_dir: str) -> Iterator[tuple[StoredPartition, str]]:
    """Every partition there is, with the boot its directory was made in. What was never finished is
    removed.

    Raises RefusesToStart for one that does not say whose it is."""
    for name in disk.list(data_dir):
        if _UNFINISHED.fullmatch(name):
            remove(disk, f"{data_dir}/{name}")
            continue
        match = _DIRECTORY.fullmatch(name)
        if match is None:
            continue
        if not disk.list(f"{data_dir}/{name}"):  # a power cut left the name only: nothing in it was ever durable
            remove(disk, f"{data_dir}/{name}")
            continue
        path = f"{data_dir}/{name}/{PARTITION_FILE}"
        try:
            body = checkpoint.load(disk, path).body
        except CorruptRange:
            body = None
        if body is None or body.get("topic") != match[1] or body.get("partition") != int(match[2]):
            raise RefusesToStart(
                f"{path} is missing or damaged, so it is not known which topic the log beside it belongs to: "
                f"restore it from a backup, or move the directory {name} away to have it copied from its leader"
            )
        yield StoredPartition(match[1], str(body["topic_id"]), int(match[2])), str(body.get("boot_id", ""))


def make(disk: Disk, data_dir: str, stored: StoredPartition, boot_id: str) -> None:
    """Make the directory complete under another name, so that it never exists by halves.

    Only the content is synced: the directory becomes durable with the first records in it.
    """
    path = f"{data_dir}/{_NEW_DIRECTORY}"
    remove(disk, path)
    disk.mkdir(path)
    body = stored._asdict() | {"boot_id": boot_id}
    checkpoint.write_synced(disk, f"{path}/{PARTITION_FILE}", checkpoint.encode(body))
    disk.rename(path, f"{data_dir}/{directory_name(stored.topic, stored.partition)}")


def remove(disk: Disk, path: str) -> None:
    """Remove a directory of files, if it exists; somebody else may be removing the files as
    well."""
    try:
        names = disk.list(path)
    except FileNotFoundError:
        return
    for name in [*(f"{path}/{name}" for name in names), path]:
        with suppress(FileNotFoundError):
            disk.remove(name)
