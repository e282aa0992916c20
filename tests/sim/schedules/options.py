"""Options: one schedule's shape and fault rates, drawn from its seed (swarm testing).

Every rate is zero in a good part of the schedules: faults hide each other, and some bugs only show
when the rest of the world is calm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from minilog.config import DAY_MS, HOUR_MS
from tests.sim.nodes.clients import Load
from tests.sim.nodes.network import Weather


@dataclass(frozen=True)
class Options:
    """Rates are events per virtual second; durations are ms."""

    seed: int
    brokers: int
    topics: int
    partitions: int
    replicas: int
    min_isr: int
    flush_policy: str
    faults_ms: int
    session_timeout_ms: int
    replica_lag_max_ms: int
    peer_timeout_ms: int
    heartbeat_interval_ms: int
    replica_fetch_wait_ms: int
    snapshot_records: int
    disk_delay_max_ms: int
    journal_delay_max_ms: int
    clock_skew_ms: int
    clock_drift: float
    producers: int
    produce_interval_ms: int
    produce_timeout_ms: int
    inflight_max: int
    consumers: int
    lost: float
    request_twice: float
    answer_twice: float
    late: float
    late_ms: int
    delay_ms: int
    encoded: float
    kills: float
    crashes: float
    pauses: float
    stops: float
    kill_alls: float
    controller_kills: float
    controller_pauses: float
    dies_in_commit: float
    one_way_cuts: float
    isolations: float
    rings: float
    slow_disks: float
    full_disks: float
    failed_disks: float
    wipes: float
    topic_churn: float
    down_ms: int
    tick_ms: int
    numbered: bool
    """Producers number their batches."""
    segment_bytes: int
    retention_bytes: int
    """-1: nothing goes because of its size. With this or the next, segments are small."""
    retention_ms: int
    """-1: nothing goes because of its age."""
    segment_ms: int
    """-1: segments are sealed when they are full."""
    cleaning_check_ms: int
    value_bytes_max: int
    wall_step_max_ms: int
    """0: the wall clocks of the nodes go as their monotonic ones do."""
    recreations: float
    """A topic that is written to and read all the time is deleted, and made anew under its name."""
    stragglers: float
    """Probability that a message of the straggling kinds takes up to ``straggler_ms``."""
    straggler_ms: int
    straggling: tuple[str, ...]
    troubles: float
    """Probability that what a straggler speaks of ends while it is on its way: a topic, a process,
    a disk."""
    power_cuts: float
    """All machines at once. They are back soon."""
    election_timeout_ms: int
    trial: str
    """What is slow, busy or damaged when all else has healed (trials.py); "" for nothing."""
    history_age_ms: int
    """Producers that number find records of this age, loaded before they begin; 0: none."""
    wrong_clock_ms: int
    """How far the clock of one producer is ahead, then."""
    restores: float
    """A broker comes back with its disk as it was once: of this life or an earlier one, in this
    boot of its machine or another."""
    lost_logs: float
    """Somebody removes one log while its broker is away."""
    old_journals: float
    """Somebody starts a controller with an older copy of the journal."""
    controllers: int
    """More than one: around a journal in etcd."""
    etcd_outages: float
    etcd_cuts: float
    reader_lag_max_ms: int
    """What a consumer that reads from anybody accepts; -1: anything."""
    levers: float = 0.0
    """Operators change something (levers.py)."""
    moves: float = 0.0
    """Operators move replicas, and let moves go back."""

    @property
    def retains(self) -> bool:
        """Logs lose their beginnings."""
        return self.retention_bytes >= 0 or self.retention_ms >= 0

    @property
    def loads_history(self) -> bool:
        return self.numbered and self.history_age_ms > 0

    @property
    def losses_max(self) -> int:
        """How many machines may lose what they had promised to hold: one less than there are sure
        to be copies."""
        return self.min_isr - 1

    def weather(self) -> Weather:
        return Weather(
            self.lost,
            self.request_twice,
            self.answer_twice,
            self.late,
            self.late_ms,
            self.delay_ms,
            self.encoded,
            self.stragglers,
            self.straggler_ms,
            self.straggling,
        )

    def load(self) -> Load:
        load = Load(self.produce_interval_ms, self.inflight_max, ACKS, values_max=3, timeout_ms=self.produce_timeout_ms)
        return replace(load, value_bytes_max=self.value_bytes_max) if self.retains else load

    def topic_config(self) -> dict[str, str]:
        config = {"flush_policy": self.flush_policy, "flush_ms": "100", "segment_bytes": str(self.segment_bytes)}
        if self.wall_step_max_ms > HOUR_MS // 2:  # clocks may be so far apart that right times are refused
            config["message_timestamp_after_max_ms"] = str(4 * self.wall_step_max_ms)
        if self.retains:
            config |= {"segment_bytes": "4096", "retention_bytes": str(self.retention_bytes)}
            config |= {"retention_ms": str(self.retention_ms)}
        elif self.loads_history:
            config["retention_ms"] = "-1"  # or the default would take it
        if self.retains and self.segment_ms > 0:
            config["segment_ms"] = str(self.segment_ms)
        return config

    def timeouts(self) -> dict[str, int]:
        cleaning = {"retention_check_ms": self.cleaning_check_ms} if self.retains else {}
        if self.trial == "busy neighbour":
            cleaning = {"retention_check_ms": 100}
        balance = {"leader_balance_steady_ms": 500, "leader_balance_pause_ms": 1000} if self.levers else {}
        moving = {"move_bytes_per_second": (0, 0, 50_000)[self.seed % 3]} if self.moves else {}
        return (
            cleaning
            | balance
            | moving
            | {
                "session_timeout_ms": self.session_timeout_ms,
                "replica_lag_max_ms": self.replica_lag_max_ms,
                "peer_timeout_ms": self.peer_timeout_ms,
                "heartbeat_interval_ms": self.heartbeat_interval_ms,
                "replica_fetch_wait_ms": self.replica_fetch_wait_ms,
                "snapshot_records": self.snapshot_records,
                "shutdown_timeout_ms": 3000,
                "checkpoint_interval_ms": 700,
                "election_timeout_ms": self.election_timeout_ms,
            }
        )

    def lines(self) -> list[str]:
        return [f"{f.name} = {getattr(self, f.name)}" for f in fields(self)]


ACKS = (-1, -1, -1, 0, 1, 2)


def draw(seed: int) -> Options:
    rng = Random(f"{seed}/options")

    def sometimes(probability: float, low: float, high: float) -> float:
        """Zero, or a rate between low and high, small ones as likely as large ones."""
        value = low * (high / low) ** rng.random()
        return round(value, 4) if rng.random() < probability else 0.0

    replica_lag_max_ms = rng.choice((400, 1000, 4000))
    brokers = rng.choice((2, 3, 3, 3, 3, 4, 5))
    replicas = rng.randint(1, min(brokers, 3)) if rng.random() < 0.2 else min(brokers, 3)
    min_isr = rng.randint(1, replicas)
    flush_policy = "interval" if rng.random() < 0.15 else "commit"
    return Options(
        seed=seed,
        brokers=brokers,
        topics=rng.choice((1, 1, 2)),
        partitions=rng.choice((1, 1, 2, 3)),
        replicas=replicas,
        min_isr=min_isr,
        flush_policy=flush_policy,
        faults_ms=rng.choice((500, 1000, 2000, 4000, 8000)),
        session_timeout_ms=rng.choice((400, 800, 2000)),
        replica_lag_max_ms=replica_lag_max_ms,
        peer_timeout_ms=rng.choice((200, 500, 2000)),
        heartbeat_interval_ms=rng.choice((60, 200)),
        replica_fetch_wait_ms=min(rng.choice((50, 500)), replica_lag_max_ms // 4),
        snapshot_records=rng.choice((5, 50, 10_000)),
        disk_delay_max_ms=rng.choice((1, 5, 40)),
        journal_delay_max_ms=rng.choice((0, 2, 30)),
        clock_skew_ms=rng.choice((0, 0, 1000, 290_000)),
        clock_drift=rng.choice((0.0, 0.0, 0.05)),
        producers=rng.choice((1, 1, 2, 3)),
        produce_interval_ms=rng.choice((10, 40, 120)),
        produce_timeout_ms=rng.choice((200, 1000, 3000)),
        inflight_max=rng.choice((1, 1, 3)),
        consumers=rng.choice((0, 1, 2)),
        lost=sometimes(0.4, 0.005, 0.2),
        request_twice=sometimes(0.4, 0.01, 0.3),
        answer_twice=sometimes(0.4, 0.01, 0.3),
        late=sometimes(0.4, 0.003, 0.1),
        late_ms=rng.choice((100, 1000, 5000)),
        delay_ms=rng.choice((1, 3, 10, 50)),
        encoded=rng.choice((0.1, 1.0)),
        kills=sometimes(0.5, 0.05, 2.0),
        crashes=sometimes(0.4, 0.05, 1.0),
        pauses=sometimes(0.4, 0.05, 2.0),
        stops=sometimes(0.4, 0.05, 1.0),
        kill_alls=sometimes(0.15, 0.02, 0.3),
        controller_kills=sometimes(0.4, 0.05, 2.0),
        controller_pauses=sometimes(0.2, 0.05, 1.0),
        dies_in_commit=sometimes(0.3, 0.01, 0.3),
        one_way_cuts=sometimes(0.4, 0.05, 2.0),
        isolations=sometimes(0.4, 0.05, 1.0),
        rings=sometimes(0.2, 0.02, 0.3),
        slow_disks=sometimes(0.2, 0.05, 0.5),
        full_disks=sometimes(0.15, 0.05, 0.5),
        failed_disks=sometimes(0.15, 0.05, 0.5),
        wipes=sometimes(0.3, 0.05, 0.5),
        topic_churn=sometimes(0.2, 0.1, 1.0),
        down_ms=rng.choice((50, 500, 3000)),
        tick_ms=rng.choice((20, 50)),
        numbered=rng.random() < 0.5,
        segment_bytes=rng.choice((4096, 4096, 2**28)),
        **_draw_cleaning(seed),
        wall_step_max_ms=_draw_wall_steps(seed),
        **_draw_earlier_lives(seed),
        **_draw_trial(seed),
        **_draw_history(seed),
        **_draw_disks(seed),
        levers=_draw_levers(seed),
        moves=_draw_moves(seed),
        **_draw_controllers(seed),
    )


def _draw_wall_steps(seed: int) -> int:
    """From a generator of its own, as cleaning."""
    return Random(f"{seed}/wall clocks").choice((0, 0, 5000, 7_200_000))


def _draw_cleaning(seed: int) -> dict[str, Any]:
    """From a generator of its own: what was drawn for a seed before there was cleaning is drawn
    still."""
    rng = Random(f"{seed}/cleaning")
    retains = rng.random() < 0.25
    by_size, by_age = rng.choice(((True, False), (True, False), (True, True), (False, True)))
    retention_bytes = rng.choice((0, 6_000, 12_000, 30_000))
    retention_ms = rng.choice((100, 500, 2000))
    return {
        "retention_bytes": retention_bytes if retains and by_size else -1,
        "retention_ms": retention_ms if retains and by_age else -1,
        "segment_ms": rng.choice((-1, -1, 200, 1000)),
        "cleaning_check_ms": rng.choice((20, 100, 500)),
        "value_bytes_max": rng.choice((30, 300, 1500)),
    }


STRAGGLING = (
    ("ReplicaFetchReply",),
    ("ReplicaFetchReply",),
    ("PositionsReply",),
    ("PositionsReply",),
    ("AlterPartition",),
    ("ReplicaFetchReply", "PositionsReply", "HeartbeatReply", "AlterPartitionReply", "RegisterReply"),
    ("ReplicaFetch", "Heartbeat", "AlterPartition", "Register", "Positions"),
)
"""Of one kind, or all answers, or all requests."""


def _draw_earlier_lives(seed: int) -> dict[str, Any]:
    """Messages that outlive the topic and the process they speak of."""
    rng = Random(f"{seed}/earlier lives")
    recreates, straggles = rng.random() < 0.12, rng.random() < 0.3
    straggling = rng.choice(STRAGGLING)
    in_elections = straggles and "PositionsReply" in straggling
    is_rare = straggling in (("PositionsReply",), ("AlterPartition",))
    rate = 0.2 * 4 ** rng.random() if is_rare else 0.02 * 20 ** rng.random()
    power_cuts = round(0.3 * 6 ** rng.random(), 4) if rng.random() < 0.7 else 0.0
    return {
        "recreations": round(0.2 * 40 ** rng.random(), 4) if recreates else 0.0,
        "stragglers": round(rate, 4) if straggles else 0.0,
        "straggler_ms": rng.choice((100, 400, 2000)),
        "straggling": straggling if straggles else (),
        "troubles": rng.choice((0.0, 0.3, 0.8)),
        "power_cuts": power_cuts if in_elections else 0.0,
        "election_timeout_ms": rng.choice((300, 1000, 1000)) if straggles else 300,
    }


def _draw_trial(seed: int) -> dict[str, Any]:
    rng = Random(f"{seed}/trial")
    trial = rng.choice(("busy neighbour", "slow journal", "damage")) if rng.random() < 0.1 else ""
    if trial == "slow journal" and _draw_controllers(seed)["controllers"] > 1:
        trial = ""
    return {"trial": trial, "reader_lag_max_ms": rng.choice((-1, -1, 20, 200))}


def _draw_disks(seed: int) -> dict[str, Any]:
    """Disks and journals that are not what they were."""
    rng = Random(f"{seed}/disks")
    restores, lost_logs, old_journals = (rng.random() < part for part in (0.3, 0.15, 0.15))
    if _draw_controllers(seed)["controllers"] > 1:  # their journal is no file that one could copy
        old_journals = False
    return {
        "restores": round(0.1 * 8 ** rng.random(), 4) if restores else 0.0,
        "lost_logs": round(0.05 * 8 ** rng.random(), 4) if lost_logs else 0.0,
        "old_journals": round(0.1 * 8 ** rng.random(), 4) if old_journals else 0.0,
    }


def _draw_levers(seed: int) -> float:
    rng = Random(f"{seed}/levers")
    pulls = rng.random() < 0.3
    return round(0.3 * 20 ** rng.random(), 4) if pulls else 0.0


def _draw_moves(seed: int) -> float:
    rng = Random(f"{seed}/moves")
    moves = rng.random() < 0.35
    return round(0.3 * 20 ** rng.random(), 4) if moves else 0.0


def _draw_controllers(seed: int) -> dict[str, Any]:
    rng = Random(f"{seed}/controllers")
    several = rng.random() < 0.2
    outages, cuts = (rng.random() < 0.5 for _ in range(2))
    return {
        "controllers": rng.choice((2, 3, 3)) if several else 1,
        "etcd_outages": round(0.05 * 10 ** rng.random(), 4) if outages else 0.0,
        "etcd_cuts": round(0.05 * 20 ** rng.random(), 4) if cuts else 0.0,
    }


def _draw_history(seed: int) -> dict[str, Any]:
    """Records that are older than anything the brokers remember of producers, and clocks that are
    ahead."""
    rng = Random(f"{seed}/history")
    loads = rng.random() < 0.16
    age_ms = rng.choice((3 * DAY_MS, 3650 * DAY_MS))
    wrong_ms = rng.choice((0, 0, 3 * DAY_MS, 36_500 * DAY_MS))
    return {"history_age_ms": age_ms if loads else 0, "wrong_clock_ms": wrong_ms if loads else 0}
