"""Figures of a benchmark: percentiles, CPU time, a table, JSON, a plot."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilog import machine
from minilog.cli.local.cluster import DevCluster
from minilog.cli.output import CliError, Column, ExitCode, Format, note, show_rows

P99_SAMPLES_MIN = 100
P999_SAMPLES_MIN = 1000
MB = 1_000_000
GB = 1_000_000_000

COLUMNS = [
    Column("bench", "BENCH", wide=True),
    Column("acks", "ACKS"),
    Column("flush_policy", "FLUSH"),
    Column("record_bytes", "BYTES", wide=True, right=True),
    Column("records", "RECORDS", wide=True, right=True),
    Column("seconds", "S", wide=True, right=True),
    Column("mb_per_second", "MB/S", right=True),
    Column("records_per_second", "RECORDS/S", right=True),
    Column("p50_ms", "P50 MS", right=True),
    Column("p99_ms", "P99 MS", right=True),
    Column("p999_ms", "P99.9 MS", right=True),
    Column("max_ms", "MAX MS", wide=True, right=True),
    Column("n", "N", right=True),
    Column("cpu_s_per_gb", "CPU S/GB", right=True),
    Column("foreign_cpu", "OTHERS %", right=True),
    Column("range", "RANGE", right=True),
    Column("cpu_s_per_gb_brokers", "BROKERS", wide=True, right=True),
    Column("cpu_s_per_gb_client", "CLIENT", wide=True, right=True),
    Column("partitions", "PARTITIONS", wide=True, right=True),
    Column("replicas", "REPLICAS", wide=True, right=True),
    Column("batch_bytes", "BATCH BYTES", wide=True, right=True),
    Column("measured", "LATENCY OF", wide=True),
]


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Nearest rank: the smallest value that at least ``fraction`` of all values do not exceed. 0.0
    of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def latency_figures(latencies_ms: Sequence[float]) -> dict[str, float | None]:
    """No percentile of so few samples that it would be the largest one by another name."""
    ordered = sorted(latencies_ms)
    count = len(ordered)
    return {
        "p50_ms": round(percentile(ordered, 0.50), 3),
        "p99_ms": round(percentile(ordered, 0.99), 3) if count >= P99_SAMPLES_MIN else None,
        "p999_ms": round(percentile(ordered, 0.999), 3) if count >= P999_SAMPLES_MIN else None,
        "max_ms": round(ordered[-1], 3) if ordered else 0.0,
        "n": count,
    }


def of_runs(rows: Sequence[dict[str, Any]], ranged: str) -> dict[str, Any]:
    """One row of the rows of all runs of a combination: each figure is the median of theirs.
    ``range`` is from the least to the most of ``ranged``, ``ranges`` has those of all figures."""
    merged = dict(rows[0])
    ranges = {}
    for key, first in rows[0].items():
        values = [row[key] for row in rows]
        if isinstance(first, bool) or not all(isinstance(value, int | float) for value in values):
            merged[key] = first if all(value == first for value in values) else _merged(values)
            continue
        merged[key] = statistics.median(values) if isinstance(first, float) else statistics.median_low(values)
        ranges[key] = [min(values), max(values)]
    least, most = ranges[ranged]
    merged["range"] = f"{least:,.1f}..{most:,.1f}" if len(rows) > 1 else None
    return {**merged, "runs": len(rows), "ranges": ranges}


def _merged(values: Sequence[Any]) -> Any:
    """Of figures that some run has not: none. Of tables of figures: by name."""
    if all(isinstance(value, dict) for value in values):
        names = set.intersection(*(set(value) for value in values))
        return {name: statistics.median(value[name] for value in values) for name in sorted(names)}
    return None


def throughput_figures(records: int, bytes_total: int, seconds: float) -> dict[str, float]:
    return {
        "records": records,
        "bytes": bytes_total,
        "seconds": round(seconds, 3),
        "mb_per_second": round(bytes_total / MB / seconds, 2) if seconds else 0.0,
        "records_per_second": round(records / seconds, 1) if seconds else 0.0,
    }


class CpuMeter:
    """CPU seconds of the local cluster's processes and of this one, between the start and
    ``figures``.

    Without a local cluster only this process can be told."""

    def __init__(self, cluster: DevCluster | None) -> None:
        self._pids = {member.name: member.pid() for member in cluster.members} if cluster else {}
        self.begin()

    def begin(self) -> None:
        """Once more, when a warm-up is over."""
        self._before = self._now()
        self._began_s, self._spent_before = time.monotonic(), machine.cpu_spent()

    def _now(self) -> dict[str, float]:
        spent = {"client": sum(os.times()[:2])}
        for name, pid in self._pids.items():
            seconds = machine.cpu_seconds(pid) if pid is not None else None
            if seconds is not None:
                spent[name] = seconds
        return spent

    def figures(self, bytes_total: int, requests: int = 0) -> dict[str, Any]:
        now = self._now()
        elapsed_s, spent_now = time.monotonic() - self._began_s, machine.cpu_spent()
        spent = {name: now[name] - before for name, before in self._before.items() if name in now}
        gigabytes = max(bytes_total, 1) / GB
        brokers = sum(seconds for name, seconds in spent.items() if name.startswith("broker"))
        known = bool(self._pids)
        others: dict[str, Any] = {"foreign_cpu": None, "steal_cpu": None}
        if known and spent_now is not None and self._spent_before is not None and elapsed_s > 0:
            foreign_s = spent_now.busy_s - self._spent_before.busy_s - sum(spent.values())
            others["foreign_cpu"] = round(max(0.0, 100 * foreign_s / elapsed_s), 1)
            others["steal_cpu"] = round(100 * (spent_now.steal_s - self._spent_before.steal_s) / elapsed_s, 1)
        if requests:
            others["cpu_us_per_request"] = round(1e6 * brokers / requests, 1) if known else None
        return {
            **others,
            "cpu_s": {name: round(seconds, 2) for name, seconds in spent.items()},
            "cpu_s_per_gb": round(sum(spent.values()) / gigabytes, 1) if known else None,
            "cpu_s_per_gb_brokers": round(brokers / gigabytes, 1) if known else None,
            "cpu_s_per_gb_client": round(spent["client"] / gigabytes, 1),
        }


HTTP_COLUMNS = [
    Column("acks", "ACKS"),
    Column("flush_policy", "FLUSH"),
    Column("connections", "CONNS", right=True),
    Column("request_records", "RECORDS/REQUEST", wide=True, right=True),
    Column("requests_per_second", "REQ/S", right=True),
    *(column for column in COLUMNS if column.key in ("p50_ms", "p99_ms", "p999_ms", "max_ms", "n")),
    Column("cpu_us_per_request", "US/REQ", right=True),
    *(column for column in COLUMNS if column.key in ("foreign_cpu", "range")),
    Column("refused", "REFUSED", wide=True, right=True),
    *(column for column in COLUMNS if column.key in ("record_bytes", "partitions", "replicas")),
]


def show_results(rows: Sequence[Mapping[str, Any]], output: Format, columns: Sequence[Column] = COLUMNS) -> None:
    show_rows(rows, columns, output)


def refuse_plot_without_matplotlib(path: Path | None) -> None:
    """Said before the benchmark runs, not after it."""
    if path is None:
        return
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise CliError("--plot needs matplotlib, which is not installed: pip install matplotlib", ExitCode.USAGE)


def plot_latencies(path: Path | None, series: Mapping[str, Sequence[float]], title: str) -> None:
    """Cumulative distributions, one line per name, as an image."""
    if path is None:
        return
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, values in series.items():
        ordered = sorted(values)
        axes.plot(ordered, [(index + 1) / len(ordered) for index in range(len(ordered))], label=name)
    axes.set(xlabel="ms", ylabel="share", title=title, xscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    note(f"plot in {path}")
