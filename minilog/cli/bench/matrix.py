"""Runs of a benchmark: every load with every flush policy, again and again, a row for each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilog.cli.access import adopted
from minilog.cli.api import Api, resolve_url
from minilog.cli.bench.report import (
    COLUMNS,
    HTTP_COLUMNS,
    CpuMeter,
    latency_figures,
    of_runs,
    plot_latencies,
    refuse_plot_without_matplotlib,
    show_results,
    throughput_figures,
)
from minilog.cli.bench.surroundings import header, surroundings
from minilog.cli.local.cluster import DevCluster
from minilog.cli.local.temporary import temporary_cluster
from minilog.cli.output import CliError, ExitCode, Format, note
from minilog.cli.progress import progress_bar

if TYPE_CHECKING:
    from minilog.cli.bench.load import Load, Measured

RATE_MISSED = 0.98
"""Below so much of the rate that was asked for, it is said."""
RANGED = {"latency": "p50_ms", "http": "requests_per_second"}
"""Of which figure the table shows the range; else of MB/s."""


@dataclass(frozen=True)
class Target:
    """``cluster`` is there when the processes run on this machine and are known."""

    url: str
    cluster: DevCluster | None
    own: bool


def matrix(
    bench: str,
    run: Callable[..., Coroutine[Any, Any, Measured]],
    loads: Sequence[Load],
    flush_policy: str,
    partitions: int,
    replicas: int,
    url: str | None,
    data: Path | None,
    set_: list[str] | None,
    output: Format,
    plot: Path | None,
    runs: int,
    *,
    secure: bool = False,
) -> None:
    """Run every load with every flush policy, and show a row for each. Each of several runs goes
    through all of them, every other one backwards, so that what else the machine does meets all."""
    refuse_plot_without_matplotlib(plot)
    combinations = [(load, policy) for policy in _words(flush_policy) for load in loads]
    found = surroundings()
    note(header(found))
    note(_shape(bench, loads[0], partitions, replicas))
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(combinations))}
    series: dict[str, list[float]] = {}
    with _target(url, data, set_ or [], secure) as target:
        for round_ in range(runs):
            for number in sorted(rows, reverse=round_ % 2 == 1):
                load, policy = combinations[number]
                with _topic(target, partitions, replicas, policy) as topic:
                    measured, figures = _one(bench, run, replace(load, topic=topic), target)
                rows[number].append(_described(bench, load, policy, partitions, replicas) | figures)
                series.setdefault(_name(bench, load, policy), []).extend(measured.latencies_ms)
    ranged = RANGED.get(bench, "mb_per_second")
    results = [of_runs(each, ranged) | {"surroundings": found} for each in rows.values()]
    show_results(results, output, HTTP_COLUMNS if bench == "http" else COLUMNS)
    for result in results:
        _say_missed_rate(result)
    plot_latencies(plot, series, f"minilog bench {bench}")


def _shape(bench: str, load: Load, partitions: int, replicas: int) -> str:
    """What a table needs beside itself to be measured again."""
    if bench == "http":
        sent = f"{load.request_records} JSON records of {load.record_bytes} bytes a request"
    else:
        sent = f"records of {load.record_bytes} bytes, batches of {load.batch_bytes}, linger {load.linger_ms} ms"
    return f"{sent}, {partitions} partitions, {replicas} replicas, warm-up {load.warm_up_s} s"


def _described(bench: str, load: Load, policy: str, partitions: int, replicas: int) -> dict[str, Any]:
    of_http = {"connections": load.connections, "request_records": load.request_records} if bench == "http" else {}
    return {
        "bench": bench,
        "acks": load.acks,
        "flush_policy": policy,
        "record_bytes": load.record_bytes,
        "partitions": partitions,
        "replicas": replicas,
        "batch_bytes": load.batch_bytes,
        "linger_ms": load.linger_ms,
        "warm_up_s": load.warm_up_s,
        **of_http,
    }


def _name(bench: str, load: Load, policy: str) -> str:
    return f"acks={load.acks} {policy}" + (f" {load.connections} connections" if bench == "http" else "")


def _say_missed_rate(result: dict[str, Any]) -> None:
    asked, sent = result.get("rate"), result.get("rate_sent")
    if asked and sent and sent < RATE_MISSED * asked:
        note(
            f"acks={result['acks']} {result['flush_policy']}: {sent:,.0f} records/s were sent, not the {asked:,} asked for; "
            "this machine or the cluster does not keep up"
        )


def _one(
    bench: str, run: Callable[..., Coroutine[Any, Any, Measured]], load: Load, target: Target
) -> tuple[Measured, dict[str, Any]]:
    if bench == "consume":
        from minilog.cli.bench.load import produce as fill

        with progress_bar("writing what is to be read", load.records, "records") as advance:
            asyncio.run(fill(target.url, load, advance))
    total = load.records or (int(load.rate * load.seconds) if bench == "latency" else None)
    with progress_bar(f"{bench} acks={load.acks}", total, "records") as advance:
        meter = CpuMeter(target.cluster)
        measured = asyncio.run(run(target.url, load, advance, meter.begin))
        cpu = meter.figures(measured.bytes_total, measured.requests)
    of_http: dict[str, Any] = {}
    if bench == "http":
        per_second = round(measured.requests / measured.seconds, 1) if measured.seconds else 0.0
        of_http = {"requests": measured.requests, "requests_per_second": per_second, "refused": measured.refused}
    rate = {} if measured.rate is None else {"rate": load.rate, "rate_sent": round(measured.rate, 1)}
    return measured, {
        **throughput_figures(measured.records, measured.bytes_total, measured.seconds),
        **latency_figures(measured.latencies_ms),
        **{
            f"{name}_{key}": value
            for name, each in measured.series.items()
            for key, value in latency_figures(each).items()
        },
        **of_http,
        **rate,
        **cpu,
        "measured": measured.measured,
    }


@contextlib.contextmanager
def _target(url: str | None, data: Path | None, overrides: list[str], secure: bool) -> Iterator[Target]:
    if url is not None or data is not None:
        if overrides or secure:
            raise CliError("--set and --secure are for the temporary cluster, not with --url or --data", ExitCode.USAGE)
        cluster = DevCluster.open(data) if data is not None else None
        with adopted(cluster.keyring.environment if cluster is not None and cluster.keyring is not None else {}):
            yield Target(cluster.url if cluster is not None else resolve_url(url), cluster, own=False)
        return
    note("starting a temporary cluster of 3 brokers")
    with temporary_cluster(3, overrides, secure=secure) as cluster:
        yield Target(cluster.url, cluster, own=True)


@contextlib.contextmanager
def _topic(target: Target, partitions: int, replicas: int, flush_policy: str) -> Iterator[str]:
    api = Api(target.url)
    name = f"bench-{int(time.time() * 1000)}"
    config = {"flush.policy": flush_policy}
    if replicas > 1:
        config["min.insync.replicas"] = "2"
    api.create_topic(name, partitions, replicas, config)
    try:
        yield name
    finally:
        api.delete_topic(name)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def loads(load: Load, acks: str) -> list[Load]:
    return [replace(load, acks=each) for each in _acks_words(acks)]


def counts(text: str) -> list[int]:
    words = _words(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise CliError(f"--connections {text!r}: allowed are whole numbers from 1 on, with commas", ExitCode.USAGE)
    return [int(word) for word in words]


def _acks_words(text: str) -> list[str]:
    words = _words(text)
    for word in words:
        if word != "all" and not word.isdecimal():
            raise CliError(f"--acks {word!r}: allowed are all, 0, 1, or how many copies", ExitCode.USAGE)
    if not words:
        raise CliError("--acks is empty; allowed are all, 0, 1, or how many copies", ExitCode.USAGE)
    return words
