"""What this broker tells of the groups that it coordinates: one broker each, so that sums count
nothing twice.

How far a group is behind is asked of its coordinator and of the leaders, for as many groups as
``PATIENCE_MS`` is enough for. Those whose figures are oldest come first, so with very many groups
each scrape renews a part of them, and ``minilog_consumergroup_figures_age_seconds`` says how old
the others are. Series by partition have the groups that are furthest behind, as many as
``metrics_groups_max`` allows. All others are counted as left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from minilog.broker.group_lag import QUESTION_MAX, Measured, measure_each, with_assigned
from minilog.broker.ports import Runtime
from minilog.server.exposition import Exposition, escaped
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

PATIENCE_MS: Final = 500
LEADER_PATIENCE_MS: Final = 300
SLICE: Final = 50
"""Groups that are asked about, or written down, before the loop is free for others."""
OLD_MS: Final = 60_000
"""Older figures are not told."""


class Known(NamedTuple):
    """Figures of a group, and when they were taken. Never anything of a group that is another
    broker's by now."""

    at_ms: int
    lags: list[Measured]

    @property
    def lag(self) -> int:
        return sum(each.lag.lag or 0 for each in self.lags)

    @property
    def lag_seconds(self) -> float:
        return max((each.lag.lag_seconds or 0.0 for each in self.lags), default=0.0)


class GroupSeries:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, Known] = {}
        self._unanswered = 0

    async def read(self) -> list[GroupInfo]:
        """The groups of this broker, those that are furthest behind first; ``of`` has their
        figures.

        What is not answered in time is missing, rather than wrong: a frozen broker blinds no
        scrape."""
        groups: list[GroupInfo] = []
        self._unanswered = 1
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_MS / 1000):
                listed = await self._runtime.submit(ListGroups())
                if isinstance(listed, ListGroupsReply):
                    groups, self._unanswered = listed.groups, len(listed.missing)
                self._forget_all_but(groups)
                await self._renew(groups)
        self._forget_all_but(groups)
        return sorted(groups, key=self._rank)

    def of(self, group: str) -> Known | None:
        return self._known.get(group)

    def _rank(self, info: GroupInfo) -> tuple[float, int, str]:
        known = self._known.get(info.group)
        return (0.0, 0, info.group) if known is None else (-known.lag_seconds, -known.lag, info.group)

    def _forget_all_but(self, groups: Sequence[GroupInfo]) -> None:
        now_ms = self._runtime.clock.now_ms()
        names = {info.group for info in groups}
        for group, known in list(self._known.items()):
            if group not in names or now_ms - known.at_ms > OLD_MS:
                del self._known[group]

    # --- asking -----------------------------------------------------------------------------------

    async def _renew(self, groups: Sequence[GroupInfo]) -> None:
        oldest = sorted(groups, key=lambda info: known.at_ms if (known := self._known.get(info.group)) else 0)
        waiting: dict[str, list[CommittedOffset]] = {}
        for start in range(0, len(oldest), SLICE):
            part = oldest[start : start + SLICE]
            for info, committed in zip(part, await asyncio.gather(*map(self._committed, part)), strict=True):
                waiting[info.group] = committed
            if sum(map(len, waiting.values())) >= QUESTION_MAX:
                await self._measure(waiting)
                waiting = {}
            await asyncio.sleep(0)
        await self._measure(waiting)

    async def _measure(self, committed: dict[str, list[CommittedOffset]]) -> None:
        at_ms = self._runtime.clock.now_ms()
        measured = await measure_each(self._runtime, list(committed.values()), LEADER_PATIENCE_MS)
        for group, lags in zip(committed, measured, strict=True):
            self._known[group] = Known(at_ms, lags)

    async def _committed(self, info: GroupInfo) -> list[CommittedOffset]:
        """And what its members have without."""
        asked = [self._runtime.submit(CommittedOffsets(info.group))]
        if info.members:
            asked.append(self._runtime.submit(DescribeGroup(info.group)))
        offsets: list[CommittedOffset] = []
        members: list[GroupMember] = []
        for reply in await asyncio.gather(*asked):
            if isinstance(reply, CommittedOffsetsReply):
                offsets = reply.offsets
            elif isinstance(reply, DescribeGroupReply):
                members = reply.members
        return with_assigned(offsets, members)

    # --- telling ----------------------------------------------------------------------------------

    async def write(self, page: Exposition, groups: Sequence[GroupInfo]) -> None:
        most = self._runtime.settings.metrics_groups_max
        families = _Families(page)
        room, shown = most, 0
        for number, info in enumerate(groups):
            known = self._known.get(info.group)
            if number < most:
                families.add_group(info, known)
            if known is not None and len(known.lags) <= room:
                room -= len(known.lags)
                shown += 1
                families.add_partitions(info.group, known)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._write_sums(page, groups, len(groups) - shown)

    def _write_sums(self, page: Exposition, groups: Sequence[GroupInfo], omitted: int) -> None:
        page.gauge("minilog_consumergroups", "Groups that this broker coordinates", len(groups))
        page.gauge(
            "minilog_consumergroups_omitted",
            "Of these, groups without series by partition: more than metrics_groups_max, or not answered in time",
            omitted,
        )
        page.gauge(
            "minilog_consumergroup_partitions_unanswered",
            "Parts of this broker's groups that could not be listed: it is about to begin, or to end, coordinating them",
            self._unanswered,
        )
        now_ms = self._runtime.clock.now_ms()
        page.gauge(
            "minilog_consumergroup_figures_age_seconds",
            "How old the oldest figures of a group are; of more groups than can be asked each scrape renews a part",
            max((now_ms - known.at_ms for known in self._known.values()), default=0) / 1000,
        )


class _Families:
    def __init__(self, page: Exposition) -> None:
        self._members = page.gauge("minilog_consumergroup_members", "Live members of a group")
        self._rebalancing = page.gauge("minilog_consumergroup_rebalancing", "1 while partitions wait to change hands")
        self._rebalances = page.counter(
            "minilog_consumergroup_rebalances", "Rebalances that have ended since this broker coordinates the group"
        )
        self._unknown = page.gauge(
            "minilog_consumergroup_unknown_lag_partitions",
            "Partitions of a group whose lag is not known: a member has begun one and committed nothing, or its leader is silent",
        )
        self._committed = page.gauge("minilog_consumergroup_committed_offset", "Next record the group will read")
        self._lag = page.gauge(
            "minilog_consumergroup_lag",
            "Records between the committed offset, or the log's start behind it, and the high watermark",
        )
        self._seconds = page.gauge("minilog_consumergroup_lag_seconds", "Age of the first record that is not committed")
        self._lost = page.gauge(
            "minilog_consumergroup_lost_records",
            "Records that retention took before the group has read them, until it goes on behind them",
        )
        self._distance = page.gauge(
            "minilog_consumergroup_log_start_distance",
            "Records between the log's start and the committed offset: at 0 retention takes what the group has not read",
        )

    def add_group(self, info: GroupInfo, known: Known | None) -> None:
        of = f'{{group="{escaped(info.group)}"}}'
        self._members.add(of, info.members)
        self._rebalancing.add(of, int(info.state == "rebalancing"))
        self._rebalances.add(of, info.rebalances)
        if known is not None and known.lags:
            self._unknown.add(of, sum(each.lag.lag is None for each in known.lags))

    def add_partitions(self, group: str, known: Known) -> None:
        group = escaped(group)
        for lag, log_start in known.lags:
            of = f'{{group="{group}",partition="{lag.partition}",topic="{lag.topic}"}}'
            if lag.committed is not None:
                self._committed.add(of, lag.committed)
            if lag.lag is not None and lag.lag_seconds is not None:
                self._lag.add(of, lag.lag)
                self._seconds.add(of, lag.lag_seconds)
            if lag.lost is not None:
                self._lost.add(of, lag.lost)
            if lag.committed is not None and log_start is not None:
                self._distance.add(of, max(0, lag.committed - log_start))
