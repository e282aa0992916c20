"""Faults for minutes or hours: ``python -m tests.process.soak --minutes 10 --seeds 1,2,3 --json soak.json``.

Every seed gets a cluster of its own and an equal share of the time. It deals out its nemeses like a deck of cards:
each once, every third a mix of two or three at once, every fourth draw none at all (what happens in quiet times counts
too), then it shuffles anew. The seed decides the order, the targets and the durations; what the machine makes of them
is never twice the same. A round that fails costs the cluster, whose folder stays, and the soak goes on with a new one.

At the end: a table with a row per fault, a JSON file for plots (``python -m tests.process.plot``), exit code 1 if
anything was lost, doubled, reordered, changed, or did not recover.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.process import faulty_disk, network
from tests.process.campaign import MIXED, QUIET, Outcome, Settings, run_round
from tests.process.catalogue import CATALOGUE
from tests.process.cluster import VOLUME_BYTES, ProcessCluster, process_cluster

DEFAULT_SEEDS = (11, 23, 37, 41, 53)
BROKERS = 3


@dataclass
class Campaign:
    """All rounds of a soak, as they are saved."""

    seeds: list[int]
    nemeses: list[str]
    began: str
    equipment: dict[str, bool]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Deck:
    """The nemeses in random order, again and again."""

    def __init__(self, names: Sequence[str], random: Random) -> None:
        self._names, self._random = list(names), random
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = self._shuffled()
        return self._left.pop()

    def _shuffled(self) -> list[str]:
        faults = [name for name in self._names if name not in (QUIET, MIXED)]
        cards = list(faults)
        if MIXED in self._names:
            cards += [MIXED] * max(1, len(faults) // 3)
        if QUIET in self._names:
            cards += [QUIET] * max(1, len(cards) // 3)
        self._random.shuffle(cards)
        return cards


class Soak:
    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments, self._console = arguments, console
        self._no_network = network.unavailable() if not arguments.loopback else "--loopback"
        self._no_volumes = faulty_disk.unavailable() if not arguments.loopback else "--loopback"
        self._settings = Settings(hold_s=arguments.hold, partitions=arguments.partitions)
        equipment = {"network": self._no_network is None, "volumes": self._no_volumes is None}
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.campaign = Campaign(arguments.seeds, self._possible(arguments.nemeses), began, equipment)
        self._began_s = time.monotonic()

    def _possible(self, wanted: Sequence[str]) -> list[str]:
        """What was asked for, or everything, without what this machine or minilog cannot do yet."""
        able = []
        for name in wanted or [*CATALOGUE, MIXED]:
            nemesis = CATALOGUE.get(name)
            reason = nemesis and (
                (nemesis.needs_network and self._no_network)
                or (nemesis.needs_volumes and self._no_volumes)
                or (not wanted and nemesis.open_problem)
            )
            if reason:
                self._console.print(f"without {name}: {reason}", style="yellow")
            else:
                able.append(name)
        return able

    def run(self) -> bool:
        """True when every round was as it should be."""
        share_s = self._arguments.minutes * 60 / len(self._arguments.seeds)
        for number, seed in enumerate(self._arguments.seeds, 1):
            self._one_seed(seed, self._began_s + number * share_s)
        self.campaign.seconds = round(time.monotonic() - self._began_s, 1)
        return not self.campaign.failures

    def _one_seed(self, seed: int, until_s: float) -> None:
        random, number = Random(seed), 0
        deck = Deck(self.campaign.nemeses, random)
        while time.monotonic() < until_s:
            with self._cluster(seed) as cluster:
                while time.monotonic() < until_s:
                    number += 1
                    if not self._one_round(cluster, seed, number, deck.draw(), Random(random.random())):
                        break

    @contextlib.contextmanager
    def _cluster(self, seed: int) -> Iterator[ProcessCluster]:
        """Its folder goes when nothing failed in it."""
        base = self._arguments.folder
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-", dir=base)) / "cluster"
        failures = len(self.campaign.failures)
        volume_bytes = 0 if self._no_volumes else VOLUME_BYTES
        with process_cluster(folder, BROKERS, network=self._no_network is None, volume_bytes=volume_bytes) as cluster:
            yield cluster
        if len(self.campaign.failures) == failures:
            shutil.rmtree(folder.parent)

    def _one_round(self, cluster: ProcessCluster, seed: int, number: int, name: str, random: Random) -> bool:
        where = f"seed {seed} round {number}"
        began_s = time.monotonic()
        try:
            outcome = run_round(cluster, name, number, random, self._settings)
        except (Exception, ExceptionGroup) as error:
            return self._failed("\n".join([f"{where}: {_leaf(error)!r}", *getattr(error, "__notes__", [])]))
        self.campaign.rounds.append(self._row(outcome, seed, number, began_s))
        silence = f"{outcome.longest_ms:6.0f} ms silence"
        self._console.print(
            f"{where:>18}  {outcome.acknowledged:7,} acked  {silence}  {outcome.nemesis}", highlight=False
        )
        if not outcome.valid:
            return self._failed(f"{where} {outcome.explain()}")
        return True

    def _failed(self, sentence: str) -> bool:
        self.campaign.failures.append(sentence)
        self._console.print(sentence, style="red", markup=False, highlight=False)
        return False

    def _row(self, outcome: Outcome, seed: int, number: int, began_s: float) -> dict[str, Any]:
        """Times in seconds since the begin of the soak."""
        since_s = self._began_s
        return {
            "seed": seed,
            "round": number,
            "nemesis": outcome.nemesis,
            "valid": outcome.valid,
            "acknowledged": outcome.acknowledged,
            "read": outcome.read,
            "reads": outcome.reads,
            "operations": outcome.operations,
            "violations": outcome.violations,
            "duplicates": outcome.duplicates,
            "weak_lost": outcome.weak_lost,
            "unavailable_ms": outcome.unavailable_ms,
            "longest_ms": round(outcome.longest_ms, 1),
            "switch_ms": None if outcome.switch_ms is None else round(outcome.switch_ms, 1),
            "slowest_ms": round(outcome.slowest_ms, 1),
            "heal_ms": round(outcome.heal_ms),
            "split": outcome.split,
            "began_s": round(began_s - since_s, 3),
            "ended_s": round(time.monotonic() - since_s, 3),
            "bars": [
                {**asdict(b), "began_s": b.began_s - since_s, "ended_s": b.ended_s - since_s} for b in outcome.bars
            ],
            "latencies": [[round(t_s - since_s, 3), round(ms, 2)] for t_s, ms in sorted(outcome.latencies)],
            "errors": len(outcome.errors),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


COUNTS = ("acknowledged", "reads", "violations", "weak_lost", "duplicates")


def summary(rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per fault. Times in ms, of each round the worst partition's; None where no leader changed."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rounds:
        by_name.setdefault(row["nemesis"].split(" (")[0], []).append(row)
    return [_summed(name, found) for name, found in by_name.items()]


def _summed(name: str, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    totals = {key: sum(row[key] for row in rounds) for key in COUNTS}
    times: dict[str, float | None] = {}
    for kind in ("longest", "switch", "slowest"):
        found = [row[f"{kind}_ms"] for row in rounds if row[f"{kind}_ms"] is not None]
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            times[f"{kind}_{label}_ms"] = percentile(found, share) if found else None
    return {"fault": name, "runs": len(rounds), **totals, **times}


COLUMNS = {
    "runs": ("runs",),
    "acked": ("acknowledged",),
    "read": ("reads",),
    "violations": ("violations",),
    "acks=1 lost": ("weak_lost",),
    "doubled": ("duplicates",),
    "silence p50 / p99 / max": ("longest_p50_ms", "longest_p99_ms", "longest_max_ms"),
    "failover p50 / p99": ("switch_p50_ms", "switch_p99_ms"),
    "slowest p99": ("slowest_p99_ms",),
}


def table_of(campaign: Campaign) -> Table:
    table = Table(title=f"{len(campaign.rounds)} rounds, {campaign.seconds / 60:.1f} minutes, seeds {campaign.seeds}")
    table.add_column("fault", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap="/" in title)
    rows = sorted(summary(campaign.rounds), key=lambda row: str(row["fault"]))
    for row in rows:
        table.add_row(row["fault"], *(" / ".join(_shown(row[key]) for key in keys) for keys in COLUMNS.values()))
    table.add_section()
    counted = [keys[0] for keys in list(COLUMNS.values())[: 1 + len(COUNTS)]]
    table.add_row("all", *(f"{sum(row[key] for row in rows):,}" for key in counted))
    table.caption = (
        "ms as applications see it (client defaults, acks=all): silence of a partition; silence across a change of its "
        "leader; slowest send. acks=1 lost: that level promises no more. Doubled: by retries of producers without idempotence, none of those that forbid them."
    )
    return table


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:,.0f}"


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.process.soak", description="Faults on real processes.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=_numbers, default=list(DEFAULT_SEEDS), help="comma-separated; one cluster each")
    parser.add_argument("--seed", type=int, help="the same as --seeds with one")
    parser.add_argument("--nemeses", type=_names, default=[], help=f"comma-separated: {', '.join([*CATALOGUE, MIXED])}")
    parser.add_argument("--hold", type=float, default=2.5, help="seconds a fault lasts, about")
    parser.add_argument("--partitions", type=int, default=3, help="of each of the two topics of a round")
    parser.add_argument("--loopback", action="store_true", help="plain processes: no faults of networks and volumes")
    parser.add_argument("--json", type=Path, default=Path("soak.json"), help="where the figures go")
    parser.add_argument("--folder", type=Path, help="where clusters live, and stay if something fails")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.nemeses if name not in CATALOGUE and name != MIXED]
    if unknown:
        parser.error(f"there is no nemesis {unknown[0]!r}; there are {', '.join([*CATALOGUE, MIXED])}")
    if parsed.seed is not None:
        parsed.seeds = [parsed.seed]
    return parsed


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    soak = Soak(parsed, console)
    fine = soak.run()
    console.print(table_of(soak.campaign))
    result = {**asdict(soak.campaign), "summary": summary(soak.campaign.rounds)}
    parsed.json.write_text(json.dumps(result) + "\n")
    console.print(f"figures: {parsed.json}; {len(soak.campaign.failures)} failures", highlight=False)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
