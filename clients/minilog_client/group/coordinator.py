"""Requests about groups, wherever the coordinator is: the leader of one partition of the topic
``__groups``.

Any broker forwards such a request, so the cached layout is a short cut and no more: while it names
nobody, or names a broker that does not answer, any other one is asked.
"""

from __future__ import annotations

import asyncio
import contextlib

from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.wire.codec.murmur2 import murmur2
from minilog.wire.group_messages import GROUPS_TOPIC, GroupRequest
from minilog_client.connection.backoff import Attempts, History, is_hunting
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.http_messages import Reply


class Coordinator:
    """The coordinator of ``group``, as seen through ``cluster``."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._hash = murmur2(group.encode())

    def url(self) -> str:
        """Whom to ask next."""
        routing = self._cluster.routing
        known = routing.topic(GROUPS_TOPIC)
        count = known.partition_count if known else 0
        leader = routing.leader(GROUPS_TOPIC, self._hash % count) if count else None
        if leader is not None and not routing.is_suspect(leader.url, now_ms()):
            return leader.url
        return routing.candidates(now_ms())[0]

    async def try_once(self, message: GroupRequest, kind: type[Reply], timeout_ms: int) -> Reply:
        """One try. After a failure that calls for it, the layout is asked for again in the
        background."""
        timeout_ms = min(timeout_ms, self._cluster.settings.request_timeout_ms)
        try:
            return await self._cluster.call(self.url(), message, kind, timeout_ms)
        except MinilogError as error:
            if is_hunting(error):
                self._cluster.request_refresh()
            raise

    async def call(
        self, message: GroupRequest, kind: type[Reply], timeout_ms: int, final: tuple[type[MinilogError], ...] = ()
    ) -> Reply:
        """Try until there is an answer. For requests that may be carried out twice. ``final``: what
        is raised at once although a retry may cure it.

        Raises TimedOut or the last BrokerUnavailable after ``timeout_ms``, and every error that a
        retry does not cure. None of them is definite if one of the tries may have been carried
        out."""
        deadline_ms = now_ms() + timeout_ms
        attempts, history = Attempts(), History()
        with contextlib.suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self.locate()
        while True:
            try:
                return await self.try_once(message, kind, max(1, deadline_ms - now_ms()))
            except MinilogError as error:
                history.on_failure(error)
                failure = history.told(error)
            if not failure.retriable or isinstance(failure, final):
                raise failure.with_traceback(None)
            attempts.on_failure(failure, now_ms(), self._cluster.random)
            if attempts.retry_at_ms >= deadline_ms:
                raise _gave_up(message, timeout_ms, failure) from failure
            await asyncio.sleep(max(0, attempts.retry_at_ms - now_ms()) / 1000)

    async def locate(self) -> None:
        """Know where the groups are kept before the first request; raises BrokerUnavailable."""
        if self._cluster.routing.topic(GROUPS_TOPIC) is None:
            await self._cluster.refresh(GROUPS_TOPIC)


def _gave_up(message: GroupRequest, timeout_ms: int, failure: MinilogError) -> MinilogError:
    detail = f"{type(message).__name__} was not answered within {timeout_ms} ms, the last reason: {failure.detail}"
    kind = BrokerUnavailable if isinstance(failure, BrokerUnavailable) else TimedOut
    return kind(detail, definite=failure.definite)
