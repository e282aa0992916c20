"""Retries that write nothing twice, for plain HTTP: a producer id, and three headers that number a
request's records.

    curl -s -X POST localhost:8082/v1/producers      # {"producer_id": 7, "producer_epoch": 0}
    curl -s -L -X POST localhost:8082/v1/topics/orders/partitions/0/records \\
         -H 'Minilog-Producer-Id: 7' -H 'Minilog-Producer-Epoch: 0' -H 'Minilog-Sequence: 0' \\
         -H 'Content-Type: application/json' -d '{"records": [{"value": "a"}, {"value": "b"}]}'

The sequence is that of the first record: the next request says 2, because this one had two records.
Whatever became of a request, sending the same again is safe: if it was written before, the receipt
has the offsets of then and says ``"duplicate": true``. After OUT_OF_ORDER_SEQUENCE go on with the
next epoch and sequence 0.

A numbered request is one batch of one partition: numbers are a partition's own, and a request that
were cut into several batches might be cut elsewhere when it is sent again. So the topic's own
route, which chooses partitions, refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiohttp import web

from minilog.broker.http.exchange import Exchange, Handler, HttpContext, checked, json_answer
from minilog.errors import InvalidRequest
from minilog.wire.batch import split
from minilog.wire.json.json_answers import ProducerCreated
from minilog.wire.messages import InitProducer, InitProducerReply
from minilog.wire.records import SealedBatch
from minilog.wire.routes import IF_MATCH, NUMBERS, Parameter


class Numbers(NamedTuple):
    """What the headers say: whose records these are, and the sequence of the first."""

    producer_id: int
    producer_epoch: int
    base_sequence: int


async def create_producer(context: HttpContext, exchange: Exchange) -> web.Response:
    reply = checked(await context.runtime.submit(InitProducer()), InitProducerReply)
    return json_answer(ProducerCreated(reply.producer_id, 0))


def numbers_of(exchange: Exchange) -> Numbers | None:
    """The three headers of a request, or None without any. Raises InvalidRequest."""
    given = {header.name: _header(exchange, header) for header in NUMBERS}
    found = {name: value for name, value in given.items() if value is not None}
    if not found:
        return None
    missing = [header.name for header in NUMBERS if header.name not in found]
    if missing:
        raise InvalidRequest(f"{' and '.join(found)} needs {' and '.join(missing)} as well; give all three or none")
    return Numbers(*found.values())


def expected_offset_of(exchange: Exchange) -> int | None:
    """Where the partition has to end (R101), or None. Raises InvalidRequest."""
    found = _header(exchange, IF_MATCH)
    return None if found is None else int(found)


def _header(exchange: Exchange, header: Parameter) -> Any:
    given = exchange.request.headers.getall(header.name, [])
    if len(given) > 1:
        raise InvalidRequest(f"header {header.name} is given more than once; give it once")
    return header.parse(header.name, given[0].encode("utf-8", "surrogateescape")) if given else None


def refuse_what_is_of_one_partition(exchange: Exchange) -> None:
    """Raises InvalidRequest when one of the headers is there."""
    for header in (*NUMBERS, IF_MATCH):
        if header.name in exchange.request.headers:
            raise InvalidRequest(
                f"{header.name}: sequences and ends belong to one partition, and this route chooses partitions; "
                "send to /v1/topics/{topic}/partitions/{partition}/records"
            )


def number_batch(body: bytes, numbers: Numbers, bytes_max: int) -> bytes:
    """The one batch in ``body``, numbered. Raises InvalidRequest, CorruptBatch or
    RecordTooLarge."""
    batches = split(body, bytes_max)
    if len(batches) != 1:
        raise InvalidRequest(f"the body holds {len(batches)} batches; with Minilog-Sequence send one at a time")
    (batch,) = batches
    if batch.producer_id >= 0:
        raise InvalidRequest(
            f"the batch is numbered already (producer id {batch.producer_id}); leave the Minilog- headers out"
        )
    sealed = SealedBatch.of(batch)
    return sealed.head(*numbers) + sealed.payload


HANDLERS: Final[Mapping[str, Handler]] = {"create_producer": create_producer}
