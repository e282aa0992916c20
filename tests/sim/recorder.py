"""Recorder: writes down what a scenario does to one topic: messages when they arrive, and what they
change.

One line per message or change: milliseconds since the recording began, who (or from > to), what.
Heartbeats without news, empty answers and everything about other topics are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minilog.core.replication.leader import LeaderState
from minilog.errors import MinilogError
from minilog.wire.batch import split
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerUnfenced,
    MetadataRecord,
    PartitionChanged,
)
from minilog.wire.messages import (
    ACKS_ALL,
    AlterPartition,
    AlterPartitionReply,
    HeartbeatReply,
    Message,
    Positions,
    PositionsReply,
    Probe,
    ProbeReply,
    Problem,
    Produce,
    ProduceReply,
    ReplicaFetch,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.sim.checks.history import UNBOUNDED
from tests.sim.cluster import SimCluster
from tests.sim.nodes.broker_node import BrokerNode
from tests.sim.nodes.network import Call, Response
from tests.sim.nodes.process import Process

Seen = tuple[int, int, int, str]
"""Log end, durable end, high watermark, role."""


class Recorder:
    def __init__(self, cluster: SimCluster, topic: str = "t") -> None:
        self.cluster = cluster
        self.topic = topic
        self.lines: list[str] = []
        self.silent = False
        self._start_ms = cluster.world.now_ms
        self._seen: dict[int, Seen] = {}
        for node in cluster.brokers.values():
            self._seen[node.node_id] = self._state(node) or (0, 0, 0, "")
        self._listen(cluster)

    def note(self, text: str) -> None:
        """What the scenario does now."""
        self.lines.append(f"\n{text}")

    def _listen(self, cluster: SimCluster) -> None:
        network, invariants = cluster.network, cluster.invariants
        arrive, give_back = network._arrive, network._return
        after_turn, on_journalled = invariants.after_broker_turn, invariants.on_journalled

        def on_arrival(call: Call, request: Message) -> None:
            if network._passes(call.source.node_id, call.target):
                self._write(f"{call.source.name} > {network.processes[call.target].name}", self._told(request))
            arrive(call, request)

        def on_return(call: Call, response: Response, process: Process, **copy: Any) -> None:
            if network._passes(process.node_id, call.source.node_id):
                self._write(f"{process.name} > {call.source.name}", self._answered(call.request, response))
            give_back(call, response, process, **copy)

        def on_turn(node: BrokerNode) -> None:
            after_turn(node)
            self._look(node)

        def on_journal(first: int, records: list[MetadataRecord]) -> None:
            on_journalled(first, records)
            for record in records:
                self._write("ctl", self._journalled(record))

        vars(network).update(_arrive=on_arrival, _return=on_return)
        vars(invariants).update(after_broker_turn=on_turn, on_journalled=on_journal)

    def _write(self, who: str, what: str) -> None:
        if what and not self.silent:
            self.lines.append(f"{self.cluster.world.now_ms - self._start_ms:>6}  {who:<10} {what}")

    # --- state ------------------------------------------------------------------------------------

    def _state(self, node: BrokerNode) -> Seen | None:
        replica = None if node.core is None else node.core.replicas.get(TopicPartition(self.topic, 0))
        if replica is None:
            return None
        role, log = replica.role, replica.log
        if isinstance(role, LeaderState):
            what = f"leads epoch {role.leader_epoch}"
        else:
            whom = "nobody" if role.leader == NO_LEADER else f"b{role.leader}"
            what = f"follows {whom} in epoch {role.leader_epoch}"
        return log.end_offset, log.durable_end, role.high_watermark, what

    def _look(self, node: BrokerNode) -> None:
        now = self._state(node)
        old = self._seen.get(node.node_id)
        if now is None or now == old or old is None:
            return
        self._seen[node.node_id] = now
        changes = [now[3]] if now[3] != old[3] else []
        if now[0] < old[0]:
            changes.append(f"cuts its log to end {now[0]}")
        elif now[0] != old[0]:
            changes.append(f"log end {now[0]}")
        if now[1] != old[1] and now[0] >= old[0]:
            changes.append(f"durable to {now[1]}")
        if now[2] != old[2]:
            changes.append(f"high watermark {now[2]}")
        self._write(node.name, ", ".join(changes))

    def _journalled(self, record: MetadataRecord) -> str:
        match record:
            case PartitionChanged() if record.topic == self.topic:
                return f"journal: {_partition(record)}, partition epoch {record.partition_epoch}"
            case BrokerFenced():
                return f"journal: b{record.broker_id} fenced"
            case BrokerUnfenced():
                return f"journal: b{record.broker_id} unfenced"
        return ""

    # --- messages ---------------------------------------------------------------------------------

    def _told(self, request: Message) -> str:
        match request:
            case Produce():
                (entry,) = request.partitions
                acks = "all" if request.acks == ACKS_ALL else request.acks
                count = sum(b.end_offset - b.base_offset for b in split(entry.batches, UNBOUNDED))
                return f"Produce {_records(count)}, acks={acks}"
            case ReplicaFetch():
                return _all(
                    f"ReplicaFetch from {p.fetch_offset} (last epoch {p.last_epoch}) in leader epoch {p.leader_epoch}"
                    for p in request.partitions
                    if p.topic == self.topic
                )
            case AlterPartition():
                return _all(
                    f"AlterPartition ISR {_ids(m.broker_id for m in p.isr)}, based on partition epoch {p.partition_epoch}"
                    for p in request.partitions
                )
            case Positions():
                return _all(
                    f"Positions? an election begins in leader epoch {p.leader_epoch}" for p in request.partitions
                )
            case Probe():
                return "Probe: are you there?"
        return ""

    def _answered(self, request: Message, response: Response) -> str:
        if isinstance(response, MinilogError):
            return f"{response.info.get('reason', response.code)}" if isinstance(request, Probe) else ""
        match response:
            case ProduceReply():
                (result,) = response.partitions
                if result.problem is not None:
                    return f"ProduceReply {result.problem.code}"
                return f"ProduceReply ok at offset {result.base_offset} of epoch {result.leader_epoch}"
            case ReplicaFetchReply():
                return _all(_result(r) for r in response.partitions if r.topic == self.topic)
            case AlterPartitionReply():
                return "AlterPartitionReply " + _all(
                    "applied" if p.problem is None else p.problem.code for p in response.partitions
                )
            case PositionsReply():
                return _all(
                    f"PositionsReply end {p.end_offset} (last epoch {p.last_epoch})" for p in response.partitions
                )
            case HeartbeatReply():
                news = [r for r in response.records if isinstance(r, PartitionChanged) and r.topic == self.topic]
                return f"HeartbeatReply: {_partition(news[-1])}" if news else ""
            case ProbeReply():
                return "ProbeReply: I am"
            case Problem():
                return f"{type(request).__name__} refused: {response.code}"
        return ""


def _partition(state: PartitionChanged) -> str:
    leader = "no leader" if state.leader == NO_LEADER else f"leader b{state.leader}"
    elr = f", ELR {_ids(state.elr)}" if state.elr else ""
    return f"{leader}, leader epoch {state.leader_epoch}, ISR {_ids(state.isr)}{elr}"


def _result(result: ReplicaFetchResult) -> str:
    if result.problem is not None:
        return f"ReplicaFetchReply {result.problem.code}"
    if result.diverging is not None:
        return "ReplicaFetchReply diverging: epoch {} ends at {}".format(*result.diverging)
    batches = split(result.batches, UNBOUNDED, stored=True)
    if not batches:
        return f"ReplicaFetchReply high watermark {result.high_watermark}"
    epochs = _ids(dict.fromkeys(b.leader_epoch for b in batches))
    offsets = f"{batches[0].base_offset} to {batches[-1].end_offset}"
    return f"ReplicaFetchReply records {offsets} of epoch {epochs}, high watermark {result.high_watermark}"


def _ids(ids: Iterable[int]) -> str:
    return "{" + " ".join(map(str, ids)) + "}"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _all(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def transcript(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([heading, "", "    ms  who        what (ends of offset ranges are exclusive)", *lines, ""])
