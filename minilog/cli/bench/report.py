"""Figures of a benchmark: percentiles, CPU time, a table, JSON, a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilog import machine
from minilog.cli.local.cluster import DevCluster
from minilog.cli.output import CliError, Column, ExitCode, Format, note, show_rows

MB = 1_000_000
GB = 1_000_000_000

COLUMNS = [
    Column("bench", "BENCH"),
    Column("acks", "ACKS"),
    Column("flush_policy", "FLUSH"),
    Column("record_bytes", "BYTES", right=True),
    Column("records", "RECORDS", right=True),
    Column("seconds", "S", right=True),
    Column("mb_per_second", "MB/S", right=True),
    Column("records_per_second", "RECORDS/S", right=True),
    Column("p50_ms", "P50 MS", right=True),
    Column("p99_ms", "P99 MS", right=True),
    Column("max_ms", "MAX MS", right=True),
    Column("cpu_s_per_gb", "CPU S/GB", right=True),
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


def latency_figures(latencies_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies_ms)
    return {
        "p50_ms": round(percentile(ordered, 0.50), 3),
        "p99_ms": round(percentile(ordered, 0.99), 3),
        "max_ms": round(ordered[-1], 3) if ordered else 0.0,
    }


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
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        spent = {"client": sum(os.times()[:2])}
        for name, pid in self._pids.items():
            seconds = machine.cpu_seconds(pid) if pid is not None else None
            if seconds is not None:
                spent[name] = seconds
        return spent

    def figures(self, bytes_total: int) -> dict[str, Any]:
        now = self._now()
        spent = {name: now[name] - before for name, before in self._before.items() if name in now}
        gigabytes = max(bytes_total, 1) / GB
        brokers = sum(seconds for name, seconds in spent.items() if name.startswith("broker"))
        known = bool(self._pids)
        return {
            "cpu_s": {name: round(seconds, 2) for name, seconds in spent.items()},
            "cpu_s_per_gb": round(sum(spent.values()) / gigabytes, 1) if known else None,
            "cpu_s_per_gb_brokers": round(brokers / gigabytes, 1) if known else None,
            "cpu_s_per_gb_client": round(spent["client"] / gigabytes, 1),
        }


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
