"""The log level of a broker over HTTP: shown, set, and nothing else taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from minilog.wire.http import JSON
from tests.unit.broker.http.harness import Broker, Connection, with_broker

PATH = "/v1/loglevel"


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(before)


def test_it_is_set_for_this_process_and_says_what_the_next_one_begins_with() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert (await connection.request("GET", PATH)).json() == {"level": "info", "configured": "info"}
        answer = await connection.request("PUT", PATH, b'{"level": "debug"}', JSON)
        assert answer.json() == {"level": "debug", "configured": "info"}
        assert logging.getLogger().level == logging.DEBUG
        assert (await connection.request("GET", PATH)).json()["level"] == "debug"

    with_broker(test)


def test_at_debug_each_answer_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        await connection.request("PUT", PATH, b'{"level": "debug"}', JSON)
        await connection.request("GET", "/healthz")

    with_broker(test)
    lines = [record.getMessage() for record in caplog.records if record.name == "minilog.http"]
    assert any(line.startswith("GET '/healthz' from 127.0.0.1: 200, ") for line in lines)


@pytest.mark.parametrize(
    "body", [b"", b"debug", b'{"level": "trace"}', b'{"level": "debug", "more": 1}', b'{"level": null}', b"[" * 900]
)
def test_what_is_no_level_changes_nothing(body: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("PUT", PATH, body, JSON)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "debug" in answer.json()["detail"]
        assert logging.getLogger().level == logging.INFO

    with_broker(test)


def test_a_body_beyond_all_measure_is_refused_before_it_is_read() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("PUT", PATH, b" " * 2000, JSON)
        assert answer.status == 413

    with_broker(test)
