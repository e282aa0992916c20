"""What consumers in groups commit, and when; time is virtual."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from crc32c import crc32c

from minilog.wire.batch import Batch, filler, split
from minilog_client import (
    AsyncClient,
    BrokerUnavailable,
    GroupConsumer,
    StaleMemberEpoch,
    UnknownMember,
    UnknownTopic,
)
from tests.unit.client.consumer.consumer_bench import cut_start, fill, later, lose_tail, now
from tests.unit.client.fake_cluster import FakeCluster, Fault, Log
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


def test_only_finished_records_are_committed_by_themselves() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g") as consumer:
            await anext(consumer)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {}
            await anext(consumer)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 1}
            await consumer.batch(max_records=10)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 2}
            await consumer.commit()
            assert coordinator.committed("g") == {0: 12}
            await consumer.batch(max_records=3)
        assert coordinator.committed("g") == {0: 12}, "the last ones were never said to be finished"


def test_without_auto_commit_nothing_is_committed_by_itself() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 20)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {}
            assert await consumer.committed() == {("t", 0): None}
            await consumer.commit(records[4], metadata="half")
            await consumer.batch(max_records=3)
        assert coordinator.committed("g") == {0: 5}
        found = coordinator.group("g").offsets["t", 0]
        assert (found.leader_epoch, found.metadata) == (0, "half")


def test_what_the_application_commits_is_not_contradicted_until_it_goes_on() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g", on_revoked=lambda _: None) as consumer:
            await read(consumer, 10)
            await consumer.batch(max_records=1)
            for offset in (25, 3):
                await consumer.commit({("t", 0): offset})
                await asyncio.sleep(3)
                assert coordinator.committed("g") == {0: offset}, "10 records are finished, but it has said otherwise"
            await consumer.batch(max_records=1)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 11}


def test_commit_takes_a_record_records_offsets_or_nothing() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            await consumer.commit([r for r in records if r.offset < 7])
            assert coordinator.committed("g") == {0: 7, 1: 7}
            await consumer.commit({("t", 1): 3})
            assert await consumer.committed() == {("t", 0): 7, ("t", 1): 3}
            await consumer.commit()
            assert await consumer.committed([("t", 1), ("t", 0)]) == {("t", 0): 20, ("t", 1): 20}


def test_where_latest_was_is_committed_so_that_nobody_skips_what_comes_meanwhile() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", start="latest", auto_commit=False):
            assert coordinator.committed("g") == {0: 10}
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", start="latest") as consumer:
            assert [record.offset for record in await read(consumer, 10)] == list(range(10, 20))


def test_a_commit_that_crosses_a_rebalance_is_repeated_with_the_new_epoch() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            coordinator.group("g").epoch += 5
            coordinator.group("g").members[consumer.member_id].epoch += 5
            with pytest.raises(StaleMemberEpoch):
                await consumer.commit(records)
            cluster.grow("t", 3)
            epoch = consumer.member_epoch
            await consumer.batch(max_wait_ms=2000)
            assert consumer.member_epoch > epoch


def test_an_epoch_learnt_while_a_commit_is_under_way() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            cluster.faults.append(Fault("commitoffsets", StaleMemberEpoch("the group has moved on")))
            later(0.002, cluster.grow, "t", 3)
            await consumer.commit(records)
            assert coordinator.committed("g") == {0: 20, 1: 20}


def test_a_zombie_is_told_so() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        lost: list[Any] = []
        async with client.consumer("t", group="g", auto_commit=False, on_lost=lost.extend) as consumer:
            records = await read(consumer, 20)
            await consumer.commit(records[9])
            coordinator.fence("g", consumer.member_id)
            with pytest.raises(UnknownMember):
                await consumer.commit(records[14])
            assert coordinator.committed("g") == {0: 10}
            again = await read(consumer, 5)
            assert lost == [("t", 0)]
            assert [record.offset for record in again] == list(range(10, 15))
            with pytest.raises(StaleMemberEpoch, match="belongs to that time"):
                await consumer.commit(records[19])
            await consumer.commit(again[-1])
            assert coordinator.committed("g") == {0: 15}


# --- what is finished does not fall ---------------------------------------------------------------


async def commit_all(consumer: GroupConsumer, record: Any) -> None:
    await consumer.commit()


async def commit_record(consumer: GroupConsumer, record: Any) -> None:
    await consumer.commit(record)


@pytest.mark.parametrize("commit", [commit_all, commit_record])
def test_no_commit_of_its_own_takes_back_what_the_application_committed(commit: Callable[..., Any]) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        consumer = client.consumer("t", group="g")
        async for record in consumer:
            if record.offset == 7:
                await commit(consumer, record)
                break
        assert coordinator.committed("g") == {0: 8}
        await asyncio.sleep(30)
        assert coordinator.committed("g") == {0: 8}
        await consumer.close()
        assert [each.offsets[0].offset for each in coordinator.group("g").commits] == [8]


def test_each_record_is_committed_before_the_next_one_and_none_comes_again_after_a_restart() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        done: list[int] = []
        for _ in range(2):
            async with client.consumer("t", group="g") as consumer:
                async for record in consumer:
                    done.append(record.offset)
                    await consumer.commit(record)
                    if len(done) % 5 == 0:
                        break
        assert done == list(range(10))


def test_after_a_seek_back_less_is_finished_than_before() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g") as consumer:
            for _ in range(10):
                await anext(consumer)
            consumer.seek("t", 0, 3)
            await asyncio.sleep(6)
            assert coordinator.committed("g") == {0: 9}, "record 9 was being worked on, and is left"
            for _ in range(3):
                await anext(consumer)
            await asyncio.sleep(6)
            assert coordinator.committed("g") == {0: 5}


def test_after_a_reset_to_before_the_committed_offset_what_is_read_there_may_be_committed() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        await client.alter_group_offsets("g", "t", "latest")
        lose_tail(cluster, cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", out_of_range="earliest") as consumer:
            again = await read(consumer, 10)
            assert [record.offset for record in again] == list(range(10))
            await consumer.commit(again[4])
            assert coordinator.committed("g") == {0: 5}


# --- what was handed out is remembered ------------------------------------------------------------


def unreadable(batch: Batch) -> Batch:
    """The checksum is right, and nobody can decode the records."""
    raw = bytearray(batch.tobytes())
    raw[-3:] = b"\xff\xff\xff"
    struct.pack_into(">I", raw, 17, crc32c(bytes(raw[21:])))
    return split(bytes(raw), 2**31, stored=True)[0]


def compact(cluster: FakeCluster, log: Log) -> None:
    log.batches[1] = filler(log.batches[1], 10)


def damage(cluster: FakeCluster, log: Log) -> None:
    log.batches[1] = unreadable(log.batches[1])


@pytest.mark.parametrize("strike", [compact, damage, lambda cluster, log: None])
def test_a_commit_of_all_that_was_handed_out_commits_it_whatever_comes_after_it(strike: Callable[..., None]) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        strike(cluster, log)
        consumer = client.consumer("t", group="g")
        records = await consumer.batch(max_records=15)
        assert [record.offset for record in records][:10] == list(range(10))
        await consumer.commit()
        assert coordinator.committed("g") == {0: len(records)}


def test_what_was_handed_out_is_finished_when_the_log_loses_what_came_after_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        consumer = client.consumer("t", group="g")
        await consumer.batch(max_records=10)
        lose_tail(cluster, log, 10)
        await asyncio.sleep(20)
        await consumer.commit()
        assert coordinator.committed("g") == {0: 10}
        assert coordinator.group("g").offsets["t", 0].leader_epoch == 0


def test_a_record_that_was_handed_out_may_be_committed_when_the_partition_was_reset_since() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 10)
        async with client.consumer("t", group="g", out_of_range="latest", auto_commit=False) as consumer:
            records = [await anext(consumer) for _ in range(10)]
            fill(log, 30)
            cut_start(log, 20)
            await asyncio.sleep(5)
            await consumer.commit(records[-1])
            assert coordinator.committed("g") == {0: 10}


# --- only under the grant it was read under -------------------------------------------------------


async def lose_and_regain(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient, a: Any) -> None:
    """``a`` is fenced, another member reads on to 30 and leaves, ``a`` has the partition again."""
    coordinator.fence("g", a.member_id)
    async with client.consumer("t", group="g", auto_commit=False) as b:
        await b.commit(await read(b, 30))
    await asyncio.sleep(5)
    assert coordinator.owned("g")[a.member_id] == [("t", 0)]
    assert coordinator.committed("g") == {0: 30}


@pytest.mark.parametrize("how", ["automatic", "records", "all", "offsets", "close"])
def test_progress_under_a_grant_that_was_lost_is_not_committed_under_the_next(how: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40)
        is_automatic = how in ("automatic", "close")
        a = client.consumer("t", group="g", auto_commit=is_automatic, auto_commit_interval_ms=3000)
        records = await read(a, 10) + await read(a, 10)
        await lose_and_regain(cluster, coordinator, client, a)
        wanted: Any = {"records": records, "offsets": {("t", 0): 20}, "all": None}.get(how)
        if how == "automatic":
            await asyncio.sleep(10)
        elif how == "close":
            await a.close()
        else:
            with pytest.raises(StaleMemberEpoch, match=r"t-0 was lost .*has got it again since") as raised:
                await a.commit(wanted)
            assert raised.value.definite
        assert coordinator.committed("g") == {0: 30}
        if how != "close":
            assert [record.offset for record in await read(a, 10)] == list(range(30, 40))
            await a.commit()
            assert coordinator.committed("g") == {0: 40}


def test_where_reading_began_under_a_lost_grant_is_not_committed_under_the_next() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40)
        cluster.faults.append(Fault("commitoffsets", BrokerUnavailable("not now", definite=True), times=10**9))
        a = client.consumer("t", group="g", start="latest", commit_timeout_ms=500)
        await a.start()
        cluster.faults.clear()
        await lose_and_regain(cluster, coordinator, client, a)
        await asyncio.sleep(10)
        assert coordinator.committed("g") == {0: 30}


def test_a_commit_that_was_on_its_way_when_the_grant_was_lost_is_not_repeated_under_the_next() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40)
        a = client.consumer("t", group="g", auto_commit=False, commit_timeout_ms=60_000)
        records = await read(a, 20)
        cluster.faults.append(Fault("commitoffsets", StaleMemberEpoch("the group has moved on")))
        later(0.0005, coordinator.fence, "g", a.member_id)
        with pytest.raises((StaleMemberEpoch, UnknownMember)):
            await a.commit(records)
        assert coordinator.committed("g") == {}


def test_progress_in_a_topic_that_was_deleted_is_not_committed_for_the_one_that_has_its_name_now() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        a = client.consumer("t", group="g", auto_commit_interval_ms=1000)
        records = await read(a, 10) + await read(a, 10)
        for log in cluster.create("t", 2):
            fill(log, 20)
        with pytest.raises(UnknownTopic):
            await a.commit(records)
        await asyncio.sleep(10)
        assert coordinator.committed("g") == {}
        coordinator.fence("g", a.member_id)
        await asyncio.sleep(10)
        assert coordinator.committed("g") == {}, "a member again, and it has read nothing of the new topic"
        assert len(await read(a, 40)) == 40
        await a.commit()
        assert coordinator.committed("g") == {0: 20, 1: 20}


def test_a_topic_made_anew_keeps_nothing_of_others_from_being_committed() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.create("u")[0], 20)
        fill(cluster.logs["t"][0], 20)
        consumer = client.consumer(["t", "u"], group="g", auto_commit_interval_ms=5000)
        await read(consumer, 40)
        cluster.create("t")
        await client._cluster.refresh("t")
        with pytest.raises(UnknownTopic):
            await consumer.batch()
        await consumer.close()
        assert (coordinator.committed("g"), coordinator.committed("g", "u")) == ({}, {0: 20})


def test_the_offsets_of_a_topic_say_of_which_one_they_are() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit(await read(consumer, 10))
        (commit,) = coordinator.group("g").commits
        assert [entry.topic_id for entry in commit.offsets] == [cluster.topic_ids["t"]]


def test_a_commit_that_may_have_been_carried_out_is_never_told_as_refused() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 10)
            cluster.faults += [Fault("commitoffsets", "lose_answer"), Fault("commitoffsets", UnknownMember("gone"))]
            with pytest.raises(UnknownMember) as raised:
                await consumer.commit(records)
            assert coordinator.committed("g") == {0: 10}
            assert not raised.value.definite


# --- the end is in time ---------------------------------------------------------------------------


def test_closing_takes_no_longer_than_it_may_whatever_the_callback_and_the_coordinator_do() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)

        async def never(_: Any) -> None:
            cluster.silent |= {1, 2, 3}
            await asyncio.sleep(10**6)

        consumer = client.consumer("t", group="g", on_revoked=never, commit_timeout_ms=50_000)
        await read(consumer, 10)
        await read(consumer, 10)
        began = now()
        await consumer.close(timeout_ms=2000)
        assert now() - began < 2.5
