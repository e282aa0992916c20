"""``minilog topic``: create, list, describe, delete; produce and consume records."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.cluster.partition import COLUMNS as PARTITION_COLUMNS
from minilog.cli.cluster.partition import partition_rows
from minilog.cli.output import (
    CliError,
    Column,
    ExitCode,
    Format,
    OutputOption,
    note,
    show_rows,
    show_value,
)
from minilog.cli.topic.alter import alter, config_of
from minilog.cli.topic.consume import consume
from minilog.cli.topic.produce import produce
from minilog.cli.topic.tail import tail
from minilog.errors import UnknownTopic
from minilog.wire.messages import MetadataReply

app = typer.Typer(no_args_is_help=True, help="Create, list, describe and delete topics; produce and consume records.")
app.command("produce")(produce)
app.command("consume")(consume)
app.command("tail")(tail)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Topic.")]
COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partitions", "PARTITIONS", right=True),
    Column("replication_factor", "REPLICAS", right=True),
    Column("under_replicated", "UNDER-REPLICATED", right=True),
    Column("offline", "OFFLINE", right=True),
    Column("config", "CONFIG"),
    Column("topic_id", "ID", wide=True),
]


@app.command()
def create(
    name: NameArgument,
    partitions: Annotated[int | None, typer.Option("--partitions", "-p", min=1, help="Default: the cluster's.")] = None,
    replicas: Annotated[int | None, typer.Option("--replicas", "-r", min=1, help="Default: the cluster's.")] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", help="key=value, for example min.insync.replicas=2.")
    ] = None,
    url: UrlOption = None,
) -> None:
    """Create a topic."""
    info = Api(url).create_topic(name, partitions or 0, replicas or 0, config_of(config or []))
    factor = len(info.partitions[0].replicas) if info.partitions else 0
    note(f"topic {info.topic} created: {len(info.partitions)} partitions, replication factor {factor}")


@app.command("list")
def list_(url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """All topics."""
    show_rows(
        topic_rows(Api(url).metadata()), COLUMNS, output, empty="no topics; `minilog topic create NAME` makes one"
    )


@app.command()
def describe(name: NameArgument, url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """One topic: its configuration, and leader, epochs, replicas and ISR of every partition."""
    metadata = Api(url).metadata([name])
    if not metadata.topics:
        raise UnknownTopic(f"there is no topic {name!r}; `minilog topic list` shows all")
    row = topic_rows(metadata)[0]
    parts = partition_rows(metadata)
    if output in (Format.json, Format.yaml):
        show_value({**row, "partitions": parts}, output)
        return
    show_rows([row], COLUMNS, output)
    print()
    show_rows(parts, [column for column in PARTITION_COLUMNS if column.key != "topic"], output)


@app.command("add-partitions")
def add_partitions(
    name: NameArgument,
    partitions: Annotated[int, typer.Option("--partitions", "-p", min=1, help="How many the topic is to have in all.")],
    url: UrlOption = None,
) -> None:
    """Give a topic more partitions. Records with a key may go to another partition from then on."""
    Api(url).add_partitions(name, partitions)
    note(f"topic {name} has {partitions} partitions")


app.command("alter")(alter)


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlOption = None,
) -> None:
    """Delete a topic and all its records."""
    if not yes:
        if not sys.stdin.isatty():
            raise CliError(f"deleting {name} destroys its records; say --yes", ExitCode.USAGE)
        typer.confirm(f"Delete topic {name} and all its records?", abort=True, err=True)
    Api(url).delete_topic(name)
    note(f"topic {name} deleted")


def topic_rows(metadata: MetadataReply) -> list[dict[str, Any]]:
    parts = partition_rows(metadata)
    rows = []
    for topic in sorted(metadata.topics, key=lambda topic: topic.topic):
        problems = [problem for part in parts if part["topic"] == topic.topic for problem in part["problems"]]
        rows.append(
            {
                "topic": topic.topic,
                "topic_id": topic.topic_id,
                "partitions": len(topic.partitions),
                "replication_factor": max((len(part.replicas) for part in topic.partitions), default=0),
                "under_replicated": problems.count("under-replicated"),
                "offline": problems.count("offline"),
                "config": topic.config,
            }
        )
    return rows
