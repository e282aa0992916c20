"""ControllerNode: the shell around a real ControllerCore, as minilog/controller/runtime.py is
around its own.

Events are queued and carried out one after the other: decide, make the records durable (which takes
time), replay each, perform the effects, ask ``on_committed``, until there are no more records. The
controller can be made to die between any two of these steps: records may be durable although nobody
was ever told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from minilog.config import ControllerSettings
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.decision import Decision
from minilog.core.effects import CONTROLLER_ID, Flush, Reply, Send
from minilog.errors import RefusesToStart
from minilog.wire.journal.metadata_records import AnyMetadataRecord, MetadataRecord
from minilog.wire.messages import Heartbeat, Message, Positions, PositionsReply, Probe
from tests.sim.nodes.network import Inbound, Network, Response
from tests.sim.nodes.process import Process
from tests.sim.nodes.world import Violation, World

if TYPE_CHECKING:
    from tests.sim.checks.invariants import Invariants

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AnyMetadataRecord]).decode


OVERTIME_MS = 6000
"""Longest that anybody waits here: a registration for the session of the process before it, and the
queue."""


class SimJournal:
    """What survives the controller's processes: a snapshot and the frames after it, as bytes."""

    def __init__(self) -> None:
        self.snapshot_index = 0
        self.last_index = 0
        self._snapshot = _encode([])
        self._frames: list[bytes] = []

    @property
    def tail_records(self) -> int:
        return self.last_index - self.snapshot_index

    def append(self, records: list[MetadataRecord]) -> None:
        self._frames.append(_encode(records))
        self.last_index += len(records)

    def snapshot(self, index: int, records: list[MetadataRecord]) -> None:
        assert index == self.last_index
        self.snapshot_index, self._snapshot, self._frames = index, _encode(records), []

    def replayed(self) -> tuple[list[MetadataRecord], list[MetadataRecord]]:
        """(snapshot, tail) as fresh values."""
        return list(_decode(self._snapshot)), [record for frame in self._frames for record in _decode(frame)]


class ControllerNode(Process):
    def __init__(self, world: World, network: Network) -> None:
        super().__init__(world, CONTROLLER_ID, "ctl")
        self.network = network
        self.rng = world.rng("ctl")
        self.settings = ControllerSettings(data_dir="/ctl")
        self.journal = SimJournal()
        self.journal_delay_ms = (0, 2)
        self.dies_in_commit = 0.0
        """Probability per journal append that the process dies just before or just after it became
        durable."""
        self.refused = ""
        """Why the last process refused to go on."""
        self.core: ControllerCore | None = None
        self.invariants: Invariants | None = None
        self.figures = {"kills": 0, "pauses": 0, "decisions": 0, "deaths_in_commit": 0}
        self._next_request_id = 1
        self._queue: deque[tuple[Callable[..., Decision], tuple[Any, ...], int]] = deque()
        self._busy = False
        self._tick_queued = False

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.running:
            return
        self.begin_life()
        self.refused = ""
        self.requests, self._queue = {}, deque()
        self._busy = self._tick_queued = False
        core = self.core = ControllerCore(self.settings, self.rng)
        if self.invariants is not None:
            self.invariants.ballots.on_controller_started()
        snapshot, tail = self.journal.replayed()
        if snapshot:
            core.load(self.journal.snapshot_index, snapshot)
        for index, record in enumerate(tail, self.journal.snapshot_index + 1):
            core.replay(index, record)
        self._begin_term(core)
        if self.running:
            self.later(self.rng.randint(0, self.tick_ms), "tick", self._tick)

    def _begin_term(self, core: ControllerCore) -> None:
        """As the real one, it does not listen before its own start is durable."""
        decision = core.start(self.now_ms)
        self._busy = True
        self._commit(decision)

    def kill(self) -> None:
        if self.running:
            self.figures["kills"] += 1
            self._end()

    crash = kill

    def _end(self) -> None:
        self.network.on_process_end(self, host_up=True)
        self.core = None
        self.end_life()

    def pause(self) -> None:
        if self.running and not self.paused:
            self.figures["pauses"] += 1
            super().pause()

    @property
    def is_idle(self) -> bool:
        """Nothing to write, and nothing waiting to be looked at."""
        return self.running and not self.paused and not self._busy and not self._queue

    # --- events -----------------------------------------------------------------------------------

    def receive(self, inbound: Inbound) -> None:
        assert self.core is not None
        inbound.request_id, inbound.received_ms = self._next_request_id, self.now_ms
        self._next_request_id += 1
        self.requests[inbound.request_id] = inbound
        if self.invariants is not None:
            self.invariants.ballots.on_received(inbound.request)
        self._put(self.core.handle, inbound.request_id, inbound.request)

    def disconnected(self, inbound: Inbound) -> None:
        assert self.core is not None
        if self.requests.pop(inbound.request_id, None) is not None:
            self._put(self.core.on_disconnect, inbound.request_id)

    def _tick(self) -> None:
        assert self.core is not None
        self.later(self.tick_ms, "tick", self._tick)
        if self.invariants is not None:
            self.invariants.check_waiting(self.name, self.requests.values(), self.now_ms, OVERTIME_MS)
        if not self._tick_queued:
            self._tick_queued = True
            self._put(self.core.tick)

    def _put(self, handler: Callable[..., Decision], *arguments: Any) -> None:
        self._queue.append((handler, arguments, self.now_ms))
        if not self._busy:
            self._work()

    def _work(self) -> None:
        while self._queue and not self._busy and self.running:
            handler, arguments, received_ms = self._queue.popleft()
            if self.core is not None and handler == self.core.tick:
                self._tick_queued = False
            assert self.core is not None
            if handler == self.core.handle and self._is_abandoned(*arguments):
                continue
            self.core.wall_ahead_ms = self.wall_ahead_ms
            try:
                decision = handler(*arguments, received_ms)
            except RefusesToStart as error:
                self.refused = str(error)
                self._end()
                return
            self._carry_out(decision)

    def _is_abandoned(self, request_id: int, request: Message) -> bool:
        return request_id not in self.requests and not isinstance(request, Heartbeat)

    def _carry_out(self, decision: Decision) -> None:
        if decision.records:
            self._busy = True
            delay_ms = self.rng.randint(*self.journal_delay_ms)
            self.later(delay_ms, "durable", lambda: self._commit(decision))
            return
        self._perform(decision)
        self._busy = False
        self._snapshot()

    def _commit(self, decision: Decision) -> None:
        assert self.core is not None
        dies = self.dies_in_commit > 0 and self.rng.random() < self.dies_in_commit
        if dies and self.rng.random() < 0.5:
            self._die_in_commit()
            return
        first = self.core.metadata_offset + 1
        self.journal.append(decision.records)
        if self.invariants is not None:
            self.invariants.on_journalled(first, decision.records)
        if dies:
            self._die_in_commit()
            return
        self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        """What is durable is replayed, and then told."""
        assert self.core is not None
        self.figures["decisions"] += 1
        first = self.core.metadata_offset + 1
        for index, record in enumerate(decision.records, first):
            self.core.replay(index, record)
        self.core.image.check_invariants()
        self._perform(decision)
        self._carry_out(self.core.on_committed(self.now_ms))
        self._work()

    def _die_in_commit(self) -> None:
        self.figures["deaths_in_commit"] += 1
        self.kill()

    def _snapshot(self) -> None:
        assert self.core is not None
        if self.journal.tail_records > self.settings.snapshot_records:
            self.journal.snapshot(self.core.metadata_offset, self.core.snapshot())

    def _perform(self, decision: Decision) -> None:
        for effect in decision.effects:
            match effect:
                case Reply(request_id, response):
                    self._reply(request_id, response)
                case Send(node_id, request):
                    self._send(node_id, request)
                case Flush():
                    raise Violation("Effects", "a controller has no partitions to flush")

    def _reply(self, request_id: int, response: Message) -> None:
        inbound = self.requests.pop(request_id, None)
        if self.invariants is not None:
            self.invariants.on_controller_reply(request_id, response)
        if inbound is not None:
            self.network.reply(inbound, response)

    def _send(self, node_id: int, request: Message) -> None:
        assert self.core is not None
        core, ballots = self.core, None if self.invariants is None else self.invariants.ballots
        if ballots is not None and isinstance(request, Positions):
            ballots.on_asked(node_id, request)

        def on_response(response: Response) -> None:
            if ballots is not None and isinstance(request, Positions) and isinstance(response, PositionsReply):
                ballots.on_answered(node_id, request, response)
            self._put(core.on_response, node_id, request, response)

        timeout_ms = self.settings.peer_timeout_ms
        if isinstance(request, Probe):
            timeout_ms //= 2
        self.network.send(self, node_id, request, on_response, timeout_ms)
