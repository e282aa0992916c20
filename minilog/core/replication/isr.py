"""The arithmetic that decides what is committed and who is in sync: pure functions, one rule each.

Positions are end offsets a replica is known to hold (durably, under flush.policy commit), learnt in
the current leader epoch; None means "not heard from in this epoch". Source: KIP-497 (maximal ISR),
KIP-966.
"""

from __future__ import annotations

from collections.abc import Iterable


def committed_end(positions: Iterable[int | None]) -> int | None:
    """The end below which every replica of the maximal ISR holds everything (R8, R13); None if one
    is unheard of.

    The caller passes the positions of the union of committed and proposed ISR, its own included.
    """
    end: int | None = None
    for position in positions:
        if position is None:
            return None
        end = position if end is None or position < end else end
    return end


def copies_end(positions: Iterable[int | None], copies: int) -> int:
    """The end below which at least ``copies`` of the replicas hold everything (acks=N, R9); 0 when
    too few are known."""
    assert copies >= 1
    known = sorted((p for p in positions if p is not None), reverse=True)
    return known[copies - 1] if len(known) >= copies else 0


def is_lagging(caught_up_ms: int, now_ms: int, replica_lag_max_ms: int) -> bool:
    """R19: has not held the leader's whole log at any moment of the last ``replica_lag_max_ms``."""
    return now_ms - caught_up_ms > replica_lag_max_ms


def may_join(position: int | None, high_watermark: int, leader_start_offset: int) -> bool:
    """R18: holds everything committed so far and everything this leader started its epoch with."""
    return position is not None and position >= high_watermark and position >= leader_start_offset
