"""A producer of values that are not bytes. ``Producer`` is the engine, this writes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Generic, Self

from minilog_client.observing.figures import ProducerStatistics
from minilog_client.producer.producer import Producer
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.serializers.encoding import Encoding
from minilog_client.serializers.type_variables import K, V
from minilog_client.values import HeadersLike


class TypedProducer(Generic[V, K]):
    """Made by ``client.producer(value=..., key=...)``. The same as ``Producer``, which ``untyped``
    is. What cannot be written raises InvalidRequest, and nothing is sent."""

    def __init__(self, untyped: Producer, encoding: Encoding) -> None:
        self.untyped = untyped
        self._encoding = encoding

    async def __aenter__(self) -> Self:
        await self.untyped.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        await self.untyped.__aexit__(kind, *rest)

    async def send(
        self,
        topic: str,
        value: V | None,
        key: K | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Receipt:
        """See ``Producer.send``."""
        data, own = self._encoding.value(value), self._encoding.key(key)
        return await self.untyped.send(topic, data, own, headers, partition=partition, timestamp_ms=timestamp_ms)

    def send_nowait(
        self,
        topic: str,
        value: V | None,
        key: K | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Receipt]:
        """See ``Producer.send_nowait``."""
        data, own = self._encoding.value(value), self._encoding.key(key)
        return self.untyped.send_nowait(topic, data, own, headers, partition=partition, timestamp_ms=timestamp_ms)

    async def send_many(
        self,
        topic: str,
        values: Iterable[V | None],
        *,
        keys: Iterable[K | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> list[BatchReceipt]:
        """See ``Producer.send_many``. ``values`` are values only."""
        pairs = self._encoding.pairs(values, keys)
        return await self.untyped.send_many(topic, pairs, partition=partition, timestamp_ms=timestamp_ms)

    async def flush(self, timeout_ms: int | None = None) -> int:
        """See ``Producer.flush``."""
        return await self.untyped.flush(timeout_ms)

    async def close(self, timeout_ms: int | None = None) -> int:
        """See ``Producer.close``."""
        return await self.untyped.close(timeout_ms)

    def statistics(self) -> ProducerStatistics:
        return self.untyped.statistics()
