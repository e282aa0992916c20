"""Campaign: very many schedules over days if need be: what is done is noted in a file, and never
done again.

One JSON line for each run of CHUNK seeds, with the commit it was run on. The table adds up all
lines.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.sim.schedules.figures import Figures
from tests.sim.schedules.schedule import Outcome

CHUNK = 250
ROOT = Path(__file__).parents[3]
Run = Callable[[int], Outcome]


def run_chunk(run: Run, first: int, tree: str) -> dict[str, Any]:
    figures, began_s, cpu_s = Figures(), time.monotonic(), time.process_time()
    for seed in range(first, first + CHUNK):
        figures.add(run(seed))
    return {
        "tree": tree,
        "first": first,
        "schedules": figures.schedules,
        "events": figures.events,
        "virtual_ms": figures.virtual_ms,
        "counts": dict(figures.counts),
        "violations": [[outcome.seed, outcome.violation] for outcome in figures.violations],
        "wall_s": round(time.monotonic() - began_s, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
    }


def tree_of_checkout() -> str:
    """The commit, marked when files differ from it; "unknown" without git."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run_missing(run: Run, file: Path, seeds: range, jobs: int) -> Iterator[dict[str, Any]]:
    """The chunks of ``seeds`` that the file does not have yet, as they are finished and noted."""
    done = {line["first"] for line in lines_of(file)}
    missing = [first for first in range(seeds.start, seeds.stop, CHUNK) if first not in done]
    tree = tree_of_checkout()
    with ProcessPoolExecutor(jobs) as pool, file.open("a") as notes:
        running = [pool.submit(run_chunk, run, first, tree) for first in missing]
        for finished in as_completed(running):
            line = finished.result()
            notes.write(json.dumps(line) + "\n")
            notes.flush()
            yield line


def summed(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The rows of the table for all lines together. The last one names the trees."""
    figures, cpu_s = Figures(), 0.0
    violations = 0
    trees: dict[str, int] = {}
    for line in lines:
        figures.schedules += line["schedules"]
        figures.events += line["events"]
        figures.virtual_ms += line["virtual_ms"]
        figures.counts.update(line["counts"])
        violations += len(line["violations"])
        cpu_s += line["cpu_s"]
        trees[line["tree"]] = trees.get(line["tree"], 0) + line["schedules"]
    rows = [row for row in figures.rows(cpu_s, 1) if row[0] not in ("violations", "wall time", "schedules per hour")]
    per_hour = figures.schedules / cpu_s * 3600 if cpu_s else 0.0
    return [
        *rows,
        ("violations", f"{violations:,}"),
        ("schedules per hour and core", f"{per_hour:,.0f}"),
        ("commits", ", ".join(f"{tree} ({count:,})" for tree, count in trees.items())),
    ]
