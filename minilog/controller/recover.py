"""Making the controller's journal anew from copies of the metadata that brokers hold (R38).

Nothing is written before ``write``. A journal that is there is kept beside the new one, and one
that holds all that the brokers have applied is not replaced. From the look at it to its replacement
its lock is held (R25), however long a person thinks: whoever supervises controllers starts them
again and again. The new journal is whole before the one that is there is moved away.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence

from minilog.controller.journal import FileJournal, InUse
from minilog.core.controller.journal.journal_recovery import Chosen, choose, left_out, recovered
from minilog.core.image import ClusterImage
from minilog.errors import InvalidRequest, RefusesToStart
from minilog.storage.disk import OsDisk
from minilog.wire.journal.metadata_copy import BrokerCopy


class Recovery:
    """``close`` always."""

    def __init__(self, data_dir: str, copies: Sequence[BrokerCopy]) -> None:
        """Raises InvalidRequest when the copies do not agree."""
        self.data_dir = os.path.abspath(data_dir)
        self.chosen: Chosen = choose(copies)
        self._copies = copies
        self.index, self._records = recovered(self.chosen, copies, uuid.uuid4().hex[:16])
        self.left_out = left_out(self.chosen, copies)
        """Brokers that have obeyed a part of the journal that no copy has."""
        self._here: FileJournal | None = None
        """The journal that is there, locked."""

    def close(self) -> None:
        if self._here is not None:
            self._here.close()
            self._here = None

    def journal_here(self) -> ClusterImage | str | None:
        """The journal that is in the directory: its image, why it cannot be read, or None for none.

        Raises RefusesToStart when a controller uses it. None can begin to before ``close``."""
        if not os.path.isdir(self.data_dir) or not any(
            name.startswith(("journal-", "snapshot-")) for name in self._names()
        ):
            return None
        self._here = FileJournal(self.data_dir)
        try:
            replayed = self._here.open()
        except InUse:
            raise
        except RefusesToStart as error:
            return str(error)
        image = ClusterImage()
        image.load(replayed.snapshot_index, replayed.snapshot)
        for index, record in enumerate(replayed.tail, replayed.snapshot_index + 1):
            image.apply(index, record)
        return image

    def check_needed(self, here: ClusterImage | str | None) -> None:
        """Raises InvalidRequest when the journal that is there holds all that the brokers have."""
        if not isinstance(here, ClusterImage) or here.metadata_offset == 0:
            return
        if all(here.holds(copy.metadata.term_id, copy.metadata.metadata_offset) for copy in self._copies):
            raise InvalidRequest(
                f"the journal in {self.data_dir} holds all that these brokers have applied; there is nothing to recover. "
                "Start the controller"
            )

    def write(self) -> str:
        """Write the journal; returns where the one before is kept, "" when there was none. Raises
        RefusesToStart or StorageFailed, and then leaves the one before where it was."""
        if self._here is None:
            self._make(self.data_dir)
            return ""
        made = f"{self.data_dir}.new-{uuid.uuid4().hex[:8]}"
        try:
            self._make(made)
            return self._replace_by(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # it is not there when it has found its place

    def _make(self, path: str) -> None:
        journal = FileJournal(path)
        try:
            journal.open()
            if journal.last_index:
                raise RefusesToStart(f"a controller has begun a journal in {path} meanwhile; stop it, and look again")
            journal.begin_with(self.index, self._records)
        finally:
            journal.close()

    def _replace_by(self, made: str) -> str:
        number = 1
        while os.path.exists(f"{self.data_dir}.replaced-{number}"):
            number += 1
        kept, disk = f"{self.data_dir}.replaced-{number}", OsDisk()
        disk.rename(self.data_dir, kept)
        try:
            disk.rename(made, self.data_dir)
        except BaseException:
            os.rename(kept, self.data_dir)
            raise
        disk.fsync_dir(os.path.dirname(self.data_dir))
        return kept

    def _names(self) -> list[str]:
        return os.listdir(self.data_dir)
