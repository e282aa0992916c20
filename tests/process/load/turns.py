"""The longest turn that the worst request of each route causes: ``python -m
tests.process.load.turns``.

Three brokers and a controller are driven with one step after the other (``worst_requests.py``).
Before and after each they are asked how long their turns took, and how late their ticks were. A
tick is late when anything held the loop: a turn, the work of a request outside of it, or another
process that had the CPU. So the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.process.load.fullload import count_changes, journal_of
from tests.process.load.worst_requests import STEPS, Driver, Refused, Sizes, driver
from tests.process.rig.cluster import CONTROLLER, ProcessCluster, process_cluster

MEANT_MS: Final = 50
AGE: Final = "minilog_broker_heartbeat_age_seconds"
SAMPLE_S: Final = 0.25
_LONG: Final = re.compile(r"a turn took (\d+) ms \(at most \d+ are meant\): ([^,]*)")
Counts = dict[tuple[str, float], float]
"""How many were at most so long, by the name of the histogram and the bound."""


@dataclass
class Figures:
    """Of one step. Times in ms: bounds of buckets, so the longest was at most so long."""

    step: str
    seconds: float
    broker_turn: float = 0.0
    broker_tick: float = 0.0
    controller_turn: float = 0.0
    controller_tick: float = 0.0
    named: dict[str, int] = field(default_factory=dict)
    """The longest turn by what it was about, where it was said."""
    refused: str = ""

    def row(self) -> str:
        times = (self.broker_turn, self.broker_tick, self.controller_turn, self.controller_tick)
        named = ", ".join([*(f"{what} {ms} ms" for what, ms in self.named.items()), self.refused[:300]])
        return " | ".join([f"{self.step:<36}", f"{self.seconds:6.1f}", *(f"{_shown(ms):>7}" for ms in times), named])


@dataclass
class Outcome:
    steps: list[Figures] = field(default_factory=list)
    heartbeat_age_ms: float = 0.0
    """The largest that was seen."""
    fenced: int = 0
    isr_shrinks: int = 0


HEAD: Final = " | ".join(
    [
        f"{'worst request of':<36}",
        f"{'s':>6}",
        f"{'broker:':>7}",
        f"{'tick':>7}",
        f"{'control':>7}",
        f"{'tick':>7}",
        "named",
    ]
)


def _shown(ms: float) -> str:
    return "more" if ms == float("inf") else f"{ms:.0f}"


async def _scrape(session: aiohttp.ClientSession, url: str) -> tuple[Counts, float]:
    """The histograms, and the largest age of a heartbeat."""
    async with session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    wanted = (AGE, "minilog_turn_seconds_bucket", "minilog_tick_late_seconds_bucket")
    lines = "\n".join(line for line in text.splitlines() if line.startswith(wanted)) + "\n"
    counts: Counts = {}
    age = 0.0
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            if sample.name == AGE:
                age = max(age, sample.value)
            elif sample.name in ("minilog_turn_seconds_bucket", "minilog_tick_late_seconds_bucket"):
                counts[sample.name, float(sample.labels["le"])] = sample.value
    return counts, age


def _longest_ms(before: Counts, after: Counts, name: str) -> float:
    """The smallest bound that none was beyond since."""
    bounds = sorted(bound for of, bound in after if of == name)
    added = [after[name, bound] - before.get((name, bound), 0.0) for bound in bounds]
    return 1000 * next((bound for bound, count in zip(bounds, added, strict=True) if count == added[-1] > 0), 0.0)


class Turns:
    """Drives a cluster, and measures it."""

    def __init__(self, cluster: ProcessCluster, sizes: Sizes) -> None:
        self._cluster, self._sizes = cluster, sizes
        self._controller = cluster.dev.member(CONTROLLER)
        self._logs = {member.name: 0 for member in cluster.dev.members}
        self.outcome = Outcome()

    async def run(self, steps: Iterable[str]) -> Outcome:
        async with driver(self._cluster.dev.brokers[0].url, self._sizes) as driven:
            watching = asyncio.create_task(self._watch(driven.session))
            try:
                for step in steps:
                    self.outcome.steps.append(await self._measure(driven, step))
                    print(self.outcome.steps[-1].row(), flush=True)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        changes = count_changes(journal_of(self._controller.data_dir))
        self.outcome.fenced, self.outcome.isr_shrinks = changes["fenced"], changes["isr_shrinks"]
        return self.outcome

    async def _measure(self, driven: Driver, step: str) -> Figures:
        self._named()
        before = await self._counts(driven.session)
        began_s = time.monotonic()
        refused = ""
        try:
            await STEPS[step](driven)
        except (Refused, aiohttp.ClientError) as error:
            refused = f"{type(error).__name__}: {error}"
        figures = Figures(step, time.monotonic() - began_s, refused=refused)
        await asyncio.sleep(0.1)  # the tick after it
        after = await self._counts(driven.session)
        for name, now in after.items():
            role = "controller" if name == self._controller.name else "broker"
            for kind, metric in (("turn", "minilog_turn_seconds_bucket"), ("tick", "minilog_tick_late_seconds_bucket")):
                longest = _longest_ms(before[name], now, metric)
                setattr(figures, f"{role}_{kind}", max(getattr(figures, f"{role}_{kind}"), longest))
        figures.named = self._named()
        return figures

    async def _counts(self, session: aiohttp.ClientSession) -> dict[str, Counts]:
        return {member.name: (await _scrape(session, member.url))[0] for member in self._cluster.dev.members}

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        while True:
            _, age = await _scrape(session, self._controller.url)
            self.outcome.heartbeat_age_ms = max(self.outcome.heartbeat_age_ms, 1000 * age)
            await asyncio.sleep(SAMPLE_S)

    def _named(self) -> dict[str, int]:
        """What the logs have said of long turns since the last look."""
        named: dict[str, int] = {}
        for member in self._cluster.dev.members:
            text = member.log_file.read_text(errors="replace")
            for took, what in _LONG.findall(text[self._logs[member.name] :]):
                named[what] = max(named.get(what, 0), int(took))
            self._logs[member.name] = len(text)
        return named


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.process.load.turns", description="The longest turns.")
    sizes = Sizes()
    for name, default in vars(sizes).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", help="parts of names, separated by commas; all by default")
    parser.add_argument("--folder", type=Path, help="where the cluster lives")
    parsed = vars(parser.parse_args(arguments))
    wanted = parsed["steps"].split(",") if parsed["steps"] else [""]
    folder = Path(tempfile.mkdtemp(prefix="turns-", dir=parsed["folder"]))
    print(HEAD)
    with process_cluster(folder / "cluster") as cluster:
        turns = Turns(cluster, Sizes(**{name: parsed[name] for name in vars(sizes)}))
        outcome = asyncio.run(turns.run([step for step in STEPS if any(part in step for part in wanted)]))
    print(
        f"largest age of a heartbeat {outcome.heartbeat_age_ms:.0f} ms, {outcome.fenced} brokers fenced, "
        f"{outcome.isr_shrinks} ISR shrinks; logs in {folder}"
    )
    if outcome.fenced:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
