"""Pages of compressed batches: bounded by what the records are, not by what they were compressed
to, and made off the loop."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from minilog.broker.http import partition_reader
from minilog.broker.http.record_page import PAGE_BYTES_MIN, Page, Wanted, is_compressed, page_of
from minilog.config import MIB, Limits
from minilog.errors import CorruptBatch, InvalidRequest
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.codec import HEADERS_MAX, varint
from minilog.wire.compression import ZSTD, compress
from minilog.wire.http import EVENTS
from minilog.wire.records import Record, SealedBatch
from tests.unit.broker.http.harness import Broker, Connection, fill, open_tail, orders, with_broker
from tests.unit.wire.batches import encode_batch

P0 = "/v1/topics/orders/partitions/0/records"
CODECS = ["gzip", "snappy", "lz4", "zstd"]
WANTED = Wanted(None, "json", "json", PAGE_BYTES_MIN, 16 * MIB)


def batch(values: list[bytes], compression: str = "none", base_offset: int = 0) -> Batch:
    (made,) = split(encode_batch([Record(0, 1000, None, value) for value in values], compression=compression), 2**31)
    return stamp(made, base_offset, 3, 0)


def pages(batches: memoryview, wanted: Wanted) -> list[list[int]]:
    """The offsets of each page, until there is nothing more."""
    found: list[list[int]] = []
    offset = 0
    while True:
        page = page_of(batches, offset, -1, wanted)
        if not page.offsets:
            return found
        found.append(page.offsets)
        offset = page.next_offset


@pytest.mark.parametrize("compression", CODECS)
def test_a_page_ends_within_a_batch_that_expands_beyond_it(compression: str) -> None:
    value = b'"' + b"x" * 900_000 + b'"'
    stored = memoryview(batch([value] * 12, compression).tobytes())
    found = pages(stored, WANTED)
    assert [offset for page in found for offset in page] == list(range(12))
    assert [len(page) for page in found] == [4, 4, 4]


def test_many_tiny_records_make_no_page_without_bound() -> None:
    stored = memoryview(batch([b"0"] * 200_000, "zstd").tobytes())
    found = pages(stored, WANTED)
    assert [offset for page in found for offset in page] == list(range(200_000))
    largest = max(sum(map(len, page_of(stored, page[0], -1, WANTED).texts)) for page in found)
    assert largest <= PAGE_BYTES_MIN


def test_a_page_that_ended_early_knows_its_position_and_epoch() -> None:
    both = batch([b"1", b"2"]).tobytes() + stamp(batch([b"3"]), 2, 4, 0).tobytes()
    page = page_of(memoryview(both), 0, -1, WANTED._replace(page_bytes_max=1))
    assert (page.offsets, page.next_offset, page.last_epoch) == ([0], 1, 3)
    page = page_of(memoryview(both), 1, 3, WANTED)
    assert (page.offsets, page.next_offset, page.last_epoch) == ([1, 2], 3, 4)


def test_a_record_larger_than_any_page_is_named_and_can_be_stepped_over() -> None:
    stored = memoryview(batch([b"1", b'"' + b"x" * 5000 + b'"', b"3"], "zstd").tobytes())
    wanted = WANTED._replace(record_bytes_max=4000)
    assert page_of(stored, 0, -1, wanted).offsets == [0]
    with pytest.raises(InvalidRequest, match=r"offset 1 has 5002 bytes.*go on at offset 2"):
        page_of(stored, 1, -1, wanted)
    assert page_of(stored, 2, -1, wanted).offsets == [2]
    plain = memoryview(batch([b'"' + b"x" * 5000 + b'"']).tobytes())
    assert page_of(plain, 0, -1, wanted).offsets == [0], "what was stored as it is can be shown as it is"


def test_a_batch_that_cannot_be_decoded_is_named_and_can_be_stepped_over() -> None:
    """Six kilobytes with millions of empty headers: refused by their number, without a page's
    memory being used."""
    headers = 5_000_000
    inside = b"\x00\x00\x00\x01\x01" + varint(headers) + b"\x00\x01" * headers
    sealed = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, varint(len(inside)) + inside))
    (bomb,) = split(sealed.head() + sealed.payload, MIB)
    parts = batch([b"1"]), stamp(bomb, 1, 3, 0), batch([b"3"], base_offset=2)
    stored = memoryview(b"".join(part.tobytes() for part in parts))
    page = page_of(stored, 0, -1, WANTED)
    assert (page.offsets, page.next_offset) == ([0], 1)
    rest = stored[parts[0].bytes_total :]
    said = rf"offsets 1 to 1 cannot be decoded.*claims {headers} headers.*allowed are {HEADERS_MAX}.*go on at offset 2"
    with pytest.raises(CorruptBatch, match=said):
        page_of(rest, 1, 3, WANTED)
    assert page_of(rest[parts[1].bytes_total :], 2, 3, WANTED).offsets == [2]


def test_compressed_batches_are_found_wherever_they_are() -> None:
    plain, packed = batch([b"1"] * 50).tobytes(), batch([b"2"] * 50, "lz4", 50).tobytes()
    assert not is_compressed(memoryview(plain))
    assert not is_compressed(memoryview(b""))
    assert is_compressed(memoryview(plain + packed))
    assert is_compressed(memoryview(packed + plain))


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson", EVENTS])
@pytest.mark.parametrize("compression", ["none", *CODECS])
def test_what_expands_is_read_beside_the_event_loop(
    media: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def watched(*arguments: Any) -> Page:
        threads.append(threading.current_thread())
        return page_of(*arguments)

    async def test(broker: Broker, connection: Connection) -> None:
        fill(broker.runtime.cluster, 0, [b"0"] * 20, compression=compression)
        if media == EVENTS:
            await open_tail(connection, P0 + "?offset=0")
        else:
            assert (await connection.request("GET", P0 + "?offset=0", Accept=media)).status == 200
        assert [thread is threading.main_thread() for thread in threads][:1] == [compression == "none"]

    monkeypatch.setattr(partition_reader, "page_of", watched)
    with_broker(test, orders())


def test_records_beyond_the_limit_are_refused_in_a_sentence() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        fill(broker.runtime.cluster, 0, [b'"' + b"x" * 5000 + b'"'], compression="zstd")
        answer = await connection.request("GET", P0 + "?offset=0")
        assert answer.status == 400
        assert "fetch_bytes_max" in answer.json()["detail"]

    with_broker(test, orders(), limits=Limits(fetch_bytes_max=4000))
