"""Metrics of a broker: what its HTTP face counts, and what core and runtime say when asked.

Nothing of other processes is told here but what the cluster looks like from this broker. ``broker``
is always the exporting broker, ``replica`` the follower spoken of.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from minilog.broker.metrics import kafka_series
from minilog.broker.metrics.group_series import GroupSeries
from minilog.broker.metrics.partition_series import PartitionSeries
from minilog.broker.metrics.process_series import write_cluster, write_process, write_standing
from minilog.broker.metrics.request_counters import RequestCounters
from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import PartitionStatistics
from minilog.server.disk_space import DiskSpace
from minilog.server.exposition import Exposition
from minilog.server.process_facts import write_access, write_build, write_peers
from minilog.server.security.gate import Gate


class Metrics:
    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = RequestCounters(self.registry, lambda: runtime.image)
        self.listener: Any = None
        """Set by the server that has one."""
        self._runtime, self._gate = runtime, gate
        self._partitions = PartitionSeries(runtime)
        self._groups = GroupSeries(runtime)
        self._disk = DiskSpace(runtime.settings.data_dir)
        self._peers = getattr(runtime, "peers", None)
        flusher = getattr(runtime, "flusher", None)
        if flusher is not None:
            self.registry.register(flusher.latency)
        if self._peers is not None:
            self.registry.register(self._peers.queue_latency)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    async def replicas(self) -> list[PartitionStatistics]:
        return await self._partitions.read()

    async def render(self) -> bytes:
        """The text that Prometheus reads."""
        runtime, page = self._runtime, Exposition()
        write_build(page, "broker", runtime.settings.broker_id, runtime.image.cluster_id)
        write_cluster(page, runtime)
        write_process(page, runtime, self.listener)
        write_access(page, self._gate)
        if self._peers is not None:
            write_peers(page, self._peers.failures)
        write_standing(page, runtime, runtime.core.statistics(runtime.clock.now_ms()))
        self.requests.write(page)
        await self._disk.look()
        self._disk.write(page)
        await self._partitions.write(page, await self._partitions.read())
        await self._groups.write(page, await self._groups.read())
        return await asyncio.to_thread(lambda: page.text() + generate_latest(self.registry))

    async def render_kafka(self) -> bytes:
        """The same facts under the names that boards for Kafka ask for."""
        runtime, page = self._runtime, Exposition()
        statistics = runtime.core.statistics(runtime.clock.now_ms())
        kafka_series.write_broker(page, runtime, statistics, self.listener)
        replicas = await self._partitions.read()
        await kafka_series.write_partitions(page, replicas, self._partitions.shown(replicas))
        kafka_series.write_topics(page, self.requests, replicas)
        groups = await self._groups.read()
        await kafka_series.write_groups(page, self._groups, groups, runtime.settings.metrics_groups_max)
        return await asyncio.to_thread(lambda: page.text() + generate_latest(self._process))
