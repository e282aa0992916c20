"""One BrokerCore on a bench: its shell, its controller, its peers and its disk are played by the
test.

Broker 1 is on the bench unless said otherwise; 2 and 3 are the others. Registrations come first in
the journal, so the broker epochs are 2, 4 and 6. Time stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minilog.config import BrokerSettings
from minilog.core.broker.broker import BrokerCore
from minilog.core.broker.requests.allowance import Inspected
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, GoOn, Reply, SaveMetadata, Send
from minilog.core.image import ClusterImage
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import MinilogError
from minilog.wire.batch import split
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import ControllerStarted, MetadataRecord, PartitionChanged
from minilog.wire.messages import (
    ACKS_ALL,
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    Heartbeat,
    HeartbeatReply,
    Message,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
    Register,
    RegisterReply,
    ReplicaFetch,
    ReplicaFetchPartition,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import TOPIC, TOPIC_ID, broker_records, produced, topic_records
from tests.unit.core.memory_log import MemoryLog, MemoryStore

BROKER_EPOCHS = {1: 2, 2: 4, 3: 6}
ROOM = 1 << 20


class BrokerBench:
    """``states``: partitions of the topic. With none the broker has nothing to do yet."""

    def __init__(
        self,
        *states: PartitionChanged,
        broker_id: int = 1,
        min_isr: int = 1,
        config: dict[str, str] | None = None,
        store: MemoryStore | None = None,
        **settings: Any,
    ) -> None:
        self.broker_id = broker_id
        self.store = store or MemoryStore()
        self.settings = BrokerSettings(broker_id=broker_id, data_dir="unused", **settings)
        self.core = BrokerCore(self.settings, self.store, incarnation="process", clean=True, url="http://broker-1:8082")
        self.now_ms = 0
        self.next_request_id = 1
        self.next_session_id = 1
        self.sessions: dict[int, tuple[int, int]] = {}
        """By broker: its session, and the next sequence in it."""
        self.replies: dict[int, Message] = {}
        self.fetches: list[tuple[int, ReplicaFetch]] = []
        self.alters: list[AlterPartition] = []
        self.allocates: list[AllocateProducerIds] = []
        self.creates: list[CreateTopic] = []
        self.flushes: list[Flush] = []
        self.saves: list[MetadataCopy] = []
        self.to_controller: Message | None = None
        self.controller = ClusterImage()
        self.journal: list[MetadataRecord] = []
        self.write(ControllerStarted("cluster", 1), *broker_records([1, 2, 3]))
        if states:
            self.write(*topic_records(*states, min_isr=min_isr, **(config or {})))

    @classmethod
    def started(cls, *states: PartitionChanged, **options: Any) -> BrokerBench:
        bench = cls(*states, **options)
        bench.tick()
        bench.register()
        bench.metadata()
        return bench

    # --- its shell --------------------------------------------------------------------------------

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Reply(request_id, response):
                    assert request_id not in self.replies, f"request {request_id} is answered twice"
                    self.replies[request_id] = response
                case Flush():
                    self.flushes.append(effect)
                case SaveMetadata(copy):
                    self.saves.append(copy)
                case GoOn():
                    self.perform(self.core.go_on(self.now_ms))
                case Send(node_id, request):
                    self._sent(node_id, request)

    def _sent(self, node_id: int, request: Message) -> None:
        match request:
            case ReplicaFetch():
                self.fetches.append((node_id, request))
            case AlterPartition():
                assert node_id == CONTROLLER_ID
                self.alters.append(request)
            case CreateTopic():
                assert node_id == CONTROLLER_ID
                self.creates.append(request)
            case AllocateProducerIds():
                assert node_id == CONTROLLER_ID
                self.allocates.append(request)
            case Register() | Heartbeat():
                assert node_id == CONTROLLER_ID
                assert self.to_controller is None, "one request to the controller at a time"
                self.to_controller = request
            case _:
                raise AssertionError(f"a broker does not send {request!r}")

    def send(self, request: Message | Inspected) -> int:
        request_id, self.next_request_id = self.next_request_id, self.next_request_id + 1
        self.perform(self.core.on_request(request_id, request, self.now_ms))
        return request_id

    def respond(self, node_id: int, request: Message, response: Message | MinilogError) -> None:
        self.perform(self.core.on_response(node_id, request, response, self.now_ms))

    def tick(self, by_ms: int = 0) -> None:
        self.now_ms += by_ms
        self.perform(self.core.tick(self.now_ms))

    def run(self, for_ms: int) -> None:
        """Time passes as for a broker that never stands still."""
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.tick(min(100, end_ms - self.now_ms))

    def flush(self, partition: int = 0, end_offset: int | None = None) -> None:
        self.log(partition).sync(end_offset)
        self.perform(self.core.on_flushed(TopicPartition(TOPIC, partition), self.now_ms))

    def saved(self) -> None:
        """The copy of the metadata that is to be saved is saved."""
        (copy,) = self.saves
        self.saves.clear()
        self.perform(self.core.on_metadata_saved(copy, self.now_ms))

    # --- its controller ---------------------------------------------------------------------------

    def register(self, broker_epoch: int | None = None) -> None:
        epoch = BROKER_EPOCHS[self.broker_id] if broker_epoch is None else broker_epoch
        self.answer(RegisterReply("process", epoch, "cluster", self.controller.controller_epoch, 2000))

    def write(self, *records: MetadataRecord) -> None:
        for record in records:
            self.journal.append(record)
            self.controller.apply(len(self.journal), record)

    def metadata(self, *records: MetadataRecord, snapshot: bool = False, may_exit: bool = False) -> None:
        """Journal ``records`` and answer the parked heartbeat with everything the broker lacks."""
        self.write(*records)
        asked = self.to_controller
        assert isinstance(asked, Heartbeat)
        heard = asked.broker_epoch, asked.sequence
        known, end, epoch = asked.metadata_offset, len(self.journal), self.controller.controller_epoch
        if known == 0 or snapshot:
            found = self.controller.snapshot()
            reply = HeartbeatReply(*heard, epoch, 0, end, found, True, may_exit)  # type: ignore[arg-type]
        else:
            tail = self.journal[known:]
            reply = HeartbeatReply(*heard, epoch, known, end, tail, False, may_exit)  # type: ignore[arg-type]
        self.answer(reply)

    def answer(self, response: Message | MinilogError) -> None:
        asked, self.to_controller = self.to_controller, None
        assert asked is not None
        self.respond(CONTROLLER_ID, asked, response)

    # --- its clients ------------------------------------------------------------------------------

    def produce(
        self, *values: bytes, acks: int = ACKS_ALL, timeout_ms: int = 30_000, partitions: Sequence[int] = (0,)
    ) -> int:
        entries = [ProducePartition(TOPIC, p, memoryview(produced(*values))) for p in partitions]
        return self.send(Produce(acks, timeout_ms, entries))

    def produced(self, request_id: int) -> list[ProduceResult]:
        reply = self.replies[request_id]
        assert isinstance(reply, ProduceReply), reply
        return reply.partitions

    def fetch(
        self, offset: int = 0, *, wait_ms: int = 500, min_bytes: int = 1, partitions: Sequence[int] = (0,), **more: Any
    ) -> int:
        entries = [FetchPartition(TOPIC, p, offset) for p in partitions]
        return self.send(Fetch(entries, wait_ms, min_bytes, **more))

    def fetched(self, request_id: int) -> list[FetchResult]:
        reply = self.replies[request_id]
        assert isinstance(reply, FetchReply), reply
        return reply.partitions

    def shown(self, request_id: int) -> list[list[int]]:
        """Base offsets of the batches in an answer, by partition."""
        return [[b.base_offset for b in split(r.batches, ROOM, stored=True)] for r in self.fetched(request_id)]

    def refusal(self, request_id: int) -> Problem:
        reply = self.replies[request_id]
        assert isinstance(reply, Problem), reply
        return reply

    def disconnect(self, request_id: int) -> None:
        self.perform(self.core.on_disconnect(request_id, self.now_ms))

    # --- its peers --------------------------------------------------------------------------------

    def acknowledge(
        self,
        broker_id: int,
        fetch_offset: int,
        partition: int = 0,
        *,
        broker_epoch: int | None = None,
        same_session: bool = False,
    ) -> int:
        """Broker ``broker_id`` fetches, by default in a new session: it holds what lies below
        ``fetch_offset``."""
        log = self.log(partition)
        epoch = self.core.replicas[TopicPartition(TOPIC, partition)].leader_epoch
        entry = ReplicaFetchPartition(TOPIC, TOPIC_ID, partition, epoch, fetch_offset, log.epoch_at(fetch_offset - 1))
        if same_session:
            session_id, sequence = self.sessions[broker_id]
        else:
            session_id, sequence, self.next_session_id = self.next_session_id, 0, self.next_session_id + 1
        self.sessions[broker_id] = session_id, sequence + 1
        process = BROKER_EPOCHS[broker_id] if broker_epoch is None else broker_epoch
        leader = self.broker_id
        return self.send(ReplicaFetch(broker_id, process, leader, session_id, sequence, 500, ROOM, [entry]))

    # --- looking inside ---------------------------------------------------------------------------

    def log(self, partition: int = 0) -> MemoryLog:
        return self.store.logs[TopicPartition(TOPIC, partition)]

    def leader(self, partition: int = 0) -> LeaderState:
        role = self.core.replicas[TopicPartition(TOPIC, partition)].role
        assert isinstance(role, LeaderState)
        return role

    def follower(self, partition: int = 0) -> FollowerState:
        role = self.core.replicas[TopicPartition(TOPIC, partition)].role
        assert isinstance(role, FollowerState)
        return role

    @property
    def waiting_count(self) -> int:
        """Everything that is parked: must be 0 once nothing is asked any more (R34)."""
        statistics = self.core.statistics(self.now_ms)
        roles = [r.role for r in self.core.replicas.values() if isinstance(r.role, LeaderState)]
        waiters = sum(len(role.waiters) for role in roles)
        fetches = int(statistics.parked_fetches) + self.polls_count
        return int(statistics.parked_produces) + fetches + waiters

    @property
    def polls_count(self) -> int:
        """Long polls as Reading keeps them: by request, and once by every partition they name."""
        reading = self.core.fetches
        return len(reading._parked) + len(reading._woken) + sum(map(len, reading._waiting.values()))
