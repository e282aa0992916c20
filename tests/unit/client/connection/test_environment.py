"""Clients of the cluster that the environment names."""

from __future__ import annotations

import asyncio

import pytest

from minilog.errors import InvalidRequest, MinilogError
from minilog_client import AsyncClient, Client


def test_the_brokers_are_those_of_minilog_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILOG_URL", "http://127.0.0.1:9, localhost:9")

    async def main() -> None:
        async with AsyncClient.from_env(request_timeout_ms=500) as client:
            with pytest.raises(MinilogError, match=r"no connection to http://(127\.0\.0\.1|localhost):9"):
                await client.list_topics(timeout_ms=300)

    asyncio.run(main())
    with (
        Client.from_env(request_timeout_ms=500) as client,
        pytest.raises(MinilogError, match=r"no connection to http://(127\.0\.0\.1|localhost):9"),
    ):
        client.list_topics(timeout_ms=300)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_it_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MINILOG_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("MINILOG_URL", value)
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequest, match="MINILOG_URL is not set; set it to the brokers, like http"):
            kind.from_env()
