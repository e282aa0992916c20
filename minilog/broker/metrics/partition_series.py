"""What this broker knows of the replicas it hosts.

Every replica tells its offsets. Facts about a partition as a whole come from its leader alone, so
that sums over brokers count nothing twice. Sums are told of all replicas. Series of their own have
``metrics_partitions_max`` of them, those in trouble first.

Both are read and written in slices of ``SLICE``, with the loop free in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from minilog.broker.metrics.catch_up import CatchUp
from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import PartitionStatistics
from minilog.core.replication.at_risk import EARLIER
from minilog.server.exposition import Exposition, Family, labels
from minilog.wire.http import acks_text
from minilog.wire.journal.metadata_records import NO_LEADER

SLICE: Final = 100
_OF_ALL: Final = (
    ("gauge", "minilog_partition_log_start_offset", "First offset that is still there", "log_start_offset"),
    ("gauge", "minilog_partition_high_watermark", "Committed end: records below it can be read", "high_watermark"),
    (
        "gauge",
        "minilog_partition_log_end_offset",
        "Offset the next record will get on this replica",
        "log_end_offset",
    ),
    ("gauge", "minilog_log_bytes", "Bytes of the log on disk", "log_bytes"),
    (
        "counter",
        "minilog_isr_shrinks",
        "Times the ISR lost members, as this broker saw it leading",
        "isr_shrinks",
    ),
    ("counter", "minilog_isr_expands", "Times the ISR got members, as this broker saw it leading", "isr_expands"),
    (
        "counter",
        "minilog_partition_records_in",
        "Records that producers have written while this broker led",
        "records_in",
    ),
    (
        "counter",
        "minilog_partition_bytes_in",
        "Bytes of record batches that producers have written while this broker led",
        "bytes_in",
    ),
)
_OF_LEADERS: Final = (
    ("gauge", "minilog_partition_isr_size", "In-sync replicas, as the leader sees them", "isr_size"),
    ("gauge", "minilog_partition_replicas", "Assigned replicas", "replicas"),
    (
        "gauge",
        "minilog_partition_under_replicated",
        "1 when replicas are missing from the ISR",
        "under_replicated",
    ),
    (
        "gauge",
        "minilog_partition_under_min_isr",
        "1 when the ISR is smaller than min.insync.replicas",
        "under_min_isr",
    ),
)
_LED_STATES: Final = ("under_replicated", "at_min_isr", "under_min_isr")


class PartitionSeries:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._catch_up = CatchUp()

    async def read(self) -> list[PartitionStatistics]:
        """Of all replicas here."""
        core, clock = self._runtime.core, self._runtime.clock
        hosted = core.hosted()
        found: list[PartitionStatistics] = []
        for start in range(0, len(hosted), SLICE):
            found += core.replica_statistics(hosted[start : start + SLICE], clock.now_ms())
            await asyncio.sleep(0)
        return found

    async def write(self, page: Exposition, replicas: list[PartitionStatistics]) -> None:
        self._write_sums(page, replicas)
        most = self._runtime.settings.metrics_partitions_max
        omitted = max(0, len(replicas) - most)
        page.gauge(
            "minilog_partitions_omitted",
            "Replicas here without series of their own, because there are more than metrics_partitions_max",
            omitted,
        )
        self._write_at_risk(page, replicas, most)
        shown = self.shown(replicas)
        families = _Families(page)
        for start in range(0, len(shown), SLICE):
            for replica in shown[start : start + SLICE]:
                families.add(replica, self._leader_of(replica), self._runtime.settings.broker_id)
            await asyncio.sleep(0)

    def shown(self, replicas: list[PartitionStatistics]) -> list[PartitionStatistics]:
        """Those that have series of their own."""
        most = self._runtime.settings.metrics_partitions_max
        return sorted(replicas, key=self._rank)[:most] if len(replicas) > most else replicas

    def _rank(self, replica: PartitionStatistics) -> tuple[bool, bool, str, int]:
        is_fine = not replica.is_troubled and self._leader_of(replica) != NO_LEADER
        return is_fine, not replica.is_leader, replica.topic, replica.partition

    def _leader_of(self, replica: PartitionStatistics) -> int:
        state = self._runtime.image.partition(replica.topic, replica.partition)
        return NO_LEADER if state is None else state.leader

    def _write_sums(self, page: Exposition, replicas: list[PartitionStatistics]) -> None:
        led = [replica for replica in replicas if replica.is_leader]
        page.gauge("minilog_replicas_hosted", "Replicas on this broker", len(replicas))
        page.gauge(
            "minilog_log_bytes_hosted", "Bytes of all logs on this broker", sum(each.log_bytes for each in replicas)
        )
        states = page.gauge("minilog_partitions_led", "Partitions that this broker leads, by state")
        states.add(labels(state="all"), len(led))
        states.add(labels(state="not_preferred"), sum(not each.is_preferred for each in led))
        for state in _LED_STATES:
            states.add(labels(state=state), sum(getattr(each, state) for each in led))
        self._write_paces(page, led)

    def _write_paces(self, page: Exposition, led: Iterable[PartitionStatistics]) -> None:
        behind: Counter[int] = Counter()
        for replica in led:
            for follower, (lag, _) in replica.replica_lag.items():
                if follower not in replica.isr:
                    behind[follower] += replica.log_end_offset if lag is None else lag
        records = page.gauge(
            "minilog_catch_up_records", "Records that a follower out of the ISR still lacks of what is led here"
        )
        rate = page.gauge(
            "minilog_catch_up_records_per_second", "By how much that gets less, below 0 when the follower falls behind"
        )
        eta = page.gauge("minilog_catch_up_eta_seconds", "When the follower will have caught up at this rate")
        for follower, pace in sorted(self._catch_up.paces(behind, self._runtime.clock.now_ms()).items()):
            of = labels(broker=self._runtime.settings.broker_id, replica=follower)
            records.add(of, pace.behind)
            if pace.per_second is not None:
                rate.add(of, round(pace.per_second, 3))
            if pace.eta_s is not None:
                eta.add(of, round(pace.eta_s, 3))

    def _write_at_risk(self, page: Exposition, replicas: list[PartitionStatistics], most: int) -> None:
        by_topic: dict[str, Counter[int]] = {}
        for replica in replicas:
            if replica.is_leader:
                by_topic.setdefault(replica.topic, Counter({0: 0, 1: 0})).update(replica.at_risk)
        family = page.gauge(
            "minilog_records_at_risk",
            "Records that were acknowledged and are not committed: lost if their leader died now",
        )
        for topic, acks, records in _largest(by_topic, most):
            family.add(labels(topic=topic, acks="unknown" if acks == EARLIER else acks_text(acks)), records)


def _largest(by_topic: dict[str, Counter[int]], most: int) -> Iterator[tuple[str, int, int]]:
    shown = sorted(by_topic.items(), key=lambda item: (-item[1].total(), item[0]))[:most]
    for topic, by_acks in shown:
        for acks, records in sorted(by_acks.items()):
            yield topic, acks, records


class _Families:
    """Of the series of one partition each."""

    def __init__(self, page: Exposition) -> None:
        self._of_all = [_family(page, *about) for about in _OF_ALL]
        self._of_leaders = [_family(page, *about) for about in _OF_LEADERS]
        self._leader = page.gauge("minilog_partition_leader", "Broker id of the leader, -1 for none")
        self._offline = page.gauge("minilog_partition_offline", "1 when the partition has no leader")
        self._lag = page.gauge("minilog_replica_lag_records", "Records a follower is behind its leader")
        self._lag_s = page.gauge(
            "minilog_replica_lag_seconds", "For how long a follower has not held all of its leader's log"
        )

    def add(self, replica: PartitionStatistics, leader: int, broker_id: int) -> None:
        place = f'broker="{broker_id}",partition="{replica.partition}"'
        of = f'{{{place},topic="{replica.topic}"}}'
        for family, field in self._of_all:
            family.add(of, getattr(replica, field))
        self._leader.add(of, leader)
        self._offline.add(of, int(leader == NO_LEADER))
        if not replica.is_leader:
            return
        for family, field in self._of_leaders:
            family.add(of, int(getattr(replica, field)))
        for follower, (records, behind_ms) in replica.replica_lag.items():
            follower_of = f'{{{place},replica="{follower}",topic="{replica.topic}"}}'
            if records is not None:
                self._lag.add(follower_of, records)
            self._lag_s.add(follower_of, behind_ms / 1000)


def _family(page: Exposition, kind: str, name: str, doc: str, field: str) -> tuple[Family, str]:
    make = page.gauge if kind == "gauge" else page.counter
    return make(name, doc), field
