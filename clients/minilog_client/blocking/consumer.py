"""The consumers without ``await``. Each call is carried out by the asynchronous object of the same
name.

Iteration reads ahead here as well, so that not every record crosses to the loop's thread. What was
read ahead was handed out for the asynchronous consumer, and not for the application. So here it is
noted which record the application works on: all before it are done with, and it is done with when
the next one is asked for."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Final, Self, TypeVar

from minilog_client.connection.loop_thread import LoopThread
from minilog_client.consumer.consumer import CommitLike, Consumer
from minilog_client.consumer.partition_fetch import Lag, StartLike
from minilog_client.consumer.records import Record
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.values import PartitionKey

T = TypeVar("T")
SyncCallback = Callable[[list[PartitionKey]], None]
_READ_AHEAD_RECORDS: Final = 1000
_REPORT_S: Final = 0.02
"""How often iteration says how far it is."""
_Call = tuple[SyncCallback, list[PartitionKey], asyncio.Future[None]]
_calls: ContextVar[SimpleQueue[_Call | None]] = ContextVar("minilog_client_calls")
"""Where the thread that waits for the current task takes callbacks from."""


class SyncConsumer:
    """Iterating waits for records as long as it takes. ``batch`` for ``max_wait_ms`` at most."""

    def __init__(self, thread: LoopThread, consumer: Consumer) -> None:
        self._thread = thread
        self._consumer = consumer
        self._records: Sequence[Record] = ()
        self._index = 0

    def __enter__(self) -> Self:
        self._run(self._consumer.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        while self._index >= len(self._records):
            self._records, self._index = self._run(self._consumer.batch(_READ_AHEAD_RECORDS)), 0
        record = self._records[self._index]
        self._index += 1
        return record

    def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record]:
        """See ``Consumer.batch``."""
        if self._index < len(self._records):
            records = list(self._records[self._index : self._index + max_records])
            self._index += len(records)
            return records
        return self._run(self._consumer.batch(max_records, max_wait_ms))

    @property
    def assignment(self) -> list[PartitionKey]:
        return self._thread.call(lambda: self._consumer.assignment)

    def position(self, topic: str, partition: int) -> int | None:
        unread = self._unread().get((topic, partition))
        return self._thread.call(lambda: self._consumer.position(topic, partition)) if unread is None else unread

    def positions(self) -> dict[PartitionKey, int | None]:
        return {**self._thread.call(self._consumer.positions), **self._unread()}

    def lag(self) -> dict[PartitionKey, Lag]:
        """See ``Consumer.lag``. What the iteration has read ahead counts as read."""
        return self._thread.call(self._consumer.lag)

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        self._forget(topic, partition)
        self._thread.call(lambda: self._consumer.seek(topic, partition, to))

    def seek_to_time(self, to: StartLike, topic: str | None = None) -> None:
        for name, partition in self.assignment:
            if topic in (None, name):
                self._forget(name, partition)
        self._thread.call(lambda: self._consumer.seek_to_time(to, topic))

    def pause(self, topic: str, partition: int) -> None:
        key = (topic, partition)
        unread = self._unread().get(key)
        if unread is not None:
            self._drop_unread(topic, partition)
            self._thread.call(lambda: self._consumer.return_unread({key: unread}))
        self._thread.call(lambda: self._consumer.pause(topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self._thread.call(lambda: self._consumer.resume(topic, partition))

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``Consumer.close``. Does nothing once the client is closed, which closed this too."""
        if self._thread.is_open:
            self._run(self._consumer.close(timeout_ms))

    def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Only a consumer with a group commits; raises InvalidRequest."""
        self._run(self._consumer.commit(what, metadata=metadata, timeout_ms=timeout_ms))

    def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """Only a consumer with a group knows committed offsets; raises InvalidRequest."""
        return self._run(self._consumer.committed(partitions, timeout_ms))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return run_with_callbacks(self._thread, work)

    def _unread(self) -> dict[PartitionKey, int]:
        """The first offset per partition that iteration has read ahead but not handed out."""
        first: dict[PartitionKey, int] = {}
        for record in self._records[self._index :]:
            first.setdefault((record.topic, record.partition), record.offset)
        return first

    def _forget(self, topic: str, partition: int) -> None:
        """The partition is read elsewhere."""
        self._drop_unread(topic, partition)

    def _drop_unread(self, topic: str, partition: int) -> None:
        left = self._records[self._index :]
        self._records = [r for r in left if (r.topic, r.partition) != (topic, partition)]
        self._index = 0


class SyncGroupConsumer(SyncConsumer):
    """See ``GroupConsumer``. Callbacks are plain functions, called in the thread that reads or
    closes."""

    def __init__(self, thread: LoopThread, consumer: GroupConsumer) -> None:
        super().__init__(thread, consumer)
        self._member = consumer
        self._report_s = 0.0
        self._left: Record | None = None
        """The record being worked on, when it is none of ``_records`` any more."""

    @property
    def group(self) -> str:
        return self._member.group

    @property
    def member_id(self) -> str:
        return self._member.member_id

    @property
    def member_epoch(self) -> int:
        return self._member.member_epoch

    def __next__(self) -> Record:
        now_s = time.monotonic()
        if now_s >= self._report_s or self._left is not None:
            self._report_s = now_s + _REPORT_S
            self._finish_taken()
            self._member.touch()
        if self._index < len(self._records) and self._member.wants_attention:
            self._return_unread()
        if self._index >= len(self._records):  # what comes next may be under other grants
            self._records, self._index = (), 0
        return super().__next__()

    def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record]:
        """See ``GroupConsumer.batch``."""
        self._finish_taken()
        self._return_unread()
        return super().batch(max_records, max_wait_ms)

    def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """See ``GroupConsumer.commit``. What iteration has read ahead does not count as handed
        out."""
        self._finish_taken(with_last=what is None)
        if what is None and self._index < len(self._records):
            self._run(self._member.commit_finished(metadata, timeout_ms))
        else:
            self._run(self._member.commit(what, metadata=metadata, timeout_ms=timeout_ms))

    def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """See ``GroupConsumer.committed``."""
        return self._run(self._member.committed(partitions, timeout_ms))

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``GroupConsumer.close``."""
        self._finish_taken(with_last=False)
        super().close(timeout_ms)

    def _finish_taken(self, with_last: bool = True) -> None:
        """The application is done with what it has taken of the records that were read ahead: with
        the last one too when it asks for more, or commits."""
        taken = self._records[: self._index if with_last else max(0, self._index - 1)]
        last = {(record.topic, record.partition): record for record in taken}
        for record in last.values():
            self._member.finish(record)
        if with_last and self._left is not None:
            self._member.finish(self._left)
            self._left = None

    def _forget(self, topic: str, partition: int) -> None:
        """The partition is read elsewhere: a record of it that is being worked on will not count as
        done with."""
        super()._forget(topic, partition)
        if self._left is not None and (self._left.topic, self._left.partition) == (topic, partition):
            self._left = None

    def _drop_unread(self, topic: str, partition: int) -> None:
        self._finish_taken(with_last=False)
        if self._index:
            self._left = self._records[self._index - 1]
        super()._drop_unread(topic, partition)

    def _return_unread(self) -> None:
        """The group wants something, which must not wait until all that was read ahead is used
        up."""
        unread = self._unread()
        self._finish_taken()
        self._records, self._index = (), 0
        if unread:
            self._thread.call(lambda: self._consumer.return_unread(unread))


def in_waiting_thread(function: SyncCallback | None) -> Callable[[list[PartitionKey]], Awaitable[None]] | None:
    """A callback as the asynchronous consumer takes it: carried out by the thread that waits for
    the current task."""
    if function is None or not callable(function):
        return function
    if inspect.iscoroutinefunction(function):
        raise TypeError("a callback of the synchronous client is a plain function, got a coroutine function")

    async def call(partitions: list[PartitionKey]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _calls.get().put((function, partitions, done))
        await done

    return call


def run_with_callbacks(thread: LoopThread, work: Coroutine[Any, Any, T]) -> T:
    """Carry out ``work`` in the loop's thread, and the callbacks it asks for in this one."""
    calls: SimpleQueue[_Call | None] = SimpleQueue()
    token = _calls.set(calls)
    try:
        future = thread.submit(work)
    finally:
        _calls.reset(token)
    future.add_done_callback(lambda _: calls.put(None))
    try:
        while (call := calls.get()) is not None:
            _carry_out(thread, *call)
    except BaseException:
        future.cancel()
        raise
    return thread.result(future)


def _carry_out(
    thread: LoopThread, function: SyncCallback, partitions: list[PartitionKey], done: asyncio.Future[None]
) -> None:
    try:
        function(partitions)
    except Exception as error:
        thread.post(_fail, done, error)
    else:
        thread.post(_succeed, done)


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _succeed(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
