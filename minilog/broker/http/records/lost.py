"""Routes of lost records: list, read, write again, discard. Each broker tells of its own; the
command asks all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from minilog.broker.http.cluster.controller_forward import to_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, answer, checked, json_answer
from minilog.broker.http.records.produce_delivery import PartitionShare, deliver
from minilog.broker.http.records.record_page import PAGE_BYTES_MIN, Wanted, page_of
from minilog.broker.lost_replays import LostReplays
from minilog.config import MIB
from minilog.core.image import ClusterImage, TopicImage
from minilog.errors import InvalidRequest
from minilog.wire.bounded import Name
from minilog.wire.http import BATCH, NDJSON, topic_name
from minilog.wire.json.json_answers import LostDiscarded, LostList
from minilog.wire.json.json_records import DECODE_ERRORS, key_format_of, reason
from minilog.wire.messages import (
    ACKS_ALL,
    ClaimLost,
    ClaimLostReply,
    InitProducer,
    InitProducerReply,
    ProduceResult,
)

WRITE_TIMEOUT_MS: Final = 5000


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """``into`` and ``partition``: where to; the partition they were cut from by default.
    ``overwrites``: also into a compacted topic, or a later one of the same name."""

    into: Name = ""
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    overwrites: bool = False


_decoder = msgspec.json.Decoder(ReplayBody)


class HttpCluster:
    """The cluster as seen from here, for LostReplays."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context

    def topic(self, name: str, topic_id: str = "") -> TopicImage:
        return self._context.topic(name, topic_id)

    @property
    def image(self) -> ClusterImage:
        return self._context.runtime.image

    async def new_producer_id(self) -> int:
        return checked(await self._context.runtime.submit(InitProducer()), InitProducerReply).producer_id

    async def claim(self, claim: ClaimLost) -> ClaimLostReply:
        return checked(await to_controller(self._context, claim), ClaimLostReply)

    async def write(self, topic: TopicImage, partition: int, batch: bytes) -> ProduceResult:
        share = PartitionShare(topic.topic, topic.topic_id, partition, [], batch)
        await deliver(self._context, [share], ACKS_ALL, WRITE_TIMEOUT_MS)
        assert share.result is not None
        return share.result


async def list_lost(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(LostList(context.broker_id, await context.lost.all()))


async def describe_lost(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(await context.lost.get(exchange.values["tail"]))


async def discard_lost(context: HttpContext, exchange: Exchange) -> web.Response:
    name = exchange.values["tail"]
    return json_answer(LostDiscarded(name, await context.lost.discard(name)))


async def replay_lost(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(
            f'the body must be {{"into"?: topic, "partition"?, "overwrites"?}}, {{}} for where they were: {reason(error)}'
        ) from None
    into = topic_name(wanted.into) if wanted.into else ""
    name = exchange.values["tail"]
    return json_answer(await context.lost.go_on(name, into, wanted.partition, overwrites=wanted.overwrites))


async def read_lost(context: HttpContext, exchange: Exchange) -> web.Response:
    query, media = exchange.query, exchange.media_out()
    refused = [name for name in ("max_records", "format", "key_format") if media == BATCH and name in query]
    bytes_max = query.get("max_bytes", MIB)
    if refused:
        raise InvalidRequest(f"{refused[0]} has no meaning for {media}; leave it out")
    if bytes_max > context.limits.fetch_bytes_max:
        raise InvalidRequest(f"max_bytes is {bytes_max}; this broker allows at most {context.limits.fetch_bytes_max}")
    value_format = query.get("format", "json")
    wanted = Wanted(
        query.get("max_records"),
        value_format,
        query.get("key_format", key_format_of(value_format)),
        max(bytes_max, PAGE_BYTES_MIN),
        context.limits.fetch_bytes_max,
    )
    name, lost = exchange.values["tail"], context.lost
    body, next_offset = await lost.in_thread(
        lambda: _read(lost, name, query.get("offset", -1), bytes_max, media, wanted)
    )
    exchange.delivery.expect(len(body))
    headers = {} if next_offset is None else {"Minilog-Next-Offset": str(next_offset)}
    return answer(body, media, headers=headers)


def _read(
    lost: LostReplays, name: str, offset: int, bytes_max: int, media: str, wanted: Wanted
) -> tuple[bytes, int | None]:
    """What is shown, and where the next look begins: None behind the last record."""
    data, data_end = bytearray(), 0
    next_offset: int | None = None
    for batch in lost.batches_from(name, offset):
        if data and len(data) + batch.bytes_total > bytes_max:
            next_offset = batch.base_offset
            break
        data += batch.buffers[0]
        data_end = batch.end_offset
    if media == BATCH:
        return bytes(data), next_offset
    page = page_of(memoryview(data), max(offset, 0), -1, wanted)
    if page.next_offset < data_end:
        next_offset = page.next_offset
    if media == NDJSON:
        return b"".join(text + b"\n" for text in page.texts), next_offset
    tail = b"null" if next_offset is None else b"%d" % next_offset
    return b'{"records":[' + b",".join(page.texts) + b'],"next_offset":' + tail + b"}", next_offset


HANDLERS: Final[Mapping[str, Handler]] = {
    "list_lost": list_lost,
    "describe_lost": describe_lost,
    "read_lost": read_lost,
    "replay_lost": replay_lost,
    "discard_lost": discard_lost,
}
