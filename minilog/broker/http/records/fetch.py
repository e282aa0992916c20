"""Fetch for people and any language: JSON, NDJSON, raw batches, or a live tail as server-sent
events.

Only committed records, from the leader unless ``replica=any``. A reader that sends back the
``leader_epoch`` of its last answer, which is the epoch of the last record it was shown, hears
LOG_TRUNCATED instead of skipping records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from minilog.broker.group_lag import measure
from minilog.broker.http.cluster.event_stream import tail
from minilog.broker.http.exchange import THREAD_BYTES_MIN, Exchange, Handler, HttpContext, answer, json_answer
from minilog.broker.http.records.partition_reader import MAX_BYTES, Reader, find_offset
from minilog.broker.http.records.record_page import Page, skip_batches
from minilog.errors import InvalidRequest
from minilog.wire.group_messages import CommittedOffset
from minilog.wire.http import BATCH, EVENTS, JSON, NDJSON, Start
from minilog.wire.json.json_answers import FetchAnswer, OffsetFound
from minilog.wire.json.lag_answers import PartitionOffsets, TopicOffsets
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
    FetchResult,
)

_encoder = msgspec.json.Encoder()


async def fetch_partition(context: HttpContext, exchange: Exchange) -> web.StreamResponse:
    media = exchange.media_out()
    _check(context, exchange, media)
    reader = Reader(context, exchange)
    if media == EVENTS:
        return await tail(context, exchange, reader)
    await reader.begin(exchange.query.get("offset", Start(at=EARLIEST)))
    result = await reader.read(exchange.query.get("wait_ms", 0), exchange.query.get("min_bytes", 1))
    if media == BATCH:
        return await _batches(context, result, reader)
    shape = _json if media == JSON else _ndjson
    page, body = await reader.page(result, lambda page: shape(page, result))
    if page.offsets:
        exchange.delivery.expect(len(body))
    if media == NDJSON:
        return answer(body, NDJSON, headers=_position_headers(page, result))
    return answer(body, JSON, headers=_lag_headers(result) if "replica" in exchange.query else None)


async def offsets(context: HttpContext, exchange: Exchange) -> web.Response:
    topic, partition = exchange.values["topic"], exchange.values["partition"]
    at = exchange.query.get("at", LATEST)
    result = await find_offset(context, topic, partition, at, exchange.topic_id, forward=exchange.is_of_a_page)
    assert result.offset is not None, "find_offset raises where there is none"
    epoch = result.last_epoch if result.last_epoch >= 0 else None
    return json_answer(OffsetFound(topic, partition, result.offset, result.timestamp, epoch, result.topic_id))


async def topic_offsets(context: HttpContext, exchange: Exchange) -> web.Response:
    """As the lag of whoever has committed 0: then what is gone before its first read is where the
    log begins."""
    topic = context.topic(exchange.values["topic"])
    beginnings = [CommittedOffset(topic.topic, partition, 0, topic_id=topic.topic_id) for partition in topic.partitions]
    found = await measure(context.runtime, beginnings)
    partitions = [PartitionOffsets(lag.partition, lag.lost, lag.high_watermark) for lag in found]
    return json_answer(TopicOffsets(topic.topic, topic.topic_id, partitions))


def _check(context: HttpContext, exchange: Exchange, media: str) -> None:
    """What the parameters may not be together, or beyond this broker's limits."""
    query, limits = exchange.query, context.limits
    for name, bound in (("wait_ms", limits.wait_ms_max), ("max_bytes", limits.fetch_bytes_max)):
        if query.get(name, 0) > bound:
            raise InvalidRequest(f"{name} is {query[name]}; this broker allows at most {bound}")
    if query.get("min_bytes", 0) > query.get("max_bytes", min(MAX_BYTES, limits.fetch_bytes_max)):
        raise InvalidRequest(
            f"min_bytes is {query['min_bytes']}, more than max_bytes allows; lower one or raise the other"
        )
    if "max_lag_ms" in query and query.get("replica") != "any":
        raise InvalidRequest("max_lag_ms is for replica=any; the leader is never behind")
    refused = {
        BATCH: ("max_records", "format", "key_format", "errors_tolerance"),
        EVENTS: ("max_records", "wait_ms", "min_bytes"),
    }
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
    """A FetchAnswer whose records are texts already."""
    epoch = page.last_epoch if page.last_epoch >= 0 else None
    about = FetchAnswer([], page.next_offset, result.high_watermark, result.log_start_offset, epoch, result.topic_id)
    return b'{"records":[' + b",".join(page.texts) + b"]" + _encoder.encode(about).removeprefix(b'{"records":[]')


def _ndjson(page: Page, result: FetchResult) -> bytes:
    return b"".join(text + b"\n" for text in page.texts)


async def _batches(context: HttpContext, result: FetchResult, reader: Reader) -> web.Response:
    batches = result.batches

    def work() -> tuple[Page, bytes]:
        return skip_batches(batches, reader.offset, reader.last_epoch), bytes(batches)

    page, body = await context.compute(work, is_long=len(batches) >= THREAD_BYTES_MIN)
    return answer(body, BATCH, headers=_position_headers(page, result))


HANDLERS: Final[Mapping[str, Handler]] = {
    "fetch_partition": fetch_partition,
    "offsets": offsets,
    "topic_offsets": topic_offsets,
}
