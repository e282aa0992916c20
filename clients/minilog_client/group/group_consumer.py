"""The consumer as a member of a group. The coordinator says what to read, ``membership.py`` keeps
what it said and ``heartbeats.py`` talks. ``share.py`` carries it out, between the records that the
application asks for here.

Everything the application can notice happens while it asks for records (or closes): partitions are
begun, given back and found lost there, and its callbacks run there, so they never run beside its
own processing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from minilog.errors import ClientClosed, InvalidRequest
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    CommittedOffsets,
    CommittedOffsetsReply,
)
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.consumer.consumer import START_WAIT_MS, CommitLike, Consumer
from minilog_client.consumer.partition_fetch import PartitionFetch, StartLike
from minilog_client.consumer.records import Record
from minilog_client.group.callbacks import Callbacks
from minilog_client.group.committer import Committer
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.heartbeats import Heart, MemberTask, PollClock
from minilog_client.group.holdings import METADATA_CHARS_MAX, Holdings
from minilog_client.group.layouts import Layouts
from minilog_client.group.membership import MemberView, Subscription, by_topic
from minilog_client.group.progress import Progress
from minilog_client.group.share import Share
from minilog_client.group.standing import Standing
from minilog_client.group.start_offsets import StartOffsets
from minilog_client.settings import ConsumerSettings, GroupSettings
from minilog_client.values import PartitionKey

_log = logging.getLogger("minilog_client")


class GroupConsumer(Consumer):
    """Reads its share of the topics of a group; made by ``client.consumer(..., group=...)``.

    ```python
    async with client.consumer("orders", group="billing", start="earliest") as consumer:
        async for record in consumer:
            print(record.partition, record.offset, record.value)
            if record.offset == 41:
                await consumer.commit(record)
                break
        print(await consumer.committed())
    ```

    **At least once.** With ``auto_commit`` (the default) a record is committed some time after the
    next one was asked for, and when its partition is given back. ``commit`` does it at once. After
    a crash the records since the last commit come again, here or at another member. None is left
    out.

    **Where it begins.** A partition without a committed offset at ``start`` (that offset is then
    committed, unless it is the earliest, so that nobody begins elsewhere later). A partition added
    to a topic while this member reads it, at its beginning. A topic that comes to match a pattern,
    at ``start``. A committed offset that is out of range raises OffsetOutOfRange (or resets, if
    ``out_of_range`` says so). Records that were read and committed and are gone after a lossy
    election raise LogTruncated. Nothing resets silently.

    **Callbacks**, functions or coroutine functions, get a list of (topic, partition) and run while
    the application asks for records or closes: ``on_assigned`` before the first record of these
    partitions. ``on_revoked`` before they are given to another member (what is finished is
    committed right after it). ``on_lost`` when they may be somebody else's already, so nothing can
    be committed any more. An exception in a callback comes out of the read.

    **Staying a member.** Heartbeats go on in the background, also while the application blocks its
    event loop. One that asks for no records for ``max_poll_interval_ms`` loses its partitions. The
    next read calls ``on_lost`` and joins again (or raises UnknownMember first, with
    ``max_poll_exceeded="raise"``). While no coordinator can be reached for longer than a session,
    reading pauses. It goes on when one answers.

    Raises while reading, besides what ``Consumer`` does: InconsistentGroup, InvalidGroup,
    InstanceInUse when the group does not let this member in; reading on tries again.
    """

    def __init__(
        self,
        cluster: Cluster,
        heart: Heart,
        subscription: Subscription,
        start: StartLike,
        settings: ConsumerSettings,
        group_settings: GroupSettings,
        callbacks: Callbacks,
        on_closed: Callable[[Consumer], None],
    ) -> None:
        super().__init__(cluster, None, start, settings, on_closed)
        self.group_settings = group_settings
        self.group = subscription.group
        self._subscription = subscription
        self._heart = heart
        self._clock = PollClock(now_ms())
        self._session = MemberTask(subscription, self._clock, cluster.random, self._on_news)
        self._coordinator = Coordinator(cluster, subscription.group)
        self._held = Holdings()
        self._progress = Progress(self._held)
        self._layouts = Layouts(cluster, self._watch_topics)
        self._lookup = StartOffsets(self._session, self._coordinator, self._tasks, self._layouts.know, self._on_lookup)
        self._standing = Standing(self._session, heart, self._lookup, settings.unreachable_timeout_ms)
        self._committer = Committer(
            self._session, heart, self._coordinator, self._held, group_settings, self._wait_news, self._progress.note
        )
        self._share = Share(
            self._session, heart, self._held, self._layouts, self._lookup, self._committer, callbacks,
            group_settings.auto_commit, start, self._begin_reading, self._end_reading,
        )  # fmt: skip
        self._unsettled = False
        self._polling = False
        self._joined = False
        self._closing = False

    # --- joining ----------------------------------------------------------------------------------

    @property
    def member_id(self) -> str:
        """What the coordinator knows this member as. Another one after each loss."""
        return self._session.view.member_id

    @property
    def member_epoch(self) -> int:
        """The group epoch of what is assigned; 0 while not in the group."""
        return self._session.view.member_epoch

    async def start(self) -> None:
        """Join, and begin with what is assigned at once; called by the first read if not before.

        Raises UnknownTopic, BrokerUnavailable, TimedOut, InvalidGroup, InconsistentGroup,
        InstanceInUse."""
        await super().start()
        deadline_ms = now_ms() + START_WAIT_MS
        while (await self._settled() and len(self._lookup)) or self._unsettled:
            if now_ms() >= deadline_ms:
                break
            await self._wait_news(deadline_ms)
        await self._wait_resolved(deadline_ms)
        if any(held.pinned for held in self._held.values()):
            await self._committer.commit_quietly(False)
        if not self._polling:
            self._clock.leave(now_ms())

    async def _begin(self) -> None:
        for topic in self._subscription.topics:
            await self._cluster.topic(topic)
        self._layouts.see(self._subscription.topics)
        self._watch_topics([GROUPS_TOPIC, *self._subscription.topics])
        if not self._joined:
            self._joined = True
            self._heart.start(self._session)
            self._tasks.start(self._committer.run())
        wait_ms = START_WAIT_MS + (self._subscription.session_timeout_ms if self._subscription.instance_id else 0)
        deadline_ms = now_ms() + wait_ms
        while not self._session.view.answers:
            self._standing.raise_refusal(self._session.view)
            if now_ms() >= deadline_ms:
                self._standing.raise_not_joined(wait_ms)
            await self._wait_news(deadline_ms)

    def _on_news(self, view: MemberView) -> None:
        """Called in the heartbeats' thread."""
        self._unsettled = True
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            self._session.abandon()

    def _on_metadata(self) -> None:
        self._layouts.see(self._watched)
        super()._on_metadata()

    # --- reading ----------------------------------------------------------------------------------

    async def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record]:
        """Up to ``max_records`` records as soon as there are any; empty when none came within
        ``max_wait_ms``.

        Asking again says that these are finished with."""
        self._enter()
        try:
            records = await super().batch(max_records, max_wait_ms)
            if records:
                self._progress.on_batch(self._plan.taken)
            return records
        finally:
            self._leave()

    async def __anext__(self) -> Record:
        """The next record; says that the last one is finished with."""
        progress, state = self._progress, self._current
        if (
            state is not None and state is progress.iterated
            and state.index < len(state.records) and self._is_settled()
        ):  # fmt: skip
            record = state.records[state.index]
            state.index += 1
            state.position = record.offset + 1
            progress.previous, progress.last = progress.last, record
            self._clock.touch(self._loop.time())
            return record
        self._enter()
        try:
            record = await super().__anext__()
            assert self._current is not None, "the record is of the partition whose turn it is"
            progress.on_first(self._current, record)
            return record
        finally:
            self._leave()

    def _enter(self) -> None:
        if self._polling:
            raise InvalidRequest("the consumer is being read already; read from one task, and not from a callback")
        self._polling = True
        self._clock.enter()
        self._progress.ask()

    def _leave(self) -> None:
        self._polling = False
        self._clock.leave(now_ms())

    def _is_settled(self) -> bool:
        return not self._unsettled and self._loop.time() * 1000 < self._session.view.hold_until_ms

    async def _settled(self) -> bool:
        while self._unsettled:
            self._unsettled = False
            try:
                await self._follow(self._session.view)
            except BaseException:
                self._unsettled = True
                raise
        return self._is_settled()

    # --- for the synchronous face, which reads ahead ----------------------------------------------

    @property
    def wants_attention(self) -> bool:
        """Something is to be done before the next record. From any thread."""
        return not self._is_settled()

    def touch(self) -> None:
        """The application has taken a record that was read ahead. From any thread."""
        self._clock.touch(self._loop.time())

    def finish(self, record: Record) -> None:
        """The application is done with a record that was read ahead, though not with all of
        them."""
        held = self._held.get((record.topic, record.partition))
        if held is not None and held.handed_out(record.offset):
            held.finish_record(record)

    def _put_back(self, state: PartitionFetch, offset: int) -> None:
        super()._put_back(state, offset)
        held = self._held.get((state.topic, state.partition))
        if held is not None:
            held.on_put_back()

    # --- following the coordinator ----------------------------------------------------------------

    async def _follow(self, view: MemberView) -> None:
        """Lose, give back and take up what ``view`` says. In the application's own task."""
        await self._share.lose(view)
        self._standing.come_back(view, self.group_settings.max_poll_exceeded == "raise")
        await self._share.give_back(view)
        await self._share.take_up(view)

    def _begin_reading(self, key: PartitionKey, start: StartLike, last_epoch: int, topic_id: str) -> PartitionFetch:
        self._pump.wake(0)
        return self._add(*key, start, last_epoch, topic_id)

    def _end_reading(self, state: PartitionFetch) -> None:
        self._plan.remove((state.topic, state.partition))
        if self._current is state:
            self._current = None

    def _on_lookup(self) -> None:
        self._unsettled = True
        self._tell()

    def _raise_unreachable(self, now: int) -> None:
        if self._standing.is_fine(now):
            super()._raise_unreachable(now)

    # --- committing -------------------------------------------------------------------------------

    async def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Commit, all or nothing: a record (it and all before it), a list of records, offsets to go
        on from like ``{("orders", 0): 42}``, or nothing for all that was handed out so far. Durable
        when it returns.

        Raises UnknownMember or StaleMemberEpoch for what this member has lost, also when it has got
        the partition again since. Raises UnknownTopic for a topic that was deleted or made anew,
        NotAssigned for what it was never given, InvalidRequest, TypeError. Raises TimedOut or
        BrokerUnavailable after ``timeout_ms`` (``commit_timeout_ms`` by default), when it is not
        known whether it is committed."""
        self._check_usable()
        if len(metadata) > METADATA_CHARS_MAX:
            raise InvalidRequest(f"metadata has {len(metadata)} characters; allowed are {METADATA_CHARS_MAX}")
        if what is None:
            self._progress.finish_all()
            await self.commit_finished(metadata, timeout_ms)
        else:
            self._progress.note()
            await self._committer.commit(self._held.parse(what), metadata, timeout_ms)

    async def commit_finished(self, metadata: str, timeout_ms: int | None) -> None:
        """Commit what is finished with, and nothing of what was only handed out."""
        marks = {key: held.finished for key, held in self._held.items() if held.finished is not None}
        await self._committer.commit(marks, metadata, timeout_ms)

    async def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """What the group has committed of ``partitions`` (by default those assigned here): the next
        offset to read, None where there is nothing."""
        self._check_usable()
        keys = self.assignment if partitions is None else sorted(partitions)
        message = CommittedOffsets(self.group, by_topic(keys, self._session.view.topic_ids))
        limit_ms = self.group_settings.commit_timeout_ms if timeout_ms is None else timeout_ms
        reply = await self._coordinator.call(message, CommittedOffsetsReply, limit_ms)
        found = {(entry.topic, entry.partition): entry.offset for entry in reply.offsets}
        return {key: found.get(key) for key in keys}

    # --- where it stands, and the end -------------------------------------------------------------

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        """Go on elsewhere, until the partition is given to another member. Does not commit
        anything."""
        held = self._held.get((topic, partition))
        position = None if held is None else held.state.position
        super().seek(topic, partition, to)
        if held is not None:
            self._progress.leave(held)
            held.on_seek(to, position)
            held.state.topic_id = held.topic_id or held.state.topic_id

    async def close(self, timeout_ms: int | None = None) -> None:
        """Commit what is finished (with ``auto_commit``), call ``on_revoked``, leave the group. At
        the latest after ``timeout_ms`` (``close_timeout_ms`` by default) it is over. May be called
        twice."""
        if self._closing:
            return
        self._closing = True
        limit_ms = self.settings.close_timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = now_ms() + limit_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await self._share.let_go(deadline_ms)
        except TimeoutError:
            _log.warning("group %s: committing at the end took more than %s ms", self.group, limit_ms)
        finally:
            if self._joined:
                await self._heart.stop(self._session, max(1, deadline_ms - now_ms()))
            await super().close()

    def _check_open(self) -> None:
        if self._closing:
            raise ClientClosed("the consumer is closed; make a new one")
        super()._check_open()

    def _check_usable(self) -> None:
        """Committing is possible to the very end, in the callbacks of ``close`` as well."""
        super()._check_open()
