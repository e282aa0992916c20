"""The examples in the docstrings run as they stand."""

from __future__ import annotations

import asyncio
import textwrap
from functools import partial
from typing import Any

import pytest

from minilog_client import Admin, AsyncClient, Client, Consumer, GroupAdmin, GroupConsumer, Producer
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

URLS = "http://127.0.0.1:8082,http://127.0.0.1:8083"


def snippet(described: type[Any]) -> str:
    text = textwrap.dedent("    " + (described.__doc__ or ""))
    code = text.split("```python\n")[1].split("```")[0]
    return textwrap.dedent(code)


def cluster_with_records() -> FakeCluster:
    cluster = FakeCluster(2)
    cluster.urls = dict(enumerate(URLS.split(","), start=1))
    cluster.create("orders")
    FakeCoordinator(cluster)
    return cluster


@pytest.mark.parametrize("described", [AsyncClient, Producer, Consumer, GroupConsumer, Admin, GroupAdmin])
def test_asynchronous(described: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        cluster = cluster_with_records()
        if described is Admin:
            del cluster.logs["orders"]
        names: dict[str, Any] = {"AsyncClient": partial(AsyncClient, transport=cluster)}
        exec("async def example(client):\n" + textwrap.indent(snippet(described), "    "), names)
        async with AsyncClient(URLS, transport=cluster) as client:
            if described in (Consumer, GroupConsumer, GroupAdmin):
                await client.producer().send_many("orders", [b"x"] * 50)
            await asyncio.wait_for(names["example"](client), 30)

    run(main())
    assert described is Producer or capsys.readouterr().out


def test_synchronous(capsys: pytest.CaptureFixture[str]) -> None:
    exec(snippet(Client), {"Client": partial(Client, transport=cluster_with_records())})
    assert "b'hello'" in capsys.readouterr().out
