"""The native protocol: msgpack in, one message to the runtime or to the controller, msgpack out.
The hot path."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Final, get_args

from aiohttp import web
from msgspec.structs import replace

from minilog.broker.http.cluster.controller_forward import asked_by, to_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, message_answer
from minilog.broker.http.groups.group_forward import answer_forwarded, group_call
from minilog.core.access.partitions import divided, joined
from minilog.errors import InvalidRequest
from minilog.server.inbound.answer_delivery import Delivery
from minilog.wire.figure_messages import DescribeBroker
from minilog.wire.group_messages import (
    CommittedOffsets,
    DescribeGroup,
    ForwardedGroupRequest,
    GroupHeartbeat,
    GroupRequest,
    ListGroups,
)
from minilog.wire.messages import (
    CLUSTER_MESSAGES,
    AllocateProducerIds,
    DescribeCluster,
    Fetch,
    FetchReply,
    InitProducer,
    Message,
    Metadata,
    NotAMessage,
    Offsets,
    PersonsChange,
    Positions,
    Probe,
    Produce,
    ProduceReply,
    ReplicaFetch,
    ReplicaFetchReply,
    decode,
)
from minilog.wire.sizes import check_size

CONTROLLER_MESSAGES: Final = (
    *get_args(PersonsChange),
    DescribeCluster,
    AllocateProducerIds,
)
PEER_MESSAGES: Final = (ReplicaFetch, Positions, Probe, DescribeBroker)
READS: Final = (DescribeGroup, ListGroups, CommittedOffsets)
REPEATED: Final = (GroupHeartbeat, *READS)
"""Group messages that change nothing, or that their sender sends again and again: nobody wants an
answer after it has gone."""
CLIENT_MESSAGES: Final = (Produce, Fetch, Offsets, Metadata, InitProducer)


async def produce(context: HttpContext, exchange: Exchange) -> web.Response:
    message = await _message(exchange)
    if not isinstance(message, Produce):
        raise _wrong_message(message, (Produce,))
    return message_answer(await _produce(context, exchange, message))


async def fetch(context: HttpContext, exchange: Exchange) -> web.Response:
    message = await _message(exchange)
    exchange.end_with_client()
    if isinstance(message, Offsets):
        return _answer_read(exchange.delivery, await context.runtime.submit(message))
    if not isinstance(message, Fetch):
        raise _wrong_message(message, (Fetch, Offsets))
    return message_answer(await _fetch(context, exchange, message))


async def rpc(context: HttpContext, exchange: Exchange) -> web.Response:
    message = await _message(exchange)
    exchange.vouch(is_clusters=isinstance(message, CLUSTER_MESSAGES))
    match message:
        case Produce():
            return message_answer(await _produce(context, exchange, message))
        case Fetch():
            exchange.end_with_client()
            return message_answer(await _fetch(context, exchange, message))
        case ReplicaFetch():
            reply = await context.runtime.submit(message)
            context.metrics.requests.on_replica_fetch(_size_of(reply), reply)
            return message_answer(reply)
        case Offsets():
            exchange.end_with_client()
            return _answer_read(exchange.delivery, await context.runtime.submit(message))
        case Metadata():
            exchange.end_with_client()
            return _answer_read(exchange.delivery, await context.runtime.submit(message))
        case Positions() | Probe() | InitProducer():
            exchange.end_with_client()
            return message_answer(await context.runtime.submit(message))
        case DescribeBroker():
            exchange.end_with_client()
            return _answer_read(exchange.delivery, await context.figures.tell())
        case DescribeCluster():
            return _answer_read(exchange.delivery, await to_controller(context, message))
        case _ if isinstance(message, PersonsChange):
            named = replace(message, asked_by=asked_by(context, exchange), principal=exchange.principal.name)
            return message_answer(await to_controller(context, named))
        case AllocateProducerIds():
            return message_answer(await to_controller(context, message))
        case ForwardedGroupRequest():
            return message_answer(await answer_forwarded(context, message, partial(exchange.permit_inner, message)))
        case _ if isinstance(message, GroupRequest):
            if isinstance(message, REPEATED):
                exchange.end_with_client()
            reply = await group_call(context, message)
            return _answer_read(exchange.delivery, reply) if isinstance(message, READS) else message_answer(reply)
        case _:
            raise _wrong_message(message, (*CLIENT_MESSAGES, *PEER_MESSAGES, *CONTROLLER_MESSAGES))


async def _produce(context: HttpContext, exchange: Exchange, message: Produce) -> Message:
    """Of the partitions that may be written."""
    message, refused = divided(exchange.principal, exchange.asker(message), message)
    exchange.note_refusals(message, refused)
    if refused and not message.partitions:
        return joined(ProduceReply([]), refused)
    return joined(await run_produce(context, message), refused)


async def _fetch(context: HttpContext, exchange: Exchange, message: Fetch) -> Message:
    """Of the partitions that may be read."""
    message, refused = divided(exchange.principal, exchange.asker(message), message)
    exchange.note_refusals(message, refused)
    if refused and not message.partitions:
        return joined(FetchReply([]), refused)
    return joined(await run_fetch(context, exchange.delivery, message), refused)


async def run_produce(context: HttpContext, message: Produce) -> Message:
    """Submit and count one native produce."""
    begin = time.monotonic()
    size = sum(len(entry.batches) for entry in message.partitions)
    reply = await context.runtime.submit(message)
    context.metrics.requests.on_produce(message.acks, size, time.monotonic() - begin, reply)
    return reply


async def run_fetch(context: HttpContext, delivery: Delivery, message: Fetch) -> Message:
    """Submit and count one native fetch. It reads no more than can be held until it is taken."""
    begin = time.monotonic()
    room_bytes = delivery.room_bytes()
    if message.max_bytes > room_bytes:
        message = replace(message, max_bytes=room_bytes)
    reply = await context.runtime.submit(message)
    size = _size_of(reply)
    source = "any" if message.any_replica else "leader"
    context.metrics.requests.on_fetch(source, size, time.monotonic() - begin, reply)
    if size:
        delivery.expect(size)
    return reply


def _answer_read(delivery: Delivery, reply: Message) -> web.Response:
    """The answer to what has changed nothing, so that it can still be refused. Raises
    Overloaded."""
    answer = message_answer(reply)
    delivery.expect(answer.content_length or 0)
    return answer


def _size_of(reply: Message) -> int:
    """Bytes of record batches in a reply."""
    if isinstance(reply, FetchReply | ReplicaFetchReply):
        return sum(len(entry.batches) for entry in reply.partitions)
    return 0


async def _message(exchange: Exchange) -> Message:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        check_size(body)
        message = decode(body)
    except NotAMessage as error:
        raise InvalidRequest(f"the body is not one message in msgpack: {error}") from None
    exchange.permit(message)
    return message


def _wrong_message(message: Message, allowed: tuple[type[Message], ...]) -> InvalidRequest:
    names = ", ".join(cls.__name__ for cls in allowed)
    return InvalidRequest(f"the message is a {type(message).__name__}; allowed here: {names}")


HANDLERS: Final[Mapping[str, Handler]] = {"produce": produce, "fetch": fetch, "rpc": rpc}
