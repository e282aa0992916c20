"""A controller and one broker in a single process: for embedding, tests and small uses. They still
speak HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from minilog.broker.main import Broker
from minilog.config import BrokerSettings, ControllerSettings
from minilog.controller.main import make_controller
from minilog.server import process
from minilog.server.background import first_of


async def serve_both(
    broker_settings: BrokerSettings,
    controller_settings: ControllerSettings,
    stop: asyncio.Event,
    on_serving: Callable[[str], None] | None = None,
) -> None:
    """Run both until ``stop`` is set. The broker leaves first. If one fails, both stop.

    ``on_serving`` is told the broker's URL once both take requests and the broker is registered."""
    controller = make_controller(controller_settings)
    stop_controller = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(controller.run(stop_controller), name="controller")
        listening = tasks.create_task(controller.listening.wait(), name="controller's start")
        if await first_of(listening, stop):
            broker = Broker(replace(broker_settings, controller_url=controller.url))
            telling = tasks.create_task(_tell(broker, on_serving), name="tell")
            try:
                await broker.run(stop)
            finally:
                telling.cancel()
        listening.cancel()
        stop_controller.set()


async def _tell(broker: Broker, on_serving: Callable[[str], None] | None) -> None:
    await broker.registered.wait()
    if on_serving is not None:
        on_serving(broker.url)


async def _main(
    broker_settings: BrokerSettings,
    controller_settings: ControllerSettings,
    on_serving: Callable[[str], None] | None,
) -> int:
    stop = asyncio.Event()
    with process.stop_on_signals(stop):
        await serve_both(broker_settings, controller_settings, stop, on_serving)
    return 0


def run_both(
    broker_settings: BrokerSettings,
    controller_settings: ControllerSettings,
    on_serving: Callable[[str], None] | None = None,
) -> int:
    """Run both in this process until SIGTERM or SIGINT; returns the exit code."""
    main = _main(broker_settings, controller_settings, on_serving)
    return process.run(main, "minilog", broker_settings.event_loop)
