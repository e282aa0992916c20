"""How far the group is with partitions that a member was just given: asked for in the background,
until it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from minilog.errors import MinilogError
from minilog.wire.group_messages import CommittedOffset, CommittedOffsets, CommittedOffsetsReply, TopicPartitions
from minilog_client.connection.tasks import TaskScope
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.heartbeats import MemberTask
from minilog_client.group.membership import MemberView, by_topic
from minilog_client.values import PartitionKey

_TIMEOUT_MS: Final = 5000
_PAUSE_MS: Final = 200


class StartOffsets:
    """``error``: what keeps it from finding out, None while all is well. ``know`` sees to the
    layout of a topic, by name and topic id. ``on_news`` is called when something was found or has
    failed."""

    def __init__(
        self,
        session: MemberTask,
        coordinator: Coordinator,
        tasks: TaskScope,
        know: Callable[[str, str], Awaitable[None]],
        on_news: Callable[[], None],
    ) -> None:
        self.error: MinilogError | None = None
        self._session = session
        self._coordinator = coordinator
        self._tasks = tasks
        self._know = know
        self._on_news = on_news
        self._asked: dict[PartitionKey, int] = {}
        self._found: dict[PartitionKey, tuple[int, CommittedOffset]] = {}

    def __len__(self) -> int:
        """Partitions whose offset is not known, or not taken yet."""
        return len(self._asked)

    def ask(self, view: MemberView, keys: Iterable[PartitionKey]) -> None:
        """Begin to find out, for those that are not being asked for already."""
        new = {key: view.granted[key] for key in keys if self._asked.get(key) != view.granted[key]}
        if new:
            self._asked.update(new)
            self._tasks.start(self._find(new, by_topic(new, view.topic_ids)))

    def take(self, view: MemberView) -> dict[PartitionKey, tuple[int, CommittedOffset]]:
        """What was found since the last time, by partition with its grant, as far as ``view`` still
        grants it."""
        found, self._found = self._found, {}
        for key, (grant, _) in found.items():
            if self._asked.get(key) == grant:
                del self._asked[key]
        self._asked = {key: grant for key, grant in self._asked.items() if view.holds(key, grant)}
        return {key: (grant, offset) for key, (grant, offset) in sorted(found.items()) if view.holds(key, grant)}

    async def _find(self, new: Mapping[PartitionKey, int], named: list[TopicPartitions]) -> None:
        message = CommittedOffsets(self._session.subscription.group, named)
        while any(self._session.view.holds(key, grant) for key, grant in new.items()):
            try:
                for entry in named:
                    await self._know(entry.topic, entry.topic_id)
                reply = await self._coordinator.call(message, CommittedOffsetsReply, _TIMEOUT_MS)
            except MinilogError as error:
                self.error = error
                self._on_news()
                await asyncio.sleep(_PAUSE_MS / 1000)
                continue
            offsets = {(found.topic, found.partition): found for found in reply.offsets}
            self._found.update({key: (grant, offsets.get(key, CommittedOffset(*key))) for key, grant in new.items()})
            break
        self.error = None
        self._on_news()
