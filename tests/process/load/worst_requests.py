"""The worst request of each route: as large, or about as much, as the route takes.

Each is a step that is driven alone, so that a long turn has one cause. Steps build on each other:
the topics of the first are what the later ones ask about.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from minilog.core.broker.requests.allowance import BATCHES_MAX
from minilog.wire.group_messages import (
    JOIN,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    GroupHeartbeat,
    GroupHeartbeatReply,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.http import BATCH, EVENTS, JSON, MSGPACK, NDJSON
from minilog.wire.json.receipt_answers import RECEIPTS_MAX
from minilog.wire.messages import (
    ACKS_ALL,
    LATEST,
    Fetch,
    FetchPartition,
    Message,
    Metadata,
    MetadataReply,
    Offsets,
    OffsetsPartition,
    Problem,
    Produce,
    ProducePartition,
    decode,
    encode,
)
from minilog.wire.records import encode_values

WIDE: Final = "wide"
"""As many partitions as one request may make here."""
DEEP: Final = "deep"
"""Many small records."""
GROUP: Final = "crowd"
RECORDS: Final = 100_000
"""As JSON, in one request."""
BODY_BYTES: Final = 15 * 1024 * 1024
"""Below limits.request_bytes_max."""
WAIT_S: Final = 120.0
HEARTBEATS: Final = 2
"""Of each member, after it has joined."""
SESSION_MS: Final = 60_000


@dataclass(frozen=True)
class Sizes:
    partitions: int = 2000
    members: int = 200
    groups: int = 500
    tails: int = 300


class Refused(AssertionError):
    """A request that was to be carried out was not."""


@dataclass
class Driver:
    """Sends requests to the brokers. ``url``: of any of them."""

    url: str
    sizes: Sizes
    session: aiohttp.ClientSession
    leaders: dict[tuple[str, int], str] = field(default_factory=dict)
    """The URL of who leads each partition."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Of members, as they were told."""

    async def http(
        self, method: str, path: str, body: Any = None, url: str = "", accept: str = JSON, content: str = JSON
    ) -> bytes:
        """``body`` a value for JSON, or bytes of type ``content``."""
        data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Accept": accept, **({"Content-Type": content} if body is not None else {})}
        async with self.session.request(method, (url or self.url) + path, data=data, headers=headers) as answer:
            text = await answer.read()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {text[:500]!r}")
        return text

    async def rpc(self, message: Message, url: str = "") -> Any:
        reply = decode(await self.http("POST", "/internal/rpc", encode(message), url, MSGPACK, MSGPACK))
        problems = [reply] if isinstance(reply, Problem) else [p.problem for p in getattr(reply, "partitions", ())]
        found = [problem for problem in problems if problem is not None]
        if found:
            raise Refused(f"{type(message).__name__}: {len(found)} problems, the first: {found[0]}")
        return reply

    async def learn(self, topic: str, partitions: int) -> None:
        """Wait until every partition of a topic has a leader that serves it, and all its replicas in
        sync."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            reply = await self.rpc(Metadata([topic]))
            assert isinstance(reply, MetadataReply)
            urls = {broker.broker_id: broker.url for broker in reply.brokers}
            states = [state for found in reply.topics for state in found.partitions]
            if len(states) == partitions and all(
                state.leader in urls and len(state.isr) == len(state.replicas) for state in states
            ):
                self.leaders.update({(topic, state.partition): urls[state.leader] for state in states})
                if await self._are_served(topic):
                    return
            await asyncio.sleep(0.2)
        raise Refused(f"{topic} is not in sync after {WAIT_S} s")

    async def _are_served(self, topic: str) -> bool:
        """Their leaders have made the logs."""
        try:
            for url, led in self.led(topic).items():
                await self.rpc(Offsets([OffsetsPartition(topic, p, LATEST) for p in led]), url)
        except Refused:
            return False
        return True

    def led(self, topic: str) -> dict[str, list[int]]:
        """Partitions of a topic by the URL of who leads them."""
        led: dict[str, list[int]] = {}
        for (name, partition), url in self.leaders.items():
            if name == topic:
                led.setdefault(url, []).append(partition)
        return led


@asynccontextmanager
async def driver(url: str, sizes: Sizes) -> AsyncIterator[Driver]:
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield Driver(url, sizes, session)


Step = Callable[[Driver], Awaitable[None]]


async def create_topic(driver: Driver) -> None:
    wanted = {"topic": WIDE, "partitions": driver.sizes.partitions, "replication_factor": 3}
    await driver.http("POST", "/v1/topics", wanted)
    await driver.learn(WIDE, driver.sizes.partitions)


async def small_topics(driver: Driver) -> None:
    await driver.http("POST", "/v1/topics", {"topic": DEEP, "partitions": 3, "replication_factor": 3})
    await driver.learn(DEEP, 3)


async def alter_topic(driver: Driver) -> None:
    await driver.http("PATCH", f"/v1/topics/{WIDE}", {"partitions": driver.sizes.partitions + 100})
    await driver.learn(WIDE, driver.sizes.partitions + 100)


async def metadata(driver: Driver) -> None:
    for media in (JSON, MSGPACK):
        await driver.http("GET", "/v1/metadata", accept=media)


def get(*paths: str) -> Step:
    async def ask(driver: Driver) -> None:
        for path in paths:
            await driver.http("GET", path, accept="*/*")

    return ask


async def produce_wide(driver: Driver) -> None:
    """One record to each partition, in a request for each broker."""
    batch = memoryview(encode_values([b"x" * 10], _now_ms()))
    for url, led in driver.led(WIDE).items():
        await driver.rpc(Produce(ACKS_ALL, 60_000, [ProducePartition(WIDE, p, batch) for p in led]), url)


async def produce_small(driver: Driver) -> None:
    """As many records as fit into a request, of a byte each."""
    batch = encode_values([b"x"] * 100_000, _now_ms())
    batches = memoryview(batch * (BODY_BYTES // len(batch)))
    await driver.rpc(Produce(ACKS_ALL, 60_000, [ProducePartition(DEEP, 0, batches)]), driver.leaders[DEEP, 0])


async def produce_batches(driver: Driver) -> None:
    """As many batches as a request may have, of a record each; so often that a follower is sent
    thousands at once."""
    body = encode_values([b"x"], _now_ms()) * BATCHES_MAX
    path, url = _records(DEEP, 1) + "?acks=1", driver.leaders[DEEP, 1]
    await asyncio.gather(*(driver.http("POST", path, body, url, JSON, BATCH) for _ in range(30)))


async def produce_json(driver: Driver) -> None:
    body = b'{"records":[' + b",".join([b'{"value":1}'] * RECORDS) + b"]}"
    await driver.http("POST", _records(DEEP, 2), body, driver.leaders[DEEP, 2])


async def produce_ndjson(driver: Driver) -> None:
    body = b'{"value":1}\n' * RECORDS
    await driver.http("POST", f"/v1/topics/{DEEP}/records", body, content=NDJSON)


async def produce_keys(driver: Driver) -> None:
    """Records for as many partitions as there are, which their leaders are sent."""
    body = b"".join(b'{"key":"%d","value":1}\n' % number for number in range(20_000))
    await driver.http("POST", f"/v1/topics/{WIDE}/records", body, content=NDJSON)


async def fetch_wide(driver: Driver) -> None:
    """All partitions that a broker leads, with what is in them; then again where nothing is, as a
    long poll."""
    for url, led in driver.led(WIDE).items():
        await driver.rpc(Fetch([FetchPartition(WIDE, p, 0) for p in led]), url)
        ends = await driver.rpc(Offsets([OffsetsPartition(WIDE, p, LATEST) for p in led]), url)
        entries = [FetchPartition(WIDE, p.partition, p.offset) for p in ends.partitions]
        await asyncio.gather(*(driver.rpc(Fetch(entries, 1000), url) for _ in range(10)))


def fetch_records(partition: int, media: str) -> Step:
    async def fetch(driver: Driver) -> None:
        path = f"{_records(DEEP, partition)}?offset=earliest&max_bytes={16 * 1024 * 1024}"
        await driver.http("GET", path, url=driver.leaders[DEEP, partition], accept=media)

    return fetch


async def offsets_by_time(driver: Driver) -> None:
    for url, led in driver.led(WIDE).items():
        await driver.rpc(Offsets([OffsetsPartition(WIDE, p, 1) for p in led]), url)
    url = driver.leaders[DEEP, 1]
    await driver.rpc(Offsets([OffsetsPartition(DEEP, 1, _now_ms())]), url)


async def tails(driver: Driver) -> None:
    """Many live tails of one partition, beside which records are written."""
    url = driver.leaders[DEEP, 0]
    path = f"{_records(DEEP, 0)}?offset=latest"
    got = 0

    async def read() -> None:
        nonlocal got
        async with driver.session.get(url + path, headers={"Accept": EVENTS}) as answer:
            while got < 5 * driver.sizes.tails and await answer.content.readline():
                got += 1

    readers = [asyncio.create_task(read()) for _ in range(driver.sizes.tails)]
    await asyncio.sleep(1.0)
    for _ in range(20):
        await driver.http("POST", _records(DEEP, 0), {"records": [{"value": 1}] * 1000}, url)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def group_join(driver: Driver) -> None:
    """Many members over many partitions, one after the other; then each says what it owns until it
    has what it is to have."""
    for number in range(driver.sizes.members):
        await _heartbeat(driver, f"m{number}", JOIN, [])


async def group_settle(driver: Driver) -> None:
    owned: dict[str, list[TopicPartitions]] = {}
    for _ in range(HEARTBEATS):
        for member, epoch in list(driver.epochs.items()):
            reply = await _heartbeat(driver, member, epoch, owned.get(member, []))
            owned[member] = reply.assignment


async def group_commit(driver: Driver) -> None:
    """Every partition there is, with as much beside it as may be."""
    entries = [OffsetCommit(WIDE, p, 1, metadata="m" * 100) for p in range(driver.sizes.partitions)]
    for _ in range(3):
        reply = await driver.rpc(CommitOffsets("alone", entries))
        assert isinstance(reply, CommitOffsetsReply)
    await driver.rpc(CommittedOffsets("alone"))


async def many_groups(driver: Driver) -> None:
    async def commit(number: int) -> None:
        await driver.rpc(CommitOffsets(f"group{number}", [OffsetCommit(DEEP, 0, 1)]))

    for first in range(0, driver.sizes.groups, 50):
        await asyncio.gather(*(commit(first + number) for number in range(50)))


async def check_receipts(driver: Driver) -> None:
    receipt = {"topic": DEEP, "partition": 0, "offset": 0, "leader_epoch": 1}
    receipts = [receipt | {"offset": offset, "partition": offset % 3} for offset in range(RECEIPTS_MAX)]
    await driver.http("POST", "/v1/receipts/check", {"receipts": receipts})


async def delete_topic(driver: Driver) -> None:
    await driver.http("DELETE", f"/v1/topics/{WIDE}")
    while (await driver.rpc(Metadata([WIDE]))).topics:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)  # logs are moved away in later turns


async def _heartbeat(driver: Driver, member: str, epoch: int, owned: Sequence[TopicPartitions]) -> GroupHeartbeatReply:
    request = GroupHeartbeat(GROUP, member, epoch, [WIDE], "", list(owned), session_timeout_ms=SESSION_MS)
    reply: GroupHeartbeatReply = await driver.rpc(request)
    driver.epochs[member] = reply.member_epoch
    return reply


async def groups_exist(driver: Driver) -> None:
    """The topic of the groups is made when it is first needed."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            await driver.rpc(CommitOffsets("first", [OffsetCommit(DEEP, 0, 0)]))
            return
        except Refused:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


def _records(topic: str, partition: int) -> str:
    return f"/v1/topics/{topic}/partitions/{partition}/records"


def _now_ms() -> int:
    return int(time.time() * 1000)


STEPS: Final[dict[str, Step]] = {
    "create_topic": create_topic,
    "create_topic, small": small_topics,
    "alter_topic": alter_topic,
    "metadata": metadata,
    "metadata_copy": get("/v1/metadata/copy"),
    "describe_topic, list_topics": get(f"/v1/topics/{WIDE}", "/v1/topics"),
    "health, cluster, failovers": get("/v1/cluster/health", "/v1/cluster", "/v1/cluster/failovers"),
    "produce, all partitions": produce_wide,
    "produce, tiny records": produce_small,
    "produce, tiny batches": produce_batches,
    "produce, JSON": produce_json,
    "produce, NDJSON": produce_ndjson,
    "produce, NDJSON to all partitions": produce_keys,
    "fetch, all partitions": fetch_wide,
    "fetch, JSON": fetch_records(2, JSON),
    "fetch, NDJSON of tiny records": fetch_records(0, NDJSON),
    "fetch, tiny batches": fetch_records(1, BATCH),
    "fetch, tails": tails,
    "offsets": offsets_by_time,
    "group, first need": groups_exist,
    "group_heartbeat, joins": group_join,
    "group_heartbeat": group_settle,
    "describe_group, group_lag": get(f"/v1/groups/{GROUP}", f"/v1/groups/{GROUP}/lag"),
    "commit_offsets, committed_offsets": group_commit,
    "many groups": many_groups,
    "list_groups": get("/v1/groups"),
    "check_receipts": check_receipts,
    "list_lost": get("/v1/lost"),
    "events": get("/v1/cluster/events?limit=1000"),
    "metrics": get("/metrics"),
    "delete_topic": delete_topic,
}
"""By route, in the order in which they are driven."""
