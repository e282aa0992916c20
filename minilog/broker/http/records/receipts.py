"""Receipts: what became of records that were acknowledged, asked of the leaders they lie with.

A receipt names leader epoch and offset, and these name a record for ever. So the question is the
one of a consumer that has read up to there (R23): a fetch from behind the last record, with its
epoch. A leader that holds other records at these offsets answers LOG_TRUNCATED.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Meta

from minilog.broker.http.exchange import Exchange, Handler, HttpContext, checked, json_answer
from minilog.errors import (
    InternalError,
    InvalidRequest,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
    UnknownTopic,
)
from minilog.wire.batch import split
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.json.json_records import DECODE_ERRORS, reason
from minilog.wire.json.receipt_answers import (
    AT_RISK,
    COMMITTED,
    GONE,
    LOST,
    RECEIPTS_MAX,
    SUPERSEDED,
    UNKNOWN,
    CheckedReceipt,
    CheckedReceipts,
    ReceiptToCheck,
)
from minilog.wire.messages import Fetch, FetchPartition, FetchReply, FetchResult
from minilog.wire.records import decode_batch

TIMEOUT_MS: Final = 5000
ANSWER_S: Final = 8.0
"""For all receipts of one request: who asks has not much more time, and hears of those that were
found."""
AT_ONCE: Final = 20
"""Questions to one leader."""
LOOK_BYTES: Final = 1
"""One batch is answered, whatever its size."""


class ReceiptsBody(msgspec.Struct, forbid_unknown_fields=True):
    receipts: Annotated[list[ReceiptToCheck], Meta(min_length=1, max_length=RECEIPTS_MAX)]


_decoder = msgspec.json.Decoder(ReceiptsBody)


class Finding(NamedTuple):
    status: str
    sentence: str
    lost_from: int | None = None


async def check_receipts(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        asked = _decoder.decode(body).receipts
    except DECODE_ERRORS as error:
        raise InvalidRequest(
            f'the body must be {{"receipts": [{{"topic", "partition", "offset", "leader_epoch"}}, ...]}}: {reason(error)}'
        ) from None
    for index, receipt in enumerate(asked):
        if receipt.last_offset < receipt.offset:
            raise InvalidRequest(
                f"receipts[{index}]: end_offset {receipt.end_offset} is not behind offset {receipt.offset}"
            )
    exchange.end_with_client()
    ends_s = asyncio.get_running_loop().time() + ANSWER_S
    places: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def one(receipt: ReceiptToCheck) -> CheckedReceipt:
        try:
            async with asyncio.timeout_at(ends_s), places[_leader(context, receipt)]:
                found = await _find(context, receipt)
        except TimeoutError:
            found = Finding(UNKNOWN, f"nobody has said within {ANSWER_S:g} s; ask again, for fewer at a time")
        span = receipt.offset, receipt.last_offset + 1, receipt.leader_epoch
        return CheckedReceipt(receipt.topic, receipt.partition, *span, *found)

    return json_answer(CheckedReceipts(list(await asyncio.gather(*map(one, asked)))))


def _leader(context: HttpContext, receipt: ReceiptToCheck) -> int:
    try:
        return context.partition(receipt.topic, receipt.partition).leader
    except MinilogError:
        return NO_LEADER


async def _find(context: HttpContext, receipt: ReceiptToCheck) -> Finding:
    name = f"{receipt.topic}-{receipt.partition}"
    try:
        result = await _ask(context, receipt, receipt.last_offset + 1, receipt.leader_epoch)
    except LogTruncated as error:
        lost_from = max(receipt.offset, int(error.info.get("lost_from", receipt.offset)))
        return Finding(LOST, f"{name} holds other records at offset {lost_from} by now, or none: it was cut", lost_from)
    except OffsetOutOfRange as error:
        return Finding(GONE, f"{name} begins at offset {error.info.get('log_start_offset')}: retention has taken it")
    except UnknownTopic as error:
        return Finding(GONE, error.detail)
    except MinilogError as error:
        return Finding(UNKNOWN, error.detail)
    if receipt.last_offset < result.log_start_offset:
        return Finding(GONE, f"{name} begins at offset {result.log_start_offset}: retention has taken it")
    if result.high_watermark is None:
        return Finding(
            UNKNOWN, f"the new leader of {name} does not know yet how far it is committed; ask again shortly"
        )
    if receipt.last_offset >= result.high_watermark:
        return Finding(
            AT_RISK, f"{name} is committed to offset {result.high_watermark}: what lies behind is on its leader"
        )
    return await _committed(context, receipt, result)


async def _committed(context: HttpContext, receipt: ReceiptToCheck, result: FetchResult) -> Finding:
    """What is committed is there, unless retention or compaction has come by since."""
    name = f"{receipt.topic}-{receipt.partition}"
    if receipt.offset < result.log_start_offset:
        gone = result.log_start_offset - receipt.offset
        return Finding(COMMITTED, f"{name} holds it, but for the first {gone} records, which retention has taken")
    topic = context.image.topics.get(receipt.topic)
    is_compacted = topic is not None and topic.settings.is_compacted
    if is_compacted and receipt.last_offset > receipt.offset:
        return Finding(
            COMMITTED, f"{name} holds it, but for what compaction may have taken for later values of its keys"
        )
    if is_compacted:
        try:
            if not await _is_there(context, receipt):
                return Finding(SUPERSEDED, f"{name} was compacted: a later value of its key has taken its place")
        except MinilogError as error:
            return Finding(UNKNOWN, error.detail)
    return Finding(COMMITTED, f"{name} holds it on every in-sync replica")


async def _is_there(context: HttpContext, receipt: ReceiptToCheck) -> bool:
    """Raises CorruptBatch where that cannot be read."""
    result = await _ask(context, receipt, receipt.offset, -1)
    batches = split(result.batches, 2**31 - 1, stored=True)
    if not batches or batches[0].base_offset > receipt.offset:
        return False
    records = await context.compute(lambda: decode_batch(batches[0], from_offset=receipt.offset), is_long=True)
    return bool(records) and records[0].offset == receipt.offset


async def _ask(context: HttpContext, receipt: ReceiptToCheck, offset: int, last_epoch: int) -> FetchResult:
    """One fetch from the leader; raises the error it met."""
    state = context.partition(receipt.topic, receipt.partition, receipt.topic_id)
    entry = FetchPartition(receipt.topic, receipt.partition, offset, LOOK_BYTES, -1, last_epoch, state.topic_id)
    message = Fetch([entry], 0, 0, LOOK_BYTES, of_receipt=True)
    if state.leader == context.broker_id:
        reply = checked(await context.runtime.submit(message), FetchReply)
    else:
        reply = checked(await context.runtime.call(context.leader_url(state), message, TIMEOUT_MS), FetchReply)
    if len(reply.partitions) != 1:
        raise InternalError(f"the leader answered {len(reply.partitions)} partitions, one was asked")
    (result,) = reply.partitions
    if result.problem is not None:
        raise result.problem.error()
    return result


HANDLERS: Final[Mapping[str, Handler]] = {"check_receipts": check_receipts}
