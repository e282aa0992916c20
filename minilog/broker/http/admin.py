"""Admin over JSON: checked here, decided by the controller, answered once this broker knows of
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from minilog.broker.http.controller_forward import to_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, checked, json_answer
from minilog.errors import InvalidRequest
from minilog.wire.http import topic_name
from minilog.wire.json_answers import FailoverList, TopicAltered, TopicDeleted
from minilog.wire.json_records import DECODE_ERRORS, reason
from minilog.wire.message_base import Int64
from minilog.wire.messages import (
    AddPartitions,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    Ok,
)
from minilog.wire.routes import path_of


class CreateTopicBody(msgspec.Struct, forbid_unknown_fields=True):
    """0 partitions or replicas: the cluster's default. ``config`` holds settings under Kafka's
    names."""

    topic: str
    partitions: Annotated[int, Meta(ge=0, le=100_000)] = 0
    replication_factor: Annotated[int, Meta(ge=0, le=32)] = 0
    config: dict[str, str | Int64] = {}
    assignment: list[list[Int64]] = []


class AlterTopicBody(msgspec.Struct, forbid_unknown_fields=True):
    """``partitions``: how many the topic is to have in all."""

    partitions: Annotated[int, Meta(ge=1, le=100_000)]


_decoder = msgspec.json.Decoder(CreateTopicBody)
_alter_decoder = msgspec.json.Decoder(AlterTopicBody)


async def create_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(
            f'the body must be {{"topic": name, "partitions"?, "replication_factor"?, "config"?}}: {reason(error)}'
        ) from None
    config = {name: str(value) for name, value in wanted.config.items()}
    message = CreateTopic(
        topic_name(wanted.topic), wanted.partitions, wanted.replication_factor, config, wanted.assignment
    )
    reply = checked(await to_controller(context, message), CreateTopicReply)
    location = path_of("describe_topic", topic=wanted.topic)
    return json_answer(reply.topic, 201, {"Location": location})


async def alter_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    topic = exchange.values["topic"]
    try:
        wanted = _alter_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f'the body must be {{"partitions": how many in all}}: {reason(error)}') from None
    checked(await to_controller(context, AddPartitions(topic, wanted.partitions, _topic_id(context, exchange))), Ok)
    return json_answer(TopicAltered(topic, wanted.partitions))


async def delete_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    topic = exchange.values["topic"]
    checked(await to_controller(context, DeleteTopic(topic, _topic_id(context, exchange))), Ok)
    return json_answer(TopicDeleted(topic))


def _topic_id(context: HttpContext, exchange: Exchange) -> str:
    """The topic that is meant: the one the client names, or the one that has the name as far as is
    known here."""
    known = context.runtime.image.topics.get(exchange.values["topic"])
    return exchange.topic_id or ("" if known is None else known.topic_id)


async def failovers(context: HttpContext, exchange: Exchange) -> web.Response:
    reply = checked(await to_controller(context, DescribeCluster()), DescribeClusterReply)
    return json_answer(FailoverList(reply.failovers, reply.elections))


HANDLERS: Final[Mapping[str, Handler]] = {
    "create_topic": create_topic,
    "alter_topic": alter_topic,
    "delete_topic": delete_topic,
    "failovers": failovers,
}
