"""Metrics of the groups that this broker coordinates: exported by one broker each, so that sums count nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from minilog.broker.group_lag import PartitionLag, measure
from minilog.broker.ports import Runtime
from minilog.wire.group_messages import CommittedOffsets, CommittedOffsetsReply, GroupInfo, ListGroups, ListGroupsReply

PATIENCE_MS = 500
LEADER_PATIENCE_MS = 300
GROUP_SERIES_MAX = 5000
"""With more partitions than this in all groups together, series by partition are left out."""
GroupLags = list[tuple[GroupInfo, list[PartitionLag]]]


async def collect(runtime: Runtime) -> list[Metric]:
    """What is not answered within PATIENCE_MS is missing, rather than wrong: a frozen broker blinds no scrape."""
    try:
        async with asyncio.timeout(PATIENCE_MS / 1000):
            listed = await runtime.submit(ListGroups())
            groups = listed.groups if isinstance(listed, ListGroupsReply) else []
            lags = await asyncio.gather(*(_lags(runtime, info) for info in groups))
    except TimeoutError:
        groups, lags = [], []
    return list(_families(list(zip(groups, lags, strict=True))))


async def _lags(runtime: Runtime, info: GroupInfo) -> list[PartitionLag]:
    committed = await runtime.submit(CommittedOffsets(info.group))
    if not isinstance(committed, CommittedOffsetsReply):
        return []
    return await measure(runtime, committed.offsets, LEADER_PATIENCE_MS)


def _families(found: GroupLags) -> Iterator[Metric]:
    members = GaugeMetricFamily("minilog_consumergroup_members", "Live members of a group", labels=["group"])
    state = GaugeMetricFamily(
        "minilog_consumergroup_rebalancing", "1 while partitions wait to change hands", labels=["group"]
    )
    for info, _ in found:
        members.add_metric([info.group], info.members)
        state.add_metric([info.group], info.state == "rebalancing")
    yield members
    yield state
    if sum(len(lags) for _, lags in found) <= GROUP_SERIES_MAX:
        yield from _by_partition(found)


def _by_partition(found: GroupLags) -> Iterator[Metric]:
    labels = ["group", "topic", "partition"]
    committed = GaugeMetricFamily(
        "minilog_consumergroup_committed_offset", "Next record the group will read", labels=labels
    )
    records = GaugeMetricFamily(
        "minilog_consumergroup_lag", "Records between the committed offset and the high watermark", labels=labels
    )
    seconds = GaugeMetricFamily(
        "minilog_consumergroup_lag_seconds", "Age of the first record that is not committed", labels=labels
    )
    for info, lags in found:
        for lag in lags:
            place = [info.group, lag.topic, str(lag.partition)]
            committed.add_metric(place, lag.committed)
            if lag.records is not None and lag.seconds is not None:
                records.add_metric(place, lag.records)
                seconds.add_metric(place, lag.seconds)
    yield from (committed, records, seconds)
