"""Looking into log files offline: what ``minilog log dump`` and ``minilog log verify`` show.

Owns nothing and changes nothing: files are opened for reading only, indexes are read but never
rebuilt. Works on a stopped broker's data directory and on copied or quarantined files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from minilog.errors import MinilogError, RefusesToStart
from minilog.storage import checkpoint, meta
from minilog.storage.directories import PARTITION_FILE
from minilog.storage.disk import Disk, OsDisk
from minilog.storage.log.log_state import STATE_FILE, LoadedState, load_state
from minilog.storage.metadata_copy import METADATA_FILE, MetadataFile
from minilog.storage.points import Points
from minilog.storage.recovery.recovery import still_true
from minilog.storage.segment.scan import BadBatch, Found, LogBytes, next_batch, scan
from minilog.storage.segment.segment import LOG_SUFFIX
from minilog.storage.segment.segment_index import INDEX_SUFFIX
from minilog.storage.segment.sparse_index import OffsetIndex
from minilog.storage.store import POINTS_FILE
from minilog.wire.batch import HEADER_BYTES, peek
from minilog.wire.journal.metadata_copy import BrokerCopy

_SEGMENT = re.compile(rf"(\d{{20}}){re.escape(LOG_SUFFIX)}")


class ReadOnlyDisk(OsDisk):
    """Opens files for reading only, so that another user's or a mounted copy can be looked at."""

    def open(self, path: str) -> int:
        return self._files.open(path, os.O_RDONLY)


class BatchInfo(msgspec.Struct, frozen=True):
    """One batch of a file, or, with ``problem`` set, a stretch that is none: then only position,
    bytes and base offset (the offset that belongs there) mean anything. Timestamps are ms.
    ``base_timestamp`` is the first record's, -1 when the header does not say it, and
    ``delete_horizon_ms`` when tombstones in it may go, -1 without any."""

    path: str
    position: int
    bytes: int
    base_offset: int
    end_offset: int = -1
    leader_epoch: int = -1
    records: int = 0
    codec: int = 0
    acks_level: int = 0
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    base_timestamp: int = -1
    max_timestamp: int = -1
    delete_horizon_ms: int = -1
    crc: int = 0
    problem: str = ""


class Problem(msgspec.Struct, frozen=True):
    path: str
    position: int
    offset: int
    reason: str


class Report(msgspec.Struct):
    """What ``verify`` found in all files together."""

    files: int = 0
    bytes: int = 0
    batches: int = 0
    records: int = 0
    problems: list[Problem] = []

    @property
    def is_good(self) -> bool:
        return not self.problems


def dump(path: str, disk: Disk | None = None) -> Iterator[BatchInfo]:
    """Every batch of one ``.log`` file in order, and every damaged stretch. Raises
    FileNotFoundError."""
    disk = disk or ReadOnlyDisk()
    size_bytes = disk.size(path)
    handle = disk.open(path)
    try:
        log = LogBytes(disk, handle, size_bytes)
        for found in _steps(log, _base_offset(path, log)):
            yield _stretch(path, found) if isinstance(found, _Stretch) else _info(path, found)
    finally:
        disk.close(handle)


def verify(paths: Iterable[str], disk: Disk | None = None) -> Report:
    """Check ``.log`` files and partition directories: every batch, index entries, and the joints
    between the segments of a directory: offsets without a gap, epochs that never fall. A
    partition's own directory is held against what is noted of it: whatever a start refuses is a
    problem. Raises FileNotFoundError."""
    disk = disk or ReadOnlyDisk()
    report = Report()
    for path in paths:
        if path.endswith(LOG_SUFFIX):
            _verify_file(path, disk, report)
        else:
            _verify_directory(path, disk, report)
    return report


class _Stretch(msgspec.Struct, frozen=True):
    bad: BadBatch
    end_position: int


def _steps(log: LogBytes, offset: int) -> Iterator[Found | _Stretch]:
    position, epoch = 0, -1
    while True:
        try:
            for found in scan(log, position, offset, epoch):
                epoch = found.batch.leader_epoch
                yield found
            return
        except BadBatch as error:
            bad = error
        resume = next_batch(log, bad, epoch)
        yield _Stretch(bad, log.size if resume is None else resume.position)
        if resume is None:
            return
        position, offset = resume.position, resume.batch.base_offset


def _base_offset(path: str, log: LogBytes) -> int:
    """From the file's name, or, for other files such as quarantined ones, from the first header."""
    named = _named_offset(path)
    if named is not None:
        return named
    try:
        return peek(log.pread(0, HEADER_BYTES)).base_offset
    except MinilogError:
        return 0


def _named_offset(path: str) -> int | None:
    """Where a segment begins, by the name of its file; None for any other file."""
    match = _SEGMENT.fullmatch(os.path.basename(path))
    return int(match[1]) if match else None


def _info(path: str, found: Found) -> BatchInfo:
    batch = found.batch
    return BatchInfo(
        path=path,
        position=found.position,
        bytes=batch.bytes_total,
        base_offset=batch.base_offset,
        end_offset=batch.end_offset,
        leader_epoch=batch.leader_epoch,
        records=batch.record_count,
        codec=batch.codec,
        acks_level=batch.acks_level,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        base_sequence=batch.base_sequence,
        base_timestamp=-1 if batch.first_timestamp is None else batch.first_timestamp,
        max_timestamp=batch.max_timestamp,
        delete_horizon_ms=-1 if batch.delete_horizon_ms is None else batch.delete_horizon_ms,
        crc=batch.crc,
    )


def _stretch(path: str, stretch: _Stretch) -> BatchInfo:
    bad = stretch.bad
    return BatchInfo(path, bad.position, stretch.end_position - bad.position, bad.offset, problem=bad.reason)


def _verify_directory(directory: str, disk: Disk, report: Report) -> None:
    """The segments together, and each other file, such as one in quarantine or a copy, for
    itself."""
    found = disk.list(directory)
    paths = [f"{directory}/{name}" for name in found if name.endswith(LOG_SUFFIX)]
    segments = [(path, offset) for path in paths if (offset := _named_offset(path)) is not None]
    for path in paths:
        if _named_offset(path) is None:
            _verify_file(path, disk, report)
    if segments and PARTITION_FILE in found:  # a partition's own directory, and no heap of files
        _verify_partition(directory, segments, disk, report)
    else:
        _verify_segments(segments, disk, report)


def _verify_segments(segments: Sequence[tuple[str, int]], disk: Disk, report: Report) -> int | None:
    """Returns where the last one ends."""
    end_offset: int | None = None
    epoch = -1
    for path, base_offset in segments:
        if end_offset is not None and end_offset != base_offset:
            reason = f"the segment before it ends at offset {end_offset}"
            report.problems.append(Problem(path, 0, base_offset, reason))
        batches = _verify_file(path, disk, report)
        epoch = _verify_epochs(path, batches, epoch, report)
        end_offset = batches[-1].end_offset if batches else base_offset
    return end_offset


def _verify_partition(directory: str, segments: Sequence[tuple[str, int]], disk: Disk, report: Report) -> None:
    notes = _notes(directory, disk)  # before the files, which may be growing
    _verify_start(directory, segments[0][1], notes.loaded, report)
    end_offset = _verify_segments(segments, disk, report)
    assert end_offset is not None
    damaged = [problem.offset for problem in report.problems if os.path.dirname(problem.path) == directory]
    report.problems += _noted_damage(f"{directory}/{STATE_FILE}", notes.loaded, damaged)
    end = notes.end_offset
    if end_offset < end and end_offset not in damaged:
        reason = f"the log reached to offset {end}: its end is gone, or was damaged and is in quarantine"
        report.problems.append(Problem(segments[-1][0], disk.size(segments[-1][0]), end_offset, reason))


class _Notes(NamedTuple):
    """What is written down of a partition beside its segments: it was durable to ``end_offset``."""

    loaded: LoadedState
    end_offset: int


def _notes(directory: str, disk: Disk) -> _Notes:
    data_dir, name = os.path.split(os.path.abspath(directory))
    points = Points(disk, f"{data_dir}/{POINTS_FILE}")
    points.load()
    body = checkpoint.load(disk, f"{directory}/{PARTITION_FILE}").body or {}
    point = points.of(name, str(body.get("topic_id")), "").point
    loaded = load_state(disk, directory, point.generation)
    end_offset = still_true(point, loaded.state).offset
    return _Notes(loaded, end_offset if loaded.damaged else max(end_offset, loaded.state.missing_end))


def _verify_start(directory: str, base_offset: int, loaded: LoadedState, report: Report) -> None:
    state = loaded.state.begun(base_offset)
    if state.start_offset < base_offset and state.is_start_noted and not loaded.damaged:
        path = f"{directory}/{base_offset:020d}{LOG_SUFFIX}"
        reason = f"the log begins at offset {state.start_offset}: what lay before this file is gone"
        report.problems.append(Problem(path, 0, state.start_offset, reason))


def _noted_damage(path: str, loaded: LoadedState, damaged: Sequence[int]) -> Iterator[Problem]:
    """What the state says of damage, besides what was met at the offsets ``damaged``."""
    if loaded.damaged:
        reason = "it is damaged or old, so nobody knows where the log was cut last: each start reads all of the log"
        yield Problem(path, 0, loaded.state.start_offset, reason)
        return
    for start, end in loaded.state.bad_ranges:
        if not any(start <= offset < end for offset in damaged):
            reason = f"up to offset {end} the log was found damaged before: the next start looks there again"
            yield Problem(path, 0, start, reason)


def _verify_file(path: str, disk: Disk, report: Report) -> list[BatchInfo]:
    """Adds the file to the report; returns its good batches."""
    report.files += 1
    report.bytes += disk.size(path)
    good: list[BatchInfo] = []
    for info in dump(path, disk):
        if info.problem:
            report.problems.append(Problem(path, info.position, info.base_offset, info.problem))
        else:
            good.append(info)
    report.batches += len(good)
    report.records += sum(info.records for info in good)
    _verify_index(path, disk, good, report)
    return good


def _verify_index(path: str, disk: Disk, batches: Sequence[BatchInfo], report: Report) -> None:
    index_path = path.removesuffix(LOG_SUFFIX) + INDEX_SUFFIX
    base_offset = _named_offset(path)
    data = None if base_offset is None else checkpoint.read_file(disk, index_path)
    if base_offset is None or data is None:
        return
    borders = {batch.position: batch.base_offset for batch in batches}
    index = OffsetIndex.decode(data, base_offset, disk.size(path))
    if index is None:
        report.problems.append(Problem(index_path, 0, base_offset, "its entries do not rise, or lead beyond the log"))
        return
    for offset, position in index.entries:
        if borders.get(position) != offset:
            reason = f"the entry for offset {offset} leads to byte {position}, where no such batch starts"
            report.problems.append(Problem(index_path, position, offset, reason))


def _verify_epochs(path: str, batches: Sequence[BatchInfo], epoch: int, report: Report) -> int:
    """Epochs never fall from one segment to the next; returns the last one. Within a file ``dump``
    has seen to it."""
    if not batches:
        return epoch
    if batches[0].leader_epoch < epoch:
        reason = f"its leader epoch is {batches[0].leader_epoch}, the segment before it ends in epoch {epoch}"
        report.problems.append(Problem(path, batches[0].position, batches[0].base_offset, reason))
    return batches[-1].leader_epoch


def whose(directory: str) -> dict[str, Any]:
    """What the log in this directory says whose it is: topic, topic id, partition; {} when that
    cannot be read."""
    return checkpoint.load_dispensable(ReadOnlyDisk(), f"{directory}/{PARTITION_FILE}")


def broker_copy(data_dir: str) -> BrokerCopy:
    """The copy of the metadata in the data directory of a stopped broker.

    Raises RefusesToStart when it is no data directory."""
    disk = ReadOnlyDisk()
    path = f"{data_dir}/{meta.META_FILE}"
    body = checkpoint.load_dispensable(disk, path)
    if not isinstance(body.get("broker_id"), int):
        raise RefusesToStart(f"there is no {path} that can be read: it is not the data directory of a broker")
    metadata = MetadataFile(disk, f"{data_dir}/{METADATA_FILE}")
    metadata.load(str(body.get("cluster_id", "")))
    return BrokerCopy(body["broker_id"], *meta.peek_epochs(disk, path), metadata.saved)
