"""Consumer groups in a schedule: members that come, go, crash and freeze while the cluster has its
own troubles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from minilog.wire.group_messages import GROUPS_TOPIC
from minilog.wire.messages import CreateTopic
from tests.sim.checks.group_watch import Part
from tests.sim.nodes.members import Habits, Member, Reader

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.schedules.options import Options

STEP_MS = 50


@dataclass(frozen=True)
class GroupOptions:
    """Rates are events per virtual second over all members."""

    groups: int
    members: int
    assignor: str
    pattern: str
    static_share: float
    session_timeout_ms: int
    poll_timeout_ms: int
    heartbeat_interval_ms: int
    work_ms: int
    crashes: float
    freezes: float
    leaves: float
    down_ms: int


def draw_groups(options: Options) -> GroupOptions:
    rng = Random(f"{options.seed}/groups")
    survives = options.losses_max < 2 or not (options.wipes or options.power_cuts)
    """The groups' topic has a min ISR of two, so it outlives the loss of one machine and no
    more."""
    active = rng.random() < 0.35 and survives

    def sometimes(probability: float, high: float) -> float:
        return round(rng.uniform(0.05, high), 3) if rng.random() < probability else 0.0

    return GroupOptions(
        groups=rng.choice((1, 1, 2)),
        members=rng.randint(1, 4) if active else 0,
        assignor=rng.choice(("sticky", "sticky", "range")),
        pattern=rng.choice(("", "", "t[0-9]+|churn.*", "[^_].*")),
        static_share=rng.choice((0.0, 0.0, 0.5, 1.0)),
        session_timeout_ms=rng.choice((1000, 2000, 4000)),
        poll_timeout_ms=rng.choice((500, 300_000)),
        heartbeat_interval_ms=rng.choice((100, 300, 1000)),
        work_ms=rng.choice((5, 100, 700)),
        crashes=sometimes(0.5, 0.6),
        freezes=sometimes(0.5, 0.6),
        leaves=sometimes(0.5, 0.6),
        down_ms=rng.choice((200, 1500, 6000)),
    )


class GroupLoad:
    def __init__(self, cluster: SimCluster, options: Options) -> None:
        self.cluster = cluster
        self.options = draw_groups(options)
        self.rng = cluster.world.rng("group load")
        self.clock_drift = options.clock_drift
        self.names: list[Part] = []
        self.members: list[Member] = []
        self.active = False
        self._kinds: list[tuple[str, float, Callable[[Member], None]]] = [
            ("member crashes", self.options.crashes, self._crash),
            ("members frozen", self.options.freezes, self._freeze),
            ("members left", self.options.leaves, self._leave),
        ]
        self.figures: Counter[str] = Counter()
        cluster.configure({"group_heartbeat_interval_ms": self.options.heartbeat_interval_ms})

    def begin(self, names: list[Part]) -> None:
        """All brokers are up, so the groups' topic gets the replicas it is meant to have."""
        self.names = names
        if not self.options.members:
            return
        cluster = self.cluster
        answered = len(cluster.admin.answers)
        cluster.admin.request(CreateTopic(GROUPS_TOPIC))
        cluster.until(lambda: len(cluster.admin.answers) > answered, "the groups' topic")
        cluster.watch.lasting = tuple({topic for topic, _ in names})
        for group in range(self.options.groups):
            for number in range(self.options.members):
                member = cluster.add_member(f"m{group}{number}", f"g{group}", self._habits())
                self.members.append(member)
                member.start()
        self.active = True
        self._step()

    def _habits(self) -> Habits:
        options = self.options
        return Habits(
            tuple(sorted({topic for topic, _ in self.names})),
            options.pattern,
            options.assignor,
            self.rng.random() < options.static_share,
            options.session_timeout_ms,
            options.poll_timeout_ms,
            0.9 - 2 * self.clock_drift,
            options.work_ms,
        )

    # --- faults -----------------------------------------------------------------------------------

    def _step(self) -> None:
        if not self.active:
            return
        for name, rate, act in self._kinds:
            if rate and self.rng.random() < rate * STEP_MS / 1000:
                self.figures[name] += 1
                act(self.rng.choice(self.members))
        self.cluster.world.after(STEP_MS, "group faults", self._step)

    def _later(self, act: Callable[[], None]) -> None:
        delay_ms = self.rng.randint(1, self.options.down_ms)
        self.cluster.world.after(delay_ms, "member again", lambda: act() if self.active else None)

    def _crash(self, member: Member) -> None:
        member.kill()
        self._later(member.start_again)

    def _freeze(self, member: Member) -> None:
        if member.running and not member.paused:
            member.pause()
            self._later(member.go_on)

    def _leave(self, member: Member) -> None:
        member.leave()
        self._later(member.start_again)

    # --- the end ----------------------------------------------------------------------------------

    def heal(self) -> None:
        self.active = False
        for member in self.members:
            member.go_on()
            member.start_again()

    def settle(self, within_ms: int) -> None:
        """Every rebalance ends: all partitions are owned, each by one, and what the members think
        is what is so."""
        if self.members:
            self.cluster.until(self._is_settled, "groups settle", within_ms)
            self._check_offsets(within_ms)

    def _is_settled(self) -> bool:
        for group in {m.group: None for m in self.members}:
            members = [m for m in self.members if m.group == group]
            if any(m.pending or m.giving_back or not m.is_in for m in members):
                return False
            if len({m.epoch for m in members}) > 1 or members[0].epoch == 0:
                return False
            for name in self.names:
                if len(self.cluster.watch.holders(group, name)) != 1:
                    return False
        return True

    def _check_offsets(self, within_ms: int) -> None:
        """Ask once more for everything that was committed."""
        cluster = self.cluster
        for member in self.members:
            member.is_in = False
        cluster.run(2000)
        for group in {member.group: None for member in self.members}:
            reader: Reader = cluster.add_reader(f"reader of {group}", group)
            begun_ms = cluster.world.now_ms
            reader.begin()
            cluster.until(lambda reader=reader: reader.offsets is not None, f"the offsets of {group}", within_ms)  # type: ignore[misc]
            assert reader.offsets is not None
            for name in self.names:
                cluster.watch.on_read(group, name, reader.offsets.get(name), begun_ms)
