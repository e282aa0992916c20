"""What soaks measured, as tables: ``python -m tests.process.campaign.report soak.json [--full-load
fullload.json] [--write]``.

Of each round: *unavailable*, the longest time without an acknowledgement of its worst partition,
from the begin of the fault until the cluster has recovered, whatever the reason: also a machine
that is busy with starting the dead broker anew, and the pause that a producer makes between two
sends. A percentile is a value that was measured: of fewer than a hundred rounds the 99th is the
largest.

``--write`` puts the Markdown between the marker comments of tests/process/README.md and
minilog/docs/performance.md. Nobody else does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

QUIET = "quiet"
ROOT: Final = Path(__file__).parents[3]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """Unavailability in ms; None: no goal for that percentile."""

    p99_ms: int
    p50_ms: int | None = None

    def met(self, row: Row) -> bool:
        return row["p99_ms"] <= self.p99_ms and (self.p50_ms is None or row["p50_ms"] <= self.p50_ms)

    def __str__(self) -> str:
        median = "" if self.p50_ms is None else f"p50 {self.p50_ms}, "
        return f"{median}p99 {self.p99_ms:,}"


GOALS: Final[Mapping[str, Goal]] = {
    "kill_leader": Goal(700, p50_ms=300),
    "stop_leader": Goal(100),
    "pause_leader": Goal(3000),
    "cut_off_leader": Goal(3000),
}
"""Where only silence tells: the session timeout (2 s) and a second."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


COUNTS = ("acknowledged", "reads", "lost", "violations", "weak_lost", "duplicates")


def summary(rounds: Iterable[Row]) -> list[dict[str, Any]]:
    """A row per fault, those with goals first, the rounds without any fault last. Times in ms."""
    by_name: dict[str, list[Row]] = {}
    for row in rounds:
        by_name.setdefault(row["nemesis"].split(" (")[0], []).append(row)
    order = [*GOALS, *sorted(by_name.keys() - GOALS.keys() - {QUIET}), QUIET]
    return [_summed(name, by_name[name]) for name in order if name in by_name]


def _summed(name: str, rounds: Sequence[Row]) -> dict[str, Any]:
    measured = [unavailable_ms(row) for row in rounds]
    times = {f"{label}_ms": percentile(measured, share) for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    row: dict[str, Any] = {"fault": name, "runs": len(rounds), **_totals(rounds), **times}
    goal = GOALS.get(name)
    return {**row, "goal": "" if goal is None else str(goal), "met": None if goal is None else goal.met(row)}


def unavailable_ms(row: Row) -> float:
    return float(row["longest_ms"])


def _totals(rounds: Iterable[Row]) -> dict[str, int]:
    found = list(rounds)
    return {key: sum(row.get(key, 0) for row in found) for key in COUNTS}


# --- where the time goes --------------------------------------------------------------------------

PHASES: Final = ("before", "detect", "elect", "publish", "client")
"""Before: from the last acknowledgement to the fault. Client: from metadata everywhere to an
acknowledgement."""


def split_of(row: Row) -> dict[str, float] | None:
    """The unavailability of a round in phases, ms; None where the controller saw no broker fail, or
    its election ran on into another fault's."""
    around: Row = row["switch"]
    told: Row = next(iter(row["split"]), {})
    if not around or not all(key in told for key in ("detected", "elected", "published")):
        return None
    begin_ms, end_ms = around["last_ack_ms"], around["first_ack_ms"]
    marks = [begin_ms, 0.0, *(told[key] for key in ("detected", "elected", "published")), end_ms]
    marks = [min(max(mark, begin_ms), end_ms) for mark in marks]
    lengths = [round(after - before, 1) for before, after in itertools.pairwise(marks)]
    return dict(zip(PHASES, lengths, strict=True))


def splits(rounds: Sequence[Row]) -> list[dict[str, Any]]:
    """Per fault with a goal: each phase's median, and all phases of the round that took longest."""
    found = []
    for name in GOALS:
        seen = [(unavailable_ms(row), split) for row in rounds if row["nemesis"] == name and (split := split_of(row))]
        if seen:
            medians = {phase: percentile([split[phase] for _, split in seen], 0.5) for phase in PHASES}
            found.append({"fault": name, "runs": len(seen), "median": medians, "worst": max(seen, key=_first)[1]})
    return found


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


# --- for the terminal -----------------------------------------------------------------------------


def table_of(campaign: Mapping[str, Any]) -> Table:
    rows = summary(campaign["rounds"])
    minutes = campaign["seconds"] / 60
    table = Table(title=f"{len(campaign['rounds'])} rounds, {minutes:.1f} minutes, seeds {campaign['seeds']}")
    table.add_column("fault", no_wrap=True)
    for title in ("runs", "acked", "read", "lost", "violations", "acks=1 lost", "doubled"):
        table.add_column(title, justify="right")
    table.add_column("unavailable p50 / p99 / max", justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("met")
    for row in rows:
        counts = [f"{row[key]:,}" for key in ("runs", *COUNTS)]
        table.add_row(row["fault"], *counts, _times(row), row["goal"], _met(row).strip("*"))
    table.add_section()
    totals = [sum(row[key] for row in rows) for key in ("runs", *COUNTS)]
    table.add_row("all", *(f"{total:,}" for total in totals), "", "", "")
    table.caption = (
        "ms as applications see it (client defaults, acks=all), of each round the worst partition. acks=1 lost: that "
        "level promises no more."
    )
    return table


def _times(row: Row) -> str:
    return " / ".join(f"{row[key]:,.0f}" for key in ("p50_ms", "p99_ms", "max_ms"))


def _met(row: Row) -> str:
    return "" if row["met"] is None else "yes" if row["met"] else "**no**"


# --- Markdown -------------------------------------------------------------------------------------


def markdown(soaks: Sequence[Row], load: Row | None) -> str:
    """Everything, for tests/process/README.md: a table for each soak."""
    sections = [line for soak in soaks for line in (*_section(soak), "")]
    return "\n".join([*sections, full_load_sentence(load) if load else ""]).rstrip()


def _section(soak: Row) -> list[str]:
    rows, totals = summary(soak["rounds"]), _totals(soak["rounds"])
    titles = [
        "fault",
        "runs",
        "acknowledged (all, 1)",
        "violations",
        "unavailable, ms: p50",
        "p99",
        "max",
        "goal",
        "met",
    ]
    return [
        _conditions(soak),
        "",
        *_table(titles, map(_line, rows)),
        "",
        f"{totals['acknowledged']:,} records acknowledged and {totals['reads']:,} read in {len(soak['rounds'])} rounds: "
        f"{totals['violations']} violations, {len(soak['failures'])} failures. acks=1, which promises less, lost "
        f"{totals['weak_lost']:,}; retries doubled {totals['duplicates']:,}.",
        "",
        *_split_lines(soak["rounds"]),
    ]


def short_markdown(soaks: Sequence[Row], load: Row | None) -> str:
    """What performance.md shows: the times of the first soak for the faults with goals, and what
    all soaks came to."""
    titles = ["fault", "runs", "ms without an acknowledgement: p50", "p99", "max", "goal"]
    shown = [row for row in summary(soaks[0]["rounds"]) if row["fault"] in MEANINGS]
    cells = [
        [
            MEANINGS[row["fault"]], row["runs"], *(f"{row[key]:,.0f}" for key in ("p50_ms", "p99_ms", "max_ms")),
            row["goal"] + (", missed" if row["met"] is False else ""),
        ]
        for row in shown
    ]  # fmt: skip
    rounds = [row for soak in soaks for row in soak["rounds"]]
    assert all(row["violations"] == 0 for row in rounds), "the sentence below must be written anew"
    totals, kinds = _totals(rounds), {row["nemesis"].split(" (")[0] for row in rounds}
    lines = [
        *_table(titles, cells),
        "",
        f"In all {len(rounds)} rounds of {len(kinds)} kinds (kills, pauses, partitions, power cuts, damaged disks, mixes) "
        f"{totals['acknowledged']:,} records were acknowledged, with acks=all and acks=1: {totals['violations']} violations. "
        "Nothing acknowledged with acks=all was lost, changed or put out of order; of acks=1, which promises less, "
        f"{totals['weak_lost']:,} were lost; retries doubled {totals['duplicates']:,}. Times: {_conditions(soaks[0])}",
    ]
    return "\n".join([*lines, *([full_load_sentence(load)] if load else [])])


MEANINGS: Final = {
    "kill_leader": "kill -9 of the leader",
    "stop_leader": "clean stop of the leader",
    "pause_leader": "SIGSTOP of the leader",
    "cut_off_leader": "leader cut off from everybody",
    QUIET: "no fault: longest silence",
}


def _conditions(campaign: Mapping[str, Any]) -> str:
    machine, seeds = campaign["machine"], ", ".join(map(str, campaign["seeds"]))
    cpu, priority = machine["cpu"], f" at nice {machine['nice']}" if machine["nice"] else ""
    return (
        f"Three brokers, RF 3, min ISR 2, acks=all, brokers, controller and clients{priority} on {machine['cores']} cores "
        f"shared with other work (load average {machine['load_min']:.1f} to {machine['load_max']:.1f}, mean "
        f"{machine['load_mean']:.1f}; {cpu['nice']:.0%} of the CPU went to work of low priority, {cpu['idle']:.0%} was "
        f"idle); {campaign['seconds'] / 60:.0f} minutes from {campaign['began']}, seeds {seeds}."
    )


def _line(row: Row) -> list[Any]:
    times = [f"{row[key]:,.0f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    name = "quiet (no fault)" if row["fault"] == QUIET else row["fault"]
    counts = [row["runs"], f"{row['acknowledged']:,}", row["violations"]]
    return [name, *counts, *times, row["goal"], _met(row)]


def _split_lines(rounds: Sequence[Row]) -> list[str]:
    found = splits(rounds)
    lines = [
        "Where it goes, in ms: *before*, from the last acknowledgement to the fault (the producer's own pause); *detect*, "
        "until the controller knows (a clean stop drains first); *elect*, until a leader is journalled; *publish*, until every broker has it; "
        "*client*, until an acknowledgement has arrived.",
        "",
    ]
    cells = []
    for split in found:
        for label, values in (("median", split["median"]), ("slowest round", split["worst"])):
            cells.append([split["fault"], label, *(f"{values[phase]:,.0f}" for phase in PHASES)])
    return [*lines, *_table(["fault", "of the rounds", *PHASES], cells)]


def full_load_sentence(load: Mapping[str, Any]) -> str:
    return (
        f"Full load for {load['seconds'] / 60:.0f} minutes, no fault, {load['idle']:.0%} of {load['cores']} cores idle: "
        f"{load['records']:,} records of {load['record_bytes']:,} bytes acknowledged with acks=all "
        f"({load['mb_per_s']:.0f} MB/s), {load['read']:,} read, largest heartbeat age {load['heartbeat_age_ms']:,.0f} ms "
        f"of {load['session_timeout_ms']:,}, largest loop lag {load['loop_lag_ms']:,.0f} ms, "
        f"{load['isr_shrinks']} ISR shrinks, {load['fenced']} brokers fenced."
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    aligned = ["---:" if _is_number([row[n] for row in cells]) else "---" for n in range(len(titles))]
    return [f"| {' | '.join(line)} |" for line in (titles, aligned, *cells)]


def _is_number(column: Sequence[str]) -> bool:
    return all(not cell or cell.replace(",", "").replace(".", "").lstrip("-").isdigit() for cell in column)


# --- into the files -------------------------------------------------------------------------------


def replace_between_markers(text: str, name: str, content: str) -> str:
    """Raises AssertionError when ``text`` has not exactly one pair of markers of that name."""
    begin, end = f"<!-- {name}: written by tests.process.campaign.report -->", f"<!-- end of {name} -->"
    assert text.count(begin) == 1, f"there must be one line {begin!r}"
    assert text.count(end) == 1, f"there must be one line {end!r}"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


PLACES: Final = {ROOT / "tests/process/README.md": markdown, ROOT / "minilog/docs/performance.md": short_markdown}
MARKER: Final = "figures"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.process.campaign.report", description="Tables of what was measured."
    )
    parser.add_argument("soaks", type=Path, nargs="+", help="JSON files of tests.process.campaign.soak")
    parser.add_argument("--full-load", type=Path, help="JSON file of tests.process.load.fullload")
    parser.add_argument("--write", action="store_true", help="into the two pages instead of printing")
    parsed = parser.parse_args(arguments)
    soaks = [json.loads(path.read_text()) for path in parsed.soaks]
    load = json.loads(parsed.full_load.read_text()) if parsed.full_load else None
    if not parsed.write:
        print(markdown(soaks, load))
        return 0
    for path, render in PLACES.items():
        path.write_text(replace_between_markers(path.read_text(), MARKER, render(soaks, load)))
        print(f"written: {path.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
