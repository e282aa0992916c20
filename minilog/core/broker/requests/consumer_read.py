"""Reads: what a consumer is shown of a replica, and the refusals it can get.

Pure with respect to roles: nothing here changes state; long polls are parked by the caller.

Invariants: only records below the high watermark are ever shown (R12). A leader that does not know
the true high watermark yet says so instead of guessing (R7). A consumer that names the epoch it
last read is told when what it read no longer exists, and never skipped or rewound silently (R23,
KIP-320).
"""

from __future__ import annotations

from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import (
    FencedLeaderEpoch,
    LeaderNotAvailable,
    LogTruncated,
    MinilogError,
    NotLeader,
    OffsetNotAvailable,
    OffsetOutOfRange,
    UnknownLeaderEpoch,
)
from minilog.wire.batch import peek
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
    NOTHING,
    Fetch,
    FetchPartition,
    FetchResult,
    OffsetsPartition,
    OffsetsResult,
    Problem,
)
from minilog.wire.records import first_timestamp

UNKNOWN_LAG_MS = 2**31 - 1
"""Said by a new leader that does not know the true high watermark and has no older evidence."""


def read(
    replica: Replica, fetch: FetchPartition, request: Fetch, room: int, now_ms: int, unsure_ms: int
) -> FetchResult:
    """One partition of a consumer fetch. Errors become the result's problem. ``room``: bytes the
    answer may still take.

    ``unsure_ms``: for how long this broker may have been replaced as a leader without knowing."""
    try:
        lag_ms = check_role(replica, request, now_ms, unsure_ms)
        _check_epoch(replica, fetch.leader_epoch)
        batches = _read(replica, fetch, min(room, fetch.max_bytes)) if room > 0 else NOTHING
    except MinilogError as error:
        problem = Problem.of(error)
        epoch, topic_id = replica.leader_epoch, replica.topic_id
        return FetchResult(fetch.topic, fetch.partition, problem, leader_epoch=epoch, topic_id=topic_id)
    return FetchResult(
        fetch.topic,
        fetch.partition,
        batches=batches,
        high_watermark=known_high_watermark(replica),
        log_start_offset=replica.log.start_offset,
        leader_epoch=replica.leader_epoch,
        lag_ms=lag_ms,
        lag_records=replica.role.lag_records if isinstance(replica.role, FollowerState) else 0,
        topic_id=replica.topic_id,
    )


def check_role(replica: Replica, request: Fetch, now_ms: int, unsure_ms: int) -> int:
    """How stale an answer from here may be, in ms. Raises what the asker cannot use: NotLeader,
    LeaderNotAvailable, OffsetNotAvailable.

    A leader that may have been replaced is as stale as that may be old, and one that does not know
    the true high watermark yet cannot say how stale it is (R7)."""
    role = replica.role
    if isinstance(role, LeaderState):
        return _check_leader(replica, role, request, now_ms, unsure_ms)
    if not request.any_replica:
        raise NotLeader(f"{replica.partition} is led by broker {role.leader}, not by this one", leader=role.leader)
    lag_ms = role.lag_ms(now_ms)
    if lag_ms is None or (request.max_lag_ms >= 0 and lag_ms > request.max_lag_ms):
        seen = "an unknown time" if lag_ms is None else f"{lag_ms} ms"
        raise NotLeader(
            f"{replica.partition}: this replica may be {seen} behind its leader, allowed are {request.max_lag_ms} ms; read from the leader",
            leader=role.leader,
        )
    return lag_ms


def _check_leader(replica: Replica, role: LeaderState, request: Fetch, now_ms: int, unsure_ms: int) -> int:
    lag_ms = unsure_ms
    if not role.high_watermark_known:
        lag_ms = UNKNOWN_LAG_MS if role.seen_ms is None else now_ms - role.seen_ms
    if not request.any_replica or not 0 <= request.max_lag_ms < lag_ms:
        return lag_ms
    if not role.high_watermark_known:
        raise OffsetNotAvailable(
            f"{replica.partition}: its new leader does not know yet how far it is committed; retry shortly"
        )
    raise LeaderNotAvailable(
        f"{replica.partition}: this broker may have been replaced as its leader {unsure_ms} ms ago, allowed are "
        f"{request.max_lag_ms} ms; retry or ask another"
    )


def known_high_watermark(replica: Replica) -> int | None:
    role = replica.role
    if isinstance(role, LeaderState) and not role.high_watermark_known:
        return None
    return role.high_watermark


def _check_epoch(replica: Replica, leader_epoch: int) -> None:
    if leader_epoch < 0 or leader_epoch == replica.leader_epoch:
        return
    error = FencedLeaderEpoch if leader_epoch < replica.leader_epoch else UnknownLeaderEpoch
    raise error(
        f"{replica.partition}: leader epoch {leader_epoch} is not the current one ({replica.leader_epoch}); refresh metadata",
        leader_epoch=replica.leader_epoch,
    )


def _read(replica: Replica, fetch: FetchPartition, max_bytes: int) -> memoryview:
    log, role = replica.log, replica.role
    end_offset = role.high_watermark
    check_truncation(replica, fetch.offset, fetch.last_epoch)
    beyond = fetch.offset > log.end_offset and isinstance(role, LeaderState)
    if fetch.offset < log.start_offset or beyond:
        raise OffsetOutOfRange(
            f"{replica.partition}: offset {fetch.offset} is outside the log, which holds {log.start_offset} to {end_offset}",
            log_start_offset=log.start_offset,
            high_watermark=end_offset,
        )
    if fetch.offset >= end_offset:
        return NOTHING
    return memoryview(log.read(fetch.offset, max_bytes, end_offset))


def check_truncation(replica: Replica, offset: int, last_epoch: int) -> None:
    """R23: does the log still hold what the consumer read, whose last record was of ``last_epoch``?

    Only who can know may say no: a follower about what lies below its high watermark (the rest may
    be about to be cut), a leader about epochs up to its own (it may have been replaced). Raises
    LogTruncated, or UnknownLeaderEpoch.
    """
    log, role = replica.log, replica.role
    behind = isinstance(role, FollowerState) and offset > role.high_watermark
    if last_epoch < 0 or offset <= log.start_offset or behind:
        return
    if last_epoch > replica.leader_epoch:
        raise UnknownLeaderEpoch(
            f"{replica.partition}: the last record read is of leader epoch {last_epoch}, this broker knows {replica.leader_epoch}; retry",
            leader_epoch=replica.leader_epoch,
        )
    epoch, end_offset = log.epoch_end(last_epoch)
    if epoch < last_epoch or end_offset < offset:
        lost_from = min(end_offset, offset)
        raise LogTruncated(
            f"{replica.partition}: records from {lost_from} to {offset} that were read in leader epoch {last_epoch} no longer exist; "
            "decide whether to go on from there",
            lost_from=lost_from,
            lost_to=offset,
            epoch=epoch,
        )


def _timestamp_at(replica: Replica, offset: int, high_watermark: int) -> int | None:
    """Of the batch that holds the first record from ``offset`` on: that record's time, or the
    batch's latest when some of its records lie before. None when there is no record, as in what
    cleaning has left of a log's end."""
    position = offset
    while data := replica.log.read(position, 1, high_watermark):
        batch = peek(data)
        if batch.record_count > 0:
            whole = batch._replace(buffers=(data[: batch.bytes_total],))
            return first_timestamp(whole) if batch.base_offset >= offset else batch.max_timestamp
        position = batch.end_offset
    return None


def find_offset(replica: Replica, query: OffsetsPartition) -> OffsetsResult:
    """Offset by time, EARLIEST or LATEST, from a leader. Raises OffsetNotAvailable while the end is
    unknown (R7)."""
    log = replica.log
    timestamp = None
    if query.at == EARLIEST:
        offset = log.start_offset
    else:
        high_watermark = known_high_watermark(replica)
        if high_watermark is None:
            raise OffsetNotAvailable(
                f"{replica.partition}: its new leader does not know the committed end yet; retry shortly"
            )
        found = None if query.at == LATEST else log.offset_at(query.at)
        offset = high_watermark
        if found is not None and found[0] < high_watermark:
            offset, timestamp = found
        elif query.behind is not None and query.behind < high_watermark:
            timestamp = _timestamp_at(replica, max(query.behind, log.start_offset), high_watermark)
    last_epoch = log.epoch_at(offset - 1) if offset > log.start_offset else -1
    log_start = None if query.behind is None else log.start_offset
    found_at = offset, timestamp, replica.leader_epoch, last_epoch, replica.topic_id, log_start
    return OffsetsResult(query.topic, query.partition, None, *found_at)
