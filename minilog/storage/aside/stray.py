"""Stray: directories of partitions that nobody knows (R39), kept until an operator decides.

One comes here because the cluster's metadata does not know its topic id, and nobody has seen that
topic deleted: it was copied here, or a journal was lost. Nothing here is ever removed by a broker.
When the cluster knows the topic again, the log goes back to its place.
"""

from __future__ import annotations

import logging

from minilog.storage.aside.trash import Trash, stem
from minilog.storage.disk import Disk

_logger = logging.getLogger("minilog.storage")


class Stray(Trash):
    def __init__(self, disk: Disk, path: str) -> None:
        super().__init__(disk, path)
        self.count = 0
        """Directories here, as of the last look, and put here since."""

    def look(self) -> None:
        """Count what is here, and tell the operator."""
        names = self.names()
        self.count = len(names)
        if names:
            _logger.warning(
                "%s keeps %d logs of topics that the cluster does not know: %s",
                self.path,
                len(names),
                ", ".join(sorted(names)),
            )

    def look_again(self) -> None:
        """An operator may have removed some. Costs nothing when there were none."""
        if self.count:
            self.count = len(self.names())

    def give_back(self, directory: str, name: str, topic_id: str) -> bool:
        """Move the log of that partition of that topic to ``directory``, if it is here: by one
        rename. Where there are several an operator decides. Raises DiskFull."""
        found = [kept for kept in self.names() if self._is_of(kept, stem(name), topic_id)]
        if len(found) != 1:
            if found:
                _logger.error("%s keeps several logs of %s: %s; none is put back", self.path, name, ", ".join(found))
            return False
        self._disk.rename(f"{self.path}/{found[0]}", directory)
        self.count = max(0, self.count - 1)
        _logger.warning(
            "the cluster knows the topic of %s/%s again: it is put back as %s", self.path, found[0], directory
        )
        return True

    def _is_of(self, kept: str, wanted_stem: str, topic_id: str) -> bool:
        return kept.rpartition(".")[0] == wanted_stem and self._topic_id(kept) == topic_id

    def take(self, directory: str, name: str) -> str:
        kept = super().take(directory, name)
        self.count += 1
        _logger.error(
            "the cluster does not know the topic of %s, and this broker has not seen it deleted: it is kept as %s",
            directory,
            kept,
        )
        return kept
