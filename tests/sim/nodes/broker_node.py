"""BrokerNode: the shell around a real BrokerCore, as minilog/broker/runtime.py and flusher.py are
around theirs.

One turn: event in, effects out, performed in order. Flushes take a while and are merged per log,
one in flight. A kill loses nothing that was written. A machine crash loses what was not synced, and
restarts unclean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilog.config import BrokerSettings
from minilog.core.broker.broker import BrokerCore
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, GoOn, Reply, SaveMetadata, Send
from minilog.errors import DiskFull, RefusesToStart, StorageFailed
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import (
    Fetch,
    Heartbeat,
    InitProducer,
    Message,
    Produce,
    ReplicaFetch,
    ReplicaFetchReply,
)
from minilog.wire.topic_partition import TopicPartition
from tests.sim.checks.freshness import Transits
from tests.sim.checks.history import History, WatchedStore
from tests.sim.nodes.disk import SimDisk
from tests.sim.nodes.disk_store import DiskStore
from tests.sim.nodes.network import Inbound, Network, Response
from tests.sim.nodes.process import Process
from tests.sim.nodes.world import Violation, World

if TYPE_CHECKING:
    from tests.sim.checks.invariants import Invariants


OVERTIME_TICKS = 2
"""How long after its deadline a parked request may be answered."""


class Flight:
    """One fdatasync in flight. ``wanted_end`` is the furthest end asked for since."""

    def __init__(self, log: Any, job: Any, began_ms: int) -> None:
        self.log, self.job, self.wanted_end = log, job, 0
        self.began_ms = began_ms


class BrokerNode(Process):
    def __init__(self, world: World, network: Network, broker_id: int, history: History) -> None:
        super().__init__(world, broker_id, f"b{broker_id}")
        self.network = network
        self.machine = DiskStore(broker_id)
        self.store = WatchedStore(self.machine, self.name, history)
        self.rng = world.rng(self.name)
        self.settings = BrokerSettings(broker_id=broker_id, data_dir=f"/{self.name}")
        self.disk_delay_ms = (1, 3)
        self.core: BrokerCore | None = None
        self.invariants: Invariants | None = None
        self.stopping = False
        self.turns = 0
        self.refused = ""
        """Why the last process refused to start."""
        self.lossy = False
        """Unsynced writes may be missing since the last crash, until the controller has been
        told."""
        self.wiped = False
        """Everything is missing, until the controller has been told."""
        self.figures = {"kills": 0, "crashes": 0, "pauses": 0, "wipes": 0, "restores": 0, "stops": 0, "fail_stops": 0}
        self.transits = Transits()
        self._next_request_id = 1
        self.is_registered = False
        self.controller_ids: dict[str, int] = {}
        """By url, where there are several."""
        self._flights: dict[TopicPartition, Flight] = {}

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.running:
            return
        try:
            clean = self.store.start()
        except DiskFull:
            self.machine.kill()
            return
        self.begin_life()
        self.stopping, self.refused = False, ""
        self.is_registered = False
        self.requests, self._flights = {}, {}
        self.lossy = self.lossy or not clean
        incarnation = f"{self.rng.getrandbits(64):016x}"
        self.core = BrokerCore(
            self.settings, self.store, incarnation=incarnation, clean=clean, url=f"http://{self.name}:80"
        )
        self.later(self.rng.randint(0, self.tick_ms), "tick", self._tick)
        self.later(self.settings.checkpoint_interval_ms, "checkpoint", self._checkpoint)

    def kill(self) -> None:
        """SIGKILL: the page cache stays, the kernel closes the sockets."""
        if self.running:
            self.figures["kills"] += 1
            self._die()

    def _die(self) -> None:
        self.network.on_process_end(self, host_up=True)
        self.store.on_kill()
        self.machine.kill()
        self.core = None
        self.end_life()

    def _fail_stop(self) -> None:
        """The disk failed: the process ends, and what was not synced is in doubt."""
        self.figures["fail_stops"] += 1
        self.store.distrust()
        self.network.on_process_end(self, host_up=True)
        self.store.on_crash()
        self.machine.lose_cache(self.rng)
        self.core = None
        self.end_life()

    def crash(self) -> None:
        """Power loss: unsynced writes go, and nobody hears a connection close."""
        if not self.host_up:
            return
        self.figures["crashes"] += 1
        if self.running:
            self.network.on_process_end(self, host_up=False)
        self.store.on_crash()
        self.machine.crash(self.rng)
        self.core = None
        self.end_life(host_up=False)

    def wipe(self) -> None:
        """The machine dies and comes back with an empty disk."""
        self.crash()
        self.figures["wipes"] += 1
        self.store.on_wipe()
        self.machine.replace()
        self.wiped = True

    def restore(self, disk: SimDisk, *, same_boot: bool = False) -> None:
        """The process dies, and comes back with a copy of its disk as it was once."""
        if not same_boot:
            self.crash()
        elif self.running:
            self._die()
        self.figures["restores"] += 1
        self.store.on_wipe()
        self.machine.replace(disk, same_boot=same_boot)
        self.wiped = True

    def lose_log(self, topic: str, partition: int = 0) -> None:
        """Somebody removes the directory of one partition while the process is away."""
        assert not self.running
        self.machine.remove_log(topic, partition)
        self.store.on_wipe_of(topic, partition)
        self.wiped = True

    def stop(self) -> None:
        """SIGTERM: leave in order. The process ends when the controller allows it or after the
        shutdown timeout."""
        if not self.running or self.stopping:
            return
        self.stopping = True
        self.figures["stops"] += 1
        self.post(self._begin_shutdown)
        self.later(self.settings.shutdown_timeout_ms, "shutdown timeout", self._exit)

    def _begin_shutdown(self) -> None:
        assert self.core is not None
        self._turn(self.core.begin_shutdown)

    def pause(self) -> None:
        if self.running and not self.paused:
            self.figures["pauses"] += 1
            super().pause()

    def _exit(self) -> None:
        assert self.core is not None
        epoch = self.core.broker_epoch
        try:
            self.machine.close_cleanly(epoch)
        except DiskFull:
            self._die()
            return
        except StorageFailed:
            self._fail_stop()
            return
        self.network.on_process_end(self, host_up=True)
        self.store.on_kill()
        self.machine.kill()
        self.core = None
        self.end_life()

    # --- turns ------------------------------------------------------------------------------------

    def _turn(self, handler: Callable[..., list[Effect]], *event: Any) -> None:
        assert self.core is not None
        core = self.core
        self.turns += 1
        core.wall_ahead_ms = self.wall_ahead_ms
        try:
            effects = handler(*event, self.now_ms)
        except RefusesToStart as error:
            self.refused = str(error)
            self._die()
            return
        except StorageFailed:
            self._fail_stop()
            return
        for effect in effects:
            self._perform(effect)
        if self.invariants is not None:
            self.invariants.after_broker_turn(self)
        if core.admitted and not self.is_registered:
            self._on_registered()
        if self.running and self.stopping and core.may_exit:
            self._exit()

    def _on_registered(self) -> None:
        try:
            self.store.registered()
            self.is_registered = True
        except DiskFull:
            pass  # the next turn tries again
        except StorageFailed:
            self._fail_stop()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Reply(request_id, response):
                self._reply(request_id, response)
            case Send(node_id, request):
                self._send(node_id, request)
            case Flush(partition, end_offset):
                self._flush(partition, end_offset)
            case GoOn():
                self.later(1, "go on", self._go_on)
            case SaveMetadata(copy):
                self.later(self.rng.randint(*self.disk_delay_ms), "metadata", lambda: self._save_metadata(copy))

    def _go_on(self) -> None:
        assert self.core is not None
        self._turn(self.core.go_on)

    def _save_metadata(self, copy: MetadataCopy) -> None:
        assert self.core is not None
        saved: MetadataCopy | None = copy
        try:
            self.store.save_metadata(copy)
        except DiskFull:
            saved = None
        except StorageFailed:
            self._fail_stop()
            return
        self._turn(self.core.on_metadata_saved, saved)

    def _reply(self, request_id: int, response: Message) -> None:
        inbound = self.requests.pop(request_id, None)
        if inbound is None:
            raise Violation("WaitersEndOnce", f"{self.name} answers request {request_id} again or unasked: {response}")
        if self.invariants is not None:
            self.invariants.on_broker_reply(self, inbound.request, response)
        self.network.reply(inbound, response)

    def _send(self, node_id: int, request: Message) -> None:
        assert self.core is not None
        core = self.core
        timeout_ms = self.settings.peer_timeout_ms
        if isinstance(request, ReplicaFetch):
            timeout_ms += request.max_wait_ms
        if isinstance(request, Heartbeat):
            timeout_ms += self.settings.heartbeat_interval_ms
        target = node_id
        if node_id == CONTROLLER_ID:
            target = self.controller_ids.get(core.controller_url, CONTROLLER_ID)
        else:
            assert node_id in core.image.brokers, f"{self.name} does not know {node_id}"

        def on_response(response: Response) -> None:
            if isinstance(response, ReplicaFetchReply):
                self.transits.add(self.world.now_ms, self.world.now_ms - call.answered_ms)
            self._turn(core.on_response, node_id, request, response)

        call = self.network.send(self, target, request, on_response, timeout_ms)

    def receive(self, inbound: Inbound) -> None:
        assert self.core is not None
        inbound.request_id, inbound.received_ms = self._next_request_id, self.now_ms
        self._next_request_id += 1
        self.requests[inbound.request_id] = inbound
        self._turn(self.core.on_request, inbound.request_id, inbound.request)

    def disconnected(self, inbound: Inbound) -> None:
        """The client is gone. What writes nothing is forgotten. A write goes on, and its answer
        finds nobody."""
        assert self.core is not None
        if inbound.request_id not in self.requests:
            return
        if isinstance(inbound.request, Fetch | ReplicaFetch | InitProducer):
            del self.requests[inbound.request_id]
        self._turn(self.core.on_disconnect, inbound.request_id)

    def _tick(self) -> None:
        assert self.core is not None
        self.later(self.tick_ms, "tick", self._tick)
        began = [flight.began_ms for flight in self._flights.values()]
        self.core.flush_age_ms = self.now_ms - min(began, default=self.now_ms)
        self._turn(self.core.tick)
        if self.invariants is not None:
            self.invariants.check_waiting(self.name, self.requests.values(), self.now_ms, OVERTIME_TICKS * self.tick_ms)

    def _checkpoint(self) -> None:
        try:
            self.store.checkpoint()
        except DiskFull:
            pass
        except StorageFailed:
            self._fail_stop()
            return
        self.later(self.settings.checkpoint_interval_ms, "checkpoint", self._checkpoint)

    # --- flushes ----------------------------------------------------------------------------------

    def _flush(self, partition: TopicPartition, end_offset: int) -> None:
        flight = self._flights.get(partition)
        if flight is not None:
            flight.wanted_end = max(flight.wanted_end, end_offset)
        else:
            self._start_flush(partition)

    def _start_flush(self, partition: TopicPartition) -> None:
        log = self.store.get(*partition)
        if log is None:
            self._flights.pop(partition, None)
            return
        flight = Flight(log, log.flush_job(), self.now_ms)
        self._flights[partition] = flight
        delay_ms = self.rng.randint(*self.disk_delay_ms)
        self.later(delay_ms, f"flushed {partition}", lambda: self._flushed(partition, flight))

    def _flushed(self, partition: TopicPartition, flight: Flight) -> None:
        assert self.core is not None
        try:
            flight.job.run()
        except StorageFailed:
            self._fail_stop()
            return
        flight.log.complete(flight.job)
        log = self.store.get(*partition)
        if log is not None and flight.wanted_end > log.durable_end:
            self._start_flush(partition)
        else:
            self._flights.pop(partition, None)
        self._turn(self.core.on_flushed, partition)

    @property
    def waiting_produces(self) -> int:
        return sum(1 for inbound in self.requests.values() if isinstance(inbound.request, Produce | InitProducer))
