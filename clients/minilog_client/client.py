"""The asynchronous client: one per cluster and event loop; it makes producers, consumers and the admin."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Self, TypeVar

from minilog.errors import ClientClosed, InvalidRequest
from minilog_client.admin import Admin
from minilog_client.cluster import Cluster
from minilog_client.consumer import Consumer, TopicsLike
from minilog_client.fetching import StartLike
from minilog_client.producer import Producer
from minilog_client.protocol import broker_urls
from minilog_client.sender import Sender
from minilog_client.settings import ClientSettings, ConsumerSettings, ProducerSettings
from minilog_client.transport import HttpTransport, Transport

S = TypeVar("S", ClientSettings, ProducerSettings, ConsumerSettings)


class AsyncClient(Admin):
    """Connects to the cluster that the brokers at ``bootstrap`` belong to.

    ```python
    async with AsyncClient("http://127.0.0.1:8082,http://127.0.0.1:8083") as client:
        async with client.producer(acks="all") as producer:
            print(await producer.send("orders", b"hello"))
        async with client.consumer("orders", start="earliest") as consumer:
            print(await consumer.batch(max_wait_ms=1000))
    ```

    Topics and the cluster are looked after with ``create_topic``, ``list_topics``, ``offsets``, ``health`` and the
    other methods of ``Admin``. Nothing is connected before it is needed. Options are those of ``ClientSettings``, ``ProducerSettings`` and
    ``ConsumerSettings``; an unknown or impossible one raises InvalidRequest. Closing the client closes what it made.
    """

    def __init__(self, bootstrap: str | Sequence[str], *, transport: Transport | None = None, **options: Any) -> None:
        settings = settings_from(ClientSettings, options)
        urls = broker_urls(bootstrap)
        transport = HttpTransport(settings.connect_timeout_ms) if transport is None else transport
        self._cluster = Cluster(urls, transport, settings, Random())
        self._owned: dict[Producer | Consumer, None] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def producer(self, **options: Any) -> Producer:
        """A producer; for its options see ``ProducerSettings``, for instance ``acks``, ``linger_ms``, ``compression``."""
        self._check_open()
        settings = settings_from(ProducerSettings, options)
        producer = Producer(Sender(self._cluster, settings), self._forget)
        self._owned[producer] = None
        return producer

    def consumer(
        self, topics: TopicsLike, *, start: StartLike = "earliest", group: str | None = None, **options: Any
    ) -> Consumer:
        """A consumer of whole topics or single partitions; for its options see ``ConsumerSettings``."""
        self._check_open()
        if group is not None:
            raise InvalidRequest(
                f"group is {group!r}, but consumer groups are not supported yet; leave group out and assign "
                "partitions yourself, for example consumer([('orders', 0)])"
            )
        settings = settings_from(ConsumerSettings, options)
        consumer = Consumer(self._cluster, topics, start, settings, self._forget)
        self._owned[consumer] = None
        return consumer

    async def close(self) -> None:
        """Close all producers (flushing them first) and consumers, then the connections. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            for owned in list(self._owned):
                await owned.close()
        finally:
            await self._cluster.aclose()

    def _forget(self, owned: Producer | Consumer) -> None:
        self._owned.pop(owned, None)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed; make a new one")


def settings_from(kind: type[S], options: dict[str, Any]) -> S:
    """Settings from keyword options; raises InvalidRequest for one that does not exist."""
    allowed = kind.__dataclass_fields__
    for name in options:
        if name not in allowed:
            raise InvalidRequest(f"there is no option {name!r}; allowed are {', '.join(sorted(allowed))}")
    return kind(**options)
