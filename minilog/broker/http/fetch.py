"""Fetch for people and any language: JSON, NDJSON, raw batches, or a live tail as server-sent events.

Only committed records, from the leader unless ``replica=any``. A reader that sends back the ``leader_epoch`` of its
last answer, which is the epoch of the last record it was shown, hears LOG_TRUNCATED instead of skipping records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from minilog.broker.http.event_stream import tail
from minilog.broker.http.exchange import THREAD_BYTES_MIN, Exchange, Face, Handler, answer, json_answer
from minilog.broker.http.native import run_fetch
from minilog.broker.http.record_page import PAGE_BYTES_MIN, Page, Wanted, is_compressed, page_of, skip_batches
from minilog.config import MIB
from minilog.errors import InternalError, InvalidRequest
from minilog.wire.http import BATCH, EVENTS, JSON, NDJSON, Start
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
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
_encoder = msgspec.json.Encoder()


async def fetch_partition(face: Face, exchange: Exchange) -> web.StreamResponse:
    media = exchange.media_out()
    _check(face, exchange, media)
    reader = Reader(face, exchange)
    if media == EVENTS:
        return await tail(face, exchange, reader)
    await reader.begin(exchange.query.get("offset", Start(at=EARLIEST)))
    result = await reader.read(exchange.query.get("wait_ms", 0), exchange.query.get("min_bytes", 1))
    if media == BATCH:
        return await _batches(face, result, reader)
    shape = _json if media == JSON else _ndjson
    page, body = await reader.page(result, lambda page: shape(page, result))
    if page.offsets:
        exchange.delivery.expect(len(body))
    if media == NDJSON:
        return answer(body, NDJSON, headers=_position_headers(page, result))
    return answer(body, JSON, headers=_lag_headers(result) if "replica" in exchange.query else None)


async def offsets(face: Face, exchange: Exchange) -> web.Response:
    topic, partition = exchange.values["topic"], exchange.values["partition"]
    result = await find_offset(face, topic, partition, exchange.query.get("at", LATEST), exchange.topic_id)
    return json_answer(
        {
            "topic": topic,
            "partition": partition,
            "offset": result.offset,
            "timestamp": result.timestamp,
            "leader_epoch": result.last_epoch if result.last_epoch >= 0 else None,
            "topic_id": result.topic_id,
        }
    )


class Reader:
    """Reads on from an offset of one partition. ``last_epoch`` is the epoch of the record before ``offset``, if known."""

    def __init__(self, face: Face, exchange: Exchange) -> None:
        query = exchange.query
        self.face = face
        self.delivery = exchange.delivery
        self.topic: str = exchange.values["topic"]
        self.partition: int = exchange.values["partition"]
        self.topic_id = exchange.topic_id
        """The topic that is read, from the first look on: never one that takes its name meanwhile."""
        self.any_replica = query.get("replica") == "any"
        self.max_lag_ms: int = query.get("max_lag_ms", -1)
        self.max_bytes: int = query.get("max_bytes", min(MAX_BYTES, face.limits.fetch_bytes_max))
        value_format: str = query.get("format", "json")
        self.wanted = Wanted(
            query.get("max_records"),
            value_format,
            query.get("key_format", value_format),
            max(self.max_bytes, PAGE_BYTES_MIN),
            face.limits.fetch_bytes_max,
        )
        self.last_epoch: int = query.get("leader_epoch", -1)
        self.offset = 0

    async def begin(self, start: Start) -> None:
        """Find where to begin, which may need the leader; raises NotLeader."""
        state = self.face.partition(self.topic, self.partition, self.topic_id)
        self.topic_id = state.topic_id
        here = state.leader == self.face.broker_id
        if not here and not (self.any_replica and self.face.broker_id in state.replicas):
            raise self.face.not_leader(state)
        if start.offset is not None:
            self.offset = start.offset
            return
        assert start.at is not None
        found = await find_offset(self.face, self.topic, self.partition, start.at, self.topic_id)
        assert found.offset is not None
        self.offset, self.last_epoch = found.offset, found.last_epoch

    async def read(self, wait_ms: int, min_bytes: int) -> FetchResult:
        """One fetch; raises the error it met."""
        where = self.topic, self.partition, self.offset
        entry = FetchPartition(*where, self.max_bytes, -1, self.last_epoch, self.topic_id)
        reply = await run_fetch(
            self.face,
            self.delivery,
            Fetch([entry], wait_ms, min_bytes, self.max_bytes, self.any_replica, self.max_lag_ms),
        )
        if isinstance(reply, Problem):
            raise reply.error()
        if not isinstance(reply, FetchReply) or len(reply.partitions) != 1:
            raise InternalError("the broker gave no answer to a fetch")
        result = reply.partitions[0]
        if result.problem is not None:
            raise result.problem.error()
        return result

    async def page(self, result: FetchResult, shape: Callable[[Page], bytes]) -> tuple[Page, bytes]:
        """The records of a result that were asked for and the answer they make; and move on behind them."""
        batches = result.batches

        def work() -> tuple[Page, bytes]:
            page = page_of(batches, self.offset, self.last_epoch, self.wanted)
            return page, shape(page)

        page, body = await self.face.compute(work, is_long=len(batches) >= THREAD_BYTES_MIN or is_compressed(batches))
        self.offset, self.last_epoch = page.next_offset, page.last_epoch
        return page, body


async def find_offset(face: Face, topic: str, partition: int, at: int, topic_id: str) -> OffsetsResult:
    """Raises the error met; ``offset`` of the result is set."""
    state = face.partition(topic, partition, topic_id)
    if state.leader != face.broker_id:
        raise face.not_leader(state)
    reply = await face.runtime.submit(Offsets([OffsetsPartition(topic, partition, at, topic_id=state.topic_id)]))
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


def _check(face: Face, exchange: Exchange, media: str) -> None:
    """What the parameters may not be together, or beyond this broker's limits."""
    query, limits = exchange.query, face.limits
    for name, bound in (("wait_ms", limits.wait_ms_max), ("max_bytes", limits.fetch_bytes_max)):
        if query.get(name, 0) > bound:
            raise InvalidRequest(f"{name} is {query[name]}; this broker allows at most {bound}")
    if query.get("min_bytes", 0) > query.get("max_bytes", min(MAX_BYTES, limits.fetch_bytes_max)):
        raise InvalidRequest(
            f"min_bytes is {query['min_bytes']}, more than max_bytes allows; lower one or raise the other"
        )
    if "max_lag_ms" in query and query.get("replica") != "any":
        raise InvalidRequest("max_lag_ms is for replica=any; the leader is never behind")
    refused = {BATCH: ("max_records", "format", "key_format"), EVENTS: ("max_records", "wait_ms", "min_bytes")}
    for name in refused.get(media, ()):
        if name in query:
            raise InvalidRequest(f"{name} has no meaning for {media}; leave it out")


def _position_headers(page: Page, result: FetchResult) -> dict[str, str]:
    headers = {
        "Minilog-Next-Offset": str(page.next_offset),
        "Minilog-Log-Start-Offset": str(result.log_start_offset),
        "Minilog-Topic-Id": result.topic_id,
        **_lag_headers(result),
    }
    if result.high_watermark is not None:
        headers["Minilog-High-Watermark"] = str(result.high_watermark)
    if page.last_epoch >= 0:
        headers["Minilog-Leader-Epoch"] = str(page.last_epoch)
    return headers


def _lag_headers(result: FetchResult) -> dict[str, str]:
    return {
        "Minilog-Replica-Lag-Ms": str(result.lag_ms),
        "Minilog-Replica-Lag-Records": str(result.lag_records),
    }


def _json(page: Page, result: FetchResult) -> bytes:
    about: dict[str, Any] = {
        "next_offset": page.next_offset,
        "high_watermark": result.high_watermark,
        "log_start_offset": result.log_start_offset,
        "leader_epoch": page.last_epoch if page.last_epoch >= 0 else None,
        "topic_id": result.topic_id,
    }
    return b'{"records":[' + b",".join(page.texts) + b"]," + _encoder.encode(about)[1:]


def _ndjson(page: Page, result: FetchResult) -> bytes:
    return b"".join(text + b"\n" for text in page.texts)


async def _batches(face: Face, result: FetchResult, reader: Reader) -> web.Response:
    batches = result.batches

    def work() -> tuple[Page, bytes]:
        return skip_batches(batches, reader.offset, reader.last_epoch), bytes(batches)

    page, body = await face.compute(work, is_long=len(batches) >= THREAD_BYTES_MIN)
    return answer(body, BATCH, headers=_position_headers(page, result))


HANDLERS: Final[Mapping[str, Handler]] = {"fetch_partition": fetch_partition, "offsets": offsets}
