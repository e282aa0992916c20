"""Which partition of which topic, by name: what everybody keys by. A topic of that name is meant by
its id elsewhere."""

from __future__ import annotations

from typing import NamedTuple


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"
