"""The layouts of the topics that a member is given: those of the very topics, and what was added to
them since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from minilog.errors import InconsistentTopicId, MinilogError, UnknownTopic
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

    async def know(self, topics: Mapping[str, str]) -> dict[str, MinilogError]:
        """Have layouts of ``topics``, by name and topic id, that are not older than what the
        coordinator went by: partitions may be new, or all of it. They are asked for together.

        Returns what is wrong with which of them. Raises BrokerUnavailable."""
        self._watch(topics)
        await self._cluster.refresh(is_anew=True)
        troubles = {topic: self._trouble(topic, topic_id) for topic, topic_id in topics.items()}
        return {topic: trouble for topic, trouble in troubles.items() if trouble is not None}

    def _trouble(self, topic: str, topic_id: str) -> MinilogError | None:
        """While the layout is of another topic of that name, whoever told it has not heard of the
        new topic yet, or the coordinator has not."""
        known = self._cluster.routing.topic(topic)
        if known is None or not known.partition_count:
            return UnknownTopic(f"this member was given the topic {topic}, and the brokers asked know of none")
        if topic_id in ("", known.topic_id):
            return None
        return InconsistentTopicId(
            f"this member was given the topic {topic} with topic id {topic_id}, the brokers asked know it with "
            f"{known.topic_id}; one of the two was made anew",
            topic_id=topic_id,
        )

    def topic_id(self, topic: str) -> str:
        """Of the topic that has the name now, as far as it is known, "" for none."""
        known = self._cluster.routing.topic(topic)
        return known.topic_id if known else ""
