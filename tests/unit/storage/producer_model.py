"""What a log knows of its producers, worked out from all of its batches by the plainest possible code.

The second version that storage/producers.py is compared with, also by the simulator (I32). It keeps the whole history
of each producer and looks at no window, run or order of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minilog.storage.producers import PRODUCERS_MAX, ProducerTable
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


Known = tuple[int, int, int, int, list[tuple[int, ...]]]
"""(producer id, epoch, records without a gap, seen at, the last batches)."""


class Model:
    def __init__(self, batches: Iterable[Numbered], expiration_ms: int = DAY_MS) -> None:
        self.time_ms = -1
        self.histories: dict[int, list[Numbered]] = {}
        """Of one epoch and without a gap, the longest silent producer first."""
        self._seen: dict[int, int] = {}
        for batch in batches:
            self._add(batch, expiration_ms)

    def _add(self, batch: Numbered, expiration_ms: int) -> None:
        latest = batch.timestamp if self.time_ms < 0 else min(batch.timestamp, self.time_ms + expiration_ms // 2)
        self.time_ms = max(self.time_ms, latest)
        for producer_id in [p for p, seen in self._seen.items() if seen < self.time_ms - expiration_ms]:
            del self.histories[producer_id], self._seen[producer_id]
        history = self.histories.pop(batch.producer_id, [])
        if history and (history[-1].epoch != batch.epoch or history[-1].next != batch.first):
            history = []
        self.histories[batch.producer_id] = [*history, batch]
        self._seen[batch.producer_id] = self.time_ms
        if len(self.histories) > PRODUCERS_MAX:
            oldest = next(iter(self.histories))
            del self.histories[oldest], self._seen[oldest]

    def known(self) -> list[Known]:
        return [
            (p, history[-1].epoch, sum(b.records for b in history), self._seen[p], [_written(b) for b in history[-5:]])
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


def of_table(table: ProducerTable) -> tuple[int, list[Known]]:
    """The state as ``Model`` gives it: (time, what is known)."""
    return table.time_ms, [
        (producer_id, p.epoch, p.run, p.seen_ms, [tuple(batch) for batch in p.batches])
        for producer_id, p in table.items()
    ]


def of_log(batches: Iterable[Batch], expiration_ms: int = DAY_MS) -> tuple[int, list[Known]]:
    """What a log of these batches must know."""
    model = Model([Numbered.of(batch) for batch in batches if batch.producer_id >= 0], expiration_ms)
    return model.time_ms, model.known()


def check_table(table: ProducerTable, batches: Iterable[Batch], *, whole: bool) -> str:
    """I32: what a log knows of its producers is a function of its batches; what is wrong with it, or nothing.

    Of a log that is not ``whole``, because its beginning has gone or it was cleaned, what is left must say the same of each
    producer's last batch.
    """
    truth, known = of_log(batches, table.expiration_ms), of_table(table)
    if whole:
        wrong = known != truth
    else:
        lasts = {producer_id: written[-1][:4] for producer_id, *_, written in known[1]}
        wrong = any(lasts.get(producer_id) != written[-1][:4] for producer_id, *_, written in truth[1])
    return f"producers {known}, its batches say {truth}" if wrong else ""
