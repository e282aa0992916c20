"""Faults for minutes or hours: ``python -m tests.process.campaign.soak --minutes 10 --seeds 1,2,3
--json soak.json``.

Every seed gets a cluster of its own and an equal share of the time. Nemeses are dealt like a deck
of cards: each once, those with a goal ``--goal-cards`` times, every third a mix of two or three at
once, every fourth draw none at all (what happens in quiet times counts too), then the deck is
shuffled anew. The list of seeds decides the order, each seed the targets and the durations in its
cluster. What the machine makes of them is never twice the same. A round that fails costs the
cluster, whose folder stays, and the soak goes on with a new one.

At the end: a table with a row per fault (report.py), a JSON file for tables and plots (``python -m
tests.process.campaign.report``, ``python -m tests.process.campaign.plot``), exit code 1 if anything
was lost, doubled, reordered, changed, or did not recover.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
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

from tests.process.campaign.campaign import MIXED, QUIET, Outcome, Settings, run_round
from tests.process.campaign.report import GOALS, summary, table_of
from tests.process.nemesis.catalogue import CATALOGUE
from tests.process.rig import equipment
from tests.process.rig.cluster import VOLUME_BYTES, ProcessCluster, process_cluster
from tests.process.rig.machine import CpuTimes, share_priority

DEFAULT_SEEDS = (11, 23, 37, 41, 53)
BROKERS = 3
OVERRIDES = ("retention_check_ms=1000",)
"""So that what retention does because of a clock is done within a round."""


@dataclass
class Campaign:
    """All rounds of a soak, as they are saved."""

    seeds: list[int]
    nemeses: list[str]
    began: str
    equipment: dict[str, bool]
    machine: dict[str, Any] = field(default_factory=dict)
    """How busy it was, with this soak and with anything else."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Deck:
    """The nemeses in random order, again and again. ``goal_cards``: how often those that have a
    goal."""

    def __init__(self, names: Sequence[str], random: Random, goal_cards: int = 1) -> None:
        self._names, self._random, self._goal_cards = list(names), random, goal_cards
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
        cards += [name for name in faults if name in GOALS] * (self._goal_cards - 1)
        self._random.shuffle(cards)
        return cards


class Soak:
    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments, self._console = arguments, console
        self._missing = equipment.missing()
        if arguments.loopback:
            self._missing |= {"network": "--loopback", "volumes": "--loopback"}
        self._settings = Settings(hold_s=arguments.hold, partitions=arguments.partitions)
        had = {name: name not in self._missing for name in equipment.KINDS}
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.campaign = Campaign(arguments.seeds, self._possible(arguments.nemeses), began, had)
        self._deck = Deck(
            self.campaign.nemeses, Random(repr(arguments.seeds)), 1 if arguments.rounds else arguments.goal_cards
        )
        self._began_s = time.monotonic()

    def _possible(self, wanted: Sequence[str]) -> list[str]:
        """What was asked for, or everything, without what this machine or minilog cannot do yet."""
        able = []
        for name in wanted or [*CATALOGUE, MIXED]:
            nemesis = CATALOGUE.get(name)
            reason = nemesis and (nemesis.lacks(self._missing) or (not wanted and nemesis.open_problem))
            if reason:
                self._console.print(f"without {name}: {reason}", style="yellow")
            else:
                able.append(name)
        return able

    def run(self) -> bool:
        """True when every round was as it should be."""
        cpu = CpuTimes.now()
        if self._arguments.rounds:
            self._one_seed(self._arguments.seeds[0], math.inf, self._arguments.rounds * len(self.campaign.nemeses))
        else:
            share_s = self._arguments.minutes * 60 / len(self._arguments.seeds)
            for number, seed in enumerate(self._arguments.seeds, 1):
                self._one_seed(seed, self._began_s + number * share_s, math.inf)
        self.campaign.machine = _machine([row["load"] for row in self.campaign.rounds] or [os.getloadavg()[0]], cpu)
        return not self.campaign.failures

    def _one_seed(self, seed: int, until_s: float, rounds: float) -> None:
        random, number = Random(seed), 0

        def goes_on() -> bool:
            return time.monotonic() < until_s and number < rounds

        while goes_on():
            with self._cluster(seed) as cluster:
                while goes_on():
                    number += 1
                    if not self._one_round(cluster, seed, number, self._deck.draw(), Random(random.random())):
                        break
                    self.save()

    def save(self) -> dict[str, Any]:
        """Also as it grows, for who looks on; returns what is saved."""
        self.campaign.seconds = round(time.monotonic() - self._began_s, 1)
        result = {**asdict(self.campaign), "summary": summary(self.campaign.rounds)}
        self._arguments.json.write_text(json.dumps(result) + "\n")
        if self._arguments.table is not None:
            with self._arguments.table.open("w") as file:
                shown = Console(file=file, width=160)
                shown.print(table_of(result))
                for failure in self.campaign.failures:
                    shown.print(failure, markup=False, highlight=False)
        return result

    @contextlib.contextmanager
    def _cluster(self, seed: int) -> Iterator[ProcessCluster]:
        """Its folder goes when nothing failed in it."""
        base = self._arguments.folder
        if base is not None:
            Path(base).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-", dir=base)) / "cluster"
        failures = len(self.campaign.failures)
        with process_cluster(
            folder,
            BROKERS,
            OVERRIDES,
            network="network" not in self._missing,
            volume_bytes=0 if "volumes" in self._missing else VOLUME_BYTES,
            slow_syncs="slow_syncs" not in self._missing,
        ) as cluster:
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
            "lost": outcome.lost,
            "violations": outcome.violations,
            "duplicates": outcome.duplicates,
            "weak_lost": outcome.weak_lost,
            "unavailable_ms": outcome.unavailable_ms,
            "longest_ms": round(outcome.longest_ms, 1),
            "switch_ms": None if outcome.switch_ms is None else round(outcome.switch_ms, 1),
            "slowest_ms": round(outcome.slowest_ms, 1),
            "heal_ms": round(outcome.heal_ms),
            "switch": outcome.switch,
            "split": outcome.split,
            "load": round(os.getloadavg()[0], 2),
            "began_s": round(began_s - since_s, 3),
            "ended_s": round(time.monotonic() - since_s, 3),
            "bars": [
                {**asdict(b), "began_s": b.began_s - since_s, "ended_s": b.ended_s - since_s} for b in outcome.bars
            ],
            "latencies": [[round(t_s - since_s, 3), round(ms, 2)] for t_s, ms in sorted(outcome.latencies)],
            "errors": len(outcome.errors),
        }


def _machine(loads: Sequence[float], since: CpuTimes) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "nice": os.nice(0),
        "load_min": min(loads),
        "load_mean": round(sum(loads) / len(loads), 2),
        "load_max": max(loads),
        "cpu": since.shares(),
    }


def _leaf(error: BaseException) -> BaseException:
    """What went wrong first: putting things right again may have failed because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if error.__context__ is None else _leaf(error.__context__)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.process.campaign.soak", description="Faults on real processes."
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, help="of each nemesis, with the first seed, instead of --minutes")
    parser.add_argument("--seeds", type=_numbers, default=list(DEFAULT_SEEDS), help="comma-separated; one cluster each")
    parser.add_argument("--seed", type=int, help="the same as --seeds with one")
    parser.add_argument("--nemeses", type=_names, default=[], help=f"comma-separated: {', '.join([*CATALOGUE, MIXED])}")
    parser.add_argument("--goal-cards", type=int, default=6, help="how often a fault with a goal is in the deck")
    parser.add_argument("--hold", type=float, default=2.5, help="seconds a fault lasts, about")
    parser.add_argument("--partitions", type=int, default=3, help="of each of the two topics of a round")
    parser.add_argument("--loopback", action="store_true", help="plain processes: no faults of networks and volumes")
    parser.add_argument("--json", type=Path, default=Path("soak.json"), help="where the figures go")
    parser.add_argument("--table", type=Path, help="where the table goes, anew after each round")
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
    if os.getsid(0) == os.getpid():
        share_priority(os.getpid())
    soak = Soak(parsed, console)
    fine = soak.run()
    console.print(table_of(soak.save()))
    console.print(f"figures: {parsed.json}; {len(soak.campaign.failures)} failures", highlight=False)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
