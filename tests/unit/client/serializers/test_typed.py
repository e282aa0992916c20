"""Typed values and keys: what was written is read as the same, and a checker of types knows what it
is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from minilog_client import JSON, TEXT, AsyncClient, Client, InvalidRequest, Serializer, json_of, msgpack_of
from minilog_client.serializers.serializer import serializer_of
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.serializers import typed_app
from tests.unit.client.virtual_time import run

NO_BYTES: Any = str
ROOT = Path(__file__).parents[4]


class Struct(msgspec.Struct):
    a: int


@dataclass
class Data:
    a: int


class Typed(TypedDict):
    a: int


class Model(pydantic.BaseModel):
    a: int


@pytest.mark.parametrize(
    ("what", "value", "data"),
    [
        (Struct, Struct(1), b'{"a":1}'),
        (Data, Data(1), b'{"a":1}'),
        (Typed, {"a": 1}, b'{"a":1}'),
        (Model, Model(a=1), b'{"a":1}'),
        (list[int], [1, 2], b"[1,2]"),
        (int, 7, b"7"),
        (str, "ä", "ä".encode()),
        (TEXT, "x", b"x"),
        (JSON, {"a": [1]}, b'{"a":[1]}'),
        (json_of(str), "x", b'"x"'),
        (msgpack_of(Struct), Struct(1), b"\x81\xa1a\x01"),
    ],
)
def test_what_is_written_is_read_as_the_same(what: Any, value: Any, data: bytes) -> None:
    serializer = serializer_of("value", what)
    assert serializer is not None
    assert serializer.encode(value) == data
    assert serializer.decode(data) == value


@pytest.mark.parametrize("what", [None, bytes])
def test_bytes_are_left_as_they_are(what: Any) -> None:
    assert serializer_of("value", what) is None


@pytest.mark.parametrize(
    ("use", "error", "said"),
    [
        (lambda client: client.producer(value="json"), TypeError, "value must be bytes, str, a type.*got 'json'"),
        (lambda client: client.consumer("t", key=7), TypeError, "key must be bytes, str, a type.*got 7"),
        (lambda client: json_of(list[complex | int]), InvalidRequest, "cannot be read as JSON"),
        (lambda client: client.producer(value=Struct).send_nowait("t", {"a": 1}), InvalidRequest, "must be Struct, got dict"),
        (lambda client: client.producer(value=str).send_nowait("t", b"x"), InvalidRequest, "the value cannot be written"),
        (
            lambda client: client.producer(key=Serializer(NO_BYTES, bytes)).send_nowait("t", b"x", 1),
            InvalidRequest,
            "the serializer of key must return bytes, got str",
        ),
        (lambda client: client.producer(value=Struct, ack=1), InvalidRequest, "did you mean acks"),
        (lambda client: client.consumer("t", undecodable="ignore"), InvalidRequest, "allowed are raise, skip"),
    ],
)  # fmt: skip
def test_misuse_is_refused_at_once(use: Callable[[AsyncClient], Any], error: type[Exception], said: str) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            with pytest.raises(error, match=said):
                use(client)

    run(main())


def test_the_typed_application_runs() -> None:
    cluster = FakeCluster()
    cluster.create("orders", 1)
    FakeCoordinator(cluster)

    async def main() -> None:
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            await typed_app.asynchronous(client)

    run(main())
    cluster.closed = False
    cluster._wake()
    with Client(cluster.bootstrap, transport=cluster) as client:
        client.delete_topic("orders")
        cluster.create("orders", 1)
        assert typed_app.synchronous(client) == [typed_app.Order("pen"), typed_app.Order("ink")]


def test_its_types_are_right_and_its_mistakes_are_found() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", typed_app.__file__],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
