"""A faithful little broker behind the HTTP face: one process, real batches, a list of them per
partition.

Brokers 1 and 2 share one FakeCluster. A topic's even partitions are led by broker 1, the odd ones
by broker 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from zlib import crc32

from minilog.broker.flusher import FlushStatistics
from minilog.broker.runtime_statistics import RuntimeStatistics
from minilog.config import BrokerSettings, Limits
from minilog.core.broker.statistics import BrokerStatistics, PartitionStatistics
from minilog.core.controller.moves.plan import plan_replicas
from minilog.core.controller.moves.requests import move_replicas
from minilog.core.controller.told.lost_claims import claim_lost
from minilog.core.controller.topic_config import configure_topic
from minilog.core.image import ClusterImage, check_topic_id
from minilog.core.metadata_view import topic_info
from minilog.errors import (
    BrokerUnavailable,
    EndOffsetMismatch,
    InvalidAcks,
    InvalidRequest,
    MinilogError,
    NotLeader,
    OffsetOutOfRange,
    TopicExists,
    UnknownGroup,
    UnknownTopic,
)
from minilog.server.turn_watch import TurnWatch
from minilog.storage.aside.lost_tails import LostTails
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.log.producers import ProducerTable
from minilog.wire.admin_messages import (
    BalanceLeaders,
    BalanceLeadersReply,
    ConfigureTopic,
    LeaderMove,
    MoveReplicas,
    PlanReplicas,
)
from minilog.wire.batch import Batch, acks_level_for, split, stamp
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DescribeGroup,
    GroupHeartbeat,
    GroupInfo,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
)
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy
from minilog.wire.journal.metadata_records import (
    BrokerRegistered,
    BrokerUnfenced,
    FailoverNoted,
    MetadataRecord,
    PartitionChanged,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
    AddPartitions,
    BrokerHealth,
    ClaimLost,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    FailoverInfo,
    Fetch,
    FetchReply,
    FetchResult,
    InitProducer,
    InitProducerReply,
    Message,
    Metadata,
    MetadataReply,
    Offsets,
    OffsetsReply,
    OffsetsResult,
    Ok,
    Probe,
    ProbeReply,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
    decode,
    encode,
)
from minilog.wire.records import decode_batch
from minilog.wire.topic_partition import TopicPartition
from tests.unit.storage.memory_disk import MemoryDisk

NOW_MS = 1_700_000_000_000
EPOCH = 3


Named = TypeVar("Named", ProduceResult, FetchResult, OffsetsResult)


def topic_id_of(topic: str) -> str:
    return f"{crc32(topic.encode()):032x}"


@dataclass
class FakeLog:
    batches: list[Batch] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def end_offset(self) -> int:
        return self.batches[-1].end_offset if self.batches else 0

    def producers(self) -> ProducerTable:
        table = ProducerTable(86_400_000)
        for batch in self.batches:
            table.observe(batch)
        return table

    def read(self, offset: int, max_bytes: int) -> bytes:
        found = b""
        for batch in self.batches:
            if batch.end_offset > offset and (not found or len(found) + batch.bytes_total <= max_bytes):
                found += batch.tobytes()
        return found


class FakeCluster:
    """The controller, the metadata and the logs of two brokers."""

    def __init__(self) -> None:
        self.image = ClusterImage()
        self.decided_beyond = 0
        """Records that no broker has heard of yet."""
        self.was_described = asyncio.Event()
        self.image.cluster_id = "fake"
        self.logs: dict[tuple[str, int], FakeLog] = {}
        self.brokers: dict[int, FakeRuntime] = {}
        self.down: set[int] = set()
        for broker_id in (1, 2):
            self.register(broker_id, f"http://broker-{broker_id}.test:80")
        self.apply(FailoverNoted(FailoverInfo(2, 4, "refused", 1, 2, 3, 1, 4, 5)))

    def register(self, broker_id: int, url: str) -> None:
        self.apply(BrokerRegistered(broker_id, self.image.metadata_offset + 1, f"i{broker_id}", url))
        self.apply(BrokerUnfenced(broker_id, self.image.brokers[broker_id].epoch))

    def apply(self, record: MetadataRecord) -> None:
        self.image.apply(self.image.metadata_offset + 1, record)

    def create(self, topic: str, partitions: int = 1, config: dict[str, str] | None = None) -> None:
        self.apply(TopicCreated(topic, topic_id_of(topic), config or {}))
        self.add_partitions(topic, 0, partitions)

    def add_partitions(self, topic: str, first: int, end: int) -> None:
        for partition in range(first, end):
            leader = 1 + partition % 2
            replicas = [leader, 3 - leader]
            self.apply(PartitionChanged(topic, topic_id_of(topic), partition, replicas, leader, EPOCH, 0, replicas))
            self.logs[topic, partition] = FakeLog()

    def lead(self, topic: str, partition: int, leader: int) -> None:
        old = self.image.topics[topic].partitions[partition]
        self.apply(
            PartitionChanged(
                topic,
                old.topic_id,
                partition,
                old.replicas,
                leader,
                old.leader_epoch + 1,
                old.partition_epoch + 1,
                old.isr,
            )
        )

    def on_admin(self, request: Message) -> Message:
        match request:
            case CreateTopic() if request.topic in self.image.topics:
                return Problem.of(TopicExists(f"topic {request.topic} exists already"))
            case CreateTopic():
                self.create(request.topic, request.partitions or 1, request.config)
                return CreateTopicReply(topic_info(self.image.topics[request.topic]), self.image.metadata_offset)
            case AddPartitions():
                self.add_partitions(request.topic, len(self.image.topics[request.topic].partitions), request.partitions)
                return Ok(self.image.metadata_offset)
            case BalanceLeaders():
                moves = [
                    LeaderMove(topic.topic, state.partition, state.leader, state.replicas[0])
                    for topic, state in self.image.partitions()
                ]
                return BalanceLeadersReply(moves, self.image.metadata_offset)
            case MoveReplicas():
                moved, told = move_replicas(request, self.image)
                for record in moved:
                    self.apply(record)
                return told
            case PlanReplicas():
                return plan_replicas(request, self.image)
            case ConfigureTopic():
                configured, answer = configure_topic(request, self.image)
                for record in configured:
                    self.apply(record)
                return answer
            case DeleteTopic() if not self._is_there(request):
                return Problem.of(UnknownTopic(f"there is no topic {request.topic}"))
            case DeleteTopic():
                self.apply(TopicDeleted(request.topic, topic_id_of(request.topic)))
                return Ok(self.image.metadata_offset)
            case ClaimLost():
                claimed, reply = claim_lost(request, self.image)
                for record in claimed:
                    self.apply(record)
                return reply
            case DescribeCluster():
                heard = [
                    BrokerHealth(broker.broker_id, broker.url, broker.state, broker.epoch, 9, 5)
                    for broker in self.image.brokers.values()
                ]
                self.was_described.set()
                decided = self.image.metadata_offset + self.decided_beyond
                return DescribeClusterReply("fake", 1, decided, heard, [], {"clean": 1})
        raise AssertionError(request)

    def _is_there(self, request: DeleteTopic) -> bool:
        found = self.image.topics.get(request.topic)
        return found is not None and request.topic_id in ("", found.topic_id)


class FakeClock:
    offset_ms = 0
    steps = 0
    passed_ms = 0

    def now_ms(self) -> int:
        """The time of turns is nobody's stamp and no age."""
        return NOW_MS - 5_000_000 + self.passed_ms

    def wall_ms(self) -> int:
        return NOW_MS

    def stamp_ms(self) -> int:
        return NOW_MS


class FakeFailure:
    def __init__(self) -> None:
        self.tripped: list[BaseException] = []

    def trip(self, error: BaseException) -> None:
        self.tripped.append(error)


class FakeRuntime:
    """What Runtime is to the HTTP face, for broker ``broker_id`` of a cluster."""

    def __init__(self, cluster: FakeCluster, broker_id: int = 1, limits: Limits | None = None) -> None:
        self.cluster = cluster
        self.settings = BrokerSettings(broker_id=broker_id, data_dir="/nowhere", limits=limits or Limits())
        self.clock = FakeClock()
        self.groups: list[GroupInfo] = []
        self.core = FakeCore(self)
        self.ready = True
        self.submitted: list[Message] = []
        self.waiting = 0
        """Requests that are not answered yet, nor given up by their clients."""
        self.calls: list[tuple[str, Message]] = []
        self.intercept: Callable[[Message], Message | None] = lambda request: None
        self.gate: asyncio.Event | None = None
        self.metadata_changed = asyncio.Event()
        self.tails = LostTails(MemoryDisk(), "/nowhere")
        self.failure = FakeFailure()
        cluster.brokers[broker_id] = self

    @property
    def image(self) -> ClusterImage:
        return self.cluster.image

    def metadata_copy(self) -> BrokerCopy:
        image = self.image
        records = image.snapshot()
        copy = MetadataCopy(image.cluster_id, image.controller_epoch, image.term_id, image.metadata_offset, records)  # type: ignore[arg-type]
        return BrokerCopy(self.settings.broker_id, 1, image.controller_epoch, copy)

    def statistics(self) -> RuntimeStatistics:
        return RuntimeStatistics(
            waiting={"produce": 3},
            turns=1,
            requests=1,
            replies_unclaimed=0,
            disconnects=0,
            loop_lag_seconds=0.001,
            loop_lag_seconds_max=0.002,
            turn_watch=TurnWatch(),
            turns_awaited=0,
            turns_refused=0,
            flush_oldest_ms=0,
            flush=FlushStatistics(requests=4, flushes=4, in_flight=0),
            cleaning=CleaningFigures(rounds=2, bytes_read=100),
        )

    @property
    def controller_url(self) -> str:
        return self.settings.controller_url

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        self.calls.append((url, request))
        if url == self.controller_url:
            return self.intercept(request) or self.cluster.on_admin(request)
        for broker in self.image.brokers.values():
            if broker.url == url and broker.broker_id not in self.cluster.down:
                return decode(encode(await self.cluster.brokers[broker.broker_id].submit(decode(encode(request)))))
        return Problem.of(BrokerUnavailable(f"{url} refused the connection", definite=True))

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        self.submitted.append(request)
        self.waiting += 1
        try:
            return await self._answer(request)
        finally:
            self.waiting -= 1

    async def _answer(self, request: Message) -> Message:
        if self.gate is not None:
            await self.gate.wait()
        intercepted = self.intercept(request)
        if intercepted is not None:
            return intercepted
        match request:
            case Produce():
                return ProduceReply([self._named(self._produce(request, entry)) for entry in request.partitions])
            case Fetch():
                reply = await self._fetch(request)
                return FetchReply([self._named(result) for result in reply.partitions])
            case Offsets():
                return OffsetsReply(
                    [self._named(self._offset(entry.topic, entry.partition, entry.at)) for entry in request.partitions]
                )
            case Metadata():
                return MetadataReply("fake", 1, 1, [], [])
            case ListGroups():
                return ListGroupsReply(self.groups)
            case CommittedOffsets():
                return CommittedOffsetsReply([CommittedOffset("orders", 0, 1), CommittedOffset("orders", 1, 0)])
            case GroupHeartbeat() | LeaveGroup() | CommitOffsets() | DescribeGroup() | DeleteGroup():
                return Problem.of(UnknownGroup(f"there is no group {request.group!r}"))
            case InitProducer():
                return InitProducerReply(len(self.submitted))
            case Probe():
                return ProbeReply(self.settings.broker_id, "i")
        raise AssertionError(request)

    def _named(self, result: Named) -> Named:
        """The result says which topic it is about, as a broker's does."""
        result.topic_id = self.image.topics[result.topic].topic_id
        return result

    def _produce(self, request: Produce, entry: ProducePartition) -> ProduceResult:
        try:
            if not -1 <= request.acks <= 2:
                raise InvalidAcks(f"acks={request.acks} is more than there are replicas (2)")
            check_topic_id(entry.topic, entry.topic_id, self.image.topics[entry.topic].topic_id)
            log = self._log(entry.topic, entry.partition)
            topic = self.image.topics[entry.topic]
            append_ms = NOW_MS + 5 if topic.settings.message_timestamp_type == "LogAppendTime" else None
            base_offset = log.end_offset
            parts = split(entry.batches, topic.settings.max_message_bytes)
            written = log.producers().find_written(parts)
            if entry.expected_offset is not None and not (written and written[0]):
                if request.acks == 0:
                    raise InvalidRequest("expected_offset is a question, and with acks=0 nobody is answered")
                if entry.expected_offset != base_offset:
                    raise EndOffsetMismatch("others have written", end_offset=base_offset)
        except MinilogError as error:
            return ProduceResult(entry.topic, entry.partition, Problem.of(error))
        if written and written[0]:
            place = written[0]
            span = place.base_offset, place.end_offset, EPOCH, place.timestamp, place.crc
            return ProduceResult(entry.topic, entry.partition, None, *span, request.acks, [1, 2], duplicate=True)
        for part in parts:
            log.batches.append(stamp(part, log.end_offset, EPOCH, acks_level_for(request.acks), append_ms))
        log.grown.set()
        log.grown = asyncio.Event()
        if request.acks == 0:
            return ProduceResult(entry.topic, entry.partition, acks=0)
        last = log.batches[-1]
        return ProduceResult(
            entry.topic,
            entry.partition,
            None,
            base_offset,
            last.end_offset,
            EPOCH,
            last.max_timestamp,
            last.crc,
            request.acks,
            [1, 2],
        )

    async def _fetch(self, request: Fetch) -> FetchReply:
        results, enough = self._read(request)
        if not enough and request.max_wait_ms:
            logs = [self.cluster.logs[entry.topic, entry.partition] for entry in request.partitions]
            waits = [asyncio.ensure_future(log.grown.wait()) for log in logs]
            await asyncio.wait(waits, timeout=request.max_wait_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            results, _ = self._read(request)
        return FetchReply(results)

    def _read(self, request: Fetch) -> tuple[list[FetchResult], bool]:
        results, size = [], 0
        for entry in request.partitions:
            try:
                check_topic_id(entry.topic, entry.topic_id, self.image.topics[entry.topic].topic_id)
                log = self._log(entry.topic, entry.partition, any_replica=request.any_replica)
                if entry.offset > log.end_offset:
                    raise OffsetOutOfRange(
                        f"offset {entry.offset} is outside the log, which holds 0 to {log.end_offset}",
                        log_start_offset=0,
                    )
            except MinilogError as error:
                results.append(FetchResult(entry.topic, entry.partition, Problem.of(error)))
                size = request.min_bytes
                continue
            data = memoryview(log.read(entry.offset, entry.max_bytes))
            lag = (
                7 if self.image.topics[entry.topic].partitions[entry.partition].leader != self.settings.broker_id else 0
            )
            results.append(FetchResult(entry.topic, entry.partition, None, data, log.end_offset, 0, EPOCH, lag, 0))
            size += len(data)
        return results, size >= request.min_bytes

    def _offset(self, topic: str, partition: int, at: int) -> OffsetsResult:
        log = self._log(topic, partition)
        if at in (EARLIEST, LATEST):
            return OffsetsResult(topic, partition, None, 0 if at == EARLIEST else log.end_offset, None, EPOCH, -1)
        for batch in log.batches:
            for record in decode_batch(batch):
                if record.timestamp >= at:
                    return OffsetsResult(topic, partition, None, record.offset, record.timestamp, EPOCH, -1)
        return OffsetsResult(topic, partition, None, log.end_offset, None, EPOCH, -1)

    def _log(self, topic: str, partition: int, *, any_replica: bool = False) -> FakeLog:
        state = self.image.topics[topic].partitions[partition]
        if state.leader != self.settings.broker_id and not any_replica:
            url = self.image.brokers[state.leader].url
            raise NotLeader(f"{topic}-{partition} is led by broker {state.leader}", leader_url=url)
        return self.cluster.logs[topic, partition]


class FakeCore:
    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self.informed = True
        self.heard_ms_ago: int | None = 100

    def controller_heard_ms_ago(self, now_ms: int) -> int | None:
        return self.heard_ms_ago

    def statistics(self, now_ms: int) -> BrokerStatistics:
        assert now_ms >= 0
        runtime = self._runtime
        return BrokerStatistics(runtime.settings.broker_id, True, "active", "", 0, 0, 0, 0, len(self.hosted()))

    def hosted(self) -> list[TopicPartition]:
        return [TopicPartition(state.topic, state.partition) for _, state in self._runtime.image.partitions()]

    def replica_statistics(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]:
        assert now_ms >= 0
        found = [self._runtime.image.partition(*partition) for partition in partitions]
        return [_numbers(self._runtime, state) for state in found if state is not None]


def _numbers(runtime: FakeRuntime, state: PartitionChanged) -> PartitionStatistics:
    end_offset = runtime.cluster.logs[state.topic, state.partition].end_offset
    return PartitionStatistics(
        topic=state.topic,
        partition=state.partition,
        is_leader=state.leader == runtime.settings.broker_id,
        leader=state.leader,
        leader_epoch=state.leader_epoch,
        isr_size=len(state.isr),
        replicas=len(state.replicas),
        under_replicated=False,
        under_min_isr=False,
        log_start_offset=0,
        high_watermark=end_offset,
        log_end_offset=end_offset,
        log_bytes=10,
        isr_shrinks=2,
        isr_expands=1,
        replica_lag={2: (0, 0), 3: (None, 1500)},
    )
