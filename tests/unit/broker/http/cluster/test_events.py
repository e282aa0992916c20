"""What happened, as a list and as a stream."""

from __future__ import annotations

import asyncio

from minilog.wire.http import EVENTS
from minilog.wire.journal.events import WARNING, Event, EventKind
from minilog.wire.journal.metadata_records import EventNoted
from tests.unit.broker.http.harness import Broker, Connection, with_broker


def happen(broker: Broker, sentence: str, at_ms: int = 0) -> int:
    image = broker.runtime.image
    number = image.metadata_offset + 1
    broker.runtime.cluster.apply(EventNoted(number, Event(at_ms, EventKind.BROKER_FENCED, WARNING, sentence, 2)))
    changed, broker.runtime.metadata_changed = broker.runtime.metadata_changed, asyncio.Event()
    changed.set()
    return number


def test_the_last_ones_or_what_came_behind_a_number_or_since_a_time() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async def ask(query: str) -> tuple[list[str], int]:
            answer = await connection.request("GET", f"/v1/cluster/events{query}")
            assert answer.status == 200
            told = answer.json()
            return [noted["event"]["sentence"] for noted in told["events"]], told["next"]

        first = happen(broker, "a", at_ms=10)
        second = happen(broker, "b", at_ms=20)
        third = happen(broker, "c", at_ms=30)
        assert await ask("") == (["a", "b", "c"], third)
        assert await ask("?limit=2") == (["b", "c"], third)
        assert await ask(f"?after={first}&limit=1") == (["b"], second)
        assert await ask(f"?after={third}") == ([], third)
        assert await ask("?since_ms=20") == (["b", "c"], third)
        assert (await connection.request("GET", "/v1/cluster/events?limit=0")).status == 400

    with_broker(test)


def test_where_nothing_happened_the_next_question_begins_at_the_end_of_the_journal() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        told = (await connection.request("GET", "/v1/cluster/events")).json()
        assert told == {"events": [], "next": broker.runtime.image.metadata_offset}

    with_broker(test)


def test_a_stream_goes_on_as_things_happen_and_where_a_client_left() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async def stream(last: str = "") -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            more = f"Last-Event-ID: {last}\r\n" if last else ""
            writer.write(
                f"GET /v1/cluster/events HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENTS}\r\n{more}\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)
            return reader

        writers: list[asyncio.StreamWriter] = []
        before = happen(broker, "before")
        from_now, from_before = await stream(), await stream(str(before - 1))
        assert b'"before"' in await from_before.readuntil(b"\n\n")
        number = happen(broker, "now")
        for reader in (from_now, from_before):
            told = await reader.readuntil(b"\n\n")
            assert b"id: %d\n" % number in told
            assert b'"now"' in told
        for writer in writers:
            writer.close()

    with_broker(test)
