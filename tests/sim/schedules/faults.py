"""Faults: what goes wrong during the first phase of a schedule, at the rates its options say, and
its undoing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy

from minilog.wire.messages import (
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    Message,
    PositionsReply,
    ReplicaFetchReply,
)
from tests.sim.cluster import SimCluster
from tests.sim.nodes.broker_node import BrokerNode
from tests.sim.nodes.controller_node import ControllerNode, SimJournal
from tests.sim.nodes.disk import SimDisk
from tests.sim.nodes.network import CLIENT_IDS, Weather
from tests.sim.nodes.process import Process
from tests.sim.schedules.controllers import ControllerFaults
from tests.sim.schedules.levers import Levers
from tests.sim.schedules.options import Options
from tests.sim.schedules.recreation import Recreation

STEP_MS = 50


class Faults:
    def __init__(self, cluster: SimCluster, options: Options, recreation: Recreation) -> None:
        self.cluster = cluster
        self.options = options
        self.recreation = recreation
        self.rng = cluster.world.rng("faults")
        self.figures: Counter[str] = Counter()
        self.active = True
        self._copies: dict[int, SimDisk] = {}
        self._journal: SimJournal | None = None
        self.losses = 0
        """Machines that have lost more than unsynced writes nobody relies on."""
        self._controllers = ControllerFaults(cluster, options, self.rng, self._later)
        levers = Levers(cluster, options)
        self._kinds: list[tuple[str, float, Callable[[], None]]] = [
            ("kill", options.kills, self._kill),
            ("crash", options.crashes, self._crash),
            ("pause", options.pauses, self._pause),
            ("stop", options.stops, self._stop),
            ("kill all", options.kill_alls, self._kill_all),
            ("controller kill", options.controller_kills, self._kill_controller),
            ("controller pause", options.controller_pauses, self._pause_controller),
            ("one-way cut", options.one_way_cuts, self._cut_one_way),
            ("isolation", options.isolations, self._isolate),
            ("ring", options.rings, self._ring),
            ("slow disk", options.slow_disks, self._slow_disk),
            ("full disk", options.full_disks, self._fill_disk),
            ("failed disk", options.failed_disks, self._fail_disk),
            ("wipe", options.wipes, self._wipe),
            ("restore", options.restores, self._restore),
            ("lost log", options.lost_logs, self._lose_log),
            ("old journal", options.old_journals, self._start_impostor),
            ("topic churn", options.topic_churn, self._churn),
            ("recreation", options.recreations, recreation.delete),
            ("power cut", options.power_cuts, self._cut_power),
            ("lever", options.levers, levers.pull),
            ("move", options.moves, levers.move),
            *self._controllers.kinds,
        ]

    def begin(self) -> None:
        cluster, options = self.cluster, self.options
        cluster.network.weather = options.weather()
        cluster.network.on_straggler = self._on_straggler
        self._controllers.begin()
        self._step()

    def _step(self) -> None:
        if not self.active:
            return
        for name, rate, act in self._kinds:
            if rate and self.rng.random() < rate * STEP_MS / 1000:
                self.figures[name] += 1
                self.cluster.world.note(f"fault: {name}")
                act()
        for controller in self.cluster.controllers:
            if not controller.running and self.options.dies_in_commit:
                self._start_later(controller)
        if self.options.full_disks and self.rng.random() < 0.1:  # whoever could not start tries again
            self._start_later(self._broker())
        self.cluster.world.after(STEP_MS, "faults", self._step)

    def end(self) -> None:
        """Heal everything. What is late on the network still arrives."""
        self.active = False
        cluster = self.cluster
        cluster.network.weather = Weather(encoded=self.options.encoded)
        cluster.network.on_straggler = None
        cluster.network.heal()
        self._controllers.end()
        nodes: list[BrokerNode | ControllerNode] = [*cluster.controllers, *cluster.brokers.values()]
        for broker in cluster.brokers.values():
            broker.disk_delay_ms = (1, 3)
            broker.machine.disk.full = False
        for node in nodes:
            if node.paused:
                node.resume()
            node.start()

    # --- one of each ------------------------------------------------------------------------------

    def _broker(self) -> BrokerNode:
        return self.rng.choice(list(self.cluster.brokers.values()))

    def _down_ms(self) -> int:
        return self.rng.randint(1, self.options.down_ms)

    def _later(self, delay_ms: int, label: str, act: Callable[[], None]) -> None:
        def act_if_active() -> None:
            if self.active:
                act()

        self.cluster.world.after(delay_ms, label, act_if_active)

    def _start_later(self, node: BrokerNode | ControllerNode) -> None:
        self._later(self._down_ms(), f"start {node.name}", node.start)

    def _kill(self) -> None:
        node = self._broker()
        node.kill()
        self._start_later(node)

    def _crash(self) -> None:
        if self.options.flush_policy == "commit" or self._may_lose():
            node = self._broker()
            node.crash()
            self._start_later(node)

    def _wipe(self) -> None:
        if self._may_lose():
            node = self._broker()
            node.wipe()
            self._start_later(node)

    def _restore(self) -> None:
        """First a copy is made, and with the next fault of the kind it comes back."""
        node = self._broker()
        copy = self._copies.pop(node.node_id, None)
        if copy is None:
            self._copies[node.node_id] = node.machine.disk.copy()
        elif self._may_lose():
            node.restore(copy, same_boot=self.rng.random() < 0.5)
            self._start_later(node)

    def _lose_log(self) -> None:
        """Of those that the broker's copy of the metadata speaks of: one that was made a moment ago
        is not missed."""
        node = self._broker()
        known = set() if node.core is None else set(node.store.metadata.replicas_of(node.node_id))
        logs = [
            p for p, r in (node.core.replicas if node.core else {}).items() if (*p[:1], r.topic_id, *p[1:]) in known
        ]
        if logs and self._may_lose():
            node.kill()
            partition = self.rng.choice(logs)
            node.lose_log(partition.topic, partition.partition)
            self._start_later(node)

    def _start_impostor(self) -> None:
        """With a copy of the journal that was made at the last fault of the kind. All brokers hear
        it, and it is gone before it can take any of them for dead."""
        controller, network = self.cluster.controller, self.cluster.network
        journal, self._journal = self._journal, deepcopy(controller.journal)
        if journal is None or not controller.running or controller.paused or network.cuts:
            return
        cores = [node.core for node in self.cluster.brokers.values() if node.running and not node.paused]
        ahead = [core for core in cores if core is not None and core.image.metadata_offset > journal.last_index]
        if len(ahead) < len(self.cluster.brokers):
            return
        controller.kill()
        impostor = ControllerNode(self.cluster.world, network)
        impostor.journal, impostor.settings = journal, controller.settings
        network.add(impostor)
        impostor.start()

        def bring_back() -> None:
            self.figures["impostors ended"] += not impostor.running
            impostor.kill()
            network.add(controller)
            controller.start()

        self.cluster.world.after(self.rng.randint(1, 300), "the controller is back", bring_back)

    def _may_lose(self) -> bool:
        if self.losses >= self.options.losses_max:
            return False
        self.losses += 1
        return True

    def _pause(self) -> None:
        node = self._broker()
        node.pause()
        self._later(self._down_ms(), f"resume {node.name}", node.resume)

    def _stop(self) -> None:
        node = self._broker()
        node.stop()
        self._later(self._down_ms(), f"start {node.name}", lambda: self._start_when_ended(node))

    def _start_when_ended(self, node: BrokerNode) -> None:
        if node.running and node.stopping:
            self._later(100, f"start {node.name}", lambda: self._start_when_ended(node))
        else:
            node.start()

    def _kill_all(self) -> None:
        nodes: list[BrokerNode | ControllerNode] = [*self.cluster.brokers.values()]
        if self.rng.random() < 0.5:
            nodes += self.cluster.controllers
        lossy = self.options.crashes > 0 and self.options.flush_policy == "commit" and self.rng.random() < 0.5
        for node in nodes:
            if lossy:
                node.crash()
            else:
                node.kill()
            self._start_later(node)

    def _kill_controller(self) -> None:
        controller = self.cluster.controller
        controller.kill()
        self._start_later(controller)

    def _pause_controller(self) -> None:
        controller = self.cluster.controller
        controller.pause()
        self._later(self._down_ms(), "resume ctl", controller.resume)

    def _nodes(self) -> list[int]:
        return [*(node.node_id for node in self.cluster.controllers), *self.cluster.brokers]

    def _heal_later(self, pairs: set[tuple[int, int]]) -> None:
        cuts = self.cluster.network.cuts
        self._later(self._down_ms(), "heal", lambda: cuts.difference_update(pairs))

    def _cut(self, pairs: set[tuple[int, int]]) -> None:
        self.cluster.network.cuts |= pairs
        self._heal_later(pairs)

    def _cut_one_way(self) -> None:
        source, target = self.rng.sample(self._nodes(), 2)
        self._cut({(source, target)})

    def _isolate(self) -> None:
        node = self.rng.choice(self._nodes())
        others = [other for other in self.cluster.network.processes if other != node]
        if self.rng.random() < 0.5:  # clients still reach it
            others = [other for other in others if other < CLIENT_IDS]
        self._cut({pair for other in others for pair in ((node, other), (other, node))})

    def _ring(self) -> None:
        """Everybody sees the neighbours only."""
        nodes = self._nodes()
        self.rng.shuffle(nodes)
        n = len(nodes)
        self._cut(
            {(a, b) for i, a in enumerate(nodes) for j, b in enumerate(nodes) if (i - j) % n not in (0, 1, n - 1)}
        )

    def _slow_disk(self) -> None:
        node = self._broker()
        usual = (1, self.options.disk_delay_max_ms)
        node.disk_delay_ms = (100, 1500)
        self._later(self._down_ms(), "disk ok", lambda: setattr(node, "disk_delay_ms", usual))

    def _fill_disk(self) -> None:
        disk = self._broker().machine.disk
        disk.full = True
        self._later(self._down_ms(), "disk has room", lambda: setattr(disk, "full", False))

    def _fail_disk(self) -> None:
        """The next write or sync fails. The process stops, and is started again."""
        node = self._broker()
        if self.options.flush_policy == "commit" and node.running:
            node.machine.disk.failure = "input/output error"
            self._later(1000 + self._down_ms(), f"start {node.name}", node.start)

    def _churn(self) -> None:
        admin, topic = self.cluster.admin, f"churn{self.rng.randint(0, 1)}"
        if topic in self.cluster.invariants.truth.topics:
            admin.request(DeleteTopic(topic))
        else:
            admin.request(CreateTopic(topic, 2, 0, {}))

    # --- while a straggler is on its way ----------------------------------------------------------

    def _on_straggler(self, message: Message, sender: Process, delay_ms: int) -> None:
        """What it speaks of may end before it arrives: its topic, the process it is from, one it is
        weighed against."""
        if self.rng.random() >= self.options.troubles:
            return
        self.figures["troubles"] += 1
        topics = {part.topic for part in message.partitions} if isinstance(message, ReplicaFetchReply) else set()
        if self.recreation.topic in topics:
            self.recreation.delete()
            return
        if isinstance(message, AlterPartition) and sender.node_id in self.cluster.brokers:
            self._stop_while_joining(self.cluster.brokers[sender.node_id], message, delay_ms)
            return
        node = self._broker()
        wiped = isinstance(message, PositionsReply) and node is not sender and self._in_recovery(message)
        wiped = wiped and self._may_lose()
        self._later(self.rng.randint(0, delay_ms // 4), f"trouble for {node.name}", lambda: self._restart(node, wiped))

    def _in_recovery(self, message: PositionsReply) -> bool:
        """Nobody is known to be complete, so that a position decides what is left."""
        states = [self.cluster.invariants.truth.partition(part.topic, part.partition) for part in message.partitions]
        return any(state is not None and not state.isr and not state.elr for state in states)

    def _restart(self, node: BrokerNode, wiped: bool) -> None:
        if wiped:
            node.wipe()
        else:
            node.kill()
        self._later(self.rng.randint(1, 10), f"start {node.name}", node.start)

    def _cut_power(self) -> None:
        if self.options.flush_policy == "commit":
            for node in self.cluster.brokers.values():
                node.crash()
                self._later(self.rng.randint(1, 50), f"start {node.name}", node.start)

    def _stop_while_joining(self, leader: BrokerNode, message: AlterPartition, delay_ms: int) -> None:
        """Its ISR is about to become another one: a leader is stopped, who joins is cut off from
        it, the others are slow."""
        members = {m.broker_id for proposal in message.partitions for m in proposal.isr} - {leader.node_id}
        states = [self.cluster.invariants.truth.partition(p.topic, p.partition) for p in message.partitions]
        joining = members - {b for state in states if state is not None for b in state.isr}
        for other in joining:
            self._cut({(leader.node_id, other), (other, leader.node_id)})
        for other in members - joining:
            self._slow(self.cluster.brokers[other], delay_ms)
        self._later(self.rng.randint(0, delay_ms), f"stop {leader.name}", leader.stop)
        self._later(delay_ms + self._down_ms(), f"start {leader.name}", lambda: self._start_when_ended(leader))

    def _slow(self, node: BrokerNode, duration_ms: int) -> None:
        usual = (1, self.options.disk_delay_max_ms)
        node.disk_delay_ms = (50, 300)
        self._later(duration_ms + 100, "disk ok", lambda: setattr(node, "disk_delay_ms", usual))
