"""The consumers without ``await``. Each call is carried out by the asynchronous object of the same
name.

Reading goes ahead here, so that not every record crosses to the loop's thread. What was read ahead
lies in a ``ReadAhead`` and belongs to the consumer until the application's thread takes it from
there, in a step that no signal can cut in two.

Invariants:
* An exception may come out of any line here: a signal's handler raises it, for a time limit or for
  Ctrl-C. Whatever the line, the next call finds all that was not returned, and no lock is held.
* ``_is_at_hand`` is true only while nothing that this thread has begun is under way in the loop's
  thread. It is false before such a thing begins, and true again when it has ended well."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Generic, Self, TypeVar

from minilog.errors import ClientClosed, InvalidRequest
from minilog_client.blocking.callbacks import WaitingCalls, is_calling_back, run_with_callbacks, waiting_calls
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.consumer.columns import Columns, columns_of
from minilog_client.consumer.consumer import CONSUMER_CLOSED, CommitLike, Consumer
from minilog_client.consumer.partition_fetch import Lag
from minilog_client.consumer.read_ahead import ReadAhead
from minilog_client.consumer.records import Record
from minilog_client.consumer.start import StartLike, as_time
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.serializers.type_variables import K, V
from minilog_client.values import PartitionKey, check_count

T = TypeVar("T")
_READ_AHEAD_RECORDS: Final = 1000
_IDLE_WAIT_MS: Final = 1000
_TOUCH_S: Final = 0.02
"""How often iteration says that the application asks for records."""


class SyncConsumer(Generic[V, K]):
    """Iterating waits for records as long as it takes. ``batch`` for ``max_wait_ms`` at most."""

    def __init__(
        self, thread: LoopThread, consumer: Consumer[V, K], on_closed: Callable[[AnySyncConsumer], None]
    ) -> None:
        self._thread = thread
        self._on_closed = on_closed
        self._consumer = consumer
        self._ahead = ReadAhead()
        self._is_at_hand = False
        """What is read ahead may be taken."""
        self._is_stopping = False
        self._reading: asyncio.Task[Any] | None = None
        """The read that was begun last, by the thread ``_reader``."""
        self._reader = 0
        self._waiting: WaitingCalls | None = None
        """Where the call that was begun last takes callbacks from."""
        consumer._remains.belong_to(self)

    def __enter__(self) -> Self:
        try:
            self._run(self._consumer.start)
        except BaseException:  # the block is not entered, so nobody else closes this
            with contextlib.suppress(Exception):
                self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading ----------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record[V, K]:
        ahead = self._ahead
        while self._is_stopping or not self._is_at_hand or ahead.end >= len(ahead.records):
            if self._is_stopping:
                self._end()
                raise StopIteration
            self._read(_READ_AHEAD_RECORDS, _IDLE_WAIT_MS)
        index = ahead.end
        record: Record[V, K] = ahead.records[index]
        ahead.begin = index
        ahead.end = index + 1
        return record  # as in ``ReadAhead.take``

    def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record[V, K]]:
        """See ``Consumer.batch``."""
        return self._many(max_records, max_wait_ms, False, list)

    def batch_columns(self, max_records: int = 10_000, max_wait_ms: int = 1000) -> Columns[V, K]:
        """See ``Consumer.batch_columns``."""
        return self._many(max_records, max_wait_ms, True, columns_of)

    def _many(
        self, max_records: int, max_wait_ms: int, as_columns: bool, make: Callable[[Sequence[Record[V, K]]], T]
    ) -> T:
        check_count(max_records)
        ahead = self._ahead
        if self._is_stopping and self._consumer.is_closed:
            raise ClientClosed(CONSUMER_CLOSED)
        if not self._is_stopping and (not self._is_at_hand or ahead.end >= len(ahead.records)):
            self._read(max_records, max_wait_ms, as_columns)
        if self._is_stopping:
            self._end()
            return make([])
        return ahead.take(max_records, make)

    def _end(self) -> None:
        """After ``stop``. Asking once more says that what was handed out is finished, and closes.
        What was read ahead is nobody's again."""
        if not self._consumer.is_closed:
            self._read(1, 1)
        self.close()

    def _read(self, max_records: int, max_wait_ms: int, as_columns: bool = False) -> None:
        """Have something at hand to take."""
        reader = threading.get_ident()
        self._is_at_hand = False
        self._run(lambda: self._read_ahead(reader, max_records, max_wait_ms, as_columns))
        self._is_at_hand = True

    async def _read_ahead(self, reader: int, max_records: int, max_wait_ms: int, as_columns: bool) -> None:
        self._check_not_inside()
        await self._end_interrupted(reader)
        self._reader, self._reading = reader, asyncio.current_task()
        try:
            await self._consumer.read_ahead(self._ahead, max_records, max_wait_ms, as_columns)
        finally:
            self._reading = None

    def _check_not_inside(self) -> None:
        """Raises InvalidRequest in a callback of this consumer: the read it is called by would wait
        for itself."""

    async def _end_interrupted(self, reader: int) -> None:
        """A thread that reads while its last read goes on was interrupted in it, and wants nothing
        of it any more."""
        while (reading := self._reading) is not None:
            if self._reader != reader:
                raise InvalidRequest("the consumer is being read already, by another thread")
            reading.cancel()
            await asyncio.wait([reading])

    # --- where it stands --------------------------------------------------------------------------

    @property
    def assignment(self) -> list[PartitionKey]:
        return self._thread.call(lambda: self._consumer.assignment)

    def position(self, topic: str, partition: int) -> int | None:
        def here() -> int | None:
            unread = self._ahead.first_unread().get((topic, partition))
            return self._consumer.position(topic, partition) if unread is None else unread

        return self._thread.call(here)

    def positions(self) -> dict[PartitionKey, int | None]:
        return self._thread.call(lambda: {**self._consumer.positions(), **self._ahead.first_unread()})

    def lag(self) -> dict[PartitionKey, Lag]:
        """See ``Consumer.lag``. What the iteration has read ahead counts as read."""
        return self._thread.call(self._consumer.lag)

    @property
    def skipped(self) -> int:
        """See ``Consumer.skipped``. From any thread."""
        return self._consumer.skipped

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        """See ``Consumer.seek``."""
        self._change(lambda: self._consumer.seek_ahead(self._ahead, [(topic, partition)], to))

    def seek_to_time(self, to: StartLike, topic: str | None = None) -> None:
        """See ``Consumer.seek_to_time``."""
        consumer, ahead = self._consumer, self._ahead
        self._change(lambda: consumer.seek_ahead(ahead, consumer.of_topic(topic), as_time(to)))

    def pause(self, topic: str, partition: int) -> None:
        self._change(lambda: self._consumer.pause_ahead(self._ahead, topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self._thread.call(lambda: self._consumer.resume(topic, partition))

    def _change(self, function: Callable[[], None]) -> None:
        """Have something done to what is read ahead. Nothing is taken from it meanwhile."""
        was_at_hand, self._is_at_hand = self._is_at_hand, False
        self._thread.call(function)
        self._is_at_hand = was_at_hand

    # --- committing, and the end ------------------------------------------------------------------

    def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Only a consumer with a group commits; raises InvalidRequest."""
        self._run(lambda: self._consumer.commit(what, metadata=metadata, timeout_ms=timeout_ms))

    def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """Only a consumer with a group knows committed offsets; raises InvalidRequest."""
        return self._run(lambda: self._consumer.committed(partitions, timeout_ms))

    def stop(self) -> None:
        """See ``Consumer.stop``."""
        self._is_stopping = True
        self._consumer.stop()

    @property
    def is_closed(self) -> bool:
        """See ``Consumer.is_closed``."""
        return self._consumer.is_closed

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``Consumer.close``. Does nothing once the client is closed, which closed this too."""
        self._is_at_hand = False
        if self._thread.is_open:
            self._run(lambda: self._consumer.close(timeout_ms))
        self._on_closed(self)

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Carry out what ``make`` makes in the loop's thread."""
        return run_with_callbacks(self._thread, lambda: self._noted(make))

    async def _noted(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The callbacks of a call that was interrupted are called again by the next one."""
        mine = waiting_calls.get()
        if not is_calling_back.get():
            before, self._waiting = self._waiting, mine
            if before is not None and before.reader == mine.reader:
                before.abandon()
        return await make()


class SyncGroupConsumer(SyncConsumer[V, K]):
    """See ``GroupConsumer``. Callbacks are plain functions, called in the thread that reads or
    closes."""

    def __init__(
        self, thread: LoopThread, consumer: GroupConsumer[V, K], on_closed: Callable[[AnySyncConsumer], None]
    ) -> None:
        super().__init__(thread, consumer, on_closed)
        self._member = consumer
        self._touch_s = 0.0

    @property
    def group(self) -> str:
        return self._member.group

    @property
    def member_id(self) -> str:
        return self._member.member_id

    @property
    def member_epoch(self) -> int:
        return self._member.member_epoch

    def __next__(self) -> Record[V, K]:
        self._look_up()
        return super().__next__()

    def _many(
        self, max_records: int, max_wait_ms: int, as_columns: bool, make: Callable[[Sequence[Record[V, K]]], T]
    ) -> T:
        self._look_up()
        return super()._many(max_records, max_wait_ms, as_columns, make)

    def _look_up(self) -> None:
        """The application asks for more. When the group wants something, that must not wait until
        all that was read ahead is used up."""
        now_s = time.monotonic()
        if now_s >= self._touch_s:
            self._touch_s = now_s + _TOUCH_S
            self._member.touch()
        if self._member.wants_attention:
            self._is_at_hand = False

    def _check_not_inside(self) -> None:
        self._member.check_not_inside()

    def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """See ``GroupConsumer.commit``. What iteration has read ahead does not count as handed
        out."""
        super().commit(what, metadata=metadata, timeout_ms=timeout_ms)

    def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """See ``GroupConsumer.committed``."""
        return super().committed(partitions, timeout_ms)

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``GroupConsumer.close``."""
        super().close(timeout_ms)


AnySyncConsumer = SyncConsumer[Any, Any]
