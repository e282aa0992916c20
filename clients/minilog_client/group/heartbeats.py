"""The heartbeats of group members, beside the application: an application that blocks its event
loop keeps its group.

Each member has a ``MemberTask``: one task that says what ``membership.py`` wants said. The sessions
of an ``AsyncClient`` run in a thread with a loop and connections of their own. Where the client's
loop is nobody else's (the synchronous client, a transport made for tests) they run in it. What
crosses between the two is one-way and small: a ``MemberView`` here, a posted call there. No locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Protocol
from uuid import uuid4

from minilog.errors import ClientClosed, InternalError, MinilogError, UnknownMember
from minilog.wire.group_messages import GROUPS_TOPIC, GroupHeartbeat, GroupHeartbeatReply
from minilog.wire.message_base import Ok
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.tasks import TaskScope
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.membership import Membership, MemberView, Phase, Sent, Subscription
from minilog_client.values import PartitionKey

_log = logging.getLogger("minilog_client")


class PollClock:
    """When the application last asked for records. Written in its thread, read in the
    heartbeats'."""

    def __init__(self, now_ms: int) -> None:
        self._polling = True
        self._left_ms = now_ms

    def enter(self) -> None:
        self._polling = True

    def leave(self, now_ms: int) -> None:
        self._left_ms = now_ms
        self._polling = False

    def touch(self, now_s: float) -> None:
        """It has asked, and got something at once."""
        self._left_ms = int(now_s * 1000)

    def idle_until_ms(self, limit_ms: int) -> int | None:
        """When the application will have been away for ``limit_ms``; None while it waits for
        records."""
        return None if self._polling else self._left_ms + limit_ms


class MemberTask:
    """One member. ``view`` may be read from any thread. ``on_news`` is called in the session's own
    loop."""

    def __init__(
        self, subscription: Subscription, clock: PollClock, random: Random, on_news: Callable[[MemberView], None]
    ) -> None:
        self.subscription = subscription
        self.membership = Membership(subscription, uuid4().hex, random)
        self.view = self.membership.view()
        self._clock = clock
        self._on_news = on_news
        self._woken = asyncio.Event()
        self._came_back = False

    @property
    def member_id(self) -> str:
        return self.membership.member_id

    # --- in the session's loop --------------------------------------------------------------------

    async def run(self, cluster: Cluster) -> None:
        """Heartbeat until the member has left."""
        coordinator = Coordinator(cluster, self.subscription.group)
        cluster.watch([GROUPS_TOPIC], self._on_metadata)
        try:
            with contextlib.suppress(MinilogError):
                await coordinator.locate()
            while self.membership.phase is not Phase.LEFT:
                self._woken.clear()
                self._check_idle()
                sent = self.membership.next_request(now_ms())
                if sent is not None:
                    await self._ask(coordinator, sent)
                else:
                    await self._pause()
        finally:
            cluster.unwatch([GROUPS_TOPIC], self._on_metadata)

    async def _ask(self, coordinator: Coordinator, sent: Sent) -> None:
        kind: type[Any] = GroupHeartbeatReply if isinstance(sent.message, GroupHeartbeat) else Ok
        before = self.membership.phase
        try:
            reply = await coordinator.try_once(sent.message, kind, self.subscription.session_timeout_ms)
        except MinilogError as error:
            self._on_error(sent, error, before)
        except Exception as fault:
            self._on_error(sent, InternalError(f"a heartbeat failed: {fault!r}"), before)
        else:
            self.membership.on_reply(sent.token, reply, now_ms())
        self._publish()

    def _on_error(self, sent: Sent, error: MinilogError, before: Phase) -> None:
        self.membership.on_error(sent.token, error, now_ms())
        phase = self.membership.phase
        if phase is not before and phase in (Phase.FENCED, Phase.REFUSED):
            _log.warning("group %s: %s %s: %s", self.subscription.group, self.member_id, phase.value, error.detail)

    def _check_idle(self) -> None:
        limit_ms = self.subscription.max_poll_interval_ms
        until_ms = self._clock.idle_until_ms(limit_ms)
        if self._came_back:
            self._came_back = False
            self.membership.on_polled(now_ms())
        elif (
            until_ms is not None
            and now_ms() >= until_ms
            and self.membership.phase not in (Phase.AWAY, Phase.REFUSED, Phase.LEAVING)
        ):
            detail = (
                f"the application asked for no records for {limit_ms} ms (max_poll_interval_ms), so it left the group"
            )
            self.membership.on_idle(UnknownMember(detail), now_ms())
            _log.warning("group %s: %s: %s", self.subscription.group, self.member_id, detail)
            self._publish()

    async def _pause(self) -> None:
        """Until something is due."""
        due_ms = [at for at in (self.membership.due_ms, self._idle_due_ms()) if at is not None]
        timeout_s = max(0, min(due_ms) - now_ms()) / 1000 if due_ms else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()

    def _idle_due_ms(self) -> int | None:
        if self.membership.phase in (Phase.AWAY, Phase.REFUSED, Phase.LEAVING):
            return None
        return self._clock.idle_until_ms(self.subscription.max_poll_interval_ms)

    def _on_metadata(self) -> None:
        """The coordinator may be elsewhere: nothing to do, the next try looks."""

    def _publish(self) -> None:
        view = self.membership.view()
        self.view = view
        self._on_news(view)

    def come_back(self) -> None:
        """The application reads again, and knows that it was away or refused."""
        self._came_back = True
        self._woken.set()

    def abandon(self) -> None:
        """The application's loop is gone without a word."""
        if self.membership.phase not in (Phase.LEAVING, Phase.LEFT):
            _log.warning("group %s: %s: its event loop was closed", self.subscription.group, self.member_id)
            self.membership.leave(now_ms())
            self._woken.set()

    def give_back(self, grants: Mapping[PartitionKey, int]) -> None:
        self.membership.give_back(grants, now_ms())
        self._publish()
        self._woken.set()

    def hurry(self) -> None:
        """Ask the coordinator now: somebody wants to know where the member stands."""
        self.membership.hurry(now_ms())
        self._woken.set()

    def leave(self) -> None:
        self.membership.leave(now_ms())
        self._publish()
        self._woken.set()


class Heart(Protocol):
    """Where sessions run."""

    def start(self, session: MemberTask) -> None: ...

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call in the sessions' loop, soon. In order."""
        ...

    async def stop(self, session: MemberTask, timeout_ms: int) -> None:
        """Leave the group. At the latest after ``timeout_ms`` the session is over, one way or
        another."""
        ...

    async def aclose(self) -> None: ...


class LoopHeart:
    """The sessions run in the client's own loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskScope("minilog_client heartbeats")
        self._running: dict[MemberTask, asyncio.Task[None]] = {}

    def start(self, session: MemberTask) -> None:
        self._running[session] = self._tasks.keep_up(lambda: session.run(self._cluster))

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon(call, *arguments)

    async def stop(self, session: MemberTask, timeout_ms: int) -> None:
        task = self._running.pop(session, None)
        if task is None:
            return
        session.leave()
        try:
            await asyncio.wait([task], timeout=timeout_ms / 1000)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def aclose(self) -> None:
        for session in list(self._running):
            await self.stop(session, 1)
        await self._tasks.aclose()


class ThreadHeart:
    """The sessions run in a thread of their own, started with the first of them."""

    def __init__(self, make_cluster: Callable[[], Cluster]) -> None:
        self._make_cluster = make_cluster
        self._thread: LoopThread | None = None
        self._heart: LoopHeart | None = None
        self._cluster: Cluster | None = None

    def start(self, session: MemberTask) -> None:
        if self._thread is None:
            thread = LoopThread("minilog_client heartbeats")
            try:
                thread.call(self._begin)
            except BaseException:
                thread.stop()
                raise
            self._thread = thread
        assert self._heart is not None, "begun in the thread"
        self.post(self._heart.start, session)

    def _begin(self) -> None:
        self._cluster = self._make_cluster()
        self._heart = LoopHeart(self._cluster)

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._thread is not None:
            with contextlib.suppress(ClientClosed):
                self._thread.post(call, *arguments)

    async def stop(self, session: MemberTask, timeout_ms: int) -> None:
        if self._thread is not None and self._heart is not None:
            await asyncio.wrap_future(self._thread.submit(self._heart.stop(session, timeout_ms)))

    async def aclose(self) -> None:
        if self._thread is None or self._heart is None or self._cluster is None:
            return
        thread, self._thread = self._thread, None
        await asyncio.wrap_future(thread.submit(self._heart.aclose()))
        await asyncio.wrap_future(thread.submit(self._cluster.aclose()))
        await asyncio.to_thread(thread.stop)
