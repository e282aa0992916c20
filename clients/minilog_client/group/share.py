"""This member's share of the group: partitions are begun, given back and found lost here, as the
coordinator says.

All of it happens in the application's own task, while it asks for records or closes. So its
callbacks never run beside its own processing, and what it gives back it works on no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minilog.errors import MinilogError
from minilog.wire.group_messages import CommittedOffset
from minilog_client.connection.cluster import now_ms
from minilog_client.consumer.partition_fetch import PartitionFetch, StartLike
from minilog_client.group.callbacks import Callbacks
from minilog_client.group.committer import Committer
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.holdings import Held, Holdings, Mark
from minilog_client.group.layouts import Layouts
from minilog_client.group.membership import MemberView
from minilog_client.group.start_offsets import StartOffsets
from minilog_client.values import PartitionKey

Begin = Callable[[PartitionKey, StartLike, int, str], PartitionFetch]
"""Begin to read a partition: where, the epoch of the record before that (-1: unknown), and the
topic's id."""


class Share:
    """``start``: where a partition begins of which nothing is committed. ``begin`` and ``end`` see
    to the reading."""

    def __init__(
        self,
        session: MemberTask,
        heart: Heart,
        holdings: Holdings,
        layouts: Layouts,
        lookup: StartOffsets,
        committer: Committer,
        callbacks: Callbacks,
        auto_commit: bool,
        start: StartLike,
        begin: Begin,
        end: Callable[[PartitionFetch], None],
    ) -> None:
        self._session = session
        self._heart = heart
        self._held = holdings
        self._layouts = layouts
        self._lookup = lookup
        self._committer = committer
        self._callbacks = callbacks
        self._auto_commit = auto_commit
        self._start = start
        self._begin = begin
        self._end = end

    async def lose(self, view: MemberView) -> None:
        """Drop what ``view`` does not grant (any more), and say so to the application."""
        lost = [key for key, held in self._held.items() if not view.holds(key, held.grant)]
        if lost:
            self._drop(lost, view.loss)
            await self._callbacks.on_lost(lost)

    async def give_back(self, view: MemberView) -> None:
        """Let go of what ``view`` wants back."""
        revoked = [key for key in view.revoking if key in self._held]
        if revoked:
            await self._let_go_of(revoked)
        strays = {key: view.granted[key] for key in view.revoking if key not in self._held and key not in revoked}
        if strays:
            self._heart.post(self._session.give_back, strays)

    async def _let_go_of(self, revoked: list[PartitionKey]) -> None:
        grants = {key: self._held[key].grant for key in revoked}
        try:
            await self._callbacks.on_revoked(revoked)
            await self._committer.commit_quietly(self._auto_commit, revoked)
        finally:
            self._drop(revoked, None)
            self._heart.post(self._session.give_back, grants)

    def _drop(self, keys: Iterable[PartitionKey], reason: MinilogError | None) -> None:
        """Read on nothing of these, and hand out nothing that was read ahead of them."""
        for key in keys:
            self._end(self._held.pop(key).state)
            if reason is not None:
                self._held.lost[key] = reason
            else:
                self._held.lost.pop(key, None)

    async def take_up(self, view: MemberView) -> None:
        """Ask how far the group is with what is new, and begin where that is known by now."""
        self._lookup.ask(view, [key for key in view.granted if key not in view.revoking and key not in self._held])
        begun = self._begin_found(self._session.view)
        if begun:
            await self._callbacks.on_assigned(begun)

    def _begin_found(self, view: MemberView) -> list[PartitionKey]:
        """Begin reading where the group is, as far as it is still this member's to read."""
        begun: list[PartitionKey] = []
        for key, (grant, committed) in self._lookup.take(view).items():
            if key not in view.revoking and key not in self._held:
                self._held[key] = self._begin_at(key, grant, committed, view.topic_ids.get(key, ""))
                self._held.lost.pop(key, None)
                begun.append(key)
        return begun

    def _begin_at(self, key: PartitionKey, grant: int, found: CommittedOffset, topic_id: str) -> Held:
        read_id = topic_id or self._layouts.topic_id(key[0])
        if found.offset is not None:
            mark = Mark(found.offset, found.leader_epoch)
            return Held(grant, self._begin(key, mark.offset, mark.leader_epoch, read_id), mark, False, topic_id)
        start = "earliest" if self._layouts.is_added(key, read_id) else self._start
        is_pinned = start != "earliest" and not isinstance(start, int)
        return Held(grant, self._begin(key, start, -1, read_id), None, is_pinned, topic_id)

    async def let_go(self, deadline_ms: int) -> None:
        """The end: commit what is finished, in the time that is left after the callbacks."""
        view = self._session.view
        kept = [key for key, held in self._held.items() if view.holds(key, held.grant)]
        lost = [key for key in self._held if key not in kept]
        self._drop(lost, view.loss)
        try:
            if lost:
                await self._callbacks.on_lost(lost)
            if kept:
                await self._callbacks.on_revoked(kept)
        finally:
            await self._committer.commit_quietly(self._auto_commit, kept, max(0, deadline_ms - now_ms()))
