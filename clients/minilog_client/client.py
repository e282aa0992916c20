"""The asynchronous client: one per cluster and event loop. It makes producers, consumers and the
admin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from minilog.errors import ClientClosed, InvalidRequest, TimedOut
from minilog_client.admin.group_admin import GroupAdmin, group_name
from minilog_client.connection.cluster import Cluster
from minilog_client.connection.ending import Ending
from minilog_client.connection.environment import urls_of_environment
from minilog_client.connection.forgotten import Remains
from minilog_client.connection.http_messages import broker_urls
from minilog_client.connection.transport import HttpTransport, Transport
from minilog_client.consumer.consumer import AnyConsumer, Consumer
from minilog_client.consumer.decoding import decoding_of
from minilog_client.consumer.start import StartLike
from minilog_client.consumer.topics import TopicsLike, parse_topics
from minilog_client.credential import Files
from minilog_client.group.callbacks import Callback, Callbacks
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.group.heartbeats import Heart, LoopHeart, ThreadHeart
from minilog_client.group.membership import Subscription
from minilog_client.meant import meant
from minilog_client.observing.events import ClientObserver, Closed
from minilog_client.observing.figures import ClientFigures
from minilog_client.options import ClientOptions, ConsumerOptions, GroupOptions, ProducerOptions
from minilog_client.producer import at_exit
from minilog_client.producer.producer import Producer
from minilog_client.producer.sender import Sender
from minilog_client.serializers.encoding import Encoding
from minilog_client.serializers.serializer import SerializerLike
from minilog_client.serializers.type_variables import K, V
from minilog_client.settings import ClientSettings, ConsumerSettings, GroupSettings, ProducerSettings
from minilog_client.typed_producer import TypedProducer
from minilog_client.values import checked_timeout

_log = logging.getLogger("minilog_client")
S = TypeVar("S", ClientSettings, ProducerSettings, ConsumerSettings, GroupSettings)
_GROUP_OPTIONS = frozenset(GroupSettings.__dataclass_fields__)
_CONSUMER_ARGUMENTS = ("topics", "group", "start", "pattern", "on_assigned", "on_revoked", "on_lost", "value", "key")


class AsyncClient(GroupAdmin):
    """Connects to the cluster that the brokers at ``bootstrap`` belong to.

    ```python
    async with AsyncClient("http://127.0.0.1:8082,http://127.0.0.1:8083") as client:
        async with client.producer(acks="all") as producer:
            print(await producer.send("orders", b"hello"))
        async with client.consumer("orders", start="earliest") as consumer:
            print(await consumer.batch(max_wait_ms=1000))
    ```

    Topics and the cluster are looked after with ``create_topic``, ``list_topics``, ``offsets``,
    ``health`` and the other methods of ``Admin``. Nothing is connected before it is needed. Options
    are those of ``ClientSettings``, ``ProducerSettings`` and ``ConsumerSettings``. An unknown or
    impossible one raises InvalidRequest. Closing the client closes what it made.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        transport: Transport | None = None,
        observer: ClientObserver | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = settings_from(ClientSettings, options)
        urls = broker_urls(bootstrap)
        is_own = transport is not None
        paths = settings.token_file, settings.ca_file, settings.cert_file, settings.key_file
        shown = Files(*paths, token_without_tls=settings.token_without_tls)
        transport = HttpTransport(settings.connect_timeout_ms, shown) if transport is None else transport
        self._cluster = Cluster(urls, transport, settings, Random())
        self._cluster.teller.begin(observer)
        heart: Heart = (
            LoopHeart(self._cluster)
            if is_own
            else ThreadHeart(
                lambda: Cluster(urls, HttpTransport(settings.connect_timeout_ms, shown), settings, Random())
            )
        )
        self._hearts = [heart]
        """One, which may be replaced."""
        self._senders: WeakSet[Sender] = WeakSet()
        self._producers: dict[Producer, None] = {}
        self._consumers: WeakSet[AnyConsumer] = WeakSet()
        """Those that are not closed. One that the application has forgotten is given back."""
        self._consumer_remains: WeakSet[Remains] = WeakSet()
        self._closed = False
        self._ending = Ending()
        self._remains = self._watch_over(urls)

    def _watch_over(self, urls: Sequence[str]) -> Remains:
        """Refers to nothing that refers to this."""
        cluster, hearts, senders, consumers = self._cluster, self._hearts, self._senders, self._consumer_remains

        async def end() -> None:
            try:
                flushing = [_flush_and_stop(sender) for sender in list(senders) if not sender.closed]
                failure = await first_failure([*flushing, *(each.close() for each in list(consumers))])
                if failure is not None:
                    _log.warning("giving back a client that was not closed: %s", failure)
            finally:
                await _end_connections(hearts, cluster)

        return Remains(self, lambda: cluster._loop, repr(self), end)

    def __repr__(self) -> str:
        return f"AsyncClient({', '.join(self._cluster.routing.bootstrap)})"

    @property
    def _heart(self) -> Heart:
        return self._hearts[0]

    @_heart.setter
    def _heart(self, heart: Heart) -> None:
        self._hearts[0] = heart

    @property
    def _owned(self) -> list[Producer | AnyConsumer]:
        """Producers first."""
        return [*self._producers, *self._consumers]

    @classmethod
    def from_env(cls, *, observer: ClientObserver | None = None, **options: Unpack[ClientOptions]) -> Self:
        """A client of the brokers that ``MINILOG_URL`` names, as for the command ``minilog``.
        Raises InvalidRequest when it is not set."""
        return cls(urls_of_environment(), observer=observer, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.close()
        except TimedOut as error:
            if kind is None:
                raise
            _log.warning("%s", error.detail)  # the block's own error is the one to raise

    @overload
    def producer(self, *, value: None = ..., key: None = ..., **options: Unpack[ProducerOptions]) -> Producer: ...

    @overload
    def producer(
        self,
        *,
        value: SerializerLike[V] | None = ...,
        key: SerializerLike[K] | None = ...,
        **options: Unpack[ProducerOptions],
    ) -> TypedProducer[V, K]: ...

    def producer(self, *, value: Any = None, key: Any = None, **options: Any) -> Producer | TypedProducer[Any, Any]:
        """A producer. For its options see ``ProducerSettings``, for instance ``acks``,
        ``linger_ms``, ``compression``.

        With ``value`` or ``key``, as for ``consumer``, it writes such values and keys instead of
        bytes."""
        self._check_open()
        if value is not None or key is not None:
            encoding = Encoding(value, key)
            return TypedProducer(self.producer(**options), encoding)
        settings = settings_from(ProducerSettings, options, ("value", "key"))
        sender = Sender(self._cluster, settings)
        at_exit.watch(sender)
        producer = Producer(sender, self._forget)
        self._producers[producer] = None
        self._senders.add(sender)
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
    ) -> Consumer[V, K]: ...

    @overload
    def consumer(
        self,
        topics: str | Sequence[str] | None = ...,
        *,
        group: str,
        start: StartLike = ...,
        pattern: str = ...,
        on_assigned: Callback | None = ...,
        on_revoked: Callback | None = ...,
        on_lost: Callback | None = ...,
        value: SerializerLike[V] | None = ...,
        key: SerializerLike[K] | None = ...,
        **options: Unpack[GroupOptions],
    ) -> GroupConsumer[V, K]: ...

    def consumer(
        self,
        topics: TopicsLike | None = None,
        *,
        start: StartLike = "earliest",
        group: str | None = None,
        pattern: str = "",
        on_assigned: Callback | None = None,
        on_revoked: Callback | None = None,
        on_lost: Callback | None = None,
        value: Any = None,
        key: Any = None,
        **options: Any,
    ) -> AnyConsumer:
        """A consumer of whole topics or single partitions, or with ``group`` a member of that
        group, of ``topics`` or of every topic whose whole name matches ``pattern`` (a regular
        expression without look-around or back-references). For its options see ``ConsumerSettings``
        and, with a group, ``GroupSettings``.

        ``value`` and ``key`` say what the records hold: a type (a Struct, a dataclass, a model of
        pydantic; ``str`` is plain text), or a ``Serializer``. Bytes otherwise."""
        self._check_open()
        own = {name: options.pop(name) for name in _GROUP_OPTIONS & options.keys()}
        also = _GROUP_OPTIONS if group is not None else ()
        settings = settings_from(ConsumerSettings, options, {*also, *_CONSUMER_ARGUMENTS})
        decoding = decoding_of(value, key, settings.undecodable)
        callbacks = Callbacks(on_assigned, on_revoked, on_lost)
        if group is not None:
            group_settings = settings_from(GroupSettings, own)
            wanted = subscription(group, topics, pattern, self._cluster.settings.client_id, group_settings)
            consumer: AnyConsumer = GroupConsumer(
                self._cluster, self._heart, wanted, start, settings, group_settings, callbacks, self._forget
            )
        else:
            _refuse_without_group([*(["pattern"] if pattern else []), *callbacks.given, *own])
            if topics is None:
                raise InvalidRequest("no topic to read from; name at least one")
            consumer = Consumer(self._cluster, topics, start, settings, self._forget)
        consumer._plan.decoding = decoding
        self._consumers.add(consumer)
        self._consumer_remains.add(consumer._watch_over())
        return consumer

    def _use_own_loop_for_heartbeats(self) -> None:
        """Send the heartbeats of group members from this client's own loop: it is never blocked by
        the application."""
        self._heart = LoopHeart(self._cluster)

    async def close(self, timeout_ms: int | None = None) -> None:
        """Close all producers (flushing them first) and all consumers beside each other, then the
        connections. Each has ``timeout_ms`` for that, or else its own ``close_timeout_ms``, so the
        longest of these is how long it takes. It is carried out also when whoever waits for that
        is cancelled. May be called twice.

        Raises TimedOut when a producer had records it could not get rid of in time (see
        ``Producer.close``), and what a consumer's callback raised. All is closed then all the
        same."""
        if timeout_ms is not None:
            checked_timeout(timeout_ms, 0)
        self._closed = True
        await self._ending.wait(lambda: self._end(timeout_ms))

    async def _end(self, timeout_ms: int | None) -> None:
        failure: Exception | None = None
        try:
            failure = await first_failure([each.close(timeout_ms) for each in self._owned])
        finally:
            self._remains.settle()
            await _end_connections(self._hearts, self._cluster)
            self._cluster.teller.tell(Closed(repr(self)))
        if failure is not None:
            raise failure

    def _forget(self, owned: Producer | AnyConsumer) -> None:
        self._cluster.teller.tell(Closed(repr(owned)))
        if isinstance(owned, Producer):
            self._producers.pop(owned, None)
        else:
            self._consumers.discard(owned)

    def figures(self) -> ClientFigures:
        """What producers and consumers have done since this client was made, and what they have at
        hand."""
        senders = [sender for sender in list(self._senders) if not sender.closed]
        lags = [consumer.lag() for consumer in list(self._consumers)]
        return self._cluster.teller.counts.figures(
            sum(sender.accumulator.buffered_bytes for sender in senders),
            [{key: lag.records for key, lag in each.items()} for each in lags],
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed; make a new one")
        self._cluster.check_open()


async def _end_connections(hearts: Sequence[Heart], cluster: Cluster) -> None:
    try:
        for heart in hearts:
            await heart.aclose()
    finally:
        await cluster.aclose()


async def _flush_and_stop(sender: Sender) -> None:
    limit_ms = sender.settings.close_timeout_ms
    try:
        await sender.flush(limit_ms, f"a producer that was not closed was given back after {limit_ms} ms")
    finally:
        await sender.stop()


async def first_failure(closing: Iterable[Coroutine[Any, Any, object]]) -> Exception | None:
    """Close all of these beside each other, so that their time limits do not add up."""
    results = await asyncio.gather(*closing, return_exceptions=True)
    return next((result for result in results if isinstance(result, Exception)), None)


def settings_from(kind: type[S], options: Mapping[str, Any], also: Iterable[str] = ()) -> S:
    """Settings from keyword options; raises InvalidRequest for one that does not exist. ``also``:
    what else may be said, for the message."""
    allowed: Mapping[str, Any] = kind.__dataclass_fields__
    for name in options:
        if name not in allowed:
            names = sorted({*allowed, *also})
            raise InvalidRequest(f"there is no option {name!r}{meant(name, names)}; allowed are {', '.join(names)}")
    return kind(**options)


def subscription(
    group: str, topics: TopicsLike | None, pattern: str, client_id: str, settings: GroupSettings
) -> Subscription:
    """What a member of ``group`` says it wants; raises InvalidGroup, InvalidRequest, InvalidTopic,
    TypeError."""
    group_name(group)
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a text, got {type(pattern).__name__}")
    if (topics is None) == (not pattern):
        raise InvalidRequest("a group reads either topics or every topic that matches a pattern; give exactly one")
    whole, fixed = ([], []) if topics is None else parse_topics(topics)
    if fixed:
        raise InvalidRequest(
            f"the group assigns the partitions itself, so {fixed[0]} cannot be asked for; name the topic only, or leave "
            "the group out"
        )
    return Subscription(
        group=group,
        topics=tuple(sorted(whole)),
        pattern=pattern,
        assignor=settings.assignor,
        instance_id=settings.instance_id,
        client_id=client_id,
        session_timeout_ms=settings.session_timeout_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
    )


def _refuse_without_group(given: Sequence[str]) -> None:
    if given:
        raise InvalidRequest(f"{given[0]} is for consumers with a group; give group=..., or leave it out")
