"""What clients did and saw, one event a line: the format, the recorder that writes it, loading and
saving.

An operation is an ``invoke`` and, later, one completion: ``ok``, ``fail`` (proven not to have
happened) or ``info`` (unknown; also what an operation without completion counts as). When in doubt
``info``: it is always true.

| field | on | meaning |
|---|---|---|
| i, t_ns | all | order of the event, and the monotonic clock of the machine when it was recorded |
| process | all | one logical client. After an ``info`` a test goes on under a new name (``Recorder.process``) |
| f | all | send, poll, txn, assign, subscribe, crash; nemesis for what the test does to the cluster |
| value | all | send, poll, txn: a list of micro-ops; assign, subscribe: keys, or {key: start offset or null}; else free |
| err | completions | the error, its code first |
| op | completions | ``i`` of the invoke; may be absent while the process has one operation in flight |
| epoch | completions | leader epoch of the one key the operation touched, or {subject: epoch} ("controller", "broker 2") |
| node | completions | who answered |
| rebalanced | completions | keys whose assignment changed during the operation |
| hw | completions | {key: high watermark the reply showed, or null for "unknown"} |
| truncated | completions | {key: first lost offset}: what the consumer had read was cut off, and it was told (R23) |
| acks | invoke | acks level of the sends; absent: the level of ``Options`` |
| batch | invoke | the sends to each key travelled as one record batch: in a row, all or none |

Micro-ops. A value names its record and is unique in the whole history (``process.counter``). A key
is one partition; digest and leader epoch of a record are optional.
    invoke      ["send", key, value]   ["send", key, value, digest]            ["poll"]
    completion  ["send", key, [offset or null, value]]         ["poll", {key: [[offset, value, digest, epoch], ...]}]
A completion without a value repeats the invoke: nothing is known of its offsets, nothing was
polled.

A phase begins with {f: nemesis, type: info, value: ["phase", name]} and lasts to the next.
Source: Jepsen's histories and its Kafka workload.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from minilog.errors import MinilogError

Key = str
Value = str | int
Process = str | int
Type = Literal["invoke", "ok", "fail", "info"]
F = Literal["send", "poll", "txn", "assign", "subscribe", "crash", "nemesis"]
PolledRecord = Sequence[Any]
"""[offset, value], [offset, value, digest] or [offset, value, digest, leader epoch]."""

NEMESIS: Final = "nemesis"
PHASE: Final = "phase"


class MalformedHistory(ValueError):
    """The history breaks its own format, so no verdict about the system would mean anything."""


class Event(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    i: int
    t_ns: int
    process: Process
    type: Type
    f: F
    value: Any = None
    err: str | None = None
    op: int | None = None
    epoch: int | dict[str, int] | None = None
    node: str | int | None = None
    rebalanced: list[Key] | None = None
    hw: dict[Key, int | None] | None = None
    truncated: dict[Key, int] | None = None
    acks: str | int | None = None
    batch: bool = False


class Invoked:
    """An operation in flight, as ``Recorder.invoke`` returns it."""

    __slots__ = ("f", "i", "process", "value")

    def __init__(self, i: int, process: Process, f: F, value: Any) -> None:
        self.i, self.process, self.f, self.value = i, process, f, value


class Recorder:
    """Collects events in memory; safe from any number of threads and tasks, about a microsecond an
    event.

    A process may have several operations in flight (a pipelining producer): its sends count as
    issued in the order of their invokes. Invoke before the first byte leaves, complete after the
    answer is known."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._next = itertools.count().__next__
        self._lives = itertools.count().__next__
        self._now_ns = time.monotonic_ns

    def __len__(self) -> int:
        return len(self._events)

    def process(self, name: str) -> str:
        """A process name nobody had before; ask again after every ``info`` of a consumer or a
        discarded producer."""
        return f"{name}.{self._lives()}"

    def invoke(
        self, process: Process, f: F, value: Any = None, *, acks: str | int | None = None, batch: bool = False
    ) -> Invoked:
        i = self._next()
        self._events.append(Event(i, self._now_ns(), process, "invoke", f, value, acks=acks, batch=batch))
        return Invoked(i, process, f, value)

    def complete(self, op: Invoked, type: Type, value: Any = None, **fields: Any) -> None:
        """``fields``: err, epoch, node, rebalanced, hw, truncated."""
        self._events.append(Event(self._next(), self._now_ns(), op.process, type, op.f, value, op=op.i, **fields))

    def ok(self, op: Invoked, value: Any = None, **fields: Any) -> None:
        self.complete(op, "ok", value, **fields)

    def error(self, op: Invoked, error: BaseException, value: Any = None, **fields: Any) -> None:
        """``fail`` when the error proves that nothing happened, ``info`` for everything else."""
        definite = isinstance(error, MinilogError) and error.definite
        code = error.code if isinstance(error, MinilogError) else type(error).__name__
        self.complete(op, "fail" if definite else "info", value, err=f"{code}: {error}", **fields)

    # --- the usual operations ---------------------------------------------------------------------

    def invoke_send(
        self, process: Process, key: Key, value: Value, digest: str | None = None, **fields: Any
    ) -> Invoked:
        """One record. ``fields``: acks, batch."""
        return self.invoke(process, "send", [["send", key, value, digest]], **fields)

    def ok_send(self, op: Invoked, offset: int | None, **fields: Any) -> None:
        _, key, value, *_ = op.value[0]
        self.complete(op, "ok", [["send", key, [offset, value]]], **fields)

    def invoke_poll(self, process: Process) -> Invoked:
        return self.invoke(process, "poll", [["poll"]])

    def ok_poll(self, op: Invoked, records: Mapping[Key, Sequence[PolledRecord]], **fields: Any) -> None:
        self.complete(op, "ok", [["poll", records]], **fields)

    def assign(self, process: Process, keys: Sequence[Key] | Mapping[Key, int | None], f: F = "assign") -> None:
        """``process`` reads exactly ``keys`` from now on. With offsets it moves there, without it
        stays where it was."""
        self.complete(self.invoke(process, f, keys), "ok", keys)

    def phase(self, name: str) -> None:
        """What is invoked from now on belongs to phase ``name``. The last one is called "final"
        (see ``Options``)."""
        self.nemesis([PHASE, name])

    def nemesis(self, value: Any) -> None:
        self._events.append(Event(self._next(), self._now_ns(), NEMESIS, "info", "nemesis", value))

    def observe(self, node: str | int, epoch: Mapping[str, int]) -> None:
        """The epochs ``node`` just reported, by subject: {"controller": 3, "partition events-0":
        7}."""
        event = Event(self._next(), self._now_ns(), NEMESIS, "info", "nemesis", ["observe"])
        event.node, event.epoch = node, dict(epoch)
        self._events.append(event)

    # --- results ----------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """In order, plain JSON values only. Clients must be quiet."""
        return decode(encode(sorted(self._events, key=lambda event: event.i)))

    def save(self, path: Path) -> None:
        save(path, sorted(self._events, key=lambda event: event.i))


def digest(payload: bytes) -> str:
    """What ``bit-exactness`` compares: 64 bits of BLAKE2b, independent of the CRC the brokers
    use."""
    return hashlib.blake2b(payload, digest_size=8).hexdigest()


@contextmanager
def collector_off() -> Iterator[None]:
    """For steps that make hundreds of thousands of long-lived objects without cycles: collecting
    would find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(events: Iterable[Event]) -> bytes:
    return _encoder.encode_lines(events)


def decode(lines: bytes) -> list[Event]:
    """Raises MalformedHistory."""
    try:
        with collector_off():
            return _decoder.decode_lines(lines)
    except msgspec.MsgspecError as error:
        raise MalformedHistory(f"not a history: {error}; allowed is one event a line, see history_format.py") from error


def save(path: Path, events: Iterable[Event]) -> None:
    path.write_bytes(encode(events))


def load(path: Path) -> list[Event]:
    """Raises MalformedHistory, and OSError when it cannot be read."""
    return decode(path.read_bytes())
