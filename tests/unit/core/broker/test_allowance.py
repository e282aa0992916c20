"""What one produce request may bring: many batches are judged together."""

from __future__ import annotations

import pytest

from minilog.core.broker.requests import allowance
from minilog.core.broker.requests.allowance import Inspected, Share, inspect, inspect_briefly
from minilog.wire.codec.codec import HEADERS_MAX, varint
from minilog.wire.codec.compression import CODECS, ZSTD, compress
from minilog.wire.messages import Produce, ProducePartition, ProduceResult
from minilog.wire.records import Record, SealedBatch, encode_values
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, partition_state
from tests.unit.wire.batches import encode_batch, unreadable

KEYED = {"cleanup.policy": "compact"}


def alone(config: dict[str, str] | None = None) -> BrokerBench:
    states = [partition_state(replicas=[1], partition=number) for number in (0, 1)]
    return BrokerBench.started(*states, config=config)


def send(bench: BrokerBench, *entries: list[bytes]) -> list[ProduceResult]:
    partitions = [ProducePartition(TOPIC, place, memoryview(b"".join(data))) for place, data in enumerate(entries)]
    sent = bench.send(Produce(0, 1000, partitions))
    return bench.produced(sent)


def problem(result: ProduceResult) -> tuple[str, str]:
    assert result.problem is not None
    assert result.problem.definite
    return result.problem.code, result.problem.detail


def numbered(producer_id: int) -> bytes:
    return encode_values([b"v"], 1000, producer_id=producer_id, producer_epoch=0, base_sequence=0)


def keyed(value_bytes: int, headers: int = 0) -> bytes:
    record = Record(0, 1000, b"k", bytes(value_bytes), (("", None),) * headers)
    return encode_batch([record], compression="zstd")


def test_one_request_brings_few_producers() -> None:
    """Ten thousand made-up ids in one would make a log forget everybody else, and write their
    retries twice."""
    bench, most = alone(), allowance.PRODUCERS_MAX
    (result,) = send(bench, [numbered(n) for n in range(most + 1)])
    code, detail = problem(result)
    assert code == "INVALID_REQUEST"
    assert f"{most + 1} different producer ids, allowed are {most}" in detail
    assert bench.log().end_offset == 0
    (result,) = send(bench, [*(numbered(n) for n in range(most)), *[encode_values([b"v"], 1000)] * 20])
    assert result.problem is None


def test_one_partition_is_sent_no_more_batches_than_one_turn_appends() -> None:
    bench, most = alone(), allowance.BATCHES_MAX
    one = encode_values([b"v"], 1000)
    first, second = send(bench, [one] * (most + 1), [one] * most)
    code, detail = problem(first)
    assert code == "INVALID_REQUEST"
    assert f"sent {most + 1} batches, allowed in a request are {most}" in detail
    assert (second.problem, bench.log(1).end_offset) == (None, most)


def test_nor_does_it_bring_more_by_naming_a_partition_again() -> None:
    bench, most = alone(), allowance.PRODUCERS_MAX
    results = send(bench, [numbered(n) for n in range(most)], [numbered(most)])
    assert results[0].problem is None
    assert problem(results[1])[0] == "INVALID_REQUEST"


def test_what_a_request_expands_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "REQUEST_EXPANDED_BYTES_MAX", 100_000)
    bench = alone()
    assert send(bench, [keyed(40_000), keyed(40_000)])[0].problem is None
    code, detail = problem(send(bench, [keyed(40_000)] * 3)[0])
    assert code == "RECORD_TOO_LARGE"
    assert "may expand to 100000 bytes" in detail
    assert "send fewer batches in a request" in detail
    assert bench.log().end_offset == 2
    assert problem(send(bench, [keyed(200_000)])[0])[0] == "CORRUPT_BATCH"
    plain = encode_values([bytes(40_000)], 1000)
    assert send(bench, [plain] * 5)[0].problem is None, "what is not compressed is as large as it is"


def test_a_partition_that_others_left_too_little_for_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "REQUEST_EXPANDED_BYTES_MAX", 100_000)
    bench = alone()
    results = send(bench, [keyed(70_000)], [keyed(70_000)])
    assert results[0].problem is None
    assert problem(results[1])[0] == "OVERLOADED"
    assert (bench.log(0).end_offset, bench.log(1).end_offset) == (1, 0)


def test_what_is_damaged_has_cost_its_work_as_well() -> None:
    """Else a request could name ten thousand partitions, each with a batch that fails after it was
    expanded."""
    bench = alone()
    inside = bytes(1 << 20)
    damaged = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, inside))
    results = send(bench, [damaged.head() + damaged.payload], [keyed(100)])
    assert problem(results[0])[0] == "CORRUPT_BATCH"
    assert problem(results[1])[0] == "OVERLOADED"


def test_and_hold_as_many_records_and_headers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "REQUEST_OBJECTS_MAX", 10)
    bench = alone()
    assert send(bench, [keyed(100, headers=4), keyed(100, headers=4)])[0].problem is None
    code, detail = problem(send(bench, [keyed(100, headers=4), keyed(100, headers=5)])[0])
    assert code == "RECORD_TOO_LARGE"
    assert "10 records and headers" in detail
    assert bench.log().end_offset == 2


@pytest.mark.parametrize("config", [None, KEYED])
@pytest.mark.parametrize("compression", CODECS)
def test_what_nobody_could_read_is_not_acknowledged(config: dict[str, str] | None, compression: str) -> None:
    bench = alone(config)
    fine = encode_values([b"v"], 1000, keys=[b"k"])
    for producer in ({}, {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}):
        results = send(bench, [fine, unreadable(3, compression, **producer)], [fine])
        code, detail = problem(results[0])
        assert code == "CORRUPT_BATCH"
        assert f"the batch at byte {len(fine)} cannot be read" in detail
        assert "nothing was written, encode it anew" in detail
    assert bench.log(0).end_offset == 0, "nor is what came with it to the same partition"
    follow = encode_values([b"v"], 1000, keys=[b"k"], producer_id=7, producer_epoch=0, base_sequence=0)
    assert send(bench, [follow])[0].problem is None, "a refused batch takes no sequence"


def test_a_record_without_a_key_comes_into_no_compacted_topic_and_is_named() -> None:
    bench = alone(KEYED)
    both = encode_values([b"v", b"v"], 1000, keys=[b"k", b"k"])
    code, detail = problem(send(bench, [both, encode_values([b"v", b"v"], 1000, keys=[b"k", None])])[0])
    assert code == "INVALID_RECORD"
    assert "record 3 of the batch has no key" in detail
    assert bench.log().end_offset == 0


def test_what_was_looked_into_before_its_turn_is_judged_by_the_topic_as_it_is_then() -> None:
    request = Produce(0, 1000, [ProducePartition(TOPIC, 0, memoryview(encode_values([b"v" * 2000], 1000)))])
    looked = inspect(request)
    assert isinstance(looked.shares[0], Share)
    assert problem(alone_result(alone(KEYED), looked))[0] == "INVALID_RECORD"
    code, detail = problem(alone_result(alone({"max.message.bytes": "1024"}), looked))
    assert code == "RECORD_TOO_LARGE"
    assert "1024 bytes allowed" in detail
    assert alone_result(alone(), looked).problem is None


def alone_result(bench: BrokerBench, looked: Inspected) -> ProduceResult:
    (result,) = bench.produced(bench.send(looked))
    return result


def test_what_takes_longer_than_a_turn_is_told_without_taking_so_long() -> None:
    def request(*parts: bytes) -> Produce:
        return Produce(0, 1000, [ProducePartition(TOPIC, place, memoryview(part)) for place, part in enumerate(parts)])

    small = encode_values([b"v"], 1000)
    packed = keyed(allowance.TURN_EXPANDED_BYTES_MAX // 2)
    tiny = encode_values([b""] * (allowance.TURN_OBJECTS_MAX + 1), 1000, compression="zstd")
    for brief in (request(small, small + packed), request(b"", b"no batch at all" * 10), request(unreadable(2))):
        looked, slowly = inspect_briefly(brief), inspect(brief)
        assert looked is not None
        for share, other in zip(looked.shares, slowly.shares, strict=True):
            assert share == other if isinstance(share, Share) else str(share) == str(other)
    for long in (bytes(allowance.TURN_BYTES_MAX + 1), packed + packed, tiny, unreadable(2, "zstd")):
        assert inspect_briefly(request(small, long)) is None


def test_a_record_of_millions_of_headers_comes_into_no_topic() -> None:
    inside = b"\x00\x00\x00\x02k\x01" + varint(5_000_000) + b"\x00\x01" * 5_000_000
    sealed = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, varint(len(inside)) + inside))
    bench = alone()
    code, detail = problem(send(bench, [sealed.head() + sealed.payload])[0])
    assert code == "CORRUPT_BATCH"
    assert "claims 5000000 headers" in detail
    assert f"allowed are {HEADERS_MAX}" in detail
