"""What became of acknowledged records: the answer of POST /v1/receipts/check."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from minilog.wire.bounded import Count, Id

COMMITTED: Final = "committed"
AT_RISK: Final = "at_risk"
LOST: Final = "lost"
SUPERSEDED: Final = "superseded"
GONE: Final = "gone"
UNKNOWN: Final = "unknown"
STATUSES: Final = (COMMITTED, AT_RISK, SUPERSEDED, GONE, LOST, UNKNOWN)
RECEIPTS_MAX: Final = 1000


class ReceiptToCheck(Struct):
    """What a receipt says: records ``offset`` up to and without ``end_offset`` (one record without
    it) were written in leader epoch ``leader_epoch``. The rest of a receipt may be there, too."""

    topic: Annotated[str, Meta(min_length=1, max_length=249)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**63 - 2)]
    leader_epoch: Count
    end_offset: Count | None = None
    topic_id: Id = ""

    @property
    def last_offset(self) -> int:
        return self.offset if self.end_offset is None else self.end_offset - 1


class CheckedReceipt(Struct, frozen=True):
    """``status``: "committed", on every in-sync replica and readable. "at_risk", on the leader, and
    lost if that dies now. "superseded", committed, and compaction has since taken it for a later
    value of its key. "gone", by retention or with its topic. "lost", cut from the log, from
    ``lost_from`` on: `minilog lost list` shows where it is kept. "unknown": nobody could say just
    now, and ``sentence`` says why."""

    topic: str
    partition: int
    offset: int
    end_offset: int
    leader_epoch: int
    status: str
    sentence: str
    lost_from: int | None = None


class CheckedReceipts(Struct):
    """In the order of the receipts."""

    receipts: list[CheckedReceipt]
