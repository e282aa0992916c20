"""``metadata``: the copy of the metadata in a broker's data directory (R37, R38).

Owns: the file. A broker begins anew without it, so a damaged one is no reason to refuse: the
generation before counts, or none.
"""

from __future__ import annotations

import logging

import msgspec

from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.wire.journal.metadata_copy import MetadataCopy

METADATA_FILE = "metadata"
_logger = logging.getLogger("minilog.storage")


class MetadataFile:
    def __init__(self, disk: Disk, path: str) -> None:
        self.saved = MetadataCopy()
        self._disk, self._path = disk, path

    def load(self, cluster_id: str) -> None:
        """``cluster_id``: whose data directory this is, "" for nobody's yet. A copy of another
        cluster's metadata says nothing of the logs here, and nothing of the journal followed."""
        body = checkpoint.load_dispensable(self._disk, self._path)
        try:
            found = msgspec.convert(body, MetadataCopy)
        except msgspec.ValidationError as error:
            _logger.warning("%s cannot be read (%s): this broker learns its metadata anew", self._path, error)
            return
        if found.cluster_id == cluster_id:
            self.saved = found
        elif found.cluster_id:
            _logger.warning(
                "%s is of cluster %s, and this directory of %s: this broker learns its metadata anew",
                self._path,
                found.cluster_id,
                cluster_id or "none yet",
            )

    def save(self, copy: MetadataCopy) -> None:
        """Raises DiskFull: the old copy stays good."""
        checkpoint.save(self._disk, self._path, copy)
        self.saved = copy
