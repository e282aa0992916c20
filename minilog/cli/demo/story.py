"""The demo's plot: stream, kill the leader of the busiest partition, watch the cluster heal,
settle, read back.

One asyncio loop. Three tasks side by side (streaming, watching the metadata, drawing) and the plot
itself. All that is learned lands in ``DemoState`` (for the view) and ``Ledger`` (for the proof).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from asyncio import Future
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from minilog.cli.access import client_options
from minilog.cli.api import Api
from minilog.cli.demo.events import EventSource
from minilog.cli.demo.report import Failover
from minilog.cli.demo.view import DemoState, PartitionView, View
from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, Member
from minilog.cli.output import CliError
from minilog.cli.proof import SETTLE_TIMEOUT_S, Ledger, Proof, ReadBack, read_back
from minilog.errors import BufferFull, MinilogError
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import TopicInfo
from minilog_client import AsyncClient, Producer, Receipt

PARTITIONS = 6
REPLICAS = 3
MIN_ISR = 2
PACE_S = 0.01
WATCH_S = 0.05
DRAW_S = 0.1
RATE_WINDOW_S = 1.0
DELIVERY_TIMEOUT_MS = 30_000
BUFFER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """Seconds from the first record on: when the leader dies, when it comes back, when the stream
    ends."""

    topic: str
    records_per_second: int = 10_000
    kill_s: float = 4.0
    restart_s: float = 7.0
    stream_s: float = 12.0


class Demo:
    def __init__(self, cluster: DevCluster, source: EventSource, state: DemoState, plan: Plan) -> None:
        self.cluster = cluster
        self.state = state
        self.plan = plan
        self.ledger = Ledger()
        self.failover = Failover()
        self.ends: dict[int, int] = {}
        self._records = source.numbered()
        self._api = Api(cluster.url, timeout_s=2.0)
        self._epochs: dict[int, int] = {}
        self._last_ack_s: dict[int, float] = {}
        self._first_error = ""
        self._history: deque[tuple[float, int]] = deque(maxlen=int(RATE_WINDOW_S / DRAW_S))

    async def run(self, view: View) -> Proof:
        """The whole plot; returns the proof but for the replicas on disk. Raises CliError when it
        cannot go on."""
        self.state.title = f"minilog demo, topic {self.plan.topic}"
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(_repeating(partial(self._draw, view), DRAW_S))
            self._create_topic()
            await stack.enter_async_context(_repeating(self._watch, WATCH_S))
            await self._until(self._all_in_sync, "all partitions in sync")
            self.state.say(f"topic {self.plan.topic}: {PARTITIONS} partitions, {REPLICAS} replicas, all in sync")
            client = await stack.enter_async_context(AsyncClient(self.cluster.url, **client_options()))
            await self._stream_and_break(client)
            await self._until(self._all_in_sync, "every replica back in sync")
            self.state.phase = "reading everything back"
            return await self._read_back(client)

    async def _stream_and_break(self, client: AsyncClient) -> None:
        producer = client.producer(acks="all", buffer_bytes=BUFFER_BYTES, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
        self.state.phase = "streaming with acks=all"
        async with producer:
            began_s = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._stream(producer, began_s + self.plan.stream_s))
                await _sleep_until(began_s + self.plan.kill_s)
                member = self._kill_busiest_leader()
                await _sleep_until(began_s + self.plan.restart_s)
                await self._restart(member)
            self.state.phase = "waiting for the last acknowledgements"
            await producer.flush()
        self.state.say(f"the stream ended: {self.ledger.sent:,} sent, {self.ledger.acknowledged:,} acknowledged")
        self.failover.told = await asyncio.to_thread(
            self._api.failover_of, self.failover.broker, self.failover.killed_ms
        )
        if self._first_error:
            self.state.say(f"{self.state.failed:,} sends failed; the first: {self._first_error}")

    async def _draw(self, view: View) -> None:
        state, now_s = self.state, time.monotonic()
        state.sent, state.acknowledged = self.ledger.sent, self.ledger.acknowledged
        self._history.append((now_s, state.acknowledged))
        began_s, before = self._history[0]
        state.records_per_second = (state.acknowledged - before) / (now_s - began_s) if now_s > began_s else 0.0
        view.update()

    # --- streaming --------------------------------------------------------------------------------

    async def _stream(self, producer: Producer, end_s: float) -> None:
        """Paced by the clock, so that a pause shows as a pause and not as fewer records
        afterwards."""
        began_s, per_second = time.monotonic(), self.plan.records_per_second
        key, value = next(self._records)
        while (now_s := time.monotonic()) < end_s:
            behind = int((now_s - began_s) * per_second) - self.ledger.sent
            try:
                for _ in range(min(behind, per_second // 10)):
                    future = producer.send_nowait(self.plan.topic, value, key=key)
                    id = self.ledger.on_sent(value)
                    future.add_done_callback(partial(self._on_done, id))
                    key, value = next(self._records)
            except BufferFull:
                began_s += PACE_S
            await asyncio.sleep(PACE_S)

    def _on_done(self, id: int, future: Future[Receipt]) -> None:
        error = future.exception() if not future.cancelled() else None
        if future.cancelled() or error is not None:
            self.state.failed += 1
            self._first_error = self._first_error or str(error or "cancelled")
            return
        receipt = future.result()
        assert receipt.offset is not None, "acks=all names it"
        assert receipt.leader_epoch is not None, "acks=all names it"
        part = receipt.partition
        self.ledger.on_acknowledged(id, part, receipt.offset)
        self.state.partitions[part].acknowledged += 1
        self._measure(part, receipt.leader_epoch)

    def _measure(self, part: int, leader_epoch: int) -> None:
        now_s, failover = time.monotonic(), self.failover
        newly = part in failover.partitions and part not in failover.first_served_ms
        if newly and leader_epoch > self._epochs[part]:
            failover.first_served_ms[part] = _wall_ms()
            failover.pauses_ms[part] = (now_s - self._last_ack_s.get(part, now_s)) * 1000
        self._last_ack_s[part] = now_s

    # --- breaking and healing ---------------------------------------------------------------------

    def _kill_busiest_leader(self) -> Member:
        views = self.state.partitions
        busiest = max(views, key=lambda number: views[number].acknowledged)
        broker = views[busiest].leader
        if broker == NO_LEADER:
            raise CliError(
                f"partition {busiest} has no leader before anything was broken; logs in {self.cluster.folder}"
            )
        led = sorted(number for number, view in views.items() if view.leader == broker)
        member = self.cluster.member(str(broker))
        known = member.known()
        self._epochs = dict(self._leader_epochs())
        self.failover = Failover(broker, _wall_ms(), led)
        if known is None or not process.signal_to(known, signal.SIGKILL):
            raise CliError(f"broker {broker} was not running any more; its log: {member.log_file}")
        self.state.say(
            f"kill -9 broker {broker}: it leads partition {busiest}, the busiest, and {len(led) - 1} more; records keep coming"
        )
        return member

    def _leader_epochs(self) -> Iterator[tuple[int, int]]:
        for topic in self._api.metadata([self.plan.topic]).topics:
            for part in topic.partitions:
                yield part.partition, part.leader_epoch

    async def _restart(self, member: Member) -> None:
        self.cluster.reap()
        self.cluster.start(member, exit_with_parent=True)
        self.failover.restarted_ms = _wall_ms()
        self.state.say(f"broker {member.id} started again on its old data")
        await self._until(self._all_in_sync, f"broker {member.id} back in sync")
        self.failover.rejoined_ms = _wall_ms()
        self.state.say(f"broker {member.id} caught up and is back in every ISR")

    async def _watch(self) -> None:
        """Take over the metadata of whichever broker answers, and tell what changed."""
        self.state.brokers = {member.id: member.state() for member in self.cluster.brokers}
        try:
            metadata = await asyncio.to_thread(self._api.metadata, [self.plan.topic])
        except MinilogError:
            return
        for topic in metadata.topics:
            self._take_over(topic)

    def _take_over(self, topic: TopicInfo) -> None:
        moved: list[str] = []
        left: dict[int, list[int]] = defaultdict(list)
        joined: dict[int, list[int]] = defaultdict(list)
        for part in topic.partitions:
            view = self.state.partitions.setdefault(part.partition, PartitionView())
            if view.replicas:
                if part.leader not in (view.leader, NO_LEADER):
                    moved.append(f"{part.partition} to broker {part.leader}")
                for broker in set(view.isr) - set(part.isr):
                    left[broker].append(part.partition)
                for broker in set(part.isr) - set(view.isr):
                    joined[broker].append(part.partition)
            view.leader, view.isr, view.replicas = part.leader, part.isr, part.replicas
        for broker, parts in sorted(left.items()):
            self.state.say(f"broker {broker} is out of the ISR of {_partitions(parts)}")
        if moved:
            self.state.say(f"leaders moved: partition {', '.join(moved)}")
        for broker, parts in sorted(joined.items()):
            self.state.say(f"broker {broker} is in the ISR of {_partitions(parts)} again")

    def _all_in_sync(self) -> bool:
        views = self.state.partitions.values()
        return len(views) == PARTITIONS and all(
            view.leader != NO_LEADER and len(view.isr) == REPLICAS for view in views
        )

    async def _until(self, condition: Callable[[], bool], wanted: str) -> None:
        deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
        while not condition():
            if time.monotonic() >= deadline_s:
                raise CliError(
                    f"after {SETTLE_TIMEOUT_S:.0f} s not yet: {wanted}; logs in {self.cluster.folder / 'logs'}"
                )
            await asyncio.sleep(WATCH_S)

    def _create_topic(self) -> None:
        config = {"min.insync.replicas": str(MIN_ISR)}
        self._api.create_topic(self.plan.topic, PARTITIONS, REPLICAS, config)

    # --- reading back -----------------------------------------------------------------------------

    async def _read_back(self, client: AsyncClient) -> Proof:
        judge = ReadBack(self.ledger)
        self.ends = await read_back(client, self._api, self.plan.topic, PARTITIONS, judge)
        return judge.finish()


def _partitions(numbers: list[int]) -> str:
    word = "partition" if len(numbers) == 1 else "partitions"
    return f"{word} {', '.join(map(str, sorted(numbers)))}"


def _wall_ms() -> float:
    return time.time() * 1000


async def _sleep_until(at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - time.monotonic()))


@contextlib.asynccontextmanager
async def _repeating(step: Callable[[], Awaitable[object]], every_s: float) -> AsyncIterator[None]:
    """Run ``step`` again and again while the body runs."""

    async def loop() -> None:
        while True:
            await step()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
