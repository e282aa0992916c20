"""What the client knows of the cluster: brokers, topics, leaders. Pure. ``cluster.py`` does the
asking.

Invariants:
* The leader epoch known for a partition of one topic id never goes back: an answer from a broker
  that lags behind cannot undo a newer one, whatever the order in which answers arrive (KIP-320's
  rule for clients).
* Brokers, and topics created, deleted or created anew, are believed from the answer with the
  highest ``metadata_offset`` only. The journal index grows across controller terms.
* A cluster id, once seen, never changes: offsets of another cluster mean nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from minilog.errors import InvalidRequest
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import BrokerInfo, MetadataReply, PartitionInfo, TopicInfo
from minilog_client.observing.events import ClientEvent, Connected, LeaderMoved

DEFAULT_MESSAGE_BYTES_MAX: Final = 1024 * 1024
_SUSPECT_MS: Final = 2000
"""A broker that failed is asked last for this long."""


class Leader(NamedTuple):
    broker_id: int
    url: str
    leader_epoch: int


@dataclass(slots=True)
class Partition:
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: Sequence[int]
    isr: Sequence[int]


@dataclass(slots=True)
class Topic:
    topic: str
    topic_id: str
    metadata_offset: int
    partitions: dict[int, Partition] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def partition_count(self) -> int:
        """Partitions 0 up to the first gap: a keyed record must never see a count with holes."""
        count = 0
        while count in self.partitions:
            count += 1
        return count

    @property
    def message_bytes_max(self) -> int:
        """The largest batch the topic takes."""
        try:
            return int(self.config["max.message.bytes"])
        except (KeyError, ValueError):
            return DEFAULT_MESSAGE_BYTES_MAX


class Routing:
    """The cache. ``version`` grows whenever an answer changed something."""

    def __init__(self, bootstrap: Sequence[str], tell: Callable[[ClientEvent], None] = lambda _: None) -> None:
        if not bootstrap:
            raise InvalidRequest("no broker to start from; give at least one URL such as http://127.0.0.1:8082")
        self.bootstrap = list(bootstrap)
        self._tell = tell
        self.cluster_id: str | None = None
        self.metadata_offset = 0
        self.version = 0
        self._brokers: dict[int, BrokerInfo] = {}
        self._topics: dict[str, Topic] = {}
        self._missing_since_ms: dict[str, int] = {}
        self._failed_ms: dict[str, int] = {}
        self._turn = 0

    # --- questions --------------------------------------------------------------------------------

    @property
    def brokers(self) -> list[BrokerInfo]:
        return sorted(self._brokers.values(), key=lambda broker: broker.broker_id)

    def topic(self, topic: str) -> Topic | None:
        return self._topics.get(topic)

    def missing_since_ms(self, topic: str) -> int | None:
        """Since when every trustworthy answer has left ``topic`` out; None while it is known or was
        never asked for."""
        return self._missing_since_ms.get(topic)

    def forget_absences(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._missing_since_ms.pop(topic, None)

    def leader(self, topic: str, partition: int) -> Leader | None:
        """Who leads, or None while that is unknown or an election runs."""
        known = self._topics.get(topic)
        entry = known.partitions.get(partition) if known else None
        if entry is None:
            return None
        return self._at(entry.leader, entry.leader_epoch)

    def replica(self, topic: str, partition: int, rack: str) -> Leader | None:
        """An in-sync replica to read from: one in ``rack`` if there is any, else spread over them
        by partition."""
        known = self._topics.get(topic)
        entry = known.partitions.get(partition) if known else None
        if entry is None:
            return None
        alive = [i for i in sorted(entry.isr) if i in self._brokers and self._brokers[i].state == "running"]
        near = [i for i in alive if rack and self._brokers[i].rack == rack] or alive
        if not near:
            return self._at(entry.leader, entry.leader_epoch)
        return self._at(near[partition % len(near)], entry.leader_epoch)

    def candidates(self, now_ms: int) -> list[str]:
        """Every URL that may know the metadata: answering brokers in turn, then those that failed
        lately."""
        known = [broker.url for broker in self.brokers if broker.state == "running"]
        urls = list(dict.fromkeys([*known, *self.bootstrap]))
        self._turn += 1
        shift = self._turn % len(urls)
        rotated = urls[shift:] + urls[:shift]
        return sorted(rotated, key=lambda url: self._suspicion(url, now_ms))

    def is_suspect(self, url: str, now_ms: int) -> bool:
        """The broker failed to answer lately."""
        failed_ms = self._failed_ms.get(url)
        return failed_ms is not None and now_ms - failed_ms <= _SUSPECT_MS

    def _suspicion(self, url: str, now_ms: int) -> int:
        return self._failed_ms[url] + 1 if self.is_suspect(url, now_ms) else 0

    def _at(self, broker_id: int, leader_epoch: int) -> Leader | None:
        broker = self._brokers.get(broker_id)
        if broker is None or broker_id == NO_LEADER:
            return None
        return Leader(broker_id, broker.url, leader_epoch)

    # --- events -----------------------------------------------------------------------------------

    def on_answered(self, url: str) -> None:
        self._failed_ms.pop(url, None)

    def on_failed(self, url: str, now_ms: int) -> None:
        self._failed_ms[url] = now_ms

    def on_metadata(self, reply: MetadataReply, asked: Iterable[str], now_ms: int, *, is_all: bool = False) -> bool:
        """Take over what is newer in ``reply``; says whether anything changed. ``asked``: the
        topics that somebody wants to know of. ``is_all``: ``reply`` tells of all there are.

        Raises InvalidRequest when the answer comes from another cluster."""
        self._check_cluster(reply)
        before = self.version
        if reply.metadata_offset >= self.metadata_offset:
            self._take_brokers(reply)
            self.metadata_offset = reply.metadata_offset
        for info in reply.topics:
            self._take_topic(info, reply.metadata_offset)
        seen = {info.topic for info in reply.topics}
        wanted = set(asked)
        if is_all:
            wanted |= self._topics.keys() | self._missing_since_ms.keys()
        for topic in wanted - seen:
            self._take_absence(topic, reply.metadata_offset, now_ms)
        return self.version != before

    def on_leader_hint(self, topic: str, partition: int, info: Mapping[str, Any]) -> bool:
        """A refusal that names the new leader (``leader``, ``leader_epoch``) saves a metadata
        request."""
        known = self._topics.get(topic)
        entry = known.partitions.get(partition) if known else None
        leader, epoch = info.get("leader"), info.get("leader_epoch")
        if entry is None or not isinstance(leader, int) or not isinstance(epoch, int):
            return False
        news = epoch > entry.leader_epoch or (epoch == entry.leader_epoch and entry.leader == NO_LEADER)
        if not news or leader not in self._brokers:
            return False
        entry.leader, entry.leader_epoch = leader, epoch
        self.version += 1
        self._tell(LeaderMoved(topic, partition, leader, epoch))
        return True

    def require(self, metadata_offset: int) -> None:
        """The caller's own change has this journal index: older answers no longer count as the
        truth."""
        self.metadata_offset = max(self.metadata_offset, metadata_offset)

    def _check_cluster(self, reply: MetadataReply) -> None:
        cluster_id = reply.cluster_id
        if self.cluster_id is None:
            self.cluster_id = cluster_id
            self._tell(Connected(cluster_id, tuple(broker.url for broker in reply.brokers)))
        if cluster_id != self.cluster_id:
            raise InvalidRequest(
                f"a broker of cluster {cluster_id} answered, this client belongs to cluster {self.cluster_id}; "
                "use one client per cluster"
            )

    def _take_brokers(self, reply: MetadataReply) -> None:
        brokers = {broker.broker_id: broker for broker in reply.brokers}
        if brokers != self._brokers:
            self._brokers = brokers
            self.version += 1

    def _take_topic(self, info: TopicInfo, metadata_offset: int) -> None:
        known = self._topics.get(info.topic)
        if known is not None and known.topic_id != info.topic_id and metadata_offset < known.metadata_offset:
            return
        absent_at = self.metadata_offset if info.topic in self._missing_since_ms else 0
        if known is None and metadata_offset < absent_at:
            return
        if known is None or known.topic_id != info.topic_id:
            known = Topic(info.topic, info.topic_id, metadata_offset)
            self._topics[info.topic] = known
            self.version += 1
        self._missing_since_ms.pop(info.topic, None)
        if metadata_offset >= known.metadata_offset:
            known.metadata_offset, known.config = metadata_offset, info.config
        for partition in info.partitions:
            self._take_partition(known, partition)

    def _take_partition(self, topic: Topic, info: PartitionInfo) -> None:
        entry = topic.partitions.get(info.partition)
        new_rank = (info.leader_epoch, info.partition_epoch)
        if entry is not None and new_rank <= (entry.leader_epoch, entry.partition_epoch):
            return
        topic.partitions[info.partition] = Partition(
            info.leader, info.leader_epoch, info.partition_epoch, info.replicas, info.isr
        )
        self.version += 1
        if entry is not None and entry.leader != info.leader:
            leader = None if info.leader == NO_LEADER else info.leader
            self._tell(LeaderMoved(topic.topic, info.partition, leader, info.leader_epoch))

    def _take_absence(self, topic: str, metadata_offset: int, now_ms: int) -> None:
        if metadata_offset < self.metadata_offset:
            return
        if self._topics.pop(topic, None) is not None:
            self.version += 1
        self._missing_since_ms.setdefault(topic, now_ms)
