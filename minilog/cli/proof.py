"""The proof that nothing was lost: from what was sent, what was acknowledged, what was read, and
the disks.

Arithmetic over plain values, but for ``read_back``, which reads a topic to its end, and
``compare_replicas``, which reads the segment files of stopped brokers. Used by the demo and by the
benchmark of failovers.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minilog.cli.api import Api
from minilog.cli.output import CliError
from minilog_client import AsyncClient

PREFIX = b'{"id":'
SETTLE_TIMEOUT_S = 30.0
UNACKNOWLEDGED = -1
_BATCH_HEAD = struct.Struct(">qi")
_BATCH_HEAD_BYTES = 12
_READ_BYTES = 1 << 20


class Ledger:
    """What the producer knows of each id: where it was acknowledged, and a checksum of what was
    sent.

    Ids count up from 0 in the order of sending."""

    def __init__(self) -> None:
        self.partitions = array("h")
        self.offsets = array("q")
        self.checksums = array("I")
        self.acknowledged = 0

    @property
    def sent(self) -> int:
        return len(self.offsets)

    def on_sent(self, value: bytes) -> int:
        """The id of the record, which must be the one inside ``value``."""
        self.partitions.append(-1)
        self.offsets.append(UNACKNOWLEDGED)
        self.checksums.append(zlib.crc32(value))
        return len(self.offsets) - 1

    def on_acknowledged(self, id: int, partition: int, offset: int) -> None:
        self.partitions[id] = partition
        self.offsets[id] = offset
        self.acknowledged += 1


@dataclass
class Proof:
    """Counts of records. ``ok`` is the claim: nothing acknowledged is lost, doubled, misplaced,
    changed or out of order."""

    sent: int = 0
    acknowledged: int = 0
    read: int = 0
    lost: int = 0
    misplaced: int = 0
    changed: int = 0
    unknown: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    gaps: int = 0
    replicas_compared: int = 0
    replica_bytes: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def unacknowledged(self) -> int:
        return self.sent - self.acknowledged

    @property
    def ok(self) -> bool:
        wrong = (
            self.lost + self.misplaced + self.changed + self.unknown + self.out_of_order + self.gaps + self.duplicates
        )
        return wrong == 0 and self.acknowledged > 0 and self.replicas_compared > 0 and not self.differing


class ReadBack:
    """Judges records as they are read, one partition after the other or mixed, each partition in
    offset order."""

    def __init__(self, ledger: Ledger) -> None:
        self.proof = Proof(sent=ledger.sent, acknowledged=ledger.acknowledged)
        self._ledger = ledger
        self._seen = bytearray(ledger.sent)
        self._confirmed = bytearray(ledger.sent)
        self._newest: dict[int, int] = {}
        self._next_offset: dict[int, int] = {}

    def on_record(self, partition: int, offset: int, id: int, value: bytes) -> None:
        proof, ledger = self.proof, self._ledger
        proof.read += 1
        proof.gaps += offset != self._next_offset.get(partition, 0)
        self._next_offset[partition] = offset + 1
        if not 0 <= id < ledger.sent:
            proof.unknown += 1
            return
        proof.changed += zlib.crc32(value) != ledger.checksums[id]
        if self._seen[id]:
            proof.duplicates += 1
        elif id < self._newest.get(partition, -1):
            proof.out_of_order += 1
        else:
            self._newest[partition] = id
        self._seen[id] = 1
        if ledger.offsets[id] == offset and ledger.partitions[id] == partition:
            self._confirmed[id] = 1

    def finish(self) -> Proof:
        """Every acknowledged id must have been read, and at the very offset the receipt named."""
        for id, offset in enumerate(self._ledger.offsets):
            if offset != UNACKNOWLEDGED and not self._confirmed[id]:
                if self._seen[id]:
                    self.proof.misplaced += 1
                else:
                    self.proof.lost += 1
        return self.proof


def compare_replicas(proof: Proof, folders: list[Path], topic: str, ends: Mapping[int, int]) -> None:
    """Add to ``proof`` whether each partition's bytes, up to its end offset, are the same on every
    broker.

    ``folders`` are the brokers' data folders. The brokers must have stopped."""
    for partition, end_offset in sorted(ends.items()):
        digests = {}
        for folder in folders:
            digest, size = replica_digest(folder / f"{topic}-{partition}", end_offset)
            digests[folder.name] = digest
            proof.replica_bytes += size
            proof.replicas_compared += 1
        if len(set(digests.values())) > 1:
            proof.differing.append(f"{topic}-{partition}: {', '.join(f'{k} {v[:12]}' for k, v in digests.items())}")


def replica_digest(folder: Path, end_offset: int) -> tuple[str, int]:
    """(SHA-256, bytes) of all batches below ``end_offset``, whatever segments they lie in."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(folder.glob("*.log")):
        for batch in batches_below(path, end_offset):
            digest.update(batch)
            size += len(batch)
    return digest.hexdigest(), size


def batches_below(path: Path, end_offset: int) -> Iterator[bytes]:
    """Whole batches of one segment file; stops at the first that begins at or after
    ``end_offset``."""
    with path.open("rb", buffering=_READ_BYTES) as file:
        while len(head := file.read(_BATCH_HEAD_BYTES)) == _BATCH_HEAD_BYTES:
            base_offset, length = _BATCH_HEAD.unpack(head)
            if base_offset >= end_offset or length <= 0:
                return
            yield head + file.read(length)


def wrap(number: int, event: bytes) -> bytes:
    return b'{"id":%d,"event":%b}' % (number, event)


def id_of(value: bytes) -> int:
    """The number of a wrapped event. Raises ValueError on anything else."""
    if not value.startswith(PREFIX):
        raise ValueError(f"not a numbered record: {value[:60]!r}")
    return int(value[len(PREFIX) : value.index(b",")])


async def read_back(client: AsyncClient, api: Api, topic: str, partitions: int, judge: ReadBack) -> dict[int, int]:
    """Show ``judge`` every record from the first offset to the high watermarks, which are returned
    by partition.

    Raises CliError when nothing comes any more before the end is reached."""
    ends = {part: await asyncio.to_thread(api.end_offset, topic, part) for part in range(partitions)}
    left = {part: end for part, end in ends.items() if end > 0}
    last_s = time.monotonic()
    async with client.consumer(topic, start="earliest") as consumer:
        while left:
            records = await consumer.batch(max_records=10_000, max_wait_ms=1000)
            for record in records:
                judge.on_record(record.partition, record.offset, _id_or_unknown(record.value), record.value or b"")
            for part in {record.partition for record in records}:
                if (consumer.position(topic, part) or 0) >= ends[part]:
                    left.pop(part, None)
            if records:
                last_s = time.monotonic()
            elif time.monotonic() - last_s > SETTLE_TIMEOUT_S:
                raise CliError(f"nothing could be read for {SETTLE_TIMEOUT_S:.0f} s before the end of {sorted(left)}")
    return ends


def _id_or_unknown(value: bytes | None) -> int:
    try:
        return id_of(value or b"")
    except ValueError:
        return -1
