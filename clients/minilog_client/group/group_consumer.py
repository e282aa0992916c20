"""The consumer as a member of a group. The coordinator says what to read, ``membership.py`` keeps
what it said and ``heartbeats.py`` talks. ``share.py`` carries it out, between the records that the
application asks for here.

Everything the application can notice happens while it asks for records (or closes): partitions are
begun, given back and found lost there, and its callbacks run there, so they never run beside its
own processing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from minilog.errors import BrokerUnavailable, ClientClosed, InvalidRequest
from minilog.wire.group_messages import GROUPS_TOPIC
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.ending import Ending
from minilog_client.connection.forgotten import GivenBack, weakly
from minilog_client.consumer.consumer import CONSUMER_CLOSED, START_WAIT_MS, AnyConsumer, CommitLike, Consumer
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.read_ahead import ReadAhead
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.consumer.start import StartLike
from minilog_client.group.callbacks import Callbacks
from minilog_client.group.committer import Committer
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.ends import refuse_beyond_ends
from minilog_client.group.following import Following
from minilog_client.group.heartbeats import Heart, MemberTask, PollClock
from minilog_client.group.holdings import METADATA_CHARS_MAX, Holdings
from minilog_client.group.layouts import Layouts
from minilog_client.group.leaving import Leaving, leave_quietly
from minilog_client.group.membership import MemberView, Subscription
from minilog_client.group.progress import Progress
from minilog_client.group.share import Share
from minilog_client.group.standing import Standing
from minilog_client.group.start_offsets import StartOffsets
from minilog_client.serializers.type_variables import K, V
from minilog_client.settings import ConsumerSettings, GroupSettings
from minilog_client.values import PartitionKey, check_count, checked_timeout

_READ_ALREADY: Final = "the consumer is being read already; read from one task, and not from a callback"
_log = logging.getLogger("minilog_client")


class GroupConsumer(Consumer[V, K]):
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
    a crash the records since the last commit come again, here or at another member. None is lost.

    **Where it begins.** A partition without a committed offset at ``start`` (that offset is then
    committed, unless it is the earliest, so that nobody begins elsewhere later). A partition added
    to a topic while this member reads it, at its beginning. A topic that comes to match a pattern,
    at ``start``. A committed offset that is out of range raises OffsetOutOfRange (or resets, if
    ``out_of_range`` says so, and where it goes on is committed). Records that were read and
    committed and are gone after a lossy election raise LogTruncated. Nothing resets silently.

    **Callbacks**, functions or coroutine functions, get a list of (topic, partition) and run while
    the application asks for records or closes: ``on_assigned`` ends before the first record of
    these partitions. ``on_revoked`` ends before they are given to another member (what is finished
    is committed right after it). ``on_lost`` when they may be somebody else's already, so nothing
    can be committed any more. A time limit on a read does not cut a callback short: the next read
    waits for it. An exception in a callback comes out of the read. After that ``on_assigned`` and
    ``on_lost`` are called again, and what ``on_revoked`` was called for is given back.

    **Staying a member.** Heartbeats go on in the background, also while the application blocks its
    event loop. One that asks for no records for ``max_poll_interval_ms`` loses its partitions. The
    next read calls ``on_lost`` and joins again (or raises UnknownMember first, with
    ``max_poll_exceeded="raise"``). While no coordinator can be reached for longer than a session,
    reading pauses, for as long as it takes (see ``unreachable_timeout_ms``). It goes on when one
    answers.

    Raises while reading, besides what ``Consumer`` does: InconsistentGroup, InvalidGroup,
    InstanceInUse when the group does not let this member in; reading on tries again.
    """

    def __init__(
        self, cluster: Cluster, heart: Heart, subscription: Subscription, start: StartLike, settings: ConsumerSettings,
        group_settings: GroupSettings, callbacks: Callbacks, on_closed: Callable[[AnyConsumer], None],
    ) -> None:  # fmt: skip
        super().__init__(cluster, None, start, settings, on_closed)
        self.group_settings, self.group = group_settings, subscription.group
        self._subscription, self._heart = subscription, heart
        self._clock = PollClock(now_ms())
        self._session = MemberTask(subscription, self._clock, cluster.random, weakly(self._on_news))
        self._coordinator = Coordinator(cluster, subscription.group)
        self._held = Holdings()
        self._progress = Progress(self._held)
        self._layouts, on_lookup = Layouts(cluster, weakly(self._watch_topics)), weakly(self._on_lookup)
        self._lookup = StartOffsets(self._session, self._coordinator, self._tasks, self._layouts.know, on_lookup)
        self._standing = Standing(self._session, heart, self._lookup, settings.unreachable_limit_ms)
        self._committer = Committer(
            self._session, heart, self._coordinator, self._held, group_settings, cluster.random, self._wait_news,
            self._progress.note, cluster.teller.tell,
        )  # fmt: skip
        self._share = Share(
            self._session, heart, self._held, self._layouts, self._lookup, self._committer, callbacks,
            group_settings.auto_commit, start, self._begin_reading, self._end_reading,
            cluster.teller.tell,
        )  # fmt: skip
        self._following = Following(self._follow)
        self._leaving = Leaving(self._session, heart, self._following, self._share)
        self._ending = Ending()
        self._seen = self._session.view
        self._polling = self._joined = False

    def _given_back(self) -> GivenBack:
        heart, session, end = self._heart, self._session, super()._given_back()[1]
        committing = self._held, self._committer, self.group_settings.auto_commit, self.settings.close_timeout_ms
        return (
            repr(self),
            partial(leave_quietly, session, heart, *committing, end),
            partial(heart.post, session.abandon),
        )

    def __repr__(self) -> str:
        what = ", ".join(self._subscription.topics) or self._subscription.pattern
        return f"GroupConsumer({what}, group={self.group})"

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
        self.check_not_inside()
        await super().start()
        deadline_ms = now_ms() + START_WAIT_MS
        while (await self._settled() and len(self._lookup)) or not self._following.is_settled:
            if self._is_stopping or now_ms() >= deadline_ms:
                break
            await self._wait_news(deadline_ms)
        await self._wait_resolved(deadline_ms)
        if any(held.has_pin for held in self._held.values()):
            await self._committer.commit_quietly(False)
        if not self._polling:
            self._clock.leave(now_ms())

    async def _begin(self) -> None:
        for topic in self._subscription.topics:
            await self._cluster.topic(topic)
        self._layouts.see(self._subscription.topics)
        self._watch_topics([GROUPS_TOPIC, *self._subscription.topics])
        if not self._joined:
            self._heart.start(self._session)
            self._joined = True
            self._tasks.keep_up(self._committer.run)
        wait_ms = START_WAIT_MS + (self._subscription.session_timeout_ms if self._subscription.instance_id else 0)
        deadline_ms = now_ms() + wait_ms
        while not self._session.view.answers:
            self._standing.raise_refusal(self._session.view)
            if now_ms() >= deadline_ms:
                self._standing.raise_not_joined(wait_ms)
            await self._wait_news(deadline_ms)

    def _on_news(self, view: MemberView) -> None:
        """Called in the heartbeats' thread."""
        if view.is_news_after(self._seen):
            self._following.is_due = True
        self._seen = view
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            self._session.abandon()

    def _on_metadata(self) -> None:
        self._layouts.see(self._watched)
        super()._on_metadata()

    # --- reading ----------------------------------------------------------------------------------

    async def _read(self, max_records: int, max_wait_ms: int, as_columns: bool = False) -> Sequence[AnyRecord]:
        check_count(max_records)
        self._enter()
        try:
            records = await super()._read(max_records, max_wait_ms, as_columns)
            if records:
                self._progress.on_batch(self._plan.taken)
            return records
        finally:
            self._leave()

    async def __anext__(self) -> Record[V, K]:
        """The next record; says that the last one is finished with."""
        progress, state = self._progress, self._current
        if (
            state is not None and state is progress.iterated
            and state.index < len(state.records) and self._is_settled()
        ):  # fmt: skip
            record: Record[V, K] = state.records[state.index]
            state.index += 1
            state.position = record.offset + 1
            progress.previous, progress.last = progress.last, record
            self._clock.touch(self._loop.time())
            return record
        if self._is_stopping and self._closing:
            raise StopAsyncIteration
        self._enter()
        try:
            record = await super().__anext__()
            if self._current is not None:  # the record is of the partition whose turn it is
                progress.on_first(self._current, record)
            return record
        finally:
            self._leave()

    def check_may_read(self) -> None:
        super().check_may_read()
        self.check_not_inside()
        if self._polling:
            raise InvalidRequest(_READ_ALREADY)

    def check_not_inside(self) -> None:
        if self._following.is_inside:
            raise InvalidRequest(_READ_ALREADY)

    def _enter(self) -> None:
        """A read that is refused finishes nothing."""
        self.check_may_read()
        self._polling = True
        self._clock.enter()
        self._progress.ask()

    def _leave(self) -> None:
        self._polling = False
        self._clock.leave(now_ms())

    def _is_settled(self) -> bool:
        return (
            not self._is_stopping
            and self._following.is_settled
            and self._loop.time() * 1000 < self._session.view.hold_until_ms
        )

    async def _settled(self) -> bool:
        if not self._is_stopping:
            await self._following.settle()
        return self._is_settled()

    # --- for the synchronous face, which reads ahead ----------------------------------------------

    @property
    def wants_attention(self) -> bool:
        """Something is to be done before the next record. From any thread."""
        return not self._is_settled()

    def touch(self) -> None:
        """The application has taken a record that was read ahead. From any thread."""
        self._clock.touch(self._loop.time())

    async def read_ahead(self, ahead: ReadAhead, max_records: int, max_wait_ms: int, as_columns: bool = False) -> None:
        self._progress.read_ahead = ahead
        await super().read_ahead(ahead, max_records, max_wait_ms, as_columns)

    def _hand_back(self, ahead: ReadAhead) -> None:
        self._progress.finish_all()
        super()._hand_back(ahead)

    def pause_ahead(self, ahead: ReadAhead, topic: str, partition: int) -> None:
        self._progress.note()
        super().pause_ahead(ahead, topic, partition)

    def _on_put_back(self, state: PartitionFetch) -> None:
        super()._on_put_back(state)
        held = self._held.get((state.topic, state.partition))
        if held is not None:
            held.on_put_back()

    # --- following the coordinator ----------------------------------------------------------------

    async def _follow(self) -> None:
        """Lose, give back and take up what the coordinator has said."""
        view = self._session.view
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
        self._following.is_due = True
        self._tell()

    def _raise_unreachable(self, now: int) -> None:
        try:
            if self._standing.is_fine(now):
                super()._raise_unreachable(now)
        except BrokerUnavailable as error:
            if self.settings.unreachable_timeout_ms is not None:
                raise
            _log.warning("%s", error.detail)

    # --- committing -------------------------------------------------------------------------------

    async def commit(self, what: CommitLike = None, *, metadata: str = "", timeout_ms: int | None = None) -> None:
        """Commit, all or nothing: a record (it and all before it), a list of records, offsets to go
        on from like ``{("orders", 0): 42}``, or nothing for all that was handed out so far. Durable
        when it returns.

        Raises UnknownMember or StaleMemberEpoch for what this member has lost, also when it has got
        the partition again since, UnknownTopic for a topic that was deleted or made anew,
        NotAssigned for what it was never given, OffsetOutOfRange beyond the end of a partition,
        InvalidRequest, TypeError. Raises TimedOut or BrokerUnavailable after ``timeout_ms``
        (``commit_timeout_ms`` by default), when it is not known whether it is committed."""
        self._check_usable()
        if len(metadata) > METADATA_CHARS_MAX:
            raise InvalidRequest(f"metadata has {len(metadata)} characters; allowed are {METADATA_CHARS_MAX}")
        if what is None:
            self._progress.finish_all()
            marks = {key: held.finished for key, held in self._held.items() if held.finished is not None}
        else:
            self._progress.note()
            marks = self._held.parse(what)
        helds = {key: self._held[key] for key in marks}
        if what is not None:
            await refuse_beyond_ends(self._cluster, marks, helds)
        await self._committer.commit(marks, helds, metadata, timeout_ms)

    async def committed(
        self, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> dict[PartitionKey, int | None]:
        """What the group has committed of ``partitions`` (by default those assigned here): the next
        offset to read, None where there is nothing."""
        self._check_usable()
        keys = self.assignment if partitions is None else sorted(partitions)
        return await self._committer.committed(keys, timeout_ms)

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
        the latest after ``timeout_ms`` (``close_timeout_ms`` by default) it is over, also when
        whoever waits for that is cancelled. May be called twice."""
        if self._closing and self._following.is_inside:
            return
        limit_ms = checked_timeout(timeout_ms, self.settings.close_timeout_ms)
        self._closing = True
        self._current = None
        await self._ending.wait(lambda: self._end(limit_ms))

    async def _end(self, limit_ms: int) -> None:
        try:
            await self._leaving.carry_out(limit_ms, self._joined)
        finally:
            await super().close()

    def _check_open(self) -> None:
        if self._closing:
            raise ClientClosed(CONSUMER_CLOSED)
        super()._check_open()

    def _check_usable(self) -> None:
        """Committing is possible to the very end, in the callbacks of ``close`` as well."""
        super()._check_open()
