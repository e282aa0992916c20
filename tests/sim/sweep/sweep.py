"""The disk sweep: every scenario, every fault, at every operation (python -m tests.sim.sweep).

One case lets one fault strike at one operation. Then the process starts again, after a crash on a
restarted machine. In every second case another fault strikes while it recovers. What must hold is
the witness's business. Each case has a random generator of its own, so that it is the same alone
and in the sweep.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from minilog.errors import CorruptRange, RefusesToStart, StorageFailed
from tests.sim.sweep.faulty_disk import (
    BAD_SECTOR,
    FAULTS,
    FLIP,
    LASTING,
    READING,
    UNREADABLE,
    Crash,
    FaultyDisk,
    Kill,
    applies,
)
from tests.sim.sweep.log_model import Broken, check
from tests.sim.sweep.scenarios import SCENARIOS, Scenario
from tests.sim.sweep.witness import Witness

SECOND_FAULTS = ("crash before", "crash after", "torn", "kill", "eio", "eio, read-only", UNREADABLE)
SECOND_WITHIN = 15
ENDS = {
    "crash before": ("crash",),
    "crash after": ("crash",),
    "torn": ("crash",),
    "kill": ("kill",),
    "short": ("kill",),
    "eio": ("failure",),
    "eio, read-only": ("failure",),
    "eio, kill": ("kill",),
    "enospc": ("",),
    UNREADABLE: ("failure", ""),
    BAD_SECTOR: ("failure", ""),
    FLIP: ("kill",),
}
"""What may become of the process: a change that fails it must notice, a full disk it must survive.
What cannot be read it may do without (indexes, snapshots), and otherwise it says so."""
STARTS_ON_DAMAGE = 3
FAILURES_SHOWN_MAX = 20


class Case(NamedTuple):
    scenario: str
    fault: str
    at: int
    round: int = 0
    """Other draws: which sectors a crash keeps, how much of a write was done, what strikes during
    recovery."""

    def __str__(self) -> str:
        return f"{self.scenario}: {self.fault} at operation {self.at}, round {self.round}"

    @property
    def command(self) -> str:
        return f'python -m tests.sim.sweep --scenario "{self.scenario}" --fault "{self.fault}" --at {self.at} --from {self.round}'


class Failure(NamedTuple):
    case: Case
    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case} ({self.operation})\n{self.reason}\nreplay: {self.case.command}"


def undisturbed(scenario: Scenario) -> FaultyDisk:
    """The disk after the scenario when nothing goes wrong; raises when that alone breaks a
    promise."""
    disk = FaultyDisk(Random(scenario.name))
    scenario.act(scenario.make(disk), lambda: disk.arm("", 0, disk.rng))
    return disk


def cases(scenario: Scenario, number: int) -> Iterator[Case]:
    disk = undisturbed(scenario)
    for fault in FAULTS:
        for at, operation in enumerate(disk.reads if fault in READING else disk.operations, 1):
            if applies(fault, operation):
                yield Case(scenario.name, fault, at, number)


def run(case: Case) -> Failure | None:
    rng = Random(str(case))
    disk = FaultyDisk(Random(case.scenario))
    try:
        scenario = SCENARIOS[case.scenario]
        witness = scenario.make(disk)
        _let(lambda: scenario.act(witness, lambda: disk.arm(case.fault, case.at, rng)), witness, case.fault)
        check(bool(disk.struck), "the fault did not strike: the scenario is not deterministic")
        if case.fault in LASTING:
            if _is_refused(witness) and case.fault == FLIP:
                return None
            disk.mend()
        elif rng.random() < 0.5:
            fault = rng.choice(SECOND_FAULTS)
            disk.arm(fault, rng.randint(1, SECOND_WITHIN), rng)
            _let(witness.start, witness, fault)
        disk.arm("", 0, rng)
        witness.start()
        witness.go_on()
    except (Exception, Crash, Kill) as error:
        return Failure(case, ", then ".join(disk.struck) or "never reached", _reason(error))
    return None


def _let(act: Callable[[], None], witness: Witness, fault: str) -> None:
    """Do it with the fault that is armed, and end the process as that fault ends it and in no other
    way."""
    disk, already = witness.disk, len(witness.disk.struck)
    try:
        act()
        ended = ""
    except Crash:
        ended = "crash"
    except Kill:
        ended = "kill"
    except (StorageFailed, RefusesToStart, CorruptRange) as error:
        if not disk.misread and not _is_of_the_disk(error):
            raise
        ended = "failure"
    expected = ENDS[fault] if len(disk.struck) > already else ("",)
    check(ended in expected, f"the process should have ended by {expected[0] or 'nothing'}, not {ended or 'nothing'}")
    witness.end(_end(fault, ended, disk.struck[-1] if ended else ""))
    if disk.read_only:
        _refuse_read_only(witness)


def _is_refused(witness: Witness) -> bool:
    """Whether it is, start after start: what is damaged is refused each time, and nothing is made
    of it meanwhile."""
    refused = 0
    for _ in range(STARTS_ON_DAMAGE):
        witness.disk.misread = True
        try:
            witness.start()
        except (StorageFailed, RefusesToStart, CorruptRange):
            refused += 1
        witness.end("kill")
    return refused > 0


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, StorageFailed) or isinstance(error.__cause__, StorageFailed)


def _end(fault: str, ended: str, operation: str) -> str:
    """What the end means: the failure of a mkdir, the lock or a read has lost nothing that was
    written."""
    if ended == "" or (operation.startswith(("mkdir", "lock", "pread")) and ended != "crash"):
        return "kill"
    return fault if fault == "eio, kill" else ended


def _refuse_read_only(witness: Witness) -> None:
    """Nobody can start on it. Then it is mounted anew."""
    try:
        witness.start()
    except (StorageFailed, RefusesToStart):
        witness.end("failure")
        witness.disk.read_only = False
        return
    raise Broken("a process came up on a read-only file system")


def _reason(error: BaseException) -> str:
    where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
    return f"{type(error).__name__}: {error}\n  in {' > '.join(where)}"


def sweep(
    scenarios: list[str], fault: str = "", at: int = 0, rounds: range = range(1)
) -> Iterator[tuple[Case, Failure | None]]:
    for number in rounds:
        for name in scenarios:
            for case in cases(SCENARIOS[name], number):
                if fault in ("", case.fault) and at in (0, case.at):
                    yield case, run(case)


def table(done: Counter[tuple[str, str]], failed: Counter[tuple[str, str]]) -> Table:
    made = Table(title="disk sweep: cases, and failures where there are any")
    made.add_column("scenario")
    for column in (*FAULTS, "all"):
        made.add_column(column, justify="right")
    rows = [name for name in SCENARIOS if any(done[name, fault] for fault in FAULTS)]
    for name in [*rows, "all"]:
        chosen = rows if name == "all" else [name]
        cells = []
        for column in (*FAULTS, "all"):
            kinds = list(FAULTS) if column == "all" else [column]
            count = sum(done[row, kind] for row in chosen for kind in kinds)
            bad = sum(failed[row, kind] for row in chosen for kind in kinds)
            cells.append(f"[red]{count} ({bad})[/]" if bad else str(count))
        made.add_row(name, *cells, end_section=bool(rows) and name == rows[-1])
    return made


def main(
    scenario: Annotated[str, typer.Option(help="Only this one.")] = "",
    fault: Annotated[str, typer.Option(help="Only this one.")] = "",
    at: Annotated[int, typer.Option(help="Only this operation; 0 is all.")] = 0,
    rounds: Annotated[int, typer.Option(help="How often, with other draws.")] = 1,
    first: Annotated[int, typer.Option("--from", help="The first round.")] = 0,
) -> None:
    """Let every fault strike at every disk operation of every scenario; exit code 1 when a promise
    was broken."""
    for given, known in ((scenario, list(SCENARIOS)), (fault, list(FAULTS))):
        if given and given not in known:
            raise typer.BadParameter(f"{given!r} is none of: {'; '.join(known)}")
    logging.disable(logging.WARNING)  # storage and journal tell the operator of every cut
    console = Console(width=180)
    done: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    began = time.perf_counter()
    for case, failure in sweep([scenario] if scenario else list(SCENARIOS), fault, at, range(first, first + rounds)):
        done[case.scenario, case.fault] += 1
        if failure is not None:
            failed[case.scenario, case.fault] += 1
            if failed.total() <= FAILURES_SHOWN_MAX:
                console.print(f"\n{failure}", markup=False, highlight=False)
    console.print(table(done, failed))
    seconds = time.perf_counter() - began
    console.print(f"{done.total():,} cases, {failed.total()} failures, {seconds:.1f} s")
    sys.exit(1 if failed or not done else 0)
