"""One partition being read: where it stands, what was fetched ahead, what went wrong. Pure.

    position <= ... records decoded ... <= ... batches fetched ... <= fetch_offset

Invariants:
* Records come out in offset order, each at most once per seek. The position moves with every record
  handed out.
* Nothing resets silently: an offset out of range, a truncated log, damaged data stop the partition
  with an error that is raised again and again until the application seeks (or has chosen otherwise
  with ``out_of_range``).
* A reply counts only for the request it answers: every move starts a new ``generation`` (R5).
* To take back what was handed out and not used is no seek. Which epochs were read is remembered,
  so that a loss is found out from the earlier offset too. Nothing is fetched again for that.
* ``last_epoch`` is the epoch of the record before ``fetch_offset`` as it was read here, or -1; sent
  along with every fetch it lets the leader see that what was read is no longer in its log (R23,
  KIP-320).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.errors import (
    BrokerUnavailable,
    CorruptBatch,
    CorruptRange,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
    UnknownTopic,
)
from minilog.wire.batch import Batch
from minilog.wire.messages import (
    FetchPartition,
    FetchResult,
    OffsetsPartition,
    OffsetsResult,
)
from minilog_client.connection.backoff import DELAY_MAX_MS, Attempts
from minilog_client.consumer.columns import decode_columns
from minilog_client.consumer.decoding import Decoding, UndecodableRecord
from minilog_client.consumer.records import AnyRecord, Record, decode, undecodable
from minilog_client.consumer.start import Start, StartLike, parse_start
from minilog_client.settings import ErrorsTolerance
from minilog_client.values import PartitionKey

TOPIC_GRACE_MS: Final = 2000
CORRUPT_TRIES_MAX: Final = 3
"""A reply may be damaged on its way. A log that answers damaged bytes so often is damaged
itself."""
_STICKY: Final = (OffsetOutOfRange, LogTruncated, UnknownTopic, CorruptBatch, CorruptRange)
_log: Final = logging.getLogger("minilog_client")


class Lag(NamedTuple):
    """How far reading is behind: ``records`` up to the high watermark that can be read still,
    ``seconds`` by the time of the last record read.

    None where nothing is known yet."""

    records: int | None
    seconds: float | None


class PartitionFetch:
    """``position`` is None until the start is resolved. ``request`` is the token of the request
    under way, if any."""

    def __init__(
        self,
        topic: str,
        partition: int,
        start: StartLike,
        last_epoch: int = -1,
        errors_tolerance: ErrorsTolerance = "none",
        decoding: Decoding | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._skips_unreadable = errors_tolerance == "all"
        self._decoding = decoding
        self.topic_id = ""
        """Of the topic whose offsets these are. Once known it is never unknown again."""
        self.remade_as = ""
        """The id of the other topic that has the name by now, "" while there is none."""
        self.paused = False
        self.high_watermark: int | None = None
        self.log_start_offset = 0
        self.lag_ms = 0
        self.attempts = Attempts()
        self.leader_only_until_ms = 0
        """After a follower could not serve this partition, only the leader is asked until then."""
        self.generation = 0
        self._taken_in = 0
        """The generation in which records were taken last."""
        self.began_at: tuple[int, int] | None = None
        """What a start that is no offset turned out to be, and the epoch of the record before it.
        No seek changes it. A reset does."""
        self.reset_in = 0
        """The generation that a reset began, 0 while there was none."""
        self.reset(start, last_epoch)

    def reset(self, start: StartLike, last_epoch: int = -1) -> None:
        """Go elsewhere: whatever was fetched or is under way is for nothing. ``last_epoch``: the
        epoch of the record before an offset ``start``, as far as it is known."""
        kind, value = parse_start(start)
        self.remade_as = ""
        self._move()
        self.not_before_ms = 0
        self.last_timestamp: int | None = None
        self.start_at = value
        self.position: int | None = None
        if kind is Start.OFFSET:
            self._stand_at(value, last_epoch)
        else:
            self._stand_at(0, -1)
            self.position = None

    def on_out_of_range(self, choice: StartLike) -> None:
        """The application has said beforehand where to go on."""
        self.reset(choice)
        self.began_at, self.reset_in = None, self.generation

    def on_remade(self, topic_id: str) -> None:
        """Another topic has the name now: nothing of that is read before the application seeks."""
        self.reset(self.position or 0)
        self.high_watermark, self.log_start_offset, self.lag_ms = None, 0, 0
        self.on_failed(UnknownTopic(f"topic {self.topic} was deleted and created anew; seek to go on"))
        self.remade_as = topic_id

    def _move(self) -> None:
        self.generation += 1
        self.request: object | None = None
        self.error: MinilogError | None = None

    def _stand_at(self, offset: int, last_epoch: int) -> None:
        self.position = self.fetch_offset = offset
        self.last_epoch = last_epoch
        self._epochs: list[tuple[int, int]] = [(offset - 1, last_epoch)]
        """Each epoch that was read, with the offset it was read from."""
        self.fetched: deque[Batch] = deque()
        self.fetched_bytes = 0
        self.records: Sequence[AnyRecord] = ()
        self.index = 0
        self._records_end = offset

    def put_back(self, records: Sequence[AnyRecord]) -> None:
        """``records``, the last that were handed out, have not been used, and are handed out again.
        What was fetched beyond them stays, and an error there is met after them.

        What was handed out before a loss or a move is no good any more, and is fetched again. An
        error about lost records stays if some of them were used."""
        error = self.error
        if self.position is not None and self._taken_in == self.generation and not isinstance(error, LogTruncated):
            self.records, self.index = [*records, *self.records[self.index :]], 0
            self.position = records[0].offset
            return
        self._move()
        self._go_back(records[0].offset)
        if isinstance(error, UnknownTopic):
            self.error = error
        elif isinstance(error, LogTruncated):
            self._stop_if_used(error)

    def _go_back(self, offset: int) -> None:
        """Drop everything from ``offset`` on, also what is under way: it begins beyond that. What
        comes before it was read here."""
        self.request = None
        epochs = [each for each in self._epochs if each[0] < offset]
        self._stand_at(offset, epochs[-1][1] if epochs else -1)
        self._epochs = epochs or self._epochs

    def epoch_before(self, offset: int) -> int:
        """Of the record before ``offset``, as far as it was read here."""
        return next((epoch for begin, epoch in reversed(self._epochs) if begin < offset), -1)

    def __repr__(self) -> str:
        return f"PartitionFetch({self.topic}-{self.partition} at {self.position}, {self.fetched_bytes} bytes ahead)"

    # --- what to ask ------------------------------------------------------------------------------

    def wants(self, now_ms: int, ahead_bytes_max: int) -> bool:
        """Something is to be asked for this partition now."""
        if self.request is not None or self.paused or self.error is not None or now_ms < self.not_before_ms:
            return False
        return self.position is None or self.fetched_bytes < ahead_bytes_max

    def fetch_request(self, max_bytes: int, leader_epoch: int) -> FetchPartition:
        """Names the very topic: no broker, late or early, answers with records of another one of
        that name."""
        return FetchPartition(
            self.topic, self.partition, self.fetch_offset, max_bytes, leader_epoch, self.last_epoch, self.topic_id
        )

    def offsets_request(self) -> OffsetsPartition:
        return OffsetsPartition(self.topic, self.partition, self.start_at, topic_id=self.topic_id)

    # --- what came back ---------------------------------------------------------------------------

    def on_offsets(self, result: OffsetsResult) -> None:
        """The start is known."""
        assert self.position is None, "a generation is resolved once"
        assert result.offset is not None, "a result without a problem has an offset"
        self._stand_at(result.offset, result.last_epoch)
        if self.generation in (1, self.reset_in):  # not what a seek was looked up for
            self.began_at = (result.offset, result.last_epoch)
        self.attempts.on_success()

    def on_fetched(self, result: FetchResult, batches: Sequence[Batch]) -> None:
        """``batches`` are those of ``result``, validated and owned by this object."""
        self.attempts.on_success()
        if result.high_watermark is not None:
            self.high_watermark = result.high_watermark
        self.log_start_offset = result.log_start_offset
        self.lag_ms = result.lag_ms
        for batch in batches:
            if batch.end_offset <= self.fetch_offset:
                continue
            self.fetched.append(batch)
            self.fetched_bytes += batch.bytes_total
            self.fetch_offset = batch.end_offset
            if batch.leader_epoch != self.last_epoch:
                self._epochs.append((batch.base_offset, batch.leader_epoch))
            self.last_epoch = batch.leader_epoch

    def on_truncated(self, error: LogTruncated) -> None:
        """The log this partition was read from has lost its end, from ``lost_from`` on.

        What was fetched ahead and not handed out is dropped quietly. The application is told if it
        has read records that are gone."""
        if self.position is not None and isinstance(error.info.get("lost_from"), int):
            self._go_back(self.position)
        self._stop_if_used(error)

    def _stop_if_used(self, error: LogTruncated) -> None:
        lost_from = error.info.get("lost_from")
        position = self.position
        if not isinstance(lost_from, int) or position is None:
            self.error = error
        elif lost_from < position:
            self.error = LogTruncated(
                f"{self.topic}-{self.partition}: the records from {lost_from} up to {position} that were read here "
                f"are gone after a lossy election; seek to {lost_from} to go on"
            )
            self.error.info.update(
                error.info, topic=self.topic, partition=self.partition, lost_from=lost_from, lost_to=position
            )

    def on_failed(self, error: MinilogError) -> None:
        """An error that repeating the request does not cure; raised once what came before it has
        been read."""
        if self.error is None:
            error.info.setdefault("topic", self.topic)
            error.info.setdefault("partition", self.partition)
            self.error = error

    def lag(self, now_s: float) -> Lag:
        if self.high_watermark is None or self.position is None:
            return Lag(None, None)
        records = max(0, self.high_watermark - max(self.position, self.log_start_offset))
        if records == 0:
            return Lag(0, self.lag_ms / 1000)
        timestamp = self.records[self.index - 1].timestamp if self.index else self.last_timestamp
        return Lag(records, None if timestamp is None else max(0.0, now_s - timestamp / 1000))

    @property
    def is_unknown(self) -> bool:
        """Where to begin is being looked up."""
        return self.position is None and self.error is None

    # --- what is handed out -----------------------------------------------------------------------

    @property
    def has_records(self) -> bool:
        return not self.paused and self.is_ahead

    @property
    def is_ahead(self) -> bool:
        """Something was fetched and is not handed out yet, paused or not."""
        return self.index < len(self.records) or bool(self.fetched)

    @property
    def is_stopped(self) -> bool:
        """Nothing is left to hand out before the error."""
        return self.error is not None and not self.paused and not self.has_records

    def fill(self, as_columns: bool = False) -> bool:
        """Have decoded records at hand, if there are any. A batch that cannot be decoded stops the
        partition, unless such are skipped."""
        decoded = decode_columns if as_columns and self._decoding is None else decode
        while self.index >= len(self.records):
            if not self.fetched:
                return False
            assert self.position is not None, "batches are fetched for a known position"
            batch = self.fetched[0]
            self.position = max(self.position, self._records_end)
            try:
                raw: Sequence[Record] = decoded(self.topic, self.partition, batch, self.position)
            except CorruptBatch as error:
                unreadable = undecodable(self.topic, self.partition, batch, self.position, error)
                if not self._skips_unreadable:
                    self._go_back(self.position)
                    self.on_failed(unreadable)
                    return False
                _log.warning("skipped: %s", unreadable.detail)
                raw = []
            records, unwanted = (raw, None) if self._decoding is None else self._decoding.decode(raw)
            if unwanted is not None:
                return self._stop_behind(records, unwanted)
            self.fetched.popleft()
            self.fetched_bytes -= batch.bytes_total
            self.records, self.index, self._records_end = records, 0, batch.end_offset
            if not records:
                self.position = batch.end_offset
        return True

    def _stop_behind(self, records: Sequence[AnyRecord], unreadable: UndecodableRecord) -> bool:
        """Hand out ``records``, and nothing behind them. False: there are none."""
        self._go_back(unreadable.info["offset"])
        self.on_failed(unreadable)
        self.records = records
        if records:
            self.position = records[0].offset
        return bool(records)

    def take(self, count_max: int) -> Sequence[AnyRecord]:
        """The next records, all of one batch. The position moves past them."""
        if not self.fill():
            return ()
        records = self.records
        if self.index or len(records) > count_max:
            records = records[self.index : self.index + count_max]
        self.index += len(records)
        self._taken_in = self.generation
        last = records[-1]
        self.last_timestamp = last.timestamp
        self.position = self._records_end if self.index == len(self.records) else last.offset + 1
        return records

    def raise_error(self, now_ms: int) -> None:
        """Raise what stopped the partition. Only what the application must decide on stays until it
        seeks."""
        error = self.error
        if error is None:
            return
        if not isinstance(error, _STICKY):
            self.error = None
            self.not_before_ms = now_ms + DELAY_MAX_MS
        raise error.with_traceback(None)


class Taken(NamedTuple):
    """How far a partition has been handed out: the next offset, and the last record before it."""

    state: PartitionFetch
    offset: int
    leader_epoch: int
    generation: int
    last_offset: int
    record_count: int

    @property
    def state_key(self) -> PartitionKey:
        return self.state.topic, self.state.partition


def unreachable(state: PartitionFetch, limit_ms: int) -> BrokerUnavailable:
    error = state.attempts.last_error
    return BrokerUnavailable(
        f"{state.topic}-{state.partition} could not be read for {limit_ms} ms, the last reason: "
        f"{error.detail if error else 'no answer'}; reading on tries again",
        definite=True,
    )


def is_final(error: MinilogError, attempts: Attempts, now_ms: int) -> bool:
    """Repeating the fetch cannot help: the application must be told."""
    if isinstance(error, UnknownTopic):
        return attempts.failing_for_ms(now_ms) >= TOPIC_GRACE_MS
    if isinstance(error, CorruptBatch):
        return attempts.tries >= CORRUPT_TRIES_MAX
    return not error.retriable
