"""Produce for people and any language: JSON, NDJSON, one raw record, or raw batches in; results and
receipts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw

from minilog.broker.http.exchange import THREAD_BYTES_MIN, Exchange, Handler, HttpContext, answer, problem_answer
from minilog.broker.http.records.native import run_produce
from minilog.broker.http.records.produce_delivery import (
    PartitionShare,
    deliver,
    encode_numbered,
    encode_shares,
    sort_records,
)
from minilog.broker.http.records.producer_ids import (
    Numbers,
    expected_offset_of,
    number_batch,
    numbers_of,
    refuse_what_is_of_one_partition,
)
from minilog.core.image import TopicImage
from minilog.errors import InternalError, InvalidRequest, MinilogError, NotLeader, Overloaded
from minilog.wire.http import BATCH, JSON, OCTETS, acks_text, problem_body
from minilog.wire.json.json_answers import ProduceAnswer, Receipt, RecordFailure, RecordResult
from minilog.wire.json.json_records import ProducedRecord, key_format_of, parse_json, parse_ndjson
from minilog.wire.messages import ACKS_ALL, Problem, Produce, ProducePartition, ProduceReply, ProduceResult

TIMEOUT_MS: Final = 10_000
RESULT_BYTES: Final = 128
"""What an answer says of one record that was written, at most."""
FAILURE_BYTES: Final = 512
"""What it says of one that was not, as a rule."""


async def produce_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    topic = context.topic(exchange.values["topic"], exchange.topic_id)
    acks, timeout_ms = _promise(context, exchange)
    refuse_what_is_of_one_partition(exchange)
    media = exchange.media_in()
    if media != OCTETS and "key" in exchange.query:
        raise InvalidRequest(f"key is for one raw record ({OCTETS}); in {media} each record has its own key")
    records = await _records(context, exchange, media)
    errors: dict[int, MinilogError] = {}

    def encode() -> list[PartitionShare]:
        by_partition = sort_records(context, topic, records, errors)
        return encode_shares(topic, records, by_partition, acks, errors)

    shares = await context.compute(encode, is_long=exchange.body.size_bytes >= THREAD_BYTES_MIN)
    _expect_answer(exchange, records, errors)
    await deliver(context, shares, acks, timeout_ms)
    exchange.is_counted = True
    return await _answer(context, exchange, topic, records, shares, errors, acks)


async def produce_partition(context: HttpContext, exchange: Exchange) -> web.Response:
    name, partition = exchange.values["topic"], exchange.values["partition"]
    state = context.partition(name, partition)
    topic = context.topic(name, exchange.topic_id)
    acks, timeout_ms = _promise(context, exchange)
    numbers, expected_offset = numbers_of(exchange), expected_offset_of(exchange)
    if state.leader != context.broker_id:
        raise context.not_leader(state)
    media = exchange.media_in()
    if media == BATCH:
        return await _produce_batches(context, exchange, topic, partition, acks, timeout_ms, numbers, expected_offset)
    records = await _records(context, exchange, media)
    for index, record in enumerate(records):
        if record.partition not in (None, partition):
            raise InvalidRequest(f"records[{index}].partition is {record.partition}, but the path says {partition}")
    errors: dict[int, MinilogError] = {}
    everything = {partition: list(range(len(records)))}

    def encode() -> list[PartitionShare]:
        if numbers is not None:
            return [encode_numbered(topic, partition, records, acks, numbers)]
        return encode_shares(topic, records, everything, acks, errors)

    shares = await context.compute(encode, is_long=exchange.body.size_bytes >= THREAD_BYTES_MIN)
    _expect_answer(exchange, records, errors)
    for share in shares:
        entry = ProducePartition(name, partition, memoryview(share.batches), share.topic_id, expected_offset)
        share.result = _only(await run_produce(context, Produce(acks, timeout_ms, [entry])), name, partition)
        exchange.is_counted = True
        _raise_elsewhere(share.result)
    response = await _answer(context, exchange, topic, records, shares, errors, acks)
    for share in shares:
        response.headers.update(_end_tag(share.result))
    return response


async def _produce_batches(
    context: HttpContext,
    exchange: Exchange,
    topic: TopicImage,
    partition: int,
    acks: int,
    timeout_ms: int,
    numbers: Numbers | None,
    expected_offset: int | None,
) -> web.Response:
    if {"format", "key_format"} & exchange.query.keys():
        raise InvalidRequest(f"format and key_format are for JSON; {BATCH} holds bytes")
    body = await exchange.body.read()
    if not body:
        raise InvalidRequest("the body is empty; it must hold at least one record batch")
    if numbers is not None:
        body = number_batch(body, numbers, topic.settings.max_message_bytes)
    entry = ProducePartition(topic.topic, partition, memoryview(body), topic.topic_id, expected_offset)
    message = Produce(acks, timeout_ms, [entry])
    result = _only(await run_produce(context, message), topic.topic, partition)
    exchange.is_counted = True
    if result.problem is not None:
        raise result.problem.error()
    done = _record_result(result, 0, result.timestamp)
    if result.end_offset is not None:
        done.end_offset = result.end_offset
    body_out = msgspec.json.encode(ProduceAnswer([done], _receipts([result])))
    return answer(body_out, JSON, 202 if acks == 0 else 200, _end_tag(result))


# --- the request ----------------------------------------------------------------------------------


def _promise(context: HttpContext, exchange: Exchange) -> tuple[int, int]:
    """(acks, timeout_ms), once nothing else about the head is wrong."""
    timeout_ms = exchange.query.get("timeout_ms", min(TIMEOUT_MS, context.limits.timeout_ms_max))
    if timeout_ms > context.limits.timeout_ms_max:
        raise InvalidRequest(f"timeout_ms is {timeout_ms}; allowed are 1 to {context.limits.timeout_ms_max}")
    return exchange.query.get("acks", ACKS_ALL), timeout_ms


async def _records(context: HttpContext, exchange: Exchange, media: str) -> list[ProducedRecord]:
    """The records of the body. Those without a timestamp get the time of now."""
    query = exchange.query
    body = await exchange.body.read()
    now_ms = context.runtime.clock.stamp_ms()
    if media == OCTETS:
        if {"format", "key_format"} & query.keys():
            raise InvalidRequest(f"format and key_format are for JSON; {OCTETS} is bytes")
        return [ProducedRecord(query.get("key"), body, [], now_ms, None)]
    parse = parse_json if media == JSON else parse_ndjson
    value_format = query.get("format", "json")
    key_format = query.get("key_format", key_format_of(value_format))
    work = partial(parse, body, value_format, key_format, now_ms)
    return await context.compute(work, is_long=len(body) >= THREAD_BYTES_MIN)


# --- the answer -----------------------------------------------------------------------------------


def _expect_answer(exchange: Exchange, records: Sequence[ProducedRecord], errors: Mapping[int, MinilogError]) -> None:
    """Room for an answer that tells of every record, asked for before any of them is written.
    Raises Overloaded."""
    exchange.delivery.expect(RESULT_BYTES * (len(records) - len(errors)) + FAILURE_BYTES * len(errors))


def _only(reply: object, topic: str, partition: int) -> ProduceResult:
    if isinstance(reply, ProduceReply) and len(reply.partitions) == 1:
        return reply.partitions[0]
    problem = (
        reply if isinstance(reply, Problem) else Problem.of(InternalError("the broker gave no answer to a produce"))
    )
    return ProduceResult(topic, partition, problem)


def _raise_elsewhere(result: ProduceResult) -> None:
    """The core may know of a new leader before the metadata looked at above: the client is sent
    there."""
    if result.problem is not None and result.problem.code == NotLeader.code:
        raise result.problem.error()


async def _answer(
    context: HttpContext,
    exchange: Exchange,
    topic: TopicImage,
    records: Sequence[ProducedRecord],
    shares: Sequence[PartitionShare],
    errors: Mapping[int, MinilogError],
    acks: int,
) -> web.Response:
    """200 (202 for acks=0) when all records went well, 207 when some did, the status of the worst
    error when none."""
    succeeded = [share.result for share in shares if share.result is not None and share.result.problem is None]
    problems = [
        share.result.problem for share in shares if share.result is not None and share.result.problem is not None
    ]
    failed = [*errors.values(), *(problem.error() for problem in problems)]
    for code in {error.code for error in errors.values()}:
        context.metrics.requests.on_produce_refused(code)
    status = 207 if failed else 202 if acks == 0 else 200

    def encode() -> bytes:
        content = ProduceAnswer(_results(topic, records, shares, errors), _receipts(succeeded))
        return msgspec.json.encode(content) if succeeded else problem_body(_all_failed(content, failed))

    body = await context.compute(encode, is_long=exchange.body.size_bytes >= THREAD_BYTES_MIN)
    if succeeded:
        return answer(body, JSON, status)
    worst = _worst(failed)
    context.metrics.requests.on_error(exchange.match.route.name, worst.code)
    try:
        exchange.delivery.expect(len(body))
    except Overloaded:
        return problem_answer(worst)  # there is room for what became of all records together, not of each
    return problem_answer(worst, body=body)


def _results(
    topic: TopicImage,
    records: Sequence[ProducedRecord],
    shares: Sequence[PartitionShare],
    errors: Mapping[int, MinilogError],
) -> list[Any]:
    """One result per record, in the order of the records."""
    results: list[Any] = [None] * len(records)
    for index, error in errors.items():
        results[index] = RecordFailure(Raw(problem_body(error)))
    by_append_time = topic.settings.message_timestamp_type == "LogAppendTime"
    for share in shares:
        assert share.result is not None
        if share.result.problem is not None:
            failure = RecordFailure(Raw(problem_body(share.result.problem.error())))
            for index in share.indexes:
                results[index] = failure
            continue
        for place, index in enumerate(share.indexes):
            timestamp = share.result.timestamp if by_append_time else records[index].timestamp
            if share.result.duplicate:  # stored is what the first request said, and the receipt tells that
                timestamp = None
            results[index] = _record_result(share.result, place, timestamp)
    return results


def _worst(failed: Sequence[MinilogError]) -> MinilogError:
    """An indefinite one, if there is any: together they are definite only if each of them is."""
    return next((error for error in failed if not error.definite), failed[0])


def _all_failed(content: ProduceAnswer, failed: Sequence[MinilogError]) -> MinilogError:
    """The worst error, carrying the results as well."""
    worst = _worst(failed)
    info = {**worst.info, "results": content.results, "receipts": []}
    error = type(worst)(worst.detail, definite=worst.definite)
    error.info.update(info)
    return error


def _record_result(result: ProduceResult, place: int, timestamp: int | None) -> RecordResult:
    done = RecordResult(result.partition)
    if timestamp is not None:
        done.timestamp = timestamp
    if result.base_offset is not None:
        done.offset = result.base_offset + place
    if result.leader_epoch is not None:
        done.leader_epoch = result.leader_epoch
    return done


def _end_tag(result: ProduceResult | None) -> dict[str, str]:
    """Where the partition ended behind these records: for the ``If-Match`` of the next ones."""
    return {"ETag": f'"{result.end_offset}"'} if result is not None and result.end_offset is not None else {}


def _receipts(results: Sequence[ProduceResult]) -> list[Receipt]:
    return [
        Receipt(
            result.topic,
            result.partition,
            result.base_offset,
            result.end_offset,
            result.leader_epoch,
            result.timestamp,
            result.crc,
            acks_text(ACKS_ALL if result.acks is None else result.acks),
            result.isr,
            result.duplicate,
            result.topic_id,
        )
        for result in results
        if result.base_offset is not None and result.end_offset is not None and result.leader_epoch is not None
    ]


HANDLERS: Final[Mapping[str, Handler]] = {"produce_topic": produce_topic, "produce_partition": produce_partition}
