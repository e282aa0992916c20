"""A controller and one broker in a single process: for embedding, tests and small uses. They still
speak HTTP."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from minilog.broker.main import Broker
from minilog.config import BrokerSettings, ControllerSettings
from minilog.controller.main import make_controller
from minilog.server import process
from minilog.server.background import first_of


async def serve_both(
    broker_settings: BrokerSettings, controller_settings: ControllerSettings, stop: asyncio.Event
) -> None:
    """Run both until ``stop`` is set. The broker leaves first. If one fails, both stop."""
    controller = make_controller(controller_settings)
    stop_controller = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(controller.run(stop_controller), name="controller")
        listening = tasks.create_task(controller.listening.wait(), name="controller's start")
        if await first_of(listening, stop):
            await Broker(replace(broker_settings, controller_url=controller.url)).run(stop)
        listening.cancel()
        stop_controller.set()


async def _main(broker_settings: BrokerSettings, controller_settings: ControllerSettings) -> int:
    stop = asyncio.Event()
    with process.stop_on_signals(stop):
        await serve_both(broker_settings, controller_settings, stop)
    return 0


def run_both(broker_settings: BrokerSettings, controller_settings: ControllerSettings) -> int:
    """Run both in this process until SIGTERM or SIGINT; returns the exit code."""
    return process.run(_main(broker_settings, controller_settings), "minilog")
