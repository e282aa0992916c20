"""``minilog bench``: throughput, latency and failover, measured on a cluster of its own or on one
that runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from minilog.cli.api import Api
from minilog.cli.bench.matrix import counts, loads, matrix
from minilog.cli.bench.report import (
    latency_figures,
    plot_latencies,
    refuse_plot_without_matplotlib,
    show_results,
)
from minilog.cli.local.temporary import temporary_cluster
from minilog.cli.output import Column, ExitCode, Format, OutputOption, show_value
from minilog.cli.progress import progress_bar

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
Runs = Annotated[
    int, typer.Option("--runs", min=1, max=1000, help="How often, combinations in turn; medians and ranges are shown.")
]
WarmUp = Annotated[
    float, typer.Option("--warm-up", min=0.0, help="Seconds of the same load before, which are not measured.")
]
LingerMs = Annotated[int, typer.Option("--linger-ms", min=0)]
Secure = Annotated[bool, typer.Option("--secure", help="The temporary cluster speaks TLS and asks for tokens.")]
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
    runs: Runs = 1,
    warm_up: WarmUp = 1.0,
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
        "",
        record_bytes,
        records,
        seconds,
        compression=compression,
        batch_bytes=batch_bytes,
        linger_ms=linger_ms,
        warm_up_s=warm_up,
    )
    matrix(
        "produce",
        load_produce,
        loads(load, acks),
        flush_policy,
        partitions,
        replicas,
        url,
        data,
        set_,
        output,
        plot,
        runs,
    )


@app.command()
def consume(
    record_bytes: RecordBytes = 1024,
    records: Records = 300_000,
    partitions: Partitions = 6,
    replicas: Replicas = 3,
    flush_policy: Policy = "commit",
    compression: Compression = "none",
    batch_bytes: BatchBytes = 256 * 1024,
    runs: Runs = 1,
    url: UrlOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> None:
    """How fast one consumer process can read and decode what was written just before, which is in
    the page cache."""
    from minilog.cli.bench.load import Load
    from minilog.cli.bench.load import consume as load_consume

    load = Load("", record_bytes, max(1, records), compression=compression, batch_bytes=batch_bytes)
    matrix(
        "consume",
        load_consume,
        loads(load, "all"),
        flush_policy,
        partitions,
        replicas,
        url,
        data,
        set_,
        output,
        plot,
        runs,
    )


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
    runs: Runs = 1,
    warm_up: WarmUp = 1.0,
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

    load = Load("", record_bytes, records, seconds, rate=rate, linger_ms=linger_ms, warm_up_s=warm_up)
    matrix(
        "latency",
        load_latency,
        loads(load, acks),
        flush_policy,
        partitions,
        replicas,
        url,
        data,
        set_,
        output,
        plot,
        runs,
    )


@app.command()
def http(
    record_bytes: RecordBytes = 100,
    request_records: Annotated[int, typer.Option("--request-records", min=1, help="JSON records a request.")] = 1,
    connections: Annotated[str, typer.Option("--connections", help="Several with commas are run in turn.")] = "1,16,64",
    secure: Secure = False,
    records: Records = 0,
    seconds: Seconds = 5.0,
    acks: Acks = "all",
    partitions: Partitions = 1,
    replicas: Replicas = 3,
    flush_policy: Policy = "commit",
    runs: Runs = 1,
    warm_up: WarmUp = 1.0,
    url: UrlOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> None:
    """JSON over plain HTTP, each request answered before the next: what a web backend or a script
    does."""
    from minilog.cli.bench.http_load import requests
    from minilog.cli.bench.load import Load

    load = Load("", record_bytes, records, seconds, request_records=request_records, warm_up_s=warm_up)
    combined = [replace(each, connections=count) for count in counts(connections) for each in loads(load, acks)]
    matrix(
        "http",
        requests,
        combined,
        flush_policy,
        partitions,
        replicas,
        url,
        data,
        set_,
        output,
        plot,
        runs,
        secure=secure,
    )


@app.command()
def failover(
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000)] = 20,
    record_bytes: RecordBytes = 1024,
    rate: Annotated[int, typer.Option("--rate", min=10, help="Records per second.")] = 2000,
    partitions: Partitions = 6,
    flush_policy: Policy = "commit",
    secure: Secure = False,
    set_: SetOption = None,
    output: OutputOption = Format.table,
    plot: Plot = None,
) -> int:
    """kill -9 of a leader under load, again and again, on a cluster of its own; unavailability as
    the client sees it."""
    from minilog.cli.bench.failover import FailoverBench, rows

    refuse_plot_without_matplotlib(plot)
    with temporary_cluster(3, set_ or (), secure=secure) as cluster:
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
