"""Pages of compressed batches: bounded by what the records are, not by what they were compressed
to, and made off the loop."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from minilog.broker.http.records import partition_reader
from minilog.broker.http.records.record_page import PAGE_BYTES_MIN, Page, Wanted, page_of
from minilog.config import MIB, Limits
from minilog.wire.batch import Batch, is_compressed, split, stamp
from minilog.wire.codec.codec import HEADERS_MAX, varint
from minilog.wire.codec.compression import ZSTD, compress
from minilog.wire.http import EVENTS
from minilog.wire.records import Record, SealedBatch
from tests.unit.broker.http.harness import Broker, Connection, fill, fill_unreadable, open_tail, orders, with_broker
from tests.unit.wire import oracles
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


def marks(page: Page) -> list[tuple[int, int, str]]:
    """The ranges that cannot be read, and the codes of why."""
    documents = [json.loads(text) for text in page.texts]
    return [(d["offset"], d["end_offset"], d["error"]["code"]) for d in documents if "error" in d]


def test_a_record_larger_than_any_page_is_marked_and_what_follows_is_read() -> None:
    stored = memoryview(batch([b"1", b'"' + b"x" * 5000 + b'"', b"3"], "zstd").tobytes())
    wanted = WANTED._replace(record_bytes_max=4000)
    page = page_of(stored, 0, -1, wanted)
    assert (page.offsets, page.next_offset, marks(page)) == ([0, 1, 2], 3, [(1, 2, "RECORD_TOO_LARGE")])
    assert b"offset 1 has 5002 bytes" in page.texts[1]
    plain = memoryview(batch([b'"' + b"x" * 5000 + b'"']).tobytes())
    assert page_of(plain, 0, -1, wanted).offsets == [0], "what was stored as it is can be shown as it is"


def test_a_batch_that_cannot_be_decoded_is_marked_and_what_follows_is_read() -> None:
    """Six kilobytes with millions of empty headers: refused by their number, without a page's
    memory being used."""
    headers = 5_000_000
    inside = b"\x00\x00\x00\x01\x01" + varint(headers) + b"\x00\x01" * headers
    sealed = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, varint(len(inside)) + inside))
    (bomb,) = split(sealed.head() + sealed.payload, MIB)
    parts = batch([b"1"]), stamp(bomb, 1, 3, 0), batch([b"3"], base_offset=2)
    stored = memoryview(b"".join(part.tobytes() for part in parts))
    page = page_of(stored, 0, -1, WANTED)
    assert (page.offsets, page.next_offset, marks(page)) == ([0, 1, 2], 3, [(1, 2, "CORRUPT_BATCH")])
    said = rf"offsets 1 to 1 cannot be decoded.*claims {headers} headers.*allowed are {HEADERS_MAX}.*at offset 2"
    assert re.search(said, page.texts[1].decode())
    skipping = page_of(stored, 0, -1, WANTED._replace(skips_unreadable=True))
    assert (skipping.offsets, skipping.next_offset) == ([0, 2], 3)


def test_a_mark_begins_behind_what_could_be_read_and_ends_with_its_batch() -> None:
    """The fourth of six records is none. Whoever comes back in the middle of the batch is told of
    the rest."""
    fine = encode_batch([Record(0, 1000, None, b"%d" % n) for n in range(6)])
    broken = bytearray(fine)
    at = fine.index(b"\x023\x00") - 2  # the offset delta of the record with value 3
    broken[at] = 0x7E
    (parted,) = split(oracles.sealed(bytes(broken)), MIB)
    stored = memoryview(stamp(parted, 10, 3, 0).tobytes() + batch([b"7"], base_offset=16).tobytes())
    page = page_of(stored, 10, -1, WANTED)
    assert (page.offsets, page.next_offset, marks(page)) == ([10, 11, 12, 15, 16], 17, [(13, 16, "CORRUPT_BATCH")])
    page = page_of(stored, 14, -1, WANTED)
    assert (page.offsets, marks(page)) == ([15, 16], [(14, 16, "CORRUPT_BATCH")])
    page = page_of(stored, 10, -1, WANTED._replace(records_max=3))
    assert (page.offsets, page.next_offset) == ([10, 11, 12], 13)
    page = page_of(stored, 13, -1, WANTED._replace(records_max=1))
    assert (page.offsets, page.next_offset) == ([15], 16)


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


@pytest.mark.parametrize("tolerance", ["none", "all"])
def test_a_tail_goes_on_behind_what_cannot_be_read(tolerance: str) -> None:
    """And so does a browser that comes back: the mark has an id."""

    async def test(broker: Broker, connection: Connection) -> None:
        fill(broker.runtime.cluster, 0, [b"1"])
        fill_unreadable(broker.runtime.cluster, 0, 3)
        fill(broker.runtime.cluster, 0, [b"5"])
        events = await open_tail(connection, P0 + f"?offset=0&errors_tolerance={tolerance}")
        seen = [await events.next() for _ in range(3 if tolerance == "none" else 2)]
        places = [int(event["id"].split("-")[1]) for event in seen]
        assert places == ([0, 3, 4] if tolerance == "none" else [0, 4])
        if tolerance == "none":
            mark = json.loads(seen[1]["data"])
            assert (mark["offset"], mark["end_offset"], mark["error"]["code"]) == (1, 4, "CORRUPT_BATCH")

    with_broker(test, orders())


def test_records_beyond_the_limit_are_marked_in_a_sentence() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        fill(broker.runtime.cluster, 0, [b'"' + b"x" * 5000 + b'"'], compression="zstd")
        answer = await connection.request("GET", P0 + "?offset=0")
        assert answer.status == 200
        assert "fetch_bytes_max" in answer.json()["records"][0]["error"]["detail"]

    with_broker(test, orders(), limits=Limits(fetch_bytes_max=4000))
