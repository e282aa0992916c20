"""``minilog cluster what-if`` and ``ok-to-stop``: what would be if brokers were away.

Judged by the metadata of now: nothing is asked of the brokers, and nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.output import CliError, Column, ExitCode, Format, OutputOption, note, show_rows
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import MetadataReply, PartitionInfo

COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("leader", "LEADER", right=True),
    Column("isr", "ISR"),
    Column("isr_left", "LEFT"),
    Column("min_insync_replicas", "MIN ISR", right=True),
    Column("state", "WOULD BE"),
]
STOPS = ("offline", "under-min-isr")
"""What speaks against stopping."""
BrokerOption = Annotated[
    list[str], typer.Option("--broker", "-b", help="The brokers that would be away: 2 or 1,2.", show_default=False)
]


def what_if(broker: BrokerOption, url: UrlOption = None, output: OutputOption = Format.table) -> None:
    """What becomes of partitions if these brokers are away: which are offline, which refuse
    acks=all, which have one complete copy left, which get another leader."""
    rows = consequences(Api(url).metadata(), broker_ids(broker))
    show_rows(rows, COLUMNS, output, empty="nothing would change: these brokers lead nothing and are in no ISR")


def ok_to_stop(broker: BrokerOption, url: UrlOption = None, output: OutputOption = Format.table) -> int:
    """Whether these brokers may be stopped together, for scripts.

    Exit code 0 when every partition can be read, and written to with acks=all, without them. Exit
    code 1 when not: then these partitions are shown.
    """
    rows = [row for row in consequences(Api(url).metadata(), broker_ids(broker)) if row["state"] in STOPS]
    if rows or output in (Format.json, Format.yaml):
        show_rows(rows, COLUMNS, output)
    if rows:
        note(f"not ok: {len(rows)} partitions could not be used as now; wait until more replicas are in sync")
        return ExitCode.REFUSED
    note("ok: every partition can be read and written to without them")
    return ExitCode.FINE


def broker_ids(named: Collection[str]) -> list[int]:
    """Of ``1,2`` and of several options. Raises CliError."""
    words = [word.strip() for one in named for word in one.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong:
        raise CliError(f"--broker {wrong[0]!r} is no broker id; write --broker 2 or --broker 1,2", ExitCode.USAGE)
    return sorted({int(word) for word in words})


def consequences(metadata: MetadataReply, brokers: Collection[int]) -> list[dict[str, Any]]:
    """A row for each partition that is not as before without ``brokers``, the worst first. Raises
    CliError for a broker that nobody knows."""
    known = {broker.broker_id for broker in metadata.brokers}
    unknown = sorted(set(brokers) - known)
    if unknown:
        raise CliError(f"there is no broker {unknown[0]}; known are {', '.join(map(str, sorted(known)))}")
    rows = []
    for topic in metadata.topics:
        demanded = int(topic.config.get("min.insync.replicas", "1"))
        for part in topic.partitions:
            minimum = min(demanded, len(part.replicas))
            state = _state(part, brokers, minimum)
            if state:
                rows.append(_row(topic.topic, part, brokers, minimum, state))
    order = (*STOPS, "one-copy", "moves")
    return sorted(rows, key=lambda row: (order.index(row["state"]), row["topic"], row["partition"]))


def _state(part: PartitionInfo, brokers: Collection[int], minimum: int) -> str:
    """ "" when nothing is worse than now."""
    if not {*part.isr, *part.elr} & {*brokers}:
        return ""
    left = [replica for replica in part.isr if replica not in brokers]
    if not left:
        return "offline"
    if len(left) < minimum:
        return "under-min-isr"
    if len(left) == 1 and len(part.isr) > 1:
        return "one-copy"
    return "moves" if part.leader in brokers else ""


def _row(topic: str, part: PartitionInfo, brokers: Collection[int], minimum: int, state: str) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": part.partition,
        "leader": None if part.leader == NO_LEADER else part.leader,
        "isr": part.isr,
        "isr_left": [replica for replica in part.isr if replica not in brokers],
        "min_insync_replicas": minimum,
        "state": state,
    }
