"""Pictures of soaks: ``python -m tests.process.campaign.plot soak.json ... [--pictures FOLDER]``,
with the extra ``plots`` installed.

failover.png   how long applications went without an acknowledgement, as a distribution per fault, with the goals
timeline.png   the latency of every send over a few minutes, with the faults as bars
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.process.campaign import report
from tests.process.campaign.report import GOALS, QUIET, unavailable_ms
from tests.process.nemesis import disks, networks
from tests.process.nemesis.catalogue import CATALOGUE

PICTURES: Final = Path(__file__).parent.parent / "pictures"
WIDTH_INCHES, DPI = 9.0, 200
INK, FAINT = "#2b2b2b", "#8a8a8a"
COLOURS: Final = {
    "kill_leader": "#c0392b",
    "stop_leader": "#2e7d4f",
    "pause_leader": "#c77f1a",
    "cut_off_leader": "#2f5d9b",
    QUIET: "#9a9a9a",
}
NAMES: Final = report.MEANINGS
KINDS: Final = {"process": "#c0392b", "network": "#2f5d9b", "disk": "#7d4f9e", "clean stop": "#2e7d4f"}
SLOW_MS: Final = 400
"""Sends that took so long are few and are the point, so they are drawn larger."""
STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.process.campaign.plot", description="Draw what soaks measured."
    )
    parser.add_argument(
        "soaks", type=Path, nargs="+", help="JSON files of soaks: distributions of the first, timeline of the last"
    )
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="the folder to write to")
    parser.add_argument("--from", type=float, dest="from_s", help="where the timeline begins; else where most happens")
    parser.add_argument("--seconds", type=float, default=100.0, help="how much it shows")
    parsed = parser.parse_args(arguments)
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        print("drawing needs matplotlib, which is not installed here: pip install -e '.[plots]'", file=sys.stderr)
        return 1
    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    found = [json.loads(path.read_text()) for path in parsed.soaks]
    parsed.pictures.mkdir(exist_ok=True)
    draw_failover(found[0], parsed.pictures / "failover.png")
    rounds = found[-1]["rounds"]
    from_s = busiest(rounds, parsed.seconds) if parsed.from_s is None else parsed.from_s
    draw_timeline(rounds, from_s, parsed.seconds, parsed.pictures / "timeline.png")
    return 0


# --- how long -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    title: str
    names: Sequence[str]
    scale: str
    range_ms: tuple[int, int]
    ticks_ms: Sequence[int]
    words_at: tuple[float, float]
    """Where the names of the curves stand, in shares of the panel."""


PANELS: Final = (
    Panel(
        "a process that ends is noticed at once", ("kill_leader", "stop_leader", QUIET),
        "log", (25, 1000), (25, 50, 100, 200, 500, 1000), (0.575, 0.72),
    ),
    Panel(
        "one that falls silent has 2 s to speak again", ("pause_leader", "cut_off_leader"),
        "linear", (1500, 3100), (1500, 2000, 2500, 3000), (0.42, 0.63),
    ),
)  # fmt: skip
GOAL_NAMES: Final = {
    "kill_leader": "kill -9",
    "stop_leader": "clean stop",
    "pause_leader": "",
    "cut_off_leader": "both",
}


def draw_failover(campaign: Row, picture: Path) -> None:
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    size = (WIDTH_INCHES, 4.4)
    figure, axes = pyplot.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for place, panel in zip(axes, PANELS, strict=True):
        _draw_panel(place, panel, campaign["rounds"])
    axes[0].set_ylabel("share of the runs")
    axes[0].yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    figure.suptitle(
        "How long producers wait when the leader is lost", x=0.01, ha="left", fontsize=13, fontweight="bold"
    )
    figure.supxlabel("longest time without an acknowledgement, worst partition of a run, ms", fontsize=10)
    figure.savefig(picture, dpi=DPI)


def _draw_panel(axes: Any, panel: Panel, rounds: Sequence[Row]) -> None:
    axes.set(xscale=panel.scale, xlim=panel.range_ms, ylim=(0, 1.0))
    words_x, words_y = panel.words_at
    for name in panel.names:
        values = sorted(unavailable_ms(row) for row in rounds if row["nemesis"] == name)
        if not values:
            continue
        shares = [number / len(values) for number in range(len(values) + 1)]
        style: Row = {"linewidth": 1.4, "linestyle": (0, (4, 2))} if name == QUIET else {"linewidth": 2.2}
        axes.step([values[0], *values], shares, where="post", color=COLOURS[name], clip_on=False, **style)
        words = f"{NAMES[name]}\n{len(values)} runs, median {report.percentile(values, 0.5):,.0f} ms"
        axes.text(
            words_x, words_y, words, transform=axes.transAxes, color=COLOURS[name], fontsize=9, va="top",
            linespacing=1.4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
        words_y -= 0.17
    axes.set_xticks(panel.ticks_ms)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:,.0f}")
    axes.grid(color="#e9e9e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(panel.title, loc="left", fontsize=10.5, pad=24)
    _draw_goals(axes, panel)


def _draw_goals(axes: Any, panel: Panel) -> None:
    """The 99th percentiles to stay left of, dotted."""
    for p99_ms in sorted({GOALS[name].p99_ms for name in panel.names if name in GOALS}):
        names = [name for name in panel.names if name in GOALS and GOALS[name].p99_ms == p99_ms]
        colour = COLOURS[names[0]] if len(names) == 1 else FAINT
        axes.axvline(p99_ms, color=colour, linestyle=":", linewidth=1.6)
        words = f"goal for p99, {''.join(GOAL_NAMES[name] for name in names)}"
        axes.annotate(
            words, (p99_ms, 1.0), (0, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", fontsize=8, color=colour,
        )  # fmt: skip


# --- over time ------------------------------------------------------------------------------------


def busiest(rounds: Sequence[Row], seconds: float) -> float:
    """Where the stretch begins that shows most kinds of faults, those with goals first; mixes are
    hard to read."""

    def worth(start: Row) -> tuple[int, int]:
        until_s = start["began_s"] + seconds
        names = {row["nemesis"] for row in rounds if row["began_s"] >= start["began_s"] and row["ended_s"] <= until_s}
        return len(names & GOALS.keys()), sum(1 if name in CATALOGUE else -1 for name in names)

    return float(max(rounds, key=worth)["began_s"])


def kind_of(name: str) -> str:
    nemesis = CATALOGUE.get(name)
    if nemesis is None or name in ("stop_leader", "rolling_restart"):
        return "clean stop"
    modules = {networks.__name__: "network", disks.__name__: "disk"}
    return modules.get(nemesis.act.__module__, "process")


def draw_timeline(rounds: Sequence[Row], from_s: float, seconds: float, picture: Path) -> None:
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]
    from matplotlib.patches import Patch  # type: ignore[import-not-found, unused-ignore]

    shown = [row for row in rounds if row["ended_s"] > from_s and row["began_s"] < from_s + seconds]
    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 4.6), layout="constrained")
    points = [(t_s - from_s, ms) for row in shown for t_s, ms in row["latencies"]]
    for few, size, alpha in ((False, 3.4, 0.5), (True, 5.5, 0.9)):
        drawn = [(t_s, ms) for t_s, ms in points if (ms >= SLOW_MS) == few]
        style: Row = {"markersize": size, "markeredgewidth": 0, "color": INK, "alpha": alpha, "zorder": 3}
        axes.plot([t_s for t_s, _ in drawn], [ms for _, ms in drawn], ".", **style)
    for row in shown:
        _draw_faults(axes, row, from_s, seconds)
    axes.set(yscale="log", xlim=(0, seconds), ylim=(3, 60_000), ylabel="latency of a send")
    axes.set_yticks([10, 100, 1000, 10_000])
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:,.0f} ms" if ms < 1000 else f"{ms / 1000:.0f} s")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda s, _: f"{s:.0f} s")
    figure.suptitle("Latency of every send while things break", x=0.01, ha="left", fontsize=13, fontweight="bold")
    title = "a dot is a send acknowledged by all in-sync replicas, a bar is a fault; one scale, from ms to seconds"
    axes.set_title(title, loc="left", fontsize=10.5, pad=8)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    handles = [Patch(color=colour, alpha=0.35, label=kind) for kind, colour in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(KINDS), fontsize=9, frameon=False)
    axes.set_xlabel("between two rounds everything is read back and checked", loc="left", color=FAINT)
    figure.savefig(picture, dpi=DPI)


def _draw_faults(axes: Any, row: Row, from_s: float, seconds: float) -> None:
    """The bars of one round, and its name once."""
    for bar in row["bars"]:
        colour = KINDS[kind_of(bar["name"])]
        begin_s, end_s = bar["began_s"] - from_s, bar["ended_s"] - from_s
        axes.axvspan(begin_s, end_s, color=colour, alpha=0.22, linewidth=0)
    begins = [bar["began_s"] - from_s for bar in row["bars"]]
    if begins and 0 <= min(begins) < seconds - 2:
        name = row["nemesis"].split(" (")[0].replace("_", " ")
        axes.text(
            min(begins) + 0.2, 52_000, name, rotation=90, ha="left", va="top", fontsize=7.5, color=INK, zorder=4
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
