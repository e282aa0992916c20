"""What bad bytes at the tail of a log mean.

Owns: the difference between a torn tail, which is cut, and corruption, which is marked and never
cut silently.

A place where the bytes are not what belongs there is *torn* when it lies at or after the recovery
point (the last durable end that was checkpointed) and a crash alone explains it:
* the file ends inside the batch, and not because of a length that is wrong: the write was under
  way;
* or the machine may have stopped too, and either nothing good follows (the last writes were not
  synced), or a whole sector in it reads as zeros (writes that were not synced reach the disk in any
  order, so later ones may be whole).
Everything else is *corruption*: the range is marked, reads of it raise CorruptRange, and the
replica is incomplete until the leader's copy has replaced it. The same holds when the file ends
before the recovery point, and of a batch that is whole in its place and does not fit the leader
epoch before it: no crash changes an epoch.

After a power cut that includes a changed bit in a last batch that was durable, behind the last
recovery point. It cannot be told from a write that was torn. So what does not look half-written
(``is_half_written``) goes to quarantine before it is cut.

Source: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018): telling
crash from corruption apart is what keeps a committed record from being dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from crc32c import crc32c

from minilog.errors import CorruptBatch, CorruptRange
from minilog.storage.segment.damage import Damage
from minilog.storage.segment.scan import LogBytes, is_whole
from minilog.storage.segment.segment import Segment
from minilog.wire.batch import CRC_START, HEADER_BYTES, peek

SECTOR_BYTES = 512


def first_torn(segment: Segment, damages: Sequence[Damage], recovery_point: int, power_loss: bool) -> Damage | None:
    """The damage at which the active segment is to be cut; None when all of it is corruption."""
    log = segment.log_bytes()
    for damage in damages:
        if damage.offset < recovery_point or is_whole(log, damage.position, damage.offset):
            continue
        if damage.end_offset is None and (power_loss or _ends_inside_batch(log, damage)):
            return damage
        if damage.end_offset is not None and power_loss and _has_lost_sector(log, damage):
            return damage
    return None


def is_half_written(segment: Segment, damage: Damage) -> bool:
    """A write that was under way shows in it, so nothing in it was durable."""
    log = segment.log_bytes()
    return _ends_inside_batch(log, damage) or _has_lost_sector(log, damage)


def _ends_inside_batch(log: LogBytes, damage: Damage) -> bool:
    left = log.size - damage.position
    if left < HEADER_BYTES:
        return True
    try:
        header = peek(log.pread(damage.position, HEADER_BYTES))
    except (CorruptBatch, CorruptRange):
        return False
    if header.base_offset != damage.offset or header.bytes_total <= left:
        return False
    return crc32c(log.pread(damage.position + CRC_START, left)) != header.crc  # whole but for its length field


def _has_lost_sector(log: LogBytes, damage: Damage) -> bool:
    """Some sector of the damage reads as zeros. Of the first one, what follows the last good batch
    does.

    Zeros that the header would begin with anyway are no evidence: losing them would have damaged
    nothing.
    """
    start = damage.position
    while start < damage.end_position:
        end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, log.size)
        try:
            is_zero = not any(log.pread(start, end - start))
        except CorruptRange:
            return False
        belongs = damage.offset.to_bytes(8, "big") + b"length" if start == damage.position else b"data"
        if is_zero and any(belongs[: end - start]):
            return True
        start = end
    return False
