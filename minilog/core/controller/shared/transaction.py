"""What is asked of etcd: one atomic transaction, and its answer.

A key's *mod* is the revision that last wrote it, 0 when it is not there. Revisions grow with each
transaction that writes, and are never given again. So a mod names one write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

OPERATIONS_MAX: Final = 128
"""etcd refuses a transaction with more (``--max-txn-ops``)."""
REQUEST_BYTES_MAX: Final = 1536 * 1024
"""etcd refuses a larger request (``--max-request-bytes``)."""
OVERHEAD_BYTES: Final = 256
"""Of an operation, beside its key and its value."""


class Compare(NamedTuple):
    key: str
    mod: int


class Put(NamedTuple):
    """``is_leased``: it goes when the lease of its writer is over."""

    key: str
    value: bytes
    is_leased: bool = False


class Delete(NamedTuple):
    """``end`` is exclusive. "": that key alone."""

    key: str
    end: str = ""


class Get(NamedTuple):
    """The first ``limit`` keys in order, 0 for all. ``keys_only``: without their values."""

    key: str
    end: str = ""
    limit: int = 0
    keys_only: bool = False


Operation = Put | Delete | Get


class Transaction(NamedTuple):
    """All of ``then`` when every comparison holds, else all of ``otherwise``."""

    compares: tuple[Compare, ...]
    then: tuple[Operation, ...]
    otherwise: tuple[Operation, ...] = ()

    @property
    def is_within_limits(self) -> bool:
        size = sum(len(op.key) + len(op.value) + OVERHEAD_BYTES for op in self.then if isinstance(op, Put))
        return size <= REQUEST_BYTES_MAX and max(len(self.then), len(self.compares)) <= OPERATIONS_MAX


class Entry(NamedTuple):
    key: str
    value: bytes
    mod: int


class Answer(NamedTuple):
    """``found``: for each Get of the branch that was carried out, what it found."""

    succeeded: bool
    revision: int
    found: Sequence[Sequence[Entry]] = ()

    def only(self, at: int) -> Entry | None:
        """What the Get of one key found."""
        return self.found[at][0] if self.found[at] else None


class Unsure(Exception):
    """The transaction may have been carried out, or may be yet."""


class NotSent(Exception):
    """It was not carried out. It may be asked again."""


class Refused(Exception):
    """It was not carried out, and asking again does not help."""
