"""``minilog demo``: the main job, narrated. Replicate real events, kill a leader, prove that
nothing was lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from minilog.cli.demo.events import event_source
from minilog.cli.output import CliError, ExitCode, note


def demo(
    file: Annotated[
        Path | None, typer.Option("--file", "-l", help="Stream this NDJSON instead of the real flights.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to stream.", min=4, max=3600)] = 12.0,
    rate: Annotated[int, typer.Option("--rate", help="Records per second.", min=100, max=200_000)] = 10_000,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines, also on a terminal.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with data and logs.")] = False,
    secure: Annotated[bool, typer.Option("--secure", help="With TLS, tokens and a security file.")] = False,
) -> int:
    """Start a controller and three brokers, stream real events with acks=all, kill -9 the leader of
    the busiest partition, let it come back, read everything back and prove that nothing
    acknowledged was lost."""
    from minilog.cli.demo.report import failover_lines, proof_lines
    from minilog.cli.demo.story import Demo, Plan
    from minilog.cli.demo.view import DemoState, view_of
    from minilog.cli.local.temporary import temporary_cluster
    from minilog.cli.proof import compare_replicas

    source = event_source(file)
    plan = Plan("flights" if file is None else "events", rate, seconds / 3, seconds * 0.55, seconds)
    began_s = time.monotonic()
    print(f"minilog demo: {source.name}", flush=True)
    with temporary_cluster(3, keep=keep, prefix="minilog-demo-", secure=secure) as cluster:
        state = DemoState(began=began_s)
        state.say(f"controller and three brokers serve, data in {cluster.folder}")
        run = Demo(cluster, source, state, plan)
        with view_of(state, plain) as view:
            proof = asyncio.run(run.run(view))
            state.phase = "comparing the replicas on disk"
            view.update()
            unclean = [member.name for member, outcome, _ in cluster.stop_all() if outcome != "stopped"]
            compare_replicas(proof, [member.data_dir for member in cluster.brokers], plan.topic, run.ends)
            state.phase = "done"
    for line in ["", *failover_lines(run.failover), "", *proof_lines(proof)]:
        print(line)
    print(f"\n{'PROVEN' if proof.ok else 'NOT PROVEN'}, in {time.monotonic() - began_s:.1f} s", flush=True)
    if keep:
        note(f"data and logs are kept in {cluster.folder}")
    if unclean:
        raise CliError(f"{' and '.join(unclean)} had to be killed at the end instead of stopping when told to")
    return ExitCode.FINE if proof.ok else ExitCode.REFUSED
