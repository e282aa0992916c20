"""The end of a group member: the application is told, what is finished is committed, the group is
left. All in one time limit, whatever callbacks do: each step leaves time for the next ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from minilog_client.connection.cluster import now_ms
from minilog_client.group.callbacks import Untold
from minilog_client.group.committer import Committer
from minilog_client.group.following import Following, inside
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.holdings import Holdings
from minilog_client.group.share import Share

_CALLBACKS_SHARE: Final = 0.6
"""Of the time limit, for what the application does."""
_COMMIT_SHARE: Final = 0.85
"""By then the last commit has ended."""
_log = logging.getLogger("minilog_client")


class Leaving:
    def __init__(self, session: MemberTask, heart: Heart, following: Following, share: Share) -> None:
        self._session = session
        self._heart = heart
        self._following = following
        self._share = share
        self._limit_ms = 0
        self._tell_until_ms = 0

    async def carry_out(self, limit_ms: int, is_joined: bool) -> None:
        """Raises what a callback raised, once all is done."""
        began_ms, self._limit_ms = now_ms(), limit_ms
        self._tell_until_ms = began_ms + int(limit_ms * _CALLBACKS_SHARE)
        try:
            try:
                await self._end_following()
            finally:
                await self._share.let_go(self._tell, began_ms + int(limit_ms * _COMMIT_SHARE))
        finally:
            await self._following.stop()
            if is_joined:
                await self._heart.stop(self._session, max(1, began_ms + limit_ms - now_ms()))

    async def _end_following(self) -> None:
        try:
            async with asyncio.timeout((self._tell_until_ms - now_ms()) / 1000) as limit:
                await self._following.end()
        except TimeoutError:
            if not limit.expired():
                raise
            self._warn()

    async def _tell(self, callback: Awaitable[None]) -> None:
        """Wait for a callback, while there is time for that."""
        telling = asyncio.get_running_loop().create_task(self._carried_out(callback))
        try:
            await asyncio.wait([telling], timeout=max(0, self._tell_until_ms - now_ms()) / 1000)
        finally:
            telling.cancel()
        if not telling.done():
            self._warn()
        elif not telling.cancelled():
            with contextlib.suppress(Untold):  # nobody is there to be told any more
                telling.result()

    async def _carried_out(self, callback: Awaitable[None]) -> None:
        inside.set(self._following.token)
        await callback

    def _warn(self) -> None:
        _log.warning(
            "group %s: closing: a callback has not ended in its share of %s ms, and is not waited for any more",
            self._session.subscription.group, self._limit_ms,
        )  # fmt: skip


async def leave_quietly(
    session: MemberTask,
    heart: Heart,
    held: Holdings,
    committer: Committer,
    auto_commit: bool,
    limit_ms: int,
    end_of_reading: Callable[[], Awaitable[None]],
) -> None:
    """The end of a member that was forgotten: nobody is there to be called back."""
    deadline_ms = now_ms() + limit_ms
    try:
        kept = [key for key, each in held.items() if session.view.holds(key, each.grant)]
        await committer.commit_quietly(auto_commit, kept, int(limit_ms * _COMMIT_SHARE))
    finally:
        await heart.stop(session, max(1, deadline_ms - now_ms()))
        await end_of_reading()
