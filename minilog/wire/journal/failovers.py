"""A failover: the loss of a broker as a timeline, from its last sign of life to the last in-sync
replica that is back."""

from __future__ import annotations

import msgspec

from minilog.wire.bounded import BrokerId, Count, Few, Int64, Milliseconds, Name, Text


class FailoverInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times are ms since 1970, all by the controller's wall clock as it stood when the failover
    began. None: not yet; or, when the controller that saw the beginning is not the one there is
    now (``controller_epoch``), not known.

    ``number`` names it, and grows from one to the next. ``kind``: refused, replaced, timeout,
    shutdown. ``partitions``: so many the broker led, and ``names`` are the first of them.
    ``elected_ms``: all of these had a leader. ``served_ms``: every one of the new leaders knew of
    it, and took writes. ``published_ms``: every live broker knew. ``first_write_ms``: the first
    write that a new leader acknowledged. ``first_writes``: the same of each of ``names``, as ms
    since ``last_heard_ms``: for so long at most it could not be written, and longer only where
    nobody tried. ``restored_ms``: the broker, or whoever has its id by now, was in sync again
    wherever it has a replica. ``records_cut``: of unknown origin, with acks=0, acks=1 and more,
    which were cut from its logs since. ``is_heard``: that controller had heard the broker. Else it
    was lost before the controller began, and ``last_heard_ms`` is when that began to wait for it:
    whatever is counted from there took longer."""

    broker_id: BrokerId
    broker_epoch: Int64
    kind: Name
    last_heard_ms: Milliseconds
    detected_ms: Milliseconds
    fenced_ms: Milliseconds
    partitions: Int64
    elected_ms: Milliseconds | None = None
    published_ms: Milliseconds | None = None
    served_ms: Milliseconds | None = None
    first_write_ms: Milliseconds | None = None
    restored_ms: Milliseconds | None = None
    number: Count = 0
    controller_epoch: Int64 = 0
    names: Few[Text] = []
    records_cut: tuple[Count, Count, Count, Count] = (0, 0, 0, 0)
    first_writes: Few[tuple[Text, Milliseconds]] = []
    is_heard: bool = True
