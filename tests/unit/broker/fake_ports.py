"""Cores, logs and a journal that follow their protocols and record what is asked of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minilog.controller.journal import Replayed
from minilog.core.broker.requests.allowance import Inspected
from minilog.core.broker.statistics import BrokerStatistics, PartitionStatistics
from minilog.core.controller.told.own_events import OwnEvents
from minilog.core.effects import Effect, Reply
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import StorageFailed
from minilog.server.outbound.peers import Response
from minilog.storage.aside.lost_tails import LostTails
from minilog.wire.journal.events import Event
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy
from minilog.wire.journal.metadata_records import ControllerStarted, MetadataRecord
from minilog.wire.messages import (
    DescribeCluster,
    DescribeClusterReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    Metadata,
    MetadataReply,
    Ok,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.storage.memory_disk import MemoryDisk


class FakeBrokerCore:
    """Parks Heartbeat, or what ``parks`` says, and answers everything else with
    Ok(metadata_offset=request id).

    ``plan`` maps an event's name to the effects of its next occurrences. ``events`` is what
    happened, in order.
    """

    def __init__(self) -> None:
        self.image = ClusterImage()
        self.wall_ahead_ms = 0
        self.flush_age_ms = 0
        self.may_exit = False
        self.ready = self.informed = self.admitted = True
        self.broker_epoch = 5
        self.controller_url = "http://127.0.0.1:9093"
        self.events: list[tuple[Any, ...]] = []
        self.noted: list[Event] = []
        self.parks: type[Message] = Heartbeat
        self.plan: dict[str, list[list[Effect]]] = {}
        self.on_event: Callable[[tuple[Any, ...]], None] = lambda event: None

    def is_disk_slow(self, now_ms: int) -> bool:
        return False

    def statistics(self, now_ms: int) -> BrokerStatistics:
        return BrokerStatistics(1, self.ready, "active", "", 0, 0, 0, 0, 0)

    def hosted(self) -> list[TopicPartition]:
        return []

    def replica_statistics(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]:
        return []

    def controller_heard_ms_ago(self, now_ms: int) -> int | None:
        return None

    def sure_wall_ms(self, now_ms: int) -> int | None:
        return None

    def note(self, event: Event) -> None:
        self.noted.append(event)

    def take_events(self) -> list[Event]:
        return []

    def metadata_copy(self) -> BrokerCopy:
        return BrokerCopy(1, self.broker_epoch, self.image.controller_epoch, MetadataCopy())

    def knows(self, broker_id: int, url: str) -> None:
        self.image.brokers[broker_id] = BrokerState(broker_id, 1, "i", url, "")

    def _turn(self, *event: Any) -> list[Effect]:
        self.events.append(event)
        self.on_event(event)
        planned = self.plan.get(event[0])
        return planned.pop(0) if planned else []

    def on_request(self, request_id: int, request: Message | Inspected, now_ms: int) -> list[Effect]:
        effects = self._turn("request", request_id, request)
        if not isinstance(request, self.parks):
            effects = [*effects, Reply(request_id, Ok(request_id))]
        return effects

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> list[Effect]:
        return self._turn("response", node_id, request, response)

    def on_flushed(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        return self._turn("flushed", partition)

    def on_disconnect(self, request_id: int, now_ms: int) -> list[Effect]:
        return self._turn("disconnect", request_id)

    def on_metadata_saved(self, copy: MetadataCopy | None, now_ms: int) -> list[Effect]:
        return self._turn("metadata saved", copy)

    def go_on(self, now_ms: int) -> list[Effect]:
        return self._turn("go on")

    def tick(self, now_ms: int) -> list[Effect]:
        return self._turn("tick", now_ms)

    def begin_shutdown(self, now_ms: int) -> list[Effect]:
        self.may_exit = True
        return self._turn("shutdown")


class FakeJob:
    """``run`` blocks until ``gate`` is set. ``error`` makes it fail."""

    def __init__(self, end_offset: int) -> None:
        self.end_offset = end_offset
        self.gate = threading.Event()
        self.running = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        self.running.set()
        assert self.gate.wait(5)
        if self.error is not None:
            raise self.error


class FakeLog:
    def __init__(self, end_offset: int = 0) -> None:
        self.end_offset = end_offset
        self.durable_end = 0
        self.jobs: list[FakeJob] = []

    def flush_job(self) -> FakeJob:
        self.jobs.append(FakeJob(self.end_offset))
        return self.jobs[-1]

    def complete(self, job: FakeJob) -> bool:
        self.durable_end = max(self.durable_end, job.end_offset)
        return True


class FakeStore:
    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], FakeLog] = {}
        self.saved: list[MetadataCopy] = []
        self.tails = LostTails(MemoryDisk(), "/nowhere")

    def save_metadata(self, copy: MetadataCopy) -> None:
        self.saved.append(copy)

    def get(self, topic: str, partition: int) -> FakeLog | None:
        return self.logs.get((topic, partition))


class FakeDecision(NamedTuple):
    records: Sequence[MetadataRecord] = ()
    effects: Sequence[Effect] = ()


class FakeControllerCore:
    """Parks Heartbeat. Every other request adds one record and is answered with its index once that
    is committed."""

    def __init__(self) -> None:
        self.image = ClusterImage()
        self.wall_ahead_ms = 0
        self.own_events = OwnEvents()
        self.requests: list[Message] = []
        self.events: list[tuple[Any, ...]] = []
        self.replayed: list[MetadataRecord] = []
        self.after_commit: list[FakeDecision] = []
        self.on_heartbeat: list[FakeDecision] = []
        self.parked: list[int] = []

    @property
    def metadata_offset(self) -> int:
        return self.image.metadata_offset

    def load(self, metadata_offset: int, records: Iterable[MetadataRecord]) -> None:
        self.image.load(metadata_offset, records)

    def replay(self, index: int, record: MetadataRecord) -> None:
        self.events.append(("replay", index))
        self.image.apply(index, record)
        self.replayed.append(record)

    def start(self, now_ms: int) -> FakeDecision:
        return FakeDecision([self.record()])

    def record(self, ahead: int = 0) -> MetadataRecord:
        return ControllerStarted("c", self.image.controller_epoch + 1 + ahead)

    def handle(self, request_id: int, request: Message, now_ms: int) -> FakeDecision:
        self.events.append(("request", request_id, now_ms))
        self.requests.append(request)
        match request:
            case Heartbeat():
                self.parked.append(request_id)
                return self.on_heartbeat.pop(0) if self.on_heartbeat else FakeDecision()
            case DescribeCluster():
                return FakeDecision([], [Reply(request_id, self.description())])
            case Metadata():
                return FakeDecision([], [Reply(request_id, MetadataReply("c", self.metadata_offset, 1, [], []))])
        return FakeDecision([self.record()], [Reply(request_id, Ok(self.metadata_offset + 1))])

    def description(self) -> DescribeClusterReply:
        return DescribeClusterReply("c", self.image.controller_epoch, self.metadata_offset, [], [], {"clean": 3})

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> FakeDecision:
        self.events.append(("response", node_id, response))
        return FakeDecision()

    def on_disconnect(self, request_id: int, now_ms: int) -> FakeDecision:
        self.events.append(("disconnect", request_id))
        return FakeDecision()

    def tick(self, now_ms: int) -> FakeDecision:
        self.events.append(("tick", now_ms))
        replies: list[Effect] = [Reply(request_id, HeartbeatReply(1, 1, 1, 0, 0)) for request_id in self.parked]
        self.parked.clear()
        return FakeDecision([], replies)

    def on_committed(self, now_ms: int) -> FakeDecision:
        self.events.append(("committed", self.metadata_offset))
        return self.after_commit.pop(0) if self.after_commit else FakeDecision()

    def snapshot(self) -> list[MetadataRecord]:
        return self.image.snapshot()


class FakeJournal:
    """In memory. ``gate`` holds appends back, ``failing`` makes them fail."""

    def __init__(self, tail: Sequence[MetadataRecord] = ()) -> None:
        self.records = list(tail)
        self.snapshots: list[tuple[int, list[MetadataRecord]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False

    @property
    def last_index(self) -> int:
        return len(self.records)

    @property
    def tail_records(self) -> int:
        return len(self.records) - (self.snapshots[-1][0] if self.snapshots else 0)

    def open(self) -> Replayed:
        return Replayed(0, [], list(self.records))

    def append(self, records: Sequence[MetadataRecord]) -> int:
        assert self.gate.wait(5)
        if self.failing:
            raise StorageFailed("the test says so")
        self.records.extend(records)
        return len(self.records)

    def snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        self.snapshots.append((index, list(records)))

    @property
    def place(self) -> str:
        return "the memory of a test"

    def give_up(self) -> None: ...

    def close(self) -> None: ...
