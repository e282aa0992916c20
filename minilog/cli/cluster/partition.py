"""``minilog partition``: who leads, who follows, who is in sync, and a leader where none is
left."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.cluster.election import elect
from minilog.cli.moves.partition_moves import move, moves
from minilog.cli.output import Column, Format, OutputOption, show_rows
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import MetadataReply

app = typer.Typer(no_args_is_help=True, help="Who leads, who follows, who is in sync.")

COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("leader", "LEADER", right=True),
    Column("leader_epoch", "EPOCH", right=True),
    Column("replicas", "REPLICAS"),
    Column("isr", "ISR"),
    Column("elr", "ELR", wide=True),
    Column("partition_epoch", "PARTITION EPOCH", wide=True, right=True),
    Column("state", "STATE"),
]


@app.callback()
def root() -> None:
    pass


@app.command("list")
def list_(
    topic: Annotated[list[str] | None, typer.Argument(help="Only these topics.")] = None,
    under_replicated: Annotated[bool, typer.Option("--under-replicated", help="ISR smaller than replicas.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="No leader.")] = False,
    under_min_isr: Annotated[bool, typer.Option("--under-min-isr", help="acks=all is refused.")] = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> None:
    """Partitions with leader, epochs, replicas and ISR."""
    rows = partition_rows(Api(url).metadata(topic or None))
    wanted = [name for name, on in (("under-replicated", under_replicated), ("offline", offline)) if on]
    if under_min_isr:
        wanted.append("under-min-isr")
    if wanted:
        rows = [row for row in rows if set(wanted) & set(row["problems"])]
    show_rows(rows, COLUMNS, output, empty=f"no {' or '.join(wanted)} partitions" if wanted else "no partitions")


app.command("elect")(elect)
app.command("move")(move)
app.command("moves")(moves)


def partition_rows(metadata: MetadataReply) -> list[dict[str, Any]]:
    rows = []
    for topic in sorted(metadata.topics, key=lambda topic: topic.topic):
        min_isr = int(topic.config.get("min.insync.replicas", "1"))
        for part in sorted(topic.partitions, key=lambda part: part.partition):
            problems = []
            if part.leader == NO_LEADER:
                problems.append("offline")
            if len(part.isr) < min_isr:
                problems.append("under-min-isr")
            if {*part.replicas} - {*part.adding} - {*part.isr}:
                problems.append("under-replicated")
            rows.append(
                {
                    "topic": topic.topic,
                    "partition": part.partition,
                    "leader": None if part.leader == NO_LEADER else part.leader,
                    "leader_epoch": part.leader_epoch,
                    "partition_epoch": part.partition_epoch,
                    "replicas": part.replicas,
                    "isr": part.isr,
                    "elr": part.elr,
                    "min_insync_replicas": min_isr,
                    "problems": problems,
                    "state": problems[0] if problems else "ok",
                }
            )
    return rows
