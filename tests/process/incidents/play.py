"""Plays one incident: cluster, clients, Prometheus, Alertmanager; the act; and all that was said and
measured meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.process.incidents import pages, panels, told
from tests.process.incidents.clients import TOPIC, Clients
from tests.process.incidents.incident import Incident
from tests.process.incidents.pages import Pages
from tests.process.incidents.told import Told
from tests.process.rig import prometheus
from tests.process.rig.cluster import Name, ProcessCluster, process_cluster
from tests.process.rig.faulty_disk import MIB
from tests.process.rig.prometheus import Prometheus

SEEN_S: Final = 30.0
POLL_S: Final = 0.1
LATER_S: Final = 10.0
"""So long after all is mended minilog may take to say so."""
VOLUME_BYTES: Final = 128 * MIB


@dataclass
class Measured:
    """By the clients and by whoever broke things, in seconds since 1970. ``silences_s``: by
    partition."""

    began_s: float = 0.0
    mended_s: float = 0.0
    silences_s: dict[str, float] = field(default_factory=dict)
    lost: dict[Any, int] = field(default_factory=dict)
    tried: dict[Any, int] = field(default_factory=dict)


class Play:
    def __init__(self, incident: Incident, cluster: ProcessCluster, clients: Clients, pages: Pages) -> None:
        self.incident, self.cluster, self.clients, self.pages = incident, cluster, clients, pages
        self.measured = Measured()
        self.place: set[str] = set()
        """Names, any of which says where it happened."""
        self.during, self.after = Told(), Told()
        self.failed_commands: list[str] = []
        self.moved: set[str] = set()
        """Panels whose numbers have changed."""
        self.logged = ""
        """The log of a broker that cannot tell the cluster anything."""
        self.reads_all = True
        """False: the incident takes records as it is meant to, so what is missing proves nothing."""

    # --- for acts ---------------------------------------------------------------------------------

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def leader(self, partition: int = 0) -> int:
        return int(await self.call(self.cluster.leader, TOPIC, partition))

    def others(self, *names: Name) -> list[int]:
        return [id for id in self.cluster.broker_ids if id not in names]

    def at(self, *names: object) -> None:
        """Where it happens. A number is a broker."""
        self.place |= {f"broker {name}" if isinstance(name, int) else str(name) for name in names}

    @contextlib.asynccontextmanager
    async def fault(self, *names: object) -> AsyncIterator[None]:
        """Broken while the block runs: it begins with the breaking and ends with the mending."""
        self.at(*names)
        self.measured.began_s = self.measured.began_s or time.time()
        yield
        self.measured.mended_s = time.time()

    async def paged(self, at_least_s: float = 3.0) -> None:
        """Wait for the right page, then do what a person would: ask minilog."""
        deadline_s = time.monotonic() + self.incident.within_s
        await asyncio.sleep(at_least_s)
        while self.incident.page and self.pages.first(self.incident.page) is None:
            if time.monotonic() >= deadline_s:
                break
            await asyncio.sleep(POLL_S)
        self.during = await self.call(told.ask, self.cluster)
        found = self.during.finding(self.incident.finding)
        if found is not None:
            self.failed_commands = await self.call(told.commands_that_fail, self.cluster, found["next_step"])

    # --- playing ----------------------------------------------------------------------------------

    async def run(self) -> None:
        await self.clients.create(**self.incident.topic)
        async with self.clients.running():
            await self.clients.served(10)
            await self.incident.act(self)
            self.measured.mended_s = self.measured.mended_s or time.time()
            await self.clients.served()
            await self.call(self.cluster.wait_in_sync, TOPIC)
            await self._settled()
        for partition in range(len(self.clients.acks_s)):
            silence_s = self.clients.silence_s(partition, self.measured.began_s, self.measured.mended_s)
            self.measured.silences_s[f"{TOPIC}-{partition}"] = silence_s
        if self.reads_all:
            self.measured.lost = await self.clients.lost()
            self.measured.tried = {acks: len(tried) for acks, tried in self.clients.tried.items()}

    async def _settled(self) -> None:
        """Until minilog says what it has to say of the end."""
        deadline_s = time.monotonic() + LATER_S
        while True:
            self.after = await self.call(told.ask, self.cluster)
            left = {found["kind"] for found in self.after.findings} - {self.incident.stays}
            if not left or time.monotonic() >= deadline_s:
                return
            await asyncio.sleep(1.0)


def play(incident: Incident, folder: Path, scrape_s: int) -> Play:
    folder.mkdir(parents=True, exist_ok=True)
    made = process_cluster(
        folder / "cluster",
        overrides=incident.overrides,
        network="network" in incident.needs,
        volume_bytes=VOLUME_BYTES if "volumes" in incident.needs else 0,
        slow_syncs="slow_syncs" in incident.needs,
    )
    with made as cluster, pages.alertmanager(folder) as rung:
        seen = prometheus.prometheus(cluster, folder, scrape_s=scrape_s, alertmanager=rung.address)
        with seen as watched:
            found = Play(incident, cluster, Clients(cluster), rung)
            asyncio.run(_watched(found, watched))
            return found


async def _watched(found: Play, seen: Prometheus) -> None:
    """The counters are there, twice, before anything happens."""
    await found.call(seen.wait, _all_seen, "all processes to be scraped twice", SEEN_S)
    await found.run()
    _, found.moved = await found.call(panels.judge, seen)


def _all_seen(seen: Prometheus) -> bool:
    return len(seen.now("count_over_time(up[1m]) >= 2")) >= 4
