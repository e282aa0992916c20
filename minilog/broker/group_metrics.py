"""Metrics of the groups that this broker coordinates: exported by one broker each, so that sums
count nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from minilog.broker.group_lag import measure_each, with_assigned
from minilog.broker.ports import Runtime
from minilog.wire.group_messages import (
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupInfo,
    GroupMember,
    ListGroups,
    ListGroupsReply,
)
from minilog.wire.json_answers import PartitionLag

PATIENCE_MS = 500
LEADER_PATIENCE_MS = 300
GROUP_SERIES_MAX = 5000
"""With more partitions than this in all groups together, series by partition are left out."""
GroupLags = list[tuple[GroupInfo, list[PartitionLag]]]


async def collect(runtime: Runtime) -> list[Metric]:
    """What is not answered within PATIENCE_MS is missing, rather than wrong: a frozen broker blinds
    no scrape."""
    groups: list[GroupInfo] = []
    lags: list[list[PartitionLag]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_MS / 1000):
            listed = await runtime.submit(ListGroups())
            groups = listed.groups if isinstance(listed, ListGroupsReply) else []
            lags = await _lags(runtime, groups)
    return list(_families(list(zip(groups, lags or [[] for _ in groups], strict=True))))


async def _lags(runtime: Runtime, groups: Sequence[GroupInfo]) -> list[list[PartitionLag]]:
    """By group. None where they would not be shown anyway."""
    committed = await asyncio.gather(*(_committed(runtime, info) for info in groups))
    if sum(map(len, committed)) > GROUP_SERIES_MAX:
        return []
    return await measure_each(runtime, committed, LEADER_PATIENCE_MS)


async def _committed(runtime: Runtime, info: GroupInfo) -> list[CommittedOffset]:
    """And what its members have without."""
    asked = [runtime.submit(CommittedOffsets(info.group))]
    if info.members:
        asked.append(runtime.submit(DescribeGroup(info.group)))
    offsets: list[CommittedOffset] = []
    members: list[GroupMember] = []
    for reply in await asyncio.gather(*asked):
        if isinstance(reply, CommittedOffsetsReply):
            offsets = reply.offsets
        elif isinstance(reply, DescribeGroupReply):
            members = reply.members
    return with_assigned(offsets, members)


def _families(found: GroupLags) -> Iterator[Metric]:
    members = GaugeMetricFamily("minilog_consumergroup_members", "Live members of a group", labels=["group"])
    state = GaugeMetricFamily(
        "minilog_consumergroup_rebalancing", "1 while partitions wait to change hands", labels=["group"]
    )
    unknown = GaugeMetricFamily(
        "minilog_consumergroup_unknown_lag_partitions",
        "Partitions of a group whose lag is not known: a member has begun one and committed nothing, or its leader is silent",
        labels=["group"],
    )
    for info, lags in found:
        members.add_metric([info.group], info.members)
        state.add_metric([info.group], info.state == "rebalancing")
        if lags:
            unknown.add_metric([info.group], sum(lag.lag is None for lag in lags))
    yield from (members, state, unknown)
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
            if lag.committed is not None:
                committed.add_metric(place, lag.committed)
            if lag.lag is not None and lag.lag_seconds is not None:
                records.add_metric(place, lag.lag)
                seconds.add_metric(place, lag.lag_seconds)
    yield from (committed, records, seconds)
