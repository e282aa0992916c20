"""What keeps the storage honest towards those above it, taken away one rule at a time: its story
must notice."""

from __future__ import annotations

from minilog.core.replication.follower import FollowerState
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import LogPlace, RecoveryPoint
from minilog.storage.log.log_state import LoadedState, LogState
from minilog.storage.log.producers import ProducerTable
from minilog.storage.recovery import recovery
from minilog.storage.segment import scan, segment
from minilog.storage.segment.reading import Place
from minilog.storage.segment.scan import BadBatch, Found, LogBytes
from minilog.storage.segment.segment import Segment
from minilog.wire.batch import Batch
from minilog.wire.messages import ReplicaFetchPartition
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.storage import test_damage, test_storage

_reset = PartitionLog.reset


def _drop_unseen(self: PartitionLog, start_offset: int, start_epoch: int = -1) -> None:
    """Whatever the leader does not have any more was committed, or it would be there."""
    self.high_watermark = self.end_offset
    _reset(self, max(start_offset, self.end_offset + 1), start_epoch)
    if start_offset < self.start_offset:
        _reset(self, start_offset, start_epoch)


def _the_marks_stay(self: RecoveryPoint, end_offset: int) -> RecoveryPoint:
    epochs = tuple(entry for entry in self.epochs if entry[1] < end_offset)
    return self._replace(offset=min(self.offset, end_offset), epochs=epochs)


def _only_what_is_missing(place: LogPlace, state: LogState, active: Segment, cut: object, derived: object) -> LogState:
    assert isinstance(derived, recovery._Derived)
    missing_end = max(state.missing_end, derived.durable_end if active.end_offset < derived.durable_end else 0)
    noted = state._replace(generation=derived.generation, missing_end=missing_end)
    noted.save(place.disk, place.directory)
    return noted


def _remove_and_sync_once(self: PartitionLog, segment: Segment) -> None:
    while self._segments[-1] is not segment:
        removed = self._segments.pop()
        self._readers.pop(self._bases.pop(), None)
        removed.remove()
    self._disk.fsync_dir(self.place.directory)
    self._readers.pop(segment.base_offset, None)


_observe = ProducerTable.observe


def _believe_any_clock(self: ProducerTable, batch: Batch) -> None:
    _observe(self, batch)
    for producer_id, producer in self.items():
        if producer.batches[-1].timestamp < batch.max_timestamp - self.expiration_ms:
            del self._producers[producer_id]


def _nothing_is_under_way(self: LogState, base_offset: int, *, is_empty: bool = False) -> LogState:
    return self._replace(next_start=-1, next_epoch=-1)


def _the_first_file_is_the_first(loaded: LoadedState, base_offset: int, derived: object) -> int:
    return base_offset


_after_cut = LogState.after_cut


def _nothing_stays_in_doubt(self: LogState, end_offset: int, start_offset: int) -> LogState:
    return _after_cut(self, end_offset, start_offset)._replace(doubt_end=self.doubt_end)


_next_fetch = FollowerState.next_fetch


def _fetch_on(self: FollowerState) -> ReplicaFetchPartition:
    self._lacks_values = False
    return _next_fetch(self)


def _search_from_the_bad_place(log: LogBytes, bad: BadBatch, epoch: int) -> Found | None:
    return scan._search(log, bad, epoch, bad.position)


_in_doubt = LogState.in_doubt


def _all_may_have_been_swept(self: LogState, *known: int) -> LogState:
    _, _, end_offset, _ = known
    return _in_doubt(self, *known)._replace(swept_end=min(self.swept_end, end_offset), doubt_end=end_offset)  # type: ignore[arg-type]


def _any_point_counts(self: LogState, *known: int) -> LogState:
    return _in_doubt(self, *known)._replace(generation=self.generation, cuts=self.cuts)  # type: ignore[arg-type]


def _cut_where_damage_begins(self: Segment, offset: int) -> Place:
    try:
        return self.find(offset)
    except BadBatch:
        self.rebuild()
    try:
        return self.find(offset)
    except BadBatch as bad:
        return Place(bad.offset, bad.position)


def _in_memory_only(self: PartitionLog) -> None:
    """Nothing is noted for the next start."""


STORAGE_ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "quarantine",
        "what the leader's start has overtaken is dropped",
        ((PartitionLog, "reset", _drop_unseen),),
        story=test_storage.test_records_that_the_leaders_start_has_overtaken_are_kept_and_counted,
    ),
    Ablation(
        "quarantine",
        "a log that diverges where nobody can compare is dropped",
        ((PartitionLog, "reset", _drop_unseen),),
        story=test_storage.test_a_log_that_diverges_where_the_leaders_begins_is_kept_and_counted,
    ),
    Ablation(
        "cuts",
        "a high watermark outlives the records it was said of",
        ((RecoveryPoint, "cut_to", _the_marks_stay),),
        story=test_storage.a_cut_below_the_high_watermark,
    ),
    Ablation(
        "cuts",
        "what is gone from the end was never cut",
        ((recovery, "_noted", _only_what_is_missing),),
        story=test_storage.a_tail_that_is_gone,
    ),
    Ablation(
        "cuts",
        "what was noted before a damaged state counts again when it is replaced",
        ((LogState, "in_doubt", _any_point_counts),),
        story=test_storage.a_damaged_state_that_is_replaced_before_any_point_is,
    ),
    Ablation(
        "cuts",
        "segments are removed all at once",
        ((PartitionLog, "_remove_after", _remove_and_sync_once),),
        story=test_storage.power_cuts_among_removals,
    ),
    Ablation(
        "producers",
        "the latest time that anybody gives is the time",
        ((ProducerTable, "observe", _believe_any_clock),),
        story=test_storage.test_a_client_with_a_wrong_clock_makes_nobodys_retry_a_second_record,
    ),
    Ablation(
        "beginnings",
        "a log that begins anew goes by the start it had",
        ((LogState, "begun", _nothing_is_under_way),),
        story=test_storage.test_a_log_that_began_anew_further_down_begins_there_when_it_starts_again,
    ),
    Ablation(
        "beginnings",
        "the oldest file that is there is the oldest there was",
        ((recovery, "_noted_start", _the_first_file_is_the_first),),
        story=test_damage.test_what_one_disk_has_lost_from_the_beginning_is_not_deleted_everywhere,
    ),
    Ablation(
        "sweeps",
        "a log that begins anew forgets at once how far it was swept",
        ((LogState, "after_cut", _nothing_stays_in_doubt),),
        story=test_storage.a_crash_while_a_swept_log_begins_anew,
    ),
    Ablation(
        "sweeps",
        "a copy of a swept log is a log like any other",
        ((PartitionLog, "note_copied", stand_ins.nothing),),
        story=test_storage.a_copy_of_a_swept_log_that_is_cut,
    ),
    Ablation(
        "sweeps",
        "half a copy is as good as a whole one",
        ((FollowerState, "next_fetch", _fetch_on),),
        story=test_storage.half_a_copy_of_a_swept_log,
    ),
    Ablation(
        "sweeps",
        "with a damaged state all of a log may have been swept",
        ((LogState, "in_doubt", _all_may_have_been_swept),),
        story=test_damage.test_a_flipped_bit_in_the_state_of_an_eligible_replica_does_not_empty_its_log,
    ),
    Ablation(
        "damage",
        "a log is cut where damage begins",
        ((Segment, "border", _cut_where_damage_begins),),
        story=test_damage.test_a_cut_that_meets_damage_in_the_last_committed_batch_is_refused,
    ),
    Ablation(
        "damage",
        "what was found damaged is forgotten by a restart",
        ((PartitionLog, "note_damage", _in_memory_only),),
        story=test_damage.test_damage_that_was_found_is_not_forgotten_by_a_restart,
    ),
    Ablation(
        "recovery",
        "what follows a torn batch is searched in its records",
        ((segment, "next_batch", _search_from_the_bad_place),),
        story=test_storage.test_a_segment_file_that_was_uploaded_is_no_part_of_the_log,
    ),
)
