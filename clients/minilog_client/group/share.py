"""This member's share of the group: partitions are begun, given back and found lost here, as the
coordinator says.

All of it happens while the application asks for records or closes. So its callbacks do not run
beside its own processing, and what it gives back it works on no more.

What the application is told counts as told when its callback has ended, and not when it was
called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from minilog.errors import MinilogError
from minilog.wire.group_messages import CommittedOffset
from minilog_client.connection.cluster import now_ms
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.start import StartLike
from minilog_client.group.callbacks import Callbacks, Untold
from minilog_client.group.committer import Committer
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.holdings import Held, Holdings, Mark
from minilog_client.group.layouts import Layouts
from minilog_client.group.membership import MemberView
from minilog_client.group.start_offsets import StartOffsets
from minilog_client.observing.events import Assigned, ClientEvent, Joined, Revoked
from minilog_client.values import PartitionKey

Begin = Callable[[PartitionKey, StartLike, int, str], PartitionFetch]
"""Begin to read a partition: where, the epoch of the record before that (-1: unknown), and the
topic's id."""
Tell = Callable[[Awaitable[None]], Awaitable[None]]
"""Wait for a callback, in one way or another."""


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
        observed: Callable[[ClientEvent], None],
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
        self._observed, self._group = observed, session.subscription.group
        self._joined_as = "", 0
        self._begun: set[PartitionKey] = set()
        """Held, and ``on_assigned`` has not ended well yet."""
        self._revoked: set[PartitionKey] = set()
        """Held, and ``on_revoked`` was called."""
        self._lost: set[PartitionKey] = set()
        """Not held any more, and ``on_lost`` has not ended well yet."""

    async def lose(self, view: MemberView, tell: Tell | None = None) -> None:
        """Drop what ``view`` does not grant (any more), and say so to the application."""
        lost = [key for key, held in self._held.items() if not view.holds(key, held.grant)]
        self._drop(lost, view.loss)
        self._lost.update(lost)
        if lost:
            self._observed(Revoked(self._group, lost, is_lost=True))
        untold = sorted(self._lost)
        if untold:
            telling = self._callbacks.on_lost(untold)
            await (tell(telling) if tell else telling)
            self._lost.difference_update(untold)

    async def give_back(self, view: MemberView) -> None:
        """Let go of what ``view`` wants back."""
        revoked = [key for key in view.revoking if key in self._held]
        if revoked:
            await self._let_go_of(revoked)
        strays = {key: view.granted[key] for key in view.revoking if key not in self._held and key not in revoked}
        if strays:
            self._heart.post(self._session.give_back, strays)

    async def _let_go_of(self, revoked: list[PartitionKey]) -> None:
        """``on_revoked`` ends before they are given away, well or with an error of its own."""
        grants = {key: self._held[key].grant for key in revoked}
        failure: Exception | None = None
        self._revoked.update(revoked)
        try:
            await self._callbacks.on_revoked(revoked)
            await self._committer.commit_quietly(self._auto_commit, revoked)
        except Untold:
            self._revoked.difference_update(revoked)
            raise
        except Exception as error:
            failure = error
        self._drop(revoked, None)
        self._observed(Revoked(self._group, revoked, is_lost=False))
        self._heart.post(self._session.give_back, grants)
        if failure is not None:
            raise failure

    def _drop(self, keys: Iterable[PartitionKey], reason: MinilogError | None) -> None:
        """Read on nothing of these, and hand out nothing that was read ahead of them."""
        for key in keys:
            held = self._held.pop(key, None)
            if held is not None:
                self._end(held.state)
            self._begun.discard(key)
            self._revoked.discard(key)
            if reason is not None:
                self._held.lost[key] = reason
            else:
                self._held.lost.pop(key, None)

    async def take_up(self, view: MemberView) -> None:
        """Ask how far the group is with what is new, and begin where that is known by now."""
        if view.is_member and self._joined_as != (view.member_id, view.member_epoch):
            self._joined_as = view.member_id, view.member_epoch
            self._observed(Joined(self._group, *self._joined_as))
        self._lookup.ask(view, [key for key in view.granted if key not in view.revoking and key not in self._held])
        self._begin_found(self._session.view)
        begun = sorted(self._begun)
        if begun:
            await self._callbacks.on_assigned(begun)
            self._begun.difference_update(begun)

    def _begin_found(self, view: MemberView) -> None:
        """Begin reading where the group is, as far as it is still this member's to read."""
        found = {
            key: place
            for key, place in self._lookup.take(view).items()
            if key not in view.revoking and key not in self._held
        }
        for key, (grant, committed) in found.items():
            self._held[key] = self._begin_at(key, grant, committed, view.topic_ids.get(key, ""))
            self._held.lost.pop(key, None)
            self._begun.add(key)
        if found:
            self._observed(Assigned(self._group, sorted(found)))

    def _begin_at(self, key: PartitionKey, grant: int, found: CommittedOffset, topic_id: str) -> Held:
        read_id = topic_id or self._layouts.topic_id(key[0])
        if found.offset is not None:
            mark = Mark(found.offset, found.leader_epoch)
            return Held(grant, self._begin(key, mark.offset, mark.leader_epoch, read_id), mark, False, topic_id)
        start = "earliest" if self._layouts.is_added(key, read_id) else self._start
        is_pinned = self._start != "earliest" and not isinstance(
            start, int
        )  # another member may not know what was added
        return Held(grant, self._begin(key, start, -1, read_id), None, is_pinned, topic_id)

    async def let_go(self, tell: Tell, deadline_ms: int) -> None:
        """The end: commit what is finished, in the time that is left after the callbacks."""
        kept = [key for key, held in self._held.items() if self._session.view.holds(key, held.grant)]
        revoked = [key for key in kept if key not in self._revoked]
        try:
            await self.lose(self._session.view, tell)
        finally:
            await self._let_go_finally(kept, revoked, tell, deadline_ms)

    async def _let_go_finally(
        self, kept: list[PartitionKey], revoked: list[PartitionKey], tell: Tell, deadline_ms: int
    ) -> None:
        self._revoked.update(revoked)
        try:
            if revoked:
                await tell(self._callbacks.on_revoked(revoked))
        finally:
            await self._committer.commit_quietly(self._auto_commit, kept, max(0, deadline_ms - now_ms()))
            if kept:
                self._observed(Revoked(self._group, kept, is_lost=False))
