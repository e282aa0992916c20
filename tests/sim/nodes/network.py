"""Network: requests and answers between simulated processes, as unreliable as the schedule wants
them.

A ``Call`` is one Send with exactly one outcome at its sender (an answer, or the error that stands
for none), as the real lanes give it, unless duplicated answers are switched on: then a late copy is
delivered too, and the core must ignore it. What the kernel does is done here as well: a dead
process refuses connections, a process that dies drops the ones it had, a machine that dies says
nothing, a cut link swallows everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.wire.messages import Message, decode, encode
from tests.sim.nodes.process import Process
from tests.sim.nodes.world import World

Response = Message | MinilogError
CLIENT_IDS = 1000
"""Node ids from here on are clients."""
OnResponse = Callable[[Response], None]


@dataclass
class Weather:
    """Probabilities per message, and delays in ms. All zero is a perfect network with a delay of 1
    ms."""

    lost: float = 0.0
    request_twice: float = 0.0
    answer_twice: float = 0.0
    late: float = 0.0
    """A message takes up to ``late_ms`` instead, and may overtake or be overtaken."""
    late_ms: int = 3000
    delay_ms: int = 1
    """Ordinary messages take 1 to this."""
    encoded: float = 1.0
    """How many messages really pass through the codec."""
    stragglers: float = 0.0
    """As ``late``, of the kinds named in ``straggling`` only, and somebody is told
    (``on_straggler``)."""
    straggler_ms: int = 1000
    straggling: tuple[str, ...] = ()


class Call:
    __slots__ = ("answered_ms", "done", "on_response", "request", "source", "source_life", "target")

    def __init__(self, source: Process, target: int, request: Message, on_response: OnResponse) -> None:
        self.source, self.source_life = source, source.life
        self.target = target
        self.request = request
        self.on_response = on_response
        self.done = False
        self.answered_ms = 0
        """When the first answer to it was given."""


class Inbound:
    """One delivery of a call: what the receiving process answers to."""

    __slots__ = ("call", "process", "received_ms", "request", "request_id")

    def __init__(self, call: Call, process: Process, request: Message) -> None:
        self.call, self.process, self.request = call, process, request
        self.request_id = 0
        self.received_ms = 0


class Held:
    """Messages a scenario holds back, or copies of them. ``release`` delivers them as late as it
    likes."""

    def __init__(self, world: World) -> None:
        self.messages: list[Message] = []
        self._world = world
        self._deliver: list[Callable[[], None]] = []

    def add(self, message: Message, deliver: Callable[[], None]) -> None:
        self.messages.append(message)
        self._deliver.append(deliver)

    def release(self) -> None:
        for deliver in self._deliver:
            self._world.after(1, "released", deliver)
        self._deliver = []


class Network:
    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.processes: dict[int, Process] = {}
        self.cuts: set[tuple[int, int]] = set()
        """(from, to): nothing passes in this direction."""
        self._watching: list[tuple[Callable[[Message], bool], bool, Held]] = []
        self._spoiling: list[Callable[[Message], Message | None]] = []
        self.figures = {"messages": 0, "lost": 0, "duplicated": 0, "stragglers": 0}
        self.on_straggler: Callable[[Message, Process, int], None] | None = None
        """Told of a message that will take long: what it says, who says it, how many ms."""
        self._rng: Random = world.rng("network")
        self._open: dict[Inbound, None] = {}

    def add(self, process: Process) -> None:
        self.processes[process.node_id] = process

    # --- links ------------------------------------------------------------------------------------

    def cut(self, source: int, target: int, *, both: bool = True) -> None:
        self.cuts.add((source, target))
        if both:
            self.cuts.add((target, source))

    def heal(self) -> None:
        self.cuts.clear()

    def isolate(self, node_id: int) -> None:
        for other in self.processes:
            if other != node_id:
                self.cut(node_id, other)

    def _delay(self, message: Response, sender: Process) -> int:
        weather = self.weather
        may_straggle = weather.stragglers > 0 and type(message).__name__ in weather.straggling
        if may_straggle and self._rng.random() < weather.stragglers:
            return self._straggle(message, sender)
        if weather.late and self._rng.random() < weather.late:
            return self._rng.randint(1, weather.late_ms)
        return 1 if weather.delay_ms <= 1 else self._rng.randint(1, weather.delay_ms)

    def _straggle(self, message: Response, sender: Process) -> int:
        delay_ms = self._rng.randint(1, self.weather.straggler_ms)
        self.figures["stragglers"] += 1
        if self.on_straggler is not None and isinstance(message, Message):
            self.on_straggler(message, sender, delay_ms)
        return delay_ms

    def _passes(self, source: int, target: int) -> bool:
        return (source, target) not in self.cuts

    def _is_lost(self, source: int, target: int) -> bool:
        lost = not self._passes(source, target) or (self.weather.lost > 0 and self._rng.random() < self.weather.lost)
        self.figures["lost"] += lost
        return lost

    # --- scenarios --------------------------------------------------------------------------------

    def hold(self, *kinds: type[Message], when: Callable[[Message], bool] = lambda _: True) -> Held:
        """From now on keep back every message of these kinds."""
        return self._watch(kinds, when, copies=False)

    def copy(self, *kinds: type[Message], when: Callable[[Message], bool] = lambda _: True) -> Held:
        """From now on keep a copy of every message of these kinds, which itself passes."""
        return self._watch(kinds, when, copies=True)

    def _watch(self, kinds: tuple[type[Message], ...], when: Callable[[Message], bool], *, copies: bool) -> Held:
        held = Held(self.world)
        self._watching.append((lambda message: isinstance(message, kinds) and when(message), copies, held))
        return held

    def spoil(self, change: Callable[[Message], Message | None]) -> None:
        """The next message for which ``change`` gives another one arrives as that one."""
        self._spoiling.append(change)

    def _spoilt(self, message: Message) -> Message:
        for change in self._spoiling:
            spoilt = change(message)
            if spoilt is not None:
                self._spoiling.remove(change)
                return spoilt
        return message

    def pass_all(self) -> None:
        """Hold and copy nothing any more. What is held stays so until it is released."""
        self._watching = []

    def _is_held(self, message: Response, deliver: Callable[[], None]) -> bool:
        held_back = False
        for matches, copies, held in self._watching:
            if isinstance(message, Message) and matches(message):
                held.add(message, deliver)
                held_back = held_back or not copies
        return held_back

    # --- requests ---------------------------------------------------------------------------------

    def send(self, source: Process, target: int, request: Message, on_response: OnResponse, timeout_ms: int) -> Call:
        call = Call(source, target, request, on_response)
        self.world.after(timeout_ms, "expire", lambda: self._expire(call))
        self._transmit(call)
        if self._doubles(self.weather.request_twice, source):
            self._transmit(call)
        return call

    def _doubles(self, probability: float, source: Process) -> bool:
        """Only of brokers and controller, and of clients whose requests do no harm twice."""
        may_double = source.node_id < CLIENT_IDS or source.doubles
        doubled = probability > 0 and may_double and self._rng.random() < probability
        self.figures["duplicated"] += doubled
        return doubled

    def _transmit(self, call: Call) -> None:
        self.figures["messages"] += 1
        request, source = call.request, call.source
        label = f"{source.name} > {self.processes[call.target].name} {type(request).__name__}"
        if self._is_lost(source.node_id, call.target):
            self.world.note(f"{label} is lost")
            return
        request = self._carried(request)
        if not self._is_held(request, lambda: self._arrive(call, request)):
            self.world.after(self._delay(request, source), label, lambda: self._arrive(call, request), request)

    def _carried(self, message: Message) -> Message:
        if self._spoiling:
            message = self._spoilt(message)
        if self.weather.encoded < 1 and self._rng.random() >= self.weather.encoded:
            return message
        return decode(encode(message))

    def _arrive(self, call: Call, request: Message) -> None:
        process = self.processes[call.target]
        if not self._passes(call.source.node_id, call.target) or not process.host_up:
            return
        if not process.running:
            refused = BrokerUnavailable(f"{process.name} refused the connection", definite=True, reason="refused")
            self._tell(call, refused, process)
            return
        inbound = Inbound(call, process, request)
        self._open[inbound] = None
        process.post(lambda: process.receive(inbound))

    # --- answers ----------------------------------------------------------------------------------

    def reply(self, inbound: Inbound, response: Message) -> None:
        inbound.call.answered_ms = inbound.call.answered_ms or self.world.now_ms
        self._open.pop(inbound, None)
        self._tell(inbound.call, response, inbound.process)
        if self._doubles(self.weather.answer_twice, inbound.call.source):
            self._tell(inbound.call, response, inbound.process, copy=True)

    def _tell(self, call: Call, response: Response, process: Process, *, copy: bool = False) -> None:
        source = call.source
        label = f"{process.name} > {source.name} {type(response).__name__}"
        if self._is_lost(process.node_id, source.node_id):
            self.world.note(f"{label} is lost")
            return
        if isinstance(response, Message):
            response = self._carried(response)
        if self._is_held(response, lambda: self._return(call, response, process, copy=True)):
            return
        delay_ms = self._delay(response, process)
        self.world.after(delay_ms, label, lambda: self._return(call, response, process, copy=copy), response)

    def _return(self, call: Call, response: Response, process: Process, *, copy: bool) -> None:
        if self._passes(process.node_id, call.source.node_id):
            self._finish(call, response, copy=copy)

    def _finish(self, call: Call, response: Response, *, copy: bool = False) -> None:
        if call.done and not copy:
            return
        call.done = True
        if call.source.life == call.source_life:
            call.source.post(lambda: call.on_response(response))

    def _expire(self, call: Call) -> None:
        """The sender gives up: its connection closes, and the receiver, if it can, learns of
        that."""
        if call.done:
            return
        target = self.processes[call.target]
        self.world.note(f"{call.source.name} gives up on {target.name} {type(call.request).__name__}", call.request)
        self._finish(call, TimedOut(f"no answer from {target.name} in time", reason="timeout"))
        for inbound in [i for i in self._open if i.call is call]:
            self._disconnect(inbound)

    def _disconnect(self, inbound: Inbound) -> None:
        process, source = inbound.process, inbound.call.source
        if self._passes(source.node_id, process.node_id) and process.running:
            del self._open[inbound]
            self.world.after(
                1,
                f"{source.name} closes on {process.name}",
                lambda: process.post(lambda: process.disconnected(inbound)),
            )

    def on_process_end(self, process: Process, *, host_up: bool) -> None:
        """Its connections break. With the whole machine gone nobody is told."""
        for inbound in [i for i in self._open if i.process is process]:
            del self._open[inbound]
            if host_up:
                reset = BrokerUnavailable(f"{process.name} closed the connection", reason="reset")
                self._tell(inbound.call, reset, process)
        if host_up:
            for inbound in [i for i in self._open if i.call.source is process]:
                inbound.call.done = True
                self._disconnect(inbound)
