"""``append``: of those who expect the same end of a partition one writes, and knows it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minilog.errors import EndOffsetMismatch, InvalidRequest, NotEnoughReplicas, RecordTooLarge, TimedOut
from minilog_client import AsyncClient, Producer
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.producer.test_producer import scenario
from tests.unit.client.virtual_time import run


def numbers(cluster: FakeCluster) -> list[tuple[int, int, int]]:
    return [(b.producer_id, b.producer_epoch, b.base_sequence) for b in cluster.logs["t"][0].batches]


def test_what_is_expected_is_written_as_one_batch() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        receipt = await producer.append("t", [b"a", (b"k", b"b")], partition=0, expected_offset=0)
        assert (receipt.base_offset, receipt.end_offset, receipt.record_count) == (0, 2, 2)
        receipt = await producer.append("t", [b"c"], partition=0, expected_offset=2)
        assert receipt.base_offset == 2
        assert cluster.logs["t"][0].values() == [b"a", b"b", b"c"]


def test_who_expects_another_end_writes_nothing_and_is_told_where_it_is() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_many("t", [b"x"] * 3)
        with pytest.raises(EndOffsetMismatch) as caught:
            await producer.append("t", [b"a"], partition=0, expected_offset=2)
        assert (caught.value.info["end_offset"], caught.value.definite) == (3, True)
        await producer.append("t", [b"b"], partition=0, expected_offset=3)
        await producer.send("t", b"c")
        assert cluster.logs["t"][0].values() == [b"x", b"x", b"x", b"b", b"c"]
        assert [epoch for _, epoch, _ in numbers(cluster)] == [0, 0, 0], "a refusal costs no number"


def test_a_lost_answer_is_no_defeat() -> None:
    """Sent again the batch is found where it was written, and not refused because of itself."""

    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.faults.append(Fault("produce", "lose_answer", times=2))
        receipt = await producer.append("t", [b"a"], partition=0, expected_offset=0)
        assert (receipt.base_offset, receipt.duplicate) == (0, True)
        assert cluster.logs["t"][0].values() == [b"a"]


def test_what_may_be_written_is_not_said_to_be_refused() -> None:
    @scenario(1, delivery_timeout_ms=2000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"before")
        cluster.lateness = lambda: 10.0
        cluster.faults += [Fault("produce", "late"), Fault("produce", NotEnoughReplicas("few"), times=1000)]
        with pytest.raises(TimedOut) as caught:
            await producer.append("t", [b"a"], partition=0, expected_offset=1)
        assert caught.value.definite is False
        cluster.faults.clear()
        await producer.append("t", [b"b"], partition=0, expected_offset=1)
        await asyncio.sleep(20)
        assert cluster.logs["t"][0].values() == [b"before", b"b"], "the late one is fenced"


def test_it_neither_overtakes_nor_is_overtaken() -> None:
    @scenario(1, linger_ms=1000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        producer.send_nowait("t", b"0")
        await producer.flush()
        before = producer.send_nowait("t", b"1")
        task = asyncio.create_task(producer.append("t", [b"2"], partition=0, expected_offset=2))
        for _ in range(10):  # it has its place by then
            await asyncio.sleep(0)
        after = producer.send_nowait("t", b"3")
        await producer.flush()
        assert [(await before).offset, (await task).base_offset, (await after).offset] == [1, 2, 3]


@pytest.mark.parametrize("racers", [8])
def test_of_racers_one_wins_each_round(racers: int) -> None:
    rounds = 25

    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        wins: list[tuple[int, int]] = []

        async def race(name: int, producer: Producer) -> None:
            end = 0
            while end < rounds:
                try:
                    receipt = await producer.append("t", [b"%d" % name], partition=0, expected_offset=end)
                except EndOffsetMismatch as error:
                    end = error.info["end_offset"]
                else:
                    assert receipt.base_offset == end, "it is written where it was expected"
                    wins.append((end, name))
                    end += 1

        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            cluster.faults.append(Fault("produce", "lose_answer", times=10))
            await asyncio.gather(*(race(name, client.producer()) for name in range(racers)))
        log = cluster.logs["t"][0]
        assert [offset for offset, _ in sorted(wins)] == list(range(log.end_offset)), "none twice, none missed"
        assert log.values() == [b"%d" % name for _, name in sorted(wins)]

    run(main())


@pytest.mark.parametrize("expected", [-1, 2**63, True, 1.5, None, "3"])
def test_what_can_be_no_end_is_refused_at_once(expected: Any) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(InvalidRequest, match="expected_offset"):
            await producer.append("t", [b"a"], partition=0, expected_offset=expected)
        assert cluster.count("produce") == 0


@pytest.mark.parametrize("options", [{"acks": 0}, {"idempotent": False}])
def test_a_producer_that_could_not_tell_is_refused(options: dict[str, Any]) -> None:
    @scenario(1, **options)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(InvalidRequest, match="could not say"):
            await producer.append("t", [b"a"], partition=0, expected_offset=0)


def test_what_fits_no_batch_is_refused_and_nothing_of_it_is_sent() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes"):
            await producer.append("t", [b"x" * 400_000] * 3, partition=0, expected_offset=0)
        with pytest.raises(InvalidRequest, match="nothing to append"):
            await producer.append("t", [], partition=0, expected_offset=0)
        await producer.flush()
        assert cluster.logs["t"][0].values() == []
