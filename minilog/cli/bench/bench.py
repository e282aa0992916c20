"""``minilog bench``: throughput, latency and failover, measured on a cluster of its own or on one
that runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minilog.cli.api import Api, resolve_url
from minilog.cli.bench.report import (
    CpuMeter,
    latency_figures,
    plot_latencies,
    refuse_plot_without_matplotlib,
    show_results,
    throughput_figures,
)
from minilog.cli.local.cluster import DevCluster
from minilog.cli.local.temporary import temporary_cluster
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_value
from minilog.cli.progress import progress_bar

if TYPE_CHECKING:
    from minilog.cli.bench.load import Load, Measured

app = typer.Typer(
    no_args_is_help=True, help="Throughput, latency and failover, measured on a cluster of its own or on one that runs."
)

UrlOption = Annotated[str | None, typer.Option("--url", "-u", help="A running cluster; default: a temporary one.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="A running dev cluster, by its folder.")]
RecordBytes = Annotated[int, typer.Option("--record-bytes", min=16, max=1_000_000)]
Records = Annotated[int, typer.Option("--records", min=0, help="How many; 0: as many as fit into --seconds.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1)]
Acks = Annotated[str, typer.Option("--acks", help="all, 0, 1, or N copies; several with commas are run in turn.")]
Policy = Annotated[str, typer.Option("--flush-policy", help="commit, interval or never; several with commas.")]
Partitions = Annotated[int, typer.Option("--partitions", "-p", min=1)]
Replicas = Annotated[int, typer.Option("--replicas", "-r", min=1)]
Compression = Annotated[str, typer.Option("--compression", help="none, gzip, snappy, lz4 or zstd.")]
BatchBytes = Annotated[int, typer.Option("--batch-bytes", min=1024)]
LingerMs = Annotated[int, typer.Option("--linger-ms", min=0)]
Plot = Annotated[Path | None, typer.Option("--plot", help="Write a PNG of the distributions (needs matplotlib).")]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value for the temporary cluster.")]

FAILOVER_COLUMNS = [
    Column("run", "RUN", right=True),
    Column("broker", "BROKER", right=True),
    Column("partitions", "PARTITIONS", right=True),
    Column("unavailable_ms", "UNAVAILABLE MS", right=True),
    Column("kind", "SEEN BY"),
    Column("detected_ms", "DETECTED", right=True),
    Column("elected_ms", "ELECTED", right=True),
    Column("published_ms", "PUBLISHED", right=True),
    Column("rejoined_ms", "REJOINED", right=True),
]


@dataclass(frozen=True)
class Target:
    """``cluster`` is there when the processes run on this machine and are known."""

    url: str
    cluster: DevCluster | None
    own: bool


@app.command()
def produce(
    record_bytes: RecordBytes = 1024,
    records: Records = 0,
    seconds: Seconds = 8.0,
    acks: Acks = "all",
    partitions: Partitions = 6,
    replicas: Replicas = 3,
    flush_policy: Policy = "commit",
    compression: Compression = "none",
    batch_bytes: BatchBytes = 256 * 1024,
    linger_ms: LingerMs = 5,
    url: UrlOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> None:
    """How fast one producer process can write."""
    from minilog.cli.bench.load import Load
    from minilog.cli.bench.load import produce as load_produce

    load = Load(
        "", record_bytes, records, seconds, compression=compression, batch_bytes=batch_bytes, linger_ms=linger_ms
    )
    _matrix("produce", load_produce, load, acks, flush_policy, partitions, replicas, url, data, set_, output, plot)


@app.command()
def consume(
    record_bytes: RecordBytes = 1024,
    records: Records = 300_000,
    partitions: Partitions = 6,
    replicas: Replicas = 3,
    flush_policy: Policy = "commit",
    compression: Compression = "none",
    batch_bytes: BatchBytes = 256 * 1024,
    url: UrlOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> None:
    """How fast one consumer process can read and decode what was written before."""
    from minilog.cli.bench.load import Load
    from minilog.cli.bench.load import consume as load_consume

    load = Load("", record_bytes, max(1, records), compression=compression, batch_bytes=batch_bytes)
    _matrix("consume", load_consume, load, "all", flush_policy, partitions, replicas, url, data, set_, output, plot)


@app.command()
def latency(
    record_bytes: RecordBytes = 1024,
    records: Records = 0,
    seconds: Seconds = 8.0,
    rate: Annotated[int, typer.Option("--rate", min=1, help="Records per second.")] = 1000,
    acks: Acks = "all",
    partitions: Partitions = 6,
    replicas: Replicas = 3,
    flush_policy: Policy = "commit",
    linger_ms: LingerMs = 0,
    url: UrlOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> None:
    """From send to receipt by a consumer, at a steady rate; JSON also has the time until
    acknowledged."""
    from minilog.cli.bench.load import Load
    from minilog.cli.bench.load import latency as load_latency

    load = Load("", record_bytes, records, seconds, rate=rate, linger_ms=linger_ms)
    _matrix("latency", load_latency, load, acks, flush_policy, partitions, replicas, url, data, set_, output, plot)


@app.command()
def failover(
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000)] = 20,
    record_bytes: RecordBytes = 1024,
    rate: Annotated[int, typer.Option("--rate", min=10, help="Records per second.")] = 2000,
    partitions: Partitions = 6,
    flush_policy: Policy = "commit",
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> int:
    """kill -9 of a leader under load, again and again, on a cluster of its own; unavailability as
    the client sees it."""
    from minilog.cli.bench.failover import FailoverBench, rows

    refuse_plot_without_matplotlib(plot)
    with temporary_cluster(3, set_ or ()) as cluster:
        config = {"min.insync.replicas": "2", "flush.policy": flush_policy}
        topic = Api(cluster.url).create_topic("bench-failover", partitions, 3, config).topic
        bench = FailoverBench(cluster, topic, record_bytes, rate)
        with progress_bar("failover", runs, "runs") as advance:
            results, proof = asyncio.run(bench.measure(runs, lambda result: advance(result.run)))
    unavailable = [result.unavailable_ms for result in results]
    summary = {
        "runs": runs,
        **{f"unavailable_{name}": value for name, value in latency_figures(unavailable).items()},
        "sent": proof.sent,
        "acknowledged": proof.acknowledged,
        "read": proof.read,
        "lost": proof.lost + proof.misplaced + proof.changed,
        "out_of_order": proof.out_of_order,
        "duplicates": proof.duplicates,
    }
    if output in (Format.json, Format.yaml):
        show_value({**summary, "failovers": rows(results)}, output)
    else:
        show_results(rows(results), output, FAILOVER_COLUMNS)
        print()
        show_value(summary, Format.table)
    plot_latencies(plot, {"unavailable": unavailable}, f"kill -9 of a leader, {runs} runs")
    return ExitCode.FINE if summary["lost"] == 0 else ExitCode.REFUSED


@app.command("client")
def bench_client(
    runs: Annotated[int, typer.Option("--runs", min=1, help="How many; the median is shown.")] = 5,
    output: OutputOption = Format.table,
) -> None:
    """What the Python client itself costs, in microseconds a record; beside confluent-kafka-python
    if that is there."""
    from minilog.cli.bench.client_cost import bench_client as run_client

    run_client(runs, output)


def _matrix(
    bench: str,
    run: Callable[..., Coroutine[Any, Any, Measured]],
    load: Load,
    acks: str,
    flush_policy: str,
    partitions: int,
    replicas: int,
    url: str | None,
    data: Path | None,
    set_: list[str] | None,
    output: Format,
    plot: Path | None,
) -> None:
    """Run the benchmark for every combination of acks and flush policy, and show a row for each."""
    refuse_plot_without_matplotlib(plot)
    combinations = [(a, policy) for policy in _words(flush_policy) for a in _acks_words(acks)]
    results: list[dict[str, Any]] = []
    series: dict[str, list[float]] = {}
    with _target(url, data, set_ or []) as target:
        for each, policy in combinations:
            with _topic(target, partitions, replicas, policy) as topic:
                measured, figures = _one(bench, run, replace(load, topic=topic, acks=each), target)
            row = {
                "bench": bench,
                "acks": each,
                "flush_policy": policy,
                "record_bytes": load.record_bytes,
                "partitions": partitions,
                "replicas": replicas,
                "batch_bytes": load.batch_bytes,
                **figures,
            }
            results.append(row)
            series[f"acks={each} {policy}"] = measured.latencies_ms
    show_results(results, output)
    plot_latencies(plot, series, f"minilog bench {bench}")


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
        measured = asyncio.run(run(target.url, load, advance))
        cpu = meter.figures(measured.bytes_total)
    return measured, {
        **throughput_figures(measured.records, measured.bytes_total, measured.seconds),
        **latency_figures(measured.latencies_ms),
        **{
            f"{name}_{key}": value
            for name, each in measured.series.items()
            for key, value in latency_figures(each).items()
        },
        **cpu,
        "measured": measured.measured,
    }


@contextlib.contextmanager
def _target(url: str | None, data: Path | None, overrides: list[str]) -> Iterator[Target]:
    if url is not None or data is not None:
        if overrides:
            raise CliError("--set is for the temporary cluster, not with --url or --data", ExitCode.USAGE)
        cluster = DevCluster.open(data) if data is not None else None
        yield Target(cluster.url if cluster is not None else resolve_url(url), cluster, own=False)
        return
    note("starting a temporary cluster of 3 brokers")
    with temporary_cluster(3, overrides) as cluster:
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


def _acks_words(text: str) -> list[str]:
    words = _words(text)
    for word in words:
        if word != "all" and not word.isdecimal():
            raise CliError(f"--acks {word!r}: allowed are all, 0, 1, or how many copies", ExitCode.USAGE)
    if not words:
        raise CliError("--acks is empty; allowed are all, 0, 1, or how many copies", ExitCode.USAGE)
    return words
