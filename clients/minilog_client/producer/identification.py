"""Identification: has a broker give the producer the id that numbers its records, as long as
something waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from minilog.errors import BrokerUnavailable, InternalError, MinilogError
from minilog.wire.messages import InitProducer, InitProducerReply
from minilog_client.connection.backoff import Attempts
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.tasks import TaskScope
from minilog_client.producer.accumulator import Accumulator
from minilog_client.producer.failed_tries import Failure


class Identification:
    """``settle`` tells records that they were given up, ``wake`` that there may be something to
    send."""

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
        self.is_running = False

    def seek(self) -> None:
        """Have a broker give the producer an id, unless that is under way already, or not
        wanted."""
        if not self.is_running and self._accumulator.settings.idempotent and self._accumulator.identity.is_wanted:
            self.is_running = True
            self._tasks.start(self._ask())

    async def _ask(self) -> None:
        """Ask until there is an id, or nothing left that waits for one."""
        identity, attempts = self._accumulator.identity, Attempts()
        try:
            while identity.is_wanted:
                try:
                    reply = await self._cluster.ask_any(InitProducer(), InitProducerReply)
                    identity.assign(reply.producer_id)
                except Exception as failure:
                    error = failure if isinstance(failure, MinilogError) else InternalError(repr(failure))
                    if not self._may_ask_again(error):
                        return
                    attempts.on_failure(error, now_ms(), self._cluster.random)
                    await asyncio.sleep(max(0, attempts.retry_at_ms - now_ms()) / 1000)
        finally:
            self.is_running = False
        self._wake(0)

    def _may_ask_again(self, error: MinilogError) -> bool:
        """No id: somebody may have one soon, or no broker of this cluster ever will."""
        why = f"no producer id, which an idempotent producer needs: {error.detail}"
        self._accumulator.identity.last_error = BrokerUnavailable(why, definite=True)
        if error.retriable:
            return self._accumulator.oldest_sequence() is not None
        refusal = type(error)(f"{why}; idempotent=False sends without one", definite=True)
        self._settle(self._accumulator.fail_all(refusal))
        return False
