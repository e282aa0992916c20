"""A small cluster behind the client's transport: leaders, epochs, committed logs, and faults on
order.

It speaks the real protocol (the same message structs and batches, checked with ``split``) and knows
just enough of replication to be unkind: answers get lost after the append, leaders move, brokers
refuse or fall silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from minilog.errors import (
    BrokerUnavailable,
    DuplicateSequence,
    EndOffsetMismatch,
    FencedLeaderEpoch,
    InconsistentTopicId,
    LogTruncated,
    MinilogError,
    NotLeader,
    OffsetOutOfRange,
    OutOfOrderSequence,
    ProducerFenced,
    TimedOut,
    TopicExists,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.http import JSON, MSGPACK, PROBLEM, problem_body
from minilog.wire.messages import (
    EARLIEST,
    LATEST,
    BrokerInfo,
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    InitProducer,
    InitProducerReply,
    Message,
    MetadataReply,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    OffsetsResult,
    PartitionInfo,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
    TopicInfo,
    decode,
    encode,
)
from minilog.wire.records import decode_batch
from minilog_client.connection.transport import Response

NO_LEADER = -1


@dataclass
class Log:
    topic: str
    partition: int
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    replicas: list[int] = field(default_factory=lambda: [1, 2, 3])
    start_offset: int = 0
    batches: list[Batch] = field(default_factory=list)

    @property
    def end_offset(self) -> int:
        return self.batches[-1].end_offset if self.batches else self.start_offset

    def values(self) -> list[bytes | None]:
        return [record.value for batch in self.batches for record in decode_batch(batch)]

    def append(self, batch: Batch) -> Batch:
        stamped = stamp(batch, self.end_offset, self.leader_epoch, batch.acks_level)
        self.batches.append(split(stamped.tobytes(), 2**31, stored=True)[0])
        return stamped

    def truncate(self, end_offset: int) -> None:
        """A lossy election: everything from ``end_offset`` on (a batch border) is gone."""
        self.batches = [batch for batch in self.batches if batch.end_offset <= end_offset]

    def epoch_end(self, epoch: int) -> int:
        """Where the last epoch <= ``epoch`` ends in this log."""
        later = [batch.base_offset for batch in self.batches if batch.leader_epoch > epoch]
        return later[0] if later else self.end_offset


def repeated(log: Log, batch: Batch) -> Batch | None:
    """R31 in its plainest form: the whole log is searched each time. The stored batch that
    ``batch`` repeats, None if it is to be appended; raises when it can be neither."""
    own = [known for known in log.batches if known.producer_id == batch.producer_id]
    if batch.producer_id < 0 or not own:
        return None
    epoch = own[-1].producer_epoch
    if batch.producer_epoch < epoch:
        raise ProducerFenced(f"epoch {batch.producer_epoch} is over, {epoch} runs")
    if batch.producer_epoch > epoch:
        if batch.base_sequence:
            raise OutOfOrderSequence(f"epoch {batch.producer_epoch} begins with sequence {batch.base_sequence}")
        return None
    current = [known for known in own if known.producer_epoch == epoch]
    for known in current[-5:]:
        if (known.base_sequence, known.last_sequence) == (batch.base_sequence, batch.last_sequence):
            return known
    ahead = (batch.base_sequence - current[-1].last_sequence - 1) & 0x7FFFFFFF
    if ahead == 0:
        return None
    if ahead > 2**30:
        raise DuplicateSequence(f"sequence {batch.base_sequence} was written long ago")
    raise OutOfOrderSequence(f"sequence {batch.base_sequence} comes after {current[-1].last_sequence}")


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``kind`` (produce, fetch, offsets,
    initproducer, metadata, admin).

    ``action``: refuse (no connection), reset (broken off, nothing done), lose_answer (done, then
    broken off), hang (nothing done, no answer), late (broken off, and done some time afterwards),
    or an error to answer with."""

    kind: str
    action: str | MinilogError
    times: int = 1
    broker: int | None = None


class FakeCluster:
    """Also the transport: ``AsyncClient(cluster.bootstrap, transport=cluster)``."""

    def __init__(self, brokers: int = 3) -> None:
        self.urls = {broker_id: f"http://broker{broker_id}:8082" for broker_id in range(1, brokers + 1)}
        self.logs: dict[str, list[Log]] = {}
        self.topic_ids: dict[str, str] = {}
        self.configs: dict[str, dict[str, str]] = {}
        self.refusing: set[int] = set()
        self.silent: set[int] = set()
        self.faults: list[Fault] = []
        self.chaos: Callable[[str, int], str | MinilogError | None] = lambda kind, broker: None
        self.requests: list[tuple[str, int]] = []
        self.in_flight: dict[tuple[str, int], int] = {}
        self.messages: list[Any] = []
        self.producer_ids = count(1000)
        self.lateness: Callable[[], float] = lambda: 1.0
        """Seconds until a late request is carried out."""
        self.groups: Callable[[int, Any], Message | None] | None = None
        """Answers what is about groups; see fake_coordinator.py."""
        self.metadata_offset = 1
        self.closed = False
        self._grown = asyncio.Event()

    @property
    def bootstrap(self) -> list[str]:
        return list(self.urls.values())

    def create(self, topic: str, partitions: int = 1, **config: str) -> list[Log]:
        self.metadata_offset += 1
        ids = list(self.urls)
        self.topic_ids[topic] = f"{topic}-{self.metadata_offset}"
        self.configs[topic] = config
        self.logs[topic] = [Log(topic, p, ids[p % len(ids)], replicas=ids) for p in range(partitions)]
        return self.logs[topic]

    def grow(self, topic: str, partitions: int) -> None:
        self.metadata_offset += 1
        ids = list(self.urls)
        logs = self.logs[topic]
        logs += [Log(topic, p, ids[p % len(ids)], replicas=ids) for p in range(len(logs), partitions)]

    def move(self, log: Log, leader: int) -> None:
        """A new leader epoch, with ``leader`` (or NO_LEADER) at its head."""
        self.metadata_offset += 1
        log.leader, log.leader_epoch, log.partition_epoch = leader, log.leader_epoch + 1, log.partition_epoch + 1
        self._wake()

    def count(self, kind: str) -> int:
        return sum(1 for seen, _ in self.requests if seen == kind)

    def kinds(self, kind: str) -> list[int]:
        return [broker for seen, broker in self.requests if seen == kind]

    # --- transport --------------------------------------------------------------------------------

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> Response:
        assert not self.closed, "a closed transport is not used"
        pieces = urlsplit(url)
        broker = next((i for i, u in self.urls.items() if u == f"{pieces.scheme}://{pieces.netloc}"), 0)
        message = decode(bytes(body)) if headers.get("Content-Type") == MSGPACK else None
        kind = type(message).__name__.lower() if message else "metadata" if "metadata" in pieces.path else "admin"
        self.requests.append((kind, broker))
        if message is not None:
            self.messages.append(message)
        action = self._fault(kind, broker)
        await asyncio.sleep(0.001)
        if action == "refuse" or broker in self.refusing or broker == 0:
            raise BrokerUnavailable(f"no connection to {url}: refused", definite=True)
        if action == "reset":
            raise BrokerUnavailable(f"the connection to {url} broke off", definite=False)
        if action == "late":
            assert isinstance(message, Produce), "only writes do harm when they are late"
            asyncio.get_running_loop().call_later(self.lateness(), self._produce, broker, message)
            raise BrokerUnavailable(f"the connection to {url} broke off", definite=False)
        if action == "hang" or broker in self.silent:
            await asyncio.sleep(timeout_ms / 1000)
            raise TimedOut(f"{url} did not answer within {timeout_ms} ms", definite=False)
        if isinstance(action, MinilogError):
            return Response(action.http_status, {"content-type": PROBLEM}, problem_body(action))
        response = await self._answer(broker, method, url, message, body)
        if action == "lose_answer":
            raise BrokerUnavailable(f"the connection to {url} broke off", definite=False)
        await asyncio.sleep(0.001)
        return response

    async def close(self) -> None:
        self.closed = True

    def _fault(self, kind: str, broker: int) -> str | MinilogError | None:
        for fault in self.faults:
            if fault.kind == kind and fault.broker in (None, broker):
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault.action
        return self.chaos(kind, broker)

    async def _answer(self, broker: int, method: str, url: str, message: Any, body: bytes) -> Response:
        try:
            if isinstance(message, Produce):
                return _msgpack(self._produce(broker, message))
            if isinstance(message, InitProducer):
                return _msgpack(InitProducerReply(next(self.producer_ids)))
            if self.groups is not None and (reply := self.groups(broker, message)) is not None:
                return _msgpack(reply)
            if isinstance(message, Fetch):
                return _msgpack(await self._fetch(broker, message))
            if isinstance(message, Offsets):
                return _msgpack(OffsetsReply([self._offsets(broker, p) for p in message.partitions]))
            return self._admin(method, url, body)
        except MinilogError as error:
            return Response(error.http_status, {"content-type": PROBLEM}, problem_body(error))

    # --- data plane -------------------------------------------------------------------------------

    def _log(self, broker: int, topic: str, partition: int, topic_id: str, any_replica: bool = False) -> Log:
        if topic not in self.logs:
            raise UnknownTopic(f"there is no topic {topic!r}")
        if topic_id not in ("", self.topic_ids[topic]):
            raise InconsistentTopicId(f"{topic} has topic id {self.topic_ids[topic]}, not {topic_id}")
        if partition >= len(self.logs[topic]):
            raise UnknownPartition(f"there is no partition {partition}")
        log = self.logs[topic][partition]
        if log.leader != broker and not (any_replica and broker in log.replicas):
            raise NotLeader(f"{topic}-{partition} is led by broker {log.leader}", leader=log.leader)
        return log

    def _produce(self, broker: int, message: Produce) -> ProduceReply:
        return ProduceReply([self._append(broker, message.acks, part) for part in message.partitions])

    def _append(self, broker: int, acks: int, part: ProducePartition) -> ProduceResult:
        try:
            log = self._log(broker, part.topic, part.partition, part.topic_id)
            end_before = log.end_offset
            size = int(self.configs[part.topic].get("max.message.bytes", 1024 * 1024))
            batches = split(bytes(part.batches), size)
            if part.expected_offset not in (None, end_before) and not any(repeated(log, batch) for batch in batches):
                raise EndOffsetMismatch("others have written", end_offset=end_before)
            known = [repeated(log, batch) or log.append(batch) for batch in batches]
            is_duplicate = known[0].end_offset <= end_before
        except MinilogError as error:
            return ProduceResult(part.topic, part.partition, problem=Problem.of(error))
        self._wake()
        first, last = known[0], known[-1]
        if acks == 0:
            return ProduceResult(part.topic, part.partition, acks=0)
        return ProduceResult(
            part.topic,
            part.partition,
            base_offset=first.base_offset,
            end_offset=last.end_offset,
            leader_epoch=log.leader_epoch,
            timestamp=first.max_timestamp,
            crc=first.crc,
            acks=acks,
            isr=log.replicas,
            duplicate=is_duplicate,
        )

    async def _fetch(self, broker: int, message: Fetch) -> FetchReply:
        deadline = asyncio.get_running_loop().time() + message.max_wait_ms / 1000
        while True:
            results = [self._read(broker, part, message) for part in message.partitions]
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0 or any(len(r.batches) or r.problem for r in results):
                return FetchReply(results)
            try:
                async with asyncio.timeout(remaining):
                    await self._grown.wait()
            except TimeoutError:
                pass

    def _read(self, broker: int, part: FetchPartition, message: Fetch) -> FetchResult:
        try:
            log = self._log(broker, part.topic, part.partition, part.topic_id, message.any_replica)
            if part.leader_epoch >= 0 and part.leader_epoch < log.leader_epoch:
                raise FencedLeaderEpoch(f"epoch {part.leader_epoch} is over, {log.leader_epoch} runs")
            if part.last_epoch >= 0 and (end := log.epoch_end(part.last_epoch)) < part.offset:
                raise LogTruncated("gone", lost_from=end, lost_to=part.offset, epoch=log.leader_epoch)
            if not log.start_offset <= part.offset <= log.end_offset:
                raise OffsetOutOfRange(
                    f"offset {part.offset} is outside", log_start_offset=log.start_offset, high_watermark=log.end_offset
                )
        except MinilogError as error:
            return FetchResult(part.topic, part.partition, problem=Problem.of(error))
        data: list[bytes] = []
        size = 0
        for batch in log.batches:
            if batch.end_offset <= part.offset:
                continue
            if data and size + batch.bytes_total > part.max_bytes:
                break
            data.append(batch.tobytes())
            size += batch.bytes_total
        return FetchResult(
            part.topic,
            part.partition,
            batches=memoryview(b"".join(data)),
            high_watermark=log.end_offset,
            log_start_offset=log.start_offset,
            leader_epoch=log.leader_epoch,
        )

    def _offsets(self, broker: int, part: OffsetsPartition) -> OffsetsResult:
        try:
            log = self._log(broker, part.topic, part.partition, part.topic_id)
        except MinilogError as error:
            return OffsetsResult(part.topic, part.partition, problem=Problem.of(error))
        offset, timestamp = log.end_offset, None
        if part.at == EARLIEST:
            offset = log.start_offset
        elif part.at != LATEST:
            records = [record for batch in log.batches for record in decode_batch(batch)]
            found = next((record for record in records if record.timestamp >= part.at), None)
            offset, timestamp = (found.offset, found.timestamp) if found else (offset, None)
        epochs = [batch.leader_epoch for batch in log.batches if batch.base_offset < offset]
        last_epoch = epochs[-1] if epochs else -1
        return OffsetsResult(part.topic, part.partition, None, offset, timestamp, log.leader_epoch, last_epoch)

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    # --- metadata and admin -----------------------------------------------------------------------

    def metadata(self, topics: list[str] | None = None) -> MetadataReply:
        brokers = [BrokerInfo(i, url, "running", 1) for i, url in self.urls.items()]
        names = list(self.logs) if topics is None else [topic for topic in topics if topic in self.logs]
        return MetadataReply("cluster", self.metadata_offset, 1, brokers, [self.info(name) for name in names])

    def info(self, topic: str) -> TopicInfo:
        partitions = [
            PartitionInfo(log.partition, log.leader, log.leader_epoch, log.partition_epoch, log.replicas, log.replicas)
            for log in self.logs[topic]
        ]
        return TopicInfo(topic, self.topic_ids[topic], partitions, self.configs[topic])

    def _admin(self, method: str, url: str, body: bytes) -> Response:
        pieces = urlsplit(url)
        if pieces.path == "/v1/metadata":
            topics = parse_qs(pieces.query).get("topics")
            return _msgpack(self.metadata(topics[0].split(",") if topics else None))
        name = pieces.path.removeprefix("/v1/topics").strip("/")
        if pieces.path == "/v1/topics" and method == "GET":
            return _json({"topics": [msgspec.to_builtins(self.info(topic)) for topic in sorted(self.logs)]})
        if pieces.path == "/v1/topics":
            wanted = msgspec.json.decode(body)
            if wanted["topic"] in self.logs:
                raise TopicExists("it exists")
            self.create(wanted["topic"], wanted["partitions"] or 1, **wanted["config"])
            return _json(msgspec.to_builtins(self.info(wanted["topic"])), 201)
        if name not in self.logs:
            raise UnknownTopic(f"there is no topic {name!r}")
        if method == "DELETE":
            self.metadata_offset += 1
            del self.logs[name]
            return _json({"topic": name, "deleted": True})
        return _json(msgspec.to_builtins(self.info(name)))


def _msgpack(message: Any) -> Response:
    return Response(200, {"content-type": MSGPACK}, encode(message))


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, {"content-type": JSON}, msgspec.json.encode(value))
