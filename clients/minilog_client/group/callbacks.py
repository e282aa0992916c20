"""What an application is told of the partitions its group member gets and loses."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from minilog.errors import InvalidRequest
from minilog_client.connection.own_loop import is_cancelled
from minilog_client.values import PartitionKey

Callback = Callable[[list[PartitionKey]], Awaitable[None] | None]


class Untold(Exception):
    """A callback was not carried out to its end, and not by its own doing: it is called again."""


class Callbacks:
    """Each is a function or a coroutine function of a list of (topic, partition), ascending, or
    None."""

    def __init__(
        self,
        on_assigned: Callback | None = None,
        on_revoked: Callback | None = None,
        on_lost: Callback | None = None,
    ) -> None:
        self._functions = {
            name: _checked(name, function)
            for name, function in (("on_assigned", on_assigned), ("on_revoked", on_revoked), ("on_lost", on_lost))
        }

    @property
    def given(self) -> list[str]:
        """The names of those that there are."""
        return [name for name, function in self._functions.items() if function is not None]

    async def on_assigned(self, partitions: Iterable[PartitionKey]) -> None:
        await self._call("on_assigned", partitions)

    async def on_revoked(self, partitions: Iterable[PartitionKey]) -> None:
        await self._call("on_revoked", partitions)

    async def on_lost(self, partitions: Iterable[PartitionKey]) -> None:
        await self._call("on_lost", partitions)

    async def _call(self, name: str, partitions: Iterable[PartitionKey]) -> None:
        function = self._functions[name]
        if function is None:
            return
        try:
            result = function(sorted(partitions))
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            if is_cancelled():  # nobody waits for the callback any more
                raise
            raise InvalidRequest(
                f"{name} ended with a CancelledError although nobody has cancelled it: what it waited for was cancelled; "
                "catch that within the callback"
            ) from error


def _checked(name: str, function: Any) -> Callback | None:
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be a function of a list of (topic, partition), got {type(function).__name__}")
    return function  # type: ignore[no-any-return]
