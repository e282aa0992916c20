"""Elections that candidates answer by hand."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from minilog.core.controller.elections.election import Elections
from minilog.core.image import ClusterImage, PartitionState
from minilog.errors import BrokerUnavailable
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerRegistered,
    MetadataRecord,
    PartitionChanged,
    TopicDeleted,
)
from minilog.wire.messages import Position, PositionQuery, Positions, PositionsReply, Problem
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records

TIMEOUT_MS = 300


EPOCHS = {1: 2, 2: 4, 3: 6}


LEADERLESS = partition_state(leader=NO_LEADER, leader_epoch=6, isr=[2, 3])


class Poll:
    """An image and its elections, and what the brokers answer."""

    def __init__(self, *states: PartitionState) -> None:
        self.image: ClusterImage = image_of(*topic_records(*(states or (LEADERLESS,)), min_isr=2))
        self.unfit: set[int] = set()
        self.elections = Elections(self.image, TIMEOUT_MS, lambda broker_id, _: broker_id not in self.unfit)
        for _, state in self.image.partitions():
            self.elections.on_changed(state)
        self.asked: dict[int, Positions] = {}

    def write(self, *records: MetadataRecord) -> None:
        for record in records:
            self.image.apply(self.image.metadata_offset + 1, record)
            if isinstance(record, PartitionChanged):
                self.elections.on_changed(record)
            if isinstance(record, BrokerRegistered):
                self.elections.on_registered(record.broker_id)
            if isinstance(record, TopicDeleted):
                self.elections.on_deleted(record.topic)

    def ask(self, now_ms: int = 0) -> list[int]:
        sends = self.elections.ask(now_ms)
        for send in sends:
            assert isinstance(send.request, Positions)
            self.asked[send.node_id] = send.request
        return [send.node_id for send in sends]

    def answer(self, broker_id: int, last_epoch: int, end_offset: int, *, leader_epoch: int = 6) -> None:
        found = [
            Position(TOPIC, TOPIC_ID, q.partition, leader_epoch, last_epoch, end_offset)
            for q in self.queries(broker_id)
        ]
        self.reply(broker_id, *found)

    def reply(self, broker_id: int, /, *found: Position, **more: Any) -> None:
        """``more``: what the reply says otherwise of itself than the last question did."""
        asked = self.asked[broker_id]
        reply = PositionsReply(asked.broker_id, asked.broker_epoch, asked.sequence, list(found))
        self.elections.on_reply(broker_id, replace(reply, **more))

    def refuse(self, broker_id: int) -> None:
        problem = Problem.of(BrokerUnavailable("not here"))
        asked = self.queries(broker_id)
        self.reply(broker_id, *(Position(TOPIC, TOPIC_ID, q.partition, q.leader_epoch, problem=problem) for q in asked))

    def queries(self, broker_id: int) -> list[PositionQuery]:
        return self.asked[broker_id].partitions

    def fail(self, broker_id: int) -> None:
        self.elections.on_ended(self.asked[broker_id])

    def decided(self, now_ms: int = 1) -> list[tuple[int, int | None, bool]]:
        return [(state.partition, winner, recovery) for state, winner, recovery, *_ in self.elections.decide(now_ms)]


RECOVERING = partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], last_known_elr=[1, 2])
