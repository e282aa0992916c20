"""Everything the machine can give, for minutes, and no fault: ``python -m
tests.process.load.fullload --minutes 10``.

Several producer processes (acks=all, 1 KB records, three replicas) and consumers that follow them
take both cores, so that brokers and controller hardly get theirs. Nobody may be taken for dead on
that ground: exit code 1 when the controller's journal says that any broker was fenced. It also
tells every shrink and return of an ISR.

Disk use is bounded: every ``--topic-seconds`` the load moves on to a new topic, and the one before
the last is deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from minilog.controller import frames
from minilog.errors import MinilogError, UnknownTopic
from minilog.wire.journal.metadata_records import BrokerFenced, MetadataRecord, PartitionChanged, TopicDeleted
from minilog_client import AsyncClient
from tests.process.campaign.report import full_load_sentence
from tests.process.rig.cluster import CONTROLLER, ProcessCluster, process_cluster
from tests.process.rig.machine import CpuTimes

RECORD_BYTES: Final = 1024
CHUNK_RECORDS: Final = 1000
CHUNKS_IN_FLIGHT: Final = 4
PARTITIONS: Final = 6
SESSION_TIMEOUT_MS: Final = 2000
SAMPLE_S: Final = 0.25
FREE_BYTES_MIN: Final = 10 << 30
AGE: Final = "minilog_broker_heartbeat_age_seconds"
LAG: Final = "minilog_event_loop_lag_seconds"


@dataclass
class Figures:
    began: str = ""
    seconds: float = 0.0
    cores: int = 0
    idle: float = 0.0
    """Share of the CPU that nobody took."""
    other: float = 0.0
    """Share of the CPU that went to other work, at low priority."""
    record_bytes: int = RECORD_BYTES
    records: int = 0
    read: int = 0
    mb_per_s: float = 0.0
    errors: list[str] = field(default_factory=list)
    heartbeat_age_ms: float = 0.0
    loop_lag_ms: float = 0.0
    session_timeout_ms: int = SESSION_TIMEOUT_MS
    fenced: int = 0
    isr_shrinks: int = 0
    isr_returns: int = 0
    leader_changes: int = 0
    topics: int = 0
    stopped: str = ""
    """Why it ended before its time; empty when it did not."""
    samples: list[dict[str, float]] = field(default_factory=list)


# --- client processes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Orders:
    """What a client process needs to know: ``number`` of the topic that is written to now."""

    url: str
    number: Any
    stop: Any
    results: Any


def topic_name(number: int) -> str:
    return f"load{number}"


def produce(orders: Orders) -> None:
    asyncio.run(_produce(orders))


async def _produce(orders: Orders) -> None:
    noise = os.urandom(RECORD_BYTES + CHUNK_RECORDS)
    values = [noise[start : start + RECORD_BYTES] for start in range(CHUNK_RECORDS)]
    async with AsyncClient(orders.url) as client, client.producer(acks="all") as producer:

        async def worker() -> None:
            sent, error = 0, ""
            while not orders.stop.is_set():
                try:
                    await producer.send_many(topic_name(orders.number.value), values)
                    sent += len(values)
                except MinilogError as failed:
                    error = repr(failed)
                if sent >= 10 * CHUNK_RECORDS or error:
                    orders.results.put(("records", sent, error))
                    sent, error = 0, ""
            orders.results.put(("records", sent, error))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CHUNKS_IN_FLIGHT):
                tasks.create_task(worker())


def consume(orders: Orders) -> None:
    asyncio.run(_consume(orders))


async def _consume(orders: Orders) -> None:
    async with AsyncClient(orders.url) as client:
        while not orders.stop.is_set():
            number = orders.number.value
            try:
                await _follow(client, number, orders)
            except UnknownTopic:
                continue  # deleted while it was read: it was the one before the last
            except MinilogError as failed:
                orders.results.put(("read", 0, repr(failed)))


async def _follow(client: AsyncClient, number: int, orders: Orders) -> None:
    topic = topic_name(number)
    async with client.consumer([(topic, partition) for partition in range(PARTITIONS)], start="earliest") as consumer:
        while not orders.stop.is_set():
            records = await consumer.batch(max_records=10_000, max_wait_ms=500)
            orders.results.put(("read", len(records), ""))
            if not records and number != orders.number.value:
                return


# --- watching -------------------------------------------------------------------------------------


class Watch:
    """The largest heartbeat age and loop lag that /metrics ever showed."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._urls = [member.url for member in cluster.dev.members]
        self.samples: list[dict[str, float]] = []
        self._began_s = time.monotonic()

    async def run(self) -> None:
        while True:
            found = await asyncio.gather(*(asyncio.to_thread(_scrape, url) for url in self._urls))
            names = {name for values in found for name in values}
            worst = {name: 1000 * max(values.get(name, 0.0) for values in found) for name in names}
            at_s = round(time.monotonic() - self._began_s, 2)
            self.samples.append({"t_s": at_s, "age_ms": worst.get(AGE, 0.0), "lag_ms": worst.get(LAG, 0.0)})
            await asyncio.sleep(SAMPLE_S)


def _scrape(url: str) -> dict[str, float]:
    """The largest value of each series of interest. Nothing of a process that does not answer in
    time."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5.0) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    wanted = "\n".join(line for line in text.splitlines() if line.startswith((AGE, LAG))) + "\n"
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(wanted):
        for sample in family.samples:
            name = AGE if sample.name == AGE else LAG
            found[name] = max(found.get(name, 0.0), sample.value)
    return found


def journal_of(folder: Path) -> Iterator[MetadataRecord]:
    """Every decision of the controller, in order, as far as its journals are still there."""
    for path in sorted(folder.glob("journal-*.log")):
        first = int(path.stem.removeprefix("journal-"))
        data = path.read_bytes()
        form = frames.form_of(data, first, [frames.JOURNAL, frames.JOURNAL_UNMARKED])
        assert form is not None, f"{path} is no journal"
        yield from frames.scan(form, data, frames.FILE_HEADER_BYTES, first).records


def count_changes(records: Iterator[MetadataRecord]) -> Counter[str]:
    """Fenced brokers, ISRs that lost or won a member, new leaders."""
    counts: Counter[str] = Counter()
    known: dict[tuple[str, int], PartitionChanged] = {}
    for record in records:
        if isinstance(record, BrokerFenced):
            counts["fenced"] += 1
        elif isinstance(record, TopicDeleted):
            known = {key: state for key, state in known.items() if key[0] != record.topic_id}
        elif isinstance(record, PartitionChanged):
            before = known.get((record.topic_id, record.partition))
            known[record.topic_id, record.partition] = record
            if before is not None:
                counts["isr_shrinks"] += len(set(before.isr) - set(record.isr))
                counts["isr_returns"] += len(set(record.isr) - set(before.isr))
                counts["leader_changes"] += record.leader_epoch > before.leader_epoch
    return counts


# --- the run --------------------------------------------------------------------------------------


class FullLoad:
    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self.figures = Figures(began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), cores=os.cpu_count() or 0)

    def run(self) -> Figures:
        with process_cluster(self._folder / "cluster") as cluster:
            asyncio.run(self._load(cluster))
            controller = cluster.dev.member(CONTROLLER)
            vars(self.figures).update(count_changes(journal_of(controller.data_dir)))
        return self.figures

    async def _load(self, cluster: ProcessCluster) -> None:
        processes = multiprocessing.get_context("spawn")
        number, stop = processes.Value("i", 0), processes.Event()
        orders = Orders(cluster.url, number, stop, processes.Queue())
        roles = [produce] * self._arguments.producers + [consume] * self._arguments.consumers
        children = [processes.Process(target=role, args=(orders,), daemon=True) for role in roles]
        watch = Watch(cluster)
        async with AsyncClient(cluster.url) as client:
            await self._next_topic(client, orders)
            for child in children:
                child.start()
            await self._until_all_began(orders)
            cpu, began_s = CpuTimes.now(), time.monotonic()
            self.figures.records = self.figures.read = 0
            watching = asyncio.create_task(watch.run())
            try:
                await self._go_on(client, orders, began_s + self._arguments.minutes * 60)
            finally:
                self._sum_up(time.monotonic() - began_s, cpu, watch.samples)
                watching.cancel()
                stop.set()
                await self._drain(orders, children)

    async def _until_all_began(self, orders: Orders) -> None:
        """Until records are acknowledged and read."""
        while not (self.figures.records and self.figures.read):
            self._take_results(orders)
            await asyncio.sleep(0.1)

    async def _go_on(self, client: AsyncClient, orders: Orders, until_s: float) -> None:
        next_s, shown_s = time.monotonic() + self._arguments.topic_seconds, time.monotonic()
        while (now_s := time.monotonic()) < until_s and not self.figures.stopped:
            self._take_results(orders)
            if now_s >= next_s:
                next_s = now_s + self._arguments.topic_seconds
                await self._next_topic(client, orders)
            if now_s >= shown_s + 30:
                shown_s = now_s
                print(f"{self.figures.records:,} acknowledged, {self.figures.read:,} read", flush=True)
            await asyncio.sleep(0.2)

    async def _next_topic(self, client: AsyncClient, orders: Orders) -> None:
        """The one written to so far can still be read to its end. The one before it goes."""
        number = self.figures.topics + 1
        await client.create_topic(topic_name(number), PARTITIONS, 3, {"min.insync.replicas": "2"})
        self.figures.topics = orders.number.value = number
        if number > 2:
            await client.delete_topic(topic_name(number - 2))
        free_bytes = shutil.disk_usage(self._folder).free
        if free_bytes < FREE_BYTES_MIN:
            self.figures.stopped = (
                f"only {free_bytes >> 30} GB are free in {self._folder}, {FREE_BYTES_MIN >> 30} must be: the logs of two "
                "topics have to fit; a smaller --topic-seconds needs less"
            )

    def _take_results(self, orders: Orders) -> None:
        while True:
            try:
                kind, count, error = orders.results.get_nowait()
            except queue.Empty:
                return
            setattr(self.figures, kind, getattr(self.figures, kind) + count)
            if error:
                self.figures.errors.append(error)

    async def _drain(self, orders: Orders, children: Sequence[Any]) -> None:
        """A child that has results to give away does not end before they were taken."""
        counted = self.figures.records, self.figures.read
        deadline_s = time.monotonic() + 30.0
        while any(child.is_alive() for child in children) and time.monotonic() < deadline_s:
            self._take_results(orders)
            await asyncio.sleep(0.1)
        for child in children:
            child.kill()
            child.join()
        self.figures.records, self.figures.read = counted

    def _sum_up(self, seconds: float, cpu: CpuTimes, samples: list[dict[str, float]]) -> None:
        figures, shares = self.figures, cpu.shares()
        figures.seconds = round(seconds, 1)
        figures.idle, figures.other = shares["idle"], shares["nice"]
        figures.mb_per_s = round(figures.records * RECORD_BYTES / 1e6 / seconds, 2)
        figures.samples = samples
        figures.heartbeat_age_ms = round(max((sample["age_ms"] for sample in samples), default=0.0), 1)
        figures.loop_lag_ms = round(max((sample["lag_ms"] for sample in samples), default=0.0), 1)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.process.load.fullload", description="Full load, no fault.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--producers", type=int, default=2, help="processes")
    parser.add_argument("--consumers", type=int, default=1, help="processes")
    parser.add_argument("--topic-seconds", type=float, default=20.0, help="how long one topic is written to")
    parser.add_argument("--json", type=Path, default=Path("fullload.json"), help="where the figures go")
    parser.add_argument("--folder", type=Path, help="where the cluster lives")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="fullload-", dir=parsed.folder))
    figures = FullLoad(parsed, folder).run()
    parsed.json.write_text(json.dumps(asdict(figures)) + "\n")
    print(full_load_sentence(asdict(figures)))
    for sentence in (figures.stopped, *figures.errors[:5]):
        if sentence:
            print(sentence)
    if figures.fenced:
        print(f"{figures.fenced} brokers were fenced although nothing was broken; logs in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 1 if figures.stopped else 0


if __name__ == "__main__":
    sys.exit(main())
