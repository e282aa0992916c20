"""python -m tests.sim: run many random schedules and print what they add up to."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.sim.ablation import ABLATIONS, Detection, detect
from tests.sim.figures import Figures
from tests.sim.options import draw
from tests.sim.schedule import Outcome, Schedule

CHUNK = 4
COLLECT_EVERY = 8
FAILURES_SHOWN_MAX = 5


def run_seed(seed: int) -> Outcome:
    """Garbage is collected between schedules: they are short, and all of one goes at once."""
    gc.disable()
    outcome = Schedule(draw(seed)).run()
    if seed % COLLECT_EVERY == 0:
        gc.collect()
    return outcome


def outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK)


def show_failure(console: Console, outcome: Outcome) -> None:
    """Everything needed to understand it without running it again, and how to run it again."""
    console.rule(f"seed {outcome.seed}")
    console.print("\n".join(draw(outcome.seed).lines()), highlight=False, markup=False)
    console.print("\n".join(outcome.trace), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{outcome.violation}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    console.print(f"replay: python -m tests.sim --from {outcome.seed} --seeds 1", markup=False)


def try_ablations(console: Console, first: int, schedules_max: int, jobs: int) -> bool:
    """Take away one rule after the other; True when every removal was noticed."""
    table = Table("rule", "without it", "schedules", "found by", title="ablation")
    noticed = 0
    with ProcessPoolExecutor(jobs) as pool:
        bounds = [schedules_max] * len(ABLATIONS)
        found_all = pool.map(try_ablation, range(len(ABLATIONS)), bounds, [first] * len(ABLATIONS))
        for ablation, detection in zip(ABLATIONS, found_all, strict=True):
            found = detection.violation.partition(":")[0] or f"[red]nothing in {schedules_max}"
            count = "its story" if detection.violation and detection.by_story else str(detection.schedules)
            table.add_row(ablation.rule, ablation.what, count, found)
            noticed += bool(detection.violation)
            console.print(f"{ablation.rule}: {ablation.what}: {found}")
    console.print(table)
    console.print(f"{noticed} of {len(ABLATIONS)} noticed")
    return noticed == len(ABLATIONS)


def try_ablation(index: int, schedules_max: int, first: int) -> Detection:
    return detect(ABLATIONS[index], schedules_max, first)


def main(
    seeds: Annotated[int, typer.Option(help="How many schedules.")] = 100,
    first: Annotated[int, typer.Option("--from", help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to spread them over.")] = 1,
    ablations: Annotated[bool, typer.Option(help="Take away each rule in turn; SEEDS bounds the search.")] = False,
    digests: Annotated[bool, typer.Option(help="Print seed and digest of each, and nothing else.")] = False,
) -> None:
    """Run SEEDS random schedules; exit code 1 when an invariant was violated."""
    chosen = range(first, first + seeds)
    if digests:
        for outcome in outcomes(chosen, jobs):
            print(outcome.seed, f"{outcome.digest:08x}", outcome.events)
        return
    console = Console()
    if ablations:
        sys.exit(0 if try_ablations(console, first, seeds, jobs) else 1)
    figures = Figures()
    started_s = time.monotonic()
    columns = (TextColumn("schedules"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        task = progress.add_task("", total=seeds)
        for outcome in outcomes(chosen, jobs):
            figures.add(outcome)
            if outcome.violation and len(figures.violations) <= FAILURES_SHOWN_MAX:
                show_failure(progress.console, outcome)
            progress.update(task, advance=1, description=f"{len(figures.violations)} violations")
    console.print(figures.table(time.monotonic() - started_s, jobs))
    if figures.violations:
        console.print("failing seeds: " + " ".join(str(outcome.seed) for outcome in figures.violations[:100]))
    sys.exit(1 if figures.violations else 0)


if __name__ == "__main__":
    typer.run(main)
