"""Clean histories: a model of a correct cluster, driven in random order, recorded as clients would
have seen it.

The model is a list of records per key. What makes histories hard to judge is in them: pipelined
producers, operations whose outcome nobody knows and that take effect long after, refused ones,
partial ones, batches, weakly acknowledged records that vanish, failed polls that showed records,
seeks, rebalances with re-reading, epochs that go up, replies without a high watermark. ``check``
must find no violation in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tests.process.checker.anomalies_brokers import AckTrace, Replica
from tests.process.checker.history_format import NEMESIS, PHASE, Event, F, Key, Process, Type, Value, digest

POLL_RECORDS_MAX = 12


@dataclass(frozen=True)
class Shape:
    """How much happens. ``steps`` single moves (begin, take effect, end) before the final read."""

    keys: int = 3
    producers: int = 3
    weak_producers: int = 1
    consumers: int = 2
    subscribers: int = 2
    steps: int = 500
    pipeline: int = 3
    sends_max: int = 4
    info_share: float = 0.05
    fail_share: float = 0.05


class Stored(NamedTuple):
    value: Value
    digest: str
    epoch: int


@dataclass
class Clean:
    """A history and what the brokers would hand in beside it."""

    events: list[Event]
    logs: dict[Key, list[Stored]]
    replicas: dict[Key, dict[int | str, Replica]] = field(default_factory=dict)
    acks: list[AckTrace] = field(default_factory=list)


@dataclass
class _Flight:
    """A send operation in flight. ``places`` holds the offsets of the sends that took effect."""

    process: Process
    i: int
    sends: list[tuple[Key, Value]]
    batch: bool
    weak: bool
    places: list[tuple[int, int]] = field(default_factory=list)  # (offset, epoch)

    @property
    def applied(self) -> bool:
        return len(self.places) == len(self.sends)


class Model:
    """The cluster and its clock. ``emit`` writes the history."""

    def __init__(self, random: Random, shape: Shape) -> None:
        self.random, self.shape = random, shape
        self.keys = [f"events-{n}" for n in range(shape.keys)]
        self.logs: dict[Key, list[Stored]] = {key: [] for key in self.keys}
        self.epochs = dict.fromkeys(self.keys, 1)
        self.controller_epoch = 1
        self.events: list[Event] = []
        self.acks: list[AckTrace] = []
        self.ghosts: list[_Flight] = []
        self._t_ns = 1_000_000
        self._lives = 0

    def emit(self, process: Process, type: Type, f: F, value: Any = None, **fields: Any) -> int:
        self._t_ns += self.random.randrange(1_000, 2_000_000)
        self.events.append(Event(len(self.events), self._t_ns, process, type, f, value, **fields))
        return len(self.events) - 1

    def life(self, name: str) -> str:
        self._lives += 1
        return f"{name}.{self._lives}"

    def append(self, key: Key, value: Value) -> tuple[int, int]:
        self.logs[key].append(Stored(value, digest(str(value).encode()), self.epochs[key]))
        return len(self.logs[key]) - 1, self.epochs[key]

    def apply(self, flight: _Flight) -> None:
        """The next send of a flight takes effect. All of a batch at once."""
        while not flight.applied:
            flight.places.append(self.append(*flight.sends[len(flight.places)]))
            if not flight.batch:
                break

    def records(self, key: Key, start: int, count: int) -> list[list[Any]]:
        return [[start + n, *stored] for n, stored in enumerate(self.logs[key][start : start + count])]

    def move_ghosts(self) -> None:
        """A discarded client's request arrives after all, in order, or is gone."""
        if self.ghosts:
            flight = self.ghosts[0]
            if self.random.random() < 0.5:
                self.apply(flight)
            if flight.applied or self.random.random() < 0.3:
                self.ghosts.pop(0)

    def change_epochs(self) -> None:
        key = self.random.choice(self.keys)
        self.epochs[key] += 1
        self.controller_epoch += self.random.random() < 0.2
        epoch = {"controller": self.controller_epoch, f"partition {key}": self.epochs[key]}
        self.emit(NEMESIS, "info", "nemesis", ["observe"], node=self.random.randrange(3), epoch=epoch)


class _Producer:
    def __init__(self, model: Model, weak: bool) -> None:
        self.model, self.weak = model, weak
        self.process = model.life("producer")
        self.count = 0
        self.flights: list[_Flight] = []

    def step(self) -> None:
        random, shape = self.model.random, self.model.shape
        moves = ["apply"] * 3 + ["complete"] * 3
        if len(self.flights) < shape.pipeline:
            moves += ["invoke"] * 3
        move = random.choice(moves)
        if move == "invoke":
            self._invoke()
        elif move == "apply":
            waiting = [flight for flight in self.flights if not flight.applied]
            if waiting and self.weak and random.random() < 0.1:
                self._lose(waiting[0])
            elif waiting:
                self.model.apply(waiting[0])
        elif self.flights:
            self._complete(random.choice(self.flights))

    def _invoke(self) -> None:
        random, model = self.model.random, self.model
        batch = random.random() < 0.3
        sends: list[tuple[Key, Value]] = []
        key = random.choice(model.keys)
        for _ in range(random.randint(1, model.shape.sends_max)):
            if not batch and random.random() < 0.3:
                key = random.choice(model.keys)
            self.count += 1
            sends.append((key, f"{self.process}:{self.count}"))
        value = [["send", k, v, digest(v.encode())] for k, v in sends]  # type: ignore[union-attr]
        acks = 1 if self.weak else None
        i = model.emit(self.process, "invoke", "send", value, batch=batch, acks=acks)
        self.flights.append(_Flight(self.process, i, sends, batch, self.weak))

    def _complete(self, flight: _Flight) -> None:
        random, shape = self.model.random, self.model.shape
        dice = random.random()
        if dice < shape.info_share:
            self._discard()
        elif flight.applied:
            self._ok(flight)
        elif not flight.places and dice < shape.info_share + shape.fail_share:
            self.flights.remove(flight)
            self.model.emit(self.process, "fail", "send", op=flight.i, err="NOT_LEADER: moved")

    def _ok(self, flight: _Flight) -> None:
        self.flights.remove(flight)
        value = _sent(flight, len(flight.sends))
        epochs = {key: place[1] for (key, _), place in zip(flight.sends, flight.places, strict=True)}
        self.model.emit(self.process, "ok", "send", value, op=flight.i, epoch=epochs, node=f"node {flight.i % 3}")
        if not flight.weak:
            for (key, _), (offset, epoch) in zip(flight.sends, flight.places, strict=True):
                hw = offset + 1 + self.model.random.randrange(3)
                self.model.acks.append(AckTrace(key, offset, hw, epoch, epoch))

    def _lose(self, flight: _Flight) -> None:
        """Acknowledged by the leader alone, which then died: the offset is given to somebody
        else."""
        self.flights.remove(flight)
        value = [["send", key, [len(self.model.logs[key]), value]] for key, value in flight.sends]
        self.model.emit(self.process, "ok", "send", value, op=flight.i)

    def _discard(self) -> None:
        """The client gives up all it had in flight and comes back under another name."""
        for flight in self.flights:
            known = 0 if flight.batch else self.model.random.randint(0, len(flight.places))
            value = _sent(flight, known) if known else None
            self.model.emit(self.process, "info", "send", value, op=flight.i, err="REQUEST_TIMED_OUT: no answer")
        self.model.ghosts += [flight for flight in self.flights if not flight.applied]
        self.flights = []
        self.process = self.model.life("producer")

    def finish(self) -> None:
        for flight in list(self.flights):
            if flight.applied:
                self._ok(flight)
        self._discard()


def _sent(flight: _Flight, known: int) -> list[Any]:
    places: list[int | None] = [offset for offset, _ in flight.places[:known]]
    places += [None] * (len(flight.sends) - known)
    return [["send", key, [place, value]] for (key, value), place in zip(flight.sends, places, strict=True)]


class _Consumer:
    """Reads what it assigned itself, from where it moved to."""

    def __init__(self, model: Model, name: str = "consumer") -> None:
        self.model = model
        self.process = model.life(name)
        self.positions: dict[Key, int] = {}
        self.polling: int | None = None

    def assign(self, keys: Sequence[Key], starts: dict[Key, int]) -> None:
        seeks = {key: starts.get(key, None if key in self.positions else 0) for key in keys}
        self.positions = {key: self.positions.get(key, 0) if at is None else at for key, at in seeks.items()}
        i = self.model.emit(self.process, "invoke", "assign", seeks)
        self.model.emit(self.process, "ok", "assign", seeks, op=i)

    def step(self) -> None:
        random = self.model.random
        if self.polling is not None:
            self._complete(self.polling)
        elif not self.positions or random.random() < 0.05:
            keys = random.sample(self.model.keys, random.randint(1, len(self.model.keys)))
            starts = {key: random.randint(0, len(self.model.logs[key])) for key in keys if random.random() < 0.2}
            self.assign(keys, starts)
        else:
            self.polling = self.model.emit(self.process, "invoke", "poll", [["poll"]])

    def _complete(self, i: int) -> None:
        random, model = self.model.random, self.model
        self.polling = None
        count = random.randint(1, POLL_RECORDS_MAX)
        polled = {key: model.records(key, at, count) for key, at in self.positions.items()}
        dice = random.random()
        if dice < model.shape.info_share + model.shape.fail_share:
            shown = [["poll", polled]] if random.random() < 0.5 else None
            kind: Type = "info" if dice < model.shape.info_share else "fail"
            model.emit(self.process, kind, "poll", shown, op=i, err="BROKER_UNAVAILABLE: broke off")
            return
        for key, records in polled.items():
            self.positions[key] += len(records)
        hw = {key: len(model.logs[key]) if random.random() < 0.8 else None for key in self.positions}
        epoch = {key: model.epochs[key] for key in self.positions}
        model.emit(self.process, "ok", "poll", [["poll", polled]], op=i, hw=hw, epoch=epoch)

    def read_everything(self) -> None:
        self.assign(self.model.keys, dict.fromkeys(self.model.keys, 0))
        while any(position < len(self.model.logs[key]) for key, position in self.positions.items()):
            self._complete(self.model.emit(self.process, "invoke", "poll", [["poll"]]))

    def finish(self) -> None:
        if self.polling is not None:
            self._complete(self.polling)


class _Group:
    """Subscribed consumers. A rebalance in the middle of a poll moves keys, and reading begins at
    what was committed."""

    def __init__(self, model: Model, size: int) -> None:
        self.model = model
        self.members = [model.life("member") for _ in range(size)]
        self.committed = dict.fromkeys(model.keys, 0)
        self.owner: dict[Key, str] = {}
        self.rebalanced: dict[str, set[Key]] = {member: set() for member in self.members}
        self.polling: dict[str, int] = {}
        for member in self.members:
            i = model.emit(member, "invoke", "subscribe", model.keys)
            model.emit(member, "ok", "subscribe", model.keys, op=i)

    def step(self) -> None:
        random, model = self.model.random, self.model
        member = random.choice(self.members)
        if random.random() < 0.1 or not self.owner:
            self._rebalance()
        elif member in self.polling:
            self._complete(member)
        else:
            self.polling[member] = model.emit(member, "invoke", "poll", [["poll"]])

    def _rebalance(self) -> None:
        for key in self.model.keys:
            member = self.model.random.choice(self.members)
            for affected in {member, self.owner.get(key, member)}:
                self.rebalanced[affected].add(key)
            self.owner[key] = member
            if self.model.random.random() < 0.3:
                self.committed[key] = max(0, self.committed[key] - 3)  # the last commit did not arrive

    def _complete(self, member: str) -> None:
        mine = [key for key, owner in self.owner.items() if owner == member]
        polled = {key: self.model.records(key, self.committed[key], POLL_RECORDS_MAX) for key in mine}
        for key, records in polled.items():
            self.committed[key] += len(records)
        moved = sorted(self.rebalanced[member])
        self.rebalanced[member] = set()
        self.model.emit(
            member, "ok", "poll", [["poll", polled]], op=self.polling.pop(member), rebalanced=moved or None
        )  # fmt: skip

    def finish(self) -> None:
        for member in list(self.polling):
            self._complete(member)


def generate(seed: int, shape: Shape | None = None) -> Clean:
    """The same seed and shape give the same history."""
    shape = shape or Shape()
    model = Model(Random(seed), shape)
    model.emit(NEMESIS, "info", "nemesis", [PHASE, "load"])
    actors: list[Any] = [_Producer(model, weak=False) for _ in range(shape.producers)]
    actors += [_Producer(model, weak=True) for _ in range(shape.weak_producers)]
    actors += [_Consumer(model) for _ in range(shape.consumers)]
    if shape.subscribers:
        actors.append(_Group(model, shape.subscribers))
    for step in range(shape.steps):
        model.random.choice(actors).step()
        if model.random.random() < 0.1:
            model.move_ghosts()
        if model.random.random() < 0.02:
            model.change_epochs()
        if step == shape.steps // 2:
            model.emit(NEMESIS, "info", "nemesis", [PHASE, "more load"])
    for actor in actors:
        actor.finish()
    while model.ghosts:
        model.move_ghosts()
    model.emit(NEMESIS, "info", "nemesis", [PHASE, "final"])
    _Consumer(model, "reader").read_everything()
    return Clean(model.events, model.logs, _replicas(model), model.acks)


def _replicas(model: Model) -> dict[Key, dict[int | str, Replica]]:
    found: dict[Key, dict[int | str, Replica]] = {}
    for key, log in model.logs.items():
        records = {offset: (stored.epoch, stored.digest) for offset, stored in enumerate(log)}
        found[key] = {node: Replica(max(0, len(log) - lag), dict(records)) for node, lag in ((1, 0), (2, 0), (3, 2))}
    return found
