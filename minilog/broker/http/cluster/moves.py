"""Moving replicas over HTTP: plans, moves that are begun or cancelled, how far they are, and the
end of a broker that has none any more.

The controller decides and plans. How far a replica has caught up is the word of its leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from minilog.broker.http.cluster.controller_forward import asked_by, to_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, checked, json_answer
from minilog.console.live import ANSWER_TIMEOUT_MS
from minilog.core.image import PartitionState
from minilog.core.moves.moving import adding, is_cancelled, is_moving, removing
from minilog.errors import InvalidRequest, MinilogError
from minilog.wire.admin_messages import (
    MoveReplicas,
    MoveReplicasReply,
    PlanReplicas,
    PlanReplicasReply,
    RemoveBroker,
    ReplicaMove,
)
from minilog.wire.bounded import BrokerId, Few, Id, Int64, Many, Name
from minilog.wire.figure_messages import DescribeBroker, DescribeBrokerReply
from minilog.wire.http import topic_name
from minilog.wire.json.json_records import DECODE_ERRORS, reason
from minilog.wire.json.lever_answers import BrokerGone, MovesBegun, MovesPlanned, MovesUnderWay, Moving, ReplicaProgress
from minilog.wire.messages import Ok

Behind = dict[tuple[str, int, int], int | None]
"""By topic, partition and follower: records that it lacks."""


class ReplicaMoveBody(msgspec.Struct, forbid_unknown_fields=True):
    """``replicas``: the brokers, who is preferred to lead first. null: its move goes back.
    ``partition_epoch``: only if the partition is as it was then."""

    topic: Name
    partition: Int64
    replicas: Annotated[Few[BrokerId], Meta(min_length=1)] | None
    topic_id: Id = ""
    partition_epoch: Int64 = -1


class MoveReplicasBody(msgspec.Struct, forbid_unknown_fields=True):
    """All ``moves`` are begun, or none."""

    moves: Annotated[Many[ReplicaMoveBody], Meta(min_length=1)]
    dry_run: bool = False


class PlanMovesBody(msgspec.Struct, forbid_unknown_fields=True):
    """``off``: brokers that are to have no replicas, ``onto``: the only ones that may take them."""

    off: Few[BrokerId] = []
    onto: Few[BrokerId] = []
    topic: Name = ""
    replication_factor: Int64 = 0
    spread: bool = False


_move_decoder = msgspec.json.Decoder(MoveReplicasBody)
_plan_decoder = msgspec.json.Decoder(PlanMovesBody)


async def move_replicas(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _move_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(
            f'the body must be {{"moves": [{{"topic", "partition", "replicas": [brokers] or null}}, ...], "dry_run"?}}: {reason(error)}'
        ) from None
    moves = [
        ReplicaMove(topic_name(one.topic), one.partition, one.replicas or [], one.topic_id, one.partition_epoch)
        for one in wanted.moves
    ]
    message = MoveReplicas(moves, wanted.dry_run, asked_by(context, exchange), exchange.principal.name)
    reply = checked(await to_controller(context, message), MoveReplicasReply)
    return json_answer(MovesBegun(reply.moves, wanted.dry_run))


async def plan_moves(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    try:
        wanted = _plan_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(
            f'the body must be {{"off"?, "onto"?, "topic"?, "replication_factor"?, "spread"?}}: {reason(error)}'
        ) from None
    message = PlanReplicas(
        wanted.off, wanted.onto, wanted.topic, wanted.replication_factor, wanted.spread, exchange.principal.name
    )
    reply = checked(await to_controller(context, message), PlanReplicasReply)
    return json_answer(MovesPlanned(reply.moves, reply.problems))


async def remove_broker(context: HttpContext, exchange: Exchange) -> web.Response:
    broker_id = exchange.values["broker"]
    message = RemoveBroker(broker_id, asked_by(context, exchange), exchange.principal.name)
    checked(await to_controller(context, message), Ok)
    return json_answer(BrokerGone(broker_id))


async def list_moves(context: HttpContext, exchange: Exchange) -> web.Response:
    """As this broker knows them. A leader that does not answer soon leaves progress unknown."""
    states = sorted(
        (state for _, state in context.image.partitions() if is_moving(state)), key=lambda s: (s.topic, s.partition)
    )
    behind: Behind = {}
    for told in await asyncio.gather(*(_figures(context, leader) for leader in {s.leader for s in states})):
        behind.update(told)
    return json_answer(MovesUnderWay([_moving(state, behind) for state in states]))


async def _figures(context: HttpContext, leader: int) -> Behind:
    broker = context.image.brokers.get(leader)
    if broker is None:
        return {}
    if leader == context.broker_id:
        with suppress(MinilogError):
            return _behind([await context.figures.tell()])
        return {}
    reply = await context.runtime.call(broker.url, DescribeBroker(), ANSWER_TIMEOUT_MS)
    return _behind([reply]) if isinstance(reply, DescribeBrokerReply) and reply.broker_id == leader else {}


def _behind(told: Iterable[DescribeBrokerReply]) -> Behind:
    return {(one.topic, one.partition, one.broker_id): one.records for reply in told for one in reply.behind}


def _moving(state: PartitionState, behind: Behind) -> Moving:
    progress = []
    for broker_id in adding(state):
        in_sync = broker_id in state.isr
        lacks = 0 if in_sync else behind.get((state.topic, state.partition, broker_id))
        progress.append(ReplicaProgress(broker_id, in_sync, lacks))
    return Moving(
        state.topic,
        state.topic_id,
        state.partition,
        state.partition_epoch,
        state.leader,
        state.isr,
        state.former,
        state.target,
        progress,
        removing(state),
        is_cancelled(state),
    )


HANDLERS: Final[Mapping[str, Handler]] = {
    "list_moves": list_moves,
    "move_replicas": move_replicas,
    "plan_moves": plan_moves,
    "remove_broker": remove_broker,
}
