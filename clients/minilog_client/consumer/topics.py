"""What an application names to read from: whole topics, and single partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minilog.errors import InvalidRequest
from minilog.wire.http import topic_name
from minilog_client.values import PartitionKey

TopicsLike = str | Iterable[str | tuple[str, int]]


def parse_topics(topics: TopicsLike) -> tuple[list[str], list[PartitionKey]]:
    """Topics read as a whole, and single partitions."""
    whole: dict[str, None] = {}
    fixed: dict[PartitionKey, None] = {}
    if isinstance(topics, Mapping):
        raise TypeError("topics must be a topic, or a list of topics and (topic, partition) pairs, got a mapping")
    for item in [topics] if isinstance(topics, str) else topics:
        if isinstance(item, str):
            whole[topic_name(item)] = None
        elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], int):
            fixed[topic_name(item[0]), item[1]] = None
        else:
            raise TypeError(f"topics must hold topics and (topic, partition) pairs, got {item!r}")
    if not whole and not fixed:
        raise InvalidRequest("no topic to read from; name at least one")
    return list(whole), list(fixed)
