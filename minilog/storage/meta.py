"""``meta.json``: whose data directory this is, and the highest controller epoch it has obeyed (R25).

Owns: the file and every reason why a directory must not be used. Each refusal is one sentence that says what is wrong,
what was seen and what to do; nothing here is ever repaired by guessing.
"""

from __future__ import annotations

import msgspec

from minilog.errors import RefusesToStart
from minilog.storage import checkpoint
from minilog.storage.disk import Disk

FORMAT = 1
META_FILE = "meta.json"
PARTITION_FILE = "partition.json"
"""In the directory of each partition: whose it is."""


class Meta(msgspec.Struct, kw_only=True):
    broker_id: int
    cluster_id: str = ""
    format: int = FORMAT
    controller_epoch: int = 0


def load(disk: Disk, path: str, broker_id: int) -> Meta | None:
    """The meta file at ``path``, for this broker; None when there is none yet. Raises RefusesToStart."""
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
    if body.get("format") != FORMAT:
        raise RefusesToStart(
            f"{path} says data format {body.get('format')!r}, this version of minilog reads format {FORMAT}: "
            "start the version that wrote it"
        )
    try:
        meta = msgspec.convert(body, Meta)
    except msgspec.ValidationError as error:
        raise RefusesToStart(f"{path} cannot be read ({error}): restore it from a backup") from None
    if meta.broker_id != broker_id:
        raise RefusesToStart(
            f"{path} belongs to broker {meta.broker_id}, this is broker {broker_id}: "
            "correct broker_id or data_dir in the configuration"
        )
    return meta


def save(disk: Disk, path: str, meta: Meta) -> None:
    checkpoint.save(disk, path, msgspec.to_builtins(meta))


def check_cluster(meta: Meta, cluster_id: str, path: str) -> None:
    """Raises RefusesToStart when the directory is bound to another cluster."""
    if meta.cluster_id not in ("", cluster_id):
        raise RefusesToStart(
            f"{path} belongs to cluster {meta.cluster_id!r}, the controller leads cluster {cluster_id!r}: "
            "correct controller_url or data_dir in the configuration"
        )
