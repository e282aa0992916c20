"""The loop of a worker: each record is handled, tried again, or put aside. At least once.

A record counts as finished when the next one is asked for. So nothing is committed before the
record was handled, or its dead letter acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from minilog_client.connection.cluster import now_ms
from minilog_client.connection.own_loop import is_cancelled
from minilog_client.consumer.consumer import Consumer
from minilog_client.consumer.records import Record
from minilog_client.producer.producer import Producer
from minilog_client.serializers.serializer import SerializerLike
from minilog_client.serializers.type_variables import K, V
from minilog_client.worker.retries import Retries
from minilog_client.worker.tries import Tries, decoding_for


async def work(
    consumer: Consumer,
    handle: Callable[[Record[V, K]], Awaitable[object]],
    *,
    producer: Producer,
    dead_letters: str,
    retries: Retries | None = None,
    value: SerializerLike[V] | None = None,
    key: SerializerLike[K] | None = None,
) -> None:
    """Call ``handle`` for each record, one after the other, until ``consumer.stop()`` is called.

    A record for which it raises is tried again, as ``retries`` say. One that fails to the last, or
    that is not what ``value`` and ``key`` say, is sent to the topic ``dead_letters`` by
    ``producer``. Only after that it counts as finished. Raises what the consumer raises, and the
    producer's error when a dead letter cannot be written. That record comes again, here or at
    another member."""
    decoding, rules = decoding_for(consumer._plan.decoding, dead_letters, value, key), retries or Retries()
    async for raw in consumer:
        tries = Tries(raw, decoding, rules)
        while tries.is_due and tries.record is not None:
            try:
                await handle(tries.record)
                tries.on_handled()
            except (Exception, asyncio.CancelledError) as error:  # whatever the application raises
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                await _wait(consumer, tries.on_failed(error))
                if tries.is_due and consumer._is_stopping:
                    await consumer.close()
                    return
        if tries.failure is not None:
            await producer.send(dead_letters, raw.value, raw.key, tries.headers)


async def _wait(consumer: Consumer, delay_s: float) -> None:
    deadline_ms = now_ms() + int(delay_s * 1000)
    while now_ms() < deadline_ms and not consumer._is_stopping:
        await consumer._wait_news(deadline_ms)
