"""Groups as rows: for programs with numbers as they are, for people with times in words and
partitions in spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from minilog.cli.group.api import GroupApi, ask_each
from minilog.cli.output import Column, Format, note, show_rows, show_value
from minilog.errors import UnknownGroup
from minilog.wire.group_messages import GROUPS_TOPIC, GroupInfo, GroupMember, TopicPartitions
from minilog.wire.json.json_answers import GroupDescription
from minilog.wire.json.lag_answers import LagOfGroup, PartitionLag

if TYPE_CHECKING:
    from minilog_client.values import PartitionKey

GROUP_COLUMNS = [
    Column("group", "GROUP"),
    Column("state", "STATE"),
    Column("members", "MEMBERS", right=True),
    Column("group_epoch", "EPOCH", right=True),
    Column("lag", "LAG", right=True),
    Column("lag_seconds", "BEHIND", right=True),
    Column("assignor", "ASSIGNOR", wide=True),
]
MEMBER_COLUMNS = [
    Column("member_id", "MEMBER"),
    Column("client_id", "CLIENT"),
    Column("instance_id", "INSTANCE"),
    Column("heartbeat_age_ms", "HEARTBEAT", right=True),
    Column("owned", "OWNS"),
    Column("assignment", "IS TO OWN", wide=True),
    Column("member_epoch", "EPOCH", wide=True, right=True),
]
PARTITION_COLUMNS = [
    Column("topic", "TOPIC"),
    Column("partition", "PARTITION", right=True),
    Column("committed", "COMMITTED", right=True),
    Column("high_watermark", "END", right=True),
    Column("lag", "LAG", right=True),
    Column("lag_seconds", "BEHIND", right=True),
    Column("lost", "LOST", right=True),
    Column("owner", "OWNER"),
]


def duration(seconds: float | None) -> str | None:
    """``3.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``: the two largest units; None stays
    None."""
    if seconds is None:
        return None
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s" if seconds else "0 s"
    whole_s = round(seconds)
    for unit, unit_s, lesser, lesser_s in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole_s >= unit_s:
            count, rest_s = divmod(whole_s, unit_s)
            return f"{count} {unit} {rest_s // lesser_s} {lesser}" if rest_s >= lesser_s else f"{count} {unit}"
    raise AssertionError(f"{seconds} is at least a minute")


def spans(partitions: Sequence[TopicPartitions]) -> str:
    """``orders:0-2,5 clicks:1``. The way ``group seek --topic`` takes them."""
    return " ".join(f"{entry.topic}:{_numbers(entry.partitions)}" for entry in partitions if entry.partitions)


def _numbers(partitions: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(partitions):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in runs)


# --- all groups -----------------------------------------------------------------------------------


def show_groups(api: GroupApi, output: Format) -> bool:
    """Whether these are all: what is missing is told on stderr."""
    found = api.groups()
    rows = ask_each(lambda info: _group_row(info, _lag_of(api, info.group)), found.groups)
    if output in (Format.table, Format.wide):
        rows = [_in_words(row) for row in rows]
    show_rows(rows, GROUP_COLUMNS, output, empty="no groups; `minilog topic consume TOPIC --group NAME` makes one")
    for entry in found.missing:
        note(f"the groups of {GROUPS_TOPIC}-{entry.partition} are missing: {entry.detail}")
    return not found.missing


def _lag_of(api: GroupApi, group: str) -> LagOfGroup:
    try:
        return api.lag(group)
    except UnknownGroup:  # deleted since it was listed
        return LagOfGroup(group, None, None, [])


def _group_row(info: GroupInfo, lag: LagOfGroup) -> dict[str, Any]:
    return {**_fields(info), "lag": lag.lag, "lag_seconds": lag.lag_seconds, "lost": lag.lost}


# --- one group ------------------------------------------------------------------------------------


def show_group(api: GroupApi, group: str, output: Format) -> None:
    """Raises UnknownGroup."""
    found = api.describe(group)
    lag = with_uncommitted(api, found, api.lag(group))
    members, partitions = [_fields(member) for member in found.members], partition_rows(lag, found.members)
    if output in (Format.json, Format.yaml):
        about = {name: getattr(found, name) for name in ("coordinator", "rebalances", "last_rebalance_ms")}
        show_value({**_group_row(found.group, lag), **about, "members": members, "partitions": partitions}, output)
        return
    print("\n".join(summary(found, lag)))
    if found.members:
        print()
        show_rows([_member_in_words(member) for member in found.members], MEMBER_COLUMNS, output)
    if partitions:
        print()
        columns = [column for column in PARTITION_COLUMNS if column.key != "lost" or lag.lost]
        show_rows([_in_words(row) for row in partitions], columns, output)


def summary(found: GroupDescription, lag: LagOfGroup) -> list[str]:
    info = found.group
    members = "1 member" if info.members == 1 else f"{info.members or 'no'} members"
    assignor = f", assignor {info.assignor}" if info.assignor else ""
    head = f"group {info.group}: {info.state}, {members}, epoch {info.group_epoch}{assignor}"
    rebalances = f"broker {found.coordinator} coordinates it; "
    if found.last_rebalance_ms is None:
        rebalances += "no rebalance since it took over"
    else:
        times = "1 rebalance" if found.rebalances == 1 else f"{found.rebalances} rebalances"
        rebalances += f"{times} since it took over, the last one took {found.last_rebalance_ms:,} ms"
    return [head, rebalances, *_lag_in_words(lag)]


def _lag_in_words(lag: LagOfGroup) -> list[str]:
    if not lag.partitions:
        return ["nothing committed yet"]
    lost = [f"lost {_records(lag.lost)}: retention took them before the group has read them"] if lag.lost else []
    if lag.lag is None or lag.lag_seconds is None:
        return [f"lag unknown: {_why_unknown(lag)}", *lost]
    return [f"lag {_records(lag.lag)}, {duration(lag.lag_seconds)} behind", *lost]


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _why_unknown(lag: LagOfGroup) -> str:
    count = sum(row.lag is None and row.committed is None for row in lag.partitions)
    if count == 0:
        return "not every leader answers"
    return f"nothing is committed of {count} partition{'' if count == 1 else 's'} that members have"


def with_uncommitted(api: GroupApi, found: GroupDescription, lag: LagOfGroup) -> LagOfGroup:
    """Also the partitions that a member owns and the group has committed nothing of."""
    known = {(row.topic, row.partition) for row in lag.partitions}
    owned = sorted({key for member in found.members for key in _keys(member.owned)} - known)
    ends = ask_each(lambda key: api.end_offset(*key), owned)
    more = [PartitionLag(*key, None, end, None, None) for key, end in zip(owned, ends, strict=True)]
    rows = sorted([*lag.partitions, *more], key=lambda row: (row.topic, row.partition))
    return LagOfGroup(lag.group, lag.lag, lag.lag_seconds, rows, lag.lost)


def partition_rows(lag: LagOfGroup, members: Sequence[GroupMember]) -> list[dict[str, Any]]:
    owners = {key: member.member_id for member in members for key in _keys(member.owned)}
    return [{**_fields(row), "owner": owners.get((row.topic, row.partition))} for row in lag.partitions]


def _keys(partitions: Sequence[TopicPartitions]) -> list[PartitionKey]:
    return [(entry.topic, number) for entry in partitions for number in entry.partitions]


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    """Every field, also those that are at their default."""
    return {name: msgspec.to_builtins(getattr(value, name)) for name in value.__struct_fields__}


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "lag_seconds": duration(row["lag_seconds"])}


def _member_in_words(member: GroupMember) -> dict[str, Any]:
    age = f"{duration(member.heartbeat_age_ms / 1000)} ago"
    owned, wanted = spans(member.owned), spans(member.assignment)
    return {**_fields(member), "heartbeat_age_ms": age, "owned": owned, "assignment": wanted}
