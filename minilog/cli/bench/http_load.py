"""The load of ``bench http``: JSON over HTTP, as a web backend or a script sends it.

The client is sockets and little else, so that what is measured is the cluster.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from minilog.cli.access import credential
from minilog.cli.api import Api
from minilog.cli.bench.load import Load, Measured, Progress
from minilog.cli.output import CliError
from minilog.wire.http import JSON

ANSWER_HEAD_MAX: Final = 64 * 1024
ANSWER_S: Final = 60.0
REFUSED_PAUSE_S: Final = 0.01


async def requests(url: str, load: Load, progress: Progress, begin: Callable[[], None]) -> Measured:
    """``load.connections`` clients, each with one request after the other to the leader of the
    topic's first partition. Refusals that may be repeated are counted, and not measured."""
    shown = credential()
    leader = _leader(url, load.topic)
    request = _request(load, leader.hostname or "", shown.headers(leader.geturl()) if shown is not None else {})
    result = Measured(measured=f"one request of {load.request_records} JSON records")
    refused = 0
    warm_until_s = time.monotonic() + load.warm_up_s
    began_s, ends_s = 0.0, float("inf")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        while time.monotonic() < ends_s and (not load.records or result.records < load.records):
            sent_s = time.monotonic()
            status = await asyncio.wait_for(_exchange(reader, writer, request), ANSWER_S)
            if status == 503:
                refused += 1
                await asyncio.sleep(REFUSED_PAUSE_S)
            elif sent_s >= began_s > 0:
                result.latencies_ms.append((time.monotonic() - sent_s) * 1000)
                result.records += load.request_records
                progress(result.records)

    async def measure() -> None:
        nonlocal began_s, ends_s
        await asyncio.sleep(max(0.0, warm_until_s - time.monotonic()))
        begin()
        began_s = time.monotonic()
        ends_s = ends_s if load.records else began_s + load.seconds

    secure = (shown and shown.context()) or ssl.create_default_context() if leader.scheme == "https" else None
    port = leader.port or (443 if secure else 80)
    opened = [
        await asyncio.open_connection(leader.hostname, port, limit=ANSWER_HEAD_MAX, ssl=secure)
        for _ in range(load.connections)
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(measure())
            for reader, writer in opened:
                tasks.create_task(client(reader, writer))
    finally:
        for _, writer in opened:
            writer.close()
    result.seconds = time.monotonic() - began_s
    result.requests = len(result.latencies_ms)
    result.refused = refused
    result.bytes_total = result.records * load.record_bytes
    return result


def _leader(url: str, topic: str) -> SplitResult:
    api = Api(url)
    leader = api.metadata([topic]).topics[0].partitions[0].leader
    for broker in api.metadata([topic]).brokers:
        if broker.broker_id == leader:
            return urlsplit(broker.url)
    raise CliError(f"{topic}-0 has no leader that is known; `minilog topic describe {topic}` says more")


def _request(load: Load, host: str, shown: Mapping[str, str]) -> bytes:
    record = {"value": "x" * max(1, load.record_bytes - 2)}
    body = json.dumps({"records": [record] * load.request_records}).encode()
    head = (
        f"POST /v1/topics/{load.topic}/partitions/0/records?acks={load.acks} HTTP/1.1\r\nHost: {host}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in shown.items())
        + f"Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """The status of the answer. Raises CliError for one that nothing can be measured by."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(None, 2)[1])
    _, _, rest = head.partition(b"content-length:")
    body = await reader.readexactly(int(rest.partition(b"\r\n")[0] or 0))
    if status not in (200, 202, 503):
        raise CliError(f"the leader answered {status}: {body[:300].decode(errors='replace')}")
    return status
