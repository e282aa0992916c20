from __future__ import annotations

import random
import time

import pytest
from crc32c import crc32c

from minilog.errors import CorruptRange
from minilog.storage.segment.checksums import STEP_BYTES, Checksums
from minilog.storage.segment.scan import BadBatch, LogBytes, next_batch
from minilog.wire.batch import HEADER_BYTES
from tests.unit.storage.batches import make
from tests.unit.storage.memory_disk import MemoryDisk

CONTENT = random.Random(1).randbytes(5 * STEP_BYTES + 77)


def pread(position: int, size: int) -> bytes:
    return CONTENT[position : position + size]


@pytest.mark.parametrize("first", [0, 1, 61, STEP_BYTES, STEP_BYTES + 3])
def test_every_stretch_has_the_checksum_of_its_bytes(first: int) -> None:
    rng = random.Random(first)
    checksums = Checksums(pread, first)
    borders = [first + step * STEP_BYTES for step in range(5)]
    places = sorted(
        {*borders, *(border + 1 for border in borders), *(rng.randrange(first, len(CONTENT)) for _ in range(30))}
    )
    for start in places:
        for end in (*places, len(CONTENT)):
            if first <= start <= end <= len(CONTENT):
                assert checksums.of(start, end) == crc32c(CONTENT[start:end])


def test_what_cannot_be_read_costs_only_the_stretches_that_hold_it() -> None:
    bad = STEP_BYTES + 5

    def with_a_hole(position: int, size: int) -> bytes:
        if position <= bad < position + size:
            raise CorruptRange("Input/output error")
        return pread(position, size)

    checksums = Checksums(with_a_hole, 0)
    end = 4 * STEP_BYTES + 9
    assert checksums.of(bad + 1, end) == crc32c(CONTENT[bad + 1 : end])
    assert checksums.of(3, bad) == crc32c(CONTENT[3:bad])
    with pytest.raises(CorruptRange):
        checksums.of(3, end)


def header(offset: int, bytes_total: int) -> bytes:
    """What looks like the first bytes of a batch of that size."""
    fake = bytearray(make(offset, 1).tobytes()[:HEADER_BYTES])
    fake[8:12] = (bytes_total - 12).to_bytes(4, "big")
    return bytes(fake)


def test_headers_in_the_records_cost_no_more_than_their_number() -> None:
    """Each says that its batch reaches to the end of what is left. Behind them the log goes on."""
    count = 20_000
    size = count * HEADER_BYTES
    fakes = b"".join(header(1 + n, size - n * HEADER_BYTES) for n in range(count))
    last = make(count + 1, 1).tobytes()
    disk = MemoryDisk()
    handle = disk.create("/x")
    disk.append(handle, 0, [b"?" * 100, fakes, last])
    log = LogBytes(disk, handle, 100 + size + len(last))
    before = time.process_time()
    found = next_batch(log, BadBatch(0, 0, "test"), 1)
    assert found is not None
    assert (found.position, found.batch.base_offset) == (100 + size, count + 1)
    assert time.process_time() - before < 10, "it took minutes"
