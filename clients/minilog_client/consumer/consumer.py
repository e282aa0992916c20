"""The consumer: reads assigned partitions, fetching ahead in the background.

``fetch_plan.py`` decides what to ask and what to hand out, ``pump.py`` asks. Here is what
applications call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

from minilog.errors import ClientClosed, InvalidRequest, UnknownPartition
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.forgotten import GivenBack, Remains, weakly
from minilog_client.connection.news import News
from minilog_client.connection.own_loop import check_loop, is_cancelled
from minilog_client.connection.tasks import TaskScope
from minilog_client.consumer.batches import Batches
from minilog_client.consumer.columns import joined
from minilog_client.consumer.fetch_plan import FetchPlan
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.pump import Pump, end_of_reading
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.consumer.start import Start, StartLike, parse_start
from minilog_client.consumer.topics import TopicsLike, parse_topics
from minilog_client.serializers.type_variables import K, V
from minilog_client.settings import ConsumerSettings
from minilog_client.values import PartitionKey, check_count, checked_wait

CommitLike = AnyRecord | Sequence[AnyRecord] | Mapping[PartitionKey, int] | None
_IDLE_WAIT_MS: Final = 1000
_ERROR_WAIT_MS: Final = 50
START_WAIT_MS: Final = 10_000
CONSUMER_CLOSED: Final = "the consumer is closed; make a new one"


class Consumer(Batches[V, K]):
    """Reads the partitions it was given; made by ``client.consumer(...)``.

    ```python
    async with client.consumer("orders", start="earliest") as consumer:
        async for record in consumer:
            print(record.partition, record.offset, record.value)
            if record.offset == 41:
                break

    async with client.consumer([("orders", 0)], start=42) as consumer:
        records = await consumer.batch(max_records=100, max_wait_ms=200)  # [] when nothing is new
    ```

    Partitions added to a topic later are read from their beginning. Entering the consumer (or the
    first read) fixes where it starts. ``start`` is "earliest", "latest", an offset, "@" with ms
    since the epoch, or a datetime.

    Raises while reading, once everything before has been handed out: OffsetOutOfRange, LogTruncated
    (``info`` has ``lost_from``, ``lost_to``), CorruptBatch and CorruptRange (``end_offset``),
    UnknownTopic, until the partition is moved with ``seek``; BrokerUnavailable when nothing could
    be reached for ``unreachable_timeout_ms``. Reading on after an error is always possible.

    ``stop()`` ends the loop from a signal handler or another thread.
    """

    def __init__(
        self, cluster: Cluster, topics: TopicsLike | None, start: StartLike, settings: ConsumerSettings,
        on_closed: Callable[[AnyConsumer], None],
    ) -> None:  # fmt: skip
        parse_start(start)
        self.settings = settings
        self._start_at = start
        self._cluster = cluster
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._plan = FetchPlan(cluster.routing, settings, cluster.settings.rack, cluster.random)
        self._whole_topics, self._fixed = ([], []) if topics is None else parse_topics(topics)
        self._tasks = TaskScope("minilog_client consumer")
        news = News()
        self._tell, self._wait_news = news.tell, news.wait
        self._pump = Pump(cluster, self._plan, self._tasks, self._tell)
        self._current = None
        self._starting: asyncio.Task[None] | None = None
        self._topic_ids: dict[str, str] = {}
        self._watched: set[str] = set()
        self._closed = self._closing = False
        self._is_stopping = False
        self._listener = weakly(self._on_metadata)
        self._remains: Remains

    def _watch_over(self) -> Remains:
        """See to what remains of this if it is forgotten."""
        loop, watched = self._loop, self._watched
        self._remains = Remains(self, lambda: loop if watched else None, *self._given_back())
        return self._remains

    def _given_back(self) -> GivenBack:
        topics = ", ".join(sorted({*self._whole_topics, *(topic for topic, _ in self._fixed)}))
        end = partial(end_of_reading, self._pump, self._cluster, self._tasks, self._watched, self._listener)
        return f"Consumer({topics})", end, lambda: None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(sorted(self._watched)) or 'not started'})"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # the block is not entered, so nobody else closes this
            with contextlib.suppress(Exception):
                await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- reading ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look up the topics and fix where each partition is read from; called by the first read if
        not before.

        Raises UnknownTopic, UnknownPartition, BrokerUnavailable. A partition without a leader is
        left for later."""
        self._check_open()
        if self._is_stopping:
            return
        if self._starting is None or (self._starting.done() and not self._has_begun):
            self._starting = self._tasks.start(self._begin())
        try:
            await (asyncio.sleep(0) if self._starting.done() else asyncio.shield(self._starting))
        except asyncio.CancelledError:
            self._check_open()
            if not self._is_stopping or is_cancelled():
                raise

    @property
    def _has_begun(self) -> bool:
        """The start has ended well. It may also have failed while nobody waited for it."""
        starting = self._starting
        return starting is not None and starting.done() and not (starting.cancelled() or starting.exception())

    async def _begin(self) -> None:
        topics = {*self._whole_topics, *(topic for topic, _ in self._fixed)}
        for topic in topics:
            await self._cluster.topic(topic)
        for topic in {topic for topic, partition in self._fixed if partition not in self._partitions_of(topic)}:
            await self._cluster.refresh(topic, is_anew=True)  # it may have been added a moment ago
        for topic, partition in self._fixed:
            if partition not in self._partitions_of(topic):
                count = len(self._partitions_of(topic))
                raise UnknownPartition(f"topic {topic} has no partition {partition}; it has {count}, counted from 0")
        whole = [(topic, partition) for topic in self._whole_topics for partition in self._partitions_of(topic)]
        for topic, partition in [*self._fixed, *whole]:
            if (topic, partition) not in self._plan.states:
                self._add(topic, partition, self._start_at)
        self._watch_topics(topics)
        self._pump.run()
        await self._wait_resolved(now_ms() + START_WAIT_MS)

    def _watch_topics(self, topics: Iterable[str]) -> None:
        """Keep the layout of these fresh, and hear of changes."""
        new = set(topics) - self._watched
        if new:
            self._watched.update(new)
            self._cluster.watch(new, self._listener)

    async def _wait_resolved(self, deadline_ms: int) -> None:
        """Until it is known where every partition starts, as far as that can be known. An error
        of one of them is told by reading, so that the others are read."""
        while self._plan.is_unresolved and not self._is_stopping and now_ms() < deadline_ms:
            self._raise_unreachable(now_ms())
            await self._wait_news(deadline_ms)

    async def _read(self, max_records: int, max_wait_ms: int, as_columns: bool = False) -> Sequence[AnyRecord]:
        check_count(max_records)
        checked_wait("max_wait_ms", max_wait_ms)
        if not self._has_begun:
            await self.start()
        deadline_ms = now_ms() + max_wait_ms
        await self._let_others_answer(deadline_ms)
        while True:
            self._check_open()
            self._current = None
            if self._is_stopping:
                await self.close()
                return joined([]) if as_columns else []
            if await self._settled() and (records := self._take(max_records, as_columns)):
                return records
            if self._is_stopping:
                continue
            now = now_ms()
            self._raise_errors(now)
            if now >= deadline_ms:
                await asyncio.sleep(0)  # whoever asks again and again without waiting lets others run
                return joined([]) if as_columns else []
            await self._wait_news(deadline_ms)

    async def _let_others_answer(self, deadline_ms: int) -> None:
        """There is an error to tell and nothing to hand out. Whoever reads on after each error
        would never let an answer in."""
        states = self._plan.states.values()
        if any(state.is_stopped for state in states) and not any(state.has_records for state in states):
            await self._wait_news(min(deadline_ms, now_ms() + _ERROR_WAIT_MS))

    def _take(self, max_records: int, as_columns: bool) -> Sequence[AnyRecord]:
        """Whatever comes of it, there may be something to ask for next: room, or a partition whose
        error was told."""
        now = now_ms()
        try:
            self._raise_unreachable(now)
            return self._plan.take(max_records, now, as_columns)
        finally:
            self._pump.wake(0)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record[V, K]:
        """The next record; waits for one as long as it takes, or until something is wrong, or
        ``stop`` is called."""
        while True:
            state = self._current
            if state is not None and self._is_settled():
                if state.index < len(state.records):
                    record: Record[V, K] = state.records[state.index]
                    state.index += 1
                    state.position = record.offset + 1
                    return record
                self._plan.end_turn(state)
                self._pump.wake(0)
            self._current = None
            if self._is_stopping:
                await self.close()
                raise StopAsyncIteration
            await self._wait_turn()

    async def _wait_turn(self) -> None:
        """Have a partition with records at hand, unless ``stop`` is called."""
        if not self._has_begun:
            await self.start()
        await self._let_others_answer(now_ms() + _IDLE_WAIT_MS)
        while True:
            self._check_open()
            if (await self._settled() and self._find_turn()) or self._is_stopping:
                return
            now = now_ms()
            self._raise_errors(now)
            await self._wait_news(now + _IDLE_WAIT_MS)

    def _find_turn(self) -> bool:
        now = now_ms()
        with self._pump.woken_by_errors():
            self._raise_unreachable(now)
            self._current = self._plan.next_state(now)
        return self._current is not None

    def _is_settled(self) -> bool:
        """Nothing is to be done before records may be handed out."""
        return not self._is_stopping

    async def _settled(self) -> bool:
        """Do what is to be done before records may be handed out; False when they may not be
        yet."""
        return self._is_settled()

    # --- committing, and the end ------------------------------------------------------------------

    async def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Only a consumer with a group commits; raises InvalidRequest."""
        raise InvalidRequest("this consumer has no group to commit to; make it with consumer(..., group=...)")

    async def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """Only a consumer with a group knows committed offsets; raises InvalidRequest."""
        raise InvalidRequest("this consumer has no group to ask; make it with consumer(..., group=...)")

    def stop(self) -> None:
        """Have the loop end: the next read, or the one that waits, closes the consumer (with a
        group it commits what is finished and leaves) and hands out nothing. Iteration ends, and
        ``batch`` returns []. Returns at once. May be called from any thread and from a signal
        handler."""
        self._is_stopping = True
        with contextlib.suppress(RuntimeError):  # the loop is over
            self._loop.call_soon_threadsafe(self._on_stop)

    def _on_stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        self._tell()

    @property
    def is_closed(self) -> bool:
        """``close`` was called, or a read has ended after ``stop``. From any thread."""
        return self._closing

    async def close(self, timeout_ms: int | None = None) -> None:
        """Stop; returns at once. May be called twice."""
        if self._closed:
            return
        self._closed = self._closing = True
        self._current = None
        self._remains.settle()
        self._on_closed(self)
        self._tell()
        await end_of_reading(self._pump, self._cluster, self._tasks, self._watched, self._listener)

    # --- details ----------------------------------------------------------------------------------

    def _on_metadata(self) -> None:
        """New partitions are read from their beginning. A topic that was created anew stops."""
        for topic in self._whole_topics:
            for partition in self._partitions_of(topic):
                if (topic, partition) not in self._plan.states:
                    self._add(topic, partition, "earliest")
        for state in self._plan.states.values():
            known = self._current_topic_id(state.topic)
            if known and state.topic_id and known not in (state.topic_id, state.remade_as):
                state.on_remade(known)
        self._tell()
        self._pump.wake(0)

    def _raise_errors(self, now: int) -> None:
        """Nothing can be handed out: raise the reason, if there is one other than that nothing is
        new."""
        with self._pump.woken_by_errors():
            self._plan.raise_errors(now)
            self._raise_unreachable(now)

    def _raise_unreachable(self, now: int) -> None:
        self._plan.raise_unreachable(now)

    def _add(
        self, topic: str, partition: int, start: StartLike, last_epoch: int = -1, topic_id: str = ""
    ) -> PartitionFetch:
        """Read a partition of the topic with ``topic_id``, and with "" of the one that is read
        already, or that there is."""
        kind, value = parse_start(start)
        if kind is Start.TIME:
            self._cluster.time_units.look_at(topic, value)
        state = self._plan.add(topic, partition, start, last_epoch)
        state.topic_id = topic_id or self._topic_ids.setdefault(topic, self._current_topic_id(topic))
        return state

    def _partitions_of(self, topic: str) -> Sequence[int]:
        known = self._cluster.routing.topic(topic)
        return sorted(known.partitions) if known else ()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(CONSUMER_CLOSED)
        check_loop(self._loop)


AnyConsumer = Consumer[Any, Any]
