"""Admin over JSON: checked here, decided by the controller, answered once this broker knows of
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta
from msgspec.structs import replace

from minilog.broker.http.cluster.controller_forward import asked_by, to_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, checked, json_answer
from minilog.errors import InvalidRequest
from minilog.wire.admin_messages import BalanceLeaders, BalanceLeadersReply, ConfigureTopic, ConfigureTopicReply
from minilog.wire.bounded import Few, Int64, Many, Name, Text
from minilog.wire.http import topic_name
from minilog.wire.json.json_answers import ElectionInfo, FailoverList, TopicDeleted
from minilog.wire.json.json_records import DECODE_ERRORS, reason
from minilog.wire.json.lever_answers import LeadersBalanced, TopicAltered
from minilog.wire.messages import (
    ANY_REPLICA,
    AddPartitions,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    ElectLeader,
    ElectLeaderReply,
    Ok,
)
from minilog.wire.routes import path_of

ELECTIONS_TIMEOUT_MS: Final = 1000


class CreateTopicBody(msgspec.Struct, forbid_unknown_fields=True):
    """0 partitions or replicas: the cluster's default. ``config`` holds settings under Kafka's
    names."""

    topic: Name
    partitions: Annotated[int, Meta(ge=0, le=100_000)] = 0
    replication_factor: Annotated[int, Meta(ge=0, le=32)] = 0
    config: dict[Name, Text | Int64] = {}
    assignment: Many[Few[Int64]] = []


class AlterTopicBody(msgspec.Struct, forbid_unknown_fields=True):
    """Either ``partitions``: how many the topic is to have in all. Or ``config``: settings under
    Kafka's names, null for those that are to be as by default. ``dry_run``: say what that would
    be."""

    partitions: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    config: dict[Name, Text | Int64 | bool | None] | None = None
    dry_run: bool = False


class ElectLeaderBody(msgspec.Struct, forbid_unknown_fields=True):
    """``unclean``: records that the new leader lacks are given up. ``leader``: which replica; else
    the longest log. ``expected``: nothing is decided unless that one has the longest log."""

    unclean: bool = False
    leader: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    expected: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class BalanceLeadersBody(msgspec.Struct, forbid_unknown_fields=True):
    """``topics``: only these, all by default. ``dry_run``: say what would be."""

    topics: Few[Name] = []
    dry_run: bool = False


_balance_decoder = msgspec.json.Decoder(BalanceLeadersBody)
_elect_decoder = msgspec.json.Decoder(ElectLeaderBody)
_decoder = msgspec.json.Decoder(CreateTopicBody)
_ALTER_BODY: Final = '{"partitions": how many in all} or {"config": {name: value or null}, "dry_run"?}'
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
        topic_name(wanted.topic),
        wanted.partitions,
        wanted.replication_factor,
        config,
        wanted.assignment,
        asked_by(context, exchange),
        exchange.principal.name,
    )
    exchange.permit(replace(message, principal=""))
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
        raise InvalidRequest(f"the body must be {_ALTER_BODY}: {reason(error)}") from None
    asker = asked_by(context, exchange), exchange.principal.name
    topic_id = _topic_id(context, exchange)
    match wanted:
        case AlterTopicBody(partitions=int(partitions), config=None, dry_run=False):
            checked(await to_controller(context, AddPartitions(topic, partitions, topic_id, *asker)), Ok)
            known = context.image.topics.get(topic)
            config = {} if known is None else known.config
            return json_answer(TopicAltered(topic, partitions, config, config))
        case AlterTopicBody(partitions=None, config=dict(config), dry_run=dry_run):
            given = {name: _setting(value) for name, value in config.items() if value is not None}
            reset = [name for name, value in config.items() if value is None]
            message = ConfigureTopic(topic, given, reset, topic_id, dry_run, *asker)
            return _configured(context, checked(await to_controller(context, message), ConfigureTopicReply), dry_run)
    raise InvalidRequest(f"the body must be {_ALTER_BODY}: one of both, and dry_run for settings only")


def _setting(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _configured(context: HttpContext, reply: ConfigureTopicReply, dry_run: bool) -> web.Response:
    known = context.image.topics.get(reply.topic)
    count = 0 if known is None else len(known.partitions)
    return json_answer(TopicAltered(reply.topic, count, reply.config, reply.before, reply.under_min_isr, dry_run))


async def delete_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    topic = exchange.values["topic"]
    about = _topic_id(context, exchange), asked_by(context, exchange), exchange.principal.name
    checked(await to_controller(context, DeleteTopic(topic, *about)), Ok)
    return json_answer(TopicDeleted(topic))


async def describe_election(context: HttpContext, exchange: Exchange) -> web.Response:
    message = ElectLeader(
        exchange.values["topic"],
        exchange.values["partition"],
        _topic_id(context, exchange),
        dry_run=True,
        principal=exchange.principal.name,
    )
    return await _election(context, message)


async def elect_leader(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _elect_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f'the body must be {{"unclean": true, "leader"?: a broker id}}: {reason(error)}') from None
    message = ElectLeader(
        exchange.values["topic"],
        exchange.values["partition"],
        _topic_id(context, exchange),
        ANY_REPLICA if wanted.leader is None else wanted.leader,
        wanted.unclean,
        expected=ANY_REPLICA if wanted.expected is None else wanted.expected,
        asked_by=asked_by(context, exchange),
        principal=exchange.principal.name,
    )
    return await _election(context, message)


async def _election(context: HttpContext, message: ElectLeader) -> web.Response:
    reply = checked(await to_controller(context, message), ElectLeaderReply)
    return json_answer(
        ElectionInfo(
            reply.topic,
            reply.topic_id,
            reply.partition,
            reply.leader,
            reply.leader_epoch,
            reply.kind,
            reply.candidates,
            reply.missing,
        )
    )


async def balance_leaders(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _balance_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f'the body must be {{"topics"?: [names], "dry_run"?: true}}: {reason(error)}') from None
    topics = [topic_name(topic) for topic in wanted.topics]
    message = BalanceLeaders(topics, wanted.dry_run, asked_by(context, exchange), exchange.principal.name)
    reply = checked(await to_controller(context, message), BalanceLeadersReply)
    return json_answer(LeadersBalanced(reply.moves, wanted.dry_run))


def _topic_id(context: HttpContext, exchange: Exchange) -> str:
    """The topic that is meant: the one the client names, or the one that has the name as far as is
    known here."""
    known = context.runtime.image.topics.get(exchange.values["topic"])
    return exchange.topic_id or ("" if known is None else known.topic_id)


async def failovers(context: HttpContext, exchange: Exchange) -> web.Response:
    """As this broker knows them; how many elections there were the controller alone knows."""
    image, runtime = context.image, context.runtime
    reply = await runtime.call(runtime.controller_url, DescribeCluster(), ELECTIONS_TIMEOUT_MS)
    is_told = isinstance(reply, DescribeClusterReply) and reply.cluster_id == image.cluster_id
    elections = reply.elections if isinstance(reply, DescribeClusterReply) and is_told else {}
    return json_answer(FailoverList(image.failovers, elections, image.controller_epoch))


HANDLERS: Final[Mapping[str, Handler]] = {
    "create_topic": create_topic,
    "alter_topic": alter_topic,
    "delete_topic": delete_topic,
    "describe_election": describe_election,
    "elect_leader": elect_leader,
    "balance_leaders": balance_leaders,
    "failovers": failovers,
}
