"""Process: what every simulated node has in common: it lives, dies, is paused, and has a clock of
its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.nodes.world import Action, World

if TYPE_CHECKING:
    from tests.sim.nodes.network import Inbound

TICK_MS = 20
WALL_STEP_PAUSE_MS = (100, 3000)


class Process:
    """``life`` grows when the process starts and when it ends. What was meant for another life is
    dropped."""

    doubles = False
    """The network may deliver its requests twice although it is a client."""

    def __init__(self, world: World, node_id: int, name: str) -> None:
        self.world = world
        self.node_id, self.name = node_id, name
        self.running = False
        self.host_up = True
        self.paused = False
        self.life = 0
        self.tick_ms = TICK_MS
        self.clock_offset_ms = 0
        self.clock_drift = 0.0
        """Fraction by which this clock runs fast (or, negative, slow)."""
        self.wall_ahead_ms = 0
        """How far its wall clock is ahead of its monotonic one."""
        self.wall_step_max_ms = 0
        """From time to time the wall clock is set to anything within this of the monotonic one; 0:
        never."""
        self._wall_rng = world.rng(f"{name} wall clock")
        self.requests: dict[int, Inbound] = {}
        """Received and not answered yet, by the id the core knows them under."""
        self._backlog: list[tuple[int, Action]] = []

    @property
    def now_ms(self) -> int:
        """Monotonic, as minilog's clocks are, but neither right nor equally fast everywhere."""
        return self.world.now_ms + self.clock_offset_ms + int(self.world.now_ms * self.clock_drift)

    @property
    def wall_ms(self) -> int:
        """What is written down and what ages are measured by. It jumps, forward and back."""
        return max(0, self.now_ms + self.wall_ahead_ms)

    def set_wall_clock(self, ahead_ms: int) -> None:
        self.world.note(f"{self.name} has its wall clock set by {ahead_ms - self.wall_ahead_ms} ms")
        self.wall_ahead_ms = ahead_ms

    def _keep_setting_wall_clock(self) -> None:
        self.later(self._wall_rng.randint(*WALL_STEP_PAUSE_MS), "wall clock", self._step_wall_clock)

    def _step_wall_clock(self) -> None:
        self.set_wall_clock(self._wall_rng.randint(-self.wall_step_max_ms, self.wall_step_max_ms))
        self._keep_setting_wall_clock()

    def post(self, action: Action) -> None:
        """Do it now, or when a paused process goes on. Never in another life."""
        if self.paused:
            self._backlog.append((self.life, action))
        elif self.running:
            action()

    def later(self, delay_ms: int, label: str, action: Action) -> None:
        life = self.life

        def act() -> None:
            if self.life == life:
                self.post(action)

        self.world.after(delay_ms, f"{self.name} {label}", act)

    def pause(self) -> None:
        self.world.note(f"{self.name} is paused")
        self.paused = True

    def resume(self) -> None:
        """Everything that piled up is worked off in order, at this one moment."""
        self.world.note(f"{self.name} goes on")
        self.paused = False
        for inbound in self.requests.values():
            inbound.received_ms = self.now_ms  # nobody could have answered meanwhile
        backlog, self._backlog = self._backlog, []
        for life, action in backlog:
            if life == self.life and self.running:
                action()

    def begin_life(self) -> None:
        assert not self.running
        self.world.note(f"{self.name} starts")
        self.life += 1
        self.running = self.host_up = True
        if self.wall_step_max_ms:
            self._keep_setting_wall_clock()

    def end_life(self, *, host_up: bool = True) -> None:
        self.world.note(f"{self.name} ends" if host_up else f"{self.name} loses its machine")
        self.life += 1
        self.running = self.paused = False
        self.host_up = host_up
        self._backlog = []

    def receive(self, inbound: Inbound) -> None:
        raise AssertionError(f"{self.name} is a client: nobody sends it requests, not even {inbound.request}")

    def disconnected(self, inbound: Inbound) -> None:
        """The peer of an unanswered request is gone."""
