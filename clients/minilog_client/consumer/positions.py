"""Where a consumer stands in its partitions, and how it is moved there."""

from __future__ import annotations

import time
from collections.abc import Callable

from minilog_client.connection.cluster import Cluster
from minilog_client.consumer.fetch_plan import FetchPlan
from minilog_client.consumer.partition_fetch import Lag, PartitionFetch
from minilog_client.consumer.pump import Pump
from minilog_client.consumer.start import Start, StartLike, as_time, parse_start
from minilog_client.values import PartitionKey


class Positions:
    """The part of ``Consumer`` that says and changes where it reads."""

    _cluster: Cluster
    _plan: FetchPlan
    _pump: Pump
    _tell: Callable[[], None]
    _topic_ids: dict[str, str]
    _current: PartitionFetch | None
    """The partition whose records are handed out one by one."""

    @property
    def assignment(self) -> list[PartitionKey]:
        """The partitions being read."""
        return sorted(self._plan.states)

    def position(self, topic: str, partition: int) -> int | None:
        """The offset of the next record to be handed out; None until the start is known."""
        return self._plan.state(topic, partition).position

    def positions(self) -> dict[PartitionKey, int | None]:
        return {key: state.position for key, state in self._plan.states.items()}

    def lag(self) -> dict[PartitionKey, Lag]:
        """Per partition, as of the last answer of its leader (at most ``max_wait_ms`` old while it
        answers)."""
        now_s = time.time()
        return {key: state.lag(now_s) for key, state in list(self._plan.states.items())}

    @property
    def skipped(self) -> int:
        """How many records were left out because they are not what ``value`` and ``key`` say (with
        ``undecodable="skip"``)."""
        return 0 if self._plan.decoding is None else self._plan.decoding.skipped

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        """Go on elsewhere: an offset, "earliest", "latest", "@" with ms, or a datetime. Clears the
        partition's error."""
        state = self._plan.state(topic, partition)
        kind, value = parse_start(to)
        if kind is Start.TIME:
            self._cluster.time_units.look_at(topic, value)
        state.reset(to)
        state.attempts.on_success()
        state.topic_id = self._topic_ids[topic] = self._current_topic_id(topic) or state.topic_id
        if self._current is state:
            self._current = None
        self._pump.wake(0)

    def seek_to_time(self, to: StartLike, topic: str | None = None) -> None:
        """Move every partition (of ``topic``, or of all) to its first record at or after ``to``. An
        int is in ms."""
        for name, partition in self.of_topic(topic):
            self.seek(name, partition, as_time(to))

    def of_topic(self, topic: str | None) -> list[PartitionKey]:
        """The partitions being read of ``topic``, or of all topics."""
        return [key for key in self.assignment if topic in (None, key[0])]

    def pause(self, topic: str, partition: int) -> None:
        """Hand out and fetch nothing of a partition until ``resume``. Its position stays."""
        state = self._plan.state(topic, partition)
        state.paused = True
        if self._current is state:
            self._current = None

    def resume(self, topic: str, partition: int) -> None:
        state = self._plan.state(topic, partition)
        state.paused = False
        state.attempts.on_success()
        self._tell()
        self._pump.wake(0)

    def _current_topic_id(self, topic: str) -> str:
        known = self._cluster.routing.topic(topic)
        return known.topic_id if known else ""
