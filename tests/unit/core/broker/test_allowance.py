"""What one produce request may bring: many batches are judged together."""

from __future__ import annotations

import pytest

from minilog.core.broker import allowance
from minilog.wire.codec import HEADERS_MAX, varint
from minilog.wire.compression import ZSTD, compress
from minilog.wire.messages import Produce, ProducePartition, ProduceResult
from minilog.wire.records import Record, SealedBatch, encode_values
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, partition_state
from tests.unit.wire.batches import encode_batch

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


def test_nor_does_it_bring_more_by_naming_a_partition_again() -> None:
    bench, most = alone(), allowance.PRODUCERS_MAX
    results = send(bench, [numbered(n) for n in range(most)], [numbered(most)])
    assert results[0].problem is None
    assert problem(results[1])[0] == "INVALID_REQUEST"


def test_what_a_request_to_compacted_topics_expands_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "KEYED_BYTES_MAX", 100_000)
    bench = alone({**KEYED, "max.message.bytes": "1024"})
    assert send(bench, [keyed(40_000), keyed(40_000)])[0].problem is None
    code, detail = problem(send(bench, [keyed(40_000)] * 3)[0])
    assert code == "RECORD_TOO_LARGE"
    assert "may expand to 100000 bytes" in detail
    assert bench.log().end_offset == 2
    assert problem(send(bench, [keyed(200_000)])[0])[0] == "CORRUPT_BATCH"
    large = alone({**KEYED, "max.message.bytes": "300000"})
    assert send(large, [keyed(200_000)])[0].problem is None, "what need not be compressed may be"
    assert send(alone(), [keyed(40_000)] * 5)[0].problem is None, "nobody looks into other topics' batches"


def test_a_partition_that_others_left_too_little_for_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "KEYED_BYTES_MAX", 100_000)
    bench = alone({**KEYED, "max.message.bytes": "1024"})
    results = send(bench, [keyed(70_000)], [keyed(70_000)])
    assert results[0].problem is None
    assert problem(results[1])[0] == "OVERLOADED"
    assert (bench.log(0).end_offset, bench.log(1).end_offset) == (1, 0)


def test_what_is_damaged_has_cost_its_work_as_well() -> None:
    """Else a request could name a partition ten thousand times, each with a batch that fails after
    it was expanded."""
    bench = alone(KEYED)
    inside = bytes(1 << 20)
    damaged = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, inside))
    results = send(bench, [damaged.head() + damaged.payload], [keyed(1)])
    assert problem(results[0])[0] == "CORRUPT_BATCH"
    assert problem(results[1])[0] == "OVERLOADED"


def test_and_hold_as_many_records_and_headers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "OBJECTS_MAX", 10)
    bench = alone(KEYED)
    assert send(bench, [keyed(1, headers=4), keyed(1, headers=4)])[0].problem is None
    code, detail = problem(send(bench, [keyed(1, headers=4), keyed(1, headers=5)])[0])
    assert code == "RECORD_TOO_LARGE"
    assert "10 records and headers" in detail
    assert bench.log().end_offset == 2


def test_a_record_of_millions_of_headers_comes_into_no_compacted_topic() -> None:
    inside = b"\x00\x00\x00\x02k\x01" + varint(5_000_000) + b"\x00\x01" * 5_000_000
    sealed = SealedBatch(ZSTD, 1000, 1000, 1, compress(ZSTD, varint(len(inside)) + inside))
    bench = alone(KEYED)
    code, detail = problem(send(bench, [sealed.head() + sealed.payload])[0])
    assert code == "CORRUPT_BATCH"
    assert "claims 5000000 headers" in detail
    assert f"allowed are {HEADERS_MAX}" in detail
