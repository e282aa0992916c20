"""The layouts of the topics that a member is given: those of the very topics, and what was added to
them since."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minilog.errors import InconsistentTopicId
from minilog_client.connection.cluster import Cluster
from minilog_client.values import PartitionKey


class Layouts:
    """``watch`` keeps the layout of topics fresh from now on."""

    def __init__(self, cluster: Cluster, watch: Callable[[Iterable[str]], None]) -> None:
        self._cluster = cluster
        self._watch = watch
        self._first_counts: dict[tuple[str, str], int] = {}
        """How many partitions a topic of that name and id had when it was first seen."""

    def see(self, topics: Iterable[str]) -> None:
        for topic in topics:
            known = self._cluster.routing.topic(topic)
            if known is not None:
                self._first_counts.setdefault((topic, known.topic_id), known.partition_count)

    def is_added(self, key: PartitionKey, topic_id: str) -> bool:
        """The partition was added to its topic after that was first seen."""
        topic, partition = key
        first = self._first_counts.get((topic, topic_id))
        return first is not None and partition >= first

    async def know(self, topic: str, topic_id: str) -> None:
        """Have a layout that is not older than what the coordinator went by: partitions may be new,
        or all of it.

        Raises InconsistentTopicId while the layout is of another topic of that name: whoever told
        it has not heard of the new topic yet, or the coordinator has not."""
        self._watch([topic])
        await self._cluster.refresh(topic)
        await self._cluster.topic(topic)
        if topic_id not in ("", self.topic_id(topic)):
            raise InconsistentTopicId(
                f"this member was given the topic {topic} with topic id {topic_id}, the brokers asked know it with "
                f"{self.topic_id(topic)}; one of the two was made anew",
                topic_id=topic_id,
            )

    def topic_id(self, topic: str) -> str:
        """Of the topic that has the name now, as far as it is known, "" for none."""
        known = self._cluster.routing.topic(topic)
        return known.topic_id if known else ""
