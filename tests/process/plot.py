"""Pictures of a soak: ``python -m tests.process.plot soak.json soak.png``.

Above, how long applications went without an acknowledgement, as a distribution per fault, with the goals; below, the
latency of every send over time, with the faults as bars. Needs matplotlib, which nothing else here does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOALS_MS = {"kill_leader": 700, "stop_leader": 100, "pause_leader": 3000, "cut_off_leader": 3000}
"""p99; session timeout (2 s) and a second where only silence tells."""
FAULTS_MAX = 10
QUIET = "quiet"
_SPAN_S = 180.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.process.plot", description="Draw what a soak measured.")
    parser.add_argument("soaks", type=Path, nargs="+", help="JSON files of soaks, then the picture to write")
    parser.add_argument(
        "--from", type=float, default=0.0, dest="from_s", help="where the lower picture begins, seconds"
    )
    parser.add_argument("--seconds", type=float, default=_SPAN_S, help="how much of the first file it shows")
    parsed = parser.parse_args(arguments)
    *soaks, picture = parsed.soaks
    if not soaks:
        parser.error("name the JSON file of a soak, and the picture to write")
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        print("drawing needs matplotlib, which is not installed here: pip install matplotlib", file=sys.stderr)
        return 1
    matplotlib.use("Agg")
    found = [json.loads(path.read_text()) for path in soaks]
    draw(found, picture, parsed.from_s, parsed.seconds)
    return 0


def draw(soaks: Sequence[dict[str, Any]], picture: Path, from_s: float, seconds: float) -> None:
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(11, 8), layout="constrained")
    _draw_distributions(above, [row for soak in soaks for row in soak["rounds"]])
    _draw_timeline(below, soaks[0]["rounds"], from_s, seconds)
    figure.savefig(picture, dpi=130)


def _draw_distributions(axes: Any, rounds: Sequence[dict[str, Any]]) -> None:
    """Of each round the partition that waited longest: for its new leader, or, if it kept its leader, for anything."""
    by_fault: dict[str, list[float]] = {}
    for row in rounds:
        if " " not in row["nemesis"]:
            by_fault.setdefault(row["nemesis"], []).append(row["switch_ms"] or row["longest_ms"])
    most = sorted(by_fault, key=lambda name: (name not in GOALS_MS, name != QUIET, -len(by_fault[name])))[:FAULTS_MAX]
    for name in most:
        values = sorted(by_fault[name])
        shares = [number / len(values) for number in range(len(values) + 1)]
        style = {"color": "0.6", "linestyle": "--"} if name == QUIET else {}
        label = "no fault at all" if name == QUIET else name
        (line,) = axes.step([values[0], *values], shares, where="post", label=f"{label} ({len(values)})", **style)
        if name in GOALS_MS:
            axes.axvline(GOALS_MS[name], color=line.get_color(), linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0, 1.02), ylabel="share of the rounds")
    axes.set_xlabel("ms from the last acknowledgement before to the first after (dotted: goal for the 99th percentile)")
    axes.set_title("Unavailability as applications see it, acks=all, three replicas", loc="left")
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _draw_timeline(axes: Any, rounds: Sequence[dict[str, Any]], from_s: float, seconds: float) -> None:
    from matplotlib import colormaps

    until_s = from_s + seconds
    shown = [row for row in rounds if row["ended_s"] > from_s and row["began_s"] < until_s]
    points = [(t_s, ms) for row in shown for t_s, ms in row["latencies"]]
    axes.plot([t for t, _ in points], [ms for _, ms in points], ".", markersize=2, color="0.25", rasterized=True)
    names = sorted({bar["name"] for row in shown for bar in row["bars"]})
    colours = {name: colormaps["tab20"](number % 20) for number, name in enumerate(names)}
    for row in shown:
        for bar in row["bars"]:
            axes.axvspan(bar["began_s"], bar["ended_s"], color=colours[bar["name"]], alpha=0.35, linewidth=0)
    for name in names:
        axes.plot([], [], linewidth=8, alpha=0.5, color=colours[name], label=name)
    axes.set(
        yscale="log",
        xlim=(from_s, min(until_s, rounds[-1]["ended_s"])),
        xlabel="seconds",
        ylabel="latency of a send, ms",
    )
    axes.set_title("Every send with acks=all over time; bars are faults", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=7, ncols=7)


if __name__ == "__main__":
    sys.exit(main())
