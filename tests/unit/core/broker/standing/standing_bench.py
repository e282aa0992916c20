"""What a broker hears from its controller in these tests, and what it answers."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from minilog.wire.messages import (
    Heartbeat,
    PositionQuery,
    Positions,
    PositionsReply,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, TOPIC_ID

FIRST = TopicPartition(TOPIC, 0)


def heartbeat(bench: BrokerBench) -> Heartbeat:
    assert isinstance(bench.to_controller, Heartbeat)
    return bench.to_controller


def positions(
    bench: BrokerBench, leader_epoch: int, *, topic_id: str = TOPIC_ID, controller_epoch: int = 1, **more: Any
) -> Positions:
    """``more``: what the question says otherwise of whom it is for."""
    query = PositionQuery(TOPIC, topic_id, 0, leader_epoch)
    return replace(Positions(1, bench.core.broker_epoch, controller_epoch, 8, [query]), **more)


def ask_positions(bench: BrokerBench, leader_epoch: int, *, topic_id: str = TOPIC_ID) -> PositionsReply:
    reply = bench.replies[bench.send(positions(bench, leader_epoch, topic_id=topic_id))]
    assert isinstance(reply, PositionsReply)
    assert reply.sequence == 8
    return reply


def leaving(bench: BrokerBench) -> BrokerBench:
    bench.perform(bench.core.begin_shutdown(bench.now_ms))
    bench.metadata()
    return bench


def asks_to_leave(bench: BrokerBench) -> bool:
    """If nothing else is under way to the controller."""
    if isinstance(bench.to_controller, Heartbeat) and not bench.to_controller.shutting_down:
        bench.metadata()
    return isinstance(bench.to_controller, Heartbeat) and bench.to_controller.shutting_down
