"""Commits of a group member: one at a time, repeated while that can help, never for what the member has lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from minilog.errors import MinilogError, StaleMemberEpoch, TimedOut, UnknownMember
from minilog.wire.group_messages import CommitOffsets, CommitOffsetsReply
from minilog_client.connection.backoff import DELAY_MAX_MS
from minilog_client.connection.cluster import now_ms
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.holdings import Holdings, Mark, messages_of
from minilog_client.group.membership import MemberView
from minilog_client.settings import GroupSettings
from minilog_client.values import PartitionKey

_PIN_INTERVAL_MS: Final = 20
_log = logging.getLogger("minilog_client")


class Committer:
    def __init__(
        self,
        session: MemberTask,
        heart: Heart,
        coordinator: Coordinator,
        holdings: Holdings,
        settings: GroupSettings,
        wait_news: Callable[[int], Awaitable[None]],
        note_finished: Callable[[], None],
    ) -> None:
        self._session = session
        self._heart = heart
        self._coordinator = coordinator
        self._holdings = holdings
        self._settings = settings
        self._wait_news = wait_news
        self._note_finished = note_finished
        self._group = session.subscription.group
        self._lock = asyncio.Lock()
        self._made = 0
        """Commits so far: each has its number, so that a copy that is late takes nothing back."""

    async def commit(
        self, marks: Mapping[PartitionKey, Mark], metadata: str = "", timeout_ms: int | None = None
    ) -> None:
        """Raises what ``GroupConsumer.commit`` says; one commit at a time, so that none overtakes another."""
        if not marks:
            return
        limit_ms = self._settings.commit_timeout_ms if timeout_ms is None else timeout_ms
        helds = {key: self._holdings.require(key) for key in marks}
        covered = {key: held.finished for key, held in helds.items()}
        try:
            async with asyncio.timeout(limit_ms / 1000), self._lock:
                await self._send_commit(marks, metadata, limit_ms)
        except TimeoutError:
            raise TimedOut(f"the commit to group {self._group} took more than {limit_ms} ms", definite=False) from None
        for key, held in helds.items():
            held.on_committed(marks[key], covered[key])

    async def _send_commit(self, marks: Mapping[PartitionKey, Mark], metadata: str, limit_ms: int) -> None:
        """A commit that crosses a change of the group is repeated with the new epoch, while the partitions are held."""
        deadline_ms = now_ms() + limit_ms
        offsets = messages_of(marks, metadata)
        self._made += 1
        while True:
            view = self._session.view
            if not view.is_member:
                raise _not_a_member(view, self._group)
            message = CommitOffsets(self._group, offsets, view.member_id, view.member_epoch, self._made)
            try:
                await self._coordinator.call(message, CommitOffsetsReply, max(1, deadline_ms - now_ms()))
                return
            except UnknownMember:
                await self._newer_epoch(view, deadline_ms)
                raise
            except StaleMemberEpoch:
                if not await self._newer_epoch(view, deadline_ms):
                    raise
            for key in marks:
                if self._holdings.require(key).grant != self._session.view.granted.get(key):
                    raise _not_a_member(self._session.view, self._group)

    async def _newer_epoch(self, than: MemberView, deadline_ms: int) -> bool:
        """Whether the group has moved on and this member with it; asks the coordinator to know."""
        if self._session.view.answers == than.answers:
            self._heart.post(self._session.hurry)
        while self._session.view.answers == than.answers and self._session.view.is_member and now_ms() < deadline_ms:
            await self._wait_news(min(deadline_ms, now_ms() + DELAY_MAX_MS))
        return self._session.view.is_member and self._session.view.member_epoch != than.member_epoch

    async def commit_quietly(self, with_finished: bool, keys: Iterable[PartitionKey] | None = None) -> None:
        """What is due; a failure costs repeated records at worst, and is logged."""
        self._note_finished()
        chosen = self._holdings if keys is None else keys
        marks = {key: mark for key in chosen if (mark := self._holdings[key].due(with_finished)) is not None}
        try:
            await self.commit(marks)
        except MinilogError as error:
            _log.warning("group %s: committing failed: %s", self._group, error.detail)

    async def run(self) -> None:
        """Commit what is finished now and then, and soon where reading began."""
        settings = self._settings
        next_ms = now_ms() + settings.auto_commit_interval_ms
        while True:
            pins = any(held.pinned and held.committed is None for held in self._holdings.values())
            await asyncio.sleep((_PIN_INTERVAL_MS if pins else settings.auto_commit_interval_ms) / 1000)
            is_due = now_ms() >= next_ms
            if self._session.view.is_member and not self._lock.locked() and (pins or is_due):
                await self.commit_quietly(settings.auto_commit and is_due)
            if is_due:
                next_ms = now_ms() + settings.auto_commit_interval_ms


def _not_a_member(view: MemberView, group: str) -> MinilogError:
    if view.error is not None:
        return type(view.error)(f"this consumer is not in group {group} any more: {view.error.detail}")
    return UnknownMember(f"this consumer is not in group {group} (any more, or yet); nothing is committed")
