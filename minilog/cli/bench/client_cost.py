"""``minilog bench client``: what the Python client itself costs, in microseconds a record, network
and brokers left out.

The client talks to ``InstantBroker``, a transport in the same process that acknowledges and serves
at once, so all that is measured is the client: encoding, batching, futures, decoding. Each
measurement runs in a process of its own, once with the compiled record codec and once with the pure
one. Beside it stands confluent-kafka-python, where it is installed, against the mock cluster that
its C library brings along.

The unit is CPU time of the application's thread, and for the blocking client that of both threads.
For this client that is everything there is;
confluent-kafka also sends and receives in threads of its own, which is left out, to its advantage:
its own mock brokers run there too.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

from minilog.cli.output import CliError, Column, Format, note, show_rows

VALUE_BYTES: Final = (100, 1024)
RUN_BYTES: Final = 12_000_000
RECORDS_MAX: Final = 50_000
WINDOW: Final = 5000
"""Records without an answer that an application holds with ``send_nowait``."""
PARTITIONS: Final = 4
TOPIC: Final = "bench"
URL: Final = "http://instant:1"
CHILD_TIMEOUT_S: Final = 300
READ_WAIT_MS: Final = 5000
COLUMNS: Final = [
    Column("operation", "OPERATION"),
    Column("value_bytes", "BYTES", right=True),
    Column("compiled", "COMPILED US", right=True),
    Column("pure", "PURE US", right=True),
    Column("confluent", "CONFLUENT US", right=True),
    Column("confluent_call", "BY"),
]
CONFLUENT: Final = {
    "send_nowait": "produce()",
    "send in a loop, blocking": "produce()",
    "iteration": "poll()",
    "batch()": "consume()",
}
"""What does the same there."""
Timings = dict[str, list[float]]
"""Microseconds a record of each run, by operation and value size (``"decode 100"``)."""


def bench_client(runs: int, output: Format) -> None:
    """Run the children and show the table. The median of ``runs`` in each cell."""
    results = {variant: _child(variant, runs) for variant in ("compiled", "pure", "confluent")}
    if not any(results.values()):
        raise CliError("nothing could be measured")
    rows: list[dict[str, Any]] = []
    for name in results["pure"]:
        operation, size = name.rsplit(" ", 1)
        row: dict[str, Any] = {"operation": operation, "value_bytes": int(size)}
        for variant, timings in results.items():
            times = timings.get(name)
            row[variant] = None if times is None else round(median(times), 3)
        row["confluent_call"] = CONFLUENT.get(operation, "") if results["confluent"] else ""
        rows.append(row)
    if output in (Format.table, Format.wide):
        for row in rows:
            row |= {variant: f"{row[variant]:.2f}" for variant in results if row[variant] is not None}
    show_rows(rows, COLUMNS, output)


def _child(variant: str, runs: int) -> Timings:
    command = [sys.executable, "-m", "minilog.cli.bench.client_cost", variant, str(runs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        note(f"{variant}: no result within {CHILD_TIMEOUT_S} s")
        return {}
    if done.returncode:
        note(f"{variant}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed without a word'}")
        return {}
    timings: Timings = json.loads(done.stdout)
    return timings


# --- in the child: this client --------------------------------------------------------------------


class InstantBroker:
    """A transport behind which everything has happened already; keeps the payloads of what it is
    told to serve."""

    def __init__(self) -> None:
        from minilog.wire.messages import BrokerInfo, MetadataReply, PartitionInfo, TopicInfo

        partitions = [PartitionInfo(number, 1, 0, 0, [1], [1]) for number in range(PARTITIONS)]
        brokers = [BrokerInfo(1, URL, "running", 1)]
        self._metadata = MetadataReply("cluster", 1, 1, brokers, [TopicInfo(TOPIC, "id", partitions)])
        self._ends: Counter[int] = Counter()
        self.stored: dict[int, tuple[int, bytes]] = {}
        """End offset and batches of the partitions that can be read."""

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int) -> Any:
        from minilog.wire.http import MSGPACK
        from minilog.wire.messages import (
            Fetch,
            InitProducerReply,
            Offsets,
            Produce,
            ProduceReply,
            decode,
            encode,
        )
        from minilog_client.connection.transport import Response

        message = decode(body) if body else None
        reply: Any = self._metadata
        if isinstance(message, Produce):
            reply = ProduceReply([self._take(entry) for entry in message.partitions])
        elif isinstance(message, Fetch):
            reply = await self._serve(message)
        elif isinstance(message, Offsets):
            reply = self._offsets(message)
        elif message is not None:
            reply = InitProducerReply(1)
        return Response(200, {"content-type": MSGPACK}, encode(reply))

    async def close(self) -> None:
        pass

    def _take(self, entry: Any) -> Any:
        from minilog.wire.batch import peek
        from minilog.wire.messages import ProduceResult

        base = end = self._ends[entry.partition]
        position = 0
        while position < len(entry.batches):
            header = peek(entry.batches, position)
            position += header.bytes_total
            end += header.record_count
        self._ends[entry.partition] = end
        return ProduceResult(TOPIC, entry.partition, None, base, end, 0, 1, 0, -1, [1])

    async def _serve(self, message: Any) -> Any:
        from minilog.wire.messages import NOTHING, FetchReply, FetchResult

        results = []
        for entry in message.partitions:
            end, data = self.stored.get(entry.partition, (0, b""))
            batches = memoryview(data) if entry.offset == 0 and data else NOTHING
            results.append(FetchResult(TOPIC, entry.partition, None, batches, end))
        if not any(len(result.batches) for result in results):
            await asyncio.sleep(message.max_wait_ms / 1000)
        return FetchReply(results)

    def _offsets(self, message: Any) -> Any:
        from minilog.wire.messages import OffsetsReply, OffsetsResult

        return OffsetsReply([OffsetsResult(TOPIC, entry.partition, None, 0, None, 0) for entry in message.partitions])


def _use_pure_codec() -> None:
    """The codec from its source, whatever has been compiled. Before anything else has imported
    it."""
    import minilog.wire.codec

    source = Path(next(iter(minilog.wire.codec.__path__))) / "codec.py"
    spec = importlib.util.spec_from_file_location("minilog.wire.codec.codec", source)
    assert spec is not None, "a path makes a spec"
    assert spec.loader is not None, "a source file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules["minilog.wire.codec.codec"] = module
    minilog.wire.codec.codec = module
    spec.loader.exec_module(module)


def _counts(value_bytes: int) -> int:
    return min(RECORDS_MAX, RUN_BYTES // value_bytes)


def _values(value_bytes: int) -> list[bytes]:
    """Not all the same object, or a copy would cost nothing."""
    return [(b"%d" % number).ljust(value_bytes, b"x") for number in range(_counts(value_bytes))]


async def _measure(runs: int) -> Timings:
    timings: Timings = {}
    for value_bytes in VALUE_BYTES:
        values = _values(value_bytes)
        pairs = [(b"%d" % (number % 1000), value) for number, value in enumerate(values)]
        stored = _stored(values)
        for _ in range(runs):
            measured = await _producing(values, pairs) | await _consuming(stored, len(values)) | _decoding(stored)
            measured |= await asyncio.to_thread(_sending, values)
            for operation, seconds in measured.items():
                us = seconds * 1e6 / len(values)
                timings.setdefault(f"{operation} {value_bytes}", []).append(us)
    return timings


@asynccontextmanager
async def _connected(broker: InstantBroker) -> AsyncIterator[Any]:
    from minilog_client import AsyncClient

    async with AsyncClient(URL, transport=broker) as client:
        yield client


async def _producing(values: list[bytes], pairs: list[tuple[bytes, bytes]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    async with _connected(InstantBroker()) as client, client.producer() as producer:
        await producer.send(TOPIC, b"first")
        began = time.thread_time()
        await producer.send_many(TOPIC, values)
        seconds["send_many"] = time.thread_time() - began
        began = time.thread_time()
        await producer.send_many(TOPIC, pairs)
        seconds["send_many pairs"] = time.thread_time() - began
        began = time.thread_time()
        for start in range(0, len(values), WINDOW):
            futures = [producer.send_nowait(TOPIC, value) for value in values[start : start + WINDOW]]
            await producer.flush()
            assert futures[-1].result().offset is not None
        seconds["send_nowait"] = time.thread_time() - began
        began = time.thread_time()
        for start in range(0, len(values), WINDOW):
            futures = [producer.send_nowait(TOPIC, value, key) for key, value in pairs[start : start + WINDOW]]
            await producer.flush()
        seconds["send_nowait with key"] = time.thread_time() - began
    return seconds


def _sending(values: list[bytes]) -> dict[str, float]:
    """The loop of ``send`` that people write. Both threads count."""
    from minilog_client import Client

    with Client(URL, transport=InstantBroker()) as client, client.producer() as producer:
        producer.send(TOPIC, b"first").result()
        began = time.process_time()
        for value in values:
            future = producer.send(TOPIC, value)
        producer.flush()
        assert future.result().offset is not None
        return {"send in a loop, blocking": time.process_time() - began}


def _stored(values: list[bytes]) -> dict[int, tuple[int, bytes]]:
    """``values`` as they lie in the partitions of a broker, in batches as a producer makes them."""
    from minilog.wire.batch import ACKS_MANY, split, stamp
    from minilog.wire.records import encode_values

    stored = {}
    for partition in range(PARTITIONS):
        own = values[partition::PARTITIONS]
        step = max(1, 256 * 1024 // len(own[0]))
        batches = []
        for start in range(0, len(own), step):
            data = encode_values(own[start : start + step], 1, producer_id=1, producer_epoch=0, base_sequence=start)
            batches.append(stamp(split(data, len(data))[0], start, 0, ACKS_MANY).tobytes())
        stored[partition] = (len(own), b"".join(batches))
    return stored


async def _consuming(stored: dict[int, tuple[int, bytes]], total: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    broker = InstantBroker()
    broker.stored = stored
    async with _connected(broker) as client:
        async with client.consumer(TOPIC) as consumer:
            began, left = time.thread_time(), total
            while left:
                records = await consumer.batch(max_records=10_000, max_wait_ms=READ_WAIT_MS)
                assert records, f"{left} records have not come"
                left -= len(records)
            seconds["batch()"] = time.thread_time() - began
        async with client.consumer(TOPIC) as consumer:
            began, left = time.thread_time(), total
            async for _ in consumer:
                left -= 1
                if not left:
                    break
            seconds["iteration"] = time.thread_time() - began
    return seconds


def _decoding(stored: dict[int, tuple[int, bytes]]) -> dict[str, float]:
    """What ``batch()`` does with the bytes of one fetch, alone: checksum and records."""
    from minilog.wire.batch import split
    from minilog_client.consumer.records import decode

    began = time.thread_time()
    for partition, (_, data) in stored.items():
        for batch in split(data, len(data), stored=True):
            decode(TOPIC, partition, batch, 0)
    return {"decode": time.thread_time() - began}


# --- in the child: confluent-kafka ----------------------------------------------------------------


def _measure_confluent(runs: int) -> Timings:
    timings: Timings = {}
    for value_bytes in VALUE_BYTES:
        values = _values(value_bytes)
        for _ in range(runs):
            for operation, seconds in _confluent_run(values).items():
                timings.setdefault(f"{operation} {value_bytes}", []).append(seconds * 1e6 / len(values))
    return timings


def _confluent_run(values: list[bytes]) -> dict[str, float]:
    from confluent_kafka import Producer

    settings = {"test.mock.num.brokers": 3, "enable.idempotence": True, "linger.ms": 5, "batch.size": 256 * 1024}
    producer = Producer({**settings, "queue.buffering.max.messages": 2 * RECORDS_MAX})
    failures: list[Any] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(error)

    began = time.thread_time()
    for start in range(0, len(values), WINDOW):
        for number, value in enumerate(values[start : start + WINDOW]):
            producer.produce(TOPIC, value, on_delivery=delivered, partition=(start + number) % PARTITIONS)
        producer.flush()
    seconds = {"send_nowait": time.thread_time() - began}
    seconds["send in a loop, blocking"] = seconds["send_nowait"]
    assert not failures, f"not delivered: {failures[0]}"
    brokers = producer.list_topics().brokers.values()
    bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    seconds["batch()"] = _confluent_read(bootstrap, len(values), lambda consumer: consumer.consume(10_000, 0.2))
    seconds["iteration"] = _confluent_read(bootstrap, len(values), lambda consumer: [consumer.poll(5)])
    return seconds


def _confluent_read(bootstrap: str, total: int, read: Callable[[Any], list[Any]]) -> float:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    began, left = time.thread_time(), total
    deadline_s = time.monotonic() + CHILD_TIMEOUT_S / 10
    while left > 0:
        assert time.monotonic() < deadline_s, f"{left} of {total} records have not come"
        for message in read(consumer):
            if message is not None and message.error() is None:
                message.value()
                left -= 1
    seconds = time.thread_time() - began
    consumer.close()
    return seconds


def child(variant: str, runs: int) -> Timings:
    """One column. Ends the process with a sentence when this machine does not have what it
    takes."""
    if variant == "confluent":
        if importlib.util.find_spec("confluent_kafka") is None:
            sys.exit("confluent-kafka is not installed; pip install 'minilog-broker[compare]' for this column")
        return _measure_confluent(runs)
    if variant == "pure":
        _use_pure_codec()
    from minilog.wire.codec import codec

    if variant == "compiled" and not codec.COMPILED:
        sys.exit("the record codec is not compiled; python setup.py build_ext --inplace for this column")
    return asyncio.run(_measure(runs))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        print(json.dumps(child(sys.argv[1], int(sys.argv[2]))))
