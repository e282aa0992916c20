"""SimCluster: brokers, a controller and clients in one world, and the small language that scenarios
are written in.

c = SimCluster(brokers=3).start()
c.create_topic("t", replicas=3, min_isr=2)
c.produce("t", 4)
c.broker(1).kill()
c.until(lambda: c.leader("t") != 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from minilog.core.controller.shared.places import Places
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.wire.journal.metadata_records import PartitionChanged
from minilog.wire.messages import (
    ACKS_ALL,
    LATEST,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    ElectLeader,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    PersonsChange,
)
from minilog.wire.topic_partition import TopicPartition
from tests.sim.checks.group_watch import GroupWatch
from tests.sim.checks.history import History, Mirror, WatchedLog
from tests.sim.checks.invariants import Invariants
from tests.sim.nodes.broker_node import BrokerNode
from tests.sim.nodes.clients import Admin, Consumer, Load, Producer, Write
from tests.sim.nodes.controller_node import ControllerNode
from tests.sim.nodes.etcd import SimEtcd
from tests.sim.nodes.members import Habits, Member, Reader
from tests.sim.nodes.network import CLIENT_IDS, Network, Response
from tests.sim.nodes.numbered import NumberedProducer
from tests.sim.nodes.shared_controller import SharedController
from tests.sim.nodes.world import Violation, World

TWIN_IDS = 100
"""Network addresses of twins begin here."""


class SimCluster:
    def __init__(
        self,
        seed: int = 0,
        *,
        brokers: int = 3,
        timeouts: dict[str, int] | None = None,
        controllers: int = 1,
    ) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.history = History()
        self.brokers: dict[int, BrokerNode] = {}
        self.invariants = Invariants(self.history, self.brokers)
        self.etcd: SimEtcd | None = None
        self.controllers: list[ControllerNode] = []
        self._add_controllers(controllers)
        for broker_id in range(1, brokers + 1):
            self._add_broker(broker_id)
        self._next_client = CLIENT_IDS
        self.admin = self._client(Admin, "admin")
        self.admin.controller_id = lambda: self.controller.node_id
        self.producer = self.add_producer("p")
        self.watch = GroupWatch(self.world)
        self.configure(timeouts or {})

    def _add_controllers(self, count: int) -> None:
        if count == 1:
            self.controllers = [ControllerNode(self.world, self.network)]
        else:
            etcd = self.etcd = SimEtcd(self.world, Places("/minilog/sim/"), self.network.cuts)
            etcd.on_journalled = self.invariants.on_journalled
            shared = [SharedController(self.world, self.network, number, etcd) for number in range(1, count + 1)]
            for node in shared:
                node.peers = {other.url: other.node_id for other in shared}
            self.controllers = [*shared]
        for controller in self.controllers:
            controller.invariants = self.invariants
            self.network.add(controller)

    @property
    def controller(self) -> ControllerNode:
        """The one that there is, or of several the one that holds the term."""
        holder = "" if self.etcd is None else self.etcd.holder
        return next((node for node in self.controllers if node.name == holder), self.controllers[0])

    def _add_broker(self, broker_id: int) -> None:
        node = BrokerNode(self.world, self.network, broker_id, self.history)
        node.invariants = self.invariants
        urls = {node.url: node.node_id for node in self.controllers if isinstance(node, SharedController)}
        node.controller_ids = urls
        node.settings = _with(node.settings, {"controller_urls": ",".join(urls)})
        self.brokers[broker_id] = node
        self.network.add(node)

    def configure(self, timeouts: dict[str, int]) -> None:
        for node in self.brokers.values():
            node.settings = _with(node.settings, timeouts)
        for controller in self.controllers:
            controller.settings = _with(controller.settings, timeouts)

    def next_client(self) -> int:
        self._next_client += 1
        return self._next_client

    def _client(self, cls: Any, name: str, *more: Any) -> Any:
        return cls(self.world, self.network, self.next_client(), name, list(self.brokers), *more)

    def add_producer(self, name: str, load: Load | None = None) -> Producer:
        producer: Producer = self._client(Producer, name, load)
        return producer

    def add_numbered_producer(self, name: str, load: Load | None = None) -> NumberedProducer:
        """One whose retries write nothing twice. It begins by asking for its id."""
        producer: NumberedProducer = self._client(NumberedProducer, name, load)
        return producer

    def add_consumer(self, name: str) -> Consumer:
        consumer: Consumer = self._client(Consumer, name)
        return consumer

    def add_member(self, name: str, group: str = "g", habits: Habits | None = None) -> Member:
        member: Member = self._client(Member, name, group, habits or Habits(), self.watch)
        return member

    def add_reader(self, name: str, group: str = "g") -> Reader:
        reader: Reader = self._client(Reader, name, group)
        return reader

    # --- time -------------------------------------------------------------------------------------

    def start(self) -> SimCluster:
        """Everything up and unfenced."""
        for controller in self.controllers:
            controller.start()
        for node in self.brokers.values():
            node.start()
        self.until(self.all_ready, "all brokers ready")
        return self

    def run(self, duration_ms: int) -> None:
        self.world.run_for(duration_ms)

    def until(self, condition: Callable[[], bool], what: str = "the condition", within_ms: int = 20_000) -> int:
        return self.world.run_until(condition, what, within_ms)

    # --- looking ----------------------------------------------------------------------------------

    def broker(self, broker_id: int) -> BrokerNode:
        return self.brokers[broker_id]

    def state(self, topic: str, partition: int = 0) -> PartitionChanged:
        """The partition as the journal has it."""
        state = self.invariants.truth.partition(topic, partition)
        assert state is not None
        return state

    def leader(self, topic: str, partition: int = 0) -> int:
        return self.state(topic, partition).leader

    def isr(self, topic: str, partition: int = 0) -> list[int]:
        return sorted(self.state(topic, partition).isr)

    def elr(self, topic: str, partition: int = 0) -> list[int]:
        return sorted(self.state(topic, partition).elr)

    def replica(self, broker_id: int, topic: str, partition: int = 0) -> Replica | None:
        core = self.brokers[broker_id].core
        return None if core is None else core.replicas.get(TopicPartition(topic, partition))

    def log(self, broker_id: int, topic: str, partition: int = 0) -> WatchedLog:
        replica = self.replica(broker_id, topic, partition)
        assert replica is not None
        assert isinstance(replica.log, WatchedLog)
        return replica.log

    def ends(self, topic: str, partition: int = 0) -> list[int]:
        """Log end offsets of all replicas, in replica order."""
        return [self.log(r, topic, partition).end_offset for r in self.state(topic, partition).replicas]

    def all_ready(self) -> bool:
        return all(node.core is not None and node.core.ready for node in self.brokers.values())

    def leads(self, broker_id: int, topic: str, partition: int = 0) -> bool:
        """The broker itself acts as the leader of the current epoch."""
        replica = self.replica(broker_id, topic, partition)
        if replica is None or not isinstance(replica.role, LeaderState):
            return False
        return replica.leader_epoch == self.state(topic, partition).leader_epoch

    # --- doing ------------------------------------------------------------------------------------

    def create_topic(
        self,
        topic: str = "t",
        *,
        partitions: int = 1,
        replicas: int = 3,
        min_isr: int = 1,
        assignment: Any = None,
        **config: str,
    ) -> None:
        settings = config_of(min_isr, config)
        if assignment is not None:
            request = CreateTopic(topic, config=settings, assignment=assignment)
        else:
            request = CreateTopic(topic, partitions, replicas, settings)
        answered = len(self.admin.answers)
        self.admin.request(request)
        self.until(lambda: len(self.admin.answers) > answered, f"{topic} created")
        answer = self.admin.answers[-1]
        if not isinstance(answer, CreateTopicReply):
            raise Violation("Scenario", f"{topic} was not created: {answer}")

    def delete_topic(self, topic: str) -> None:
        answered = len(self.admin.answers)
        self.admin.request(DeleteTopic(topic, self.invariants.truth.topics[topic].topic_id))
        self.until(lambda: len(self.admin.answers) > answered, f"{topic} deleted")

    def produce(
        self,
        topic: str = "t",
        count: int = 1,
        *,
        acks: int = ACKS_ALL,
        partition: int = 0,
        at: int | None = None,
        wait: bool = True,
    ) -> Write:
        """One batch, sent to the leader or to broker ``at``. With ``wait`` it must succeed."""
        state = self.state(topic, partition)
        target = state.leader if at is None else at
        if target >= 0:
            self.producer.leaders[topic, partition] = (target, state.leader_epoch)
        write = self.producer.write(topic, partition, acks, count)
        if wait:
            self.until(lambda: write.outcome is not None, f"produce to {topic}")
            if write.outcome != "ok":
                raise Violation("Scenario", f"produce to {topic}: {write.error}")
        return write

    def end_of(self, topic: str = "t", *, at: int | None = None) -> Response:
        """What the leader, or broker ``at``, says of the topic's latest offset. A refusal is an
        answer, too."""
        asked = Offsets([OffsetsPartition(topic, 0, LATEST)])
        answers: list[Response] = []
        self.admin.ask(self.leader(topic) if at is None else at, asked, answers.append, 2000)
        self.until(lambda: bool(answers), f"the end of {topic}")
        answer = answers[0]
        if isinstance(answer, OffsetsReply) and answer.partitions[0].problem is not None:
            return answer.partitions[0].problem.error()
        return answer

    def reader(self, topic: str = "t", name: str = "r", **behaviour: Any) -> Consumer:
        """A consumer that reads the topic from its beginning on."""
        reader = self.add_consumer(name)
        for attribute, value in behaviour.items():
            setattr(reader, attribute, value)
        reader.assign(topic, 0)
        reader.leaders[topic, 0] = (self.leader(topic), self.state(topic).leader_epoch)
        reader.begin()
        return reader

    def cut_off(self, broker_id: int) -> None:
        """From the controller and all other brokers. Clients still reach it."""
        for other in (*(node.node_id for node in self.controllers), *self.brokers):
            if other != broker_id:
                self.network.cut(broker_id, other)

    def accept_loss(self, topic: str, end_offset: int = 0) -> None:
        """Nothing can help what lay at ``end_offset`` and above: more disks were lost than there
        were copies promised."""
        state = self.state(topic)
        self.invariants.history.of(topic, state.topic_id, state.partition).accept_loss(end_offset)

    def change(self, request: PersonsChange) -> Response:
        """A person asks the controller, and has the answer."""
        answered = len(self.admin.answers)
        self.admin.request(request)
        self.until(lambda: len(self.admin.answers) > answered, f"an answer to {type(request).__name__}")
        answer: Response = self.admin.answers[-1]
        return answer

    def elect(self, topic: str = "t", partition: int = 0, **how: Any) -> Response:
        """A person asks who could lead, or decides."""
        answered = len(self.admin.answers)
        self.admin.request(ElectLeader(topic, partition, **how))
        self.until(lambda: len(self.admin.answers) > answered, f"an answer about {topic}-{partition}")
        answer: Response = self.admin.answers[-1]
        return answer

    def ended(self, write: Write) -> Write:
        self.until(lambda: write.outcome is not None, "the write to end")
        return write

    def twin(self, broker_id: int) -> BrokerNode:
        """Another machine whose broker is configured with the id of this one. Not started yet."""
        twin = BrokerNode(self.world, self.network, broker_id, self.invariants.history)
        twin.node_id, twin.name, twin.rng = TWIN_IDS + broker_id, "twin", self.world.rng("twin")
        self.network.add(twin)
        return twin

    def kill_all(self) -> None:
        for node in self.brokers.values():
            node.kill()
        for controller in self.controllers:
            controller.kill()

    def start_all(self) -> None:
        """Whatever does not run."""
        for controller in self.controllers:
            controller.start()
        for node in self.brokers.values():
            node.start()

    def converged(self, topic: str, partition: int = 0) -> bool:
        """All replicas in sync, with the same log, all of it committed."""
        state = self.state(topic, partition)
        if (
            state.leader < 0
            or sorted(state.isr) != sorted(state.replicas)
            or not self.leads(state.leader, topic, partition)
        ):
            return False
        leader = self.log(state.leader, topic, partition)
        if leader.high_watermark < leader.end_offset:
            return False
        replicas = [self.replica(r, topic, partition) for r in state.replicas]
        return all(r is not None and _agree(r.log.mirror, leader.mirror) for r in replicas)  # type: ignore[attr-defined]

    def settle(self, topic: str = "t", partition: int = 0, within_ms: int = 20_000) -> None:
        self.until(lambda: self.converged(topic, partition), f"{topic}-{partition} converges", within_ms)


def _agree(one: Mirror, other: Mirror) -> bool:
    """From where both begin."""
    if one.start_offset == other.start_offset:
        return one.entries == other.entries
    start_offset = max(one.start_offset, other.start_offset)
    return one.end_offset == other.end_offset and one.since(start_offset) == other.since(start_offset)


def config_of(min_isr: int, config: dict[str, str]) -> dict[str, str]:
    """A topic's settings under their real names."""
    return {"min.insync.replicas": str(min_isr), **{k.replace("_", "."): v for k, v in config.items()}}


def _with(settings: Any, changes: Mapping[str, Any]) -> Any:
    """``settings`` with those changes that it has a field for."""
    known = {name: value for name, value in changes.items() if name in settings.__struct_fields__}
    return msgspec.structs.replace(settings, **known)
