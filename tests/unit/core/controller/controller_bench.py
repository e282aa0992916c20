"""One ControllerCore on a bench: journal, shell and brokers are played by the test.

The loop is the shell's own: journal a decision's records, replay them, perform its effects, then
``on_committed``, until nothing more is decided. Every broker keeps a copy of the image, fed by
nothing but heartbeat replies, and after each commit image and copies are checked (R26,
MetadataLogMatching).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from minilog.config import ControllerSettings
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.decision import Decision
from minilog.core.effects import Effect, Reply, Send
from minilog.core.image import ClusterImage, PartitionState
from minilog.errors import BrokerUnavailable, MinilogError
from minilog.wire.journal.metadata_records import EventNoted, FailoverNoted, MetadataRecord
from minilog.wire.messages import (
    AlterPartition,
    CreateTopic,
    Heartbeat,
    HeartbeatReply,
    IsrMember,
    IsrProposal,
    Message,
    Position,
    Positions,
    PositionsReply,
    Probe,
    ProbeReply,
    Problem,
    Register,
    RegisterReply,
)
from tests.unit.core.builders import TOPIC

TICK_MS = 20
REFUSED = BrokerUnavailable("connection refused", definite=True, reason="refused")
SILENT = BrokerUnavailable("no answer in time", reason="timeout")


def without_events(records: Sequence[MetadataRecord]) -> list[MetadataRecord]:
    return [record for record in records if not isinstance(record, EventNoted | FailoverNoted)]


class Broker:
    """What a broker process knows and has under way."""

    def __init__(self, broker_id: int, incarnation: str) -> None:
        self.broker_id, self.incarnation = broker_id, incarnation
        self.epoch = -1
        self.sequence = 0
        self.alter_sequence = 0
        self.image = ClusterImage()
        self.heartbeat_id: int | None = None
        self.leaving = False
        self.drained = True
        self.may_exit = False
        self.alive = True


class ControllerBench:
    def __init__(self, brokers: Sequence[int] = (1, 2, 3), **settings: Any) -> None:
        self.settings = ControllerSettings(data_dir="unused", **settings)
        self.core = ControllerCore(self.settings, Random(1))
        self.journal: list[MetadataRecord] = []
        self.steps: list[list[MetadataRecord]] = []
        """What was decided, without what people are told of it."""
        self.now_ms = 0
        self.next_request_id = 1
        self.replies: dict[int, Message] = {}
        self.sends: list[Send] = []
        self.brokers: dict[int, Broker] = {}
        self.carry_out(self.core.start(0))
        for broker_id in brokers:
            self.join(broker_id)

    # --- its shell --------------------------------------------------------------------------------

    def carry_out(self, decision: Decision) -> None:
        while decision.records:
            self.steps.append(without_events(decision.records))
            for record in decision.records:
                self.journal.append(record)
                self.core.replay(len(self.journal), record)
            self.core.image.check_invariants()
            self.perform(decision.effects)
            decision = self.core.on_committed(self.now_ms)
        self.perform(decision.effects)

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                assert effect.request_id not in self.replies, f"request {effect.request_id} is answered twice"
                self.replies[effect.request_id] = effect.response
            else:
                assert isinstance(effect, Send)
                self.sends.append(effect)

    def handle(self, request: Message) -> int:
        request_id, self.next_request_id = self.next_request_id, self.next_request_id + 1
        self.carry_out(self.core.handle(request_id, request, self.now_ms))
        return request_id

    def ask(self, request: Message) -> Message:
        return self.replies[self.handle(request)]

    def problem(self, request: Message) -> str:
        reply = self.ask(request)
        assert isinstance(reply, Problem), reply
        return reply.code

    def respond(self, send: Send, response: Message | MinilogError) -> None:
        if send in self.sends:
            self.sends.remove(send)
        self.carry_out(self.core.on_response(send.node_id, send.request, response, self.now_ms))

    def disconnect(self, request_id: int) -> None:
        self.carry_out(self.core.on_disconnect(request_id, self.now_ms))

    def tick(self, by_ms: int = TICK_MS) -> None:
        self.now_ms += by_ms
        self.carry_out(self.core.tick(self.now_ms))

    def run(self, for_ms: int) -> None:
        """Time passes tick by tick, and every living broker does its part."""
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.tick(min(TICK_MS, end_ms - self.now_ms))
            self.beat()

    def restart(self, *, snapshot_at: int = 0) -> None:
        """A new controller process: the journal alone survives, and its snapshot at an index.
        Connections are gone."""
        core = ControllerCore(self.settings, Random(2))
        if snapshot_at:
            image = ClusterImage()
            for index, record in enumerate(self.journal[:snapshot_at], 1):
                image.apply(index, record)
            core.load(snapshot_at, image.snapshot())
        for index, record in enumerate(self.journal[snapshot_at:], snapshot_at + 1):
            core.replay(index, record)
        self.core = core
        self.sends.clear()
        for broker in self.brokers.values():
            broker.heartbeat_id = None
        self.carry_out(core.start(self.now_ms))

    # --- its brokers ------------------------------------------------------------------------------

    def register(self, broker_id: int, incarnation: str = "", *, clean: bool = True, **more: Any) -> int:
        process = incarnation or f"process-{broker_id}-{self.next_request_id}"
        request = Register(broker_id, process, "", f"http://broker-{broker_id}:8082", f"r{broker_id}", clean, 0)
        for name, value in more.items():
            setattr(request, name, value)
        return self.handle(request)

    def join(self, broker_id: int, *, clean: bool = True, **more: Any) -> Broker:
        """A new process of ``broker_id`` starts: registers, learns the metadata, is unfenced."""
        incarnation = f"process-{broker_id}-{self.next_request_id}"
        broker = Broker(broker_id, incarnation)
        reply = self.replies[self.register(broker_id, incarnation, clean=clean, **more)]
        assert isinstance(reply, RegisterReply), reply
        broker.epoch = reply.broker_epoch
        self.brokers[broker_id] = broker
        self.beat()
        assert not self.core.image.brokers[broker_id].fenced
        return broker

    def beat(self) -> None:
        """Every living broker takes its news and parks its next heartbeat, until there is no more
        news."""
        again = True
        while again:
            again = False
            for broker in list(self.brokers.values()):
                if broker.alive and not broker.may_exit and self._ready(broker):
                    self.heartbeat(broker)
                    again = True

    def _ready(self, broker: Broker) -> bool:
        if broker.heartbeat_id is None:
            return True
        if broker.heartbeat_id not in self.replies:
            return False
        self.hear(broker)
        return True

    def hear(self, broker: Broker) -> None:
        """Take the answer to the heartbeat that was parked."""
        assert broker.heartbeat_id is not None
        reply = self.replies[broker.heartbeat_id]
        broker.heartbeat_id = None
        if not isinstance(reply, HeartbeatReply):
            return
        assert (reply.broker_epoch, reply.sequence) == (broker.epoch, broker.sequence)
        if reply.snapshot:
            broker.image.load(reply.metadata_offset, reply.records)
        else:
            assert reply.base_offset == broker.image.metadata_offset
            for index, record in enumerate(reply.records, reply.base_offset + 1):
                broker.image.apply(index, record)
        assert broker.image.metadata_offset == reply.metadata_offset
        broker.may_exit = broker.may_exit or reply.may_exit
        if broker.image.metadata_offset == self.core.metadata_offset:
            assert broker.image.snapshot() == self.core.snapshot(), "a broker's image is the controller's (R29)"

    def heartbeat(self, broker: Broker, **more: Any) -> int:
        broker.sequence += 1
        request = Heartbeat(
            broker.broker_id,
            broker.epoch,
            broker.incarnation,
            broker.sequence,
            broker.image.metadata_offset,
            broker.image.controller_epoch,
            broker.leaving,
            broker.drained,
        )
        for name, value in more.items():
            setattr(request, name, value)
        broker.heartbeat_id = self.handle(request)
        return broker.heartbeat_id

    def kill(self, broker_id: int) -> None:
        """The process dies while its heartbeat is parked: its connection drops and its port
        refuses."""
        self.beat()
        broker = self.brokers[broker_id]
        broker.alive = False
        if broker.heartbeat_id is not None:
            self.disconnect(broker.heartbeat_id)
        for send in [s for s in self.sends if s.node_id == broker_id]:
            self.respond(send, REFUSED)

    def silence(self, broker_id: int) -> None:
        """The machine is cut off: nothing is heard any more, not even that."""
        self.brokers[broker_id].alive = False

    # --- elections and partitions -----------------------------------------------------------------

    def probes(self, broker_id: int) -> list[Send]:
        return [s for s in self.sends if isinstance(s.request, Probe) and s.node_id == broker_id]

    def answer_probe(self, broker_id: int, response: Message | MinilogError | None = None) -> None:
        (send,) = self.probes(broker_id)
        self.respond(send, response or ProbeReply(broker_id, self.brokers[broker_id].incarnation))

    def queries(self) -> dict[int, Positions]:
        return {s.node_id: s.request for s in self.sends if isinstance(s.request, Positions)}

    def answer_positions(self, broker_id: int, last_epoch: int = 0, end_offset: int = 0) -> None:
        for send in [s for s in self.sends if s.node_id == broker_id and isinstance(s.request, Positions)]:
            request = send.request
            assert isinstance(request, Positions)
            found = [
                Position(q.topic, q.topic_id, q.partition, q.leader_epoch, last_epoch, end_offset)
                for q in request.partitions
            ]
            reply = PositionsReply(request.broker_id, request.broker_epoch, request.sequence, found)
            self.respond(send, reply)

    def create(self, *assignment: Sequence[int], min_isr: int = 1) -> int:
        """The topic with these replicas per partition."""
        config = {"min.insync.replicas": str(min_isr)}
        request_id = self.handle(
            CreateTopic(TOPIC, config=config, assignment=[list(members) for members in assignment])
        )
        self.beat()
        return request_id

    def state(self, partition: int = 0) -> PartitionState:
        state = self.core.image.partition(TOPIC, partition)
        assert state is not None
        return state

    def proposal(self, isr: Sequence[int], partition: int = 0) -> IsrProposal:
        """What the partition's leader would propose now."""
        state = self.state(partition)
        members = [IsrMember(r, self.brokers[r].epoch) for r in isr]
        return IsrProposal(TOPIC, state.topic_id, partition, state.leader_epoch, state.partition_epoch, members)

    def alter(self, broker_id: int, *proposals: IsrProposal, **more: Any) -> AlterPartition:
        broker = self.brokers[broker_id]
        broker.alter_sequence += 1
        process = broker_id, broker.epoch, broker.incarnation
        epoch = self.core.image.controller_epoch
        request = AlterPartition(*process, epoch, broker.alter_sequence, list(proposals))
        for name, value in more.items():
            setattr(request, name, value)
        return request
