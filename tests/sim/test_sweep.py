"""Every fault at every disk operation of every scenario, and the proof that the sweep would
notice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest

from minilog.controller import frames
from minilog.controller.frames import JOURNAL, frame
from minilog.controller.journal import FileJournal
from minilog.errors import CorruptRange, DiskFull, RefusesToStart
from minilog.storage import checkpoint, slots
from minilog.storage.disk import Disk
from minilog.storage.log.flush_job import FlushJob
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_state import LogState
from minilog.storage.log.quarantine import Quarantine
from minilog.storage.process_marks import ProcessMarks
from minilog.storage.recovery import recovery
from minilog.storage.segment.scan import BadBatch
from minilog.storage.segment.segment import Segment
from minilog.storage.store import Store
from minilog.wire.journal.metadata_records import MetadataRecord
from tests.sim.sweep.log_model import Broken
from tests.sim.sweep.scenarios import SCENARIOS
from tests.sim.sweep.sweep import Failure, run, sweep

SHOWN_MAX = 5
CASES_MIN = 100
ROUNDS_MAX = 8
"""What one bit in the right place must show may take some draws."""


def failures(scenario: str, stop_at: int = SHOWN_MAX, rounds: int = 1) -> tuple[int, list[Failure]]:
    """(cases, failures), given up after ``stop_at`` failures."""
    found, count = [], 0
    for _, failure in sweep([scenario], rounds=range(rounds)):
        count += 1
        if failure is not None:
            found.append(failure)
            if len(found) == stop_at:
                break
    return count, found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_fault_at_any_operation_breaks_a_promise(scenario: str) -> None:
    count, found = failures(scenario)
    assert not found, "\n\n".join(map(str, found))
    assert count > CASES_MIN


class Fault(NamedTuple):
    """A promise of the storage that is taken away, and a scenario that must miss it."""

    what: str
    scenario: str
    owner: object
    name: str
    replacement: Callable[..., Any]


def save_in_place(disk: Disk, path: str, body: dict[str, Any], *, keep_previous: bool = True) -> None:
    checkpoint.write_synced(disk, path, checkpoint.encode(body))


def flush_without_directories(job: FlushJob, run: Callable[[FlushJob], None] = FlushJob.run) -> None:
    job._directories = ()
    run(job)


def begin_generation_in_memory(log: PartitionLog, state: LogState) -> None:
    log.state = state
    log._epochs.truncate_end(state.cuts[-1][1])


def nothing_is_under_way(state: LogState, base_offset: int, *, is_empty: bool = False) -> LogState:
    return state._replace(next_start=-1, next_epoch=-1)


def append_unsynced(journal: FileJournal, records: list[MetadataRecord]) -> int:
    data = frame(JOURNAL, journal._last_index + 1, records)
    assert journal._handle is not None
    journal._disk.append(journal._handle, journal._end, [data])
    journal._end += len(data)
    journal._last_index += len(records)
    return journal._last_index


def write_in_place(journal: FileJournal, path: str, data: bytes) -> None:
    checkpoint.write_synced(journal._disk, path, data)


def bind_in_memory_first(store: Store, cluster_id: str) -> None:
    identity = store._identity
    if identity.cluster_id != cluster_id:
        identity._meta = msgspec.structs.replace(identity._meta, cluster_id=cluster_id)
        checkpoint.save(store._disk, store._path("meta.json"), identity._meta)


def save_one_slot(disk: Disk, path: str, number: int) -> None:
    handle = disk.open(path)
    disk.overwrite(handle, number % slots.SLOTS * slots.SLOT_BYTES, slots._slot(number))
    disk.fdatasync(handle)
    disk.close(handle)


def restore_as_far_as_it_goes(log: PartitionLog) -> None:
    with suppress(BadBatch):
        log.restore_producers()
    for segment in log.segments:
        segment.bad_ranges = []


def nothing(*_: object, **__: object) -> None:
    pass


FULL = "a new controller while the disk is full"
CREATED, APPENDS = "topic created and written", "appends flushes and checkpoints"
FAULTS = [
    Fault("a tail is cut before it was copied", "truncation within a segment", Quarantine, "_copy", nothing),
    Fault("a flush forgets the new directories", CREATED, FlushJob, "run", flush_without_directories),
    Fault("small files are written in place", "first start and registration", checkpoint, "save", save_in_place),
    Fault("a truncation is not noted", "truncations one after the other", PartitionLog, "_begin_generation",
          begin_generation_in_memory),
    Fault("a log that begins anew goes by its old start", "reset to an earlier start", LogState, "begun",
          nothing_is_under_way),
    Fault("a segment is sealed unsynced", "segment roll", Segment, "sync", nothing),
    Fault("the clean marker stays", "clean stop and start", checkpoint, "remove", nothing),
    Fault("a failed sync leaves the marker of this boot", APPENDS, Store, "distrust", nothing),
    Fault("a read-only disk leaves no mark", APPENDS, ProcessMarks, "_is_doubted", lambda _: False),
    Fault("recovery believes the page cache", APPENDS, Segment, "reload", lambda self, _: self.sync()),
    Fault("after a failed sync the recovery points still vouch for this boot", APPENDS, Store, "_forget_boot", nothing),
    Fault("metadata that was not saved counts as saved", "first start and registration", Store, "bind_cluster",
          bind_in_memory_first),
    Fault("an epoch is noted once only", FULL, slots, "save", save_one_slot),
    Fault("an epoch needs room", FULL, slots, "save", slots.create),
    Fault("the journal is not synced", "journal appends", FileJournal, "append", append_unsynced),
    Fault("the next journal is made in place", "journal snapshots", FileJournal, "_write_file", write_in_place),
    Fault("a changed bit at the journal's end counts as torn", "journal appends", frames, "_is_torn", lambda *_: True),
    Fault("what damage took is not noted", APPENDS, recovery, "_noted", lambda place, state, *_: state),
    Fault("producers are read as far as it goes", CREATED, recovery, "_restore_producers", restore_as_far_as_it_goes),
    Fault("a swap that was decided is not finished", "compaction of what was compacted", recovery, "settle", nothing),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_sweep_notices(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.owner, fault.name, fault.replacement)
    assert broken(fault.scenario)


def broken(scenario: str) -> bool:
    """Without any fault of the disk, or with the first that shows it."""
    try:
        return bool(failures(scenario, stop_at=1, rounds=ROUNDS_MAX)[1])
    except (Broken, AssertionError, RefusesToStart, CorruptRange, DiskFull):
        return True


def test_a_failure_can_be_replayed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "distrust", nothing)
    _, (failure,) = failures(APPENDS, stop_at=1)
    assert run(failure.case) == failure
    assert failure.case.command in str(failure)
    assert failure.operation in str(failure)
