"""Bringing a log into a known state after a start: what is on disk, and all of it durable.

Owns: the order of steps. Sealed segments are trusted, but for what was found damaged before, which
is looked at again (R53). From the recovery point on every batch is read and checked, the leader
epochs and indexes are derived anew, a torn tail is cut (tail.py says what is torn). Where there is
more than the recovery point vouches for, the file is synced and read once more from the medium: the
page cache may show bytes that a failed sync has given up (Rebello et al., "Can Applications Recover
from fsync Failures?", ATC 2020).

The recovery point comes from a checkpoint that may be older than a truncation. The cuts noted in
``truncations`` pull it down to where the log was cut since, or was found to end, the whole of it
(``RecoveryPoint.cut_to``): a high watermark that outlives the records it was said of would show,
clean and count as committed whatever has come in their place, and epochs that do would make that
unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull
from minilog.storage.log.epochs import EpochCache
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import LogPlace, Recovered, RecoveryPoint
from minilog.storage.log.log_state import CUTS_KEPT, LoadedState, LogState, load_state
from minilog.storage.log.quarantine import Piece
from minilog.storage.log.watched_ages import Ages
from minilog.storage.recovery.torn_tail import first_torn, is_half_written
from minilog.storage.segment.damage import Damage, noted
from minilog.storage.segment.scan import BATCH_BYTES_MAX, CHUNK_BYTES, BadBatch, check_readable
from minilog.storage.segment.segment import Segment
from minilog.storage.segment.segment_swap import settle
from minilog.wire.batch import Batch, split

NOTHING_KNOWN = RecoveryPoint(0, 0, 0)
_LOG_NAME = re.compile(r"(\d{20})\.log")


class _Derived(NamedTuple):
    """What is known of a log before it is read, and the offset from which its epochs are derived
    from the batches.

    What lies below ``durable_end`` was durable once: damage there is no crash's doing.
    """

    epochs: EpochCache
    generation: int
    scan_from: int
    durable_end: int
    high_watermark: int
    """Committed is what lies below, of this log and not of what was cut since."""
    start_offset: int
    """Where the recovery point says that the log began, as far as no later cut has overtaken it."""
    said_end: int
    """The recovery point speaks of records up to here."""
    holes: list[int]
    """The first offset of a batch that lacks records, as soon as one was read."""
    ages: tuple[Ages, Ages] = ((), ())
    """How long ago what is left of it was written, and cleaned."""
    power_loss: bool = False
    """Index files that were not synced may have lost what they held."""


class _EpochsDisagree(Exception):
    """A batch has a lower epoch than the recovery point says the log before it has: they are not of
    one log."""


def open_log(
    place: LogPlace, settings: TopicSettings, point: RecoveryPoint = NOTHING_KNOWN, power_loss: bool = True
) -> PartitionLog:
    """Open the log in ``place``, or begin an empty one. Raises CorruptRange, DiskFull or
    StorageFailed.

    ``power_loss``: the machine may have stopped since the last write, so writes that were not
    synced may be missing.
    """
    settle(place.disk, place.directory)
    loaded = load_state(place.disk, place.directory, point.generation)
    segments = _segments(place, 0 if loaded.damaged else loaded.state.start_offset)
    loaded = loaded._replace(state=_begun(place, loaded, segments))
    derived = _derive(loaded, segments[0].base_offset, point)._replace(power_loss=power_loss)
    noted_start = _noted_start(loaded, segments[0].base_offset, derived)
    try:
        damages = _walk(place, segments, derived)
    except _EpochsDisagree:
        derived = derived._replace(epochs=EpochCache(), scan_from=segments[0].base_offset)
        damages = _walk_all(place, segments, derived)
    place.ask()
    if damages or segments[-1].end_offset != derived.durable_end:
        damages = _walk_medium(place, segments[-1], derived)
    cut = _where_to_cut(segments[-1], damages, derived, power_loss)
    if loaded.damaged:  # before anything is noted, or the next start would not know
        loaded = loaded._replace(state=_in_doubt(loaded.state, segments, cut, derived))
    state = _noted(place, loaded.state, segments[-1], cut, derived)
    torn_bytes, lost = _cut_tail(place, segments[-1], cut)
    derived.epochs.truncate_end(segments[-1].end_offset)
    if power_loss and not loaded.damaged and segments[-1].end_offset > derived.durable_end:
        state = _vouched(place, state, segments[-1].end_offset)
    start_offset = max(segments[0].base_offset, min(state.start_offset, segments[-1].end_offset))
    if start_offset < state.start_offset:  # or what is appended from here on would lie below the start
        state = state.starting_at(start_offset)
        state.save(place.disk, place.directory)
    derived.epochs.truncate_start(start_offset, segments[-1].end_offset)
    if (
        segments[-1].end_offset == segments[-1].base_offset and not place.unsynced
    ):  # nothing to sync, but has the file been?
        place = place._replace(unsynced=(place.directory,))
    log = PartitionLog(place._replace(ask=_nobody), settings, segments, derived.epochs)
    cleaned_end = min(state.cleaned_end, log.end_offset)
    log.state = state._replace(cleaned_end=cleaned_end)
    log.start_offset = start_offset
    if noted_start < segments[0].base_offset:
        log.missing_head = (noted_start, start_offset)
    else:
        log.state = log.state.starting_at(start_offset)._replace(is_start_noted=True)
    log.records_lost = list(lost)
    if log.end_offset < state.missing_end:
        log.missing = (log.end_offset, state.missing_end)
    log.high_watermark = min(max(start_offset, derived.high_watermark), log.end_offset)
    log.load_ages(*derived.ages)
    log.recovered = Recovered(torn_bytes, tuple(damages))
    log.producers.open(log.end_offset)
    _look_again(log, place.ask)
    _restore_producers(log)
    if not loaded.damaged:  # of that the present one is not known, and everything is read at each start
        _note_damage(log)
    return log


def adopt(log: PartitionLog, settings: TopicSettings) -> None:
    """Take into use what was opened before the topic's settings were known. Raises CorruptRange.

    How long a producer is remembered is a setting, so another one makes another state of the same
    batches (R32).
    """
    remembered_ms = log.producers.table.expiration_ms
    log.configure(settings)
    if settings.producer_id_expiration_ms != remembered_ms:
        _restore_producers(log)


def _nobody() -> None:
    """Asks nobody: the log is open."""


def _restore_producers(log: PartitionLog) -> None:
    """Of a log that is known to be damaged as far as it can be read: it is not served."""
    was_damaged = log.is_damaged
    try:
        log.restore_producers()
    except BadBatch as bad:
        if not was_damaged:
            raise CorruptRange(f"{log.place.directory} is damaged {bad}", start_offset=bad.offset) from bad


def _look_again(log: PartitionLog, ask: Callable[[], None]) -> None:
    """What was found damaged before lies where nothing else looks (R53). It is read, and is damaged
    still or was mended."""
    for start, end in log.state.bad_ranges:
        offset, end = max(start, log.start_offset), min(end, log.end_offset)
        while offset < end:
            ask()
            try:
                data = log.read(offset, CHUNK_BYTES, log.end_offset)
                offset = split(data, BATCH_BYTES_MAX, stored=True)[-1].end_offset
            except CorruptRange as error:
                offset = max(offset + 1, int(error.info["end_offset"]))


def _note_damage(log: PartitionLog) -> None:
    """What is known now takes the place of what was noted. Raises DiskFull when there is damage to
    be noted."""
    ranges = noted(bad for segment in log.segments for bad in segment.bad_ranges)
    if ranges == log.state.bad_ranges:
        return
    state = log.state._replace(bad_ranges=ranges)
    try:
        state.save(log.place.disk, log.place.directory)
    except DiskFull:
        if ranges:
            raise
        return
    log.state = state


def _segments(place: LogPlace, start_offset: int) -> list[Segment]:
    """The segments there are. Those wholly below the log's start are on their way out, and go."""
    names = place.disk.list(place.directory)
    bases = [int(match[1]) for match in map(_LOG_NAME.fullmatch, names) if match]
    if not bases:
        return [Segment.create(place.disk, place.directory, start_offset, sync=not place.unsynced)]
    ends = [*bases[1:], bases[-1]]
    segments = [Segment(place.disk, place.directory, base, end) for base, end in zip(bases, ends, strict=True)]
    while len(segments) > 1 and segments[0].end_offset <= start_offset:
        segments.pop(0).remove()
    return segments


def _begun(place: LogPlace, loaded: LoadedState, segments: list[Segment]) -> LogState:
    """The state of a log that was perhaps about to begin anew. Of a damaged state nothing is noted:
    it stays damaged.

    Raises DiskFull: nothing may be written behind a state that speaks of the log before it was
    emptied."""
    is_empty = len(segments) == 1 and segments[0].size_bytes == 0
    state = loaded.state.begun(segments[0].base_offset, is_empty=is_empty)
    if state != loaded.state and not loaded.damaged:
        if is_empty:
            segments[0].sync()  # or a power cut brings back what was in it
        state.save(place.disk, place.directory)
    return state


def _derive(loaded: LoadedState, base_offset: int, point: RecoveryPoint) -> _Derived:
    """The recovery point as far as no later cut has overtaken it. Without its epochs everything is
    scanned."""
    state = loaded.state
    generation = max(state.generation, point.generation) + loaded.damaged
    point = still_true(point, state)
    if generation - point.generation > CUTS_KEPT:
        point = point.cut_to(base_offset)
    # Only what is committed is cleaned, or makes older values go.
    high_watermark = max(point.high_watermark, state.cleaned_end, state.swept_end)
    if loaded.damaged:
        # The last cut is not known: of which records was this said?
        point, high_watermark = point._replace(epochs=(), written=(), cleaned=()), base_offset
    durable_end = max(point.offset, base_offset)
    start_offset = point.epochs[0][1] if point.epochs else base_offset
    vouched_end = durable_end if loaded.damaged else max(durable_end, state.missing_end)
    known = vouched_end, high_watermark, start_offset, durable_end
    ages = point.written, point.cleaned
    if not point.epochs:
        return _Derived(EpochCache(), generation, base_offset, *known, [], ages)
    epochs = EpochCache(entry for entry in point.epochs if entry[1] < durable_end)
    epochs.truncate_start(base_offset, durable_end)
    return _Derived(epochs, generation, durable_end, *known, [], ages)


def still_true(point: RecoveryPoint, state: LogState) -> RecoveryPoint:
    """What the point says of the log after the cuts that the state knows of."""
    for generation, end_offset in state.cuts:
        if generation > point.generation:
            point = point.cut_to(end_offset)
    return point


def _noted_start(loaded: LoadedState, base_offset: int, derived: _Derived) -> int:
    """Where the log must begin at the latest. Nothing goes from its beginning before that is noted,
    so a first segment above is not the first: a file is gone. Of a damaged state nothing is known,
    the present one may have said more.

    A log whose starts were not all noted may have begun anew: that was a cut, and no recovery point
    of before speaks of it.
    """
    if loaded.damaged:
        return base_offset
    start_offset = loaded.state.start_offset
    return start_offset if loaded.state.is_start_noted else max(start_offset, derived.start_offset)


def _walk(place: LogPlace, segments: list[Segment], derived: _Derived) -> list[Damage]:
    """Check everything from ``scan_from`` on; returns the damages of the active segment."""
    epochs, scan_from = derived.epochs, derived.scan_from

    def on_batch(batch: Batch) -> None:
        if batch.end_offset <= scan_from:
            return
        if batch.leader_epoch < epochs.last_epoch:
            raise _EpochsDisagree
        if batch.record_count <= batch.last_offset_delta and not derived.holes:
            derived.holes.append(batch.base_offset)
        epochs.observe(batch.leader_epoch, max(batch.base_offset, scan_from))  # cleaning may have joined batches

    for segment in segments[:-1]:
        if segment.end_offset > scan_from:
            end_offset = segment.end_offset
            segment.walk(scan_from, on_batch, derived.power_loss)
            if segment.end_offset < end_offset:
                segment.bad_ranges.append((segment.end_offset, end_offset))
                segment.end_offset = end_offset
            segment.seal()
            segment.close()
            place.ask()
    return segments[-1].walk(max(scan_from, segments[-1].base_offset), on_batch, derived.power_loss)


def _walk_all(place: LogPlace, segments: list[Segment], derived: _Derived) -> list[Damage]:
    try:
        return _walk(place, segments, derived)
    except _EpochsDisagree:
        raise CorruptRange(
            f"the leader epochs in {place.directory} go backwards from one segment to the next; "
            "move the directory away to have the replica copied from its leader again"
        ) from None


def _walk_medium(place: LogPlace, active: Segment, derived: _Derived) -> list[Damage]:
    """Make the active segment durable, forget what the page cache shows of it, and walk it as it
    really is."""
    read_from = max(derived.scan_from, active.base_offset)
    active.reload(read_from)
    place.disk.fsync_dir(place.directory)
    derived.epochs.truncate_end(read_from)
    return _walk_all(place, [active], derived)


class _Cut(NamedTuple):
    """The active segment is cut at this damage. Torn is what a crash explains. The rest is
    corruption."""

    damage: Damage
    is_torn: bool


def _where_to_cut(active: Segment, damages: list[Damage], derived: _Derived, power_loss: bool) -> _Cut | None:
    """At a torn tail, or at damage that nothing good follows. Raises CorruptRange when what is to
    go cannot be read: no crash explains that, and another attempt may be luckier."""
    torn = first_torn(active, damages, derived.durable_end, power_loss)
    if torn is None and (not damages or damages[-1].end_offset is not None):
        return None
    cut = _Cut(torn or damages[-1], torn is not None)
    check_readable(active.log_bytes(), cut.damage.position)
    return cut


def _in_doubt(state: LogState, segments: list[Segment], cut: _Cut | None, derived: _Derived) -> LogState:
    """What takes the place of a damaged state. Once it is saved the next start does not read
    everything, so it says where this one has met damage."""
    end_offset = cut.damage.offset if cut else segments[-1].end_offset
    known = noted(bad for segment in segments for bad in segment.bad_ranges)
    state = state.in_doubt(derived.generation, segments[0].base_offset, end_offset, bool(derived.holes))
    return state._replace(bad_ranges=known)


def _noted(place: LogPlace, state: LogState, active: Segment, cut: _Cut | None, derived: _Derived) -> LogState:
    """The state with what is missing noted durably, before a cut takes the last trace of it from
    the log.

    Without this the next start would find a log that is shorter and whole. Or it would find a log
    that has become longer meanwhile, and a recovery point that speaks of the records which were
    there before: so what is missing counts as cut.
    """
    missing_end = state.missing_end
    end_offset = cut.damage.offset if cut else active.end_offset
    if cut is not None and not cut.is_torn:
        missing_end = max(missing_end, cut.damage.offset + 1)
    if end_offset < derived.durable_end:
        missing_end = max(missing_end, derived.durable_end)
    noted = state._replace(generation=derived.generation, missing_end=missing_end)
    if end_offset < max(derived.said_end, derived.high_watermark):
        noted = noted.after_cut(end_offset, noted.start_offset)._replace(missing_end=missing_end)
    if noted != state._replace(generation=noted.generation):
        noted.save(place.disk, place.directory)
    return noted


def _vouched(place: LogPlace, state: LogState, end_offset: int) -> LogState:
    """What has survived a power cut is durable by now, so damage to it is no crash's doing any
    more. The recovery point does not say so before the next checkpoint. Without room for the note
    that one has to do."""
    noted = state._replace(missing_end=max(end_offset, state.missing_end))
    try:
        noted.save(place.disk, place.directory)
    except DiskFull:
        return state
    return noted


def _cut_tail(place: LogPlace, active: Segment, cut: _Cut | None) -> tuple[int, tuple[int, int, int, int]]:
    """Whatever is cut and could be anything but a half-written batch is copied to quarantine first;
    returns the torn bytes, and the lost records by acks level."""
    lost = (0, 0, 0, 0)
    if cut is None:
        return 0, lost
    damage = cut.damage
    if not cut.is_torn or damage.end_offset is not None or not is_half_written(active, damage):
        piece = Piece(active.log_bytes(), damage.position, damage.offset)
        lost = place.quarantine.save(
            place.name, _reason(cut), active.end_offset, [piece], place.topic_id
        ).records_by_acks
    cut_bytes = active.size_bytes - damage.position
    active.truncate(damage.offset, damage.position)
    return (cut_bytes if cut.is_torn else 0), lost


def _reason(cut: _Cut) -> str:
    if not cut.is_torn:
        return "corrupt tail found by recovery"
    if cut.damage.end_offset is None:
        return "bad end found after a power cut"
    return "behind a write that a power cut lost"
