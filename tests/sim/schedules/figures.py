"""Figures: what many schedules add up to, as the table that a claim about minilog may rest on."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from tests.sim.schedules.schedule import Outcome


class Figures:
    def __init__(self) -> None:
        self.schedules = 0
        self.events = 0
        self.virtual_ms = 0
        self.counts: Counter[str] = Counter()
        self.violations: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.events += outcome.events
        self.virtual_ms += outcome.virtual_ms
        self.counts.update(outcome.figures)
        if outcome.violation:
            self.violations.append(outcome)

    def table(self, wall_s: float, jobs: int) -> Table:
        table = Table(title="minilog simulator", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, value in self.rows(wall_s, jobs):
            table.add_row(name, value)
        return table

    def rows(self, wall_s: float, jobs: int) -> list[tuple[str, str]]:
        count = self.counts
        per_hour = self.schedules / wall_s * 3600 if wall_s else 0.0
        faults = [
            ("process kills", count["broker kills"]),
            ("machine crashes (unsynced data lost)", count["broker crashes"]),
            ("files torn in them", count["torn files"]),
            ("disks wiped, disks failed", f"{count['broker wipes']:,}, {count['broker fail_stops']:,}"),
            ("disks restored, logs removed", f"{count['broker restores']:,}, {count['lost log']:,}"),
            (
                "journals replaced by older ones, ended by a broker",
                f"{count['old journal']:,}, {count['impostors ended']:,}",
            ),
            ("processes paused", count["broker pauses"] + count["controller pauses"]),
            ("controlled shutdowns", count["broker stops"]),
            (
                "controller kills, of them within a commit",
                f"{count['controller kills']:,}, {count['controller deaths_in_commit']:,}",
            ),
            (
                "links cut: one-way, isolations, rings",
                f"{count['one-way cut']:,}, {count['isolation']:,}, {count['ring']:,}",
            ),
            ("messages, lost, duplicated", f"{count['messages']:,}, {count['lost']:,}, {count['duplicated']:,}"),
        ]
        allowed = f"{count['lost acks=1']:,}, {count['lost acks=2']:,}"
        rows = [
            ("schedules", self.schedules),
            ("virtual time", f"{self.virtual_ms / 3_600_000:,.2f} h"),
            ("events", self.events),
            *faults,
            ("elections, of them recoveries", f"{count['elections']:,}, {count['recoveries']:,}"),
            ("records acknowledged acks=all", count["acked_all"]),
            ("records acknowledged with less", count["acked_less"]),
            ("writes lost of acks=all", count["lost acks=-1"]),
            ("writes lost of acks=1, 2: allowed (an election that heard no holder)", allowed),
            ("writes lost of acks=1, 2: violations", count["violation WeakAcksSurvive"]),
            ("writes lost of acks=0 (nothing is promised)", count["lost acks=0"]),
            (
                "topics made anew, stragglers, what they spoke of ended",
                f"{count['recreation']:,}, {count['stragglers']:,}, {count['troubles']:,}",
            ),
            ("trials: busy neighbour, slow journal, damage", _trials(count)),
            (
                "followers' lags compared, of a replaced leader (not compared)",
                f"{count['lags told']:,}, {count['lags told of a replaced leader']:,}",
            ),
            (
                "numbered writes, answered as duplicates, in parts",
                f"{count['writes numbered']:,}, {count['duplicate answers']:,}, {count['duplicates in parts']:,}",
            ),
            (
                "log starts moved, records they took, consumers overtaken",
                f"{count['log starts moved']:,}, {count['records removed']:,}, {count['consumers overtaken']:,}",
            ),
            ("producer epochs begun after giving up", count["producer epochs"]),
            (
                "group members crashed, frozen, left",
                f"{count['member crashes']:,}, {count['members frozen']:,}, {count['members left']:,}",
            ),
            ("partitions given to members", count["partitions given"]),
            (
                "offset commits acknowledged, refused, unknown",
                f"{count['commits ok']:,}, {count['commits failed']:,}, {count['commits unknown']:,}",
            ),
            ("invariant checks", count["checks"]),
            ("violations", len(self.violations)),
            ("wall time", f"{wall_s:,.1f} s with {jobs} process{'es' if jobs > 1 else ''}"),
            ("schedules per hour", f"{per_hour:,.0f}"),
        ]
        return [(name, value if isinstance(value, str) else f"{value:,}") for name, value in rows]


def _trials(count: Counter[str]) -> str:
    return ", ".join(f"{count[f'trial {name}']:,}" for name in ("busy neighbour", "slow journal", "damage"))
