"""The pump: sends what the fetch plan asks for, and brings the outcomes back to it. It decides
nothing.

It owns when the plan is asked again: at once after anything that may change the answer, and when
the plan says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minilog.errors import InternalError, MinilogError
from minilog.wire.messages import Fetch, FetchReply, OffsetsReply
from minilog_client.connection.backoff import is_hunting
from minilog_client.connection.cluster import Cluster, led_no_longer, now_ms
from minilog_client.connection.tasks import TaskScope
from minilog_client.consumer.fetch_plan import FetchPlan, Request
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.observing.events import Received, Retried


class Pump:
    """``on_news`` is called when there may be something new to hand out, or to tell."""

    def __init__(self, cluster: Cluster, plan: FetchPlan, tasks: TaskScope, on_news: Callable[[], None]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._tasks = tasks
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._is_stopped = False

    def wake(self, in_ms: int) -> None:
        if in_ms <= 0:
            if not self._is_scheduled and not self._is_stopped:
                self._is_scheduled = True
                self._loop.call_soon(self.run)
            return
        self._cancel_timer()
        self._timer = self._loop.call_later(in_ms / 1000, self.run)

    def run(self) -> None:
        """Send every request there is to send."""
        self._is_scheduled = False
        self._cancel_timer()
        if self._is_stopped:
            return
        now = now_ms()
        requests, leaderless = self._plan.plan(now)
        for request in requests:
            self._tasks.start(self._perform(request))
        if leaderless:
            self._cluster.request_refresh()
        wake_ms = self._plan.next_wake_ms(now)
        if wake_ms is not None:
            self.wake(max(1, wake_ms - now))

    @contextmanager
    def woken_by_errors(self) -> Iterator[None]:
        """Once an error was told there may be something to ask for again."""
        try:
            yield
        except MinilogError:
            self.wake(0)
            raise

    def stop(self) -> None:
        self._is_stopped = True
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _perform(self, request: Request) -> None:
        """One request and what became of it."""
        try:
            if isinstance(request.message, Fetch):
                fetched = await self._call(request, FetchReply)
                failed = self._plan.on_fetched(request, fetched, now_ms())
                for each in self._plan.arrived:
                    self._cluster.teller.tell(Received(*each, now_ms() - request.sent_ms))
            else:
                offsets = await self._call(request, OffsetsReply)
                failed = self._plan.on_offsets(request, offsets, now_ms())
            for state, error in failed:
                self._look_after(state, error)
        except MinilogError as error:
            self._on_failed_request(request, error)
        except Exception as fault:
            self._on_failed_request(request, InternalError(f"the consumer failed: {fault!r}"))
            raise
        finally:
            self._on_news()
            self.wake(0)

    async def _call(self, request: Request, kind: type[Any]) -> Any:
        settings = self._cluster.settings
        timeout_ms = request.wait_ms + settings.request_timeout_ms
        return await self._cluster.call(
            request.leader.url,
            request.message,
            kind,
            timeout_ms,
            request.wait_ms,
            self._watch(request),
        )

    def _watch(self, request: Request) -> Callable[[], bool]:
        """What has a new leader is given up and asked for there. The answer is waited for as long
        as the broker leads any of the rest."""
        routing, asked = self._cluster.routing, request.leader

        def still_leads() -> bool:
            leaders = [routing.leader(entry.state.topic, entry.state.partition) for entry in request.entries]
            moved = [leader is None or leader.broker_id != asked.broker_id for leader in leaders]
            if all(moved):
                return False
            for entry, has_moved in zip(request.entries, moved, strict=True):
                if has_moved and request.is_current(entry):
                    self._plan.give_up(entry, led_no_longer(asked.url), now_ms())
            self.wake(0)
            return True

        return still_leads

    def _on_failed_request(self, request: Request, error: MinilogError) -> None:
        for entry in self._plan.on_done(request):
            self._plan.on_failure(entry, error, now_ms())
            self._tell_retried(entry.state, error)
        if is_hunting(error):
            self._cluster.request_refresh()

    def _tell_retried(self, state: PartitionFetch, error: MinilogError) -> None:
        if state.error is None:
            self._cluster.teller.tell(Retried("fetch", state.topic, state.partition, error))

    def _look_after(self, state: PartitionFetch, error: MinilogError) -> None:
        self._tell_retried(state, error)
        hinted = self._cluster.routing.on_leader_hint(state.topic, state.partition, error.info)
        if is_hunting(error) and not hinted:
            self._cluster.request_refresh()


async def end_of_reading(
    pump: Pump, cluster: Cluster, tasks: TaskScope, watched: set[str], listener: Callable[[], None]
) -> None:
    pump.stop()
    cluster.unwatch(watched, listener)
    await tasks.aclose()
