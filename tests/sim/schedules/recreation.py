"""Recreation: a topic that is written to and read while it is deleted and made anew under its name,
again and again.

What was said of one incarnation (topic id) must never be taken for the other: a record that the
present one has acknowledged is there in the end, and nothing is there that only an earlier one was
given.
"""

from __future__ import annotations

from minilog.errors import MinilogError
from minilog.wire.messages import CreateTopic, DeleteTopic
from tests.sim.cluster import SimCluster, config_of
from tests.sim.nodes.clients import Consumer, Cursor, Load, Producer, Write
from tests.sim.nodes.numbered import NumberedProducer
from tests.sim.nodes.world import Violation
from tests.sim.schedules.options import Options

LOOK_MS = 5
ACKS = (-1, -1, -1, -1, 1, 2)
LATE_MS = 1000
"""How long a request may lie at the controller."""


class Returner(Consumer):
    """Begins anew when what it has read is gone: it was another topic of that name."""

    def _on_error(self, topic: str, partition: int, cursor: Cursor, error: MinilogError, leader_epoch: int) -> None:
        gone = error.code in ("LOG_TRUNCATED", "UNKNOWN_LEADER_EPOCH") or (
            error.code == "OFFSET_OUT_OF_RANGE" and error.info["log_start_offset"] <= cursor.offset
        )
        if gone:
            cursor.offset, cursor.last_epoch, cursor.leader_epoch = 0, -1, -1
            self.forget(topic, partition, error)
            return
        super()._on_error(topic, partition, cursor, error, leader_epoch)


class Recreation:
    topic = "again"

    def __init__(self, cluster: SimCluster, options: Options) -> None:
        self.cluster, self.options = cluster, options
        self.rng = cluster.world.rng("recreation")
        self.names = [(self.topic, p) for p in range(options.partitions)] if options.recreations else []
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self._assignment: list[list[int]] | None = None
        self._settled_ms = 0

    def begin(self) -> None:
        if not self.names:
            return
        cluster, options = self.cluster, self.options
        config = options.topic_config()
        cluster.create_topic(
            self.topic,
            partitions=options.partitions,
            replicas=options.replicas,
            min_isr=options.min_isr,
            **config,
        )
        self._assignment = [list(cluster.state(*name).replicas) for name in self.names]
        self._look()
        add = cluster.add_numbered_producer if self.rng.random() < 0.3 else cluster.add_producer
        load = Load(self.rng.choice((5, 20)), 3, ACKS, values_max=2, timeout_ms=options.produce_timeout_ms)
        producer = add("again", load)
        producer.partitions = self.names
        producer.begin()
        self.producers.append(producer)
        reader = Returner(cluster.world, cluster.network, cluster.next_client(), "returner", list(cluster.brokers))
        reader.any_replica = self.rng.random() < 0.5
        for name in self.names:
            reader.assign(*name)
        reader.begin()
        self.consumers.append(reader)

    # --- deleting and making ----------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return self.topic in self.cluster.invariants.truth.topics

    @property
    def settled(self) -> bool:
        """There, and no late request will take it away again."""
        return not self.names or (self.exists and self.cluster.world.now_ms >= self._settled_ms)

    def delete(self) -> None:
        late_ms = self.options.late_ms if self.options.late else self.options.delay_ms
        self._settled_ms = self.cluster.world.now_ms + late_ms + LATE_MS
        self.cluster.admin.request(DeleteTopic(self.topic))

    def _look(self) -> None:
        """Whatever became of the last request: a topic that is not there is made, mostly where it
        was."""
        if not self.exists:
            config = config_of(self.options.min_isr, self.options.topic_config())
            if self._assignment is not None and self.rng.random() < 0.8:
                request = CreateTopic(self.topic, config=config, assignment=self._assignment)
            else:
                request = CreateTopic(self.topic, self.options.partitions, self.options.replicas, config)
            self.cluster.admin.request(request)
        self.cluster.world.after(LOOK_MS if self.exists else 4 * LOOK_MS, "again faults", self._look)

    # --- in the end -------------------------------------------------------------------------------

    def of_present(self, write: Write) -> bool:
        """The topic that there is now has acknowledged this write."""
        assert write.receipt is not None
        state = self.cluster.state(write.topic, write.partition)
        history = self.cluster.history.of(write.topic, state.topic_id, write.partition)
        return (write.receipt.base_offset, write.receipt.crc) in history.receipts

    def is_answerable(self, write: Write) -> bool:
        """The present topic answers for it: not for what an earlier one took, or took without a
        receipt."""
        if write.topic != self.topic or write.outcome != "ok":
            return True
        return write.acks != 0 and self.of_present(write)

    def check(self, found: set[bytes]) -> None:
        """Nothing that an earlier topic has acknowledged is in this one. A numbered request may
        have been delivered to both."""
        for producer in self.producers:
            if isinstance(producer, NumberedProducer):
                continue
            for write in producer.writes:
                if not self.is_answerable(write) and any(value in found for value in write.values) and write.acks != 0:
                    raise Violation("EarlierTopic", f"{write.values} is there, another {self.topic} had taken it")
