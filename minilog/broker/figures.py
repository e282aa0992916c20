"""Figures: what this broker tells of itself to those who watch the cluster.

Nothing is counted before somebody asks. Whoever asks within FRESH_MS is told the same again, so
many watchers cost as much as one. The list of lost records is on the disk, and is read again when
more were cut, or after LOST_FRESH_MS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import minilog
from minilog.broker.lost_replays import LostReplays
from minilog.broker.metrics.metrics import Metrics
from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import PartitionStatistics
from minilog.wire.figure_messages import DescribeBrokerReply, LostTold, ReplicaBehind
from minilog.wire.json.json_answers import LostTailInfo

FRESH_MS: Final = 400
LOST_FRESH_MS: Final = 5000
BEHIND_MAX: Final = 500
LOST_MAX: Final = 200


class Figures:
    def __init__(self, runtime: Runtime, metrics: Metrics, lost: LostReplays) -> None:
        self._runtime, self._metrics, self._lost = runtime, metrics, lost
        self._began_ms = runtime.clock.now_ms()
        self._told: DescribeBrokerReply | None = None
        self._told_ms = 0
        self._tails: list[LostTailInfo] = []
        self._tails_ms = 0
        self._cut = -1
        """Records that had been cut when the tails were listed."""

    async def tell(self) -> DescribeBrokerReply:
        now_ms = self._runtime.clock.now_ms()
        if self._told is None or now_ms - self._told_ms >= FRESH_MS:
            self._told_ms, self._told = now_ms, await self._look(now_ms)
        return self._told

    async def _look(self, now_ms: int) -> DescribeBrokerReply:
        statistics = self._runtime.core.statistics(now_ms)
        replicas = await self._metrics.replicas()
        led = [replica for replica in replicas if replica.is_leader]
        tails = await self._lost_tails(sum(statistics.records_lost), now_ms)
        behind = sorted(_behind(led), key=lambda one: -one.behind_ms)
        requests, listener = self._metrics.requests, self._metrics.listener
        return DescribeBrokerReply(
            broker_id=statistics.broker_id,
            version=minilog.__version__,
            ready=self._runtime.ready,
            uptime_ms=now_ms - self._began_ms,
            replicas=len(replicas),
            leaders=len(led),
            log_bytes=sum(replica.log_bytes for replica in replicas),
            written_records=sum(replica.records_in for replica in replicas),
            written_bytes=sum(replica.bytes_in for replica in replicas),
            produces=requests.total("produce_requests"),
            read_bytes=requests.total("fetch_bytes"),
            fetches=requests.total("fetch_requests"),
            at_risk=sum(sum(replica.at_risk.values()) for replica in led),
            connections=0 if listener is None else listener.open_connections,
            loop_lag_ms=round(1000 * self._runtime.statistics().loop_lag_seconds),
            behind=behind[:BEHIND_MAX],
            behind_left_out=max(0, len(behind) - BEHIND_MAX),
            lost=[_told_of(tail) for tail in tails[::-1][:LOST_MAX]],
            lost_left_out=max(0, len(tails) - LOST_MAX),
        )

    async def _lost_tails(self, cut: int, now_ms: int) -> list[LostTailInfo]:
        """The oldest cut first."""
        if cut != self._cut or now_ms - self._tails_ms >= LOST_FRESH_MS:
            self._cut, self._tails_ms = cut, now_ms
            self._tails = await self._lost.all()
        return self._tails


def _behind(led: list[PartitionStatistics]) -> Iterator[ReplicaBehind]:
    for replica in led:
        for follower, (records, behind_ms) in replica.replica_lag.items():
            if (replica.under_replicated or replica.is_moving) and records != 0:
                yield ReplicaBehind(replica.topic, replica.partition, follower, records, behind_ms)


def _told_of(tail: LostTailInfo) -> LostTold:
    by_acks = tail.records_by_acks
    replayed = 0 if tail.replay is None else tail.replay.written
    return LostTold(
        tail.tail,
        tail.broker_id,
        tail.topic,
        tail.topic_id,
        tail.partition,
        tail.cut_at_ms,
        tail.base_offset,
        tail.end_offset,
        tail.last_epoch,
        tail.records,
        (by_acks["unknown"], by_acks["0"], by_acks["1"], by_acks["many"]),
        0 if tail.replay is not None and tail.replay.finished else tail.records - replayed,
        tail.bytes,
    )
