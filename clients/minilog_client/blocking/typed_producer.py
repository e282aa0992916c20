"""The producer without ``await`` of values that are not bytes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Generic, Self

from minilog_client.blocking.producer import SyncProducer
from minilog_client.observing.figures import ProducerStatistics
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.serializers.encoding import Encoding
from minilog_client.serializers.type_variables import K, V
from minilog_client.values import HeadersLike


class SyncTypedProducer(Generic[V, K]):
    """See ``TypedProducer``. ``untyped`` is the ``SyncProducer`` that sends."""

    def __init__(self, untyped: SyncProducer, encoding: Encoding) -> None:
        self.untyped = untyped
        self._encoding = encoding

    def __enter__(self) -> Self:
        self.untyped.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.untyped.__exit__(kind, *rest)

    def send(
        self,
        topic: str,
        value: V | None,
        key: K | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Future[Receipt]:
        """See ``SyncProducer.send``."""
        data, own = self._encoding.value(value), self._encoding.key(key)
        return self.untyped.send(topic, data, own, headers, partition=partition, timestamp_ms=timestamp_ms)

    def send_many(
        self,
        topic: str,
        values: Iterable[V | None],
        *,
        keys: Iterable[K | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> list[BatchReceipt]:
        """See ``TypedProducer.send_many``."""
        pairs = self._encoding.pairs(values, keys)
        return self.untyped.send_many(topic, pairs, partition=partition, timestamp_ms=timestamp_ms)

    def flush(self, timeout_ms: int | None = None) -> int:
        """See ``Producer.flush``."""
        return self.untyped.flush(timeout_ms)

    def close(self, timeout_ms: int | None = None) -> int:
        """See ``SyncProducer.close``."""
        return self.untyped.close(timeout_ms)

    def statistics(self) -> ProducerStatistics:
        return self.untyped.statistics()
