"""The consumer: reads assigned partitions, fetching ahead in the background.

``fetch_plan.py`` decides what to ask and what to hand out, ``pump.py`` asks. Here is what
applications call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Self

from minilog.errors import (
    BrokerUnavailable,
    ClientClosed,
    InvalidRequest,
    MinilogError,
    UnknownPartition,
    UnknownTopic,
)
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.tasks import TaskScope
from minilog_client.consumer.fetch_plan import FetchPlan
from minilog_client.consumer.partition_fetch import Lag, PartitionFetch, StartLike, parse_start
from minilog_client.consumer.pump import Pump
from minilog_client.consumer.records import Record
from minilog_client.consumer.topics import TopicsLike, parse_topics
from minilog_client.settings import ConsumerSettings
from minilog_client.values import PartitionKey

CommitLike = Record | Sequence[Record] | Mapping[PartitionKey, int] | None
_BATCH_RECORDS: Final = 1000
_IDLE_WAIT_MS: Final = 1000
_ERROR_WAIT_MS: Final = 50
START_WAIT_MS: Final = 10_000


class Consumer:
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
    (its ``info`` has ``topic``, ``partition``, ``lost_from``, ``lost_to``), CorruptRange,
    UnknownTopic, until the partition is moved with ``seek``; BrokerUnavailable when nothing could
    be reached for ``unreachable_timeout_ms``. Reading on after an error is always possible.
    """

    def __init__(
        self,
        cluster: Cluster,
        topics: TopicsLike | None,
        start: StartLike,
        settings: ConsumerSettings,
        on_closed: Callable[[Consumer], None],
    ) -> None:
        parse_start(start)
        self.settings = settings
        self._start_at = start
        self._cluster = cluster
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._plan = FetchPlan(cluster.routing, settings, cluster.settings.rack, cluster.random)
        self._whole_topics, self._fixed = ([], []) if topics is None else parse_topics(topics)
        self._tasks = TaskScope("minilog_client consumer")
        self._pump = Pump(cluster, self._plan, self._tasks, self._tell)
        self._news: asyncio.Future[None] | None = None
        self._current: PartitionFetch | None = None
        self._starting: asyncio.Task[None] | None = None
        self._topic_ids: dict[str, str] = {}
        self._watched: set[str] = set()
        self._unreachable_told_ms = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
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
        if self._starting is None:
            self._starting = self._tasks.start(self._begin())
        try:
            await asyncio.shield(self._starting)
        except MinilogError:
            self._starting = None
            raise
        except asyncio.CancelledError:
            self._check_open()
            raise

    async def _begin(self) -> None:
        topics = {*self._whole_topics, *(topic for topic, _ in self._fixed)}
        for topic in topics:
            await self._cluster.topic(topic)
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
            self._watched |= new
            self._cluster.watch(new, self._on_metadata)

    async def _wait_resolved(self, deadline_ms: int) -> None:
        """Until it is known where every partition starts, as far as that can be known. An error
        of one of them is told by reading, so that the others are read."""
        while self._unresolved() and now_ms() < deadline_ms:
            self._raise_unreachable(now_ms())
            await self._wait_news(deadline_ms)

    def _unresolved(self) -> bool:
        """Some partition's start is unknown although nothing is known to be wrong with it."""
        return any(s.is_unknown and s.attempts.tries < 3 for s in self._plan.states.values())

    async def batch(self, max_records: int = _BATCH_RECORDS, max_wait_ms: int = _IDLE_WAIT_MS) -> list[Record]:
        """Up to ``max_records`` records as soon as there are any; empty when none came within
        ``max_wait_ms``."""
        if max_records < 1:
            raise InvalidRequest(f"max_records is {max_records}; allowed are whole numbers >= 1")
        if self._starting is None or not self._starting.done():
            await self.start()
        deadline_ms = now_ms() + max_wait_ms
        await self._let_others_answer(deadline_ms)
        while True:
            self._check_open()
            self._current = None
            if await self._settled() and (records := self._take(max_records)):
                return records
            now = now_ms()
            self._raise_errors(now)
            if now >= deadline_ms:
                return []
            await self._wait_news(deadline_ms)

    async def _let_others_answer(self, deadline_ms: int) -> None:
        """There is an error to tell and nothing to hand out. Whoever reads on after each error
        would never let an answer in."""
        states = self._plan.states.values()
        if any(state.is_stopped for state in states) and not any(state.has_records for state in states):
            await self._wait_news(min(deadline_ms, now_ms() + _ERROR_WAIT_MS))

    def _take(self, max_records: int) -> list[Record]:
        """Whatever comes of it, there may be something to ask for next: room, or a partition whose
        error was told."""
        now = now_ms()
        try:
            self._raise_unreachable(now)
            return self._plan.take(max_records, now)
        finally:
            self._pump.wake(0)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """The next record; waits for one as long as it takes, or until something is wrong."""
        while True:
            state = self._current
            if state is not None and self._is_settled():
                if state.index < len(state.records):
                    record = state.records[state.index]
                    state.index += 1
                    state.position = record.offset + 1
                    return record
                self._plan.end_turn(state)
                self._pump.wake(0)
            self._current = None
            await self._wait_turn()

    async def _wait_turn(self) -> None:
        """Have a partition with records at hand."""
        if self._starting is None or not self._starting.done():
            await self.start()
        await self._let_others_answer(now_ms() + _IDLE_WAIT_MS)
        while True:
            self._check_open()
            if await self._settled() and self._find_turn():
                return
            now = now_ms()
            self._raise_errors(now)
            await self._wait_news(now + _IDLE_WAIT_MS)

    def _find_turn(self) -> bool:
        now = now_ms()
        try:
            self._raise_unreachable(now)
            self._current = self._plan.next_state(now)
        except MinilogError:
            self._pump.wake(0)
            raise
        return self._current is not None

    def _is_settled(self) -> bool:
        """Nothing is to be done before records may be handed out."""
        return True

    async def _settled(self) -> bool:
        """Do what is to be done before records may be handed out; False when they may not be
        yet."""
        return True

    # --- where it stands --------------------------------------------------------------------------

    @property
    def assignment(self) -> list[PartitionKey]:
        """The partitions being read."""
        return sorted(self._plan.states)

    def position(self, topic: str, partition: int) -> int | None:
        """The offset of the next record to be handed out; None until the start is known."""
        return self._state(topic, partition).position

    def positions(self) -> dict[PartitionKey, int | None]:
        return {key: state.position for key, state in self._plan.states.items()}

    def lag(self) -> dict[PartitionKey, Lag]:
        """Per partition, as of the last answer of its leader (at most ``max_wait_ms`` old while it
        answers)."""
        now_s = time.time()
        return {key: state.lag(now_s) for key, state in self._plan.states.items()}

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        """Go on elsewhere: an offset, "earliest", "latest", "@" with ms, or a datetime. Clears the
        partition's error."""
        state = self._state(topic, partition)
        state.reset(to)
        state.topic_id = self._topic_ids[topic] = self._current_topic_id(topic)
        if self._current is state:
            self._current = None
        self._pump.wake(0)

    def seek_to_time(self, to: StartLike, topic: str | None = None) -> None:
        """Move every partition (of ``topic``, or of all) to its first record at or after ``to``. An
        int is in ms."""
        target = f"@{to}" if isinstance(to, int) else to
        for name, partition in self.assignment:
            if topic in (None, name):
                self.seek(name, partition, target)

    def pause(self, topic: str, partition: int) -> None:
        """Hand out and fetch nothing of a partition until ``resume``. Its position stays."""
        state = self._state(topic, partition)
        state.paused = True
        if self._current is state:
            self._current = None

    def resume(self, topic: str, partition: int) -> None:
        self._state(topic, partition).paused = False
        self._tell()
        self._pump.wake(0)

    def return_unread(self, unread: Mapping[PartitionKey, int]) -> None:
        """For the synchronous face, which reads ahead: what was handed out from these offsets on
        has not reached the application."""
        for key in unread.keys() & self._plan.states.keys():
            state = self._plan.states[key]
            self._put_back(state, unread[key])
            if self._current is state:
                self._current = None
        self._pump.wake(0)

    def _put_back(self, state: PartitionFetch, offset: int) -> None:
        state.put_back(offset)

    async def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Only a consumer with a group commits; raises InvalidRequest."""
        raise InvalidRequest("this consumer has no group to commit to; make it with consumer(..., group=...)")

    async def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """Only a consumer with a group knows committed offsets; raises InvalidRequest."""
        raise InvalidRequest("this consumer has no group to ask; make it with consumer(..., group=...)")

    async def close(self, timeout_ms: int | None = None) -> None:
        """Stop; returns at once. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._pump.stop()
        self._cluster.unwatch(self._watched, self._on_metadata)
        self._tell()
        await self._tasks.aclose()
        self._on_closed(self)

    # --- details ----------------------------------------------------------------------------------

    def _on_metadata(self) -> None:
        """New partitions are read from their beginning. A topic that was created anew stops."""
        for topic in self._whole_topics:
            for partition in self._partitions_of(topic):
                if (topic, partition) not in self._plan.states:
                    self._add(topic, partition, "earliest")
        for state in self._plan.states.values():
            known = self._current_topic_id(state.topic)
            if known and state.topic_id and known != state.topic_id:
                state.reset(state.position or 0)
                state.on_failed(UnknownTopic(f"topic {state.topic} was deleted and created anew; seek to go on"))
                state.topic_id = ""
        self._tell()
        self._pump.wake(0)

    def _tell(self) -> None:
        """Something may have changed for whoever waits to read."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _wait_news(self, deadline_ms: int) -> None:
        if self._news is None or self._news.done():
            self._news = self._loop.create_future()
        await asyncio.wait([self._news], timeout=max(0, deadline_ms - now_ms()) / 1000)

    def _raise_errors(self, now: int) -> None:
        """Nothing can be handed out: raise the reason, if there is one other than that nothing is
        new."""
        try:
            self._plan.raise_errors(now)
            self._raise_unreachable(now)
        except MinilogError:
            self._pump.wake(0)
            raise

    def _raise_unreachable(self, now: int) -> None:
        """Tell the application, now and then, that a partition cannot be reached for long."""
        limit_ms = self.settings.unreachable_timeout_ms
        for state in self._plan.states.values():
            since_told_ms = now - self._unreachable_told_ms
            if state.attempts.failing_for_ms(now) < limit_ms or since_told_ms < limit_ms:
                continue
            self._unreachable_told_ms = now
            error = state.attempts.last_error
            reason = error.detail if error else "no answer"
            raise BrokerUnavailable(
                f"{state.topic}-{state.partition} could not be read for {limit_ms} ms, the last reason: {reason}; "
                "reading on tries again",
                definite=True,
            )

    def _add(
        self, topic: str, partition: int, start: StartLike, last_epoch: int = -1, topic_id: str = ""
    ) -> PartitionFetch:
        """Read a partition of the topic with ``topic_id``, and with "" of the one that is read
        already, or that there is."""
        state = self._plan.add(topic, partition, start, last_epoch)
        state.topic_id = topic_id or self._topic_ids.setdefault(topic, self._current_topic_id(topic))
        return state

    def _current_topic_id(self, topic: str) -> str:
        known = self._cluster.routing.topic(topic)
        return known.topic_id if known else ""

    def _partitions_of(self, topic: str) -> Sequence[int]:
        known = self._cluster.routing.topic(topic)
        return sorted(known.partitions) if known else ()

    def _state(self, topic: str, partition: int) -> PartitionFetch:
        state = self._plan.states.get((topic, partition))
        if state is None:
            assigned = ", ".join(f"{name}-{number}" for name, number in self.assignment[:10]) or "none yet"
            raise InvalidRequest(f"{topic}-{partition} is not read by this consumer; it reads {assigned}")
        return state

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the consumer is closed; make a new one")
