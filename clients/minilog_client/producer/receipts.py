"""What a producer gets for its records."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from minilog.errors import InvalidRequest, MinilogError
from minilog.wire.json.receipt_answers import ReceiptToCheck
from minilog.wire.messages import ProduceResult
from minilog_client.settings import Acks
from minilog_client.values import counted


class Receipt(NamedTuple):
    """Proof of one acknowledged record.

    ``offset``, ``timestamp`` and ``leader_epoch`` are None with acks=0, where nothing is known.
    ``replicas`` is the ISR when the record was committed, empty when the broker did not say."""

    topic: str
    partition: int
    offset: int | None
    timestamp: int | None
    leader_epoch: int | None
    acks: Acks
    replicas: tuple[int, ...]
    duplicate: bool


class BatchReceipt(NamedTuple):
    """The same for ``record_count`` records in a row, from ``base_offset`` up to and without
    ``end_offset``."""

    topic: str
    partition: int
    base_offset: int | None
    end_offset: int | None
    record_count: int
    timestamp: int | None
    leader_epoch: int | None
    acks: Acks
    replicas: tuple[int, ...]
    duplicate: bool

    def receipt(self, index: int = 0) -> Receipt:
        """The receipt of record ``index`` of these."""
        if not 0 <= index < self.record_count:
            raise InvalidRequest(
                f"index is {index}; the batch has {counted(self.record_count, 'record')}, counted from 0"
            )
        offset = None if self.base_offset is None else self.base_offset + index
        return Receipt(
            self.topic, self.partition, offset, self.timestamp, self.leader_epoch, self.acks, self.replicas,
            self.duplicate,
        )  # fmt: skip


def to_check(receipt: Receipt | BatchReceipt) -> ReceiptToCheck:
    """Raises InvalidRequest."""
    if isinstance(receipt, Receipt):
        first, end = receipt.offset, None
    else:
        first, end = receipt.base_offset, receipt.end_offset
    if first is None or receipt.leader_epoch is None:
        raise InvalidRequest(
            f"a receipt of {receipt.topic}-{receipt.partition} was given with acks=0, which promises nothing"
        )
    return ReceiptToCheck(receipt.topic, receipt.partition, first, receipt.leader_epoch, end)


def batch_receipt(result: ProduceResult, start: int, record_count: int, acks: Acks) -> BatchReceipt:
    """Records ``start`` up to ``start + record_count`` of what ``result`` acknowledges."""
    base = None if result.base_offset is None else result.base_offset + start
    return BatchReceipt(
        result.topic,
        result.partition,
        base,
        None if base is None else base + record_count,
        record_count,
        result.timestamp,
        result.leader_epoch,
        acks,
        tuple(result.isr),
        result.duplicate,
    )


class ManyCall:
    """Gathers the outcomes of one ``send_many``."""

    __slots__ = ("_accepted", "_error", "_failed", "_indefinite", "_receipts", "_sealed", "_settled", "outcome")

    def __init__(self, outcome: asyncio.Future[list[BatchReceipt]]) -> None:
        self.outcome = outcome
        self._receipts: list[BatchReceipt] = []
        self._accepted = self._settled = self._failed = 0
        self._error: MinilogError | None = None
        self._indefinite = False
        self._sealed = False

    def accept(self, count: int) -> None:
        self._accepted += count

    def succeed(self, receipt: BatchReceipt) -> None:
        self._receipts.append(receipt)
        self._settled += receipt.record_count
        self._maybe_finish()

    def fail(self, count: int, error: MinilogError) -> None:
        self._failed += count
        self._settled += count
        self._error = self._error or error
        self._indefinite |= not error.definite
        self._maybe_finish()

    def refuse(self, total: int, error: MinilogError) -> None:
        """What was not accepted yet never will be."""
        missing = total - self._accepted
        self.accept(missing)
        self.fail(missing, error)

    def seal(self) -> None:
        self._sealed = True
        self._maybe_finish()

    def _maybe_finish(self) -> None:
        if not self._sealed or self._settled < self._accepted or self.outcome.done():
            return
        self._receipts.sort(key=lambda receipt: (receipt.partition, receipt.base_offset or 0))
        if self._error is None:
            self.outcome.set_result(self._receipts)
            return
        first = self._error
        error = type(first)(
            f"{self._failed} of {counted(self._accepted, 'record')} {'was' if self._failed == 1 else 'were'} not acknowledged; "
            f"the first because {first.detail}",
            definite=not self._indefinite and not self._receipts,
        )
        error.info.update(
            first.info,
            records_failed=self._failed,
            records_acknowledged=self._accepted - self._failed,
            receipts=[receipt._asdict() for receipt in self._receipts],
        )
        self.outcome.set_exception(error)
