"""What a log knows of its producers, worked out from all of its batches by the plainest possible
code.

The second version that storage/log/producers.py is compared with, also by the simulator (R32). It
keeps the whole history of each producer and looks at no window, run or order of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minilog.storage.log import producers
from minilog.storage.log.producers import ProducerTable
from minilog.wire.batch import Batch

DAY_MS = 86_400_000
MODULUS = 2**31


class Numbered(NamedTuple):
    """What the header of a numbered batch says."""

    producer_id: int
    epoch: int
    first: int
    records: int
    base_offset: int
    leader_epoch: int
    crc: int
    timestamp: int

    @classmethod
    def of(cls, batch: Batch) -> Numbered:
        records = batch.end_offset - batch.base_offset
        place = batch.base_offset, batch.leader_epoch, batch.crc, batch.max_timestamp
        return cls(batch.producer_id, batch.producer_epoch, batch.base_sequence, records, *place)

    @property
    def next(self) -> int:
        return (self.first + self.records) % MODULUS


Known = tuple[int, int, int, list[tuple[int, ...]]]
"""(producer id, epoch, records without a gap, the last batches)."""


class Model:
    def __init__(self, batches: Iterable[Numbered], expiration_ms: int = DAY_MS) -> None:
        self.histories: dict[int, list[Numbered]] = {}
        """Of one epoch and without a gap, the longest silent producer first."""
        for batch in batches:
            self._add(batch, expiration_ms)

    def _add(self, batch: Numbered, expiration_ms: int) -> None:
        is_new = batch.producer_id not in self.histories
        history = self.histories.pop(batch.producer_id, [])
        if history and (history[-1].epoch != batch.epoch or history[-1].next != batch.first):
            history = []
        self.histories[batch.producer_id] = [*history, batch]
        if is_new:
            for producer_id in list(self.histories)[: self._too_many(expiration_ms)]:
                del self.histories[producer_id]

    def _too_many(self, expiration_ms: int) -> int:
        """Of the longest silent producers."""
        count, at_once = len(self.histories), producers.FORGOTTEN_AT_ONCE
        if count > producers.PRODUCERS_MAX:
            return 1
        if count < producers.PRODUCERS_KEPT + at_once or count % (at_once // 2):
            return 0
        times = [history[-1].timestamp for history in self.histories.values()]
        middle, witnesses = producers.WITNESSES // 2, producers.WITNESSES
        age_ms = sorted(times[-witnesses:])[middle] - sorted(times[:witnesses])[middle]
        return at_once if age_ms > expiration_ms else 0

    def known(self) -> list[Known]:
        return [
            (p, history[-1].epoch, sum(b.records for b in history), [_written(b) for b in history[-5:]])
            for p, history in self.histories.items()
        ]

    def judge(self, batch: Numbered) -> str | int:
        """ "new", the base offset of the first copy, or what is wrong."""
        history = self.histories.get(batch.producer_id)
        if history is None:
            return "new"
        epoch = history[-1].epoch
        if batch.epoch != epoch:
            return "fenced" if batch.epoch < epoch else "new" if batch.first == 0 else "out of order"
        if batch.first == history[-1].next:
            return "new"
        places, place = [], 0
        for written in history:
            places.append(place)
            place += written.records
        at = (batch.first - history[0].first + MODULUS // 2) % MODULUS - MODULUS // 2
        for position, written in list(zip(places, history, strict=True))[-5:]:
            if (position, written.records) == (at, batch.records):
                return written.base_offset
        is_old = at >= 0 and at + batch.records <= places[-5:][0]
        return "duplicate" if is_old else "out of order"


def _written(batch: Numbered) -> tuple[int, ...]:
    last = (batch.next - 1) % MODULUS
    end_offset = batch.base_offset + batch.records
    return batch.first, last, batch.base_offset, end_offset, batch.leader_epoch, batch.crc, batch.timestamp


def of_table(table: ProducerTable) -> list[Known]:
    """The state as ``Model`` gives it."""
    return [(producer_id, p.epoch, p.run, [tuple(batch) for batch in p.batches]) for producer_id, p in table.items()]


def of_log(batches: Iterable[Batch], expiration_ms: int = DAY_MS) -> list[Known]:
    """What a log of these batches must know."""
    model = Model([Numbered.of(batch) for batch in batches if batch.producer_id >= 0], expiration_ms)
    return model.known()


def check_table(table: ProducerTable, batches: Iterable[Batch], *, whole: bool) -> str:
    """R32: what a log knows of its producers is a function of its batches. What is wrong with it,
    or nothing.

    Of a log that is not ``whole``, because its beginning has gone or it was cleaned, what is left
    must say the same of each producer's last batch.
    """
    truth, known = of_log(batches, table.expiration_ms), of_table(table)
    if whole:
        wrong = known != truth
    else:
        lasts = {producer_id: written[-1][:4] for producer_id, *_, written in known}
        wrong = any(lasts.get(producer_id) != written[-1][:4] for producer_id, *_, written in truth)
    return f"producers {known}, its batches say {truth}" if wrong else ""
