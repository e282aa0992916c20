"""What this broker knows: brokers, topics, the cluster's health, its own. All from its copy of the
metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from minilog.broker.http.cluster.openapi import encoded_document
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, answer, json_answer, message_answer
from minilog.core.health import Knowledge, health_of
from minilog.core.metadata_view import listed_topics, metadata_reply, topic_info
from minilog.server.exposition import CONTENT_TYPE
from minilog.wire.http import JSON, MSGPACK
from minilog.wire.json.json_answers import Alive, BrokerList, ClusterInfo, Readiness, TopicList
from minilog.wire.messages import DescribeCluster, DescribeClusterReply, Problem

HEALTH_TIMEOUT_MS: Final = 1000


async def healthz(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(Alive("alive", context.broker_id))


async def readyz(context: HttpContext, exchange: Exchange) -> web.Response:
    ready = context.runtime.ready
    known = context.broker_id in context.runtime.image.brokers
    reason = (
        "" if ready else "not registered with the controller" if not known else "fenced, shutting down or catching up"
    )
    heard_ms_ago = context.runtime.core.controller_heard_ms_ago(context.runtime.clock.now_ms())
    readiness = Readiness(ready, context.broker_id, reason, controller_heard_ms_ago=heard_ms_ago)
    return json_answer(readiness, 200 if ready else 503)


async def metrics(context: HttpContext, exchange: Exchange) -> web.Response:
    return answer(await context.metrics.render(), CONTENT_TYPE)


async def metrics_kafka(context: HttpContext, exchange: Exchange) -> web.Response:
    return answer(await context.metrics.render_kafka(), CONTENT_TYPE)


async def openapi(context: HttpContext, exchange: Exchange) -> web.Response:
    return answer(encoded_document(), JSON)


async def metadata(context: HttpContext, exchange: Exchange) -> web.Response:
    media = exchange.media_out()
    reply = metadata_reply(context.image, exchange.query.get("topics"))
    return message_answer(reply) if media == MSGPACK else json_answer(reply)


async def metadata_copy(context: HttpContext, exchange: Exchange) -> web.Response:
    return answer(msgspec.json.encode(context.runtime.metadata_copy()), JSON)  # records say of which type they are


async def list_topics(context: HttpContext, exchange: Exchange) -> web.Response:
    topics = context.image.topics
    return json_answer(TopicList([topic_info(topics[name]) for name in listed_topics(context.image)]))


async def describe_topic(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(topic_info(context.topic(exchange.values["topic"])))


async def brokers(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(BrokerList(metadata_reply(context.image, []).brokers))


async def cluster(context: HttpContext, exchange: Exchange) -> web.Response:
    image = context.image
    about = ClusterInfo(
        cluster_id=image.cluster_id,
        controller_epoch=image.controller_epoch,
        metadata_offset=image.metadata_offset,
        answered_by=context.broker_id,
        brokers=metadata_reply(image, []).brokers,
        topics=len(image.topics),
        partitions=sum(len(topic.partitions) for topic in image.topics.values()),
        controller_url=context.runtime.controller_url,
        controller_version=image.controller_version,
    )
    return json_answer(about)


async def health(context: HttpContext, exchange: Exchange) -> web.Response:
    """The controller is asked each time: nothing is called healthy by what was heard before. Its
    decisions up to then are waited for."""
    known = await ask_controller(context, HEALTH_TIMEOUT_MS)
    if known.controller is not None:
        await _hear(context, known.controller.metadata_offset)
    return json_answer(health_of(context.image, known))


async def ask_controller(context: HttpContext, timeout_ms: int) -> Knowledge:
    """What is known after that, whether it has answered or not."""
    runtime = context.runtime
    reply = await runtime.call(runtime.controller_url, DescribeCluster(), timeout_ms)
    is_told = isinstance(reply, DescribeClusterReply) and reply.cluster_id == runtime.image.cluster_id
    problem = reply.detail if isinstance(reply, Problem) else "another controller answers there"
    return Knowledge(
        context.broker_id,
        reply if isinstance(reply, DescribeClusterReply) and is_told else None,
        runtime.controller_url,
        runtime.core.controller_heard_ms_ago(runtime.clock.now_ms()),
        problem,
        runtime.clock.wall_ms(),
        runtime.settings.clock_skew_max_ms,
    )


async def _hear(context: HttpContext, metadata_offset: int) -> None:
    """Until this broker knows so much of the journal, or has had its time for that."""
    runtime = context.runtime
    with suppress(TimeoutError):
        async with asyncio.timeout(HEALTH_TIMEOUT_MS / 1000):
            while runtime.image.metadata_offset < metadata_offset:
                await runtime.metadata_changed.wait()


HANDLERS: Final[Mapping[str, Handler]] = {
    "healthz": healthz,
    "readyz": readyz,
    "metrics": metrics,
    "metrics_kafka": metrics_kafka,
    "openapi": openapi,
    "metadata": metadata,
    "metadata_copy": metadata_copy,
    "list_topics": list_topics,
    "describe_topic": describe_topic,
    "brokers": brokers,
    "cluster": cluster,
    "health": health,
}
