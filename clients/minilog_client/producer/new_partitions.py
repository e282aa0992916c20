"""Records for partitions beyond those that are known: the layout is asked for anew before they are
refused, for a partition may have been added a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from minilog.errors import MinilogError
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.tasks import TaskScope
from minilog_client.producer.accumulator import Accumulator
from minilog_client.producer.failed_tries import Failure

_PAUSE_S: Final = 0.1


class NewPartitions:
    """``settle`` tells of records that were given up, ``wake`` asks for the pump."""

    def __init__(
        self,
        cluster: Cluster,
        accumulator: Accumulator,
        tasks: TaskScope,
        settle: Callable[[Sequence[Failure]], None],
        wake: Callable[[int], None],
    ) -> None:
        self._cluster = cluster
        self._accumulator = accumulator
        self._tasks = tasks
        self._settle = settle
        self._wake = wake
        self._asking: set[str] = set()

    def ask(self) -> None:
        for topic in self._accumulator.beyond - self._asking:
            self._asking.add(topic)
            self._tasks.start(self._ask(topic))

    async def know(self, topic: str, partition: int) -> None:
        """``partition`` is known, or is not there now."""
        known = self._cluster.routing.topic(topic)
        if known is not None and partition >= known.partition_count:
            await self._cluster.refresh(topic, is_anew=True)
            self._wake(0)
            await asyncio.sleep(0)

    async def _ask(self, topic: str) -> None:
        asked_after = self._accumulator.last_sequence
        try:
            await self._cluster.refresh(topic, is_anew=True)
            self._accumulator.beyond.discard(topic)
            known = self._cluster.routing.topic(topic)
            if known is not None and known.partition_count:
                shape = known.partition_count, known.message_bytes_max
                self._settle(self._accumulator.on_partitions(topic, *shape, now_ms(), known.topic_id, asked_after))
        except MinilogError:  # nobody answers: the records wait until they expire
            await asyncio.sleep(_PAUSE_S)
        finally:
            self._asking.discard(topic)
            self._wake(0)
