"""Topics, brokers and the state of the cluster, over the JSON routes. Any broker answers or
forwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from minilog.errors import (
    BrokerUnavailable,
    InternalError,
    LeaderNotAvailable,
    MinilogError,
    TimedOut,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.admin_messages import LeaderMove
from minilog.wire.http import JSON, topic_name
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.json.json_answers import BrokerList, ClusterInfo, Health, TopicDeleted, TopicList
from minilog.wire.json.lever_answers import LeadersBalanced, TopicAltered
from minilog.wire.json.receipt_answers import RECEIPTS_MAX, CheckedReceipt, CheckedReceipts
from minilog.wire.messages import BrokerInfo, Offsets, OffsetsPartition, OffsetsReply, TopicInfo
from minilog.wire.routes import path_of
from minilog_client.connection.backoff import Attempts, History, retry_delay_ms, wait_s
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.connection.http_messages import Reply, reply_from
from minilog_client.connection.strangers import is_of_stranger, nobody
from minilog_client.consumer.start import Start, StartLike, parse_start
from minilog_client.producer.receipts import BatchReceipt, Receipt, to_check

TIMEOUT_MS: Final = 10_000


class Admin:
    """The part of a client that looks after topics and the cluster.

    ```python
    await client.create_topic("orders", partitions=3, replication_factor=3)
    print([info.topic for info in await client.list_topics()])
    print(await client.offsets("orders", 0))    # (earliest, latest)
    await client.delete_topic("orders")
    ```

    Every call raises TimedOut or BrokerUnavailable after ``timeout_ms`` at the latest.
    """

    _cluster: Cluster

    async def create_topic(
        self,
        topic: str,
        partitions: int = 0,
        replication_factor: int = 0,
        config: Mapping[str, str | int] | None = None,
        assignment: Sequence[Sequence[int]] = (),
        timeout_ms: int = TIMEOUT_MS,
    ) -> TopicInfo:
        """Create a topic and wait until its partitions have leaders; 0 means the cluster's default.

        Raises TopicExists, InvalidTopic, InvalidConfig, InvalidReplication."""
        body = {
            "topic": topic_name(topic),
            "partitions": partitions,
            "replication_factor": replication_factor,
            "config": {name: str(value) for name, value in (config or {}).items()},
            "assignment": [list(replicas) for replicas in assignment],
        }
        deadline_ms = now_ms() + timeout_ms
        info = await self._call("POST", path_of("create_topic"), TopicInfo, deadline_ms, body)
        await self._wait_leaders(info, deadline_ms)
        return info

    async def delete_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> None:
        """Delete a topic and its records: the one that has the name now, also when the request must
        be sent twice and a successor has the name by then. Raises UnknownTopic."""
        deadline_ms = now_ms() + timeout_ms
        described = await self._call("GET", path_of("describe_topic", topic=topic_name(topic)), TopicInfo, deadline_ms)
        path = path_of("delete_topic", {"topic_id": described.topic_id}, topic=topic)
        await self._call("DELETE", path, TopicDeleted, deadline_ms)

    async def configure_topic(
        self,
        topic: str,
        config: Mapping[str, str | int | bool | None],
        *,
        dry_run: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> TopicAltered:
        """Give a topic other settings, None for those that are to be as by default. All or nothing,
        in effect without a restart. ``dry_run``: only say what it would have, and which partitions
        would refuse acks=all. Raises UnknownTopic, InvalidConfig."""
        deadline_ms = now_ms() + timeout_ms
        described = await self._call("GET", path_of("describe_topic", topic=topic_name(topic)), TopicInfo, deadline_ms)
        path = path_of("alter_topic", {"topic_id": described.topic_id}, topic=topic)
        return await self._call("PATCH", path, TopicAltered, deadline_ms, {"config": dict(config), "dry_run": dry_run})

    async def balance_leaders(
        self, topics: Sequence[str] = (), *, dry_run: bool = False, timeout_ms: int = TIMEOUT_MS
    ) -> list[LeaderMove]:
        """Let the first replica of each partition lead it again, where it is in sync. Returns what
        was led by another one, with the ``problem`` of those that stay. The leaders hand over after
        that, within a second, and lose nothing. Raises UnknownTopic."""
        body = {"topics": [topic_name(topic) for topic in topics], "dry_run": dry_run}
        return (
            await self._call("POST", path_of("balance_leaders"), LeadersBalanced, now_ms() + timeout_ms, body)
        ).moves

    async def list_topics(self, timeout_ms: int = TIMEOUT_MS) -> list[TopicInfo]:
        return (await self._get("list_topics", TopicList, timeout_ms)).topics

    async def describe_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        """Raises UnknownTopic."""
        path = path_of("describe_topic", topic=topic_name(topic))
        return await self._call("GET", path, TopicInfo, now_ms() + timeout_ms)

    async def brokers(self, timeout_ms: int = TIMEOUT_MS) -> list[BrokerInfo]:
        return (await self._get("brokers", BrokerList, timeout_ms)).brokers

    async def cluster(self, timeout_ms: int = TIMEOUT_MS) -> ClusterInfo:
        return await self._get("cluster", ClusterInfo, timeout_ms)

    async def health(self, timeout_ms: int = TIMEOUT_MS) -> Health:
        return await self._get("health", Health, timeout_ms)

    async def check(
        self, receipts: Receipt | BatchReceipt | Sequence[Receipt | BatchReceipt], timeout_ms: int = TIMEOUT_MS
    ) -> list[CheckedReceipt]:
        """What became of acknowledged records, in the order of the receipts: ``status`` is
        committed, at_risk, superseded, gone, lost or unknown. Raises InvalidRequest for receipts of
        acks=0, which promise nothing."""
        given = [receipts] if isinstance(receipts, Receipt | BatchReceipt) else list(receipts)
        deadline_ms = now_ms() + timeout_ms
        told: list[CheckedReceipt] = []
        for first in range(0, len(given), RECEIPTS_MAX):
            body = {"receipts": [to_check(receipt) for receipt in given[first : first + RECEIPTS_MAX]]}
            told += (await self._call("POST", path_of("check_receipts"), CheckedReceipts, deadline_ms, body)).receipts
        return told

    async def offsets(self, topic: str, partition: int, timeout_ms: int = TIMEOUT_MS) -> tuple[int, int]:
        """(first offset, end offset) of what can be read. The end is the high watermark,
        exclusive."""
        first = await self.offset_at(topic, partition, "earliest", timeout_ms)
        return first, await self.offset_at(topic, partition, "latest", timeout_ms)

    async def offset_at(self, topic: str, partition: int, at: StartLike, timeout_ms: int = TIMEOUT_MS) -> int:
        """The offset of the first record at or after ``at``, the end when there is none:
        "earliest", "latest", "@" with ms since the epoch, or a datetime with a time zone. Raises
        UnknownTopic, UnknownPartition."""
        kind, value = parse_start(at)
        if kind is Start.OFFSET:
            return value
        self._cluster.time_units.look_at(topic, value)
        deadline_ms = now_ms() + timeout_ms
        message = Offsets([OffsetsPartition(topic_name(topic), partition, value)])
        attempts = Attempts()
        while True:
            try:
                return await self._offset(topic, partition, message)
            except MinilogError as error:
                if not error.retriable or now_ms() >= deadline_ms:
                    raise
                attempts.on_failure(error, now_ms(), self._cluster.random)
            await asyncio.sleep(wait_s(attempts.retry_at_ms, now_ms(), deadline_ms))
            with contextlib.suppress(BrokerUnavailable):
                await self._cluster.refresh(topic)

    async def _offset(self, topic: str, partition: int, message: Offsets) -> int:
        known = await self._cluster.topic(topic)
        if partition not in known.partitions:  # it may have been added since anybody asked
            await self._cluster.refresh(topic)
            known = await self._cluster.topic(topic)
        if partition not in known.partitions:
            count = known.partition_count
            raise UnknownPartition(f"topic {topic} has no partition {partition}; it has {count}, counted from 0")
        leader = self._cluster.routing.leader(topic, partition)
        if leader is None:
            raise LeaderNotAvailable(f"{topic}-{partition} has no leader")
        timeout_ms = self._cluster.settings.request_timeout_ms
        reply = await self._cluster.call(leader.url, message, OffsetsReply, timeout_ms)
        result = reply.partitions[0] if reply.partitions else None
        if result is not None and result.problem is not None:
            raise result.problem.error()
        if result is None or result.offset is None:
            raise InternalError(f"{leader.url} named no offset for {topic}-{partition}")
        return result.offset

    # --- how --------------------------------------------------------------------------------------

    async def _get(self, route: str, kind: type[Reply], timeout_ms: int) -> Reply:
        return await self._call("GET", path_of(route), kind, now_ms() + timeout_ms)

    async def _call(
        self, method: str, path: str, kind: type[Reply], deadline_ms: int, body: Mapping[str, Any] | None = None
    ) -> Reply:
        """Ask one broker after another. A POST is repeated only while it provably did nothing."""
        self._cluster.check_open()
        started_ms = now_ms()
        tries = 0
        history = History()
        last: MinilogError | None = None
        while True:
            failures: dict[str, MinilogError] = {}
            for url in self._cluster.routing.candidates(now_ms()):
                try:
                    if last is not None and now_ms() >= deadline_ms:
                        raise TimedOut(
                            f"{method} {path} was not answered in time; the last try: {last.detail}", definite=True
                        )
                    return await self._try(method, url, path, kind, deadline_ms, body)
                except UnknownTopic:
                    if method == "DELETE" and history.maybe_done:
                        return kind()
                    raise
                except MinilogError as error:
                    history.on_failure(error)
                    last = failure = failures[url] = history.told(error)
                is_over = (method == "POST" and history.maybe_done) or now_ms() >= deadline_ms
                if is_over or not (failure.retriable or is_of_stranger(failure)):
                    raise failure.with_traceback(None)
            if all(map(is_of_stranger, failures.values())):
                raise nobody(failures, self._cluster.is_heard) if failure.retriable else failure.with_traceback(None)
            tries += 1
            retry_at_ms = now_ms() + retry_delay_ms(failure, tries, now_ms() - started_ms, self._cluster.random)
            await asyncio.sleep(wait_s(retry_at_ms, now_ms(), deadline_ms))

    async def _try(
        self,
        method: str,
        url: str,
        path: str,
        kind: type[Reply],
        deadline_ms: int,
        body: Mapping[str, Any] | None,
    ) -> Reply:
        cluster = self._cluster
        remaining_ms = deadline_ms - now_ms()
        if remaining_ms <= 0:
            raise TimedOut(f"{method} {path} was not answered in time", definite=True)
        headers = {"Accept": JSON}
        data = b""
        if body is not None:
            headers["Content-Type"] = JSON
            data = msgspec.json.encode(body)
        timeout_ms = remaining_ms if method != "GET" else min(remaining_ms, cluster.settings.request_timeout_ms)
        try:
            response = await cluster.transport.request(method, url + path, headers, data, timeout_ms)
        except (BrokerUnavailable, TimedOut):
            cluster.routing.on_failed(url, now_ms())
            raise
        cluster.routing.on_answered(url)
        reply = reply_from(response, url, kind)
        cluster.is_heard = True
        return reply

    async def _wait_leaders(self, info: TopicInfo, deadline_ms: int) -> None:
        """Let this client know the new topic, and its leaders, before the caller uses it."""
        delay_ms = 10
        while now_ms() < deadline_ms:
            with contextlib.suppress(BrokerUnavailable):
                await self._cluster.refresh(info.topic)
            known = self._cluster.routing.topic(info.topic)
            if known is not None and known.topic_id == info.topic_id:
                leaders = [partition.leader for partition in known.partitions.values()]
                if len(leaders) == len(info.partitions) and NO_LEADER not in leaders:
                    return
            await asyncio.sleep(delay_ms / 1000)
            delay_ms = min(2 * delay_ms, 100)
