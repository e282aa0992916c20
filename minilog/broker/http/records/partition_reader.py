"""Reads on from an offset of one partition, for every form in which records are shown.

Owns the place of one reader: the topic id it began with, its offset, and the epoch of the record
before that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from minilog.broker.http.exchange import THREAD_BYTES_MIN, Exchange, HttpContext
from minilog.broker.http.records.native import run_fetch
from minilog.broker.http.records.record_page import PAGE_BYTES_MIN, Page, Wanted, page_of
from minilog.config import MIB
from minilog.errors import InternalError
from minilog.wire.batch import is_compressed
from minilog.wire.http import Start
from minilog.wire.json.json_records import key_format_of
from minilog.wire.messages import (
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    OffsetsResult,
    Problem,
)

MAX_BYTES: Final = MIB


class Reader:
    """Reads on from an offset of one partition. ``last_epoch`` is the epoch of the record before
    ``offset``, if known."""

    def __init__(self, context: HttpContext, exchange: Exchange) -> None:
        query = exchange.query
        self.context = context
        self.delivery = exchange.delivery
        self._exchange = exchange
        self.topic: str = exchange.values["topic"]
        self.partition: int = exchange.values["partition"]
        self.topic_id = exchange.topic_id
        """The topic that is read, from the first look on: never one that takes its name
        meanwhile."""
        self.any_replica = query.get("replica") == "any"
        self.max_lag_ms: int = query.get("max_lag_ms", -1)
        self.max_bytes, self.wanted = wanted_of(context, query)
        self.last_epoch: int = query.get("leader_epoch", -1)
        self.offset = 0
        self._leader_url = ""
        """Where to ask for a page that cannot be redirected; "" for here."""
        self._may_redirect = not exchange.is_of_a_page

    async def begin(self, start: Start) -> None:
        """Find where to begin, which may need the leader; raises NotLeader."""
        state = self.context.partition(self.topic, self.partition, self.topic_id)
        self.topic_id = state.topic_id
        here = state.leader == self.context.broker_id
        if not here and not (self.any_replica and self.context.broker_id in state.replicas):
            if self._may_redirect:
                raise self.context.not_leader(state)
            self._leader_url = self.context.leader_url(state)
        if start.offset is not None:
            self.offset = start.offset
            return
        assert start.at is not None
        found = await find_offset(
            self.context, self.topic, self.partition, start.at, self.topic_id, forward=not self._may_redirect
        )
        assert found.offset is not None
        self.offset, self.last_epoch = found.offset, found.last_epoch

    async def read(self, wait_ms: int, min_bytes: int) -> FetchResult:
        """One fetch; raises the error it met."""
        where = self.topic, self.partition, self.offset
        entry = FetchPartition(*where, self.max_bytes, -1, self.last_epoch, self.topic_id)
        message = Fetch([entry], wait_ms, min_bytes, self.max_bytes, self.any_replica, self.max_lag_ms)
        if self._leader_url:
            timeout_ms = wait_ms + self.context.runtime.settings.peer_timeout_ms
            reply = await self.context.runtime.call(self._leader_url, message, timeout_ms)
        else:
            reply = await run_fetch(self.context, self.delivery, message)
            self._exchange.is_counted = True
        if isinstance(reply, Problem):
            raise reply.error()
        if not isinstance(reply, FetchReply) or len(reply.partitions) != 1:
            raise InternalError("the broker gave no answer to a fetch")
        result = reply.partitions[0]
        if result.problem is not None:
            raise result.problem.error()
        return result

    async def page(
        self, result: FetchResult, shape: Callable[[Page], bytes], *, is_shared: bool = False
    ) -> tuple[Page, bytes]:
        """The records of a result that were asked for and the answer they make; and move on behind
        them. ``is_shared``: many read the same, in the one shape that is shared."""
        batches = result.batches

        def work() -> tuple[Page, bytes]:
            page = page_of(batches, self.offset, self.last_epoch, self.wanted)
            return page, shape(page)

        is_long = len(batches) >= THREAD_BYTES_MIN or is_compressed(batches)
        if is_shared:
            shown = self.topic_id, self.partition, self.offset, self.last_epoch, self.wanted
            made = await self.context.pages.get(shown, batches, lambda: self.context.compute(work, is_long=is_long))
        else:
            made = await self.context.compute(work, is_long=is_long)
        page, body = made
        self.offset, self.last_epoch = page.next_offset, page.last_epoch
        return page, body


def wanted_of(context: HttpContext, query: Mapping[str, Any]) -> tuple[int, Wanted]:
    """How much is read at a time, and how records are shown."""
    max_bytes: int = query.get("max_bytes", min(MAX_BYTES, context.limits.fetch_bytes_max))
    value_format: str = query.get("format", "json")
    wanted = Wanted(
        query.get("max_records"),
        value_format,
        query.get("key_format", key_format_of(value_format)),
        max(max_bytes, PAGE_BYTES_MIN),
        context.limits.fetch_bytes_max,
        query.get("errors_tolerance") == "all",
    )
    return max_bytes, wanted


async def find_offset(
    context: HttpContext, topic: str, partition: int, at: int, topic_id: str, *, forward: bool = False
) -> OffsetsResult:
    """Raises the error met. ``offset`` of the result is set. ``forward``: ask the leader, wherever
    that is."""
    state = context.partition(topic, partition, topic_id)
    message = Offsets([OffsetsPartition(topic, partition, at, topic_id=state.topic_id)])
    if state.leader == context.broker_id:
        reply = await context.runtime.submit(message)
    elif forward:
        url = context.leader_url(state)
        reply = await context.runtime.call(url, message, context.runtime.settings.peer_timeout_ms)
    else:
        raise context.not_leader(state)
    if isinstance(reply, Problem):
        raise reply.error()
    if not isinstance(reply, OffsetsReply) or len(reply.partitions) != 1:
        raise InternalError("the broker gave no answer to an offsets request")
    result = reply.partitions[0]
    if result.problem is not None:
        raise result.problem.error()
    if result.offset is None:
        raise InternalError("the broker gave neither an offset nor an error")
    return result
