"""How far the group is with partitions that a member was just given: asked for in the background,
until it is known.

Invariants:
* What was found is kept by partition and grant. An answer for a grant that is over is no answer for
  the next one (R5).
* What is asked for is being looked up by a task. When the task ends, its part is found or is not
  asked for any more.
* A topic that cannot be looked up is that topic's trouble. What came with it is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from minilog.errors import InternalError, MinilogError
from minilog.wire.group_messages import CommittedOffset, CommittedOffsets, CommittedOffsetsReply
from minilog_client.connection.tasks import TaskScope
from minilog_client.group.coordinator import Coordinator
from minilog_client.group.heartbeats import MemberTask
from minilog_client.group.membership import MemberView, by_topic
from minilog_client.values import PartitionKey

_TIMEOUT_MS: Final = 5000
_PAUSE_MS: Final = 200
_PAUSE_MAX_MS: Final = 1000
Grants = dict[PartitionKey, int]
Know = Callable[[Mapping[str, str]], Awaitable[dict[str, MinilogError]]]


class StartOffsets:
    """``know`` sees to the layouts of topics, by name and topic id, and returns what is wrong with
    which of them. ``on_news`` is called when something was found or has failed."""

    def __init__(
        self,
        session: MemberTask,
        coordinator: Coordinator,
        tasks: TaskScope,
        know: Know,
        on_news: Callable[[], None],
    ) -> None:
        self._session = session
        self._coordinator = coordinator
        self._tasks = tasks
        self._know = know
        self._on_news = on_news
        self._asked: Grants = {}
        self._found: dict[tuple[PartitionKey, int], CommittedOffset] = {}
        self._errors: dict[PartitionKey, MinilogError] = {}

    def __len__(self) -> int:
        """Partitions whose offset is not known, or not taken yet."""
        return len(self._asked)

    @property
    def error(self) -> MinilogError | None:
        """What keeps it from finding out, None while all is well."""
        return next((error for key, error in self._errors.items() if key in self._asked), None)

    def ask(self, view: MemberView, keys: Iterable[PartitionKey]) -> None:
        """Begin to find out, for those that are not being asked for already."""
        new = {key: view.granted[key] for key in keys if self._asked.get(key) != view.granted[key]}
        if new:
            self._asked.update(new)
            self._tasks.start(self._find(new))

    def take(self, view: MemberView) -> dict[PartitionKey, tuple[int, CommittedOffset]]:
        """What was found since the last time, by partition with its grant, as far as ``view`` still
        grants it."""
        found, self._found = self._found, {}
        for key, grant in found:
            self._forget(key, grant)
        for key, grant in list(self._asked.items()):
            if not view.holds(key, grant):
                self._forget(key, grant)
        return {key: (grant, found[key, grant]) for key, grant in sorted(found) if view.holds(key, grant)}

    def _forget(self, key: PartitionKey, grant: int) -> None:
        """This grant is asked for no more. A newer one may be."""
        if self._asked.get(key) == grant:
            del self._asked[key]
            self._errors.pop(key, None)

    async def _find(self, new: Grants) -> None:
        left, pause_ms = new, _PAUSE_MS
        try:
            while left := self._wanted(left):
                error = await self._look_up(left)
                self._on_news()
                if error is not None:
                    await asyncio.sleep(pause_ms / 1000)
                    pause_ms = min(2 * pause_ms, _PAUSE_MAX_MS)
        finally:
            for key, grant in self._wanted(left).items():
                self._forget(key, grant)

    def _wanted(self, grants: Grants) -> Grants:
        """Those of ``grants`` that are held, and not found yet."""
        view = self._session.view
        return {
            key: grant
            for key, grant in grants.items()
            if view.holds(key, grant) and self._asked.get(key) == grant and (key, grant) not in self._found
        }

    async def _look_up(self, wanted: Grants) -> MinilogError | None:
        """One try. Returns why some of it was not found."""
        topic_ids = {key: self._session.view.topic_ids.get(key, "") for key in wanted}
        try:
            troubles = await self._know({key[0]: topic_id for key, topic_id in topic_ids.items()})
            well = {key: grant for key, grant in wanted.items() if key[0] not in troubles}
            if well:
                await self._ask_coordinator(well, topic_ids)
        except MinilogError as error:
            troubles = {key[0]: error for key in wanted}
        except Exception as fault:
            troubles = {key[0]: InternalError(f"looking up an offset failed: {fault!r}") for key in wanted}
        for key, grant in wanted.items():
            if key[0] in troubles and self._asked.get(key) == grant:
                self._errors[key] = troubles[key[0]]
        return next(iter(troubles.values()), None)

    async def _ask_coordinator(self, wanted: Grants, topic_ids: Mapping[PartitionKey, str]) -> None:
        message = CommittedOffsets(self._session.subscription.group, by_topic(wanted, topic_ids))
        reply = await self._coordinator.call(message, CommittedOffsetsReply, _TIMEOUT_MS)
        offsets = {(found.topic, found.partition): found for found in reply.offsets}
        for key, grant in wanted.items():
            if self._asked.get(key) == grant:
                self._found[key, grant] = offsets.get(key, CommittedOffset(*key))
                self._errors.pop(key, None)
