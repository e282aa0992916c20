"""python -m tests.sim: run many random schedules and print what they add up to, or take one rule
after the other away."""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.sim.removals.ablation import ABLATIONS as LOG_ABLATIONS
from tests.sim.removals.ablation import STORY, Ablation, Detection, detect
from tests.sim.removals.bounds import BOUNDS_ABLATIONS
from tests.sim.removals.cleaning import CLEANING_ABLATIONS
from tests.sim.removals.clocks import CLOCK_ABLATIONS
from tests.sim.removals.disks import DISK_ABLATIONS
from tests.sim.removals.evidence import EVIDENCE_ABLATIONS
from tests.sim.removals.groups import GROUP_ABLATIONS
from tests.sim.removals.moves import MOVE_ABLATIONS
from tests.sim.removals.storage import STORAGE_ABLATIONS
from tests.sim.removals.told import TOLD_ABLATIONS
from tests.sim.schedules.campaign import lines_of, run_missing, summed
from tests.sim.schedules.figures import Figures
from tests.sim.schedules.options import draw
from tests.sim.schedules.record import markdown, record
from tests.sim.schedules.schedule import Outcome, Schedule

CHUNK = 4
COLLECT_EVERY = 8
FAILURES_SHOWN_MAX = 5
ABLATION_COLUMNS = ("rule", "what was removed", "caught after", "by")
ABLATIONS = (
    *LOG_ABLATIONS,
    *EVIDENCE_ABLATIONS,
    *BOUNDS_ABLATIONS,
    *CLEANING_ABLATIONS,
    *CLOCK_ABLATIONS,
    *DISK_ABLATIONS,
    *TOLD_ABLATIONS,
    *GROUP_ABLATIONS,
    *MOVE_ABLATIONS,
    *STORAGE_ABLATIONS,
)


def run_seed(seed: int, without: str = "") -> Outcome:
    """Garbage is collected between schedules: they are short, and all of one goes at once."""
    gc.disable()
    outcome = chosen(without).run(seed) if without else Schedule(draw(seed)).run()
    if seed % COLLECT_EVERY == 0:
        gc.collect()
    return outcome


def chosen(without: str) -> Ablation:
    """The first ablation whose name begins so."""
    for ablation in ABLATIONS:
        if ablation.name.startswith(without):
            return ablation
    raise typer.BadParameter(f"{without!r} begins no ablation; there are: {'; '.join(a.name for a in ABLATIONS)}")


def outcomes(seeds: range, jobs: int, without: str = "") -> Iterator[Outcome]:
    run = partial(run_seed, without=without)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds, chunksize=CHUNK)


def show_failure(console: Console, outcome: Outcome, without: str = "") -> None:
    """Everything needed to understand it without running it again, and how to run it again."""
    console.rule(f"seed {outcome.seed}")
    options = chosen(without).options(outcome.seed) if without else draw(outcome.seed)
    console.print("\n".join(options.lines()), highlight=False, markup=False)
    console.print("\n".join(outcome.trace), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{outcome.violation}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    again = f" --without {without!r}" if without else ""
    console.print(f"replay: python -m tests.sim --from {outcome.seed} --seeds 1{again}", markup=False)


def progress_of(what: str, console: Console) -> Progress:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=console)


# --- ablations ------------------------------------------------------------------------------------


def try_ablations(console: Console, first: int, schedules_max: int, jobs: int) -> bool:
    """Take away one rule after the other, and write the table into the README; True when every
    removal was noticed."""
    detections: dict[int, Detection] = {}
    with ProcessPoolExecutor(jobs) as pool, progress_of("rules", console) as progress:
        task = progress.add_task("", total=len(ABLATIONS))
        running = {pool.submit(try_ablation, i, schedules_max, first): i for i in range(len(ABLATIONS))}
        for done in as_completed(running):
            index = running[done]
            detections[index] = done.result()
            count, by = found(detections[index])
            progress.console.print(
                f"{ABLATIONS[index].name}: {count}, {by}", markup=False, highlight=False, soft_wrap=True
            )
            progress.update(task, advance=1)
    rows = [[a.rule, a.what, *found(detections[i])] for i, a in enumerate(ABLATIONS)]
    noticed = sum(bool(detection.violation) for detection in detections.values())
    command = f"python -m tests.sim --ablations --seeds {schedules_max}" + (f" --from {first}" if first else "")
    summary = (
        f"`{command}`: {noticed} of {len(ABLATIONS)} removals noticed, {schedules_max} schedules at most for each."
    )
    record("ablations", [summary, "", *markdown(ABLATION_COLUMNS, rows)])
    console.print(_table(rows))
    console.print(summary, markup=False)
    return noticed == len(ABLATIONS)


def _table(rows: list[list[str]]) -> Table:
    table = Table(*ABLATION_COLUMNS, title="ablation")
    for row in rows:
        table.add_row(*row)
    return table


def found(detection: Detection) -> tuple[str, str]:
    """(caught after, by which invariant), as the table says it."""
    name, _, detail = detection.violation.partition(":")
    if not detection.violation:
        return f"not in {detection.schedules}", "nothing"
    place = re.search(r"\((\w+\.py):\d+\)$", detail)
    if name == "Assertion" and place:
        name = f"an assertion in {place[1]}"
    if detection.by_story:
        return STORY, "what it expects" if name == STORY else name
    return "1 schedule" if detection.schedules == 1 else f"{detection.schedules} schedules", name


def try_ablation(index: int, schedules_max: int, first: int) -> Detection:
    return detect(ABLATIONS[index], schedules_max, first)


# --- schedules ------------------------------------------------------------------------------------


def try_schedules(console: Console, seeds: range, jobs: int, without: str, *, keep: bool) -> bool:
    """Run them, show what fails; True when nothing did."""
    figures = Figures()
    started_s = time.monotonic()
    with progress_of("schedules", console) as progress:
        task = progress.add_task("", total=len(seeds))
        for outcome in outcomes(seeds, jobs, without):
            figures.add(outcome)
            if outcome.violation and len(figures.violations) <= FAILURES_SHOWN_MAX:
                show_failure(progress.console, outcome, without)
            progress.update(task, advance=1, description=f"{len(figures.violations)} violations")
    wall_s = time.monotonic() - started_s
    console.print(figures.table(wall_s, jobs))
    if figures.violations:
        console.print("failing seeds: " + " ".join(str(outcome.seed) for outcome in figures.violations[:100]))
    if keep:
        command = f"python -m tests.sim --from {seeds.start} --seeds {len(seeds)} --jobs {jobs}"
        table = markdown(("figure", "value"), figures.rows(wall_s, jobs), right=("value",))
        record("figures", [f"`{command}`:", "", *table])
    return not figures.violations


def try_campaign(console: Console, file: Path, seeds: range, jobs: int, *, keep: bool) -> bool:
    """Run what the file does not have yet; True when nothing failed, now or earlier."""
    with progress_of("schedules", console) as progress:
        task = progress.add_task("", total=len(seeds), completed=sum(line["schedules"] for line in lines_of(file)))
        for line in run_missing(run_seed, file, seeds, jobs):
            for seed, violation in line["violations"]:
                progress.console.print(f"seed {seed}: {violation}", style="red", markup=False, soft_wrap=True)
            progress.update(task, advance=line["schedules"])
    lines = lines_of(file)
    rows = summed(lines)
    table = Table(title="minilog simulator", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    if keep:
        command = f"python -m tests.sim --from {seeds.start} --seeds {len(seeds)} --campaign {file.name}"
        record("figures", [f"`{command}`:", "", *markdown(("figure", "value"), rows, right=("value",))])
    return not any(line["violations"] for line in lines)


def main(
    seeds: Annotated[int, typer.Option(help="How many schedules.")] = 100,
    first: Annotated[int, typer.Option("--from", help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to spread them over.")] = 1,
    ablations: Annotated[bool, typer.Option(help="Take away each rule in turn; SEEDS bounds the search.")] = False,
    without: Annotated[str, typer.Option(help="Run without one rule: how its name in ablation.py begins.")] = "",
    keep: Annotated[bool, typer.Option("--record", help="Write the figures into README.md.")] = False,
    campaign: Annotated[
        Path | None, typer.Option(help="Note what is done in this file, and go on where it ended.")
    ] = None,
    digests: Annotated[bool, typer.Option(help="Print seed and digest of each, and nothing else.")] = False,
) -> None:
    """Run SEEDS random schedules; exit code 1 when an invariant was violated."""
    chosen_seeds = range(first, first + seeds)
    if digests:
        for outcome in outcomes(chosen_seeds, jobs):
            print(outcome.seed, f"{outcome.digest:08x}", outcome.events)
        return
    console = Console()
    if keep and without:
        raise typer.BadParameter("--record is for schedules with every rule in place")
    if campaign is not None:
        sys.exit(0 if try_campaign(console, campaign, chosen_seeds, jobs, keep=keep) else 1)
    if ablations:
        sys.exit(0 if try_ablations(console, first, seeds, jobs) else 1)
    sys.exit(0 if try_schedules(console, chosen_seeds, jobs, without, keep=keep) else 1)


if __name__ == "__main__":
    typer.run(main)
