"""Commits of a group member: one at a time, repeated while that can help, never for what the member
has lost.

Each request is made from one view of the membership, in the same step in which its grants are
compared with those under which the records were handed out. So nothing that was read under a lost
grant is committed under the next one. The epoch in the request holds it to that: the coordinator
refuses it for what was given later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from minilog.errors import InconsistentTopicId, MinilogError, StaleMemberEpoch, TimedOut, UnknownMember
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
)
from minilog_client.connection.backoff import DELAY_MAX_MS, History
from minilog_client.connection.cluster import now_ms
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.holdings import Held, Holdings, Mark, Wanted
from minilog_client.group.membership import MemberView, by_topic
from minilog_client.observing.events import ClientEvent, CommitFailed, Committed
from minilog_client.settings import GroupSettings
from minilog_client.values import PartitionKey, checked_timeout

_PIN_INTERVAL_MS: Final = 20
_log = logging.getLogger("minilog_client")


class Committer:
    """``note_finished`` brings the holdings up to date with the application."""

    def __init__(
        self,
        session: MemberTask,
        heart: Heart,
        coordinator: Coordinator,
        holdings: Holdings,
        settings: GroupSettings,
        random: Random,
        wait_news: Callable[[int], Awaitable[None]],
        note_finished: Callable[[], None],
        tell: Callable[[ClientEvent], None],
    ) -> None:
        self._session = session
        self._heart = heart
        self._coordinator = coordinator
        self._holdings = holdings
        self._settings = settings
        self._random = random
        self._wait_news = wait_news
        self._note_finished = note_finished
        self._tell = tell
        self._group = session.subscription.group
        self._lock = asyncio.Lock()
        self._made = 0
        """Commits so far: each has its number, so that a copy that is late takes nothing back."""

    async def commit(
        self,
        marks: Mapping[PartitionKey, Mark],
        helds: Mapping[PartitionKey, Held],
        metadata: str = "",
        timeout_ms: int | None = None,
    ) -> None:
        """What the application asks to commit, all of it, under the grants that it was asked for:
        those of ``helds``. Raises what ``GroupConsumer.commit`` says."""
        if not marks:
            await asyncio.sleep(0)  # whoever commits nothing again and again lets others run
            return
        self._note_finished()
        wanted = [_wanted(key, helds[key], marks[key]) for key in sorted(marks)]
        async with self._turn(timeout_ms) as deadline_ms:
            await self._send(wanted, False, metadata, deadline_ms)

    async def committed(self, keys: Iterable[PartitionKey], timeout_ms: int | None) -> dict[PartitionKey, int | None]:
        """What the group has committed of ``keys``."""
        message = CommittedOffsets(self._group, by_topic(keys, self._session.view.topic_ids))
        limit_ms = checked_timeout(timeout_ms, self._settings.commit_timeout_ms)
        reply = await self._coordinator.call(message, CommittedOffsetsReply, limit_ms)
        found = {(entry.topic, entry.partition): entry.offset for entry in reply.offsets}
        return {key: found.get(key) for key in keys}

    async def commit_quietly(
        self, with_finished: bool, keys: Iterable[PartitionKey] | None = None, timeout_ms: int | None = None
    ) -> None:
        """What is due, as far as it is held. What was refused lately waits, unless ``keys`` name
        it. A failure costs repeated records at worst, and is logged."""
        try:
            async with self._turn(timeout_ms) as deadline_ms:
                self._note_finished()
                due = self._due(with_finished, keys)
                await self._send_apart(due, deadline_ms)
        except MinilogError as error:
            _log.warning("group %s: committing failed: %s", self._group, error.detail)

    def _due(self, with_finished: bool, keys: Iterable[PartitionKey] | None) -> list[Wanted]:
        now = now_ms()
        helds = [(key, self._holdings.get(key)) for key in sorted(self._holdings if keys is None else keys)]
        return [
            _wanted(key, held, mark)
            for key, held in helds
            if held is not None
            and (keys is not None or held.attempts.may_try(now, -1))
            and (mark := held.due(with_finished)) is not None
        ]

    async def _send_apart(self, wanted: list[Wanted], deadline_ms: int) -> None:
        """All of it together, or else in halves, until what is refused is alone."""
        try:
            await self._send(wanted, True, "", deadline_ms)
        except MinilogError as error:
            if len(wanted) > 1 and _may_be_of_some(error):
                half = len(wanted) // 2
                await self._send_apart(wanted[:half], deadline_ms)
                await self._send_apart(wanted[half:], deadline_ms)
            else:
                self._on_refused(wanted, error)

    def _on_refused(self, wanted: list[Wanted], error: MinilogError) -> None:
        self._tell(CommitFailed(self._group, error))
        for each in wanted:
            each.held.attempts.on_failure(error, now_ms(), self._random)
        if any(each.held.attempts.tries == 1 for each in wanted):
            _log.warning("group %s: committing failed: %s", self._group, error.detail)

    @asynccontextmanager
    async def _turn(self, timeout_ms: int | None) -> AsyncIterator[int]:
        """One commit at a time, so that none overtakes another. Gives until when it may take."""
        limit_ms = checked_timeout(timeout_ms, self._settings.commit_timeout_ms)
        deadline_ms = now_ms() + limit_ms
        try:
            async with asyncio.timeout(limit_ms / 1000), self._lock:
                yield deadline_ms
        except TimeoutError:
            late = TimedOut(f"the commit to group {self._group} took more than {limit_ms} ms", definite=False)
            self._tell(CommitFailed(self._group, late))
            raise late from None
        except MinilogError as error:
            self._tell(CommitFailed(self._group, error))
            raise

    async def _send(self, wanted: list[Wanted], may_drop: bool, metadata: str, deadline_ms: int) -> None:
        """A commit that crosses a change of the group is repeated with the new epoch, as far as the
        grants are the same."""
        self._made += 1
        history = History()
        while True:
            view = self._session.view
            lost = _lost_of(wanted, view, self._group)
            if lost and not may_drop:
                raise history.told(next(iter(lost.values())))
            wanted = [each for each in wanted if each.key not in lost]
            if not wanted:
                return
            # the request is made of the same view: nothing is awaited in between
            offsets = [each.message(metadata) for each in wanted]
            message = CommitOffsets(self._group, offsets, view.member_id, view.member_epoch, self._made)
            try:
                final = (InconsistentTopicId,) if may_drop else ()
                await self._coordinator.call(message, CommitOffsetsReply, max(1, deadline_ms - now_ms()), final)
                break
            except MinilogError as error:
                history.on_failure(error)
                if not await self._may_repeat(error, view, deadline_ms):
                    raise history.told(error) from None
        for each in wanted:
            each.held.on_committed(each.mark, each.covered, each.generation)
        self._tell(Committed(self._group, {each.key: each.mark.offset for each in wanted}))

    async def _may_repeat(self, error: MinilogError, view: MemberView, deadline_ms: int) -> bool:
        """The coordinator knows the member, at another epoch than ``view`` has, and by now this
        member knows it too."""
        if not isinstance(error, UnknownMember | StaleMemberEpoch):
            return False
        is_newer = await self._newer_epoch(view, deadline_ms)
        return is_newer and isinstance(error, StaleMemberEpoch)

    async def _newer_epoch(self, than: MemberView, deadline_ms: int) -> bool:
        """Whether the group has moved on and this member with it; asks the coordinator to know."""
        if self._session.view.answers == than.answers:
            self._heart.post(self._session.hurry)
        while self._session.view.answers == than.answers and self._session.view.is_member and now_ms() < deadline_ms:
            await self._wait_news(min(deadline_ms, now_ms() + DELAY_MAX_MS))
        return self._session.view.is_member and self._session.view.member_epoch != than.member_epoch

    async def run(self) -> None:
        """Commit what is finished now and then, and soon where reading began."""
        settings = self._settings
        next_ms = now_ms() + settings.auto_commit_interval_ms
        while True:
            await asyncio.sleep(max(_PIN_INTERVAL_MS, min(next_ms, self._pin_at_ms(next_ms)) - now_ms()) / 1000)
            is_due = now_ms() >= next_ms
            has_pin = self._pin_at_ms(next_ms) <= now_ms()
            if self._session.view.is_member and not self._lock.locked() and (has_pin or is_due):
                await self.commit_quietly(settings.auto_commit and is_due)
            if is_due:
                next_ms = now_ms() + settings.auto_commit_interval_ms

    def _pin_at_ms(self, default_ms: int) -> int:
        """When to commit next where reading began."""
        helds = (held for held in self._holdings.values() if held.has_pin)
        return min((held.attempts.retry_at_ms if held.attempts.tries else 0 for held in helds), default=default_ms)


def _wanted(key: PartitionKey, held: Held, mark: Mark) -> Wanted:
    """As it is now."""
    return Wanted(key, held, mark, held.finished, held.state.generation)


def _may_be_of_some(error: MinilogError) -> bool:
    """A refusal that is perhaps about some of the partitions only."""
    return isinstance(error, InconsistentTopicId) or not (error.retriable or isinstance(error, UnknownMember))


def _lost_of(wanted: list[Wanted], view: MemberView, group: str) -> dict[PartitionKey, MinilogError]:
    """What of it is not held as it was any more, and why. Whoever was given it since has its own
    progress with it."""
    if not view.is_member:
        return {each.key: _not_a_member(view, group) for each in wanted}
    return {each.key: _lost(each.key, view) for each in wanted if not each.is_granted(view.granted)}


def _not_a_member(view: MemberView, group: str) -> MinilogError:
    if view.error is not None:
        return type(view.error)(f"this consumer is not in group {group} any more: {view.error.detail}")
    return UnknownMember(f"this consumer is not in group {group} (any more, or yet); nothing is committed")


def _lost(key: PartitionKey, view: MemberView) -> MinilogError:
    reason = f" ({view.loss.detail})" if view.loss is not None else ""
    since = "has got it again since" if key in view.granted else "has not got it again"
    return StaleMemberEpoch(
        f"{key[0]}-{key[1]} was lost{reason} and this member {since}; what was read before that belongs to that time, and "
        "whoever has the partition now commits for it; nothing is committed"
    )
