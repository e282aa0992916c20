"""What this broker knows: brokers, topics, the cluster's health, its own. All from its copy of the
metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

import minilog
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, answer, json_answer, message_answer
from minilog.broker.http.openapi import document
from minilog.core.image import ClusterImage, min_isr
from minilog.core.metadata_view import listed_topics, metadata_reply, topic_info
from minilog.wire.http import MSGPACK
from minilog.wire.json_answers import Alive, BrokerList, ClusterInfo, Health, PartitionHealth, Readiness, TopicList
from minilog.wire.metadata_records import NO_LEADER

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


async def root(context: HttpContext, exchange: Exchange) -> web.Response:
    image = context.runtime.image
    about = {
        "name": "minilog",
        "version": minilog.__version__,
        "what": "a partitioned, replicated log broker that speaks HTTP",
        "broker_id": context.broker_id,
        "cluster_id": image.cluster_id,
        "routes": "/openapi.json",
        "look_at": ["/v1/cluster", "/v1/cluster/health", "/v1/topics", "/metrics", "/healthz", "/readyz"],
        "produce": "POST /v1/topics/{topic}/records",
        "fetch": "GET /v1/topics/{topic}/partitions/{partition}/records?offset=earliest",
    }
    return json_answer(about)


async def healthz(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(Alive("alive", context.broker_id))


async def readyz(context: HttpContext, exchange: Exchange) -> web.Response:
    ready = context.runtime.ready
    known = context.broker_id in context.runtime.image.brokers
    reason = (
        "" if ready else "not registered with the controller" if not known else "fenced, shutting down or catching up"
    )
    return json_answer(Readiness(ready, context.broker_id, reason), 200 if ready else 503)


async def metrics(context: HttpContext, exchange: Exchange) -> web.Response:
    return answer(await context.metrics.render(), EXPOSITION)


async def openapi(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(document())


async def metadata(context: HttpContext, exchange: Exchange) -> web.Response:
    media = exchange.media_out()
    reply = metadata_reply(context.image, exchange.query.get("topics"))
    return message_answer(reply) if media == MSGPACK else json_answer(reply)


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
        controller_url=context.runtime.settings.controller_url,
    )
    return json_answer(about)


async def health(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(health_of(context.image))


def health_of(image: ClusterImage) -> Health:
    """Healthy: every partition has a leader and none is under its min ISR. Missing replicas alone
    only warn."""
    offline, under_min_isr, under_replicated, not_preferred = [], [], [], []
    for topic, state in image.partitions():
        needed = min_isr(topic, state)
        about = PartitionHealth(state.topic, state.partition, state.leader, state.replicas, state.isr, needed)
        if state.leader == NO_LEADER:
            offline.append(about)
        elif state.leader != state.replicas[0]:
            not_preferred.append(about)
        if len(state.isr) < needed:
            under_min_isr.append(about)
        if len(state.isr) < len(state.replicas):
            under_replicated.append(about)
    down = sorted(broker.broker_id for broker in image.brokers.values() if not broker.eligible)
    is_healthy = not offline and not under_min_isr
    return Health(is_healthy, offline, under_min_isr, under_replicated, not_preferred, down)


HANDLERS: Final[Mapping[str, Handler]] = {
    "root": root,
    "healthz": healthz,
    "readyz": readyz,
    "metrics": metrics,
    "openapi": openapi,
    "metadata": metadata,
    "list_topics": list_topics,
    "describe_topic": describe_topic,
    "brokers": brokers,
    "cluster": cluster,
    "health": health,
}
