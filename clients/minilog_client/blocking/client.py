"""The same client without ``await``: a thread owns an event loop, and every call is carried out
there.

There is no second implementation: each method hands its work to the asynchronous object of the same
name. Objects here may be used from any thread. A consumer from one at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, Unpack, overload
from weakref import WeakMethod, WeakSet

from minilog.errors import ClientClosed
from minilog.wire.admin_messages import LeaderMove
from minilog.wire.json.json_answers import ClusterInfo, GroupDescription, Health
from minilog.wire.json.lever_answers import TopicAltered
from minilog.wire.json.receipt_answers import CheckedReceipt
from minilog.wire.messages import BrokerInfo, TopicInfo
from minilog_client.admin.admin import TIMEOUT_MS
from minilog_client.admin.group_admin import GroupLag, GroupList, OffsetChange
from minilog_client.blocking.callbacks import SyncCallback, in_waiting_thread, run_with_callbacks
from minilog_client.blocking.consumer import AnySyncConsumer, SyncConsumer, SyncGroupConsumer
from minilog_client.blocking.producer import SyncProducer, close_quietly
from minilog_client.blocking.typed_producer import SyncTypedProducer
from minilog_client.client import AsyncClient, first_failure
from minilog_client.connection.environment import urls_of_environment
from minilog_client.connection.forgotten import Remains, caller, made_at
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.transport import Transport
from minilog_client.connection.work import Work
from minilog_client.consumer.consumer import AnyConsumer
from minilog_client.consumer.start import StartLike
from minilog_client.consumer.topics import TopicsLike
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.observing.events import ClientObserver
from minilog_client.observing.figures import ClientFigures
from minilog_client.options import ClientOptions, ConsumerOptions, GroupOptions, ProducerOptions
from minilog_client.producer import at_exit
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.serializers.encoding import Encoding
from minilog_client.serializers.serializer import SerializerLike
from minilog_client.serializers.type_variables import K, V
from minilog_client.values import PartitionKey, checked_timeout


class Client:
    """Connects to the cluster that the brokers at ``bootstrap`` belong to; see ``AsyncClient`` for
    the options.

    ```python
    with Client("http://127.0.0.1:8082") as client:
        producer = client.producer()
        print(producer.send("orders", b"hello").result())
        with client.consumer("orders", group="billing") as consumer:  # as a member
            for record in consumer:
                print(record.offset, record.value)
                break
    ```
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        transport: Transport | None = None,
        observer: ClientObserver | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._thread = LoopThread("minilog_client")
        self._producers: dict[SyncProducer, None] = {}
        self._consumers: WeakSet[AnySyncConsumer] = WeakSet()
        """Those that are not closed. One that the application has forgotten is given up."""
        try:
            with made_at(caller()):
                self._client = self._thread.call(
                    lambda: AsyncClient(bootstrap, transport=transport, observer=observer, **options)
                )
            self._client._remains.settle()
            self._thread.call(self._client._use_own_loop_for_heartbeats)
        except BaseException:
            self._thread.stop()
            raise
        at_exit.flush_by(self._thread, self._flushing())
        thread, client = self._thread, self._client

        async def end() -> None:
            try:
                await client.close()
            finally:
                at_exit.forget(thread)
                thread.end()

        name = repr(client).removeprefix("Async")
        self._remains = Remains(self, lambda: thread.loop if thread.is_open else None, name, end)

    def _flushing(self) -> Callable[[], Callable[[], object]]:
        """Keeps this not alive."""
        found = WeakMethod(self._begin_exit)

        def begin() -> Callable[[], object]:
            alive = found()
            return (lambda: None) if alive is None else alive()

        return begin

    def _begin_exit(self) -> Callable[[], object]:
        """The process ends, and nobody has closed this."""
        if not self._thread.is_open:
            return lambda: None
        flushing = Work(lambda: first_failure([each._flush_at_exit() for each in list(self._producers)]))
        self._thread.begin(flushing)
        return flushing.wait

    @classmethod
    def from_env(cls, *, observer: ClientObserver | None = None, **options: Unpack[ClientOptions]) -> Self:
        """See ``AsyncClient.from_env``."""
        return cls(urls_of_environment(), observer=observer, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_quietly(self.close, kind)

    @overload
    def producer(self, *, value: None = ..., key: None = ..., **options: Unpack[ProducerOptions]) -> SyncProducer: ...

    @overload
    def producer(
        self,
        *,
        value: SerializerLike[V] | None = ...,
        key: SerializerLike[K] | None = ...,
        **options: Unpack[ProducerOptions],
    ) -> SyncTypedProducer[V, K]: ...

    def producer(
        self, *, value: Any = None, key: Any = None, **options: Any
    ) -> SyncProducer | SyncTypedProducer[Any, Any]:
        """See ``AsyncClient.producer``."""
        if value is not None or key is not None:
            encoding = Encoding(value, key)
            return SyncTypedProducer(self.producer(**options), encoding)
        made = self._thread.call(lambda: self._client.producer(**options))
        producer = SyncProducer(self._thread, made, lambda closed: self._producers.pop(closed, None))
        self._producers[producer] = None
        return producer

    @overload
    def consumer(
        self,
        topics: TopicsLike,
        *,
        start: StartLike = ...,
        group: None = ...,
        value: SerializerLike[V] | None = ...,
        key: SerializerLike[K] | None = ...,
        **options: Unpack[ConsumerOptions],
    ) -> SyncConsumer[V, K]: ...

    @overload
    def consumer(
        self,
        topics: str | Sequence[str] | None = ...,
        *,
        group: str,
        start: StartLike = ...,
        pattern: str = ...,
        on_assigned: SyncCallback | None = ...,
        on_revoked: SyncCallback | None = ...,
        on_lost: SyncCallback | None = ...,
        value: SerializerLike[V] | None = ...,
        key: SerializerLike[K] | None = ...,
        **options: Unpack[GroupOptions],
    ) -> SyncGroupConsumer[V, K]: ...

    def consumer(
        self,
        topics: TopicsLike | None = None,
        *,
        start: StartLike = "earliest",
        group: str | None = None,
        pattern: str = "",
        on_assigned: SyncCallback | None = None,
        on_revoked: SyncCallback | None = None,
        on_lost: SyncCallback | None = None,
        **options: Any,
    ) -> AnySyncConsumer:
        """See ``AsyncClient.consumer``."""
        told = {"on_assigned": on_assigned, "on_revoked": on_revoked, "on_lost": on_lost}
        options |= {name: in_waiting_thread(function) for name, function in told.items()}
        make: Callable[..., AnyConsumer] = self._client.consumer
        with made_at(caller()):
            made = self._thread.call(lambda: make(topics, start=start, group=group, pattern=pattern, **options))
        consumer: AnySyncConsumer
        if isinstance(made, GroupConsumer):
            consumer = SyncGroupConsumer(self._thread, made, self._forget)
        else:
            consumer = SyncConsumer(self._thread, made, self._forget)
        self._consumers.add(consumer)
        return consumer

    def figures(self) -> ClientFigures:
        """See ``AsyncClient.figures``. Also when this is closed."""
        return self._thread.call(self._client.figures) if self._thread.is_open else self._client.figures()

    def _forget(self, closed: AnySyncConsumer) -> None:
        self._consumers.discard(closed)

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``AsyncClient.close``. The thread ends, too."""
        if timeout_ms is not None:
            checked_timeout(timeout_ms, 0)
        if not self._thread.is_open:
            return
        failures: list[Exception | None] = []
        producers = list(self._producers)
        flushing = Work(lambda: first_failure([each._close(timeout_ms) for each in producers]))
        try:
            with contextlib.suppress(ClientClosed):  # another thread closes it as well
                self._thread.begin(flushing)
                try:
                    failures.append(self._close_consumers(timeout_ms))
                finally:
                    failures.append(self._thread.outcome(flushing))
                self._thread.perform(Work(self._client.close))
        finally:
            self._remains.settle()
            at_exit.forget(self._thread)
            self._thread.stop()
        failure = next(filter(None, reversed(failures)), None)
        if failure is not None:
            raise failure

    def _close_consumers(self, timeout_ms: int | None) -> Exception | None:
        """Members leave also when a callback, or a signal, interrupts this."""
        consumers = []
        for consumer in list(self._consumers):
            consumer._is_at_hand = False
            consumers.append(consumer._consumer)

        async def closed() -> Exception | None:
            return await first_failure([each.close(timeout_ms) for each in consumers])

        try:
            return run_with_callbacks(self._thread, closed)
        except BaseException:
            self._thread.perform(Work(closed))
            raise

    # --- admin ------------------------------------------------------------------------------------

    def create_topic(
        self,
        topic: str,
        partitions: int = 0,
        replication_factor: int = 0,
        config: Mapping[str, str | int] | None = None,
        assignment: Sequence[Sequence[int]] = (),
        timeout_ms: int = TIMEOUT_MS,
    ) -> TopicInfo:
        return self._thread.run(
            self._client.create_topic(topic, partitions, replication_factor, config, assignment, timeout_ms)
        )

    def delete_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> None:
        self._thread.run(self._client.delete_topic(topic, timeout_ms))

    def list_topics(self, timeout_ms: int = TIMEOUT_MS) -> list[TopicInfo]:
        return self._thread.run(self._client.list_topics(timeout_ms))

    def describe_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        return self._thread.run(self._client.describe_topic(topic, timeout_ms))

    def brokers(self, timeout_ms: int = TIMEOUT_MS) -> list[BrokerInfo]:
        return self._thread.run(self._client.brokers(timeout_ms))

    def cluster(self, timeout_ms: int = TIMEOUT_MS) -> ClusterInfo:
        return self._thread.run(self._client.cluster(timeout_ms))

    def health(self, timeout_ms: int = TIMEOUT_MS) -> Health:
        return self._thread.run(self._client.health(timeout_ms))

    def check(
        self, receipts: Receipt | BatchReceipt | Sequence[Receipt | BatchReceipt], timeout_ms: int = TIMEOUT_MS
    ) -> list[CheckedReceipt]:
        return self._thread.run(self._client.check(receipts, timeout_ms))

    def offsets(self, topic: str, partition: int, timeout_ms: int = TIMEOUT_MS) -> tuple[int, int]:
        return self._thread.run(self._client.offsets(topic, partition, timeout_ms))

    def offset_at(self, topic: str, partition: int, at: StartLike, timeout_ms: int = TIMEOUT_MS) -> int:
        return self._thread.run(self._client.offset_at(topic, partition, at, timeout_ms))

    # --- groups -----------------------------------------------------------------------------------

    def balance_leaders(
        self, topics: Sequence[str] = (), *, dry_run: bool = False, timeout_ms: int = TIMEOUT_MS
    ) -> list[LeaderMove]:
        return self._thread.run(self._client.balance_leaders(topics, dry_run=dry_run, timeout_ms=timeout_ms))

    def configure_topic(
        self,
        topic: str,
        config: Mapping[str, str | int | bool | None],
        *,
        dry_run: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> TopicAltered:
        return self._thread.run(self._client.configure_topic(topic, config, dry_run=dry_run, timeout_ms=timeout_ms))

    def add_partitions(self, topic: str, total: int, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        return self._thread.run(self._client.add_partitions(topic, total, timeout_ms))

    def groups(self, timeout_ms: int = TIMEOUT_MS) -> GroupList:
        return self._thread.run(self._client.groups(timeout_ms))

    def describe_group(self, group: str, timeout_ms: int = TIMEOUT_MS) -> GroupDescription:
        return self._thread.run(self._client.describe_group(group, timeout_ms))

    def delete_group(
        self, group: str, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self._thread.run(self._client.delete_group(group, partitions, timeout_ms))

    def group_offsets(self, group: str, timeout_ms: int = TIMEOUT_MS) -> dict[PartitionKey, int]:
        return self._thread.run(self._client.group_offsets(group, timeout_ms))

    def alter_group_offsets(
        self,
        group: str,
        topics: str | Iterable[str | PartitionKey],
        to: StartLike,
        *,
        dry_run: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> list[OffsetChange]:
        """See ``GroupAdmin.alter_group_offsets``."""
        change = self._client.alter_group_offsets(group, topics, to, dry_run=dry_run, timeout_ms=timeout_ms)
        return self._thread.run(change)

    def group_lag(self, group: str, timeout_ms: int = TIMEOUT_MS) -> list[GroupLag]:
        return self._thread.run(self._client.group_lag(group, timeout_ms))
