"""Lost tails: what lies in the quarantine of a data directory, and what became of it.

Owns: the ``.replay.json`` beside a tail, which says how far it was written again, and the removal
of tails. The tails themselves are written in quarantine.py, and never change.

A tail is named ``orders-0:3-100-250``: its partition, the leader epoch it begins in, its first
offset and its end. Works beside a broker that cuts meanwhile, and in any thread: a tail is there
once its JSON is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from minilog.errors import CorruptRange, StorageFailed, UnknownRoute
from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.storage.log.quarantine import CutTail, Piece, readable
from minilog.storage.segment.scan import LogBytes
from minilog.wire.batch import Batch
from minilog.wire.http import TAIL_PATTERN
from minilog.wire.journal.metadata_records import LostClaimed

_NAME = re.compile(TAIL_PATTERN)
_JSON = ".json"
_REPLAY = ".replay.json"


class Replay(msgspec.Struct, frozen=True):
    """How far a tail was written again: ``runs`` of it (leader epoch, base offset, end offset), as
    claimed, and where to. ``next_offset``: all records before that offset of the tail have been,
    ``position`` and ``base_offset`` are where its batch begins. ``pending_end``: those up to there
    were on their way when this was noted, as one batch of at most ``batch_bytes_max`` that begins
    with ``sequence``, and whose records have the checksum ``pending_crc``."""

    cut_at_ms: int
    """Of the tail: a note of one that had its name before says nothing of it."""
    runs: list[tuple[int, int, int]]
    into: str
    into_topic_id: str
    into_partition: int
    producer_id: int
    next_offset: int
    position: int = 0
    base_offset: int = -1
    sequence: int = 0
    pending_end: int = -1
    pending_crc: int = -1
    batch_bytes_max: int = 0
    records: int = 0
    skipped: int = 0
    """Records that cannot be read, or that no batch of the topic has room for."""
    first_written: int = -1
    end_written: int = -1
    finished_at_ms: int = -1
    left: list[tuple[int, int, int]] = []
    """Runs of the tail that another copy had claimed."""
    claims: int = 0
    """How often more of it was claimed, because another copy was given up."""
    records_before: int = 0
    """What was written by the claims before."""


class LostTail(NamedTuple):
    """``replay`` is None until it is written again. ``is_sure``: what is noted of that can be read.
    ``left_open``: so many records are left to copies of others that are not written yet."""

    name: str
    cut: CutTail
    replay: Replay | None = None
    is_sure: bool = True
    left_open: int = 0

    @property
    def is_written(self) -> bool:
        return self.replay is not None and self.replay.finished_at_ms >= 0 and not self.left_open

    @property
    def unwritten(self) -> int:
        """So many records would go for good with this tail: neither written again, nor left to
        another copy that is."""
        if self.replay is None:
            return self.cut.records
        claimed = sum(end - base for _, base, end in self.replay.runs)
        return max(0, min(self.cut.records, claimed) - self.replay.records) + self.left_open

    @property
    def partition(self) -> tuple[str, int]:
        topic, _, number = self.cut.partition.rpartition("-")
        return topic, int(number)


def left_open(tail: LostTail, open_claims: Iterable[LostClaimed]) -> int:
    """How much of ``tail`` was left to others and is claimed by one of these, not yet written."""
    topic, partition = tail.partition
    left = () if tail.replay is None else tail.replay.left
    count = sum(
        max(0, min(end, claimed_end) - max(base, claimed_base))
        for claim in open_claims
        if (claim.topic, claim.partition) == (topic, partition)
        and (claim.topic_id == tail.cut.topic_id or "" in (claim.topic_id, tail.cut.topic_id))
        for claimed_epoch, claimed_base, claimed_end in claim.runs
        for epoch, base, end in left
        if epoch == claimed_epoch
    )
    return min(count, tail.cut.records)


class Kept(NamedTuple):
    """As of the last look. ``unwritten``: records that were not written again."""

    tails: int = 0
    bytes: int = 0
    unwritten: int = 0


class LostTails:
    def __init__(self, disk: Disk, data_dir: str) -> None:
        self.kept = Kept()
        self.directory_id = ""
        """Which data directory this is."""
        self.records_dropped = {"size": 0, "age": 0}
        """By ``prune``, in this process."""
        self._disk = disk
        self._directory = f"{data_dir}/quarantine"
        self._in_hand: dict[str, object] = {}
        """Tails that somebody works on."""
        self._place = ("", 0, 0)
        """Name, offset and position of the batch where the last reader has ended."""

    def all(self) -> list[LostTail]:
        """The oldest cut first. What cannot be read is left out: it is damaged, or half a copy."""
        found = [tail for name in self._names() if (tail := self._load(name)) is not None]
        return sorted(found, key=lambda tail: (tail.cut.cut_at_ms, tail.name))

    def get(self, name: str) -> LostTail:
        """Raises UnknownRoute."""
        tail = self._load(name) if _NAME.fullmatch(name) else None
        if tail is None:
            raise UnknownRoute(
                f"this broker keeps no lost records named {name[:300]!r}; GET /v1/lost lists what it keeps"
            )
        return tail

    def batches(self, name: str, position: int = 0, base_offset: int = -1) -> Iterator[tuple[int, Batch]]:
        """(position, whole batch) from the batch on that begins there, else from the first one on,
        stepping over what is damaged. Raises UnknownRoute."""
        cut = self.get(name).cut
        path = self._path(name) + ".log"
        try:
            handle = self._disk.open(path)
        except (FileNotFoundError, StorageFailed):
            raise UnknownRoute(
                f"the records of {name} are told of, but {path} is not there or may not be read"
            ) from None
        try:
            log = LogBytes(self._disk, handle, self._disk.size(path))
            start = (position, base_offset) if base_offset >= 0 else (0, cut.base_offset)
            for _, found in readable([Piece(log, *start)]):
                data = log.pread(found.position, found.batch.bytes_total)
                yield found.position, found.batch._replace(buffers=(data,))
        finally:
            self._disk.close(handle)

    def batches_from(self, name: str, offset: int) -> Iterator[Batch]:
        """Those that end behind ``offset``. Who reads on is not led through all of it again."""
        known, base_offset, position = self._place
        start = (position, base_offset) if known == name and base_offset <= offset else (0, -1)
        for found, batch in self.batches(name, *start):
            if batch.end_offset > offset:
                self._place = (name, batch.base_offset, found)
                yield batch

    def take_in_hand(self, name: str) -> bool:
        """False when somebody has it, in whatever thread. Whether there is such a tail is to be
        looked at after this: it may have just gone."""
        mine = object()
        return self._in_hand.setdefault(name, mine) is mine

    def let_go(self, name: str) -> None:
        del self._in_hand[name]

    def note_replay(self, name: str, replay: Replay) -> None:
        """Durable on return. Raises DiskFull or StorageFailed."""
        checkpoint.save(self._disk, self._path(name) + _REPLAY, replay, keep_previous=False)

    def remove(self, name: str) -> CutTail:
        """For good, durably. Raises UnknownRoute."""
        cut = self.get(name).cut
        path = self._path(name)
        for suffix in (_JSON, ".log", _REPLAY):  # without its JSON a tail is none
            with suppress(FileNotFoundError):
                self._disk.remove(path + suffix)
        self._disk.fsync_dir(path.rpartition("/")[0])
        self._place = ("", 0, 0)  # a later tail may get its name
        return cut

    def prune(self, bytes_max: int, cut_before_ms: int, open_claims: Sequence[LostClaimed] = ()) -> list[LostTail]:
        """Remove what was cut before that time, and, where all together are larger than
        ``bytes_max`` (-1: no bound), the oldest, those first that were written again. The newest
        stays however large it is, and so do those in hand. What is left to one of ``open_claims``
        is not written. Returns what went."""
        found = [tail._replace(left_open=left_open(tail, open_claims)) for tail in self.all()]
        old = [tail for tail in found if tail.cut.cut_at_ms < cut_before_ms]
        rest = [tail for tail in found if tail not in old]
        total = sum(tail.cut.bytes for tail in rest)
        for tail in sorted(rest[:-1], key=lambda tail: not tail.is_written):
            if total <= bytes_max or bytes_max < 0:
                break
            if self._drop(tail, "size"):
                total -= tail.cut.bytes
                rest.remove(tail)
        rest += [tail for tail in old if not self._drop(tail, "age")]
        unwritten = sum(_kept_unwritten(tail) for tail in rest)
        self.kept = Kept(len(rest), sum(tail.cut.bytes for tail in rest), unwritten)
        return [tail for tail in found if tail not in rest]

    def _drop(self, tail: LostTail, cause: str) -> bool:
        """Whether it went by this. Somebody may have taken it in hand, or removed it, since."""
        if not self.take_in_hand(tail.name):
            return False
        try:
            self.remove(tail.name)
        except UnknownRoute:
            return False
        finally:
            self.let_go(tail.name)
        self.records_dropped[cause] += tail.unwritten
        return True

    def _names(self) -> Iterator[str]:
        for partition in self._list(self._directory):
            for file in self._list(f"{self._directory}/{partition}"):
                stem = file.removesuffix(_JSON)
                if stem != file and _NAME.fullmatch(f"{partition}:{stem}"):
                    yield f"{partition}:{stem}"

    def _list(self, directory: str) -> list[str]:
        """What people put there besides is no reason to stop: a file where a folder should be, or
        one that may not be read."""
        try:
            return list(self._disk.list(directory))
        except (FileNotFoundError, NotADirectoryError, StorageFailed):
            return []

    def _load(self, name: str) -> LostTail | None:
        path = self._path(name)
        try:
            cut = msgspec.convert(checkpoint.load_dispensable(self._disk, path + _JSON), CutTail)
        except (msgspec.ValidationError, StorageFailed):
            return None
        if cut.partition != name.partition(":")[0]:  # put there by people
            return None
        try:
            noted = checkpoint.load(self._disk, path + _REPLAY)
            replay = None if noted.body is None else msgspec.convert(noted.body, Replay)
        except (msgspec.ValidationError, CorruptRange, StorageFailed):
            return LostTail(name, cut, is_sure=False)
        if replay is not None and replay.cut_at_ms != cut.cut_at_ms:
            replay = None
        return LostTail(name, cut, replay, is_sure=not noted.damaged)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name.replace(':', '/')}"


def _kept_unwritten(tail: LostTail) -> int:
    is_finished = tail.replay is not None and tail.replay.finished_at_ms >= 0
    return tail.left_open if is_finished else tail.cut.records
