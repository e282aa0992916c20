"""The campaign: ``python -m tests.process.controllers --rounds 60``.

Each round is one nemesis, with a leader killed in the same second. Prints a table of how long no
controller decided, and how long a writer waited at most.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from tests.process.controllers.stage import NEMESES, Round, stage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.process.controllers")
    parser.add_argument("--rounds", type=int, default=12, help="of all nemeses in turn")
    parser.add_argument("--nemesis", action="append", choices=NEMESES, help="these alone")
    parser.add_argument("--controllers", type=int, default=3)
    parser.add_argument("--etcd", type=int, default=3, help="members")
    words = parser.parse_args()
    rounds: list[Round] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        stage(Path(folder) / "dev", words.controllers, words.etcd) as played,
    ):
        for number, nemesis in zip(range(words.rounds), itertools.cycle(words.nemesis or NEMESES), strict=False):
            rounds.append(played.play(nemesis))
            print(f"{number + 1:>4}  {rounds[-1]}", flush=True)
        lost = played.lost()
    print(table(rounds))
    acknowledged = sum(one.acknowledged for one in rounds)
    print(f"{len(rounds)} rounds, {acknowledged} writes acknowledged, {len(lost)} of them lost")
    return 1 if lost else 0


def table(rounds: list[Round]) -> str:
    lines = [f"{'nemesis':<18}{'rounds':>7}{'absent p50':>12}{'p99':>8}{'writer waited p50':>19}{'p99':>8}"]
    for nemesis in NEMESES:
        mine = [one for one in rounds if one.nemesis == nemesis]
        if mine:
            absent, written = sorted(one.absent_ms for one in mine), sorted(one.written_ms for one in mine)
            numbers = (
                f"{rank(absent, 50):>12.0f}{rank(absent, 99):>8.0f}{rank(written, 50):>19.0f}{rank(written, 99):>8.0f}"
            )
            lines.append(f"{nemesis:<18}{len(mine):>7}{numbers}")
    return "\n".join(lines)


def rank(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    sys.exit(main())
