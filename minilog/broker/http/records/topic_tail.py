"""A whole topic as one stream: NDJSON up to its end, or on and on, and server-sent events.

Any broker serves it, and asks the leaders of the partitions for it. A partition without a leader is
waited for: the others go on. Each record says its partition, and a cursor with which a client that
comes back goes on behind it, in every partition. For a group it begins where the group is, and the
cursor a client comes back with is committed: what it has received is finished.

Records of one partition come in their order. Between partitions there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from aiohttp import web

from minilog.broker.http.cluster.event_stream import KEEP_ALIVE_MS
from minilog.broker.http.exchange import THREAD_BYTES_MIN, Exchange, Handler, HttpContext, checked
from minilog.broker.http.groups.group_forward import group_call
from minilog.broker.http.records.cursor import PARTITIONS_MAX, Cursor, commits_of, cursor_of
from minilog.broker.http.records.native import run_fetch
from minilog.broker.http.records.partition_reader import find_offset, wanted_of
from minilog.broker.http.records.record_page import Page, page_of
from minilog.errors import InvalidRequest, LeaderNotAvailable, MinilogError
from minilog.server.inbound.event_stream import EventStream
from minilog.wire.batch import is_compressed
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
)
from minilog.wire.http import EVENTS, Start, problem_body
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import EARLIEST, LATEST, Fetch, FetchPartition, FetchReply, FetchResult, Message

PAUSE_MS: Final = 200
"""How long a partition that cannot be read at the moment is left alone."""
PAUSES_MAX: Final = 100
"""How often, where nothing else is read meanwhile and the answer has an end."""


class _Place:
    """Where one partition is read. ``last_epoch`` is of the record before ``offset``, -1
    unknown."""

    __slots__ = ("last_epoch", "offset", "partition")

    def __init__(self, partition: int, offset: int, last_epoch: int = -1) -> None:
        self.partition = partition
        self.offset = offset
        self.last_epoch = last_epoch


async def fetch_topic(context: HttpContext, exchange: Exchange) -> web.StreamResponse:
    media = exchange.media_out()
    tail = _TopicTail(context, exchange, is_events=media == EVENTS)
    await tail.begin()
    stream = exchange.event_stream(media)
    await stream.open()
    await tail.run(stream)
    await stream.close()
    return stream.response


class _TopicTail:
    def __init__(self, context: HttpContext, exchange: Exchange, *, is_events: bool) -> None:
        query = exchange.query
        self._context = context
        self._exchange = exchange
        self._is_events = is_events
        self._goes_on = is_events or query.get("follow") == "true"
        self._topic = context.topic(exchange.values["topic"], exchange.topic_id)
        self._max_bytes, self._wanted = wanted_of(context, query)
        self._places: dict[int, _Place] = {}
        self._at_end: set[int] = set()
        """Partitions that have been read up to their end, where that is the end of it all."""
        self._pauses = 0
        """Since something was read last."""

    # --- where it begins --------------------------------------------------------------------------

    async def begin(self) -> None:
        """Raises what there is to say while it can be said with a status."""
        if self._max_bytes > self._context.limits.fetch_bytes_max:
            bound = self._context.limits.fetch_bytes_max
            raise InvalidRequest(f"max_bytes is {self._max_bytes}; this broker allows at most {bound}")
        self._check_count()
        cursor = self._cursor()
        if cursor is not None:
            self._context.topic(self._topic.topic, cursor.topic_id)
        known = {} if cursor is None else dict(enumerate(cursor.offsets))
        group = self._exchange.query.get("group")
        if group is not None:
            known = await self._of_group(group, cursor)
        default: Start = self._exchange.query.get("offset", Start(at=self._usual_start))
        if default.offset is not None:
            raise InvalidRequest("offset is a number, which each partition has; give earliest, latest, @ms or a cursor")
        assert default.at is not None, "a start is an offset or a time"
        at = EARLIEST if cursor is not None else default.at
        await asyncio.gather(*(self._place(number, known.get(number), at) for number in self._topic.partitions))

    def _check_count(self) -> None:
        if len(self._topic.partitions) > PARTITIONS_MAX:
            raise InvalidRequest(
                f"topic {self._topic.topic} has {len(self._topic.partitions)} partitions; a topic of at most "
                f"{PARTITIONS_MAX} is read as one; read its partitions"
            )

    def _cursor(self) -> Cursor | None:
        header = self._exchange.request.headers.get("Last-Event-ID")
        if header:
            return cursor_of("Last-Event-ID", header)
        word = self._exchange.query.get("cursor")
        return None if word is None else cursor_of("cursor", word)

    @property
    def _usual_start(self) -> int:
        is_tail = self._is_events and "group" not in self._exchange.query
        return LATEST if is_tail else EARLIEST

    async def _of_group(self, group: str, cursor: Cursor | None) -> dict[int, int]:
        """Where the group is, which is where ``cursor`` says by now."""
        if cursor is not None:
            message = CommitOffsets(group, commits_of(self._context, self._topic.topic, cursor))
            self._exchange.permit(message)
            checked(await group_call(self._context, message), CommitOffsetsReply)
            return dict(enumerate(cursor.offsets))
        asked = CommittedOffsets(group)
        self._exchange.permit(asked)
        found = checked(await group_call(self._context, asked), CommittedOffsetsReply)
        mine = (each for each in found.offsets if each.topic == self._topic.topic)
        return {
            each.partition: each.offset
            for each in mine
            if each.offset is not None and each.topic_id in ("", self._topic.topic_id)
        }

    async def _place(self, partition: int, offset: int | None, at: int) -> None:
        epoch = -1
        if offset is None:
            topic = self._topic
            found = await find_offset(self._context, topic.topic, partition, at, topic.topic_id, forward=True)
            assert found.offset is not None, "find_offset raises where there is none"
            offset, epoch = found.offset, found.last_epoch
        self._places[partition] = _Place(partition, offset, epoch)

    # --- reading on -------------------------------------------------------------------------------

    async def run(self, stream: EventStream) -> None:
        """An error ends the stream as its last event, or line."""
        pending: dict[asyncio.Task[FetchReply | None], list[_Place]] = {}
        quiet = b": keep-alive\n\n" if self._is_events else b"\n"
        try:
            while not self._context.closing and stream.is_open and len(self._at_end) < len(self._places):
                self._ask(pending)
                done, _ = await asyncio.wait(pending, timeout=KEEP_ALIVE_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    await stream.write(quiet)
                for result in [each for task in done for each in self._results(task, pending)]:
                    if body := await self._taken(result):
                        await stream.write(body)
        except MinilogError as error:
            said = problem_body(error)
            await stream.write(
                b"event: error\ndata: " + said + b"\n\n" if self._is_events else b'{"error":' + said + b"}\n"
            )
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _ask(self, pending: dict[asyncio.Task[FetchReply | None], list[_Place]]) -> None:
        """Have each partition asked for, or left alone for a moment: a request to each leader."""
        self._take_in_new()
        busy = {place.partition for places in pending.values() for place in places} | self._at_end
        by_url: dict[str | None, list[_Place]] = {}
        for number, place in self._places.items():
            if number not in busy:
                by_url.setdefault(self._leader_of(number), []).append(place)
        for url, places in by_url.items():
            work = self._pause() if url is None else self._read(url, places)
            pending[asyncio.create_task(work)] = places

    def _take_in_new(self) -> None:
        """A partition that was added is read from its beginning. Raises UnknownTopic,
        InconsistentTopicId, InvalidRequest."""
        self._topic = self._context.topic(self._topic.topic, self._topic.topic_id)
        self._check_count()
        for number in self._topic.partitions:
            if number not in self._places and self._goes_on:
                self._places[number] = _Place(number, 0)

    def _leader_of(self, partition: int) -> str | None:
        """Whom to ask: "" is here. None: nobody at the moment."""
        leader = self._topic.partitions[partition].leader
        if leader == self._context.broker_id:
            return ""
        broker = self._context.runtime.image.brokers.get(leader)
        return None if leader == NO_LEADER or broker is None else broker.url

    async def _pause(self) -> None:
        """Raises LeaderNotAvailable where an end is waited for, and does not come."""
        await asyncio.sleep(PAUSE_MS / 1000)
        self._pauses += 1
        if not self._goes_on and self._pauses >= PAUSES_MAX:
            raise LeaderNotAvailable(
                f"partitions of topic {self._topic.topic} cannot be read at the moment; retry shortly"
            )

    async def _read(self, url: str, places: Iterable[_Place]) -> FetchReply | None:
        """None: not now."""
        topic = self._topic
        wait_ms = min(KEEP_ALIVE_MS, self._context.limits.wait_ms_max) if self._goes_on else 0
        entries = [
            FetchPartition(
                topic.topic, each.partition, each.offset, self._max_bytes, -1, each.last_epoch, topic.topic_id
            )
            for each in places
        ]
        message = Fetch(entries, wait_ms, 1, self._max_bytes)
        try:
            reply: Message
            if url:
                timeout_ms = wait_ms + self._context.runtime.settings.peer_timeout_ms
                reply = await self._context.runtime.call(url, message, timeout_ms)
            else:
                reply = await run_fetch(self._context, self._exchange.delivery, message)
            return checked(reply, FetchReply)
        except MinilogError as error:
            if not error.retriable:
                raise
            await self._pause()
            return None

    def _results(
        self, task: asyncio.Task[FetchReply | None], pending: dict[asyncio.Task[FetchReply | None], list[_Place]]
    ) -> list[FetchResult]:
        """What a request has brought. What cannot be read at the moment is left alone for one."""
        places = {place.partition: place for place in pending.pop(task)}
        reply = task.result()
        results = [] if reply is None else [each for each in reply.partitions if each.partition in places]
        waiting: list[_Place] = []
        for result in results:
            place = places[result.partition]
            if result.problem is not None:
                error = result.problem.error()
                if not error.retriable:
                    raise error
                waiting.append(place)
            elif not self._goes_on and not len(result.batches):
                self._on_nothing(place, result.high_watermark, waiting)
        if waiting:
            pending[asyncio.create_task(self._pause())] = waiting
        return [result for result in results if result.problem is None]

    def _on_nothing(self, place: _Place, high_watermark: int | None, waiting: list[_Place]) -> None:
        """It is at its end, or others have filled the answer, or a new leader does not know the
        end yet."""
        if high_watermark is None:
            waiting.append(place)
        elif place.offset >= high_watermark:
            self._at_end.add(place.partition)

    async def _taken(self, result: FetchResult) -> bytes:
        """The records of ``result``, shown; and move on behind them."""
        place, batches = self._places[result.partition], result.batches
        if not len(batches):
            return b""
        self._pauses = 0
        self._exchange.delivery.expect(len(batches))

        def work() -> Page:
            return page_of(batches, place.offset, place.last_epoch, self._wanted)

        is_long = len(batches) >= THREAD_BYTES_MIN or is_compressed(batches)
        page = await self._context.compute(work, is_long=is_long)
        body = self._shown(place, page)
        place.offset, place.last_epoch = page.next_offset, page.last_epoch
        return body

    def _shown(self, place: _Place, page: Page) -> bytes:
        """Each record with its partition, and the cursor behind it."""
        offsets = [str(self._places[number].offset) for number in sorted(self._places)]
        at = sorted(self._places).index(place.partition)
        before = ".".join([self._topic.topic_id, *offsets[:at], ""]).encode()
        after = "".join(f".{offset}" for offset in offsets[at + 1 :]).encode()
        shape = (
            b'id: %b%d%b\ndata: {"partition":%d,%b\n\n'
            if self._is_events
            else b'{"cursor":"%b%d%b","partition":%d,%b\n'
        )
        rows = zip(page.offsets, page.texts, strict=True)
        return b"".join(shape % (before, offset + 1, after, place.partition, text[1:]) for offset, text in rows)


HANDLERS: Final[Mapping[str, Handler]] = {"fetch_topic": fetch_topic}
