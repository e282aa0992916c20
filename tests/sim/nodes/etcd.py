"""A model of etcd, and the way to it.

Each transaction is carried out at one instant (it is linearizable). The way is not to be trusted:
requests come late, twice, and after their sender has given up. Answers are lost. A lease ends by
itself. What counts of the journal is told to the checker at the instant at which it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.transaction import Answer, Delete, Entry, Get, Put, Transaction
from minilog.wire.journal.metadata_records import AnyMetadataRecord, MetadataRecord
from tests.sim.nodes.process import Process
from tests.sim.nodes.world import Violation, World

_decode = msgspec.msgpack.Decoder(list[AnyMetadataRecord]).decode
encode = msgspec.msgpack.Encoder().encode

ETCD_ID = -100
"""Where links to it are cut."""


@dataclass
class EtcdWeather:
    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    late_ms: int = 3000
    delay_ms: int = 2


class SimEtcd:
    def __init__(self, world: World, places: Places, cuts: set[tuple[int, int]]) -> None:
        self.world, self.places, self.cuts = world, places, cuts
        self.weather = EtcdWeather()
        self.revision = 1
        self.is_up = True
        """Without its quorum it answers nobody, and carries nothing out."""
        self.lease_ms = 2000
        self.on_journalled: Callable[[int, list[MetadataRecord]], None] = lambda first, records: None
        self.records: list[bytes] = []
        """Every record that counts, in order."""
        self.timeout_ms = 300
        self.figures = {"transactions": 0, "doubled": 0, "unanswered": 0, "after their time": 0}
        self._keys: dict[str, Entry] = {}
        self._rng = world.rng("etcd")

    # --- the way to it ----------------------------------------------------------------------------

    def ask(self, process: Process, transaction: Transaction, on_answer: Callable[[Answer | None], None]) -> None:
        """``on_answer`` is called once: None when no answer came in time. Who has ended meanwhile, and
        was started again, has not asked."""
        done: list[bool] = []
        life = process.life

        def finish(answer: Answer | None) -> None:
            if not done:
                done.append(True)
                self.figures["unanswered"] += answer is None
                on_answer(answer)

        def arrive() -> None:
            if not self.is_up or self._is_cut(process, inward=True):
                return
            self.figures["after their time"] += bool(done)
            answer = self.run(transaction, process.name)
            if process.life == life and not self._is_lost(process, inward=False):
                process.later(self._delay_ms(), "etcd answers", lambda: finish(answer))

        copies = 2 if self._rng.random() < self.weather.twice else 1
        self.figures["doubled"] += copies - 1
        for _ in range(copies):
            if not self._is_lost(process, inward=True):
                self.world.after(self._delay_ms(), f"{process.name} > etcd", arrive)
        process.later(self.timeout_ms, "etcd is given up", lambda: finish(None))

    def _is_cut(self, process: Process, *, inward: bool) -> bool:
        way = (process.node_id, ETCD_ID) if inward else (ETCD_ID, process.node_id)
        return way in self.cuts

    def _is_lost(self, process: Process, *, inward: bool) -> bool:
        return self._is_cut(process, inward=inward) or self._rng.random() < self.weather.lost

    def _delay_ms(self) -> int:
        if self.weather.late and self._rng.random() < self.weather.late:
            return self._rng.randint(1, self.weather.late_ms)
        return self._rng.randint(0, self.weather.delay_ms)

    # --- what it does -----------------------------------------------------------------------------

    def read(self, transaction: Transaction) -> Answer:
        return self.run(transaction, "")

    def run(self, transaction: Transaction, by: str) -> Answer:
        assert transaction.is_within_limits, transaction
        self.figures["transactions"] += 1
        succeeded = all(self._mod(compare.key) == compare.mod for compare in transaction.compares)
        operations = transaction.then if succeeded else transaction.otherwise
        writes = [one for one in operations if not isinstance(one, Get)]
        if writes:
            self._check_writer(writes, by)
            self.revision += 1
        found = []
        for operation in operations:
            match operation:
                case Put(key, value, is_leased):
                    before = self._keys.get(key)
                    self._keys[key] = Entry(key, value, self.revision)
                    self._on_put(key, before)
                    if is_leased:
                        self._expire_later(key, self.revision)
                case Delete(key, end):
                    for gone in self._within(key, end):
                        del self._keys[gone]
                case Get(key, end, limit, _):
                    keys = self._within(key, end)
                    found.append([self._keys[one] for one in (keys[:limit] if limit else keys)])
        return Answer(succeeded, self.revision, found)

    @property
    def holder(self) -> str:
        """The process that holds the term."""
        entry = self._keys.get(self.places.term)
        return "" if entry is None else str(msgspec.json.decode(entry.value)["holder"])

    def _mod(self, key: str) -> int:
        entry = self._keys.get(key)
        return 0 if entry is None else entry.mod

    def _within(self, key: str, end: str) -> list[str]:
        if not end:
            return [key] if key in self._keys else []
        return sorted(one for one in self._keys if key <= one < end)

    def _expire_later(self, key: str, mod: int) -> None:
        def expire() -> None:
            if self._mod(key) == mod:
                self.revision += 1
                del self._keys[key]

        self.world.after(self.lease_ms, "a lease ends", expire)

    def _check_writer(self, writes: list[Put | Delete], by: str) -> None:
        """Whoever does not hold the term writes nothing but a term of his own."""
        if by != self.holder and [one for one in writes if one.key != self.places.term]:
            raise Violation("Fence", f"{by} writes {writes[0].key} while {self.holder} holds the term")

    def _on_put(self, key: str, before: Entry | None) -> None:
        if key != self.places.end:
            return
        start = 0 if before is None else int(before.value)
        end = int(self._keys[key].value)
        if start != len(self.records) or end <= start:
            raise Violation("OneJournal", f"the end moves from {start} to {end}, told are {len(self.records)} records")
        records: list[MetadataRecord] = []
        for frame in self._within(self.places.frame(start + 1), self.places.frame(end + 1)):
            if self.places.index_of(frame) != start + len(records) + 1:
                raise Violation("OneJournal", f"{frame} where record {start + len(records) + 1} is expected")
            records += _decode(self._keys[frame].value)
        if len(records) != end - start:
            raise Violation("OneJournal", f"{len(records)} records lie between {start} and {end}")
        self.records += [encode(record) for record in records]
        self.on_journalled(start + 1, records)
