"""A command that was given several URLs goes on to the next one when a broker refuses for reasons
of its own, as that it recovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from minilog.cli.api import Api
from tests.unit.broker.http.harness import orders, serving
from tests.unit.broker.test_recovering import SlowRecovery, recovering, slow  # noqa: F401


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.metadata(),
        lambda api: api.end_offset("orders", 0),
        lambda api: api.create_topic("new", 1, 1, {}),
        lambda api: api.delete_topic("orders"),
    ],
    ids=["metadata", "offsets", "create", "delete"],
)
def test_a_command_asks_another_than_the_one_that_recovers(
    tmp_path: Path,
    slow: SlowRecovery,  # noqa: F811
    ask: Callable[[Api], object],
) -> None:
    async def main() -> None:
        async with recovering(tmp_path, slow) as (ill, _, _), serving(orders()) as well:
            await asyncio.to_thread(ask, Api(f"{ill.url},{well.url}", timeout_s=2))

    asyncio.run(main())
