"""The group commands against a cluster in memory: what they print, ask, refuse and change."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from minilog.cli.group import group
from minilog.cli.group.api import GroupApi, ask_each
from minilog.cli.group.view import duration, spans, summary
from minilog.cli.main import run
from minilog.cli.output import COLUMNS_MAX
from minilog.errors import BrokerUnavailable, GroupNotEmpty, UnknownGroup
from minilog.wire.group_messages import GroupInfo, TopicPartitions
from minilog.wire.json.json_answers import GroupDescription, OffsetFound
from minilog.wire.json.lag_answers import LagOfGroup, PartitionLag

STARTS = {("orders", 0): 10, ("orders", 1): 0, ("clicks", 0): 0}
ENDS = {("orders", 0): 100, ("orders", 1): 20, ("clicks", 0): 5}
MEMBER = {
    "member_id": "6f9b0c7d-1", "member_epoch": 4, "client_id": "app", "instance_id": "one", "heartbeat_age_ms": 400,
    "topics": ["orders"], "owned": [{"topic": "orders", "partitions": [0, 1]}],
    "assignment": [{"topic": "orders", "partitions": [0]}],
}  # fmt: skip


class Cluster(GroupApi):
    """Two topics. The groups in it by name."""

    committed_by: dict[str, dict[tuple[str, int], int]]
    members: list[dict[str, Any]]
    missing: list[dict[str, Any]] = []
    silent: bool

    def __init__(self, url: str | None = None) -> None:
        pass

    def call(self, route: str, query: Any = None, body: Any = None, **values: Any) -> bytes:
        if self.silent:
            raise BrokerUnavailable("nobody answers")
        return json.dumps(getattr(self, f"on_{route}")(query or {}, body, **values)).encode()

    def on_list_groups(self, query: Any, body: Any) -> Any:
        return {"groups": [self.info(name) for name in reversed(self.committed_by)], "missing": self.missing}

    def info(self, name: str) -> dict[str, Any]:
        if name not in self.committed_by:
            raise UnknownGroup(f"there is no group {name!r}")
        state = "stable" if self.members else "empty"
        return {"group": name, "state": state, "group_epoch": 4, "members": len(self.members), "assignor": "sticky"}

    def on_describe_group(self, query: Any, body: Any, group: str) -> Any:
        about = {"coordinator": 2, "rebalances": 3, "last_rebalance_ms": 1340}
        return {"group": self.info(group), "members": self.members, **about}

    def on_group_lag(self, query: Any, body: Any, group: str) -> Any:
        rows: list[dict[str, Any]] = [
            {
                "topic": key[0], "partition": key[1], "committed": offset, "high_watermark": ENDS[key],
                "lag": ENDS[key] - offset, "lag_seconds": 0.0 if offset == ENDS[key] else 250.0,
            }
            for key, offset in sorted(self.committed_by.get(group, {}).items())
        ]  # fmt: skip
        lag, seconds = sum(row["lag"] for row in rows), max((row["lag_seconds"] for row in rows), default=0.0)
        return {"group": group, "lag": lag, "lag_seconds": seconds, "partitions": rows}

    def on_committed_offsets(self, query: Any, body: Any, group: str) -> Any:
        found = self.committed_by.get(group, {})
        return {"offsets": [{"topic": key[0], "partition": key[1], "offset": offset} for key, offset in found.items()]}

    def on_commit_offsets(self, query: Any, body: Any, group: str) -> Any:
        moved = {(entry["topic"], entry["partition"]): entry["offset"] for entry in body["offsets"]}
        self.committed_by.setdefault(group, {}).update(moved)
        return {}

    def on_delete_group(self, query: Any, body: Any, group: str) -> Any:
        if self.info(group)["members"]:
            raise GroupNotEmpty(f"group {group!r} has members; stop them first")
        del self.committed_by[group]
        return {}

    def on_offsets(self, query: Any, body: Any, topic: str, partition: int) -> Any:
        key = (topic, partition)
        offset = {"earliest": STARTS[key], "latest": ENDS[key]}.get(query["at"], 12)
        return msgspec.to_builtins(OffsetFound(*key, offset, None, None, "id"))

    def on_metadata(self, query: Any, body: Any) -> Any:
        counts = {"orders": 2, "clicks": 1}
        topics = [
            {
                "topic": name, "topic_id": name, "config": {},
                "partitions": [
                    {"partition": n, "leader": 1, "leader_epoch": 0, "partition_epoch": 0, "replicas": [1], "isr": [1]}
                    for n in range(counts[name])
                ],
            }
            for name in query["topics"].split(",") if name in counts
        ]  # fmt: skip
        return {"cluster_id": "c", "metadata_offset": 1, "controller_epoch": 1, "brokers": [], "topics": topics}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Cluster]:
    """One group, ``billing``, without members."""
    monkeypatch.setattr(group, "GroupApi", Cluster)
    Cluster.committed_by = {"billing": {("orders", 0): 50, ("orders", 1): 20}}
    Cluster.members, Cluster.silent = [], False
    return Cluster


def test_groups_in_a_table_and_as_data(cluster: type[Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.committed_by["audit"] = {}
    assert run(["group", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "GROUP    STATE  MEMBERS  EPOCH  LAG      BEHIND",
        "audit    empty        0      4    0         0 s",
        "billing  empty        0      4   50  4 min 10 s",
    ]
    assert run(["group", "list", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "group": "billing", "state": "empty", "group_epoch": 4, "members": 0, "assignor": "sticky",
        "rebalances": 0, "lag": 50, "lag_seconds": 250.0, "lost": 0,
    }  # fmt: skip
    cluster.committed_by.clear()
    assert run(["group", "list"]) == 0
    assert "no groups" in capsys.readouterr().err


def test_one_group_described(cluster: type[Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.members.append({**MEMBER, "owned": [{"topic": "orders", "partitions": [0, 1]}, {"topic": "clicks", "partitions": [0]}]})  # fmt: skip
    assert run(["group", "describe", "billing"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "group billing: stable, 1 member, epoch 4, assignor sticky",
        "broker 2 coordinates it; 3 rebalances since it took over, the last one took 1,340 ms",
        "lag 50 records, 4 min 10 s behind",
        "",
        "MEMBER      CLIENT  INSTANCE  HEARTBEAT  OWNS",
        "6f9b0c7d-1  app     one       0.4 s ago  orders:0-1 clicks:0",
        "",
        "TOPIC   PARTITION  COMMITTED  END  LAG      BEHIND  OWNER",
        "clicks          0          -    5    -           -  6f9b0c7d-1",
        "orders          0         50  100   50  4 min 10 s  6f9b0c7d-1",
        "orders          1         20   20    0         0 s  6f9b0c7d-1",
    ]
    assert max(map(len, lines)) <= COLUMNS_MAX


@pytest.mark.parametrize(
    ("committed", "end", "why"),
    [(None, 5, "nothing is committed of 1 partition that members have"), (4, None, "not every leader answers")],
)
def test_a_description_says_why_the_lag_is_unknown(committed: int | None, end: int | None, why: str) -> None:
    about = GroupDescription(GroupInfo("billing", "stable", 4, 1), [], 2)
    lag = LagOfGroup("billing", None, None, [PartitionLag("clicks", 0, committed, end, None, None)])
    assert summary(about, lag)[-1] == f"lag unknown: {why}"


def test_a_description_tells_apart_what_retention_took(
    cluster: type[Cluster], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "topic": "orders",
        "partition": 0,
        "committed": 5,
        "high_watermark": 100,
        "lag": 60,
        "lag_seconds": 9.0,
        "lost": 35,
    }
    answer = {"group": "billing", "lag": 60, "lag_seconds": 9.0, "partitions": [row], "lost": 35}
    monkeypatch.setattr(cluster, "on_group_lag", lambda self, query, body, group: answer)
    assert run(["group", "describe", "billing"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "lag 60 records, 9.0 s behind",
        "lost 35 records: retention took them before the group has read them",
    ]
    assert lines[-2].split() == ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "BEHIND", "LOST", "OWNER"]
    assert lines[-1].split()[4:8] == ["60", "9.0", "s", "35"]


def test_a_description_as_data_has_every_field(cluster: type[Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.members.append(MEMBER)
    assert run(["group", "describe", "billing", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["coordinator"], found["rebalances"], found["lag"]) == ("stable", 2, 3, 50)
    assert found["members"] == [{**MEMBER, "pattern": ""}]
    assert found["partitions"][0] == {
        "topic": "orders", "partition": 0, "committed": 50, "high_watermark": 100, "lag": 50, "lag_seconds": 250.0,
        "lost": None, "owner": "6f9b0c7d-1",
    }  # fmt: skip


def test_a_list_that_lacks_a_part_says_so_and_shows_the_rest(
    cluster: type[Cluster], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"partition": 3, "code": "COORDINATOR_NOT_AVAILABLE", "detail": "it has no leader"}
    monkeypatch.setattr(cluster, "missing", [why])
    assert run(["group", "list"]) == 1
    shown = capsys.readouterr()
    assert "billing" in shown.out
    assert "the groups of __groups-3 are missing: it has no leader" in shown.err


def test_seek_shows_and_then_moves(cluster: type[Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["group", "seek", "billing", "--to", "-5", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "TOPIC   PARTITION  COMMITTED  NEW  MOVED",
        "orders          0         50   45     -5",
        "orders          1         20   15     -5",
    ]
    assert "dry run" in printed.err
    assert "10 records are read again" in printed.err
    assert cluster.committed_by["billing"] == {("orders", 0): 50, ("orders", 1): 20}
    assert run(["group", "seek", "billing", "--to", "=3", "-t", "orders:0", "-t", "clicks", "--yes", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["topic"], row["before"], row["after"]) for row in rows] == [("clicks", None, 3), ("orders", 50, 10)]
    assert "before the start" in rows[1]["note"]
    assert cluster.committed_by["billing"] == {("orders", 0): 10, ("orders", 1): 20, ("clicks", 0): 3}
    assert run(["group", "seek", "billing", "--to", "@1700", "-t", "orders", "-y"]) == 0
    assert cluster.committed_by["billing"] == {("orders", 0): 12, ("orders", 1): 12, ("clicks", 0): 3}


def test_seek_that_changes_nothing_and_for_a_new_group(
    cluster: type[Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["group", "seek", "billing", "--to", "+0", "--yes"]) == 0
    assert "nothing to change" in capsys.readouterr().err
    assert run(["group", "seek", "audit", "--to", "latest", "-t", "orders", "--yes"]) == 0
    assert "there is no group 'audit' yet" in capsys.readouterr().err
    assert cluster.committed_by["audit"] == {("orders", 0): 100, ("orders", 1): 20}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["seek", "billing"], 2, "--to"),
        (["seek", "billing", "--to", "5"], 2, "write =5"),
        (["seek", "billing", "--to", "latest"], 2, "say --yes"),
        (["seek", "billing", "--to", "latest", "-t", "orders:", "--yes"], 2, "--topic"),
        (["seek", "billing", "--to", "latest", "-t", "orders:2", "--yes"], 2, "has no partition 2; it has 0 to 1"),
        (["seek", "billing", "--to", "latest", "-t", "nothing", "--yes"], 1, "no topic 'nothing'"),
        (["seek", "billing", "--to", "+1", "-t", "clicks", "--yes"], 1, "no committed offset"),
        (["seek", "nobody", "--to", "latest", "--yes"], 1, "no group 'nobody'"),
        (["describe", "nobody"], 1, "no group 'nobody'"),
        (["delete", "billing"], 2, "say --yes"),
        (["delete", "nobody", "--yes"], 1, "no group 'nobody'"),
        (["list", "-o", "xml"], 2, "xml"),
    ],
)
def test_refusals_are_one_sentence(
    cluster: type[Cluster], arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: dict(found) for name, found in cluster.committed_by.items()}
    assert run(["group", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.startswith("minilog: ")
    assert len(printed.err.splitlines()) == 1
    assert cluster.committed_by == before


def test_a_group_with_members_is_left_alone(cluster: type[Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.members.append(MEMBER)
    for arguments in (["seek", "billing", "--to", "earliest", "--yes"], ["delete", "billing", "--yes"]):
        assert run(["group", *arguments]) == 1
        assert "stop" in capsys.readouterr().err
    assert cluster.committed_by["billing"] == {("orders", 0): 50, ("orders", 1): 20}


def test_delete(cluster: type[Cluster]) -> None:
    assert run(["group", "delete", "billing", "--yes"]) == 0
    assert cluster.committed_by == {}


def test_watching_waits_for_a_cluster_that_is_away(
    cluster: type[Cluster], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float] = []

    def wait(wait_s: float) -> None:
        seconds.append(wait_s)
        cluster.silent = False
        if len(seconds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    cluster.silent = True
    assert run(["group", "list"]) == 3
    assert run(["group", "list", "--watch"]) == 130
    printed = capsys.readouterr()
    assert printed.out.count("billing") == 2
    assert printed.err.count("nobody answers") == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, None), (0.0, "0 s"), (0.04, "0.0 s"), (3.21, "3.2 s"), (59.94, "59.9 s"), (59.97, "1 min"),
        (250.0, "4 min 10 s"), (120.4, "2 min"), (3599.6, "1 h"), (7500, "2 h 5 min"), (86_400, "1 d"),
        (3 * 86_400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, words: str | None) -> None:
    assert duration(seconds) == words


def test_spans() -> None:
    owned = [TopicPartitions("a", [5, 0, 1, 2]), TopicPartitions("b", []), TopicPartitions("c", [7])]
    assert spans(owned) == "a:0-2,5 c:7"
    assert spans([]) == ""


def test_answers_come_in_the_order_of_the_questions() -> None:
    assert ask_each(lambda number: number * 2, range(30)) == list(range(0, 60, 2))
    assert ask_each(str, []) == []
    with pytest.raises(ZeroDivisionError):
        ask_each(lambda number: 1 // number, [1, 0, 2])
